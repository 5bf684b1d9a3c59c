//! The brokers, the consumer groups, and the topics of dead letters.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::value::Properties;

/// How much longer than the engine's grace a revocation waits for the engine's answer, in milliseconds.
pub const REVOKE_MARGIN_MS: u64 = 2_000;

/// How long the commit of a revocation may take, in milliseconds; then it is abandoned, and the next owner meets the records
/// again.
pub const COMMIT_WAIT_MS: u64 = 10_000;

/// How long assigned partitions may wait for their claims, in milliseconds; then the assignment is given back.
pub const CLAIM_WAIT_MS: u64 = 60_000;

/// The client library's own `max.poll.interval.ms`.
pub const MAX_POLL_INTERVAL_MS: u64 = 300_000;

/// The brokers and the consumer groups.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Kafka {
    /// `host:port`, several separated by commas.
    pub brokers: String,
    /// A consumer group is called `<group_prefix>.<group>`.
    pub group_prefix: String,
    /// Where a group starts that has never run.
    pub start: Start,
    /// How the members of a group agree on who has which partition.
    pub group_protocol: GroupProtocol,
    /// How partitions are shared out, where the protocol leaves a choice; its own default when absent.
    pub assignor: Option<Assignor>,
    /// Name of this process that outlives it: its partitions wait for it for a session while it restarts.
    pub instance_id: Option<String>,
    /// After how long without a heartbeat the group gives a member's partitions to others; 30 s when absent. The brokers'
    /// affair under protocol `consumer`.
    pub session_timeout_ms: Option<u32>,
    /// How often a member says that it lives; 3 s when absent. The brokers' affair under protocol `consumer`.
    pub heartbeat_interval_ms: Option<u32>,
    /// How often new topics and partitions are looked for.
    pub metadata_refresh_ms: u32,
    /// Topics that a group reads instead of `<source.name>.<schema>.<table>` of its tables: names, and patterns that begin
    /// with `^` and end with `$`. Which record wakes which handler is told by the record, never by its topic.
    pub topics: Vec<String>,
    /// Further librdkafka properties, for example `security.protocol`; their values are never printed.
    pub properties: Properties,
}

impl Default for Kafka {
    fn default() -> Self {
        Self {
            brokers: "localhost:9092".to_owned(),
            group_prefix: "afterwrite".to_owned(),
            start: Start::Earliest,
            group_protocol: GroupProtocol::CooperativeSticky,
            assignor: None,
            instance_id: None,
            session_timeout_ms: None,
            heartbeat_interval_ms: None,
            metadata_refresh_ms: 5_000,
            topics: Vec::new(),
            properties: Properties::default(),
        }
    }
}

impl Kafka {
    /// After how long without a heartbeat a member's partitions go to others, under the protocols that let a member say so.
    pub fn session_timeout(&self) -> Duration {
        Duration::from_millis(self.session_timeout_ms.unwrap_or(30_000).into())
    }

    /// How often a member says that it lives, under the protocols that let it say so.
    pub fn heartbeat_interval(&self) -> Duration {
        Duration::from_millis(self.heartbeat_interval_ms.unwrap_or(3_000).into())
    }
}

/// How the members of a group agree on who has which partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GroupProtocol {
    /// Partitions that stay are worked on while others move.
    CooperativeSticky,
    /// Everybody lets everything go, then everything is shared out anew.
    Eager,
    /// KIP-848: the brokers share out, one partition at a time (Kafka 4.0 and later).
    Consumer,
}

/// How partitions are shared out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Assignor {
    /// Neighbouring partitions of each topic to each member: for `eager` and `consumer`.
    Range,
    /// Partitions in turn: for `eager`.
    RoundRobin,
    /// Evenly, moving as few as possible: for `consumer`.
    Uniform,
}

/// Where a group starts that has never run. Partitions that appear later always start at their beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// At the oldest record.
    Earliest,
    /// At the end.
    Latest,
}

/// The topics of dead letters: `<group_prefix>.<group>.dlq`.
#[derive(Debug, Clone, Serialize, Deserialize)]
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
