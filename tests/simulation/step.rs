//! What can happen next in a world, and the everyday part of it. Faults are in [`fault`](crate::fault).
//!
//! A step names only its kind; `pick` chooses among what is there at that moment and `luck` decides details. So any
//! sequence of steps is a history, steps may be left out, and a failing history can be shrunk. A step is named by its number:
//! those of a seed are drawn one after the other, whatever they do to the world.

use afterwrite::engine::core::messages::{Input, Moment, PartitionId};
use afterwrite::engine::retry::Finish;

use crate::invariant::{Checked, Invariant};
use crate::member::{Burial, Call, Fetch};
use crate::random::Random;
use crate::script::{Ending, Failure, Script};
use crate::world::{Request, World, Zombie};

#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    /// Its place among those that are drawn from the seed, whether they were possible or not.
    pub(crate) number: usize,
    pub(crate) kind: Kind,
    pub(crate) pick: usize,
    pub(crate) luck: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Deliver,
    CallEnds,
    ReservationEnds,
    StoringEnds,
    UnparkEnds,
    RecallEnds,
    /// A source says how much is kept for a partition.
    Lag,
    /// The head of a parked lane is given up.
    DiscardHead,
    /// An owner finds out that the head of a lane was mended or given up.
    FindDrain,
    Due,
    LetterEnds,
    CommitDue,
    Assign,
    AskReplay,
    TakeReplay,
    /// A member that was deposed hears of it.
    HearLoss,
    /// A member that is down, or has drained, starts anew.
    Restart,
    ZombieEnds,
    Revoke,
    RevokeBudgetSpent,
    LateRevokeBudget,
    /// The broker takes a partition away; its owner hears of it later.
    Depose,
    AssignWhileHeld,
    AssignWhileStopping,
    Crash,
    Stop,
    StopBudgetSpent,
    OutageBegins,
    OutageEnds,
    LoseCommit,
    DeliverTwice,
    DeliverStale,
    ReplayStale,
    ReplayTwice,
    AnswerLate,
    /// A member loses its place in the group without a word.
    PutOut,
    /// A process dies while it takes a claim.
    ClaimInVain,
    /// The broker gives members new epochs that they have not heard of.
    EpochGoesStale,
    /// They hear of them.
    Heartbeat,
}

/// How often each kind is tried: always, and for each degree of trouble.
const WEIGHTS: [(Kind, usize, usize); 39] = [
    (Kind::Deliver, 300, 0),
    (Kind::CallEnds, 300, 0),
    (Kind::ReservationEnds, 120, 0),
    (Kind::StoringEnds, 100, 0),
    (Kind::UnparkEnds, 80, 0),
    (Kind::RecallEnds, 60, 0),
    (Kind::Lag, 20, 0),
    (Kind::DiscardHead, 6, 0),
    (Kind::FindDrain, 20, 0),
    (Kind::Due, 140, 0),
    (Kind::LetterEnds, 100, 0),
    (Kind::CommitDue, 25, 0),
    (Kind::Assign, 80, 0),
    (Kind::AskReplay, 20, 0),
    (Kind::TakeReplay, 40, 0),
    (Kind::HearLoss, 40, 0),
    (Kind::Restart, 40, 0),
    (Kind::ZombieEnds, 20, 0),
    (Kind::RevokeBudgetSpent, 20, 0),
    (Kind::StopBudgetSpent, 20, 0),
    (Kind::OutageEnds, 60, 0),
    (Kind::Revoke, 4, 6),
    (Kind::LateRevokeBudget, 0, 1),
    (Kind::Depose, 0, 3),
    (Kind::AssignWhileHeld, 0, 1),
    (Kind::AssignWhileStopping, 0, 40),
    (Kind::Crash, 0, 2),
    (Kind::Stop, 0, 3),
    (Kind::OutageBegins, 0, 2),
    (Kind::LoseCommit, 0, 2),
    (Kind::DeliverTwice, 0, 4),
    (Kind::DeliverStale, 0, 20),
    (Kind::ReplayStale, 0, 4),
    (Kind::ReplayTwice, 0, 4),
    (Kind::AnswerLate, 0, 10),
    (Kind::PutOut, 0, 2),
    (Kind::ClaimInVain, 0, 1),
    (Kind::EpochGoesStale, 0, 6),
    (Kind::Heartbeat, 20, 0),
];

const REQUESTS_MAX: usize = 8;

impl Step {
    pub(crate) fn draw(number: usize, random: &mut Random, trouble: usize) -> Self {
        let total: usize = WEIGHTS
            .iter()
            .map(|(_, always, troubled)| always + troubled * trouble)
            .sum();
        let mut left = random.below(total);
        let drawn = WEIGHTS.iter().find(|(_, always, troubled)| {
            let weight = always + troubled * trouble;
            let found = left < weight;
            left = left.saturating_sub(weight);
            found
        });
        Self {
            number,
            kind: drawn.expect("the number is below the sum").0,
            pick: random.below(1 << 16),
            luck: random.next(),
        }
    }
}

/// One of these, if there is any.
pub(crate) fn pick<T>(mut all: Vec<T>, pick: usize) -> Option<T> {
    if all.is_empty() {
        return None;
    }
    let chosen = pick % all.len();
    Some(all.swap_remove(chosen))
}

impl World {
    /// Lets a step happen; answers whether it was possible.
    pub(crate) fn apply(&mut self, step: &Step) -> Checked<bool> {
        self.luck = Random::new(step.luck);
        let before = self.now;
        self.pass_time(step.luck);
        let happened = self.happen(step)?;
        if !happened {
            self.now = before;
        }
        Ok(happened)
    }

    fn happen(&mut self, step: &Step) -> Checked<bool> {
        match step.kind {
            Kind::Deliver => self.deliver_next(step.pick),
            Kind::CallEnds => self.end_some_call(step.pick),
            Kind::ReservationEnds => self.end_some_reservation(step.pick),
            Kind::StoringEnds => self.end_some_storing(step.pick),
            Kind::UnparkEnds => self.end_some_unpark(step.pick),
            Kind::RecallEnds => self.end_some_recall(step.pick),
            Kind::Lag => self.tell_lag(step.pick),
            Kind::DiscardHead => Ok(self.discard_some_head(step.pick)),
            Kind::FindDrain => self.find_drain(step.pick),
            Kind::Due => self.end_some_wait(step.pick),
            Kind::LetterEnds => self.end_some_letter(step.pick),
            Kind::CommitDue => match pick(self.up(), step.pick) {
                Some(m) => self.feed(m, Input::CommitDue).map(|()| true),
                None => Ok(false),
            },
            Kind::Assign => self.assign_some(step.pick),
            Kind::AskReplay => Ok(self.ask_replay(step.pick)),
            Kind::TakeReplay => match pick(self.takable(), step.pick) {
                Some(request) => self.take_replay(request).map(|()| true),
                None => Ok(false),
            },
            Kind::Restart => Ok(self.restart_some(step.pick)),
            Kind::ZombieEnds => self.end_some_zombie(step.pick),
            _ => self.apply_fault(step),
        }
    }

    /// Mostly little time passes between two steps, and now and then a lot.
    fn pass_time(&mut self, luck: u64) {
        let mut luck = Random::new(!luck);
        let millis = match luck.below(100) {
            0..80 => luck.below(200),
            80..98 => luck.below(3_000),
            _ => luck.below(40_000),
        };
        self.now = Moment(self.now.0 + millis as u64 * 1_000);
    }

    pub(crate) fn up(&self) -> Vec<usize> {
        (0..self.members.len()).filter(|m| self.members[*m].is_up()).collect()
    }

    /// All (member, partition) that are fetched, as the members believe.
    pub(crate) fn fetched(&self) -> Vec<(usize, PartitionId)> {
        let of_member = |m: usize| self.members[m].fetches.keys().map(move |id| (m, *id));
        (0..self.members.len()).flat_map(of_member).collect()
    }

    fn deliver_next(&mut self, picked: usize) -> Checked<bool> {
        let mut open = self.fetched();
        open.retain(|(m, id)| {
            let fetch = self.members[*m].fetches[id];
            fetch.next < self.plan.records(*id) && (!fetch.paused || fetch.overrun > 0)
        });
        let Some((m, id)) = pick(open, picked) else {
            return Ok(false);
        };
        let fetch = self.members[m].fetches.get_mut(&id).expect("it was just found");
        let Fetch {
            epoch,
            next,
            paused,
            releasing,
            ..
        } = *fetch;
        fetch.next += 1;
        if paused {
            fetch.overrun -= 1;
            self.fault("fault: delivered after a pause");
        }
        if releasing {
            self.fault("fault: delivered while releasing");
        }
        self.deliver(m, id, epoch, next).map(|()| true)
    }

    fn end_some_call(&mut self, picked: usize) -> Checked<bool> {
        let calls = |m: usize| (0..self.members[m].calls.len()).map(move |call| (m, call));
        let all = (0..self.members.len()).flat_map(calls).collect();
        match pick(all, picked) {
            Some((m, call)) => self.end_call(m, call).map(|()| true),
            None => Ok(false),
        }
    }

    /// A call ends the way its handler's script says.
    pub(crate) fn end_call(&mut self, m: usize, call: usize) -> Checked {
        let call = self.members[m].calls.remove(call);
        let (rows, replay) = self.rows(&call.jobs);
        let ending = match call.fenced {
            true => Ending::Fails(Failure::Unreachable),
            false => self.call(&rows, replay),
        };
        let finish = match self.mended(m, &rows, ending) {
            Ending::Kills => return self.kill(m, &call),
            Ending::Works => Finish::Done,
            Ending::Skips => Finish::Skipped,
            Ending::Fails(failure) => failure.finish(&mut self.luck),
        };
        if matches!(finish, Finish::Done | Finish::Skipped) {
            self.database.commit(&self.plan, &rows, replay)?;
        } else if finish == Finish::TimedOut && self.luck.chance(40) {
            self.fault("fault: timed out and committed later");
            self.zombies.push(Zombie::Call { rows, replay });
        }
        let settled = matches!(finish, Finish::Done | Finish::Skipped);
        self.unmark(m, &call, settled);
        let job = call.jobs[0];
        self.feed(m, Input::Finished { job, finish })
    }

    /// The process dies of a call.
    fn kill(&mut self, m: usize, call: &Call) -> Checked {
        self.fault("fault: killed by a job");
        let (rows, replay) = self.rows(&call.jobs);
        if rows.len() > 1 {
            self.fault("fault: killed by one job of several");
        }
        let killers = rows
            .iter()
            .filter(|row| matches!(self.plan.rows[**row].script, Script::Kills));
        let killers: Vec<usize> = killers.copied().collect();
        self.note(|| format!("-- rows {killers:?} of {:?} kill, marked {:?}", call.jobs, call.mark));
        // Once when nobody knew of it, once with a mark, and then alone.
        let kills_max = self.plan.crash_deaths_max + 2;
        for row in killers {
            self.kills[row] += u32::from(!replay);
            let kills = self.kills[row];
            Invariant::Blame.check(kills <= kills_max, || format!("row {row} killed {kills} processes"))?;
        }
        self.crash(m)
    }

    fn end_some_reservation(&mut self, picked: usize) -> Checked<bool> {
        let open = |m: usize| (0..self.members[m].reservations.len()).map(move |place| (m, place));
        let all = (0..self.members.len()).flat_map(open).collect();
        match pick(all, picked) {
            Some((m, place)) => self.end_reservation(m, place).map(|()| true),
            None => Ok(false),
        }
    }

    pub(crate) fn end_reservation(&mut self, m: usize, place: usize) -> Checked {
        let (partition, epoch, to) = self.members[m].reservations.remove(place);
        if !self.broker.reserve(partition, m, epoch, to) {
            self.fault("fault: reservation of a deposed owner");
            return Ok(());
        }
        self.feed(m, Input::Reserved { partition, epoch, to })
    }

    fn end_some_wait(&mut self, picked: usize) -> Checked<bool> {
        let waits = |m: usize| (0..self.members[m].waits.len()).map(move |wait| (m, wait));
        let all = (0..self.members.len()).flat_map(waits).collect();
        let Some((m, wait)) = pick(all, picked) else {
            return Ok(false);
        };
        self.end_wait(m, wait).map(|()| true)
    }

    fn end_some_letter(&mut self, picked: usize) -> Checked<bool> {
        let letters = |m: usize| (0..self.members[m].burials.len()).map(move |letter| (m, letter));
        let all = (0..self.members.len()).flat_map(letters).collect();
        let Some((m, letter)) = pick(all, picked) else {
            return Ok(false);
        };
        let fails = self.outage || self.plan.trouble > 0 && self.luck.chance(25);
        self.end_letter(m, letter, fails).map(|()| true)
    }

    pub(crate) fn end_letter(&mut self, m: usize, letter: usize, fails: bool) -> Checked {
        let Burial { job, park, waiting } = self.members[m].burials.remove(letter);
        if fails {
            self.fault("fault: letter not written");
            return self.feed(m, Input::BuryFailed { job });
        }
        let row = self.row(job);
        self.database.write_letter(row);
        let epoch = self.named(m, job).1;
        if park && self.broker.claim(self.plan.rows[row].partition).epoch != epoch {
            self.fault("fault: letter not written");
            return self.feed(m, Input::BuryFailed { job });
        }
        self.enter_letter(row, park.then_some(epoch), waiting);
        self.forget_crashes(m, job);
        self.feed(m, Input::Buried { job })
    }

    fn ask_replay(&mut self, picked: usize) -> bool {
        if self.requests.iter().filter(|request| !request.is_recall).count() >= REQUESTS_MAX {
            return false;
        }
        let asked = |row: &usize| {
            self.requests
                .iter()
                .any(|request| !request.ended && request.rows.contains(row))
        };
        let rows = (0..self.plan.rows.len()).filter(|row| self.database.has_letter(*row) && !asked(row));
        let letters: Vec<usize> = rows.collect();
        let Some(first) = pick(letters.clone(), picked) else {
            return false;
        };
        let partition = self.plan.rows[first].partition;
        let decodes =
            |row: &usize| self.plan.rows[*row].handler != afterwrite::engine::core::messages::HandlerIndex::NONE;
        let index = self.plan.rows[first].index;
        let of_same_record = |row: &usize| {
            let row = &self.plan.rows[*row];
            row.partition == partition && row.index == index
        };
        let with = |row: &usize| *row != first && of_same_record(row) && decodes(row);
        let mut rows = vec![first];
        // Letters of lanes that are parked are replayed one by one.
        let parks = |row: &usize| self.database.parked.contains_key(&self.plan.rows[*row].lane);
        let another = letters
            .iter()
            .copied()
            .find(|row| decodes(&first) && with(row) && !parks(row));
        rows.extend(another.filter(|_| !parks(&first)));
        if self.luck.chance(5) {
            rows.clear();
        }
        self.note(|| format!("-- replay of rows {rows:?} is asked for"));
        let single = Some(first).filter(|_| rows.len() == 1);
        let parking = single.and_then(|row| self.database.parking_of(&self.plan, row));
        let waiting = single.and_then(|row| self.database.waiting.remove(&row));
        self.requests.push(Request {
            partition,
            rows,
            taken: None,
            ended: false,
            parking,
            parked_attempts: waiting.map(|waiting| waiting.attempts),
            is_recall: false,
        });
        true
    }

    /// Requests that the present owner of their partition has not taken yet, and knows that it may.
    pub(crate) fn takable(&self) -> Vec<usize> {
        let takable = |request: &usize| {
            let Request {
                partition,
                taken,
                ended,
                ..
            } = &self.requests[*request];
            let claim = self.broker.claim(*partition);
            let fetch = claim.owner.and_then(|m| self.members[m].fetches.get(partition));
            let current = fetch.is_some_and(|fetch| fetch.epoch == claim.epoch);
            current && !ended && taken.is_none_or(|(_, epoch)| epoch != claim.epoch)
        };
        (0..self.requests.len()).filter(takable).collect()
    }

    pub(crate) fn take_replay(&mut self, request: usize) -> Checked {
        let claim = self.broker.claim(self.requests[request].partition);
        let m = claim.owner.expect("a takable request has an owner");
        if self.requests[request].taken.is_some() {
            self.fault("fault: replay taken again by the next owner");
        }
        self.requests[request].taken = Some((m, claim.epoch));
        self.replay(m, claim.epoch, request)
    }

    fn restart_some(&mut self, picked: usize) -> bool {
        let over = |m: &usize| !self.members[*m].is_up() || self.members[*m].drained;
        let Some(m) = pick((0..self.members.len()).filter(over).collect(), picked) else {
            return false;
        };
        self.broker.depose_all(m);
        self.restart(m);
        true
    }

    fn end_some_zombie(&mut self, picked: usize) -> Checked<bool> {
        if self.zombies.is_empty() {
            return Ok(false);
        }
        let zombie = self.zombies.swap_remove(picked % self.zombies.len());
        match zombie {
            Zombie::Call { rows, replay } => {
                self.note(|| format!("-- a zombie commits rows {rows:?}"));
                if !rows.iter().any(|row| self.database.takes(*row, replay)) {
                    self.fault("fault: zombie finds its row");
                }
                self.database.commit(&self.plan, &rows, replay)?;
            }
            Zombie::Letter { row, parks, waiting } => {
                self.note(|| format!("-- a zombie buries row {row}"));
                self.database.write_letter(row);
                self.enter_letter(row, parks, waiting);
            }
        }
        Ok(true)
    }
}
