//! What a source hands over, and what it is told: plain values that cross the border between source and engine.
//!
//! Neither side imports the other. A source sends [`SourceEvent`]s in order over one channel and obeys
//! [`SourceCommand`]s.
//!
//! # What a source promises
//!
//! `testkit::source_suite` asks every source for each of these.
//!
//! - A partition is assigned before it delivers, and delivers under the epoch of its assignment only. Each assignment has a
//!   greater epoch than all before it, whoever had them.
//! - Within an epoch positions rise, nothing is left out, and the changes of one key come in the order in which they were
//!   committed.
//! - An assignment begins at the first position that was not committed. What is delivered again is the same: its position, its
//!   bytes, what was decoded of it, and so the id of its event.
//! - The bytes are those that the content was decoded from. Bytes that cannot be decoded are delivered in their place.
//! - What wakes no handler is delivered as [`Content::Skip`], or not at all; either way it holds no position back.
//! - A commit becomes durable some time after it was sent, in the order of commits. The positions of [`SourceCommand::Leave`]
//!   and those of the answer to [`SourceEvent::Revoking`] are durable before anybody else is assigned the partition, and before
//!   the source has ended.
//! - A command under another epoch than that of the current assignment changes nothing.
//! - After a pause that was obeyed at most what was on its way arrives; after the resume the partition goes on where it was.
//! - After the end of an ownership, which is [`SourceEvent::Revoking`], [`SourceEvent::Lost`] or the end of the channel, nothing
//!   is delivered under its epoch.
//! - An engine that takes nothing for a while costs no ownership, and is told the rest when it takes again.
//! - An engine that is gone without a word, its ends of both channels dropped, has left and committed nothing more.
//!
//! # What an engine promises
//!
//! It takes what is sent to it, also while it wants a partition paused. A source may wait for it with commands that came
//! meanwhile.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::event::change::ChangeEvent;

/// One ordered stream of a source: a Kafka topic-partition, or a slot.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourcePartition {
    /// Topic name.
    pub topic: Arc<str>,
    /// Partition number.
    pub partition: i32,
}

impl std::fmt::Display for SourcePartition {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}[{}]", self.topic, self.partition)
    }
}

/// Where a record stands in its partition: a Kafka offset. Gaps are normal; only order within one partition means
/// anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position(pub i64);

/// The bytes of a record exactly as the source stored them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RawRecord {
    /// Key bytes; `None` is a null key, which is not an empty one.
    pub key: Option<Bytes>,
    /// Value bytes; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// Headers in order; names may repeat.
    pub headers: Vec<(String, Option<Bytes>)>,
    /// Timestamp of the record in milliseconds, where the source keeps one.
    pub timestamp_ms: Option<i64>,
}

/// One record, decoded: the unit that is delivered, tracked and committed.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The stream it came from.
    pub partition: SourcePartition,
    /// Its place in that stream.
    pub position: Position,
    /// Its bytes, kept until it is settled, so that a dead letter is byte for byte the original.
    pub raw: RawRecord,
    /// What the decoder made of it.
    pub content: Content,
}

/// What the decoder made of a record.
#[derive(Debug, Clone)]
pub enum Content {
    /// A change of a row.
    Change(Arc<ChangeEvent>),
    /// Nothing to react to, for this reason.
    Skip(SkipReason),
    /// Bytes that can never decode. The text says why and never quotes a cell.
    Undecodable(String),
}

/// Why a record wakes no handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SkipReason {
    /// A row read by a snapshot.
    Read,
    /// A tombstone: null value after a delete, or empty payload.
    Tombstone,
    /// A heartbeat of the connector.
    Heartbeat,
    /// A BEGIN or END marker.
    Transaction,
    /// A notification of the connector.
    Notification,
    /// A row of a signal table.
    Signal,
    /// A change that no handler wants.
    Unrouted,
}

impl SkipReason {
    /// The word used in logs, metrics and `decode`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Tombstone => "tombstone",
            Self::Heartbeat => "heartbeat",
            Self::Transaction => "transaction",
            Self::Notification => "notification",
            Self::Signal => "signal",
            Self::Unrouted => "unrouted",
        }
    }
}

/// What the owner of a partition inherits from whoever owned it before. Nothing, unless that one died, or left jobs behind
/// that wait.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inherited {
    /// The last owner died, and events before this position may have been running then; `None` after a clean release.
    pub suspect_to: Option<Position>,
    /// Jobs that were running when an owner died.
    pub left: Vec<LeftMark>,
    /// Attempts that earlier owners made at jobs that are not settled.
    pub attempts: Vec<EarlierAttempts>,
    /// Lanes that hold their events back.
    pub parked: Vec<ParkedLane>,
    /// Letters that were parked because of lag, by handler.
    pub letters: Vec<ParkedLetters>,
}

/// Letters of a handler that were parked because of lag. Their owner releases them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedLetters {
    /// The handler's name.
    pub handler: String,
    /// How many of them are on their way back already.
    pub recalled: usize,
}

/// A job whose running mark an owner left behind when it died.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftMark {
    /// Where its event stands.
    pub position: Position,
    /// The handler's name.
    pub handler: String,
    /// How many owners died while this job was the only one that ran.
    pub deaths: u32,
}

/// Attempts at a job that were stored because its next one is far away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EarlierAttempts {
    /// Where its event stands.
    pub position: Position,
    /// The handler's name.
    pub handler: String,
    /// How many failed.
    pub attempts: u32,
    /// When the first of them failed.
    pub first_failed_at: DateTime<Utc>,
}

/// A lane whose head is in the dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedLane {
    /// The handler's name.
    pub handler: String,
    /// Hash of the ordering key.
    pub key: u64,
    /// Its followers are being worked on; what arrives meanwhile is still appended.
    pub draining: bool,
}

/// A partition that is ours from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assigned {
    /// The partition.
    pub partition: SourcePartition,
    /// The epoch of its claim.
    pub epoch: u64,
    /// What its earlier owners left.
    pub inherited: Inherited,
}

/// What a source tells the engine, in the order in which it happened.
#[derive(Debug)]
pub enum SourceEvent {
    /// These partitions are ours from now on, under this epoch; deliveries follow.
    Assigned {
        /// The partitions.
        partitions: Vec<Assigned>,
    },
    /// One record of an assigned partition, under the epoch in which it was fetched.
    Delivered {
        /// Epoch of the assignment under which it was fetched.
        epoch: u64,
        /// The record.
        delivery: Box<Delivery>,
    },
    /// When the source looked, these partitions held nothing from these positions on, and all before was settled. May be told
    /// late, or not at all, and is not in order with the other events: more may have come in the meantime, or the partition gone.
    CaughtUp {
        /// The partitions with their ends.
        ends: Vec<(SourcePartition, Position)>,
    },
    /// So much is kept for a partition because what is settled of it is where it is. Told by sources for which that fills a
    /// disk.
    Lag {
        /// The partition.
        partition: SourcePartition,
        /// Epoch of its assignment.
        epoch: u64,
        /// How much.
        bytes: u64,
    },
    /// These partitions are about to be taken away. The source blocks until the reply arrives or its budget is spent,
    /// then commits the positions of the reply.
    Revoking {
        /// The partitions that go.
        partitions: Vec<SourcePartition>,
        /// Takes the positions to commit: per partition the first position that is not settled.
        reply: SyncSender<Vec<(SourcePartition, Position)>>,
    },
    /// These partitions are already gone: nothing can be committed for them any more.
    Lost {
        /// The partitions that went.
        partitions: Vec<SourcePartition>,
    },
}

/// What the engine asks of a source. Every command names the epoch it was decided under, so that a source that lost the
/// partition meanwhile, or got it again, ignores it.
#[derive(Debug)]
pub enum SourceCommand {
    /// Everything before these positions is settled: make that durable.
    Commit(Vec<Settled>),
    /// Hand over no more records of this partition until it is resumed.
    Pause {
        /// The partition.
        partition: SourcePartition,
        /// Its epoch.
        epoch: u64,
    },
    /// Hand over records of this partition again.
    Resume {
        /// The partition.
        partition: SourcePartition,
        /// Its epoch.
        epoch: u64,
    },
    /// Leave: commit these last positions, then leave the group and end.
    Leave(Vec<Settled>),
}

/// How far a partition is settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The partition.
    pub partition: SourcePartition,
    /// The epoch under which it was settled.
    pub epoch: u64,
    /// The first position that is not settled.
    pub position: Position,
}

impl RawRecord {
    /// Bytes of key, value and headers.
    pub fn weight(&self) -> usize {
        let bytes = |part: &Option<Bytes>| part.as_ref().map_or(0, Bytes::len);
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + bytes(value)).sum();
        bytes(&self.key) + bytes(&self.value) + headers
    }
}
