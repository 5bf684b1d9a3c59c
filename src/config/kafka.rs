//! The brokers, the consumer groups, and the topics of dead letters.

use serde::Deserialize;

use super::value::Properties;

/// The brokers and the consumer groups.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Kafka {
    /// `host:port`, several separated by commas.
    pub brokers: String,
    /// A consumer group is called `<group_prefix>.<group>`.
    pub group_prefix: String,
    /// Where a group starts that has never run.
    pub start: Start,
    /// After how long without a heartbeat the group gives a member's partitions to others.
    pub session_timeout_ms: u32,
    /// How often a member says that it lives.
    pub heartbeat_interval_ms: u32,
    /// How often new topics and partitions are looked for.
    pub metadata_refresh_ms: u32,
    /// Further librdkafka properties, for example `security.protocol`; their values are never printed.
    pub properties: Properties,
}

impl Default for Kafka {
    fn default() -> Self {
        Self {
            brokers: "localhost:9092".to_owned(),
            group_prefix: "afterwrite".to_owned(),
            start: Start::Earliest,
            session_timeout_ms: 30_000,
            heartbeat_interval_ms: 3_000,
            metadata_refresh_ms: 5_000,
            properties: Properties::default(),
        }
    }
}

/// Where a group starts that has never run. Partitions that appear later always start at their beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// At the oldest record.
    Earliest,
    /// At the end.
    Latest,
}

/// The topics of dead letters: `<group_prefix>.<group>.dlq`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeadLetters {
    /// Partitions of a topic that is made.
    pub partitions: i32,
    /// Replicas of a topic that is made; the broker's own default when absent.
    pub replication_factor: Option<i32>,
    /// How long letters are kept.
    pub retention_ms: i64,
    /// `max.message.bytes` of a topic that is made: the largest record of the source and 64 KiB of headers.
    pub message_bytes_max: u32,
    /// Longer error texts are cut.
    pub error_bytes_max: usize,
    /// How long one letter may take to be acknowledged before the write counts as failed and is tried again.
    pub write_timeout_ms: u64,
    /// Letters a second that `dlq replay` sends back, unless it is told another number.
    pub replay_rate_max: u32,
    /// A letter of an event that was replayed so often is not sent back by a filter any more.
    pub replays_max: u32,
}

impl Default for DeadLetters {
    fn default() -> Self {
        Self {
            partitions: 3,
            replication_factor: None,
            retention_ms: 365 * 24 * 60 * 60 * 1_000,
            message_bytes_max: 10 * 1024 * 1024 + 64 * 1024,
            error_bytes_max: 4_096,
            write_timeout_ms: 30_000,
            replay_rate_max: 100,
            replays_max: 5,
        }
    }
}
