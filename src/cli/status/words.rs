//! The report for people: a line a group, then what somebody has to look at.

use chrono::{DateTime, Utc};

use crate::cli::output::{since, size, span, table};
use crate::cli::status::notes;
use crate::cli::status::report::{Group, PartitionOf, ProcessOf, Report, State};
use crate::config::Config;

/// Nothing is known, or there is nothing.
const NONE: &str = "-";

pub(super) fn in_words(report: &Report, config: &Config, detailed: bool) -> String {
    let mut parts = Vec::new();
    if report.groups.is_empty() && report.missing.is_empty() {
        parts.push("no group ever ran here; `afterwrite run` starts them".to_owned());
    }
    if !report.groups.is_empty() {
        parts.push(groups(report, config));
    }
    if detailed {
        parts.extend(report.groups.iter().flat_map(|group| details(group, report.at)));
    }
    let mut notes: Vec<String> = report
        .groups
        .iter()
        .flat_map(|group| notes::of_group(group, config.short_group_name(&group.group), report))
        .collect();
    notes.extend(notes::of_slots(report));
    notes.extend(notes::of_graduation(report));
    if !notes.is_empty() {
        parts.push(notes.join("\n"));
    }
    let missing = report.missing.iter();
    let missing: Vec<String> = missing
        .map(|missing| format!("! {} could not be asked: {}", missing.part, missing.why))
        .collect();
    if !missing.is_empty() {
        parts.push(missing.join("\n"));
    }
    parts.join("\n\n")
}

/// The columns of a group.
const COLUMNS: [&str; 10] = [
    "group",
    "state",
    "procs",
    "parts",
    "lag",
    "behind",
    "run/wait/retry",
    "oldest job",
    "open/parked",
    "progress",
];

/// Without the partitions, which only a broker knows.
fn without_broker<T>([group, state, procs, _, lag, behind, jobs, oldest, letters, progress]: [T; 10]) -> [T; 9] {
    [group, state, procs, lag, behind, jobs, oldest, letters, progress]
}

fn groups(report: &Report, config: &Config) -> String {
    let rows = report.groups.iter().map(|group| {
        [
            config.short_group_name(&group.group).to_owned(),
            word(group.state).to_owned(),
            running(group).count().to_string(),
            known(group.partitions.as_ref().map(Vec::len)),
            lag(group),
            group.lag_s.map_or_else(|| NONE.to_owned(), span),
            group.jobs.as_ref().map_or_else(
                || NONE.to_owned(),
                |jobs| format!("{}/{}/{}", jobs.running, jobs.waiting, jobs.retrying),
            ),
            group
                .oldest_open
                .as_ref()
                .map_or_else(|| NONE.to_owned(), |job| since(report.at, job.since)),
            match (group.letters_open, group.letters_parked) {
                (Some(open), Some(parked)) => format!("{open}/{parked}"),
                _ => NONE.to_owned(),
            },
            group
                .progressed_at
                .map_or_else(|| NONE.to_owned(), |at| since(report.at, at)),
        ]
    });
    match config.source.kind.has_brokers() {
        true => table(COLUMNS, rows),
        false => table(without_broker(COLUMNS), rows.map(without_broker)),
    }
}

fn details(group: &Group, at: DateTime<Utc>) -> Vec<String> {
    let mut parts = Vec::new();
    if !group.processes.is_empty() {
        let names = [
            "process",
            "state",
            "version",
            "started",
            "seen",
            "partitions",
            "run/wait/retry",
            "window",
        ];
        parts.push(table(
            names,
            group.processes.iter().map(|process| process_row(process, at)),
        ));
    }
    if let Some(partitions) = group.partitions.as_ref().filter(|partitions| !partitions.is_empty()) {
        let names = ["partition", "position", "oldest", "end", "lag", "behind", "owner"];
        parts.push(table(names, partitions.iter().map(partition_row)));
    }
    let owned: Vec<[String; 4]> = match group.partitions {
        Some(_) => Vec::new(),
        None => running(group).flat_map(owned_rows).collect(),
    };
    if !owned.is_empty() {
        parts.push(table(["partition", "frontier", "window", "owner"], owned));
    }
    if let Some(job) = &group.oldest_open {
        parts.push(format!(
            "oldest open job: {} at {}[{}] offset {}, written {} ago",
            job.handler,
            job.topic,
            job.partition,
            job.offset,
            since(at, job.since)
        ));
    }
    let letters: Vec<String> = group
        .letters
        .iter()
        .flatten()
        .filter(|letters| letters.class != "parked")
        .map(|letters| format!("{} {} {}", letters.count, letters.class, letters.state))
        .collect();
    if !letters.is_empty() {
        parts.push(format!("dead letters: {}", letters.join(", ")));
    }
    parts
}

fn running(group: &Group) -> impl Iterator<Item = &ProcessOf> {
    group.processes.iter().filter(|process| process.state == "running")
}

/// What a process says of the partitions it owns.
fn owned_rows(process: &ProcessOf) -> impl Iterator<Item = [String; 4]> {
    process.standing.partitions.iter().map(|owned| {
        [
            format!("{}[{}]", owned.topic, owned.partition),
            known(owned.frontier),
            owned.buffered_events.to_string(),
            format!("{}:{}", process.host, process.pid),
        ]
    })
}

fn process_row(process: &ProcessOf, at: DateTime<Utc>) -> [String; 8] {
    let standing = &process.standing;
    [
        format!("{}:{}", process.host, process.pid),
        process.state.to_owned(),
        process.version.clone(),
        format!("{} ago", since(at, process.started_at)),
        format!("{} ago", since(at, process.seen_at)),
        standing.partitions.len().to_string(),
        format!("{}/{}/{}", standing.running, standing.waiting, standing.retrying),
        format!("{}/{}", standing.buffered_events, standing.buffered_events_max),
    ]
}

fn partition_row(partition: &PartitionOf) -> [String; 7] {
    let position = &partition.position;
    [
        format!("{}[{}]", position.topic, position.partition),
        known(position.committed),
        position.oldest.to_string(),
        position.end.to_string(),
        partition.lag_events.to_string(),
        partition.lag_s.map_or_else(|| NONE.to_owned(), span),
        match (&partition.stopped, &partition.process) {
            (Some(_), _) => "stopped".to_owned(),
            (None, Some(process)) => process.clone(),
            (None, None) => NONE.to_owned(),
        },
    ]
}

fn word(state: State) -> &'static str {
    match state {
        State::Running => "running",
        State::Stopped => "stopped",
        State::Unknown => "unknown",
    }
}

/// Offsets, or bytes of log.
fn lag(group: &Group) -> String {
    match &group.slot {
        Some(slot) => known(slot.lag_bytes.map(size)),
        None => known(group.lag_events),
    }
}

fn known(number: Option<impl ToString>) -> String {
    number.map_or_else(|| NONE.to_owned(), |number| number.to_string())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use sqlx::types::Json;
    use uuid::Uuid;

    use super::*;
    use crate::cli::status::report::{Missing, Observed};
    use crate::config::{Source, SourceKind};
    use crate::engine::standing::{OpenJob, OwnedPartition, Standing};
    use crate::groups::broker::{Member, Membership, Positions};
    use crate::groups::known::{Known, Letters};
    use crate::groups::partition::Position;
    use crate::groups::workers::Worker;

    const NAME: &str = "afterwrite.position";
    const TOPIC: &str = "waitlist.public.waitlist_users";

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_782_907_200 + seconds, 0).unwrap()
    }

    fn worker(pid: i64) -> Worker {
        Worker {
            group_name: NAME.to_owned(),
            owner: Uuid::nil(),
            host: "worker-7f8c9d5b4-abcde".to_owned(),
            pid,
            version: "0.1.0".to_owned(),
            started_at: at(-90_000),
            seen_at: at(-1),
            progressed_at: Some(at(-100_000)),
            stopped_at: None,
            gone: false,
            standing: Json(Standing {
                running: 10,
                waiting: 9_990,
                retrying: 100,
                oldest_open: Some(OpenJob {
                    handler: "position".to_owned(),
                    topic: TOPIC.to_owned(),
                    partition: 3,
                    offset: 7,
                    since: at(-90_061),
                }),
                partitions: vec![OwnedPartition {
                    topic: TOPIC.to_owned(),
                    partition: 3,
                    frontier: Some(7),
                    buffered_events: 4,
                    paused: false,
                }],
                ..Standing::default()
            }),
        }
    }

    fn observed(committed: Option<i64>) -> Observed {
        Observed {
            membership: Membership {
                state: "Stable".to_owned(),
                members: vec![Member {
                    id: "rdkafka-1".to_owned(),
                    host: "10.0.0.1".to_owned(),
                }],
            },
            positions: Positions {
                known: vec![Position {
                    topic: TOPIC.to_owned(),
                    partition: 3,
                    committed,
                    oldest: 100,
                    end: 123_456_789,
                    waiting_since_ms: Some(at(-90_061).timestamp_millis()),
                }],
                silent: Vec::new(),
            },
        }
    }

    fn report(known: Option<Known>, observed: Option<Observed>, missing: Vec<Missing>) -> Report {
        let known = known.map(|known| BTreeMap::from([(NAME.to_owned(), known)]));
        let observed = observed
            .map(|observed| (NAME.to_owned(), observed))
            .into_iter()
            .collect();
        Report::of(
            at(0),
            vec![NAME.to_owned()],
            known.as_ref(),
            Some(&observed),
            None,
            missing,
        )
    }

    fn known(workers: Vec<Worker>) -> Known {
        Known {
            handlers: vec!["position".to_owned()],
            first_offsets: [((TOPIC.to_owned(), 3), Some(0))].into(),
            letters: vec![Letters {
                class: "exhausted".to_owned(),
                state: "open".to_owned(),
                count: 12_345,
            }],
            events_parked: 0,
            workers,
        }
    }

    #[test]
    fn a_line_says_how_a_group_is_and_fits_a_terminal() {
        let report = report(
            Some(known(vec![worker(1), worker(2)])),
            Some(observed(Some(50))),
            Vec::new(),
        );
        let said = in_words(&report, &Config::default(), false);
        let mut lines = said.lines();
        let (names, line) = (lines.next().unwrap(), lines.next().unwrap());
        assert!(names.len() <= 110 && line.len() <= 110, "{said}");
        let words: Vec<&str> = line.split_whitespace().collect();
        let expected = [
            "position",
            "running",
            "2",
            "1",
            "123456689",
            "1d01h",
            "20/19980/200",
            "1d01h",
            "12345/0",
            "1d03h",
        ];
        assert_eq!(words, expected);
        for expected in [
            "50 offsets before the oldest record are gone",
            "afterwrite replay --group position --to-offset waitlist.public.waitlist_users:3:beginning",
            "afterwrite dlq list --group position --state open",
        ] {
            assert!(said.contains(expected), "{expected}: {said}");
        }
    }

    #[test]
    fn what_could_not_be_asked_is_said_and_not_guessed() {
        let away = |part| Missing {
            part,
            why: "nobody listens".to_owned(),
        };
        let stopped = Worker {
            stopped_at: Some(at(-5)),
            ..worker(1)
        };
        let gone = Worker {
            gone: true,
            ..worker(1)
        };
        let empty = || Observed::default();
        for (workers, seen, missing, state) in [
            (Some(vec![worker(1)]), None, vec![away("kafka")], State::Running),
            (Some(vec![stopped.clone()]), None, vec![away("kafka")], State::Unknown),
            (Some(vec![stopped]), Some(empty()), vec![], State::Stopped),
            (Some(vec![gone]), Some(empty()), vec![], State::Stopped),
            (Some(vec![]), Some(observed(Some(200))), vec![], State::Running),
            (None, Some(observed(Some(200))), vec![away("postgres")], State::Running),
            (None, Some(empty()), vec![away("postgres")], State::Unknown),
        ] {
            let is_missing = missing.first().map(|missing| missing.part);
            let report = report(workers.map(known), seen, missing);
            assert_eq!(report.groups[0].state, state, "{report:?}");
            let said = in_words(&report, &Config::default(), true);
            assert_eq!(
                said.contains("could not be asked: nobody listens"),
                is_missing.is_some(),
                "{said}"
            );
        }
    }

    #[test]
    fn without_brokers_what_postgres_knows_is_all_there_is_to_know() {
        let config = Config {
            source: Source {
                kind: SourceKind::Wal,
                ..Source::default()
            },
            ..Config::default()
        };
        let stopped = Worker {
            stopped_at: Some(at(-5)),
            ..worker(1)
        };
        for (workers, state, is_owned) in [
            (vec![worker(1)], State::Running, true),
            (vec![stopped], State::Stopped, false),
        ] {
            let known = BTreeMap::from([(NAME.to_owned(), known(workers))]);
            let report = Report::of(at(0), vec![NAME.to_owned()], Some(&known), None, None, Vec::new());
            assert_eq!(report.groups[0].state, state);
            let said = in_words(&report, &config, true);
            for (part, is_said) in [
                (" parts", false),
                ("asked", false),
                ("12345/0", true),
                ("12345 exhausted open", true),
                ("frontier", is_owned),
            ] {
                assert_eq!(said.contains(part), is_said, "{part}: {said}");
            }
            let json = serde_json::to_value(&report.groups[0]).unwrap();
            for unknown in ["membership", "partitions", "lag_events", "lag_s", "slot"] {
                assert_eq!(json.get(unknown), Some(&serde_json::Value::Null), "{unknown}");
            }
        }
    }

    #[test]
    fn without_postgres_only_partitions_with_a_position_are_the_groups() {
        for (committed, partitions) in [(Some(200), 1), (None, 0)] {
            let report = report(None, Some(observed(committed)), Vec::new());
            assert_eq!(report.groups[0].partitions.as_ref().unwrap().len(), partitions);
        }
        let lost = report(Some(known(vec![])), Some(observed(None)), Vec::new());
        assert_eq!(lost.groups[0].stopped, 1);
        let said = in_words(&lost, &Config::default(), false);
        assert!(said.contains("the committed offset was lost"), "{said}");
    }
}
