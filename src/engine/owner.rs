//! What the driver keeps of its partitions beyond this process: reservations, clean releases, and the events of parked lanes.
//!
//! Each of these runs as a task that goes on until Postgres has answered, and reports to the loop. The epoch of the claim
//! fences all of them: a task of an epoch that is over ends without a word.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::causes::chain;
use crate::engine::core::messages::{HandlerIndex, Inheritance, Input, JobId, PartitionId};
use crate::engine::driver::Driver;
use crate::engine::jobs::Held;
use crate::engine::tasks::{Ended, Task};
use crate::event::delivery::{Delivery, Inherited, Position, SourcePartition};
use crate::ledger::parked::Lane;

/// Pause before Postgres is asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// Events of a draining lane that are read at once.
const READ_MAX: u32 = 64;

/// A clean release is worth waiting for only so long: without it the next owner suspects what was handed out.
const RELEASE_MAX: Duration = Duration::from_secs(2);

/// Keeps the events of parked lanes.
///
/// # Contract
/// Everything is fenced by the epoch of the partition's claim. `store` is all or nothing, and changes nothing for what is
/// stored already. `next` deletes what is done, and answers what comes next in order; nothing means that the lane is live.
#[async_trait]
pub trait ParkedEvents: Send + Sync + 'static {
    /// Stores events behind the head of their lane.
    ///
    /// # Errors
    /// When that failed; worth another try.
    async fn store(&self, lane: &Lane, epoch: u64, events: &[Arc<Delivery>]) -> Result<(), ParkError>;

    /// Lets a lane drain, deletes what is done and reads what comes next.
    ///
    /// # Errors
    /// [`ParkError::NotOurs`] when the epoch is over or the lane has another head, otherwise worth another try.
    async fn next(&self, lane: &Lane, epoch: u64, done: &[Position], limit: u32) -> Result<Vec<Delivery>, ParkError>;

    /// Brings letters back as replays that were parked because of lag and whose time has come, the oldest first.
    ///
    /// # Errors
    /// [`ParkError::NotOurs`] when the epoch is over, otherwise worth another try.
    async fn recall(
        &self,
        partition: &SourcePartition,
        epoch: u64,
        handler: &str,
        letters_max: usize,
    ) -> Result<Recalled, ParkError>;
}

/// What became of a question for parked letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recalled {
    /// So many are on their way back.
    pub letters: usize,
    /// Whether there are more, now or when their time has come.
    pub left: bool,
}

/// Events of a parked lane could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum ParkError {
    /// The partition has another owner, or the lane another head.
    #[error("the lane is not this owner's to drain any more")]
    NotOurs,
    /// The store failed.
    #[error("events of a parked lane could not be stored or read")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A lane whose head was mended or given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drain {
    /// The lane.
    pub lane: Lane,
    /// The epoch under which that was found out.
    pub epoch: u64,
}

/// What comes next of a lane.
pub(super) struct Unparked {
    pub(super) partition: PartitionId,
    pub(super) epoch: u64,
    pub(super) handler: HandlerIndex,
    pub(super) key: u64,
    /// `None` when there is no answer: the lane is not ours any more.
    pub(super) events: Option<Vec<Delivery>>,
}

impl Driver {
    /// What the earlier owners left, by the numbers of this process. Handlers that are not here any more leave nothing.
    pub(super) fn inheritance(&self, inherited: Inherited) -> Inheritance {
        let index = |name: &str| self.index_of(name);
        let deaths = inherited.left.iter();
        let attempts = inherited.attempts.iter();
        let parked = inherited.parked.iter();
        let letters = inherited.letters.iter();
        Inheritance {
            suspect_to: inherited.suspect_to,
            deaths: deaths
                .filter_map(|left| Some(((left.position, index(&left.handler)?), left.deaths)))
                .collect(),
            attempts: attempts
                .filter_map(|made| Some(((made.position, index(&made.handler)?), made.attempts)))
                .collect(),
            parked: parked
                .filter_map(|lane| Some(((index(&lane.handler)?, lane.key), lane.draining)))
                .collect(),
            letters: letters
                .filter_map(|letters| Some((index(&letters.handler)?, letters.recalled)))
                .collect(),
        }
    }

    /// The number of a handler in this process.
    pub(super) fn index_of(&self, name: &str) -> Option<HandlerIndex> {
        let mut names = 0..self.setup.router.handlers().len();
        let found = names.find(|index| self.setup.router.name(*index) == name)?;
        Some(HandlerIndex(u16::try_from(found).expect("a group has few handlers")))
    }

    pub(super) fn reserve(&mut self, id: PartitionId, to: Position) {
        let Some((partition, epoch)) = self.owned(id) else {
            return;
        };
        let claims = self.setup.claims.clone();
        let task = self.tasks.spawn(async move {
            let reserved = loop {
                match claims.reserve(&partition, epoch, to).await {
                    Ok(reserved) => break reserved,
                    Err(error) => {
                        tracing::warn!(%partition, error = %error, "events could not be reserved yet; they wait");
                        tokio::time::sleep(AGAIN).await;
                    }
                }
            };
            Ended::Reserved(reserved.then_some((id, epoch, to)))
        });
        self.task_jobs.insert(task.id(), Task::Owner);
    }

    /// Writes down that nothing of the partition runs any more, before the partition is given away.
    pub(super) fn release_cleanly(&mut self, id: PartitionId, position: Option<Position>) {
        let Some((partition, epoch)) = self.owned(id) else {
            return self.ownership.released(id, position);
        };
        let claims = self.setup.claims.clone();
        let awaited = self.stop_deadline.is_some() || self.ownership.is_revoking(id);
        let task = self.tasks.spawn(async move {
            let released = tokio::time::timeout(RELEASE_MAX, claims.released(&partition, epoch)).await;
            if !matches!(released, Ok(Ok(_))) {
                tracing::warn!(%partition, "a clean release could not be written; the next owner suspects what was handed out");
            }
            Ended::Released(awaited.then_some((id, position)))
        });
        self.task_jobs.insert(task.id(), Task::Owner);
        match awaited {
            true => self.releases += 1,
            // It is lost already; whoever has it now must not be taken for its former owner.
            false => self.ownership.released(id, position),
        }
    }

    fn lane(&self, id: PartitionId, handler: HandlerIndex, key: u64) -> Option<(Lane, u64)> {
        let (partition, epoch) = self.owned(id)?;
        let handler = self.setup.router.name(usize::from(handler.0)).to_owned();
        Some((
            Lane {
                partition,
                handler,
                key,
            },
            epoch,
        ))
    }

    /// The lane of a job, and the epoch of its partition.
    pub(super) fn lane_of(&mut self, job: JobId) -> Option<(Lane, u64)> {
        let held = &self.held[&job];
        let (handler, key) = (held.handler, held.key);
        let partition: SourcePartition = held.partition().clone();
        let id = self.ownership.id(&partition);
        self.lane(id, handler, key)
    }

    pub(super) fn park(&mut self, jobs: Vec<JobId>) {
        let first = jobs[0];
        let Some(((lane, epoch), parked)) = self.lane_of(first).zip(self.setup.parked.clone()) else {
            return self.step(Input::StoreFailed { job: first });
        };
        let events: Vec<Arc<Delivery>> = jobs.iter().map(|job| Arc::clone(&self.held[job].delivery)).collect();
        let under_way = self.tasks.spawn(async move {
            let stored = parked.store(&lane, epoch, &events).await;
            Ended::Stored(stored.map_err(|error| chain(&error)))
        });
        self.track(Task::Store(first), under_way);
    }

    pub(super) fn unpark(&mut self, id: PartitionId, handler: HandlerIndex, key: u64, done: Vec<Position>) {
        let Some(((lane, epoch), parked)) = self.lane(id, handler, key).zip(self.setup.parked.clone()) else {
            return;
        };
        let task = self.tasks.spawn(async move {
            let events = loop {
                match parked.next(&lane, epoch, &done, READ_MAX).await {
                    Ok(events) => break Some(events),
                    Err(ParkError::NotOurs) => break None,
                    Err(error) => {
                        let (partition, error) = (&lane.partition, chain(&error));
                        tracing::warn!(%partition, error, "a parked lane could not be drained yet; it waits");
                        tokio::time::sleep(AGAIN).await;
                    }
                }
            };
            Ended::Unparked(Unparked {
                partition: id,
                epoch,
                handler,
                key,
                events,
            })
        });
        self.task_jobs.insert(task.id(), Task::Owner);
    }

    pub(super) fn unparked(&mut self, unparked: Unparked) {
        let Some(events) = unparked.events else { return };
        let mut jobs = Vec::with_capacity(events.len());
        for delivery in events {
            let position = delivery.position;
            let held = Held::of(Arc::new(delivery), unparked.handler, unparked.key);
            jobs.push((self.keep(held), position));
        }
        self.step(Input::Unparked {
            partition: unparked.partition,
            epoch: unparked.epoch,
            handler: unparked.handler,
            key: unparked.key,
            jobs,
        });
    }

    /// The head of a lane has ended: its followers may go on.
    pub(super) fn drain(&mut self, drain: Drain) {
        let partition = self.ownership.id(&drain.lane.partition);
        if let Some(handler) = self.index_of(&drain.lane.handler) {
            self.step(Input::Drain {
                partition,
                epoch: drain.epoch,
                handler,
                key: drain.lane.key,
            });
        }
    }
}
