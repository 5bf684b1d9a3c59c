//! What a world keeps of jobs beyond the process: marks, attempts, letters and their lanes.

use std::time::Duration;

use afterwrite::engine::core::messages::{JobId, Mark, PartitionId};
use afterwrite::engine::retry::Wait;
use afterwrite::event::delivery::Position;

use crate::broker::Named;
use crate::database::{Entry, Waiting};
use crate::invariant::{Checked, Invariant};
use crate::member::Call;
use crate::world::World;

/// The attempts of a job that waits for as long as this are stored.
const STORED_FROM: Duration = Duration::from_secs(4);

impl World {
    /// Starts a call: its mark is committed first.
    pub(crate) fn start(&mut self, m: usize, jobs: Vec<JobId>, mark: Mark) -> Checked {
        let mut fenced = false;
        if mark != Mark::None {
            let (id, epoch, named) = self.named(m, jobs[0]);
            fenced = !self.broker.mark(id, m, epoch, named, mark == Mark::Alone);
        }
        if fenced {
            self.fault("claim: mark refused");
        }
        if self.is_worked_on_elsewhere(m, &jobs) {
            self.fault("claim: two owners work on one event");
        }
        let alone = |call: &Call| call.mark == Mark::Alone;
        let others = self.members[m].calls.iter().any(alone);
        Invariant::Blame.check(mark != Mark::Alone || !others, || "two jobs run alone")?;
        self.members[m].calls.push(Call { jobs, mark, fenced });
        Ok(())
    }

    /// Whether a call of another member, which does not know that it was deposed, is under way for one of the same events.
    fn is_worked_on_elsewhere(&self, m: usize, jobs: &[JobId]) -> bool {
        let others = self.members.iter().enumerate().filter(|(other, _)| *other != m);
        let mut under_way = others.flat_map(|(_, other)| other.calls.iter().flat_map(|call| &call.jobs));
        under_way.any(|job| jobs.iter().any(|started| self.row(*started) == self.row(*job)))
    }

    /// The partition of a job, the epoch under which this member works on it, and its name.
    pub(crate) fn named(&self, m: usize, job: JobId) -> (PartitionId, u64, Named) {
        let row = &self.plan.rows[self.row(job)];
        let position = self.plan.record(row.partition, row.index).position;
        let epoch = self.members[m]
            .fetches
            .get(&row.partition)
            .map_or(0, |fetch| fetch.epoch);
        (row.partition, epoch, (position, row.handler))
    }

    /// A call ended: its mark goes.
    pub(crate) fn unmark(&mut self, m: usize, call: &Call, settled: bool) {
        if call.mark != Mark::None && !call.fenced {
            let (id, epoch, named) = self.named(m, call.jobs[0]);
            self.broker
                .unmark(id, epoch, named, call.mark == Mark::Alone && !settled);
        }
    }

    /// New jobs for rows that were stored.
    pub(crate) fn stored_jobs(&mut self, rows: &[usize]) -> Vec<(JobId, Position)> {
        let mut jobs = Vec::new();
        for row in rows.iter().copied() {
            let job = JobId(self.jobs.len() as u64);
            self.jobs.push((row, None));
            let row = &self.plan.rows[row];
            jobs.push((job, self.plan.record(row.partition, row.index).position));
        }
        jobs
    }

    /// A letter is durable: in one transaction with it the ledger says so and its lane is parked, unless the owner is
    /// another by now.
    pub(crate) fn enter_letter(&mut self, row: usize, parks: Option<u64>, waiting: Option<Waiting>) {
        let id = self.plan.rows[row].partition;
        match parks {
            Some(epoch) if self.broker.claim(id).epoch != epoch => {
                self.fault("fault: letter of a deposed owner does not park");
            }
            Some(_) => {
                let entry = self.database.entry(row);
                self.database.enter_buried(row);
                self.database.park_lane(&self.plan, row);
                if let Some(waiting) = waiting {
                    self.keep_waiting(row, waiting, entry);
                }
            }
            None => {
                let entry = self.database.entry(row);
                self.database.enter_buried(row);
                if let Some(waiting) = waiting {
                    self.keep_waiting(row, waiting, entry);
                }
            }
        }
    }

    /// A letter of a job that only waited is written. Of an event that the ledger knew before it is of no use, unless the same
    /// letter was there already, or it is that of a dead letter's replay.
    fn keep_waiting(&mut self, row: usize, waiting: Waiting, entry: Option<Entry>) {
        let mut open = self
            .requests
            .iter()
            .filter(|request| !request.ended && request.rows == [row]);
        let is_known =
            self.database.waiting.contains_key(&row) || open.any(|request| request.parked_attempts.is_some());
        let is_alive = waiting.is_replay && entry == Some(Entry::Buried);
        if entry.is_none() || is_alive {
            self.database.waiting.insert(row, waiting);
            if !waiting.is_replay {
                self.database.ordered.insert(row);
            }
        } else if !is_known {
            self.fault("parked letter of an event that the ledger knows");
            self.database.discard_head(self.plan.rows[row].lane);
        }
    }

    /// A job is in the dead letters: nobody has to know of its deaths and attempts any more.
    pub(crate) fn forget_crashes(&mut self, m: usize, job: JobId) {
        let (id, epoch, named) = self.named(m, job);
        self.broker.acquit(id, m, epoch, named);
    }

    /// Attempts of jobs that wait for long are stored, so that the next owner does not start anew.
    pub(crate) fn note_attempts(&mut self, m: usize, job: JobId, attempts: u32, wait: Wait) {
        let (Wait::Exact(longest) | Wait::Jittered(longest)) = wait;
        let (id, epoch, named) = self.named(m, job);
        if longest >= STORED_FROM && !self.is_replay(job) {
            let noted = self.broker.note_attempts(id, m, epoch, named, attempts);
            if !noted {
                self.fault("claim: attempts refused");
            }
        }
    }

    pub(crate) fn is_replay(&self, job: JobId) -> bool {
        self.jobs[usize::try_from(job.0).expect("jobs are numbered from 0")]
            .1
            .is_some()
    }
}
