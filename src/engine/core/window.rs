//! The unsettled window and the commit: how far a partition may run ahead of its frontier, and how the frontier becomes
//! durable.
//!
//! The window is per group and process; each owned partition has an equal share, so that one stuck partition never takes
//! the room of the others.

use crate::engine::core::Core;
use crate::engine::core::messages::{Action, PartitionId};
use crate::engine::core::mutation::Mutation;

impl Core {
    /// Pauses a partition whose share is used up.
    pub(super) fn press(&mut self, id: PartitionId, actions: &mut Vec<Action>) {
        let never = self.mutated(Mutation::NeverPauses);
        let (events_max, bytes_max) = self.share();
        let partition = self.partition(id);
        let full = partition.tracker.span() >= events_max || partition.tracker.unsettled_bytes() >= bytes_max;
        if full && !partition.paused && !never {
            partition.paused = true;
            actions.push(Action::Pause { partition: id });
        }
    }

    /// Resumes a partition that is down to half of its share.
    pub(super) fn relieve(&mut self, id: PartitionId, actions: &mut Vec<Action>) {
        if self.mutated(Mutation::NeverResumes) {
            return;
        }
        let (events_max, bytes_max) = self.share();
        let Some(partition) = self.partitions.get_mut(&id) else {
            return;
        };
        let room = partition.tracker.span() <= events_max / 2 && partition.tracker.unsettled_bytes() <= bytes_max / 2;
        if room && partition.paused && !partition.releasing {
            partition.paused = false;
            actions.push(Action::Resume { partition: id });
        }
    }

    /// The number of owned partitions changed, and with it every share.
    pub(super) fn share_anew(&mut self, actions: &mut Vec<Action>) {
        let ids: Vec<PartitionId> = self.partitions.keys().copied().collect();
        for id in ids {
            self.press(id, actions);
            self.relieve(id, actions);
        }
    }

    pub(super) fn commit(&mut self, actions: &mut Vec<Action>) {
        self.look_for_letters();
        let past_unsettled = self.mutated(Mutation::CommitPassesUnsettled);
        let mut positions = Vec::new();
        for (id, partition) in &mut self.partitions {
            let tracker = &partition.tracker;
            let frontier = if past_unsettled {
                tracker.past_newest()
            } else {
                tracker.frontier()
            };
            if let Some(position) = frontier.filter(|_| frontier != partition.committed) {
                partition.committed = frontier;
                positions.push((*id, position));
            }
        }
        if !positions.is_empty() {
            actions.push(Action::Commit { positions });
        }
    }

    /// Records and bytes one partition may have open; at least one record, so that nothing starves.
    fn share(&self) -> (usize, usize) {
        let owned = self.partitions.len().max(1);
        (
            (self.limits.buffered_events_max / owned).max(1),
            (self.limits.buffered_bytes_max / owned).max(1),
        )
    }
}
