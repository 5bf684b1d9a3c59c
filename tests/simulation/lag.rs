//! Lag in a world: what sources say of it, and letters that were parked because of it.

use std::collections::BTreeMap;

use afterwrite::engine::core::messages::{Action, HandlerIndex, Input, JobId, PartitionId};
use afterwrite::engine::retry::Class;

use crate::database::Waiting;
use crate::invariant::Checked;
use crate::member::{Burial, Recall, Waiter};
use crate::step::pick;
use crate::world::{Request, World};

impl World {
    /// A letter is on its way. That of a job which only waits keeps when it would have been tried again.
    pub(crate) fn bury(&mut self, m: usize, job: JobId, class: Class, attempts: u32, park: bool) {
        let mut waits = self.members[m].waits.iter();
        let due = waits
            .find(|(waiter, _)| *waiter == Waiter::Job(job))
            .map(|(_, due)| *due);
        let waiting = (class == Class::Parked).then_some(Waiting {
            due: due.unwrap_or(self.now),
            attempts,
            is_replay: self.is_replay(job),
        });
        self.members[m].burials.push(Burial { job, park, waiting });
    }

    /// A source says how much is kept for one of its partitions: around the limit, and far from it.
    pub(crate) fn tell_lag(&mut self, picked: usize) -> Checked<bool> {
        let Some((m, partition)) = pick(self.fetched(), picked) else {
            return Ok(false);
        };
        let stale = u64::from(self.luck.chance(5));
        let epoch = self.members[m].fetches[&partition].epoch - stale;
        let bytes_max = self.plan.limits[m].lag_bytes_max;
        let bytes = [
            0,
            bytes_max / 2,
            bytes_max / 2 + 1,
            bytes_max,
            bytes_max + 1,
            bytes_max * 9,
        ][self.luck.below(6)];
        self.feed(
            m,
            Input::Lag {
                partition,
                epoch,
                bytes,
            },
        )
        .map(|()| true)
    }

    pub(crate) fn perform_of_lag(&mut self, m: usize, action: &Action) {
        if let Action::Recall {
            partition,
            handler,
            letters_max,
        } = *action
        {
            let epoch = self.members[m].fetches.get(&partition).map(|fetch| fetch.epoch);
            self.members[m].recalls.push(Recall {
                partition,
                epoch: epoch.unwrap_or(self.broker.claim(partition).epoch),
                handler,
                letters_max,
            });
        }
    }

    pub(crate) fn end_some_recall(&mut self, picked: usize) -> Checked<bool> {
        let open = |m: usize| (0..self.members[m].recalls.len()).map(move |place| (m, place));
        match pick((0..self.members.len()).flat_map(open).collect(), picked) {
            Some((m, place)) => self.end_recall(m, place).map(|()| true),
            None => Ok(false),
        }
    }

    /// Letters become requests; the driver asks until there is an answer, and a deposed owner gets none.
    pub(crate) fn end_recall(&mut self, m: usize, place: usize) -> Checked {
        let Recall {
            partition,
            epoch,
            handler,
            letters_max,
        } = self.members[m].recalls.remove(place);
        if !self.broker.is_owner(partition, m, epoch) {
            self.fault("fault: recall of a deposed owner");
            return Ok(());
        }
        let chosen: Vec<usize> = self
            .letters_of(partition)
            .filter(|(row, waiting)| self.plan.rows[*row].handler == handler && waiting.due <= self.now)
            .map(|(row, _)| row)
            .take(letters_max)
            .collect();
        for row in &chosen {
            let waiting = self.database.waiting.remove(row).expect("it was just found");
            self.requests.push(Request {
                partition,
                rows: vec![*row],
                taken: None,
                ended: false,
                parking: self.database.parking_of(&self.plan, *row),
                parked_attempts: Some(waiting.attempts),
                is_recall: true,
            });
        }
        let left = self
            .letters_of(partition)
            .any(|(row, _)| self.plan.rows[row].handler == handler);
        self.feed(
            m,
            Input::Recalled {
                partition,
                epoch,
                handler,
                letters: chosen.len(),
                left,
            },
        )
    }

    fn letters_of(&self, partition: PartitionId) -> impl Iterator<Item = (usize, Waiting)> {
        let waiting = self.database.waiting.iter().map(|(row, waiting)| (*row, *waiting));
        waiting.filter(move |(row, _)| self.plan.rows[*row].partition == partition)
    }

    /// Handlers with letters of a partition that were parked because of lag, and how many are on their way back.
    pub(crate) fn letters_left(&self, partition: PartitionId) -> BTreeMap<HandlerIndex, usize> {
        let mut left = BTreeMap::new();
        for (row, _) in self.letters_of(partition) {
            left.entry(self.plan.rows[row].handler).or_default();
        }
        let open = |request: &&Request| request.partition == partition && !request.ended;
        for request in self
            .requests
            .iter()
            .filter(open)
            .filter(|request| request.parked_attempts.is_some())
        {
            *left.entry(self.plan.rows[request.rows[0]].handler).or_default() += 1;
        }
        left
    }
}
