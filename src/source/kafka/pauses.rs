//! Which partitions are to pause, who wants that, and the records held back for them.
//!
//! Two parties may want a pause: the engine, whose window is full, and the decoding task, whose registry does not answer.
//! A wish names the epoch it was made under; under any other epoch it means nothing.

use std::collections::{HashMap, VecDeque};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer;

use crate::event::delivery::{SourceCommand, SourcePartition};
use crate::source::kafka::client::{Client, Polled};

/// Who wants a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Pauser {
    Engine,
    Decoding,
}

#[derive(Debug, Default)]
pub(super) struct Pauses {
    wishes: HashMap<(Pauser, SourcePartition), u64>,
    /// Partitions paused in the client, with the records that came before the pause took effect.
    held: HashMap<SourcePartition, VecDeque<(u64, Polled)>>,
}

impl Pauses {
    /// Takes note of a pause or a resume.
    pub(super) fn order(&mut self, pauser: Pauser, command: &SourceCommand) {
        match command {
            SourceCommand::Pause { partition, epoch } => {
                self.wishes.insert((pauser, partition.clone()), *epoch);
            }
            SourceCommand::Resume { partition, epoch } => {
                let wish = (pauser, partition.clone());
                if self.wishes.get(&wish) == Some(epoch) {
                    self.wishes.remove(&wish);
                }
            }
            SourceCommand::Commit(_) | SourceCommand::Leave(_) => {}
        }
    }

    /// Whether anybody wants the partition to pause.
    pub(super) fn wanted(&self, partition: &SourcePartition, epoch: u64) -> bool {
        if self.wishes.is_empty() {
            return false;
        }
        let by = |pauser| self.wishes.get(&(pauser, partition.clone())) == Some(&epoch);
        by(Pauser::Engine) || by(Pauser::Decoding)
    }

    /// Whether records of the partition are held back already.
    pub(super) fn holds(&self, partition: &SourcePartition) -> bool {
        self.held.contains_key(partition)
    }

    /// Holds a record back and pauses its partition in the client.
    pub(super) fn hold(&mut self, client: &Client, partition: &SourcePartition, epoch: u64, record: Polled) {
        let held = self.held.entry(partition.clone()).or_default();
        held.push_back((epoch, record));
        if held.len() > 1 {
            return;
        }
        match client.pause(&list(partition)) {
            Ok(()) => tracing::debug!(%partition, epoch, "partition paused"),
            Err(error) => {
                tracing::warn!(%partition, error = %error, "partition could not be paused; its records are held back");
            }
        }
    }

    /// Passes on what is held for partitions that nobody wants to pause any more, and resumes them.
    pub(super) fn release(&mut self, client: &Client) {
        if self.held.is_empty() {
            return;
        }
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
            for (epoch, record) in self.held.remove(&partition).unwrap_or_default() {
                if owned == Some(epoch) {
                    callbacks.pass_on(record);
                }
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
