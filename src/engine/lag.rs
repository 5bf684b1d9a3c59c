//! What the driver does about lag: it writes the letters of jobs that wait, many at once, and asks for them again.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::causes::chain;
use crate::engine::core::messages::{Action, HandlerIndex, Input, JobId, ParkedJob, PartitionId};
use crate::engine::driver::Driver;
use crate::engine::jobs::Replay;
use crate::engine::letter::{Letter, Parks};
use crate::engine::owner::{ParkError, Recalled};
use crate::engine::retry::Class;
use crate::engine::tasks::{Ended, Task};
use crate::event::delivery::SourcePartition;

/// Pause before Postgres is asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// A job whose letter is to be written because of lag.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parking {
    pub(super) job: JobId,
    pub(super) attempts: u32,
}

impl Driver {
    /// The source says how much is kept for a partition.
    pub(super) fn lag(&mut self, partition: &SourcePartition, epoch: u64, bytes: u64) {
        let partition = self.ownership.id(partition);
        self.step(Input::Lag {
            partition,
            epoch,
            bytes,
        });
    }

    /// Performs what was decided about lag and the letters of it.
    pub(super) fn perform_of_lag(&mut self, action: Action) {
        match action {
            Action::Recall {
                partition,
                handler,
                letters_max,
            } => self.recall(partition, handler, letters_max),
            Action::Lagging { partition, lags, bytes } => self.lagging(partition, lags, bytes),
            _ => {}
        }
    }

    /// From now on jobs that wait are parked, or no more are.
    fn lagging(&mut self, id: PartitionId, lags: bool, bytes: u64) {
        match lags {
            true => self.lagging.insert(id),
            false => self.lagging.remove(&id),
        };
        let (group, partition) = (&self.setup.group, self.ownership.name(id));
        match lags {
            true => {
                tracing::warn!(
                    %group, %partition, bytes,
                    "too much is kept for this group: its jobs that wait are parked as letters, and released by themselves"
                );
            }
            false => {
                let parked = self.counts.parked;
                tracing::info!(%group, %partition, bytes, parked, "no more jobs are parked: little is kept for this group again");
            }
        }
    }

    /// Hands the letters of this turn over, those of each partition together: they are abandoned together, too.
    pub(super) fn begin_parking(&mut self) {
        let mut parking = std::mem::take(&mut self.parking);
        while let Some(first) = parking.first() {
            let partition = self.held[&first.job].partition().clone();
            let (together, others) = parking
                .into_iter()
                .partition(|parking| *self.held[&parking.job].partition() == partition);
            self.write_parked(together);
            parking = others;
        }
    }

    fn write_parked(&mut self, together: Vec<Parking>) {
        let written = together
            .iter()
            .map(|parking| self.parked_letter(*parking))
            .collect::<Vec<_>>();
        let jobs: Vec<JobId> = together.iter().map(|parking| parking.job).collect();
        let letters = Arc::clone(&self.setup.letters);
        let under_way = self.tasks.spawn(async move {
            let parked = letters.park(&written).await;
            Ended::Bury(parked.map_err(|error| format!("{error}: {}", error.source)))
        });
        self.task_jobs.insert(under_way.id(), Task::Parking(jobs[0]));
        for job in &jobs {
            self.under_way.insert(*job, under_way.clone());
        }
        self.parked_together.insert(jobs[0], jobs);
    }

    fn parked_letter(&mut self, Parking { job, attempts }: Parking) -> Letter {
        let parks = self.lane_of(job).map(|(lane, epoch)| Parks { lane, epoch });
        let held = &self.held[&job];
        let name = self.setup.router.name(usize::from(held.handler.0));
        let letter = held.letter(&self.setup.group, Some(name), Class::Parked, attempts);
        let why = "released by itself: it waited while too much was kept for its group";
        let error = match held.has_failed() {
            true => format!("{why}: {}", letter.error),
            false => why.to_owned(),
        };
        let now = Instant::now();
        tracing::debug!(
            handler = name, partition = %letter.partition, offset = letter.position.0, attempts, letter = letter.id(),
            "parking a job as a letter"
        );
        Letter {
            parks,
            error,
            due_in: held.due_at.map(|due_at| due_at.saturating_duration_since(now)),
            ..letter
        }
    }

    /// Letters that were written together are durable, or none of them is.
    pub(super) fn parking_ended(&mut self, first: JobId, written: Result<(), String>) {
        let jobs = self.parked_together.remove(&first).unwrap_or_default();
        for job in &jobs {
            self.under_way.remove(job);
        }
        match written {
            Ok(()) => {
                for job in jobs {
                    self.counts.parked += 1;
                    self.note_settled(job);
                    self.step(Input::Buried { job });
                }
            }
            Err(error) => {
                tracing::error!(
                    group = %self.setup.group, error, jobs = jobs.len(),
                    "jobs that wait could not be parked as letters; they wait and are parked again"
                );
                for job in jobs {
                    self.step(Input::BuryFailed { job });
                }
            }
        }
    }

    /// Asks for letters that were parked, until Postgres has answered.
    fn recall(&mut self, id: PartitionId, handler: HandlerIndex, letters_max: usize) {
        let Some(((partition, epoch), parked)) = self.owned(id).zip(self.setup.parked.clone()) else {
            return;
        };
        let name = self.setup.router.name(usize::from(handler.0)).to_owned();
        let task = self.tasks.spawn(async move {
            let recalled = loop {
                match parked.recall(&partition, epoch, &name, letters_max).await {
                    Ok(recalled) => break Some(recalled),
                    Err(ParkError::NotOurs) => break None,
                    Err(error) => {
                        tracing::warn!(%partition, error = chain(&error), "parked letters could not be released yet; they wait");
                        tokio::time::sleep(AGAIN).await;
                    }
                }
            };
            Ended::Recalled(recalled.map(|recalled| (id, epoch, handler, recalled)))
        });
        self.task_jobs.insert(task.id(), Task::Owner);
    }

    pub(super) fn recalled(&mut self, told: Option<(PartitionId, u64, HandlerIndex, Recalled)>) {
        if let Some((partition, epoch, handler, Recalled { letters, left })) = told {
            self.step(Input::Recalled {
                partition,
                epoch,
                handler,
                letters,
                left,
            });
        }
    }

    /// What is known of the job of a replay whose letter was parked. Handlers that are not here any more have none.
    pub(super) fn parked_job(&self, replay: &Replay) -> Option<ParkedJob> {
        let attempts = replay.parked_attempts?;
        let handler = self.index_of(&replay.handler)?;
        Some(ParkedJob { handler, attempts })
    }
}
