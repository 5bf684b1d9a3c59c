//! Crash poison: a job that kills the process reaches the dead letters, and its neighbours are not blamed.
//!
//! Before a record is handed out, the claim of its partition says durably that it may be: positions are reserved ahead. The
//! owner after a death suspects everything before that position. It commits a running mark before each attempt there; jobs
//! whose mark was left by a death run alone from then on, and only a death while one runs alone counts against it, until it is
//! settled.

use std::collections::BTreeMap;

use crate::engine::core::messages::{Action, HandlerIndex, JobId, Mark, PartitionId};
use crate::engine::core::mutation::Mutation;
use crate::engine::core::{Core, Origin};
use crate::engine::lanes::{LaneKey, Phase};
use crate::event::delivery::Position;

/// What is known of a partition's records.
#[derive(Debug)]
pub(crate) struct Poison {
    /// Records before this position were with an owner that died.
    suspect_to: Option<Position>,
    /// Jobs that were running at a death, and the deaths while they ran alone.
    deaths: BTreeMap<(Position, HandlerIndex), u32>,
    /// The first position that may not be handed out yet.
    reserved_to: Option<Position>,
    /// The driver was asked for more.
    reserving: bool,
    /// Lanes whose head waits for that.
    unreserved: Vec<LaneKey>,
}

/// Whether the head of a lane may start.
pub(super) enum Clearance {
    Start(Mark),
    /// Not yet; its lane becomes ready when it may.
    Wait,
    /// Too many died of it.
    Crashed,
}

impl Poison {
    pub(super) fn inherited(suspect_to: Option<Position>, deaths: BTreeMap<(Position, HandlerIndex), u32>) -> Self {
        Self {
            suspect_to,
            deaths,
            reserved_to: None,
            reserving: false,
            unreserved: Vec::new(),
        }
    }

    /// Whether nothing speaks against handing the job out together with others.
    pub(super) fn is_free(&self, position: Position, handler: HandlerIndex, deaths_max: u32) -> bool {
        deaths_max == 0
            || self.is_reserved(position)
                && !self.is_suspect(position)
                && !self.deaths.contains_key(&(position, handler))
    }

    fn is_reserved(&self, position: Position) -> bool {
        self.reserved_to.is_some_and(|to| position < to)
    }

    fn is_suspect(&self, position: Position) -> bool {
        self.suspect_to.is_some_and(|to| position < to)
    }
}

impl Core {
    /// Asks for more positions before those that are reserved run out.
    pub(super) fn reserve(&mut self, id: PartitionId, actions: &mut Vec<Action>) {
        let ahead = self.limits.reserved_ahead.max(1);
        let off = self.limits.crash_deaths_max == 0;
        let partition = self.partition(id);
        let Some(newest) = partition.tracker.newest() else {
            return;
        };
        let poison = &mut partition.poison;
        let enough = poison.reserved_to.is_some_and(|to| newest.0 + ahead / 2 < to.0);
        if off || poison.reserving || enough {
            return;
        }
        poison.reserving = true;
        actions.push(Action::Reserve {
            partition: id,
            to: Position(newest.0 + ahead),
        });
    }

    /// Positions are reserved: the lanes that waited for it may start.
    pub(super) fn reserved(&mut self, id: PartitionId, epoch: u64, to: Position, actions: &mut Vec<Action>) {
        let live = |partition: &&mut crate::engine::core::Partition| partition.epoch == epoch && !partition.releasing;
        let Some(partition) = self.partitions.get_mut(&id).filter(live) else {
            return;
        };
        let poison = &mut partition.poison;
        poison.reserving = false;
        poison.reserved_to = poison.reserved_to.max(Some(to));
        for key in std::mem::take(&mut poison.unreserved) {
            self.wake(id, key, Phase::Unreserved);
        }
        self.reserve(id, actions);
    }

    /// Whether the head of a lane may start, and how; one that may not is put where it is found again.
    pub(super) fn clearance(&mut self, id: PartitionId, key: LaneKey, head: JobId) -> Clearance {
        let deaths_max = self.limits.crash_deaths_max;
        if deaths_max == 0 {
            return Clearance::Start(Mark::None);
        }
        let (position, origin) = (self.jobs[&head].position, self.jobs[&head].origin);
        let unreserved_starts = self.mutated(Mutation::UnreservedStarts);
        let unsuspected = self.mutated(Mutation::SuspectsAreNotMarked);
        let together = self.mutated(Mutation::SuspectsRunTogether);
        let blameless = self.mutated(Mutation::NobodyIsBlamed);
        let poison = &mut self
            .partitions
            .get_mut(&id)
            .expect("a ready lane has a partition")
            .poison;
        let is_replay = !matches!(origin, Origin::Delivery(_));
        if !is_replay && !poison.is_reserved(position) && !unreserved_starts {
            poison.unreserved.push(key);
            self.lane(id, key).phase = Phase::Unreserved;
            return Clearance::Wait;
        }
        match poison.deaths.get(&(position, key.handler)) {
            Some(deaths) if *deaths >= deaths_max && !blameless => Clearance::Crashed,
            Some(_) if self.alone.is_some() && !together => {
                self.next_alone.push_back((id, key));
                self.lane(id, key).phase = Phase::WaitingAlone;
                Clearance::Wait
            }
            Some(_) => Clearance::Start(Mark::Alone),
            None if (is_replay || poison.is_suspect(position)) && !unsuspected => Clearance::Start(Mark::Running),
            None => Clearance::Start(Mark::None),
        }
    }

    /// The job is done, or in the dead letters: what is known of its deaths is of no use any more.
    pub(super) fn acquit(&mut self, id: PartitionId, job: JobId) {
        if let Some(state) = self.jobs.get(&job) {
            let named = (state.position, state.lane.handler);
            self.partition(id).poison.deaths.remove(&named);
        }
    }

    /// If this job ran alone, those that have to may, one after the other.
    pub(super) fn ended_alone(&mut self, job: JobId) {
        if self.alone != Some(job) {
            return;
        }
        self.alone = None;
        // All of them: the first may belong to a handler that starts nothing now.
        for (id, key) in std::mem::take(&mut self.next_alone) {
            self.wake(id, key, Phase::WaitingAlone);
        }
    }

    /// Makes a lane ready that was put aside in this phase.
    fn wake(&mut self, id: PartitionId, key: LaneKey, phase: Phase) {
        let lane = self
            .partitions
            .get_mut(&id)
            .and_then(|partition| partition.lanes.get_mut(&key));
        if let Some(lane) = lane.filter(|lane| lane.phase == phase) {
            lane.phase = Phase::Ready;
            self.make_ready(id, key);
        }
    }
}
