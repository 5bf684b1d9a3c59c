//! The shadow's view of parked lanes.

use std::collections::{BTreeMap, VecDeque};

use afterwrite::engine::core::messages::{HandlerIndex, JobId, PartitionId};
use afterwrite::event::delivery::Position;

use crate::invariant::{Checked, Invariant};
use crate::shadow::{Hold, Job, LaneName, Origin, Shadow};

/// A lane that holds its events back.
pub(crate) struct Parked {
    pub(crate) state: State,
    /// Events that have to be stored, in order.
    queued: VecDeque<JobId>,
    /// Those that the driver stores, or will try again to.
    batch: Vec<JobId>,
}

#[derive(PartialEq, Eq)]
pub(crate) enum State {
    Parked,
    /// So many events that were read back are open. None: it has to be asked what comes next.
    Working(usize),
    Asking(Vec<JobId>),
}

/// Where a job is that is in no lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aside {
    /// It is stored after those of its lane that came before it.
    Queued,
    Storing,
    /// `Wait` has to come within the step.
    StoreFailed,
    StoreWaiting,
    Held,
    GivenUp,
}

impl Parked {
    pub(crate) fn inherited(lanes: &BTreeMap<(HandlerIndex, u64), bool>) -> BTreeMap<LaneName, Self> {
        let parked = |draining: bool| Self {
            state: if draining { State::Working(0) } else { State::Parked },
            queued: VecDeque::new(),
            batch: Vec::new(),
        };
        lanes
            .iter()
            .map(|(name, draining)| (*name, parked(*draining)))
            .collect()
    }
}

impl Parked {
    pub(crate) fn is_draining(&self) -> bool {
        self.state != State::Parked
    }
}

impl Hold {
    /// Whether what arrives for a lane is not worked on: events while it is parked or draining, and replays as well while it is
    /// asked what comes next.
    pub(crate) fn is_held_back(&self, name: LaneName, origin: Origin) -> bool {
        let lane = self.parked.get(&name);
        lane.is_some_and(|lane| matches!(origin, Origin::Arrival(_)) || matches!(lane.state, State::Asking(_)))
    }

    /// What is held back arrived for a lane.
    pub(crate) fn put_aside(&mut self, name: LaneName, job: JobId) {
        let lane = self
            .parked
            .get_mut(&name)
            .expect("only events of parked lanes are put aside");
        let aside = match &mut lane.state {
            State::Asking(held) => {
                held.push(job);
                Aside::Held
            }
            _ => {
                lane.queued.push_back(job);
                Aside::Queued
            }
        };
        self.aside.insert(job, aside);
    }
}

impl Shadow {
    /// Moves the batch that begins with a job, and answers it when it was where it is expected.
    pub(crate) fn move_batch(&mut self, first: JobId, from: Aside, to: Aside) -> Option<Vec<JobId>> {
        let known = self.jobs.get(&first)?;
        let hold = self.holds.get_mut(&known.partition)?;
        let batch = hold.parked.get(&known.lane)?.batch.clone();
        if batch.first() != Some(&first) || hold.aside.get(&first) != Some(&from) {
            return None;
        }
        hold.aside.extend(batch.iter().map(|job| (*job, to)));
        Some(batch)
    }

    pub(crate) fn stored(&mut self, first: JobId) {
        let Some(batch) = self.move_batch(first, Aside::Storing, Aside::Held) else {
            return;
        };
        let (id, name) = (self.jobs[&first].partition, self.jobs[&first].lane);
        let hold = self.holds.get_mut(&id).expect("it was just found");
        hold.parked.get_mut(&name).expect("it was just found").batch.clear();
        for job in batch {
            hold.aside.remove(&job);
            if let Origin::Arrival(number) = self.jobs[&job].origin {
                hold.settle(number);
            }
            self.settled.push(job);
        }
    }

    pub(crate) fn store_failed(&mut self, first: JobId) {
        let Some(batch) = self.move_batch(first, Aside::Storing, Aside::StoreFailed) else {
            return;
        };
        let hold = self
            .holds
            .get_mut(&self.jobs[&first].partition)
            .expect("it was just found");
        if hold.releasing {
            hold.aside.extend(batch.into_iter().map(|job| (job, Aside::GivenUp)));
        }
    }

    /// The wait of events that could not be stored is over: they have to be stored again, all of them.
    pub(crate) fn store_again(&mut self, first: JobId) -> bool {
        let Some(batch) = self.move_batch(first, Aside::StoreWaiting, Aside::Queued) else {
            return false;
        };
        let (id, name) = (self.jobs[&first].partition, self.jobs[&first].lane);
        let hold = self.holds.get_mut(&id).expect("it was just found");
        let lane = hold.parked.get_mut(&name).expect("it was just found");
        lane.batch.clear();
        batch.into_iter().rev().for_each(|job| lane.queued.push_front(job));
        true
    }

    /// The head of a lane is in the dead letters: what is behind it is to be stored, and what was read back is dropped.
    pub(crate) fn park_lane(&mut self, id: PartitionId, name: LaneName) {
        let hold = self.holds.get_mut(&id).expect("it was just found");
        let parked = hold.parked.entry(name).or_insert(Parked {
            state: State::Parked,
            queued: VecDeque::new(),
            batch: Vec::new(),
        });
        if let State::Asking(held) = std::mem::replace(&mut parked.state, State::Parked) {
            let open = |job: &JobId| hold.aside.contains_key(job);
            let held: Vec<JobId> = held.into_iter().filter(open).collect();
            held.into_iter().for_each(|job| hold.put_aside(name, job));
        }
        let mut to_store = Vec::new();
        let Some(lane) = hold.lanes.get_mut(&name) else { return };
        for job in std::mem::take(&mut lane.queue) {
            match self.jobs[&job].origin {
                Origin::Arrival(_) => to_store.push(job),
                Origin::Stored => {
                    self.jobs.remove(&job);
                    self.refused.push(job);
                }
                Origin::Replay(request) => {
                    if let Some(replay) = self.replays.get_mut(&request) {
                        replay.is_head = false;
                    }
                    lane.queue.push_back(job);
                }
            }
        }
        lane.ready_with = lane.queue.len();
        if lane.queue.is_empty() {
            hold.lanes.remove(&name);
        }
        to_store.into_iter().for_each(|job| hold.put_aside(name, job));
    }

    pub(crate) fn drain(&mut self, id: PartitionId, name: LaneName) {
        let hold = self.holds.get_mut(&id).filter(|hold| !hold.releasing);
        let lane = hold.and_then(|hold| hold.parked.get_mut(&name));
        if let Some(lane) = lane.filter(|lane| lane.state == State::Parked) {
            lane.state = State::Working(0);
        }
    }

    pub(crate) fn unparked(&mut self, id: PartitionId, epoch: u64, name: LaneName, jobs: &[(JobId, Position)]) {
        let hold = self
            .holds
            .get_mut(&id)
            .filter(|hold| hold.epoch == epoch && !hold.releasing);
        let lane = hold.and_then(|hold| hold.parked.get_mut(&name));
        let Some(lane) = lane.filter(|lane| matches!(lane.state, State::Asking(_))) else {
            self.refused.extend(jobs.iter().map(|(job, _)| *job));
            return;
        };
        let State::Asking(held) = std::mem::replace(&mut lane.state, State::Working(jobs.len())) else {
            unreachable!("it was just seen");
        };
        for (job, position) in jobs {
            self.jobs.insert(*job, Job::new(id, name, Origin::Stored, *position, 0));
            self.join_lane(id, name, *job);
        }
        let hold = self.holds.get_mut(&id).expect("it was just found");
        if jobs.is_empty() {
            hold.parked.remove(&name);
            hold.aside.retain(|job, _| !held.contains(job));
            held.into_iter().for_each(|job| self.join_lane(id, name, job));
            return;
        }
        for job in held {
            if matches!(self.jobs[&job].origin, Origin::Arrival(_)) {
                self.hold(id).put_aside(name, job);
            } else {
                self.hold(id).aside.remove(&job);
                self.join_lane(id, name, job);
            }
        }
    }

    pub(crate) fn parks(&mut self, jobs: &[JobId]) -> Checked {
        let parking = Invariant::Parking;
        let known = jobs.first().and_then(|first| self.jobs.get(first));
        let Some((id, name)) = known.map(|job| (job.partition, job.lane)) else {
            return parking.violated("events are stored that are not open");
        };
        let hold = self.holds.get_mut(&id).expect("a partition outlives its jobs");
        let lane = hold.parked.get_mut(&name);
        let Some(lane) = lane.filter(|lane| !matches!(lane.state, State::Asking(_))) else {
            return parking.violated(format!("{jobs:?} are stored in a lane that may be live"));
        };
        parking.check(lane.batch.is_empty(), || {
            format!("{jobs:?} are stored beside others of their lane")
        })?;
        let in_turn = lane.queued.iter().take(jobs.len()).eq(jobs);
        parking.check(in_turn, || format!("{jobs:?} are stored, next are {:?}", lane.queued))?;
        lane.batch = lane.queued.drain(..jobs.len()).collect();
        hold.aside.extend(jobs.iter().map(|job| (*job, Aside::Storing)));
        Ok(())
    }

    pub(crate) fn unparks(&mut self, id: PartitionId, name: LaneName) -> Checked {
        let storing = self.is_storing(id, name);
        let hold = self.holds.get_mut(&id).filter(|hold| !hold.releasing && !storing);
        let quiet = hold.filter(|hold| !hold.lanes.contains_key(&name));
        let lane = quiet.and_then(|hold| hold.parked.get_mut(&name));
        let Some(lane) = lane.filter(|lane| lane.state == State::Working(0)) else {
            return Invariant::Parking.violated(format!("{name:?} is asked for what comes next too early"));
        };
        lane.state = State::Asking(Vec::new());
        Ok(())
    }

    /// Whether events of the lane are on their way into the store.
    fn is_storing(&self, id: PartitionId, name: LaneName) -> bool {
        let aside = self.holds.get(&id).into_iter().flat_map(|hold| &hold.aside);
        let mut of_lane = aside.filter(|(job, _)| self.jobs[*job].lane == name);
        of_lane.any(|(_, aside)| !matches!(aside, Aside::Held | Aside::GivenUp))
    }

    pub(crate) fn check_parked(&self, id: PartitionId, hold: &Hold) -> Checked {
        let parking = Invariant::Parking;
        let failed = hold.aside.values().any(|aside| *aside == Aside::StoreFailed);
        let left = |lane: &Parked| !lane.queued.is_empty() && lane.batch.is_empty();
        let owed = !hold.releasing && (failed || hold.parked.values().any(left));
        parking.check(!owed, || format!("nobody stores what has to be stored of {id:?}"))?;
        let idle = |(name, lane): (&LaneName, &Parked)| {
            lane.state == State::Working(0) && !self.is_storing(id, *name) && !hold.lanes.contains_key(name)
        };
        let unasked = hold.parked.iter().any(idle) && !hold.releasing;
        parking.check(!unasked, || {
            format!("nobody asks what comes next of a draining lane of {id:?}")
        })
    }
}
