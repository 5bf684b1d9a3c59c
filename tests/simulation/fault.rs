//! What goes wrong in a world.

use afterwrite::engine::core::messages::{Input, JobId, PartitionId};
use afterwrite::engine::retry::Finish;

use std::collections::BTreeMap;

use crate::invariant::Checked;
use crate::member::Burial;
use crate::rebalance::Protocol;
use crate::script::Ending;
use crate::step::{Kind, Step, pick};
use crate::world::{World, Zombie};

impl World {
    /// Lets a fault happen; answers whether it was possible.
    pub(crate) fn apply_fault(&mut self, step: &Step) -> Checked<bool> {
        let picked = step.pick;
        match step.kind {
            Kind::Revoke => self.revoke_some(picked),
            Kind::RevokeBudgetSpent => self.tell(picked, "fault: budget of a revocation spent", |world, m, id| {
                let releasing = world.members[m].fetches[&id].releasing;
                releasing.then_some(Input::RevokeExpired { partition: id })
            }),
            Kind::LateRevokeBudget => self.tell(picked, "fault: late budget of a revocation", |world, m, id| {
                let releasing = world.members[m].fetches[&id].releasing;
                (!releasing).then_some(Input::RevokeExpired { partition: id })
            }),
            Kind::HearLoss => self.hear_loss(picked),
            Kind::PutOut => Ok(self.put_out(picked)),
            Kind::ClaimInVain => self.claim_in_vain(picked),
            Kind::EpochGoesStale => {
                let news = !self.is_epoch_stale && self.plan.protocol == Protocol::Consumer;
                self.is_epoch_stale |= news;
                Ok(news)
            }
            Kind::Heartbeat => self.heartbeat(),
            Kind::Depose => Ok(self.depose_some(picked)),
            Kind::AssignWhileHeld => self.assign_while_held(picked),
            Kind::AssignWhileStopping => self.assign_while_stopping(picked),
            Kind::Crash => self.crash_some(picked),
            Kind::Stop => self.stop_some(picked),
            Kind::StopBudgetSpent => self.stop_at_once(picked),
            Kind::OutageBegins | Kind::OutageEnds => Ok(self.turn_outage(step.kind == Kind::OutageBegins)),
            Kind::LoseCommit => {
                let news = !self.commit_gets_lost;
                self.commit_gets_lost = true;
                Ok(news)
            }
            Kind::DeliverTwice => self.deliver_twice(picked),
            Kind::DeliverStale => self.deliver_stale(picked),
            Kind::ReplayStale => self.replay_stale(picked),
            Kind::ReplayTwice => self.replay_twice(picked),
            Kind::AnswerLate => self.answer_late(picked),
            other => unreachable!("{other:?} is no fault"),
        }
    }

    /// Whether a member's belief that it owns the partition is right.
    pub(crate) fn is_current(&self, m: usize, id: PartitionId) -> bool {
        let epoch = self.members[m].fetches[&id].epoch;
        self.broker.is_owner(id, m, epoch)
    }

    /// Tells a member something about a partition it holds, where `input` finds something to tell.
    fn tell(
        &mut self,
        picked: usize,
        fault: &'static str,
        input: impl Fn(&Self, usize, PartitionId) -> Option<Input>,
    ) -> Checked<bool> {
        let all = self.fetched();
        let told = all
            .into_iter()
            .filter_map(|(m, id)| Some((m, input(self, m, id)?)))
            .collect();
        let Some((m, input)) = pick(told, picked) else {
            return Ok(false);
        };
        self.fault(fault);
        self.feed(m, input).map(|()| true)
    }

    fn depose_some(&mut self, picked: usize) -> bool {
        let current = self
            .fetched()
            .into_iter()
            .filter(|(m, id)| self.is_current(*m, *id))
            .collect();
        let Some((m, id)) = pick(current, picked) else {
            return false;
        };
        self.broker.depose(id);
        self.fault("fault: deposed without a word");
        self.note(|| format!("-- it was {id:?} of member {m}"));
        true
    }

    fn assign_while_held(&mut self, picked: usize) -> Checked<bool> {
        let held = self
            .fetched()
            .into_iter()
            .filter(|(m, _)| self.members[*m].takes_work())
            .collect();
        let Some((m, id)) = pick(held, picked) else {
            return Ok(false);
        };
        self.fault("fault: assigned while held");
        self.assign(m, id).map(|()| true)
    }

    fn assign_while_stopping(&mut self, picked: usize) -> Checked<bool> {
        let stopping: Vec<usize> = self.up().into_iter().filter(|m| self.members[*m].stopping).collect();
        let (Some(m), Some(id)) = (pick(stopping, picked), pick(self.free(), picked / 64)) else {
            return Ok(false);
        };
        self.fault("fault: assigned while stopping");
        self.assign(m, id).map(|()| true)
    }

    fn crash_some(&mut self, picked: usize) -> Checked<bool> {
        let Some(m) = pick(self.up(), picked) else {
            return Ok(false);
        };
        self.crash(m).map(|()| true)
    }

    /// A member dies, with whatever it has under way.
    pub(crate) fn crash(&mut self, m: usize) -> Checked {
        self.fault("fault: crash");
        self.note(|| format!("-- member {m} is down"));
        self.members[m].core = None;
        let fetches = std::mem::take(&mut self.members[m].fetches);
        let epochs: BTreeMap<PartitionId, u64> = fetches.into_iter().map(|(id, fetch)| (id, fetch.epoch)).collect();
        self.members[m].waits.clear();
        self.members[m].late.clear();
        self.members[m].stale.clear();
        self.members[m].reservations.clear();
        self.members[m].unparks.clear();
        self.broker.depose_all(m);
        for call in std::mem::take(&mut self.members[m].calls) {
            let (rows, replay) = self.rows(&call.jobs);
            if call.fenced || !self.reaches_database(&rows, replay) {
                self.fault("fault: crash before the effect");
            } else if self.luck.chance(60) {
                self.fault("fault: crash after the effect");
                self.database.commit(&self.plan, &rows, replay)?;
            } else {
                self.zombies.push(Zombie::Call { rows, replay });
            }
        }
        self.members[m].recalls.clear();
        for Burial { job, park, waiting } in std::mem::take(&mut self.members[m].burials) {
            let row = self.row(job);
            let got = self.luck.below(4);
            let epoch = epochs.get(&self.plan.rows[row].partition).copied();
            let parks = park.then_some(epoch.unwrap_or(0));
            if got < 2 {
                self.fault("fault: crash after the letter");
                self.database.write_letter(row);
            }
            if got == 1 {
                self.enter_letter(row, parks, waiting);
            }
            if got == 2 {
                self.zombies.push(Zombie::Letter { row, parks, waiting });
            }
        }
        for jobs in std::mem::take(&mut self.members[m].storing) {
            let row = self.row(jobs[0]);
            let id = self.plan.rows[row].partition;
            let current = epochs.get(&id) == Some(&self.broker.claim(id).epoch);
            if current && self.luck.chance(50) {
                for row in jobs.iter().map(|job| self.row(*job)).collect::<Vec<_>>() {
                    self.database.store(&self.plan, row);
                }
                self.fault("fault: crash after events were stored");
            }
        }
        Ok(())
    }

    fn stop_some(&mut self, picked: usize) -> Checked<bool> {
        match pick(self.up(), picked) {
            Some(m) => self.feed(m, Input::Stopping).map(|()| true),
            None => Ok(false),
        }
    }

    fn stop_at_once(&mut self, picked: usize) -> Checked<bool> {
        let stopping = self.up().into_iter().filter(|m| self.members[*m].stopping).collect();
        match pick(stopping, picked) {
            Some(m) => self.feed(m, Input::StopExpired).map(|()| true),
            None => Ok(false),
        }
    }

    fn turn_outage(&mut self, begins: bool) -> bool {
        let news = self.outage != begins;
        self.outage = begins;
        if news && begins {
            self.fault("fault: outage");
        }
        news
    }

    fn deliver_twice(&mut self, picked: usize) -> Checked<bool> {
        let mut begun = self.fetched();
        begun.retain(|(m, id)| self.members[*m].fetches[id].next > self.members[*m].fetches[id].first);
        let Some((m, id)) = pick(begun, picked) else {
            return Ok(false);
        };
        let fetch = self.members[m].fetches[&id];
        let index = self.luck.between(fetch.first, fetch.next - 1);
        self.fault("fault: delivered twice");
        self.deliver(m, id, fetch.epoch, index).map(|()| true)
    }

    fn deliver_stale(&mut self, picked: usize) -> Checked<bool> {
        let with_stale = self
            .up()
            .into_iter()
            .filter(|m| !self.members[*m].stale.is_empty())
            .collect();
        let Some(m) = pick(with_stale, picked) else {
            return Ok(false);
        };
        let stale = self.members[m].stale.remove(0);
        self.fault("fault: delivered under an old epoch");
        self.deliver(m, stale.partition, stale.epoch, stale.index)
            .map(|()| true)
    }

    /// A request was taken under an epoch that was over before it reached the core.
    fn replay_stale(&mut self, picked: usize) -> Checked<bool> {
        let mut requests: Vec<(usize, usize, u64)> = Vec::new();
        for (index, request) in self.requests.iter().enumerate() {
            let held = self.fetched().into_iter().filter(|(_, id)| *id == request.partition);
            requests.extend(held.map(|(m, id)| (m, index, self.members[m].fetches[&id].epoch - 1)));
        }
        let Some((m, request, epoch)) = pick(requests, picked) else {
            return Ok(false);
        };
        self.fault("fault: replayed under an old epoch");
        self.replay(m, epoch, request).map(|()| true)
    }

    /// A request that is open reaches the core again.
    fn replay_twice(&mut self, picked: usize) -> Checked<bool> {
        let mut all = Vec::new();
        for (index, request) in self.requests.iter().enumerate().filter(|(_, request)| !request.ended) {
            let held = self.fetched().into_iter().filter(|(_, id)| *id == request.partition);
            let taken = held.map(|(m, id)| (m, self.members[m].fetches[&id].epoch));
            all.extend(
                taken
                    .filter(|by| request.taken == Some(*by))
                    .map(|(m, epoch)| (m, index, epoch)),
            );
        }
        let Some((m, request, epoch)) = pick(all, picked) else {
            return Ok(false);
        };
        self.fault("fault: replayed twice");
        self.replay(m, epoch, request).map(|()| true)
    }

    fn answer_late(&mut self, picked: usize) -> Checked<bool> {
        let with_late = self
            .up()
            .into_iter()
            .filter(|m| !self.members[*m].late.is_empty())
            .collect();
        let Some(m) = pick(with_late, picked) else {
            return Ok(false);
        };
        let answer = self.members[m].late.remove(0);
        self.fault("fault: late answer");
        self.feed(m, answer).map(|()| true)
    }

    /// Nobody waits any more for what is under way for the job; it may still reach the database.
    pub(crate) fn abandon(&mut self, m: usize, job: JobId) -> Checked {
        let member = &mut self.members[m];
        if let Some(place) = member.calls.iter().position(|call| call.jobs[0] == job) {
            let call = member.calls.remove(place);
            let finish = [Finish::Done, Finish::Transient(None), Finish::Permanent][self.luck.below(3)];
            member.late.push(Input::Finished { job, finish });
            let (rows, replay) = self.rows(&call.jobs);
            if call.fenced || !self.reaches_database(&rows, replay) {
                return Ok(());
            }
            if self.luck.chance(50) {
                self.fault("fault: abandoned call commits later");
                self.zombies.push(Zombie::Call { rows, replay });
                return Ok(());
            }
            self.fault("fault: abandoned call commits");
            return self.database.commit(&self.plan, &rows, replay);
        }
        if let Some(place) = member.burials.iter().position(|burial| burial.job == job) {
            let Burial { park, waiting, .. } = member.burials.remove(place);
            member.late.push(Input::Buried { job });
            if self.luck.chance(50) {
                self.fault("fault: abandoned letter is written later");
                let row = self.row(job);
                let parks = park.then(|| self.named(m, job).1);
                self.zombies.push(Zombie::Letter { row, parks, waiting });
            }
        }
        let member = &mut self.members[m];
        if let Some(place) = member.storing.iter().position(|stored| stored[0] == job) {
            member.storing.remove(place);
            member.late.push(Input::Stored { job });
        }
        Ok(())
    }

    /// Whether an attempt that nobody listens to gets as far as its commit.
    fn reaches_database(&mut self, rows: &[usize], replay: bool) -> bool {
        let ending = self.call(rows, replay);
        matches!(ending, Ending::Works | Ending::Skips) && self.luck.chance(70)
    }
}
