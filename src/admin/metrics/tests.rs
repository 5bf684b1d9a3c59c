//! What a scrape prints, and that everything that asks for a metric asks for one that is there.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use tokio::sync::watch;

use super::*;
use crate::engine::counts::{Counts, HandlerCounts};
use crate::engine::standing::{OpenJob, OwnedPartition, Suspended};
use crate::event::distance::Distance;
use crate::handlers::figures::Figures;
use crate::tally;
use crate::tally::durations::Durations;

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
        running_lanes: 2,
        lanes_max: 10,
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
        is_critical: true,
        standing,
        log_behind: Some(Arc::new(AtomicU64::new(7_000))),
        events_behind: Some(Arc::default()),
    };
    let behind = Distance::default();
    behind.tell(Some(42));
    let of_topics = Group {
        name: "afterwrite.reward".to_owned(),
        is_critical: false,
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

fn process(groups: &[Group]) -> Told {
    let (_told, scheduled) = watch::channel(scheduled());
    let pool = sqlx::postgres::PgPoolOptions::new().max_connections(7);
    let pool = pool.connect_lazy_with(sqlx::postgres::PgConnectOptions::new());
    let figures = Figures {
        rewards: [("earned", 3)].into(),
        detections: [(("velocity", "pending"), 2)].into(),
        oldest_review: DateTime::from_timestamp_millis(1_780_000_000_500),
    };
    Told {
        started: chrono::Utc::now(),
        groups: Arc::new(groups.to_vec()),
        scheduled: Some(scheduled),
        pools: Arc::new(vec![("afterwrite.email".to_owned(), pool)]),
        figures: Some(watch::channel(Some(figures)).1),
        needs: Arc::default(),
    }
}

#[tokio::test]
async fn a_scrape_says_where_each_group_stands() {
    let text = text(&process(&groups()));
    assert!(
        !text.contains(r#"afterwrite_slot_lag_bytes{group="afterwrite.reward","#),
        "{text}"
    );
    assert!(
        !text.contains(r#"afterwrite_events_behind{group="afterwrite.email","#),
        "{text}"
    );
    for line in [
        r#"afterwrite_records_total{group="afterwrite.email",critical="true"} 9"#,
        r#"afterwrite_skips_total{group="afterwrite.email",critical="true",reason="heartbeat"} 4"#,
        r#"afterwrite_attempts_total{group="afterwrite.email",critical="true",handler="email",outcome="timed_out"} 1"#,
        r#"afterwrite_attempt_duration_seconds_sum{group="afterwrite.email",critical="true",handler="email"} 0.703"#,
        r#"afterwrite_attempt_duration_seconds_count{group="afterwrite.email",critical="true",handler="email"} 2"#,
        r#"afterwrite_attempt_duration_seconds_bucket{le="0.005",group="afterwrite.email",critical="true",handler="email"} 1"#,
        r#"afterwrite_attempt_duration_seconds_bucket{le="0.5",group="afterwrite.email",critical="true",handler="email"} 1"#,
        r#"afterwrite_attempt_duration_seconds_bucket{le="1.0",group="afterwrite.email",critical="true",handler="email"} 2"#,
        r#"afterwrite_attempt_duration_seconds_bucket{le="+Inf",group="afterwrite.email",critical="true",handler="email"} 2"#,
        r#"afterwrite_commit_to_done_seconds_sum{group="afterwrite.email",critical="true",handler="email"} 1.5"#,
        r#"afterwrite_dead_letters_total{group="afterwrite.email",critical="true",class="permanent"} 2"#,
        r#"afterwrite_events_behind{group="afterwrite.reward",critical="false"} 42.0"#,
        r#"afterwrite_parked_total{group="afterwrite.email",critical="true"} 6"#,
        r#"afterwrite_lagging{group="afterwrite.email",critical="true"} 0.0"#,
        r#"afterwrite_jobs{group="afterwrite.email",critical="true",state="retrying"} 2.0"#,
        r#"afterwrite_suspended{group="afterwrite.email",critical="true",handler="email"} 1.0"#,
        r#"afterwrite_oldest_open_job_timestamp_seconds{group="afterwrite.email",critical="true"} 1780000000.5"#,
        r#"afterwrite_paused_partitions{group="afterwrite.email",critical="true"} 1.0"#,
        r#"afterwrite_buffered_bytes{group="afterwrite.email",critical="true"} 0.0"#,
        r#"afterwrite_slot_lag_bytes{group="afterwrite.email",critical="true"} 7000.0"#,
        r#"afterwrite_running_lanes{group="afterwrite.email",critical="true"} 2.0"#,
        r#"afterwrite_lanes_max{group="afterwrite.email",critical="true"} 10.0"#,
        r#"afterwrite_pool_connections{pool="afterwrite.email",state="busy"} 0.0"#,
        r#"afterwrite_pool_connections_max{pool="afterwrite.email"} 7.0"#,
        r#"afterwrite_rewards{state="earned"} 3.0"#,
        r#"afterwrite_detections{type="velocity",status="pending"} 2.0"#,
        "afterwrite_oldest_review_timestamp_seconds 1780000000.5",
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

#[tokio::test]
async fn what_alerts_and_dashboard_ask_for_exists_and_the_manual_has_all_of_it() {
    counted::show();
    for counter in tally::counters() {
        counter.add(&vec!["x"; counter.labels.len()], 1);
    }
    for timer in tally::timers() {
        timer.observe(&vec!["x"; timer.labels.len()], Duration::ZERO);
    }
    let text = text(&process(&groups()));
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

#[tokio::test]
async fn a_scrape_says_how_scheduled_jobs_are() {
    let text = text(&process(&[]));
    for line in [
        r#"afterwrite_scheduled_attempts_total{job="digest",outcome="done"} 8"#,
        r#"afterwrite_scheduled_attempts_total{job="digest",outcome="failed"} 2"#,
        r#"afterwrite_scheduled_oldest_open_timestamp_seconds{job="digest"} 1780000000.5"#,
    ] {
        assert!(text.lines().any(|printed| printed == line), "{line} is not in\n{text}");
    }
}
