//! Parked lanes in a world: storing, draining, and giving their heads up.

use afterwrite::engine::core::messages::Input;

use crate::invariant::{Checked, Invariant};
use crate::step::pick;
use crate::world::World;

/// So many stored events are read at once.
const BATCH_MAX: usize = 3;

impl World {
    pub(crate) fn end_some_storing(&mut self, picked: usize) -> Checked<bool> {
        let open = |m: usize| (0..self.members[m].storing.len()).map(move |place| (m, place));
        let Some((m, place)) = pick((0..self.members.len()).flat_map(open).collect(), picked) else {
            return Ok(false);
        };
        let fails = self.outage || self.plan.trouble > 0 && self.luck.chance(15);
        self.end_storing(m, place, fails).map(|()| true)
    }

    pub(crate) fn end_storing(&mut self, m: usize, place: usize, fails: bool) -> Checked {
        let jobs = self.members[m].storing.remove(place);
        let job = jobs[0];
        let (id, epoch, _) = self.named(m, job);
        let refused = !self.broker.is_owner(id, m, epoch);
        if fails || refused {
            self.fault(match refused {
                true => "claim: storing refused",
                false => "fault: events not stored",
            });
            return self.feed(m, Input::StoreFailed { job });
        }
        if jobs.len() > 1 {
            self.fault("several events stored together");
        }
        for row in jobs.iter().map(|job| self.row(*job)).collect::<Vec<_>>() {
            let stored = self.database.store(&self.plan, row);
            Invariant::Parking.check(stored, || format!("row {row} is stored, but its lane is live"))?;
        }
        self.feed(m, Input::Stored { job })
    }

    pub(crate) fn end_some_unpark(&mut self, picked: usize) -> Checked<bool> {
        let open = |m: usize| (0..self.members[m].unparks.len()).map(move |place| (m, place));
        match pick((0..self.members.len()).flat_map(open).collect(), picked) {
            Some((m, place)) => self.end_unpark(m, place).map(|()| true),
            None => Ok(false),
        }
    }

    /// The driver asks until there is an answer; a deposed owner gets none.
    pub(crate) fn end_unpark(&mut self, m: usize, place: usize) -> Checked {
        let asked = self.members[m].unparks.remove(place);
        let (partition, epoch) = (asked.partition, asked.epoch);
        let lane = self.plan.lane(partition, asked.handler, asked.key);
        if !self.broker.is_owner(partition, m, epoch) {
            self.fault("fault: unpark of a deposed owner");
            return Ok(());
        }
        let Some(lane) = lane else { return Ok(()) };
        // A lane that was parked anew meanwhile has another head: nothing is answered.
        let Some(rows) = self.database.unpark(&self.plan, lane, &asked.done, BATCH_MAX) else {
            return Ok(());
        };
        let jobs = self.stored_jobs(&rows);
        let answer = Input::Unparked {
            partition,
            epoch,
            handler: asked.handler,
            key: asked.key,
            jobs,
        };
        self.feed(m, answer)
    }

    pub(crate) fn discard_some_head(&mut self, picked: usize) -> bool {
        let Some(lane) = pick(self.database.parked.keys().copied().collect(), picked) else {
            return false;
        };
        self.note(|| format!("-- the head of lane {lane} is given up"));
        self.database.discard_head(lane);
        true
    }

    /// Owners look now and then for lanes whose head has ended.
    pub(crate) fn find_drain(&mut self, picked: usize) -> Checked<bool> {
        let found = self.drainable();
        match pick(found, picked) {
            Some((m, input)) => self.feed(m, input).map(|()| true),
            None => Ok(false),
        }
    }

    pub(crate) fn drainable(&self) -> Vec<(usize, Input)> {
        let ended = self
            .database
            .parked
            .values()
            .filter(|lane| lane.head_ended && !lane.draining);
        let told = ended.filter_map(|lane| {
            let row = &self.plan.rows[lane.head];
            let claim = self.broker.claim(row.partition);
            let m = claim
                .owner
                .filter(|m| self.members[*m].fetches.contains_key(&row.partition))?;
            let input = Input::Drain {
                partition: row.partition,
                epoch: claim.epoch,
                handler: row.handler,
                key: row.key,
            };
            Some((m, input))
        });
        told.collect()
    }
}
