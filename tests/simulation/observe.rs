//! Every action of a core is judged by its shadow the moment it comes out.

use afterwrite::engine::core::messages::{Action, HandlerIndex, JobId, Mark, PartitionId, RequestId};
use afterwrite::engine::retry::{Class, Finish, Policy, Wait};
use afterwrite::event::delivery::Position;

use crate::invariant::{Checked, Invariant};
use crate::parked::Aside;
use crate::shadow::{Hold, Origin, Shadow, State};
use crate::watch::{self, Word};

impl Shadow {
    pub(crate) fn observe(&mut self, action: &Action) -> Checked {
        match action {
            Action::Start {
                handler,
                attempt,
                members,
                mark,
            } => self.started(*handler, *attempt, members, *mark),
            Action::Reserve { partition, to } => self.reserves(*partition, *to),
            Action::Wait { job, attempts, wait } => self.waits(*job, *attempts, *wait),
            Action::Suspended { handler, cause } => self.says(*handler, Word::Suspended(*cause)),
            Action::Resumed { handler } => self.says(*handler, Word::Resumed),
            Action::ProbeAfter { handler, wait } => self.probes_after(*handler, *wait),
            Action::RateAfter { handler, .. } => self.rate_after(*handler),
            Action::Bury {
                job,
                class,
                attempts,
                park,
            } => {
                let waited = *class == Class::Parked;
                let handler = self.jobs.get(job).map_or(HandlerIndex::NONE, |job| job.lane.0);
                let limits = self.limits.handlers.get(usize::from(handler.0));
                let parks = limits.is_some_and(|limits| limits.parks);
                Invariant::Parking.check(waited || *park == parks, || {
                    format!("{job:?} is buried, and parks its lane: {park}")
                })?;
                let news = self.jobs.get(job).is_some_and(|job| job.class.is_none());
                if waited && news && self.state_of_head(*job).is_some() {
                    self.parks_letter(*job, *attempts, *park)?;
                }
                self.buries(*job, *class, *attempts)
            }
            Action::Park { jobs } => self.parks(jobs),
            Action::Unpark {
                partition,
                handler,
                key,
                ..
            } => self.unparks(*partition, (*handler, *key)),
            Action::Recall {
                partition,
                handler,
                letters_max,
            } => self.recalls(*partition, *handler, *letters_max),
            Action::Lagging { partition, lags, .. } => self.says_lag(*partition, *lags),
            Action::Forget { job } => self.forgets(*job),
            Action::Abandon { job } => self.abandons(*job),
            Action::Commit { positions } => positions
                .iter()
                .try_for_each(|(id, position)| self.commits(*id, *position)),
            Action::Pause { partition } => self.pauses(*partition, true),
            Action::Resume { partition } => self.pauses(*partition, false),
            Action::Released { partition, position } => self.releases(*partition, *position),
            Action::ReplayEnded { request, healed } => self.replay_ends(*request, *healed),
            Action::Halt { job } => self.halts(*job),
            Action::Drained => self.drains(),
        }
    }

    fn started(&mut self, handler: HandlerIndex, attempt: u32, members: &[JobId], mark: Mark) -> Checked {
        let Some(head) = members.first().and_then(|first| self.jobs.get(first)) else {
            return Invariant::Release.violated("a call starts with a job that is not open");
        };
        let (id, name) = (head.partition, head.lane);
        let Some(hold) = self.holds.get(&id).filter(|hold| !hold.releasing) else {
            return Invariant::Release.violated("a call starts on a partition that is given up");
        };
        let order = Invariant::LaneOrder;
        order.check(name.0 == handler, || "a call starts with another handler")?;
        let Some(lane) = hold.lanes.get(&name) else {
            return order.violated("a call starts with a job that is settled");
        };
        let free = |job: &JobId| !matches!(self.jobs[job].origin, Origin::Arrival(_));
        let holds_back = hold.parked.contains_key(&name) && !members.iter().all(free);
        Invariant::Parking.check(!holds_back, || "an event starts whose lane is parked")?;
        order.check(lane.state == State::Idle, || {
            format!("a call starts on a lane that is {:?}", lane.state)
        })?;
        order.check(lane.queue.iter().take(members.len()).eq(members), || {
            format!("a call takes {members:?}, the lane is {:?}", lane.queue)
        })?;
        let passes_over = self.takes_its_turn(hold, handler, lane)?;
        let own = &self.watches[usize::from(handler.0)];
        Invariant::Suspension.check(own.lets_through(), || "a lane of a suspended handler starts")?;
        let limits = &self.limits.handlers[usize::from(handler.0)];
        let early = own.is_too_early(limits, self.now);
        Invariant::Room.check(!early, || "a call starts before its handler's rate allows it")?;
        let fits = own.running < limits.running_max;
        Invariant::Room.check(fits, || "too many calls of one handler run")?;
        let coalesce_max = limits.coalesce_max;
        order.check(members.len() <= coalesce_max, || "a call takes too many jobs")?;
        let apart = |job: &JobId| self.jobs[job].alone || !matches!(self.jobs[job].origin, Origin::Arrival(_));
        order.check(
            members.len() == 1 || !members.iter().any(apart),
            || "a job that has to run alone runs in company",
        )?;
        Invariant::Attempts.check(attempt == head.counted + 1, || {
            format!("attempt {attempt} after {} were counted", head.counted)
        })?;
        self.is_marked_right(members, mark)?;
        let attempted_at = self.now;
        let watch = watch::of(&mut self.watches, handler);
        watch.started(members[0], attempted_at);
        watch.passed_over = passes_over;
        self.set_state(members[0], State::Running(members.len()));
        self.running += 1;
        Invariant::Room.check(self.running <= self.limits.running_max, || "too many calls run")
    }

    /// Whether what is known of these jobs allows to start them so.
    fn is_marked_right(&mut self, members: &[JobId], mark: Mark) -> Checked {
        let blame = Invariant::Blame;
        let deaths_max = self.limits.crash_deaths_max;
        let mut expected = Mark::None;
        for job in members.iter().map(|job| &self.jobs[job]).filter(|_| deaths_max > 0) {
            let hold = &self.holds[&job.partition];
            let is_replay = !matches!(job.origin, Origin::Arrival(_));
            let reserved = is_replay || hold.reserved_to.is_some_and(|to| job.position < to);
            blame.check(reserved, || "a job starts whose position is not reserved")?;
            let deaths = hold.inherited.deaths.get(&(job.position, job.lane.0));
            blame.check(
                deaths.is_none_or(|deaths| *deaths < deaths_max),
                || "a job of which enough processes died starts",
            )?;
            if deaths.is_some() {
                expected = Mark::Alone;
            } else if expected == Mark::None
                && (is_replay || hold.inherited.suspect_to.is_some_and(|to| job.position < to))
            {
                expected = Mark::Running;
            }
        }
        blame.check(mark == expected, || {
            format!("a call is marked {mark:?}, not {expected:?}")
        })?;
        blame.check(
            mark == Mark::None || members.len() == 1,
            || "a marked job runs in company",
        )?;
        if mark == Mark::Alone {
            blame.check(self.alone.is_none(), || "two jobs run alone")?;
            self.alone = Some(members[0]);
        }
        Ok(())
    }

    fn reserves(&mut self, id: PartitionId, to: Position) -> Checked {
        let deaths_max = self.limits.crash_deaths_max;
        let hold = self.holds.get_mut(&id).filter(|hold| !hold.reserving && deaths_max > 0);
        let Some(hold) = hold else {
            return Invariant::Blame.violated(format!("{id:?} is reserved without need"));
        };
        hold.reserving = true;
        let news = Some(to) > hold.reserved_to;
        Invariant::Blame.check(news, || "what is reserved is reserved again")
    }

    fn waits(&mut self, job: JobId, attempts: u32, wait: Wait) -> Checked {
        if self.move_batch(job, Aside::StoreFailed, Aside::StoreWaiting).is_some() {
            let longest = self.limits.handlers[usize::from(self.jobs[&job].lane.0.0)]
                .policy
                .outage_wait_max;
            let right = matches!(wait, Wait::Jittered(ceiling) if ceiling <= longest);
            return Invariant::Attempts.check(right, || format!("{wait:?} after an event was not stored"));
        }
        let known = Invariant::Release;
        let Some(state) = self.state_of_head(job) else {
            return known.violated(format!("{job:?} waits, but is not at the head of a lane"));
        };
        let (handler, last, counted) = (self.jobs[&job].lane.0, self.jobs[&job].last, self.jobs[&job].counted);
        Invariant::Attempts.check(attempts == counted, || {
            format!("{attempts} attempts are told, {counted} were counted")
        })?;
        let policy = match handler {
            HandlerIndex::NONE => Policy::default(),
            named => self.limits.handlers[usize::from(named.0)].policy.clone(),
        };
        match (state, last) {
            (State::Failed, Some((finish, _))) => {
                let ended = matches!(finish, Finish::Permanent | Finish::Expired)
                    || counted >= policy.attempts_max && is_counted(finish);
                let spared = self.is_spared(job, finish);
                Invariant::Attempts.check(!ended || spared, || {
                    format!("{job:?} is tried again after its last attempt")
                })?;
                let right = match (spared, wait) {
                    (true, Wait::Jittered(ceiling)) => ceiling <= policy.wait_max.max(policy.outage_wait_max),
                    _ => is_right_wait(&policy, finish, wait),
                };
                Invariant::Attempts.check(right, || format!("{wait:?} after {finish:?}"))?;
                self.set_state(job, State::Waiting);
                Ok(())
            }
            (State::BuryFailed, _) => {
                let right = is_right_wait(&policy, Finish::Unreachable, wait);
                Invariant::Attempts.check(right, || format!("{wait:?} after a letter was not written"))?;
                self.set_state(job, State::BuryWaiting);
                Ok(())
            }
            _ => Invariant::LaneOrder.violated(format!("{job:?} waits while its lane is {state:?}")),
        }
    }

    fn buries(&mut self, job: JobId, class: Class, attempts: u32) -> Checked {
        let Some(state) = self.state_of_head(job) else {
            return Invariant::LaneOrder.violated(format!("{job:?} is buried, but is not at the head of a lane"));
        };
        let buried = &self.jobs[&job];
        let right = Invariant::Attempts;
        match (state, buried.class) {
            (State::MustBury, Some(known)) => {
                right.check(class == known, || {
                    format!("{job:?} is buried as {class:?}, then as {known:?}")
                })?;
            }
            (State::MustBury, None) => {
                right.check(class == Class::Undecodable && attempts == 0, || {
                    format!("bytes are buried as {class:?}")
                })?;
            }
            (State::Idle | State::Waiting, None) if class == Class::Parked => {}
            (State::Idle, None) => {
                let hold = &self.holds[&buried.partition];
                let deaths = hold.inherited.deaths.get(&(buried.position, buried.lane.0));
                let deaths_max = self.limits.crash_deaths_max;
                let blamed = deaths_max > 0 && deaths.is_some_and(|deaths| *deaths >= deaths_max);
                Invariant::Blame.check(blamed && class == Class::Crashed, || {
                    format!("{job:?} is buried as {class:?}, and {deaths:?} processes died of it")
                })?;
            }
            (State::Failed, None) => {
                let policy = &self.limits.handlers[usize::from(buried.lane.0.0)].policy;
                let counted = buried.counted;
                let enough = counted >= policy.attempts_max;
                let spared = buried.last.is_some_and(|(finish, _)| self.is_spared(job, finish));
                Invariant::Suspension.check(!spared, || {
                    format!("{job:?} is buried as {class:?}, but nothing tells it from an outage")
                })?;
                let justified = match (buried.last, class) {
                    (Some((Finish::Permanent, 1)), Class::Permanent) | (Some((Finish::Expired, 1)), Class::Expired) => {
                        true
                    }
                    (Some((Finish::Transient(_), 1)), Class::Exhausted)
                    | (Some((Finish::TimedOut, 1)), Class::Timeout)
                    | (Some((Finish::Panicked, 1)), Class::Panic) => enough,
                    _ => false,
                };
                right.check(justified && attempts == counted, || {
                    format!(
                        "{job:?} is buried as {class:?} after {counted} attempts, told {attempts}: {:?}",
                        buried.last
                    )
                })?;
            }
            _ => return Invariant::LaneOrder.violated(format!("{job:?} is buried while its lane is {state:?}")),
        }
        self.jobs.get_mut(&job).expect("it was just found").class = Some(class);
        self.set_state(job, State::Burying);
        Ok(())
    }

    fn forgets(&mut self, id: JobId) -> Checked {
        if let Some(place) = self.refused.iter().position(|refused| *refused == id) {
            self.refused.swap_remove(place);
            return Ok(());
        }
        if let Some(hold) = self.holds.values_mut().find(|hold| hold.halt == Some(id)) {
            hold.halt = None;
            let releasing = hold.releasing;
            return Invariant::Letters.check(releasing, || format!("{id:?} is forgotten, but must not be passed"));
        }
        let Some(job) = self.jobs.get(&id) else {
            return Invariant::Memory.violated(format!("{id:?} is forgotten, but not open"));
        };
        if let Some(place) = self.settled.iter().position(|settled| *settled == id) {
            self.settled.swap_remove(place);
            self.jobs.remove(&id);
            return Ok(());
        }
        let (partition, name, origin) = (job.partition, job.lane, job.origin);
        let hold = self.holds.get_mut(&partition).expect("a partition outlives its jobs");
        Invariant::Letters.check(hold.releasing, || {
            format!("{id:?} is forgotten, but neither done nor buried")
        })?;
        if let Some(aside) = hold.aside.get(&id) {
            Invariant::Release.check(*aside != Aside::Storing, || {
                format!("{id:?} is forgotten while the driver stores it")
            })?;
            hold.aside.remove(&id);
            self.jobs.remove(&id);
            if let Origin::Replay(request) = origin {
                self.replays.remove(&request);
            }
            return Ok(());
        }
        let lane = hold.lanes.get_mut(&name).expect("an open job has a lane");
        let place = lane
            .queue
            .iter()
            .position(|queued| *queued == id)
            .expect("an open job is in its lane");
        let with_driver = match lane.state {
            State::Running(members) => place < members,
            State::Burying => place == 0,
            _ => false,
        };
        Invariant::Release.check(!with_driver, || {
            format!("{id:?} is forgotten while the driver works on it")
        })?;
        lane.queue.remove(place);
        if lane.queue.is_empty() {
            hold.lanes.remove(&name);
        }
        if let Origin::Replay(request) = origin {
            self.replays.remove(&request);
        }
        self.jobs.remove(&id);
        Ok(())
    }

    fn abandons(&mut self, job: JobId) -> Checked {
        if self.move_batch(job, Aside::Storing, Aside::GivenUp).is_some() {
            let expired = self.holds[&self.jobs[&job].partition].expired;
            return Invariant::Release.check(expired, || format!("{job:?} is abandoned before its time"));
        }
        let state = self.state_of_head(job);
        let with_driver = matches!(state, Some(State::Running(_) | State::Burying));
        Invariant::Release.check(with_driver, || format!("{job:?} is abandoned, but is {state:?}"))?;
        let expired = self.holds[&self.jobs[&job].partition].expired;
        Invariant::Release.check(expired, || format!("{job:?} is abandoned before its time"))?;
        if matches!(state, Some(State::Running(_))) {
            self.running -= 1;
            self.ended_alone(job);
            let handler = self.jobs[&job].lane.0;
            watch::of(&mut self.watches, handler).abandoned(job);
        }
        self.set_state(job, State::GivenUp);
        Ok(())
    }

    fn commits(&mut self, id: PartitionId, position: Position) -> Checked {
        let Some(hold) = self.holds.get_mut(&id) else {
            return Invariant::Frontier.violated(format!("{id:?} is committed, but not held"));
        };
        is_frontier(hold, Some(position))?;
        let forward = hold.committed.is_none_or(|committed| position > committed);
        hold.committed = Some(position);
        Invariant::Frontier.check(forward, || format!("{id:?} is committed again"))
    }

    fn pauses(&mut self, id: PartitionId, paused: bool) -> Checked {
        let Some(hold) = self.holds.get_mut(&id) else {
            return Invariant::Window.violated(format!("{id:?} is paused or resumed, but not held"));
        };
        Invariant::Window.check(hold.paused != paused, || format!("{id:?} is paused or resumed twice"))?;
        Invariant::Window.check(paused || !hold.releasing, || format!("{id:?} is resumed, but given up"))?;
        hold.paused = paused;
        Ok(())
    }

    fn releases(&mut self, id: PartitionId, position: Option<Position>) -> Checked {
        if self
            .turned_away
            .take_if(|away| *away == id && position.is_none())
            .is_some()
        {
            return Ok(());
        }
        let Some(hold) = self.holds.get(&id).filter(|hold| hold.releasing) else {
            return Invariant::Release.violated(format!("{id:?} is released unasked"));
        };
        let with_driver = |lane: &crate::shadow::Lane| matches!(lane.state, State::Running(_) | State::Burying);
        Invariant::Release.check(!hold.lanes.values().any(with_driver), || {
            format!("{id:?} is released while the driver works on it")
        })?;
        let storing = hold.aside.values().any(|aside| *aside == Aside::Storing);
        Invariant::Release.check(!storing, || {
            format!("{id:?} is released while the driver stores events")
        })?;
        Invariant::Memory.check(hold.lanes.is_empty() && hold.aside.is_empty(), || {
            format!("{id:?} is released, but has open jobs")
        })?;
        is_frontier(hold, position)?;
        let renewed = hold.renewed.clone();
        self.holds.remove(&id);
        if let Some((epoch, inherited)) = renewed {
            self.holds.insert(id, Hold::new(epoch, inherited));
        }
        Ok(())
    }

    fn replay_ends(&mut self, request: RequestId, healed: bool) -> Checked {
        let Some(replay) = self.replays.remove(&request) else {
            return Invariant::Replays.violated(format!("{request:?} ends, but is not open"));
        };
        self.letter_ended(replay.partition, replay.parked);
        Invariant::Replays.check(replay.open == 0, || format!("{request:?} ends, but has open jobs"))?;
        Invariant::Replays.check(healed == replay.healed, || {
            format!("{request:?} ends with healed = {healed}")
        })
    }

    fn halts(&mut self, job: JobId) -> Checked {
        let over = |hold: &Hold| hold.halt == Some(job) && hold.arrivals.is_empty() && !hold.releasing;
        let right = !self.stopping && self.holds.values().any(over);
        self.stop();
        Invariant::Release.check(right, || {
            format!("the group ends before {job:?}, but something before it is open")
        })
    }

    fn drains(&mut self) -> Checked {
        let over = self.stopping && !self.drained && self.holds.is_empty() && self.running == 0;
        self.drained = true;
        Invariant::Release.check(over, || "drained twice, or before the end")
    }

    fn state_of_head(&mut self, job: JobId) -> Option<State> {
        self.lane_of_head(job).map(|(lane, _)| lane.state)
    }

    fn set_state(&mut self, job: JobId, state: State) {
        self.lane_of_head(job).expect("it was just found").0.state = state;
    }
}

fn is_frontier(hold: &Hold, position: Option<Position>) -> Checked {
    Invariant::Frontier.check(position == hold.frontier(), || {
        format!("told {position:?}, the frontier is {:?}", hold.frontier())
    })
}

fn is_counted(finish: Finish) -> bool {
    !matches!(finish, Finish::Snooze(_) | Finish::Unreachable | Finish::Expired)
}

fn is_right_wait(policy: &Policy, finish: Finish, wait: Wait) -> bool {
    match (finish, wait) {
        (Finish::Snooze(asked) | Finish::Transient(Some(asked)), Wait::Exact(wait)) => {
            wait == asked.min(policy.asked_wait_max)
        }
        (Finish::Unreachable, Wait::Jittered(ceiling)) => ceiling <= policy.outage_wait_max,
        (Finish::Transient(None) | Finish::TimedOut | Finish::Panicked, Wait::Jittered(ceiling)) => {
            ceiling <= policy.wait_max
        }
        _ => false,
    }
}
