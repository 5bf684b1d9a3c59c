//! Replays: dead letters that come back into the lane they were buried from. They have no place in the partition, so they
//! never move a frontier.

use crate::engine::core::messages::{Action, ParkedJob, PartitionId, RequestId, Work};
use crate::engine::core::mutation::Mutation;
use crate::engine::core::{Core, OpenReplay, Origin};
use crate::event::delivery::Position;

/// What a replay is of.
pub(super) struct Named {
    pub(super) request: RequestId,
    pub(super) position: Position,
    pub(super) is_head: bool,
    pub(super) parked: Option<ParkedJob>,
}

impl Core {
    pub(super) fn replayed(
        &mut self,
        id: PartitionId,
        epoch: u64,
        named: Named,
        work: Work,
        actions: &mut Vec<Action>,
    ) {
        let Named {
            request,
            position,
            is_head,
            parked,
        } = named;
        let jobs = work.jobs();
        let live = self
            .partitions
            .get(&id)
            .is_some_and(|partition| partition.epoch == epoch && !partition.releasing);
        let open = self.replays.contains_key(&request) && !self.mutated(Mutation::ReplayIsTakenTwice);
        if !live || open {
            actions.extend(jobs.iter().map(|spec| Action::Forget { job: spec.job }));
            return;
        }
        if jobs.is_empty() {
            self.letter_ended(id, parked);
            actions.push(Action::ReplayEnded { request, healed: true });
            return;
        }
        self.replays.insert(
            request,
            OpenReplay {
                jobs: jobs.len(),
                healed: true,
                is_head,
                parked,
            },
        );
        self.queue(id, Origin::Replay(request), position, &jobs, actions);
    }

    pub(super) fn replay_settled(
        &mut self,
        id: PartitionId,
        request: RequestId,
        healed: bool,
        actions: &mut Vec<Action>,
    ) {
        let always = self.mutated(Mutation::ReplayAlwaysHeals);
        let Some(open) = self.replays.get_mut(&request) else {
            return;
        };
        open.jobs -= 1;
        open.healed &= healed || always;
        if open.jobs == 0 {
            let ended = self.replays.remove(&request).expect("it was just found");
            self.letter_ended(id, ended.parked);
            actions.push(Action::ReplayEnded {
                request,
                healed: ended.healed,
            });
        }
    }
}
