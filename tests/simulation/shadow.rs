//! The shadow of one core: what must be true of it, kept from what goes in and what comes out.
//!
//! [`Shadow::take`] learns an input before the core does, [`Shadow::observe`](crate::observe) judges every action, and
//! [`Shadow::check`](crate::check) judges the state when the step is over. It never looks inside the core.

use std::collections::{BTreeMap, HashMap};

use afterwrite::engine::core::messages::{
    HandlerIndex, Inheritance, Input, JobId, JobSpec, Limits, Moment, PartitionId, RequestId, Work,
};
use afterwrite::engine::retry::{Class, Finish};
use afterwrite::event::delivery::Position;

pub(crate) use crate::hold::{Hold, Job, Lane, LaneName, Origin, Replay, State};
use crate::parked::State as ParkState;
use crate::watch::{self, Watch};

pub(crate) struct Shadow {
    pub(crate) limits: Limits,
    /// One per handler.
    pub(crate) watches: Vec<Watch>,
    pub(crate) now: Moment,
    pub(crate) holds: BTreeMap<PartitionId, Hold>,
    /// Accepted and not yet forgotten.
    pub(crate) jobs: HashMap<JobId, Job>,
    pub(crate) replays: HashMap<RequestId, Replay>,
    /// Offered under a wrong epoch, or twice: to be forgotten within the step.
    pub(crate) refused: Vec<JobId>,
    /// Settled in this step: to be forgotten within it.
    pub(crate) settled: Vec<JobId>,
    /// Assigned during the stop: to be released within the step.
    pub(crate) turned_away: Option<PartitionId>,
    pub(crate) running: usize,
    /// The job that runs alone.
    pub(crate) alone: Option<JobId>,
    pub(crate) stopping: bool,
    pub(crate) drained: bool,
    pub(crate) commit_due: bool,
    /// Counts the moments at which lanes become ready.
    clock: u64,
}

impl Shadow {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            watches: limits.handlers.iter().map(|_| Watch::new()).collect(),
            now: Moment::default(),
            limits,
            holds: BTreeMap::new(),
            jobs: HashMap::new(),
            replays: HashMap::new(),
            refused: Vec::new(),
            settled: Vec::new(),
            turned_away: None,
            running: 0,
            alone: None,
            stopping: false,
            drained: false,
            commit_due: false,
            clock: 0,
        }
    }

    /// Learns what is about to go into the core.
    pub(crate) fn take(&mut self, now: Moment, input: &Input) {
        self.now = now;
        self.clock += 1;
        match input {
            Input::Assigned {
                partition,
                epoch,
                inherited,
            } => self.assigned(*partition, *epoch, inherited),
            Input::Reserved { partition, epoch, to } => self.reserved(*partition, *epoch, *to),
            Input::Delivered {
                partition,
                epoch,
                position,
                bytes,
                work,
            } => self.delivered(*partition, *epoch, *position, *bytes, work),
            Input::Replayed {
                partition,
                epoch,
                request,
                position,
                is_head,
                parked,
                work,
            } => {
                let accepted = Replay {
                    partition: *partition,
                    open: 0,
                    healed: true,
                    is_head: *is_head,
                    parked: *parked,
                };
                self.replayed(*partition, *epoch, (*request, *position), accepted, work);
            }
            Input::Lag { .. } | Input::Recalled { .. } => self.take_of_lag(input),
            Input::Stored { .. } | Input::StoreFailed { .. } | Input::Drain { .. } | Input::Unparked { .. } => {
                self.take_of_parked(input);
            }
            Input::Finished { job, finish } => self.finished(*job, *finish),
            Input::Due { job } if self.store_again(*job) => {}
            Input::Due { job } => self.move_head(*job, |state, _| match state {
                State::Waiting => State::Idle,
                State::BuryWaiting => State::MustBury,
                other => other,
            }),
            Input::ProbeDue { handler } => watch::of(&mut self.watches, *handler).probe_due(),
            Input::RateDue { handler } => watch::of(&mut self.watches, *handler).paced = false,
            Input::Buried { job } => self.buried(*job),
            Input::BuryFailed { job } => self.move_head(*job, |state, releasing| match state {
                State::Burying if releasing => State::GivenUp,
                State::Burying => State::BuryFailed,
                other => other,
            }),
            Input::Revoking { partition } => self.give_up(*partition, false),
            Input::RevokeExpired { partition } => {
                let asked = self.holds.get(partition).is_some_and(|hold| hold.releasing);
                self.give_up(*partition, asked);
                if let Some(hold) = self.holds.get_mut(partition) {
                    hold.releasing = asked;
                }
            }
            Input::Lost { partition } => self.give_up(*partition, true),
            Input::CommitDue => self.commit_due = true,
            Input::Stopping => self.stop(),
            Input::StopExpired => {
                for hold in self.holds.values_mut() {
                    hold.expired |= self.stopping;
                }
            }
        }
    }

    fn take_of_parked(&mut self, input: &Input) {
        match input {
            Input::Stored { job } => self.stored(*job),
            Input::StoreFailed { job } => self.store_failed(*job),
            Input::Drain {
                partition,
                epoch,
                handler,
                key,
            } => {
                let current = self.holds.get(partition).is_some_and(|hold| hold.epoch == *epoch);
                if current {
                    self.drain(*partition, (*handler, *key));
                }
            }
            Input::Unparked {
                partition,
                epoch,
                handler,
                key,
                jobs,
            } => self.unparked(*partition, *epoch, (*handler, *key), jobs),
            _ => {}
        }
    }

    pub(crate) fn stop(&mut self) {
        self.stopping = true;
        self.holds.values_mut().for_each(|hold| hold.releasing = true);
    }

    fn give_up(&mut self, id: PartitionId, expired: bool) {
        if let Some(hold) = self.holds.get_mut(&id) {
            hold.releasing = true;
            hold.expired |= expired;
        }
    }

    fn reserved(&mut self, id: PartitionId, epoch: u64, to: Position) {
        let live = |hold: &&mut Hold| hold.epoch == epoch && !hold.releasing;
        let Some(hold) = self.holds.get_mut(&id).filter(live) else {
            return;
        };
        hold.reserving = false;
        hold.reserved_to = hold.reserved_to.max(Some(to));
    }

    fn assigned(&mut self, id: PartitionId, epoch: u64, inherited: &Inheritance) {
        self.give_up(id, true);
        if self.stopping {
            self.turned_away = (!self.holds.contains_key(&id)).then_some(id);
            return;
        }
        match self.holds.get_mut(&id) {
            Some(held) => held.renewed = Some((epoch, inherited.clone())),
            None => {
                self.holds.insert(id, Hold::new(epoch, inherited.clone()));
            }
        }
    }

    fn delivered(&mut self, id: PartitionId, epoch: u64, position: Position, bytes: usize, work: &Work) {
        let specs = specs(work);
        let live = self
            .holds
            .get_mut(&id)
            .filter(|hold| hold.epoch == epoch && !hold.releasing);
        let is_news = |hold: &&mut Hold| hold.halt.is_none() && hold.newest.is_none_or(|newest| position > newest);
        let Some(hold) = live.filter(is_news) else {
            self.refused.extend(specs.iter().map(|spec| spec.job));
            return;
        };
        if let Work::Halt(job) = work {
            hold.halt = Some(*job);
            return;
        }
        let number = hold.arrive(position, specs.len(), bytes);
        self.queue(id, Origin::Arrival(number), position, &specs);
    }

    fn replayed(
        &mut self,
        id: PartitionId,
        epoch: u64,
        (request, position): (RequestId, Position),
        replay: Replay,
        work: &Work,
    ) {
        let specs = specs(work);
        let live = self
            .holds
            .get(&id)
            .is_some_and(|hold| hold.epoch == epoch && !hold.releasing);
        if !live || self.replays.contains_key(&request) {
            self.refused.extend(specs.iter().map(|spec| spec.job));
            return;
        }
        let accepted = Replay {
            open: specs.len(),
            ..replay
        };
        self.replays.insert(request, accepted);
        self.queue(id, Origin::Replay(request), position, &specs);
    }

    fn queue(&mut self, id: PartitionId, origin: Origin, position: Position, specs: &[JobSpec]) {
        for spec in specs {
            let name = (spec.handler, spec.key);
            let earlier = match origin {
                Origin::Arrival(_) => self.hold(id).inherited.attempts.remove(&(position, spec.handler)),
                Origin::Replay(request) => self.replays[&request].parked.map(|parked| parked.attempts),
                Origin::Stored => None,
            };
            self.jobs
                .insert(spec.job, Job::new(id, name, origin, position, earlier.unwrap_or(0)));
            let hold = self.hold(id);
            if hold.is_held_back(name, origin) {
                hold.put_aside(name, spec.job);
                continue;
            }
            self.join_lane(id, name, spec.job);
            if spec.handler == HandlerIndex::NONE {
                let hold = self.hold(id);
                hold.lanes.get_mut(&name).expect("it was just joined").state = State::MustBury;
            }
        }
    }

    pub(crate) fn join_lane(&mut self, id: PartitionId, name: LaneName, job: JobId) {
        self.clock += 1;
        let clock = self.clock;
        let lane = self.hold(id).lanes.entry(name).or_default();
        lane.queue.push_back(job);
        if lane.queue.len() == 1 {
            (lane.ready_at, lane.ready_with) = (clock, 1);
        }
    }

    pub(crate) fn hold(&mut self, id: PartitionId) -> &mut Hold {
        self.holds.get_mut(&id).expect("it was just found")
    }

    fn finished(&mut self, id: JobId, finish: Finish) {
        let clock = self.clock;
        let Some((lane, _)) = self.lane_of_head(id) else {
            return;
        };
        let State::Running(members) = lane.state else { return };
        let (partition, name) = (self.jobs[&id].partition, self.jobs[&id].lane);
        self.ended_alone(id);
        let handler = usize::from(name.0.0);
        let policy = &self.limits.handlers[handler].suspend;
        self.watches[handler].ended(policy, self.now, id, (partition, name.1), finish, members);
        let suspended = self.watches[handler].is_suspended();
        let (lane, releasing) = self.lane_of_head(id).expect("it was just found");
        if matches!(finish, Finish::Done | Finish::Skipped) {
            lane.become_ready(clock);
            for _ in 0..members {
                self.settle_head(id, true);
            }
            self.running -= 1;
            return;
        }
        let together: Vec<JobId> = lane.queue.iter().take(members).copied().collect();
        let attempts_max = self.limits.handlers[handler].policy.attempts_max;
        let (now, works) = (self.now, self.watches[handler].works);
        let head = self.jobs.get_mut(&id).expect("it is open");
        let counted = !suspended && !matches!(finish, Finish::Snooze(_) | Finish::Unreachable | Finish::Expired);
        head.counted += u32::from(counted);
        head.last = Some((finish, members));
        if watch::is_failure(finish) {
            head.first_failure = head.first_failure.or(Some((now, works)));
        }
        let is_final = match finish {
            Finish::Permanent | Finish::Expired => true,
            Finish::Snooze(_) | Finish::Unreachable => false,
            _ => head.counted >= attempts_max,
        };
        let is_abrupt = matches!(finish, Finish::TimedOut | Finish::Panicked);
        let apart = match suspended {
            false => is_final || is_abrupt,
            true => is_final && !self.is_spared(id, finish),
        } && members > 1;
        // Who of them failed is not known yet, so the call that parts them is nobody's attempt.
        let head = self.jobs.get_mut(&id).expect("it is open");
        head.counted -= u32::from(apart && counted);
        for job in together.iter().filter(|_| apart) {
            self.jobs.get_mut(job).expect("it is open").alone = true;
        }
        self.running -= 1;
        let (lane, _) = self.lane_of_head(id).expect("it was just found");
        match releasing {
            true => lane.state = State::GivenUp,
            false if apart => lane.become_ready(clock),
            false => lane.state = State::Failed,
        }
    }

    pub(crate) fn ended_alone(&mut self, id: JobId) {
        self.alone.take_if(|alone| *alone == id);
    }

    /// Whether something is known of the head of a lane that may have put it aside: its place among the others is not known.
    pub(crate) fn is_hindered(&self, hold: &Hold, lane: &Lane) -> bool {
        let Some(head) = lane.queue.front().map(|head| &self.jobs[head]) else {
            return false;
        };
        // It may have become ready and been put aside in one step.
        let is_unreserved = hold.reserved_to.is_none_or(|to| head.position >= to);
        lane.was_unreserved || is_unreserved || hold.inherited.deaths.contains_key(&(head.position, head.lane.0))
    }

    fn buried(&mut self, id: JobId) {
        let clock = self.clock;
        if let Some((lane, _)) = self.lane_of_head(id).filter(|(lane, _)| lane.state == State::Burying) {
            lane.become_ready(clock);
            let (partition, name) = (self.jobs[&id].partition, self.jobs[&id].lane);
            let limits = self.limits.handlers.get(usize::from(name.0.0));
            let waited = self.jobs[&id].class == Some(Class::Parked);
            let parks = waited || limits.is_some_and(|limits| limits.parks);
            self.settle_head(id, false);
            if waited {
                self.letter_parked(partition, name.0);
            }
            if parks {
                self.park_lane(partition, name);
            }
        }
    }

    /// Settles the head of the lane in which `member` is or was.
    fn settle_head(&mut self, member: JobId, healed: bool) {
        let (id, name) = (self.jobs[&member].partition, self.jobs[&member].lane);
        let hold = self.holds.get_mut(&id).expect("it was just found");
        let lane = hold.lanes.get_mut(&name).expect("it was just found");
        let job = lane.queue.pop_front().expect("members are in the queue");
        lane.ready_with = lane.queue.len();
        if lane.queue.is_empty() {
            hold.lanes.remove(&name);
        }
        let named = (self.jobs[&job].position, name.0);
        hold.inherited.deaths.remove(&named);
        match self.jobs[&job].origin {
            Origin::Arrival(number) => hold.settle(number),
            Origin::Replay(request) => {
                let replay = self.replays.get_mut(&request);
                let mended = replay.is_some_and(|replay| {
                    replay.open -= 1;
                    replay.healed &= healed;
                    healed && replay.is_head
                });
                if mended {
                    self.drain(id, name);
                }
            }
            Origin::Stored => {
                if let Some(ParkState::Working(left)) = hold.parked.get_mut(&name).map(|lane| &mut lane.state) {
                    *left -= 1;
                }
            }
        }
        self.settled.push(job);
    }

    fn move_head(&mut self, job: JobId, moved: impl Fn(State, bool) -> State) {
        let clock = self.clock;
        if let Some((lane, releasing)) = self.lane_of_head(job) {
            match moved(lane.state, releasing) {
                State::Idle if lane.state != State::Idle => lane.become_ready(clock),
                other => lane.state = other,
            }
        }
    }

    /// The lane at whose head the job is, and whether its partition is being given up.
    pub(crate) fn lane_of_head(&mut self, job: JobId) -> Option<(&mut Lane, bool)> {
        let known = self.jobs.get(&job)?;
        let hold = self.holds.get_mut(&known.partition)?;
        let releasing = hold.releasing;
        let lane = hold.lanes.get_mut(&known.lane)?;
        (lane.queue.front() == Some(&job)).then_some((lane, releasing))
    }
}

fn specs(work: &Work) -> Vec<JobSpec> {
    match work {
        Work::Nothing => Vec::new(),
        Work::Jobs(specs) => specs.clone(),
        Work::Undecodable(job) | Work::Halt(job) => vec![JobSpec {
            job: *job,
            handler: HandlerIndex::NONE,
            key: job.0,
        }],
    }
}
