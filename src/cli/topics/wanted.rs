//! Which topics the source and the groups need, and how they should be. Pure.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::cli::connector::loss::moves_topics;
use crate::clients::connect::ConnectorConfig;
use crate::dead_letter::topic;
use crate::doctor::expected::Expected;
use crate::doctor::heartbeats;
use crate::doctor::routing::routed_partitions;

/// Settings of topics that the connector's file has under `topic.creation.default.`.
const FROM_FILE: [&str; 5] = [
    "cleanup.policy",
    "retention.ms",
    "min.insync.replicas",
    "max.message.bytes",
    "compression.type",
];

/// What a topic is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Purpose {
    /// Changes of a table.
    Changes,
    /// Heartbeats, and beginnings and ends of transactions, which no group reads.
    Markers,
    /// Dead letters of a group.
    Letters,
}

/// How many partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Partitions {
    /// So many: keys choose among all there are.
    Keyed(i32),
    /// At least so many: the connector chooses among these.
    Routed(i32),
    /// So many when it is made, and any number after that.
    Any(i32),
}

impl Partitions {
    pub(super) fn number(self) -> i32 {
        match self {
            Self::Keyed(number) | Self::Routed(number) | Self::Any(number) => number,
        }
    }
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Topic {
    pub(super) name: String,
    pub(super) purpose: Purpose,
    pub(super) partitions: Partitions,
    /// `None` leaves it to the brokers.
    pub(super) replicas: Option<i32>,
    pub(super) settings: BTreeMap<&'static str, String>,
    /// Where the number of partitions and the settings are written.
    pub(super) written: &'static str,
}

/// The topics that are wanted.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) topics: Vec<Topic>,
    /// What groups subscribe that is no name.
    pub(super) patterns: Vec<String>,
}

/// A value that the file itself has.
fn literal<'c>(connector: &'c ConnectorConfig, key: &str) -> Option<&'c str> {
    connector
        .get(key)
        .map(String::as_str)
        .filter(|value| !value.contains("${"))
}

pub(super) fn wanted(connector: &ConnectorConfig, expected: &Expected, replicas: Option<i32>) -> Wanted {
    let mut topics: BTreeMap<String, Topic> = BTreeMap::new();
    let mut patterns = Vec::new();
    let subscribed = expected.groups.iter().flat_map(|group| &group.topics);
    for name in subscribed.cloned().chain(captured(connector, expected)) {
        match name.starts_with('^') {
            true => patterns.push(name),
            false => {
                let topic = of_changes(&name, connector, replicas);
                topics.insert(name, topic);
            }
        }
    }
    patterns.sort_unstable();
    patterns.dedup();
    for name in markers(connector, expected) {
        let topic = Topic {
            purpose: Purpose::Markers,
            partitions: Partitions::Any(1),
            // Only the newest is ever looked at.
            settings: BTreeMap::new(),
            ..of_changes(&name, connector, replicas)
        };
        topics.insert(name, topic);
    }
    if let Some(letters) = &expected.letters {
        for group in &expected.groups {
            let name = topic::name(&group.name);
            let topic = of_letters(&name, letters, replicas);
            topics.insert(name, topic);
        }
    }
    Wanted {
        topics: topics.into_values().collect(),
        patterns,
    }
}

/// The topics of the tables that the file names; none where a transform calls topics otherwise, because groups say how then.
fn captured(connector: &ConnectorConfig, expected: &Expected) -> Vec<String> {
    if moves_topics(connector) {
        return Vec::new();
    }
    let delimiter = literal(connector, "topic.delimiter").unwrap_or(".");
    let listed = literal(connector, "table.include.list").unwrap_or_default().split(',');
    let plain = listed.filter_map(|pattern| {
        let name = pattern.trim().replace("\\.", ".");
        let is_plain = name
            .chars()
            .all(|letter| letter.is_alphanumeric() || matches!(letter, '_' | '-' | '.' | ' '));
        let (schema, table) = name.split_once('.').filter(|_| is_plain)?;
        Some(sanitized(&format!(
            "{}{delimiter}{schema}{delimiter}{table}",
            expected.source
        )))
    });
    plain.collect()
}

/// As Debezium writes names that Kafka does not take.
fn sanitized(name: &str) -> String {
    let is_taken = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '-');
    name.chars()
        .map(|letter| if is_taken(letter) { letter } else { '_' })
        .collect()
}

fn markers(connector: &ConnectorConfig, expected: &Expected) -> Vec<String> {
    let mut names = Vec::new();
    let source = &expected.source;
    names.extend(heartbeats::topic(connector, source));
    if literal(connector, "provide.transaction.metadata") == Some("true") {
        let end = literal(connector, "topic.transaction").unwrap_or("transaction");
        names.push(format!("{source}.{end}"));
    }
    names
}

fn of_changes(name: &str, connector: &ConnectorConfig, replicas: Option<i32>) -> Topic {
    let created = |key: &str| literal(connector, &format!("topic.creation.default.{key}"));
    let number = |key: &str| created(key)?.parse::<i32>().ok().filter(|number| *number > 0);
    let mut settings: BTreeMap<&'static str, String> = FROM_FILE
        .into_iter()
        .filter_map(|key| Some((key, created(key)?.to_owned())))
        .collect();
    // Whatever the brokers do with other topics: what was not read may not be removed for a newer change of the same row.
    settings.entry("cleanup.policy").or_insert_with(|| "delete".to_owned());
    Topic {
        name: name.to_owned(),
        purpose: Purpose::Changes,
        partitions: match (routed_partitions(connector, name), number("partitions")) {
            (Some(routed), _) => Partitions::Routed(routed),
            (None, Some(number)) => Partitions::Keyed(number),
            // Nobody says how many.
            (None, None) => Partitions::Any(1),
        },
        replicas: number("replication.factor").or(replicas),
        settings,
        written: "topic.creation.default.* of the connector file",
    }
}

fn of_letters(name: &str, letters: &topic::Options, replicas: Option<i32>) -> Topic {
    Topic {
        name: name.to_owned(),
        purpose: Purpose::Letters,
        partitions: Partitions::Keyed(letters.partitions),
        replicas: letters.replicas.or(replicas),
        settings: BTreeMap::from([
            ("cleanup.policy", "delete".to_owned()),
            ("retention.ms", letters.retention.as_millis().to_string()),
            ("max.message.bytes", letters.message_bytes_max.to_string()),
        ]),
        written: "[dead_letters]",
    }
}

#[cfg(test)]
#[path = "cases.rs"]
mod cases;
