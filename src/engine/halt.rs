//! Ending a group before a record that can never decode, where that is wanted.
//!
//! Such a record never arrives at the core, nor does anything behind it, so no frontier passes it. The group goes on until what
//! came before it in its partition is settled: otherwise records that always arrive together with it would never be done.

use std::collections::BTreeMap;

use crate::engine::core::messages::PartitionId;
use crate::engine::driver::Driver;
use crate::event::delivery::{Content, Delivery, SourcePartition};

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

/// Partitions that go no further.
#[derive(Debug, Default)]
pub(super) struct Halts {
    /// Those with something left to settle, each with the epoch under which that was met.
    before: BTreeMap<PartitionId, (u64, Halted)>,
    /// Why the group ends.
    pub(super) ended: Option<Halted>,
}

impl Driver {
    /// Whether a record is not to arrive: it is one that ends the group, or stands behind one.
    pub(super) fn halts_before(&mut self, partition: PartitionId, epoch: u64, delivery: &Delivery) -> bool {
        let is_behind = self
            .halts
            .before
            .get(&partition)
            .is_some_and(|(met_under, _)| *met_under == epoch);
        let (OnUndecodable::Halt, Content::Undecodable(reason)) = (self.setup.on_undecodable, &delivery.content) else {
            return is_behind;
        };
        if !is_behind {
            let halted = Halted {
                group: self.setup.group.to_string(),
                partition: delivery.partition.clone(),
                offset: delivery.position.0,
                reason: reason.clone(),
            };
            tracing::error!(
                group = %self.setup.group, partition = %halted.partition, offset = halted.offset,
                "a record cannot be decoded: the group ends when what came before it is settled"
            );
            self.halts.before.insert(partition, (epoch, halted));
        }
        true
    }

    /// Ends the group when all that came before such a record is settled. A partition that is not ours any more is its next
    /// owner's.
    pub(super) fn halt_where_all_is_settled(&mut self) {
        if self.halts.before.is_empty() || self.stop_deadline.is_some() {
            return;
        }
        let partitions = &self.core.partitions;
        self.halts.before.retain(|partition, (epoch, _)| {
            let owned = partitions.get(partition);
            owned.is_some_and(|owned| owned.epoch == *epoch && !owned.releasing)
        });
        let mut before = self.halts.before.iter();
        let settled = before.find(|(partition, _)| partitions[*partition].tracker.span() == 0);
        if let Some((_, (_, halted))) = settled {
            self.halts.ended = Some(halted.clone());
            self.stop();
        }
    }
}
