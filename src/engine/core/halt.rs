//! Ending before a record that must not be passed, because it can never decode and that is not to be settled by a letter.
//!
//! Such a record never arrives, nor does anything behind it, so no frontier passes it. The group goes on until what came before
//! it in its partition is settled: otherwise records that always arrive together with it would never be done. A partition that
//! is let go meanwhile is its next owner's.

use crate::engine::core::Core;
use crate::engine::core::messages::{Action, JobId, PartitionId};
use crate::engine::core::mutation::Mutation;

impl Core {
    /// Whether a record stands behind one that must not be passed.
    pub(super) fn is_behind_halt(&self, id: PartitionId) -> bool {
        let halts = self
            .partitions
            .get(&id)
            .is_some_and(|partition| partition.halt.is_some());
        halts && !self.mutated(Mutation::HaltIsPassed)
    }

    /// Takes nothing more of the partition, and ends the group when what arrived of it is settled.
    pub(super) fn halt_before(&mut self, id: PartitionId, job: JobId) {
        self.partition(id).halt = Some(job);
        self.halting.insert(id);
    }

    /// Ends the group when all before such a record is settled.
    pub(super) fn halt_where_settled(&mut self, actions: &mut Vec<Action>) {
        if self.halting.is_empty() || self.stopping {
            return;
        }
        let early = self.mutated(Mutation::HaltsTooEarly);
        let halted = self.halting.iter().find_map(|id| {
            let partition = self.partitions.get(id).filter(|partition| !partition.releasing)?;
            partition.halt.filter(|_| early || partition.tracker.span() == 0)
        });
        if let Some(job) = halted {
            actions.push(Action::Halt { job });
            self.stop(actions);
        }
    }
}
