//! Ending a group before a record that can never decode, where that is wanted: what people are told. When it ends, the core
//! decides (`core/halt.rs`).

use tokio::time::Instant;

use crate::engine::core::messages::JobId;
use crate::engine::driver::Driver;
use crate::event::delivery::{Content, SourcePartition};

/// What becomes of a record that can never decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnUndecodable {
    /// It becomes a dead letter.
    #[default]
    Bury,
    /// The group ends before it. What was handed out before it is finished and committed.
    Halt,
}

/// A group ended because of a record that can never decode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "group {group} halted before offset {offset} of {partition}, which cannot be decoded: {reason}; nothing from there on was \
     handed out: mend what makes it undecodable, or set on_undecodable = \"bury\" to have it in the dead letters, or pass \
     over it with `afterwrite replay --group {group} --to-offset {topic}:{number}:{next} --skip`; then start the process again",
    topic = .partition.topic, number = .partition.partition, next = .offset + 1
)]
pub struct Halted {
    group: String,
    partition: SourcePartition,
    offset: i64,
    reason: String,
}

impl Driver {
    /// The core ends the group before this record.
    pub(super) fn halt(&mut self, job: JobId) {
        let delivery = &self.held[&job].delivery;
        let reason = match &delivery.content {
            Content::Undecodable(reason) => reason.clone(),
            Content::Change(_) | Content::Skip(_) => "the decoder gave no reason".to_owned(),
        };
        let halted = Halted {
            group: self.setup.group.to_string(),
            partition: delivery.partition.clone(),
            offset: delivery.position.0,
            reason,
        };
        tracing::error!(
            group = %self.setup.group, partition = %halted.partition, offset = halted.offset,
            "a record cannot be decoded and must not be passed: the group ends before it"
        );
        self.halted = Some(halted);
        self.stop_deadline = Some(Instant::now() + self.setup.times.shutdown_grace);
    }
}
