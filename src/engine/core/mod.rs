//! The deciding half of the engine: `Input` in, `Action`s out.
//!
//! A plain state machine: no async, no clock, no randomness, no I/O. It owns lanes, offset tracking, retry verdicts,
//! revocation and the stop. The driver performs what it decides and tells it what happened. Because of that everything
//! about delivery is tested by simulation (`tests/simulation/`).
//!
//! Invariants:
//! - a frontier never passes a job that is neither done nor durably buried;
//! - a lane has at most one job (or one coalesced prefix) with the driver;
//! - a job of a partition that was released is never started, and its late end changes nothing.

pub mod messages;

pub mod mutation;

mod burial;

mod dispatch;

mod halt;

mod lag;

mod outcome;

mod park;

mod poison;

mod ready;

mod release;

mod replay;

mod window;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use crate::engine::core::dispatch::Dispatch;
use crate::engine::core::lag::Lag;
use crate::engine::core::messages::{
    Action, HandlerIndex, Input, JobId, JobSpec, Limits, Moment, ParkedJob, PartitionId, RequestId, Work,
};
use crate::engine::core::mutation::Mutation;
use crate::engine::core::outcome::FirstFailure;
use crate::engine::core::park::{Aside, Parked};
use crate::engine::core::poison::Poison;
use crate::engine::core::replay::Named;
use crate::engine::lanes::{Lane, LaneKey, Lanes, Phase};
use crate::engine::offsets::{Ticket, Tracker};
use crate::engine::retry::Class;
use crate::event::delivery::Position;

#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) partition: PartitionId,
    pub(crate) position: Position,
    pub(crate) lane: LaneKey,
    pub(crate) origin: Origin,
    pub(crate) attempts: u32,
    pub(crate) outages: u32,
    pub(crate) first_failure: Option<FirstFailure>,
    /// Set once the job is on its way to the dead letters.
    pub(crate) class: Option<Class>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    Delivery(Ticket),
    Replay(RequestId),
    /// It was stored behind a parked head.
    Stored,
}

#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) epoch: u64,
    pub(crate) tracker: Tracker,
    pub(crate) lanes: Lanes,
    /// Lanes whose head is with the driver.
    pub(crate) in_flight: usize,
    pub(crate) paused: bool,
    pub(crate) releasing: bool,
    pub(crate) committed: Option<Position>,
    pub(crate) poison: Poison,
    /// Attempts of jobs that an earlier owner left waiting.
    pub(crate) attempts: BTreeMap<(Position, HandlerIndex), u32>,
    /// Lanes that hold their events back.
    pub(crate) parked: HashMap<LaneKey, Parked>,
    /// Open jobs that are in no lane.
    pub(crate) aside: BTreeMap<JobId, Aside>,
    /// The record that must not be passed: nothing behind it is taken.
    pub(crate) halt: Option<JobId>,
    pub(crate) lag: Lag,
    /// Lanes among the parked ones that are draining.
    pub(crate) draining: usize,
}

/// Jobs of one replay that are still open.
#[derive(Debug)]
pub(crate) struct OpenReplay {
    pub(crate) jobs: usize,
    pub(crate) healed: bool,
    /// Its letter is the head of a parked lane.
    pub(crate) is_head: bool,
    /// Its letter was parked because of lag.
    pub(crate) parked: Option<ParkedJob>,
}

impl Job {
    pub(crate) fn new(
        partition: PartitionId,
        lane: LaneKey,
        origin: Origin,
        position: Position,
        attempts: u32,
    ) -> Self {
        Self {
            partition,
            position,
            lane,
            origin,
            attempts,
            outages: 0,
            first_failure: None,
            class: None,
        }
    }
}

/// The state machine of one group in one process.
#[derive(Debug)]
pub struct Core {
    pub(crate) limits: Limits,
    pub(crate) partitions: BTreeMap<PartitionId, Partition>,
    pub(crate) jobs: HashMap<JobId, Job>,
    pub(crate) replays: HashMap<RequestId, OpenReplay>,
    /// One per handler of the group.
    handlers: Vec<Dispatch>,
    /// So many times a lane became ready.
    ready_before: u64,
    running: usize,
    /// The one job that runs alone, and the lanes whose heads have to do so after it.
    alone: Option<JobId>,
    next_alone: VecDeque<(PartitionId, LaneKey)>,
    /// Partitions with a record that must not be passed.
    halting: BTreeSet<PartitionId>,
    /// Handlers with letters that were parked because of lag.
    recalling: BTreeSet<(PartitionId, HandlerIndex)>,
    pub(crate) stopping: bool,
    #[cfg(any(test, feature = "testkit"))]
    mutation: Option<Mutation>,
}

impl Core {
    /// A core that owns nothing yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            handlers: limits.handlers.iter().map(|_| Dispatch::new()).collect(),
            ready_before: 0,
            limits,
            partitions: BTreeMap::new(),
            jobs: HashMap::new(),
            replays: HashMap::new(),
            running: 0,
            alone: None,
            next_alone: VecDeque::new(),
            halting: BTreeSet::new(),
            recalling: BTreeSet::new(),
            stopping: false,
            #[cfg(any(test, feature = "testkit"))]
            mutation: None,
        }
    }

    /// A core that is broken on purpose.
    #[cfg(any(test, feature = "testkit"))]
    pub fn broken(limits: Limits, mutation: Mutation) -> Self {
        Self {
            mutation: Some(mutation),
            ..Self::new(limits)
        }
    }

    /// Takes one input, which happened at this moment, and appends what follows from it to `actions`.
    pub fn step(&mut self, at: Moment, input: Input, actions: &mut Vec<Action>) {
        match input {
            Input::Assigned {
                partition,
                epoch,
                inherited,
            } => self.assigned(partition, epoch, inherited, actions),
            Input::Reserved { partition, epoch, to } => self.reserved(partition, epoch, to, actions),
            Input::Delivered {
                partition,
                epoch,
                position,
                bytes,
                work,
            } => {
                self.delivered(partition, epoch, position, bytes, work, actions);
            }
            Input::Replayed {
                partition,
                epoch,
                request,
                position,
                is_head,
                parked,
                work,
            } => {
                let named = Named {
                    request,
                    position,
                    is_head,
                    parked,
                };
                self.replayed(partition, epoch, named, work, actions);
            }
            Input::Stored { job } => self.stored(job, actions),
            Input::StoreFailed { job } => self.store_failed(job, actions),
            Input::Drain {
                partition,
                epoch,
                handler,
                key,
            } => {
                if self.owned_under(partition, epoch).is_some() {
                    self.drain(partition, LaneKey { handler, key }, actions);
                }
            }
            Input::Unparked {
                partition,
                epoch,
                handler,
                key,
                jobs,
            } => self.unparked(partition, epoch, LaneKey { handler, key }, jobs, actions),
            Input::Lag { .. } | Input::Recalled { .. } => self.of_lag(input, actions),
            Input::Finished { job, finish } => self.finished(at, job, finish, actions),
            Input::Due { job } => self.due(job, actions),
            Input::ProbeDue { handler } => self.probe_due(handler),
            Input::RateDue { handler } => self.rate_due(handler),
            Input::Buried { job } => self.buried(job, actions),
            Input::BuryFailed { job } => self.bury_failed(job, actions),
            Input::Revoking { partition } => self.release(partition, actions),
            Input::RevokeExpired { partition } => self.budget_spent(partition, actions),
            Input::Lost { partition } => self.abandon(partition, actions),
            Input::CommitDue => self.commit(actions),
            Input::Stopping => self.stop(actions),
            Input::StopExpired => self.stop_now(actions),
        }
        self.dispatch(at, actions);
        self.recall(actions);
        self.halt_where_settled(actions);
    }

    /// Partitions owned now.
    pub fn partitions_owned(&self) -> usize {
        self.partitions.len()
    }

    /// Jobs that are neither done nor buried.
    pub fn jobs_open(&self) -> usize {
        self.jobs.len()
    }

    /// Whether a handler is suspended.
    pub fn is_suspended(&self, handler: HandlerIndex) -> bool {
        self.handlers[usize::from(handler.0)].circuit.is_suspended()
    }

    /// Attempts that run now.
    pub fn attempts_running(&self) -> usize {
        self.running
    }

    fn delivered(
        &mut self,
        id: PartitionId,
        epoch: u64,
        position: Position,
        bytes: usize,
        work: Work,
        actions: &mut Vec<Action>,
    ) {
        let jobs = work.jobs();
        let any_epoch = self.mutated(Mutation::EpochIsIgnored);
        let behind = self.is_behind_halt(id);
        let ours =
            |partition: &&mut Partition| (partition.epoch == epoch || any_epoch) && !partition.releasing && !behind;
        let live = self.partitions.get_mut(&id).filter(ours);
        if let (Work::Halt(job), Some(partition)) = (&work, &live)
            && partition.tracker.newest().is_none_or(|newest| position > newest)
        {
            return self.halt_before(id, *job);
        }
        let halts = matches!(work, Work::Halt(_));
        let arrives = live.filter(|_| !halts);
        let Some(ticket) = arrives.and_then(|partition| partition.tracker.arrive(position, jobs.len(), bytes)) else {
            let kept = self.mutated(Mutation::RefusedIsKept);
            let refused = jobs.iter().filter(|_| !kept);
            actions.extend(refused.map(|spec| Action::Forget { job: spec.job }));
            return;
        };
        self.queue(id, Origin::Delivery(ticket), position, &jobs, actions);
        self.reserve(id, actions);
        self.press(id, actions);
    }

    /// Queues jobs at the ends of their lanes. Jobs without a handler go straight to the dead letters.
    pub(crate) fn queue(
        &mut self,
        id: PartitionId,
        origin: Origin,
        position: Position,
        specs: &[JobSpec],
        actions: &mut Vec<Action>,
    ) {
        for spec in specs {
            let lane = LaneKey {
                handler: spec.handler,
                key: spec.key,
            };
            let earlier = match origin {
                Origin::Delivery(_) => self.partition(id).attempts.remove(&(position, spec.handler)),
                Origin::Replay(request) => self.parked_attempts(request),
                Origin::Stored => None,
            };
            self.jobs
                .insert(spec.job, Job::new(id, lane, origin, position, earlier.unwrap_or(0)));
            if self.is_held_back(id, lane, origin) {
                self.park(id, lane, spec.job, actions);
                continue;
            }
            self.enqueue(id, lane, spec.job);
            if spec.handler == HandlerIndex::NONE {
                self.bury(spec.job, Class::Undecodable, actions);
            }
        }
    }

    fn due(&mut self, job: JobId, actions: &mut Vec<Action>) {
        let Some((id, key)) = self.locate(job) else {
            return self.store_again(job, actions);
        };
        match self.lane(id, key).phase {
            Phase::Waiting => {
                if self.mutated(Mutation::RetryLosesItsPlace) {
                    self.lane(id, key).queue.rotate_left(1);
                }
                self.lane(id, key).phase = Phase::Ready;
                self.make_ready(id, key);
            }
            Phase::BuryWaiting => self.bury_again(job, actions),
            Phase::Ready | Phase::Unreserved | Phase::WaitingAlone | Phase::Running { .. } | Phase::Burying => {}
        }
    }

    /// Settles the head of a lane (with its coalesced followers) and lets the lane go on.
    pub(crate) fn settle_head(&mut self, id: PartitionId, key: LaneKey, members: usize, actions: &mut Vec<Action>) {
        for _ in 0..members {
            let job = self.lane(id, key).pop();
            self.acquit(id, job);
            self.settle(job, true, actions);
        }
        self.go_on(id, key, actions);
        self.relieve(id, actions);
    }

    /// Lets a lane go on after its head left it, or removes it.
    pub(crate) fn go_on(&mut self, id: PartitionId, key: LaneKey, actions: &mut Vec<Action>) {
        let lane = self.lane(id, key);
        if lane.queue.is_empty() {
            self.partition(id).lanes.remove(&key);
            self.drain_on(id, key, actions);
        } else {
            lane.phase = Phase::Ready;
            self.make_ready(id, key);
        }
        self.release_if_idle(id, actions);
    }

    /// Marks one job as finished: done, or durably buried when not `healed`.
    pub(crate) fn settle(&mut self, job: JobId, healed: bool, actions: &mut Vec<Action>) {
        let Some(state) = self.jobs.remove(&job) else { return };
        match state.origin {
            Origin::Delivery(ticket) => {
                self.partition(state.partition).tracker.settle(ticket);
            }
            Origin::Replay(request) => {
                let mended = healed && self.replays.get(&request).is_some_and(|open| open.is_head);
                self.replay_settled(state.partition, request, healed, actions);
                if mended {
                    self.drain(state.partition, state.lane, actions);
                }
            }
            Origin::Stored => self.stored_settled(state.partition, state.lane, state.position, actions),
        }
        actions.push(Action::Forget { job });
    }

    /// Where a job is at the head of its lane; `None` for jobs that are no longer ours, or not at the head.
    pub(crate) fn locate(&self, job: JobId) -> Option<(PartitionId, LaneKey)> {
        let state = self.jobs.get(&job)?;
        let lane = self.partitions.get(&state.partition)?.lanes.get(&state.lane)?;
        (lane.head() == job).then_some((state.partition, state.lane))
    }

    pub(crate) fn lane(&mut self, id: PartitionId, key: LaneKey) -> &mut Lane {
        self.partition(id).lanes.get_mut(&key).expect("a located lane exists")
    }

    pub(crate) fn partition(&mut self, id: PartitionId) -> &mut Partition {
        self.partitions.get_mut(&id).expect("a known job has a partition")
    }

    /// Whether the core is broken on purpose in this way; never outside tests.
    #[cfg(any(test, feature = "testkit"))]
    pub(crate) fn mutated(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    /// Whether the core is broken on purpose in this way; never outside tests.
    #[cfg(not(any(test, feature = "testkit")))]
    pub(crate) const fn mutated(&self, _: Mutation) -> bool {
        false
    }
}
