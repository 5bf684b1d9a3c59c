//! The heartbeats of the connector: whether they still come.
//!
//! A connector that runs sends one whenever its interval is over, whatever else it sends; so the age of the newest one says how long
//! ago it was last there, also when nothing is written that it captures. A topic that nothing was ever written to says nothing:
//! the first heartbeat comes when an interval is over, and not before the connector knows a place in the log.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::codes;
use super::connector::{Deployed, is_reference};
use super::expected::{Expected, HEARTBEAT};
use super::finding::{Finding, Leg, Outcome, Remedy};
use super::routing::routed_topic;
use crate::clients::connect::ConnectorConfig;
use crate::clients::denied::PRINCIPAL;
use crate::clients::kafka::{Resource, allow};
use crate::decode::options::HEARTBEAT_PREFIX;
use crate::source::kafka::newest::Newest;

/// So many may be missed before something is said, and for so long at least: a restart of Connect takes a while.
const MISSED_MAX: i32 = 3;
const SILENT_MIN: TimeDelta = TimeDelta::seconds(60);

/// What is expected of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Beat {
    /// The topic that they arrive in.
    pub(super) topic: String,
    interval: Duration,
}

/// What was seen of them.
#[derive(Debug)]
pub(super) enum Seen {
    /// The end of their topic.
    Newest(Newest),
    /// There is no such topic.
    NoTopic,
    /// They were not asked for in time.
    Unread,
}

/// The topic that a connector of this source writes its heartbeats to, before any transform; none where it writes none.
pub(crate) fn topic(config: &ConnectorConfig, source: &str) -> Option<String> {
    let literal = |key: &str| config.get(key).map(String::as_str).filter(|value| !is_reference(value));
    if matches!(literal("heartbeat.interval.ms"), None | Some("0")) {
        return None;
    }
    let prefix = literal("topic.heartbeat.prefix").unwrap_or(HEARTBEAT_PREFIX);
    let delimiter = literal("topic.delimiter").unwrap_or(".");
    let whole = literal("topic.heartbeat.name").filter(|whole| !whole.is_empty());
    Some(whole.map_or_else(|| format!("{prefix}{delimiter}{source}"), str::to_owned))
}

/// What is expected of a connector; nothing of one that does not run, which is said of it already, nor where only Connect knows.
pub(super) fn wanted(deployed: &Deployed<'_>, expected: &Expected) -> Option<Beat> {
    let config = &deployed.connector.config;
    let of_names = [
        "topic.heartbeat.name",
        "topic.heartbeat.prefix",
        "topic.delimiter",
        "topic.prefix",
    ];
    let is_known = of_names
        .iter()
        .all(|key| config.get(*key).is_none_or(|value| !is_reference(value)));
    if !deployed.runs() || !is_known {
        return None;
    }
    let source = deployed.get("topic.prefix").unwrap_or(&expected.source);
    let interval_ms: u64 = deployed.get("heartbeat.interval.ms")?.parse().ok()?;
    Some(Beat {
        topic: routed_topic(config, &topic(config, source)?)?,
        interval: Duration::from_millis(interval_ms),
    })
}

/// What is wrong with them. `is_read`: somebody reads the connector's slot, as far as that is known; where nobody does, that is said
/// of the slot.
pub(super) fn findings(
    beat: &Beat,
    seen: &Seen,
    is_read: bool,
    deployed: &Deployed<'_>,
    now: DateTime<Utc>,
) -> Outcome {
    let (name, topic) = (deployed.name, &beat.topic);
    let stale = |how: String| {
        if !is_read {
            return Outcome::default();
        }
        let restart = deployed.request("POST", "/restart?includeTasks=true");
        Outcome::of(vec![codes::HEARTBEAT_STALE.found(
            format!("{how}, and connector {name}, which runs, is to write one every {}", in_words(beat.interval)),
            Remedy::shell(format!(
                "{restart} # unless it was started a moment ago, or is reading whole tables; when none comes after that either: see the log \
                 of Kafka Connect, and who locks {}.{}",
                HEARTBEAT.0, HEARTBEAT.1
            )),
        )])
    };
    match seen {
        Seen::Newest(Newest::Record(record)) => {
            let at = record.raw.timestamp_ms.and_then(DateTime::from_timestamp_millis);
            let Some(age) = at.map(|at| now - at).filter(|age| *age > patience(beat.interval)) else {
                return Outcome::default();
            };
            let age = in_words(age.to_std().unwrap_or_default());
            stale(format!("the newest heartbeat in topic {topic} came {age} ago"))
        }
        Seen::Newest(Newest::Removed) => stale(format!("topic {topic} has outlived all heartbeats in it")),
        Seen::Newest(Newest::Denied) => Outcome::of(vec![hidden(topic)]),
        Seen::Newest(Newest::Nothing) | Seen::NoTopic => Outcome::default(),
        Seen::Newest(Newest::Unread) | Seen::Unread => Outcome::unchecked(
            &[Leg::Connector],
            format!("the newest record of topic {topic} did not come in time"),
        ),
    }
}

fn hidden(topic: &str) -> Finding {
    codes::HEARTBEAT_HIDDEN.found(
        format!("topic {topic} may not be read"),
        Remedy::words(format!(
            "as a superuser of Kafka, with the worker's principal: {}",
            allow(PRINCIPAL, &["Read"], &Resource::Topic(topic.to_owned(), false))
        )),
    )
}

fn patience(interval: Duration) -> TimeDelta {
    let interval = TimeDelta::from_std(interval).unwrap_or(TimeDelta::MAX);
    interval
        .checked_mul(MISSED_MAX)
        .unwrap_or(TimeDelta::MAX)
        .max(SILENT_MIN)
}

fn in_words(time: Duration) -> String {
    match time.as_secs() {
        0 => format!("{} ms", time.as_millis()),
        seconds if seconds < 600 => format!("{seconds} s"),
        seconds => format!("{} minutes", seconds / 60),
    }
}

#[cfg(test)]
#[path = "heartbeats_tests.rs"]
mod tests;
