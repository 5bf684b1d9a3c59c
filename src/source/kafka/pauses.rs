//! Which partitions are to pause, who wants that, and the records held back for them.
//!
//! Two parties may want a pause: the engine, whose window is full, and the decoding task, whose registry does not answer.
//! A wish names the epoch it was made under; under any other epoch it means nothing.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer;
use tokio::time::Instant;

use crate::event::delivery::{SourceCommand, SourcePartition};
use crate::source::kafka::client::{Client, Polled};

/// Who wants a pause.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pauser {
    Engine,
    Decoding,
}

/// What is held back for partitions that are to pause, over all of them, before one is paused in the client. A pause purges
/// what the client has prefetched, and what is purged is fetched again.
const HELD_BYTES_MAX: usize = 4 << 20;

/// What is held for partitions that went away is looked for this often.
const LOOK_EVERY: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub(super) struct Pauses {
    by_engine: Wishes,
    by_decoding: Wishes,
    held: HashMap<SourcePartition, Held>,
    /// When it is looked for what may be let go: at once after a wish has ended.
    look_at: Instant,
}

/// Partitions that are to pause, with the epochs under which that was wished.
type Wishes = HashMap<SourcePartition, u64>;

/// What was polled of a partition that is to pause.
#[derive(Debug, Default)]
struct Held {
    records: VecDeque<(u64, Polled)>,
    bytes: usize,
    is_paused_in_client: bool,
}

impl Pauses {
    pub(super) fn new() -> Self {
        Self {
            by_engine: Wishes::new(),
            by_decoding: Wishes::new(),
            held: HashMap::new(),
            look_at: Instant::now(),
        }
    }

    /// Takes note of a pause or a resume.
    pub(super) fn order(&mut self, pauser: Pauser, command: SourceCommand) {
        let wishes = match pauser {
            Pauser::Engine => &mut self.by_engine,
            Pauser::Decoding => &mut self.by_decoding,
        };
        match command {
            SourceCommand::Pause { partition, epoch } => {
                wishes.insert(partition, epoch);
            }
            SourceCommand::Resume { partition, epoch } => {
                if wishes.get(&partition) == Some(&epoch) {
                    wishes.remove(&partition);
                    self.look_at = Instant::now();
                }
            }
            SourceCommand::Commit(_) | SourceCommand::Leave(_) => {}
        }
    }

    /// Whether anybody wants the partition to pause.
    pub(super) fn wanted(&self, partition: &SourcePartition, epoch: u64) -> bool {
        let mut wishes = [&self.by_engine, &self.by_decoding].into_iter();
        wishes.any(|wishes| wishes.get(partition) == Some(&epoch))
    }

    /// Whether anything is held back.
    pub(super) fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// Holds a record back, and pauses its partition in the client when it has used up its share of what may be held. The
    /// others are polled on: none waits for the work of another one.
    pub(super) fn hold(&mut self, client: &Client, partition: &SourcePartition, (epoch, record): (u64, Polled)) {
        let held = self.held.entry(partition.clone()).or_default();
        if let Polled::Record { raw, .. } = &record {
            held.bytes += raw.weight();
        }
        held.records.push_back((epoch, record));
        let share = HELD_BYTES_MAX / client.context().owned_count().max(1);
        if held.is_paused_in_client || held.bytes < share {
            return;
        }
        held.is_paused_in_client = true;
        match client.pause(&list(partition)) {
            Ok(()) => tracing::debug!(%partition, epoch, "partition paused"),
            Err(error) => {
                tracing::warn!(%partition, error = %error, "partition could not be paused; its records are held back");
            }
        }
    }

    /// Passes on what is held for partitions that nobody wants to pause any more, and resumes them.
    pub(super) fn release(&mut self, client: &Client) {
        let now = Instant::now();
        if self.held.is_empty() || now < self.look_at {
            return;
        }
        self.look_at = now + LOOK_EVERY;
        let callbacks = client.context();
        let wanted = |partition: &SourcePartition| {
            callbacks
                .epoch(partition)
                .is_some_and(|epoch| self.wanted(partition, epoch))
        };
        let free: Vec<SourcePartition> = self
            .held
            .keys()
            .filter(|partition| !wanted(partition))
            .cloned()
            .collect();
        for partition in free {
            let owned = callbacks.epoch(&partition);
            let held = self.held.remove(&partition).unwrap_or_default();
            for (epoch, record) in held.records {
                if owned == Some(epoch) {
                    callbacks.pass_on(record);
                }
            }
            if !held.is_paused_in_client {
                continue;
            }
            // Also when it is not ours any more: librdkafka keeps a partition paused across revocation and assignment, so
            // one that came back would deliver nothing, for ever.
            if let Err(error) = client.resume(&list(&partition)) {
                tracing::error!(%partition, error = %error, "partition could not be resumed");
            }
        }
    }
}

fn list(partition: &SourcePartition) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    list.add_partition(&partition.topic, partition.partition);
    list
}
