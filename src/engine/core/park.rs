//! Parking: a lane whose head is in the dead letters holds its followers back, durably and in order.
//!
//! While a lane is *parked*, each of its events is stored behind the head, which settles it here. When the head is mended or
//! given up, the lane is *draining*: what is stored is read back and worked on in order, and what arrives is still stored
//! behind it. Events of a lane are stored in order, one batch at a time: what is there after a crash is always all there is
//! up to some position, and what comes again later belongs behind it. The lane is live again when the store says that nothing is left, and meanwhile what arrives is held in memory.
//! An event that fails again while the lane is draining is its new head.
//!
//! Nothing else of a lane is with the driver while it asks what comes next: a replay that was buried meanwhile would park the
//! lane anew, and nobody could tell whether the answer was given before that or after it.

use std::collections::VecDeque;

use crate::engine::core::messages::{Action, HandlerIndex, JobId, PartitionId};
use crate::engine::core::mutation::Mutation;
use crate::engine::core::{Core, Job, Origin};
use crate::engine::lanes::{Lane, LaneKey};
use crate::engine::retry::outage_wait;
use crate::event::delivery::Position;

/// A lane that holds its events back.
#[derive(Debug)]
pub(crate) struct Parked {
    state: State,
    /// Events that the driver stores, or will try again to.
    batch: Vec<JobId>,
    /// Those that come after them.
    queued: VecDeque<JobId>,
}

/// Events that are stored together.
const BATCH_MAX: usize = 64;

#[derive(Debug)]
enum State {
    /// Its head is in the dead letters.
    Parked,
    /// So many events that were read back are not settled; these are.
    Working { left: usize, done: Vec<Position> },
    /// The driver reads what comes next, or finds that nothing is left. These arrived meanwhile.
    Asking { held: VecDeque<JobId> },
}

/// Where a job is that is in no lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aside {
    /// It is stored after others of its lane.
    Queued,
    /// The driver stores it.
    Storing,
    /// It could not be stored, and waits before that is tried again.
    StoreWaiting,
    /// It waits for the word whether its lane is live.
    Held,
}

impl Parked {
    pub(super) fn inherited(draining: bool) -> Self {
        Self {
            state: match draining {
                true => State::Working {
                    left: 0,
                    done: Vec::new(),
                },
                false => State::Parked,
            },
            batch: Vec::new(),
            queued: VecDeque::new(),
        }
    }
}

impl Core {
    /// Whether a job that arrives is not worked on: events of lanes that are parked or draining are stored, and while it is
    /// asked what comes next of a lane, replays wait for the answer as well.
    pub(super) fn is_held_back(&self, id: PartitionId, key: LaneKey, origin: Origin) -> bool {
        let lane = self.partitions[&id].parked.get(&key);
        let asked = !self.mutated(Mutation::ReplayOvertakesAnswer);
        lane.is_some_and(|lane| match (origin, &lane.state) {
            (Origin::Delivery(_), _) => true,
            (Origin::Replay(_) | Origin::Stored, State::Asking { .. }) => asked,
            (Origin::Replay(_) | Origin::Stored, State::Parked | State::Working { .. }) => false,
        })
    }

    /// Puts a job aside that is held back: an event is stored behind those that are stored.
    pub(super) fn park(&mut self, id: PartitionId, key: LaneKey, job: JobId, actions: &mut Vec<Action>) {
        let partition = self.partition(id);
        let lane = partition
            .parked
            .get_mut(&key)
            .expect("only events of parked lanes are stored");
        if let State::Asking { held } = &mut lane.state {
            held.push_back(job);
            partition.aside.insert(job, Aside::Held);
            return;
        }
        lane.queued.push_back(job);
        partition.aside.insert(job, Aside::Queued);
        self.store_next(id, key, actions);
    }

    /// Stores the next events of a lane, unless some are under way.
    fn store_next(&mut self, id: PartitionId, key: LaneKey, actions: &mut Vec<Action>) {
        let batch_max = self.batch_max();
        let at_once = self.mutated(Mutation::StoredOutOfOrder);
        let partition = self.partition(id);
        let Some(lane) = partition.parked.get_mut(&key).filter(|_| !partition.releasing) else {
            return;
        };
        if lane.queued.is_empty() || !lane.batch.is_empty() && !at_once {
            return;
        }
        let jobs: Vec<JobId> = lane.queued.drain(..lane.queued.len().min(batch_max)).collect();
        lane.batch.clone_from(&jobs);
        partition.in_flight += 1;
        for job in &jobs {
            partition.aside.insert(*job, Aside::Storing);
        }
        actions.push(Action::Park { jobs });
    }

    fn batch_max(&self) -> usize {
        BATCH_MAX.min(self.limits.buffered_events_max).max(1)
    }

    /// The events of a batch are stored.
    pub(super) fn stored(&mut self, first: JobId, actions: &mut Vec<Action>) {
        let Some((id, key)) = self.locate_batch(first, Aside::Storing) else {
            return;
        };
        self.partition(id).in_flight -= 1;
        for job in self.take_batch(id, key) {
            self.partition(id).aside.remove(&job);
            self.settle(job, false, actions);
        }
        self.store_next(id, key, actions);
        self.drain_on(id, key, actions);
        self.release_if_idle(id, actions);
        self.relieve(id, actions);
    }

    /// The events of a batch could not be stored.
    pub(super) fn store_failed(&mut self, first: JobId, actions: &mut Vec<Action>) {
        let Some((id, key)) = self.locate_batch(first, Aside::Storing) else {
            return;
        };
        let partition = self.partition(id);
        partition.in_flight -= 1;
        if partition.releasing {
            for job in self.take_batch(id, key) {
                self.partition(id).aside.remove(&job);
                self.drop_job(job, actions);
            }
            return self.release_if_idle(id, actions);
        }
        self.move_batch(id, key, Aside::StoreWaiting);
        let state = self.jobs.get_mut(&first).expect("a job that is aside is known");
        state.outages = state.outages.saturating_add(1);
        let (attempts, outages) = (state.attempts, state.outages);
        let policy = &self.limits.handlers[usize::from(key.handler.0)].policy;
        let wait = outage_wait(policy, outages);
        actions.push(Action::Wait {
            job: first,
            attempts,
            wait,
        });
    }

    /// The wait of events that could not be stored is over.
    pub(super) fn store_again(&mut self, first: JobId, actions: &mut Vec<Action>) {
        if let Some((id, key)) = self.locate_batch(first, Aside::StoreWaiting) {
            self.partition(id).in_flight += 1;
            let jobs = self.move_batch(id, key, Aside::Storing);
            actions.push(Action::Park { jobs });
        }
    }

    /// The lane of the batch that begins with a job, when it is where it is expected.
    fn locate_batch(&self, first: JobId, expected: Aside) -> Option<(PartitionId, LaneKey)> {
        let state = self.jobs.get(&first)?;
        let partition = self.partitions.get(&state.partition)?;
        let begins = partition.parked.get(&state.lane)?.batch.first() == Some(&first);
        (begins && partition.aside.get(&first) == Some(&expected)).then_some((state.partition, state.lane))
    }

    fn take_batch(&mut self, id: PartitionId, key: LaneKey) -> Vec<JobId> {
        let lane = self.partition(id).parked.get_mut(&key);
        lane.map(|lane| std::mem::take(&mut lane.batch)).unwrap_or_default()
    }

    fn move_batch(&mut self, id: PartitionId, key: LaneKey, to: Aside) -> Vec<JobId> {
        let partition = self.partition(id);
        let jobs = partition.parked[&key].batch.clone();
        for job in &jobs {
            partition.aside.insert(*job, to);
        }
        jobs
    }

    /// The first jobs of the batches that the driver stores for a partition.
    pub(super) fn batches(&self, id: PartitionId) -> Vec<JobId> {
        let partition = &self.partitions[&id];
        let firsts = partition.parked.values().filter_map(|lane| lane.batch.first());
        let mut storing: Vec<JobId> = firsts
            .filter(|first| partition.aside.get(first) == Some(&Aside::Storing))
            .copied()
            .collect();
        storing.sort_unstable();
        storing
    }

    /// The head of a lane is in the dead letters: its followers are held back.
    pub(super) fn park_lane(&mut self, id: PartitionId, key: LaneKey, actions: &mut Vec<Action>) {
        let partition = self.partition(id);
        let lane = partition.parked.entry(key).or_insert_with(|| Parked::inherited(false));
        partition.draining -= usize::from(!matches!(lane.state, State::Parked));
        if let State::Asking { held } = std::mem::replace(&mut lane.state, State::Parked) {
            // Those of a partition that is let go are forgotten already.
            for job in held {
                if self.partition(id).aside.remove(&job).is_some() {
                    self.park(id, key, job, actions);
                }
            }
        }
        let partition = self.partition(id);
        let Some(lane) = partition.lanes.get_mut(&key) else {
            return;
        };
        let queue = std::mem::take(&mut lane.queue);
        if self.mutated(Mutation::ParkedFollowersRun) {
            self.lane(id, key).queue = queue;
            return;
        }
        for job in queue {
            match self.jobs[&job].origin {
                Origin::Delivery(_) => self.park(id, key, job, actions),
                // It is stored, and is read again when the lane drains.
                Origin::Stored => self.drop_job(job, actions),
                Origin::Replay(request) => {
                    // The head is another one now: mending the letter that was it releases nothing.
                    if let Some(open) = self.replays.get_mut(&request) {
                        open.is_head = false;
                    }
                    self.lane(id, key).queue.push_back(job);
                }
            }
        }
    }

    /// The head of a parked lane is mended, or given up: what is stored behind it is worked on.
    pub(super) fn drain(&mut self, id: PartitionId, key: LaneKey, actions: &mut Vec<Action>) {
        let partition = self.partition(id);
        let Some(lane) = partition.parked.get_mut(&key) else {
            return;
        };
        if matches!(lane.state, State::Parked) {
            partition.draining += 1;
            lane.state = State::Working {
                left: 0,
                done: Vec::new(),
            };
            self.drain_on(id, key, actions);
        }
    }

    /// Asks for what comes next once everything that was read back is settled, nothing is on its way into the store, and no
    /// replay of the lane is open.
    pub(super) fn drain_on(&mut self, id: PartitionId, key: LaneKey, actions: &mut Vec<Action>) {
        let early = self.mutated(Mutation::LiveWhileStoring);
        let Some(partition) = self.partitions.get_mut(&id).filter(|partition| !partition.releasing) else {
            return;
        };
        let Some(lane) = partition.parked.get_mut(&key) else {
            return;
        };
        let State::Working { left: 0, done } = &mut lane.state else {
            return;
        };
        let busy = partition.lanes.get(&key).is_some_and(|lane| !lane.queue.is_empty());
        if busy {
            return;
        }
        let storing = !lane.batch.is_empty() || !lane.queued.is_empty();
        if storing && !early {
            return;
        }
        let done = std::mem::take(done);
        lane.state = State::Asking { held: VecDeque::new() };
        actions.push(Action::Unpark {
            partition: id,
            handler: key.handler,
            key: key.key,
            done,
        });
    }

    /// An event that had been stored is settled.
    pub(super) fn stored_settled(
        &mut self,
        id: PartitionId,
        key: LaneKey,
        position: Position,
        actions: &mut Vec<Action>,
    ) {
        if let Some(State::Working { left, done }) = self.partition(id).parked.get_mut(&key).map(|lane| &mut lane.state)
        {
            *left -= 1;
            done.push(position);
            self.drain_on(id, key, actions);
        }
    }

    /// What comes next of a draining lane; nothing, when it is live.
    pub(super) fn unparked(
        &mut self,
        id: PartitionId,
        epoch: u64,
        key: LaneKey,
        jobs: Vec<(JobId, Position)>,
        actions: &mut Vec<Action>,
    ) {
        let live = |partition: &&mut crate::engine::core::Partition| partition.epoch == epoch && !partition.releasing;
        let partition = self.partitions.get_mut(&id).filter(live);
        let lane = partition.and_then(|partition| partition.parked.get_mut(&key));
        let Some(State::Asking { held }) = lane.map(|lane| &mut lane.state) else {
            actions.extend(jobs.into_iter().map(|(job, _)| Action::Forget { job }));
            return;
        };
        let held = std::mem::take(held);
        for job in &held {
            self.partition(id).aside.remove(job);
        }
        if jobs.is_empty() && !self.mutated(Mutation::NeverLiveAgain) {
            let partition = self.partition(id);
            partition.parked.remove(&key);
            partition.draining -= 1;
            for job in held {
                self.enqueue(id, key, job);
            }
            return;
        }
        let lane = self.partition(id).parked.get_mut(&key).expect("it was just found");
        lane.state = State::Working {
            left: jobs.len(),
            done: Vec::new(),
        };
        for (job, position) in jobs {
            self.jobs.insert(job, Job::new(id, key, Origin::Stored, position, 0));
            self.enqueue(id, key, job);
        }
        let overtaking = self.mutated(Mutation::HeldOvertakes);
        for job in held {
            match self.jobs[&job].origin {
                Origin::Delivery(_) if !overtaking => self.park(id, key, job, actions),
                _ => self.enqueue(id, key, job),
            }
        }
    }

    /// Puts a job at the end of its lane.
    pub(super) fn enqueue(&mut self, id: PartitionId, key: LaneKey, job: JobId) {
        match self.partition(id).lanes.get_mut(&key) {
            Some(known) => known.queue.push_back(job),
            None => {
                self.partition(id).lanes.insert(key, Lane::of(job));
                if key.handler != HandlerIndex::NONE {
                    self.make_ready(id, key);
                }
            }
        }
    }
}
