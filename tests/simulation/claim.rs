//! Claims: who owns a partition is written down, and whoever owned it before is refused from then on, alive or not.
//!
//! The refusals themselves are where things are written: [`keeping`](crate::keeping), [`parking`](crate::parking),
//! [`world`](crate::world).

use afterwrite::engine::core::messages::{Input, PartitionId};

use crate::invariant::Checked;
use crate::member::Fetch;
use crate::step::pick;
use crate::world::World;

impl World {
    /// Makes a member the owner; its core is told at once.
    pub(crate) fn assign(&mut self, m: usize, partition: PartitionId) -> Checked {
        let others = self.members.iter().enumerate().filter(|(other, _)| *other != m);
        let held = others
            .filter(|(_, other)| other.fetches.contains_key(&partition))
            .count();
        if held > 0 {
            self.fault("claim: two owners at once");
        }
        let epoch = self.broker.take(partition, m);
        let mut inherited = self.broker.inherit(partition);
        let parked = self
            .database
            .parked
            .values()
            .map(|lane| (&self.plan.rows[lane.head], lane.draining));
        inherited.parked = parked
            .filter(|(row, _)| row.partition == partition)
            .map(|(row, draining)| ((row.handler, row.key), draining))
            .collect();
        inherited.letters = self.letters_left(partition);
        let input = Input::Assigned {
            partition,
            epoch,
            inherited,
        };
        let takes_work = self.members[m].takes_work();
        self.feed(m, input)?;
        if takes_work && self.members[m].is_up() {
            let first = self.plan.index_of(partition, self.broker.claim(partition).committed);
            let fetch = Fetch {
                epoch,
                first,
                next: first,
                paused: false,
                releasing: false,
                overrun: 0,
                refused: None,
            };
            self.members[m].fetches.insert(partition, fetch);
        }
        Ok(())
    }

    /// A process dies between the two statements that take a claim and read what the last owner left.
    pub(crate) fn claim_in_vain(&mut self, picked: usize) -> Checked<bool> {
        let takers: Vec<usize> = self
            .up()
            .into_iter()
            .filter(|m| self.members[*m].takes_work())
            .collect();
        let (Some(m), Some(id)) = (pick(takers, picked), pick(self.free(), picked / 64)) else {
            return Ok(false);
        };
        self.fault("claim: taken by one that died before it read what was left");
        self.broker.take(id, m);
        self.crash(m).map(|()| true)
    }
}
