//! Getting and giving up partitions: assignment, revocation within a budget, loss, and the stop of the whole process.
//!
//! A partition that is let go forgets what is queued and lets what runs finish. A success that still arrives in time
//! moves the frontier; a failure is neither retried nor buried, the next owner meets the record again. When the budget is
//! spent, what runs is abandoned.

use std::collections::{BTreeMap, HashMap};

use crate::engine::core::lag::Lag;
use crate::engine::core::messages::{Action, Inheritance, JobId, PartitionId};
use crate::engine::core::mutation::Mutation;
use crate::engine::core::park::{Aside, Parked};
use crate::engine::core::poison::Poison;
use crate::engine::core::{Core, Origin, Partition};
use crate::engine::lanes::{LaneKey, Phase};
use crate::engine::offsets::Tracker;

impl Core {
    pub(super) fn assigned(&mut self, id: PartitionId, epoch: u64, inherited: Inheritance, actions: &mut Vec<Action>) {
        let held = self.partitions.contains_key(&id);
        self.abandon(id, actions);
        if self.stopping {
            if !held {
                // Nothing is taken any more. Said aloud, because a revocation would otherwise wait for its release.
                actions.push(Action::Released {
                    partition: id,
                    position: None,
                });
            }
            return;
        }
        let fresh = Partition {
            epoch,
            tracker: Tracker::default(),
            lanes: HashMap::new(),
            in_flight: 0,
            paused: false,
            releasing: false,
            committed: None,
            poison: Poison::inherited(inherited.suspect_to, inherited.deaths),
            attempts: inherited.attempts,
            parked: HashMap::new(),
            aside: BTreeMap::new(),
            halt: None,
            lag: Lag::default(),
            draining: 0,
        };
        self.partitions.insert(id, fresh);
        self.inherit_letters(id, inherited.letters);
        for ((handler, key), draining) in inherited.parked {
            let lane = LaneKey { handler, key };
            self.partition(id).parked.insert(lane, Parked::inherited(draining));
            self.partition(id).draining += usize::from(draining);
            self.drain_on(id, lane, actions);
        }
        self.share_anew(actions);
    }

    /// Takes nothing more for the partition, forgets what is queued, and lets it go when nothing runs on it.
    pub(super) fn release(&mut self, id: PartitionId, actions: &mut Vec<Action>) {
        let Some(partition) = self.partitions.get_mut(&id) else {
            return;
        };
        if partition.releasing {
            return;
        }
        partition.releasing = true;
        if !self.mutated(Mutation::RevokedStillStarts) {
            self.forget_queued(id, actions);
        }
        self.release_if_idle(id, actions);
    }

    /// The budget of a revocation is spent. One that arrives late, when the partition is ours again, means nothing.
    pub(super) fn budget_spent(&mut self, id: PartitionId, actions: &mut Vec<Action>) {
        let believed = self.mutated(Mutation::LateBudgetIsBelieved);
        let ours = self.partitions.get(&id);
        if ours.is_some_and(|partition| partition.releasing || believed) {
            self.abandon(id, actions);
        }
    }

    /// Lets the partition go at once: what still runs on it is abandoned.
    pub(super) fn abandon(&mut self, id: PartitionId, actions: &mut Vec<Action>) {
        let Some(partition) = self.partitions.get_mut(&id) else {
            return;
        };
        partition.releasing = true;
        self.forget_queued(id, actions);
        let lanes = self.partitions[&id].lanes.iter();
        let mut left: Vec<(JobId, LaneKey, Phase)> = lanes.map(|(key, lane)| (lane.head(), *key, lane.phase)).collect();
        left.sort_unstable_by_key(|(head, _, _)| *head);
        let storing = self.batches(id);
        actions.extend(storing.into_iter().map(|job| Action::Abandon { job }));
        for (head, key, phase) in left {
            actions.push(Action::Abandon { job: head });
            if matches!(phase, Phase::Running { .. }) {
                self.running -= 1;
                let handler = self.handler(key.handler);
                handler.running -= 1;
                handler.circuit.abandoned(head);
                self.ended_alone(head);
            }
        }
        let partition = self.partition(id);
        partition.in_flight = 0;
        self.release_if_idle(id, actions);
    }

    /// What failed while its partition is let go is neither retried nor buried: the next owner meets it again.
    pub(super) fn give_up(&mut self, id: PartitionId, key: LaneKey, actions: &mut Vec<Action>) {
        let lane = self.partition(id).lanes.remove(&key).expect("a located lane exists");
        for job in lane.queue {
            self.drop_job(job, actions);
        }
        self.release_if_idle(id, actions);
    }

    pub(super) fn release_if_idle(&mut self, id: PartitionId, actions: &mut Vec<Action>) {
        let partition = self.partition(id);
        if !partition.releasing {
            return;
        }
        let in_flight = partition.in_flight;
        if in_flight > 0 && !self.mutated(Mutation::ReleasesWhileRunning) {
            return;
        }
        let gone = self.partitions.remove(&id).expect("it was just found");
        self.halting.remove(&id);
        self.recalling.retain(|(partition, _)| *partition != id);
        actions.extend(gone.halt.map(|job| Action::Forget { job }));
        for (key, lane) in &gone.lanes {
            if matches!(lane.phase, Phase::Running { .. }) && in_flight > 0 {
                self.running -= 1;
                self.handler(key.handler).running -= 1;
            }
        }
        let mut left: Vec<JobId> = gone
            .lanes
            .values()
            .flat_map(|lane| lane.queue.iter().copied())
            .collect();
        left.extend(gone.aside.keys());
        left.sort_unstable();
        for job in left {
            self.drop_job(job, actions);
        }
        actions.push(Action::Released {
            partition: id,
            position: gone.tracker.frontier(),
        });
        if self.stopping {
            if self.partitions.is_empty() {
                actions.push(Action::Drained);
            }
        } else {
            self.share_anew(actions);
        }
    }

    pub(super) fn stop(&mut self, actions: &mut Vec<Action>) {
        if self.stopping {
            return;
        }
        self.stopping = true;
        if self.partitions.is_empty() || self.mutated(Mutation::DrainsTooEarly) {
            actions.push(Action::Drained);
        }
        for id in self.owned() {
            self.release(id, actions);
        }
    }

    pub(super) fn stop_now(&mut self, actions: &mut Vec<Action>) {
        for id in self.owned() {
            self.budget_spent(id, actions);
        }
    }

    fn owned(&self) -> Vec<PartitionId> {
        self.partitions.keys().copied().collect()
    }

    /// Drops every job that is not with the driver; lanes that end up empty go too, and so do their places among the
    /// ready ones: they would pile up, and the next assignment would find them taken.
    fn forget_queued(&mut self, id: PartitionId, actions: &mut Vec<Action>) {
        self.handlers.iter_mut().for_each(|handler| handler.forget(id));
        self.next_alone.retain(|(partition, _)| *partition != id);
        let mut forgotten: Vec<JobId> = Vec::new();
        self.partition(id).lanes.retain(|_, lane| {
            let kept = match lane.phase {
                Phase::Running { members } => members,
                Phase::Burying => 1,
                Phase::Ready | Phase::Unreserved | Phase::WaitingAlone | Phase::Waiting | Phase::BuryWaiting => 0,
            };
            forgotten.extend(lane.queue.drain(kept..));
            kept > 0
        });
        let aside = &mut self.partition(id).aside;
        forgotten.extend(aside.keys().filter(|job| aside[*job] != Aside::Storing));
        aside.retain(|_, state| *state == Aside::Storing);
        forgotten.sort_unstable();
        for job in forgotten {
            self.drop_job(job, actions);
        }
    }

    /// Drops a job without settling it: the record stays before the frontier.
    pub(super) fn drop_job(&mut self, job: JobId, actions: &mut Vec<Action>) {
        let Some(state) = self.jobs.remove(&job) else { return };
        if let Origin::Replay(request) = state.origin {
            // The request stays taken under an old epoch; the next owner takes it again.
            self.replays.remove(&request);
        }
        actions.push(Action::Forget { job });
    }
}
