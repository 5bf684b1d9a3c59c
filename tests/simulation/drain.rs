//! The end of every world: faults stop, everything that is open ends, everything is committed, everybody leaves.

use afterwrite::engine::core::messages::{Input, Moment, PartitionId};

use crate::invariant::{Checked, Invariant};
use crate::member::Member;
use crate::random::Random;
use crate::world::{World, Zombie};

/// A job is called this often at most, its replays included; a round ends at least one call while there is one.
const CALLS_A_ROW_MAX: usize = 30;

/// So many rounds go by before somebody mends what a suspended handler needs: without that an outage would rightly never end.
const UNMENDED_ROUNDS: usize = 100;

impl World {
    pub(crate) fn drain(&mut self) -> Checked {
        self.note(|| "-- faults stop".to_owned());
        self.luck = Random::new(self.plan.seed);
        self.outage = false;
        self.commit_gets_lost = false;
        self.heartbeat()?;
        for zombie in std::mem::take(&mut self.zombies) {
            match zombie {
                Zombie::Call { rows, replay } => self.database.commit(&self.plan, &rows, replay)?,
                Zombie::Letter { row, parks, waiting } => {
                    self.database.write_letter(row);
                    self.enter_letter(row, parks, waiting);
                }
            }
        }
        let rounds_max = 2 * UNMENDED_ROUNDS + self.plan.rows.len() * CALLS_A_ROW_MAX;
        let mut rounds = 0;
        while self.round()? {
            rounds += 1;
            self.mending = rounds >= UNMENDED_ROUNDS;
            if rounds == rounds_max {
                Invariant::Liveness.violated("the world never comes to rest")?;
                break;
            }
        }
        self.check_rest()?;
        self.leave()
    }

    /// Everybody does what there is to do; answers whether there was anything.
    fn round(&mut self) -> Checked<bool> {
        let before = self.inputs;
        self.now = Moment(self.now.0 + 1_000_000);
        for m in 0..self.members.len() {
            if !self.members[m].is_up() || self.members[m].drained {
                self.broker.depose_all(m);
                self.restart(m);
            }
        }
        self.settle_owners()?;
        for m in 0..self.members.len() {
            for (id, fetch) in self.members[m].fetches.clone() {
                let open = fetch.next < self.plan.records(id) && !fetch.paused;
                if open && let Some(fetch) = self.members[m].fetches.get_mut(&id) {
                    let (epoch, index) = (fetch.epoch, fetch.next);
                    fetch.next += 1;
                    self.deliver(m, id, epoch, index)?;
                }
            }
            self.end_all(m, |member| member.calls.len(), |world| world.end_call(m, 0))?;
            self.end_all(m, |member| member.storing.len(), |world| world.end_storing(m, 0, false))?;
            self.end_all(m, |member| member.unparks.len(), |world| world.end_unpark(m, 0))?;
            self.end_all(
                m,
                |member| member.reservations.len(),
                |world| world.end_reservation(m, 0),
            )?;
            self.end_all(m, |member| member.burials.len(), |world| world.end_letter(m, 0, false))?;
            self.end_all(m, |member| member.waits.len(), |world| world.end_wait(m, 0))?;
            self.end_all(m, |member| member.recalls.len(), |world| world.end_recall(m, 0))?;
        }
        for request in self.takable() {
            self.take_replay(request)?;
        }
        for (m, drain) in self.drainable() {
            self.feed(m, drain)?;
        }
        let killed = self.members.iter().any(|member| !member.is_up());
        let progress = self.inputs > before || killed;
        for m in self.up() {
            self.feed(m, Input::CommitDue)?;
        }
        Ok(progress)
    }

    /// Ends whatever of a kind is under way at a member now. One of them may kill the process, and with it the others.
    fn end_all(
        &mut self,
        m: usize,
        under_way: impl Fn(&Member) -> usize,
        end: impl Fn(&mut Self) -> Checked,
    ) -> Checked {
        for _ in 0..under_way(&self.members[m]) {
            if under_way(&self.members[m]) > 0 {
                end(self)?;
            }
        }
        Ok(())
    }

    /// Who was deposed hears of it, and what nobody owns is given to somebody.
    fn settle_owners(&mut self) -> Checked {
        for (m, id) in self.fetched() {
            let epoch = self.members[m].fetches[&id].epoch;
            if !self.broker.is_owner(id, m, epoch) {
                self.feed(m, Input::Lost { partition: id })?;
            }
        }
        let takers: Vec<usize> = self
            .up()
            .into_iter()
            .filter(|m| self.members[*m].takes_work())
            .collect();
        for id in self.broker.ids() {
            if self.broker.claim(id).owner.is_none() && !takers.is_empty() {
                self.assign(takers[id.0 as usize % takers.len()], id)?;
            }
        }
        Ok(())
    }

    fn check_rest(&self) -> Checked {
        let live = Invariant::Liveness;
        for (m, member) in self.members.iter().enumerate() {
            let open = member.core.as_ref().map_or(0, |core| core.jobs_open());
            live.check(open == 0, || format!("member {m} is at rest with {open} open jobs"))?;
        }
        let exists = |row: &usize| self.plan.rows[*row].index < self.plan.records_max;
        let mut rows = (0..self.plan.rows.len()).filter(exists);
        let row = rows.find(|row| !self.database.is_settled(*row));
        live.check(row.is_none(), || format!("row {row:?} is never settled"))?;
        let lane = self
            .database
            .parked
            .iter()
            .find(|(_, lane)| lane.draining || lane.head_ended);
        live.check(lane.is_none(), || {
            format!("lane {:?} never ends draining", lane.map(|(lane, _)| lane))
        })?;
        let waiting = self.database.waiting.keys().next();
        live.check(waiting.is_none(), || {
            format!("row {waiting:?} is parked and never released")
        })?;
        let request = self.requests.iter().position(|request| !request.ended);
        live.check(request.is_none(), || format!("request {request:?} never ends"))?;
        for id in self.broker.ids().filter(|id| !self.broker.claim(*id).commit_lost) {
            live.check(self.is_committed(id), || {
                format!("{id:?} is never committed to its end")
            })?;
        }
        Ok(())
    }

    fn leave(&mut self) -> Checked {
        for m in 0..self.members.len() {
            self.feed(m, Input::Stopping)?;
            let drained = self.members[m].drained;
            Invariant::Liveness.check(drained, || format!("member {m} is at rest, but its stop does not end"))?;
        }
        for id in self.broker.ids() {
            let committed = self.is_committed(id);
            Invariant::Liveness.check(committed, || format!("{id:?} is left without its last commit"))?;
        }
        Ok(())
    }

    fn is_committed(&self, id: PartitionId) -> bool {
        self.plan.index_of(id, self.broker.claim(id).committed) == self.plan.records(id)
    }
}
