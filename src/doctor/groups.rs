//! The groups: who runs them, and whether they can go on from where they stand.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};

use super::codes;
use super::expected::{Expected, Group};
use super::finding::{Finding, Remedy};
use super::topics;
use crate::clients::denied::PRINCIPAL;
use crate::clients::kafka::{RUNS_GROUP, Resource, allow};
use crate::groups::broker::{self, Broker};
use crate::groups::known::Known;
use crate::groups::partition::Position;
use crate::groups::workers::Worker;
use crate::source::kafka::is_subscribed;

/// Share of a topic's retention, in percent, that the oldest record which is not settled may have used up.
const NEAR_PERCENT: i64 = 50;

/// So long it is told that a process is gone.
const NEWS_FOR: TimeDelta = TimeDelta::minutes(10);

/// What is known of one group.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    /// Members that its coordinator knows; none where there are no brokers.
    pub(super) members: Option<usize>,
    pub(super) positions: Vec<Position>,
    /// Partitions that did not answer.
    pub(super) silent: Vec<String>,
    /// Whether the principal may not even ask for it.
    pub(super) is_denied: bool,
}

/// Asks the brokers about every group, about all at once. Blocks, for a bounded time.
pub(super) fn ask(
    broker: &Broker,
    groups: &[Group],
    topics: &topics::Facts,
) -> Result<BTreeMap<String, Facts>, broker::Error> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = groups
            .iter()
            .map(|group| scope.spawn(|| Ok((group.name.clone(), ask_about(broker, group, topics)?))))
            .collect();
        let ended = threads
            .into_iter()
            .map(|thread| thread.join().expect("asking does not panic"));
        ended.collect()
    })
}

fn ask_about(broker: &Broker, group: &Group, topics: &topics::Facts) -> Result<Facts, broker::Error> {
    let read: BTreeSet<String> = topics.read_by(&group.topics).map(|(name, _)| name.clone()).collect();
    let mut positions = match broker.positions(&group.name, &read) {
        Err(error) if error.is_denied() => {
            return Ok(Facts {
                is_denied: true,
                ..Facts::default()
            });
        }
        answer => answer?,
    };
    broker.read_waiting(&mut positions.known)?;
    let silent = positions.silent.iter();
    let silent = silent.map(|(topic, partition, why)| format!("{topic}[{partition}]: {why}"));
    Ok(Facts {
        members: Some(broker.membership(&group.name)?.members.len()),
        silent: silent.collect(),
        positions: positions.known,
        is_denied: false,
    })
}

/// What is wrong with the groups. `asked` is empty where there are no brokers, or they are away.
pub(super) fn findings(
    asked: &BTreeMap<String, Facts>,
    known: &BTreeMap<String, Known>,
    topics: &topics::Facts,
    expected: &Expected,
    now: DateTime<Utc>,
) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut idle: Vec<(&Group, bool)> = Vec::new();
    for group in &expected.groups {
        let nothing = Known::default();
        let of_postgres = known.get(&group.name);
        let is_new = of_postgres.is_none();
        let of_postgres = of_postgres.unwrap_or(&nothing);
        let runs = match asked.get(&group.name).and_then(|facts| facts.members) {
            Some(members) => members > 0,
            None => of_postgres.workers.iter().any(|worker| worker.runs()),
        };
        if !runs {
            idle.push((group, is_new));
        }
        found.extend(of_processes(group, of_postgres, now));
        let Some(facts) = asked.get(&group.name) else { continue };
        if facts.is_denied {
            found.push(codes::GROUP_DENIED.found(
                format!("group {} may not be described", group.name),
                Remedy::words(format!(
                    "as a superuser of Kafka, with the worker's principal: {}",
                    allow(PRINCIPAL, RUNS_GROUP, &Resource::Group(group.name.clone()))
                )),
            ));
        }
        found.extend(of_positions(group, facts, of_postgres, topics, now));
        found.extend(of_deleted(group, of_postgres, topics));
        if !facts.silent.is_empty() {
            found.push(codes::PARTITION_SILENT.found(
                format!("partitions did not answer: {}", facts.silent.join("; ")),
                Remedy::words("see which broker leads them: kafka-topics.sh --describe --unavailable-partitions"),
            ));
        }
    }
    found.extend(of_idle(&idle));
    found
}

/// One finding for all groups that nobody runs.
fn of_idle(idle: &[(&Group, bool)]) -> Option<Finding> {
    let names: Vec<&str> = idle.iter().map(|(group, _)| group.name.as_str()).collect();
    let shorts: Vec<&str> = idle.iter().map(|(group, _)| group.short.as_str()).collect();
    let new = if idle.iter().all(|(_, is_new)| *is_new) {
        ", and none of them ever ran"
    } else {
        ""
    };
    (!idle.is_empty()).then(|| {
        codes::GROUP_IDLE.found(
            format!("nobody runs {}{new}", names.join(", ")),
            Remedy::shell(format!("afterwrite run --only {}", shorts.join(","))),
        )
    })
}

fn of_processes(group: &Group, known: &Known, now: DateTime<Utc>) -> Vec<Finding> {
    // Whoever died long ago was missed by somebody, or was replaced under another name.
    let is_news = |worker: &Worker| worker.gone && now - worker.seen_at < NEWS_FOR;
    let gone: Vec<String> = known
        .workers
        .iter()
        .filter(|worker| is_news(worker))
        .filter(|gone| {
            !known
                .workers
                .iter()
                .any(|other| other.runs() && other.host == gone.host)
        })
        .map(|worker| format!("{}:{}", worker.host, worker.pid))
        .collect();
    let mut found = Vec::new();
    if !gone.is_empty() {
        found.push(codes::PROCESS_GONE.found(
            format!(
                "group {}: nothing was heard of process {} without a word that it stopped",
                group.name,
                gone.join(", ")
            ),
            Remedy::words(format!(
                "see why it died, or cannot reach Postgres; start it: afterwrite run --only {}",
                group.short
            )),
        ));
    }
    for suspended in known
        .workers
        .iter()
        .filter(|worker| worker.runs())
        .flat_map(|worker| &worker.standing.0.suspended)
    {
        found.push(codes::HANDLER_SUSPENDED.found(
            format!(
                "handler {} is suspended since {}: {}",
                suspended.handler,
                suspended.since.format("%FT%TZ"),
                suspended.why
            ),
            Remedy::words("bring back what it calls; it probes, and goes on by itself"),
        ));
    }
    found
}

fn of_positions(
    group: &Group,
    facts: &Facts,
    known: &Known,
    topics: &topics::Facts,
    now: DateTime<Utc>,
) -> Vec<Finding> {
    let mut found = Vec::new();
    for position in &facts.positions {
        let place = (position.topic.clone(), position.partition);
        let first = known.first_offsets.get(&place).copied().flatten();
        if let Some(stopped) = position.stopped(first) {
            found.push(codes::GROUP_POSITION.found(
                format!("group {}, {}[{}]: {}", group.name, position.topic, position.partition, stopped.in_words()),
                Remedy::shell(format!(
                    "afterwrite replay --group {} --to-offset {}:{}:beginning # when every process of the group is stopped",
                    group.short, position.topic, position.partition
                )),
            ));
            continue;
        }
        let keeps = topics
            .topics
            .get(&position.topic)
            .and_then(|topic| topic.setting("retention.ms")?.parse::<i64>().ok());
        let age_ms = position.waiting_since_ms.map(|since| now.timestamp_millis() - since);
        if let (Some(keeps), Some(age_ms)) = (keeps.filter(|keeps| *keeps > 0), age_ms)
            && age_ms * 100 > keeps * NEAR_PERCENT
        {
            found.push(codes::GROUP_NEAR_RETENTION.found(
                format!(
                    "group {} has not settled a record of {}[{}] that is {} minutes old; the topic keeps {} minutes",
                    group.name,
                    position.topic,
                    position.partition,
                    age_ms / 60_000,
                    keeps / 60_000
                ),
                Remedy::shell(crate::clients::kafka::alter_topic(
                    &position.topic,
                    &format!("retention.ms={}", keeps * 2),
                )),
            ));
        }
    }
    found
}

/// Topics that the group has read, and that are not there any more.
fn of_deleted(group: &Group, known: &Known, topics: &topics::Facts) -> Option<Finding> {
    let gone: Vec<String> = known
        .topics()
        .into_iter()
        .filter(|topic| is_subscribed(&group.topics, topic) && !topics.topics.contains_key(topic))
        .collect();
    (!gone.is_empty()).then(|| {
        codes::TOPIC_GONE.found(
            format!("group {} has read {}, which is gone", group.name, gone.join(", ")),
            Remedy::words(format!(
                "the connector makes the topic again with the next change; when it has: stop the group, afterwrite replay --group {} \
                 --to-offset TOPIC:PARTITION:beginning",
                group.short
            )),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::expected;
    use super::*;

    fn position(committed: Option<i64>, waiting_since_ms: Option<i64>) -> Position {
        Position {
            topic: "aw.public.orders".to_owned(),
            partition: 0,
            committed,
            oldest: 5,
            end: 20,
            waiting_since_ms,
        }
    }

    fn known() -> Known {
        Known {
            first_offsets: [(("aw.public.orders".to_owned(), 0), Some(0))].into(),
            ..Known::default()
        }
    }

    fn found(facts: Facts, topics: &topics::Facts) -> Vec<&'static str> {
        let (asked, known) = (
            [("aw.email".to_owned(), facts)].into(),
            [("aw.email".to_owned(), known())].into(),
        );
        let now = DateTime::from_timestamp_millis(100_000).unwrap();
        findings(&asked, &known, topics, &expected(), now)
            .iter()
            .map(|finding| finding.code.name)
            .collect()
    }

    #[test]
    fn what_keeps_a_group_from_going_on_is_told() {
        let topic = topics::Topic {
            settings: Some([("retention.ms".to_owned(), "100000".to_owned())].into()),
            ..topics::Topic::default()
        };
        let there = topics::Facts {
            topics: [("aw.public.orders".to_owned(), topic)].into(),
            brokers: 1,
            ..topics::Facts::default()
        };
        let facts = |members, positions| Facts {
            members: Some(members),
            positions,
            ..Facts::default()
        };
        for (facts, topics, codes) in [
            (facts(1, vec![position(Some(5), Some(60_000))]), &there, &[][..]),
            (
                facts(1, vec![position(Some(5), Some(40_000))]),
                &there,
                &["group-near-retention"],
            ),
            (facts(1, vec![position(Some(4), None)]), &there, &["group-position"]),
            (facts(1, vec![position(None, None)]), &there, &["group-position"]),
            (facts(0, vec![position(Some(5), None)]), &there, &["group-idle"]),
            (facts(1, Vec::new()), &topics::Facts::default(), &["topic-gone"]),
        ] {
            assert_eq!(found(facts, topics), codes);
        }
        let silent = Facts {
            members: Some(1),
            silent: vec!["x".to_owned()],
            ..Facts::default()
        };
        assert_eq!(found(silent, &there), ["partition-silent"]);
        let denied = Facts {
            is_denied: true,
            ..Facts::default()
        };
        // Whether somebody runs it is told by what processes write into Postgres.
        assert_eq!(found(denied, &there), ["group-denied", "group-idle"]);
    }
}
