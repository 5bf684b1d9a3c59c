//! A world: a log, a broker, a database, and members of one group, each with a core of its own.
//!
//! The world plays the driver of every member: it feeds inputs to the cores and performs their actions. Nothing runs by
//! itself; a [`Step`](crate::step::Step) says what happens next, and `luck` decides its details.

use std::rc::Rc;

use afterwrite::engine::core::Core;
use afterwrite::engine::core::messages::{
    Action, HandlerIndex, Input, JobId, JobSpec, Moment, ParkedJob, PartitionId, RequestId, Work,
};
use afterwrite::engine::retry::Wait;
use afterwrite::event::delivery::Position;

use crate::broker::Broker;
use crate::coverage::Coverage;
use crate::database::{Database, Waiting};
use crate::invariant::{Checked, Invariant, Watched};
use crate::member::{Member, Stale, Subject, Unpark, Waiter};
use crate::plan::Plan;
use crate::quiet::quietly;
use crate::random::Random;
use crate::script::{Ending, Failure};
use crate::shadow::Shadow;

pub(crate) struct World {
    pub(crate) plan: Rc<Plan>,
    pub(crate) broker: Broker,
    pub(crate) database: Database,
    pub(crate) members: Vec<Member>,
    pub(crate) requests: Vec<Request>,
    pub(crate) zombies: Vec<Zombie>,
    /// Nothing that a call or a letter needs can be reached.
    pub(crate) outage: bool,
    /// Somebody acts on what is said of suspended handlers.
    pub(crate) mending: bool,
    /// The next commit does not arrive.
    pub(crate) commit_gets_lost: bool,
    /// Members have not heard of their new epochs yet; the broker refuses their commits.
    pub(crate) is_epoch_stale: bool,
    pub(crate) luck: Random,
    pub(crate) inputs: usize,
    pub(crate) now: Moment,
    pub(crate) coverage: Coverage,
    /// What happened, line by line, when it is asked for.
    pub(crate) history: Option<Vec<String>>,
    subject: Subject,
    /// Per job its row, and its request if it is a replay.
    pub(crate) jobs: Vec<(usize, Option<usize>)>,
    /// Per partition the record before which everything was found settled.
    verified: Vec<usize>,
    buffer: Vec<Action>,
    /// Per row, how often its delivery killed a process.
    pub(crate) kills: Vec<u32>,
    /// Per row, whether bytes that cannot be decoded may be buried by now.
    may_be_buried: Vec<bool>,
}

/// A request to replay letters of one partition.
pub(crate) struct Request {
    pub(crate) partition: PartitionId,
    pub(crate) rows: Vec<usize>,
    /// Who took it, under which epoch.
    pub(crate) taken: Option<(usize, u64)>,
    pub(crate) ended: bool,
    /// Which lane was parked behind the letter.
    pub(crate) parking: Option<usize>,
    /// Attempts that were made before, where the letter was parked because of lag.
    pub(crate) parked_attempts: Option<u32>,
    /// Nobody asked for it.
    pub(crate) is_recall: bool,
}

/// Something that nobody waits for any more, but that still reaches the database.
pub(crate) enum Zombie {
    Call {
        rows: Vec<usize>,
        replay: bool,
    },
    /// With the epoch under which its lane would be parked.
    Letter {
        row: usize,
        parks: Option<u64>,
        waiting: Option<Waiting>,
    },
}

impl World {
    /// A world in which nothing has happened yet. There is one at a time in a thread.
    pub(crate) fn new(plan: Rc<Plan>, subject: Subject, with_history: bool) -> Self {
        subject.watched.begin();
        let members = plan
            .limits
            .iter()
            .map(|limits| Member::new(limits.clone(), subject))
            .collect();
        Self {
            broker: Broker::new(plan.log.len()),
            database: Database::new(&plan),
            members,
            requests: Vec::new(),
            zombies: Vec::new(),
            outage: false,
            mending: false,
            commit_gets_lost: false,
            is_epoch_stale: false,
            luck: Random::new(plan.seed),
            inputs: 0,
            now: Moment(1),
            coverage: Coverage::default(),
            history: with_history.then(Vec::new),
            subject,
            jobs: Vec::new(),
            verified: vec![0; plan.log.len()],
            buffer: Vec::new(),
            kills: vec![0; plan.rows.len()],
            may_be_buried: vec![false; plan.rows.len()],
            plan,
        }
    }

    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(history) = &mut self.history {
            history.push(line());
        }
    }

    /// Notes how many inputs there were, at the end of the history.
    pub(crate) fn note_inputs(&mut self) {
        let inputs = self.inputs;
        self.note(|| format!("{inputs} inputs"));
    }

    /// Notes a fault in the history and counts its kind.
    pub(crate) fn fault(&mut self, kind: &'static str) {
        self.coverage.mark(kind);
        self.note(|| format!("-- {kind}"));
    }

    /// Starts a member that is down, with nothing but what the broker and the database know.
    pub(crate) fn restart(&mut self, member: usize) {
        self.members[member] = Member::new(self.plan.limits[member].clone(), self.subject);
        self.note(|| format!("-- member {member} starts"));
    }

    /// Gives one input to a member's core, performs what follows, and checks every invariant.
    pub(crate) fn feed(&mut self, m: usize, input: Input) -> Checked {
        if !self.members[m].is_up() {
            // It has just died of something that nobody watches for.
            return Ok(());
        }
        self.inputs += 1;
        let now = self.now;
        self.coverage.mark_input(&input);
        self.note(|| format!("{:8.3} s  {m} <- {input:?}", now.0 as f64 / 1e6));
        self.members[m].hear(&input);
        self.ask_shadow(m, |shadow, _| {
            shadow.take(now, &input);
            Ok(())
        })?;
        let mut actions = std::mem::take(&mut self.buffer);
        let core = self.members[m].core.as_mut().expect("only members that are up are fed");
        if let Err(panic) = quietly(|| core.step(now, input, &mut actions)) {
            Invariant::NoPanic.violated(panic)?;
            return self.crash(m);
        }
        for action in actions.drain(..) {
            self.coverage.mark_action(&action);
            self.note(|| format!("{m}    -> {action:?}"));
            self.ask_shadow(m, |shadow, _| shadow.observe(&action))?;
            self.perform(m, action)?;
        }
        self.buffer = actions;
        self.ask_shadow(m, |shadow, core| shadow.check(core))
    }

    /// Asks the shadow of a member. Where a violation was looked away from, shadow and core may have parted: one that loses
    /// track says nothing more.
    fn ask_shadow(&mut self, m: usize, question: impl FnOnce(&mut Shadow, &Core) -> Checked) -> Checked {
        let member = &mut self.members[m];
        let Some((shadow, core)) = member.shadow.as_mut().zip(member.core.as_ref()) else {
            return Ok(());
        };
        if self.subject.watched == Watched::ALL {
            return question(shadow, core);
        }
        quietly(|| question(shadow, core)).unwrap_or_else(|_| {
            member.shadow = None;
            Ok(())
        })
    }

    fn perform(&mut self, m: usize, action: Action) -> Checked {
        match action {
            Action::Start { members, mark, .. } => self.start(m, members, mark)?,
            Action::Reserve { partition, to } => {
                let epoch = self.members[m].fetches.get(&partition).map(|fetch| fetch.epoch);
                let epoch = epoch.unwrap_or(self.broker.claim(partition).epoch);
                self.members[m].reservations.push((partition, epoch, to));
            }
            Action::Wait { job, attempts, wait } => {
                self.note_attempts(m, job, attempts, wait);
                self.wait(m, Waiter::Job(job), wait);
            }
            Action::ProbeAfter { handler, wait } => self.wait(m, Waiter::Probe(handler), wait),
            Action::RateAfter { handler, wait } => self.wait(m, Waiter::Rate(handler), wait),
            Action::Suspended { .. } | Action::Resumed { .. } => {}
            Action::Bury {
                job,
                class,
                attempts,
                park,
            } => self.bury(m, job, class, attempts, park),
            Action::Recall { .. } | Action::Lagging { .. } => self.perform_of_lag(m, &action),
            Action::Park { jobs } => self.members[m].storing.push(jobs),
            Action::Unpark {
                partition,
                handler,
                key,
                done,
            } => {
                let epoch = self.members[m].fetches.get(&partition).map(|fetch| fetch.epoch);
                self.members[m].unparks.push(Unpark {
                    partition,
                    epoch: epoch.unwrap_or(self.broker.claim(partition).epoch),
                    handler,
                    key,
                    done,
                });
            }
            Action::Forget { job } => {
                let member = &mut self.members[m];
                let waits = |(waiter, _): &(Waiter, Moment)| *waiter == Waiter::Job(job);
                if let Some(place) = member.waits.iter().position(waits) {
                    member.waits.remove(place);
                    member.late.push(Input::Due { job });
                }
            }
            Action::Abandon { job } => self.abandon(m, job)?,
            Action::Commit { positions } => {
                let lost = std::mem::take(&mut self.commit_gets_lost);
                for (id, position) in positions {
                    self.commit(m, id, position, lost)?;
                }
            }
            Action::Pause { partition } => {
                let overrun = self.luck.below(3);
                if let Some(fetch) = self.members[m].fetches.get_mut(&partition) {
                    (fetch.paused, fetch.overrun) = (true, overrun);
                }
            }
            Action::Resume { partition } => {
                if let Some(fetch) = self.members[m].fetches.get_mut(&partition) {
                    fetch.paused = false;
                }
            }
            Action::Released { partition, position } => self.release(m, partition, position)?,
            Action::ReplayEnded { request, healed } => self.end_replay(m, request, healed)?,
            Action::Halt { job } => self.halt(m, job)?,
            Action::Drained => self.members[m].drained = true,
        }
        Ok(())
    }

    fn wait(&mut self, m: usize, waiter: Waiter, wait: Wait) {
        let time = match wait {
            Wait::Exact(time) => time,
            Wait::Jittered(ceiling) => ceiling / 8 * u32::try_from(self.luck.below(9)).expect("it is small"),
        };
        let micros = u64::try_from(time.as_micros()).expect("waits are short");
        self.members[m].waits.push((waiter, Moment(self.now.0 + micros)));
    }

    /// Lets a wait be over, when it is.
    pub(crate) fn end_wait(&mut self, m: usize, wait: usize) -> Checked {
        let (waiter, due) = self.members[m].waits.remove(wait);
        self.now = self.now.max(due);
        self.feed(m, waiter.input())
    }

    fn commit(&mut self, m: usize, id: PartitionId, position: Position, lost: bool) -> Checked {
        self.verify(id, position)?;
        let Some(epoch) = self.members[m].fetches.get(&id).map(|fetch| fetch.epoch) else {
            return Invariant::Frontier.violated(format!("{id:?} is committed, but not fetched"));
        };
        if !self.broker.is_owner(id, m, epoch) {
            self.fault("fault: commit of a deposed owner");
        } else if lost {
            self.fault("fault: commit lost");
            self.broker.lose_commit(id);
        } else if self.is_epoch_stale {
            self.refuse_commit(m, id, position);
        } else {
            self.broker.commit(id, m, epoch, position)?;
            self.members[m]
                .fetches
                .entry(id)
                .and_modify(|fetch| fetch.refused = None);
        }
        Ok(())
    }

    /// Whatever is said to be settled is settled in the database.
    fn verify(&mut self, id: PartitionId, position: Position) -> Checked {
        let end = self.plan.index_of(id, position);
        let from = self.verified[id.0 as usize];
        for record in self.plan.log[id.0 as usize].iter().take(end).skip(from) {
            let open = record.rows.clone().find(|row| !self.database.is_settled(*row));
            Invariant::Frontier.check(open.is_none(), || {
                format!("{id:?} is committed to {position:?}, but row {open:?} before it is not settled")
            })?;
        }
        self.verified[id.0 as usize] = end.max(from);
        Ok(())
    }

    fn release(&mut self, m: usize, id: PartitionId, position: Option<Position>) -> Checked {
        let Some(fetch) = self.members[m].fetches.remove(&id) else {
            if self.members[m].stopping && position.is_none() {
                self.broker.depose(id);
                return Ok(());
            }
            return Invariant::Release.violated(format!("{id:?} is released, but not fetched"));
        };
        if let Some(position) = position {
            self.verify(id, position)?;
            self.broker.commit(id, m, fetch.epoch, position)?;
        }
        if !self.broker.release(id, m, fetch.epoch) {
            self.fault("claim: release refused");
        }
        let end = self.plan.records(id).min(fetch.next + self.luck.below(3));
        let stale = (fetch.next..end).map(|index| Stale {
            partition: id,
            epoch: fetch.epoch,
            index,
        });
        self.members[m].stale.extend(stale);
        Ok(())
    }

    /// A member ends before bytes that cannot be decoded; somebody reads why, and lets whoever comes next bury them.
    fn halt(&mut self, m: usize, job: JobId) -> Checked {
        self.members[m].hear(&Input::Stopping);
        let row = self.row(job);
        self.may_be_buried[row] = true;
        let (id, index) = (self.plan.rows[row].partition, self.plan.rows[row].index);
        let position = self.plan.record(id, index).position;
        self.verify(id, position)
    }

    fn end_replay(&mut self, m: usize, request: RequestId, healed: bool) -> Checked {
        let index = usize::try_from(request.0).expect("requests are numbered from 0");
        let Request {
            partition, rows, taken, ..
        } = &self.requests[index];
        let epoch = self.members[m].fetches.get(partition).map(|fetch| fetch.epoch);
        let done = rows.iter().all(|row| self.database.is_done(*row));
        Invariant::Replays.check(done || !healed, || {
            format!("{request:?} is healed, but {rows:?} are not done")
        })?;
        // The end is written under the epoch of the claim, like everything a deposed owner tries.
        let fenced =
            epoch.is_none_or(|epoch| *taken != Some((m, epoch)) || !self.broker.is_owner(*partition, m, epoch));
        self.requests[index].ended |= !fenced;
        if let Some(parking) = self.requests[index].parking.filter(|_| !fenced) {
            self.database.letter_ended(parking);
        }
        if fenced {
            self.fault("claim: end of a replay refused");
        }
        Ok(())
    }

    /// Whoever is told for long enough that a handler is suspended mends what it needs: its calls work from then on.
    pub(crate) fn mended(&self, m: usize, rows: &[usize], ending: Ending) -> Ending {
        let handler = self.plan.rows[rows[0]].handler;
        let suspended = self.members[m]
            .core
            .as_ref()
            .is_some_and(|core| core.is_suspended(handler));
        match ending {
            Ending::Fails(failure) if self.mending && suspended && failure != Failure::Permanent => Ending::Works,
            ending => ending,
        }
    }

    pub(crate) fn call(&mut self, rows: &[usize], replay: bool) -> Ending {
        // An event before those was parked because of lag by the next owner: what is behind it is that one's.
        if self.outage || !replay && self.database.is_behind_parked(rows) {
            return Ending::Fails(Failure::Unreachable);
        }
        self.database.call(&self.plan, rows, replay)
    }

    /// Hands a record of the log over, under an epoch, and with new job numbers.
    pub(crate) fn deliver(&mut self, m: usize, partition: PartitionId, epoch: u64, index: usize) -> Checked {
        let plan = Rc::clone(&self.plan);
        let record = plan.record(partition, index);
        let rows: Vec<usize> = record.rows.clone().collect();
        let delivered = Input::Delivered {
            partition,
            epoch,
            position: record.position,
            bytes: record.bytes,
            work: self.work(&rows, None),
        };
        self.feed(m, delivered)
    }

    pub(crate) fn replay(&mut self, m: usize, epoch: u64, request: usize) -> Checked {
        let rows = self.requests[request].rows.clone();
        let is_head = self.database.parked.values().any(|lane| rows == [lane.head]);
        let parked = self.requests[request].parked_attempts.map(|attempts| ParkedJob {
            handler: self.plan.rows[rows[0]].handler,
            attempts,
        });
        let replayed = Input::Replayed {
            is_head,
            parked,
            partition: self.requests[request].partition,
            epoch,
            request: RequestId(i64::try_from(request).expect("there are few requests")),
            position: rows.first().map_or(Position(0), |row| {
                let row = &self.plan.rows[*row];
                self.plan.record(row.partition, row.index).position
            }),
            work: self.work(&rows, Some(request)),
        };
        self.feed(m, replayed)
    }

    fn work(&mut self, rows: &[usize], request: Option<usize>) -> Work {
        let mut specs = Vec::new();
        for row in rows.iter().copied() {
            let job = JobId(self.jobs.len() as u64);
            self.jobs.push((row, request));
            let (handler, key) = (self.plan.rows[row].handler, self.plan.rows[row].key);
            if handler == HandlerIndex::NONE {
                return match self.plan.halts && request.is_none() && !self.may_be_buried[row] {
                    true => Work::Halt(job),
                    false => Work::Undecodable(job),
                };
            }
            specs.push(JobSpec { job, handler, key });
        }
        if specs.is_empty() {
            Work::Nothing
        } else {
            Work::Jobs(specs)
        }
    }

    pub(crate) fn row(&self, job: JobId) -> usize {
        self.jobs[usize::try_from(job.0).expect("jobs are numbered from 0")].0
    }

    /// The rows of a call, and whether it is a replay.
    pub(crate) fn rows(&self, members: &[JobId]) -> (Vec<usize>, bool) {
        let head = usize::try_from(members[0].0).expect("jobs are numbered from 0");
        let rows = members.iter().map(|job| self.row(*job)).collect();
        (rows, self.jobs[head].1.is_some())
    }
}
