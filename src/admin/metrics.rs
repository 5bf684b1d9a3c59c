//! What a process tells a Prometheus server, in the text form of OpenMetrics.
//!
//! Values are those that each driver told last; a registry is made for every scrape. Labels are names of groups, handlers
//! and closed lists, never names of topics or of anything that grows.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::admin::Group;
use crate::admin::histogram::Histogram;
use crate::engine::standing::Standing;
use crate::schedule::runner::Standings;

/// What a scrape is answered as.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Labels = Vec<(&'static str, String)>;
type Count = Family<Labels, Counter>;
type Level = Family<Labels, Gauge<f64, AtomicU64>>;
type Spread = Family<Labels, Histogram>;

/// The families, in the order in which they are printed.
#[derive(Default)]
struct Families {
    records: Count,
    skips: Count,
    attempts: Count,
    dead_letters: Count,
    replays: Count,
    jobs: Level,
    suspended: Level,
    parked: Count,
    lagging: Level,
    parked_lanes: Level,
    oldest_open: Level,
    partitions: Level,
    paused: Level,
    buffered_events: Level,
    buffered_events_max: Level,
    buffered_bytes: Level,
    buffered_bytes_max: Level,
    slot_lag: Level,
    events_behind: Level,
    attempt_durations: Spread,
    ages: Spread,
    scheduled_attempts: Count,
    scheduled_oldest_open: Level,
}

/// Everything, as text.
pub(super) fn text(groups: &[Group], scheduled: &Standings) -> String {
    let families = Families::default();
    for group in groups {
        families.fill(group, &group.standing.borrow());
    }
    families.fill_scheduled(scheduled);
    let mut registry = Registry::with_prefix("afterwrite");
    families.register(&mut registry);
    let mut text = String::new();
    if let Err(error) = encode(&mut text, &registry) {
        // A scrape that ends without its last line counts as failed, and says why to whoever looks.
        write!(text, "# {error}").expect("a string takes everything");
    }
    text
}

impl Families {
    fn fill(&self, group: &Group, standing: &Standing) {
        let with = |more: &[(&'static str, &str)]| {
            let mut labels = vec![("group", group.name.clone())];
            labels.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
            labels
        };
        let own = with(&[]);
        let counts = &standing.counts;
        let add = |family: &Count, labels: &Labels, count: u64| {
            family.get_or_create(labels).inc_by(count);
        };
        add(&self.records, &own, counts.delivered);
        for (reason, count) in &counts.skipped {
            add(&self.skips, &with(&[("reason", reason)]), *count);
        }
        for (handler, counts) in group.handlers.iter().zip(&counts.handlers) {
            for (outcome, count) in &counts.attempts {
                let labels = with(&[("handler", handler), ("outcome", outcome)]);
                add(&self.attempts, &labels, *count);
            }
            let labels = with(&[("handler", handler)]);
            self.attempt_durations.get_or_create(&labels).set(&counts.durations);
            self.ages.get_or_create(&labels).set(&counts.ages);
        }
        for (class, count) in &counts.letters {
            add(&self.dead_letters, &with(&[("class", class)]), *count);
        }
        add(&self.replays, &own, counts.replayed);
        add(&self.parked, &own, counts.parked);
        let states = [
            ("running", standing.running),
            ("waiting", standing.waiting),
            ("retrying", standing.retrying),
            ("burying", standing.burying),
        ];
        for (state, jobs) in states {
            set(&self.jobs, &with(&[("state", state)]), jobs);
        }
        for handler in &group.handlers {
            let is_suspended = standing.suspended.iter().any(|other| other.handler == *handler);
            set(
                &self.suspended,
                &with(&[("handler", handler)]),
                usize::from(is_suspended),
            );
        }
        if let Some(oldest) = &standing.oldest_open {
            let at = self.oldest_open.get_or_create(&own);
            #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 have 41 bits")]
            at.set(oldest.since.timestamp_millis() as f64 / 1_000.0);
        }
        let paused = standing.partitions.iter().filter(|partition| partition.paused).count();
        set(&self.lagging, &own, usize::from(standing.lagging));
        set(&self.parked_lanes, &own, standing.parked_lanes);
        set(&self.partitions, &own, standing.partitions.len());
        set(&self.paused, &own, paused);
        set(&self.buffered_events, &own, standing.buffered_events);
        set(&self.buffered_events_max, &own, standing.buffered_events_max);
        set(&self.buffered_bytes, &own, standing.buffered_bytes);
        set(&self.buffered_bytes_max, &own, standing.buffered_bytes_max);
        if let Some(behind) = group.events_behind.as_ref().and_then(|distance| distance.told()) {
            set(&self.events_behind, &own, usize::try_from(behind).unwrap_or(usize::MAX));
        }
        if let Some(log_behind) = &group.log_behind {
            let bytes = usize::try_from(log_behind.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
            set(&self.slot_lag, &own, bytes);
        }
    }

    fn fill_scheduled(&self, scheduled: &Standings) {
        for (job, standing) in scheduled {
            for (outcome, count) in [("done", standing.done), ("failed", standing.failed)] {
                let labels = vec![("job", job.clone()), ("outcome", outcome.to_owned())];
                self.scheduled_attempts.get_or_create(&labels).inc_by(count);
            }
            if let Some(tick) = standing.oldest_open {
                let at = self.scheduled_oldest_open.get_or_create(&vec![("job", job.clone())]);
                #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 have 41 bits")]
                at.set(tick.timestamp_millis() as f64 / 1_000.0);
            }
        }
    }

    fn register(self, to: &mut Registry) {
        self.register_counts(to);
        self.register_levels(to);
    }

    fn register_counts(&self, to: &mut Registry) {
        to.register("records", "Records that arrived", self.records.clone());
        to.register("skips", "Records that woke nobody", self.skips.clone());
        to.register("attempts", "Attempts that ended, by how", self.attempts.clone());
        to.register_with_unit(
            "attempt_duration",
            "How long attempts took",
            Unit::Seconds,
            self.attempt_durations.clone(),
        );
        to.register_with_unit(
            "commit_to_done",
            "From the commit of a change in the source's database to the end of the attempt that did it; the oldest of each attempt",
            Unit::Seconds,
            self.ages.clone(),
        );
        to.register(
            "dead_letters",
            "Dead letters that became durable, by class",
            self.dead_letters.clone(),
        );
        to.register("replays", "Dead letters that came back", self.replays.clone());
        to.register(
            "parked",
            "Jobs that were parked as letters because of lag",
            self.parked.clone(),
        );
        to.register(
            "scheduled_attempts",
            "Attempts at scheduled runs that ended in this process",
            self.scheduled_attempts.clone(),
        );
    }

    fn register_levels(self, to: &mut Registry) {
        to.register("jobs", "Jobs that are neither done nor buried", self.jobs);
        to.register(
            "suspended",
            "Whether only probes of the handler are let through",
            self.suspended,
        );
        to.register(
            "lagging",
            "Whether jobs that wait are parked as letters because of lag",
            self.lagging,
        );
        to.register(
            "parked_lanes",
            "Lanes held back behind a buried head",
            self.parked_lanes,
        );
        to.register_with_unit(
            "oldest_open_job_timestamp",
            "When the oldest record with an open job was written; absent when there is none",
            Unit::Seconds,
            self.oldest_open,
        );
        to.register("partitions", "Partitions that this process owns", self.partitions);
        to.register(
            "paused_partitions",
            "Partitions whose share of the window is used up",
            self.paused,
        );
        to.register(
            "buffered_events",
            "Records from the frontiers to the newest arrivals",
            self.buffered_events,
        );
        to.register("buffered_events_max", "How many these may be", self.buffered_events_max);
        to.register_with_unit(
            "buffered",
            "Size of the unsettled records",
            Unit::Bytes,
            self.buffered_bytes,
        );
        to.register_with_unit(
            "buffered_max",
            "How much these may be",
            Unit::Bytes,
            self.buffered_bytes_max,
        );
        to.register(
            "events_behind",
            "Records between the committed positions and the ends of the topics; absent while that is not known, and where the log is read",
            self.events_behind,
        );
        to.register_with_unit(
            "slot_lag",
            "Log that was sent and is not confirmed; absent where topics are read",
            Unit::Bytes,
            self.slot_lag,
        );
        to.register_with_unit(
            "scheduled_oldest_open_timestamp",
            "The oldest tick of the job that is neither done nor given up, in any process; absent when there is none",
            Unit::Seconds,
            self.scheduled_oldest_open,
        );
    }
}

#[expect(clippy::cast_precision_loss, reason = "nothing here reaches 2 to the 53")]
fn set(family: &Level, labels: &Labels, value: usize) {
    family.get_or_create(labels).set(value as f64);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;
    use std::time::Duration;

    use chrono::DateTime;
    use tokio::sync::watch;

    use super::*;
    use crate::engine::counts::{Counts, HandlerCounts};
    use crate::engine::durations::Durations;
    use crate::engine::standing::{OpenJob, OwnedPartition, Suspended};
    use crate::event::distance::Distance;

    fn durations(ms: &[u64]) -> Durations {
        let mut durations = Durations::default();
        ms.iter().for_each(|ms| durations.observe(Duration::from_millis(*ms)));
        durations
    }

    /// A group that reads the log and one that reads topics, of which there is something to say about everything.
    fn groups() -> [Group; 2] {
        let since = DateTime::from_timestamp_millis(1_780_000_000_500).unwrap();
        let standing = Standing {
            running: 3,
            retrying: 2,
            suspended: vec![Suspended {
                handler: "email".to_owned(),
                since,
                why: "outage".to_owned(),
            }],
            oldest_open: Some(OpenJob {
                handler: "email".to_owned(),
                topic: "waitlist.public.users".to_owned(),
                partition: 1,
                offset: 7,
                since,
            }),
            partitions: vec![OwnedPartition {
                topic: "waitlist.public.users".to_owned(),
                partition: 1,
                frontier: None,
                buffered_events: 5,
                paused: true,
            }],
            counts: Counts {
                delivered: 9,
                skipped: [("heartbeat", 4)].into(),
                done: 5,
                failed: 1,
                buried: 2,
                replayed: 0,
                parked: 6,
                letters: [("permanent", 2)].into(),
                handlers: vec![HandlerCounts {
                    attempts: [("done", 5), ("timed_out", 1)].into(),
                    durations: durations(&[3, 700]),
                    ages: durations(&[1_500]),
                }],
            },
            ..Standing::default()
        };
        let (_told, standing) = watch::channel(standing);
        let group = Group {
            name: "afterwrite.email".to_owned(),
            handlers: vec!["email".to_owned()],
            standing,
            log_behind: Some(Arc::new(AtomicU64::new(7_000))),
            events_behind: Some(Arc::default()),
        };
        let behind = Distance::default();
        behind.tell(Some(42));
        let of_topics = Group {
            name: "afterwrite.reward".to_owned(),
            log_behind: None,
            events_behind: Some(Arc::new(behind)),
            ..group.clone()
        };
        [group, of_topics]
    }

    fn scheduled() -> Standings {
        let digest = crate::schedule::runner::Standing {
            done: 8,
            failed: 2,
            oldest_open: DateTime::from_timestamp_millis(1_780_000_000_500),
        };
        Standings::from([("digest".to_owned(), digest)])
    }

    #[test]
    fn a_scrape_says_where_each_group_stands() {
        let text = text(&groups(), &Standings::new());
        assert!(
            !text.contains(r#"afterwrite_slot_lag_bytes{group="afterwrite.reward"}"#),
            "{text}"
        );
        assert!(
            !text.contains(r#"afterwrite_events_behind{group="afterwrite.email"}"#),
            "{text}"
        );
        for line in [
            r#"afterwrite_records_total{group="afterwrite.email"} 9"#,
            r#"afterwrite_skips_total{group="afterwrite.email",reason="heartbeat"} 4"#,
            r#"afterwrite_attempts_total{group="afterwrite.email",handler="email",outcome="timed_out"} 1"#,
            r#"afterwrite_attempt_duration_seconds_sum{group="afterwrite.email",handler="email"} 0.703"#,
            r#"afterwrite_attempt_duration_seconds_count{group="afterwrite.email",handler="email"} 2"#,
            r#"afterwrite_attempt_duration_seconds_bucket{le="0.005",group="afterwrite.email",handler="email"} 1"#,
            r#"afterwrite_attempt_duration_seconds_bucket{le="0.5",group="afterwrite.email",handler="email"} 1"#,
            r#"afterwrite_attempt_duration_seconds_bucket{le="1.0",group="afterwrite.email",handler="email"} 2"#,
            r#"afterwrite_attempt_duration_seconds_bucket{le="+Inf",group="afterwrite.email",handler="email"} 2"#,
            r#"afterwrite_commit_to_done_seconds_sum{group="afterwrite.email",handler="email"} 1.5"#,
            r#"afterwrite_dead_letters_total{group="afterwrite.email",class="permanent"} 2"#,
            r#"afterwrite_events_behind{group="afterwrite.reward"} 42.0"#,
            r#"afterwrite_parked_total{group="afterwrite.email"} 6"#,
            r#"afterwrite_lagging{group="afterwrite.email"} 0.0"#,
            r#"afterwrite_jobs{group="afterwrite.email",state="retrying"} 2.0"#,
            r#"afterwrite_suspended{group="afterwrite.email",handler="email"} 1.0"#,
            r#"afterwrite_oldest_open_job_timestamp_seconds{group="afterwrite.email"} 1780000000.5"#,
            r#"afterwrite_paused_partitions{group="afterwrite.email"} 1.0"#,
            r#"afterwrite_buffered_bytes{group="afterwrite.email"} 0.0"#,
            r#"afterwrite_slot_lag_bytes{group="afterwrite.email"} 7000.0"#,
            "# EOF",
        ] {
            assert!(text.lines().any(|printed| printed == line), "{line} is not in\n{text}");
        }
    }

    /// Every word of a text that looks like a metric of ours.
    fn metrics_named_in(text: &str) -> BTreeSet<&str> {
        let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        words.filter(|word| word.starts_with("afterwrite_")).collect()
    }

    #[test]
    fn what_alerts_and_dashboard_ask_for_exists_and_the_manual_has_all_of_it() {
        let text = text(&groups(), &scheduled());
        let mut printed = BTreeSet::new();
        for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (name, kind) = line.split_once(' ').unwrap();
            let suffixes: &[&str] = match kind {
                "counter" => &["_total"],
                "histogram" => &["", "_bucket", "_sum", "_count"],
                _ => &[""],
            };
            printed.extend(suffixes.iter().map(|suffix| format!("{name}{suffix}")));
        }
        let read = |path: &str| std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        for path in [
            "infra/monitoring/alerts.yml",
            "infra/kubernetes/keda.yaml",
            "infra/monitoring/alerts.test.yml",
            "infra/monitoring/grafana/dashboard.json",
        ] {
            let asked = read(path);
            let asked = metrics_named_in(&asked);
            assert!(asked.len() > 2, "{path} asks for {asked:?}");
            let absent: Vec<&&str> = asked.iter().filter(|name| !printed.contains(**name)).collect();
            assert_eq!(absent, Vec::<&&str>::new(), "{path}");
        }
        let manual = read("docs/OPERATIONS.md");
        let explained = metrics_named_in(&manual);
        let is_part = |name: &str| ["_bucket", "_sum", "_count"].iter().any(|part| name.ends_with(part));
        let unexplained: Vec<&String> = printed
            .iter()
            .filter(|name| !is_part(name) && !explained.contains(name.as_str()))
            .collect();
        assert_eq!(unexplained, Vec::<&String>::new());
    }

    #[test]
    fn a_scrape_says_how_scheduled_jobs_are() {
        let text = text(&[], &scheduled());
        for line in [
            r#"afterwrite_scheduled_attempts_total{job="digest",outcome="done"} 8"#,
            r#"afterwrite_scheduled_attempts_total{job="digest",outcome="failed"} 2"#,
            r#"afterwrite_scheduled_oldest_open_timestamp_seconds{job="digest"} 1780000000.5"#,
        ] {
            assert!(text.lines().any(|printed| printed == line), "{line} is not in\n{text}");
        }
    }
}
