//! Tasks of the driver: what they work on, and what follows when they end, however they end.

use std::future::poll_fn;
use std::task::Poll;

use tokio::task::{Id, JoinError};

use crate::engine::attempt::AttemptEnd;
use crate::engine::core::messages::{HandlerIndex, Input, JobId, PartitionId};
use crate::engine::driver::Driver;
use crate::engine::owner::{Recalled, Unparked};
use crate::engine::retry::{Class, Finish};
use crate::event::delivery::{Position, SourceCommand};

/// Ended attempts taken before the loop looks at anything else.
const ENDS_A_TURN_MAX: usize = 256;

/// What a task works on.
#[derive(Debug, Clone, Copy)]
pub(super) enum Task {
    Attempt(JobId),
    Bury(JobId, Class),
    /// Writes letters together; the first stands for all.
    Parking(JobId),
    /// Stores events; the first stands for all.
    Store(JobId),
    /// Works for no job.
    Owner,
}

/// What a task reports.
pub(super) enum Ended {
    Attempt(AttemptEnd),
    Bury(Result<(), String>),
    Stored(Result<(), String>),
    /// Positions are reserved; nothing, when the epoch is over.
    Reserved(Option<(PartitionId, u64, Position)>),
    /// A release is written down, or will not be; named where somebody waits for it.
    Released(Option<(PartitionId, Option<Position>)>),
    Unparked(Unparked),
    /// Letters are on their way back; nothing, when the epoch is over.
    Recalled(Option<(PartitionId, u64, HandlerIndex, Recalled)>),
    /// How far back the ledger is needed was told, or not; it is told again anyway.
    ToldNeed,
}

/// Lets the tasks run that are ready, and goes on behind them.
pub(super) async fn others_first() {
    let mut is_behind = false;
    poll_fn(|context| {
        if std::mem::replace(&mut is_behind, true) {
            return Poll::Ready(());
        }
        // A task that wakes itself goes to the end of its thread's queue, where another thread may take it up. The
        // runtime's own way to yield has it wait for this thread.
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

impl Driver {
    /// Hands the attempts of this turn to the runtime, and says whether there were any. One that is handed over alone wakes
    /// a thread for one short call.
    pub(super) fn begin_attempts(&mut self) -> bool {
        let any = !self.beginning.is_empty();
        let mut beginning = std::mem::take(&mut self.beginning);
        for (job, attempt) in beginning.drain(..) {
            let under_way = self.tasks.spawn(async move { Ended::Attempt(attempt.run().await) });
            self.track(Task::Attempt(job), under_way);
        }
        self.beginning = beginning;
        any
    }

    /// Takes a task that has ended, and those that have ended meanwhile: many short attempts end between two turns.
    pub(super) fn tasks_ended(&mut self, first: Result<(Id, Ended), JoinError>) {
        self.task_ended(first);
        self.ended_meanwhile();
    }

    /// Takes the tasks that have ended, without waiting for any.
    pub(super) fn ended_meanwhile(&mut self) {
        for _ in 1..ENDS_A_TURN_MAX {
            let Some(next) = self.tasks.try_join_next_with_id() else {
                return;
            };
            self.task_ended(next);
        }
    }

    fn task_ended(&mut self, ended: Result<(Id, Ended), JoinError>) {
        let id = match &ended {
            Ok((id, _)) => *id,
            Err(error) => error.id(),
        };
        let Some(task) = self.task_jobs.remove(&id) else { return };
        if let Task::Attempt(job) | Task::Bury(job, _) | Task::Store(job) = task {
            self.under_way.remove(&job);
        }
        match (task, ended) {
            (Task::Attempt(job), Ok((_, Ended::Attempt(end)))) => self.attempt_ended(job, end),
            (Task::Bury(job, class), Ok((_, Ended::Bury(Ok(()))))) => {
                self.counts.letter(class);
                self.note_settled(job);
                self.step(Input::Buried { job });
            }
            (Task::Bury(job, _), Ok((_, Ended::Bury(Err(error))))) => self.bury_failed(job, &error),
            (Task::Parking(first), Ok((_, Ended::Bury(written)))) => self.parking_ended(first, written),
            (Task::Store(job), Ok((_, Ended::Stored(Ok(()))))) => self.step(Input::Stored { job }),
            (Task::Store(job), Ok((_, Ended::Stored(Err(error))))) => self.store_failed(job, &error),
            (_, Ok((_, Ended::Reserved(reserved)))) => {
                if let Some((partition, epoch, to)) = reserved {
                    self.step(Input::Reserved { partition, epoch, to });
                }
            }
            (_, Ok((_, Ended::Released(released)))) => self.release_written(released),
            (_, Ok((_, Ended::Unparked(unparked)))) => self.unparked(unparked),
            (_, Ok((_, Ended::Recalled(recalled)))) => self.recalled(recalled),
            (_, Ok(_)) => {}
            (_, Err(error)) if error.is_panic() => {
                let message = panic_message(error);
                match task {
                    Task::Attempt(job) => self.attempt_ended(
                        job,
                        AttemptEnd {
                            finish: Finish::Panicked,
                            error: Some(format!("the handler {message}")),
                            took: None,
                        },
                    ),
                    Task::Bury(job, _) => self.bury_failed(job, &format!("the writer {message}")),
                    Task::Parking(first) => self.parking_ended(first, Err(format!("the writer {message}"))),
                    Task::Store(job) => self.store_failed(job, &format!("the writer {message}")),
                    Task::Owner => tracing::error!(
                        group = %self.setup.group, error = message, "a task of a partition panicked; the partition goes on with its next owner"
                    ),
                }
            }
            // Abandoned: the core has already forgotten the job.
            (Task::Parking(first), Err(_)) => {
                self.parked_together.remove(&first);
            }
            (_, Err(_)) => {}
        }
    }

    fn store_failed(&mut self, job: JobId, error: &str) {
        tracing::error!(group = %self.setup.group, error, "events behind a buried head could not be stored; they wait and are stored again");
        self.step(Input::StoreFailed { job });
    }

    /// A partition that somebody waits for is let go, and that is written down.
    fn release_written(&mut self, released: Option<(PartitionId, Option<Position>)>) {
        let Some((id, position)) = released else { return };
        self.releases -= 1;
        self.ownership.released(id, position);
        self.leave_when_released();
    }

    /// Leaves once everything that ran has ended and all releases are written down.
    pub(super) fn leave_when_released(&mut self) {
        if self.drained && self.releases == 0 {
            let positions = std::mem::take(&mut self.last_positions);
            self.tell_source(SourceCommand::Leave(positions));
        }
    }

    fn bury_failed(&mut self, job: JobId, error: &str) {
        tracing::error!(group = %self.setup.group, error, "dead letter could not be written; its lane waits and it is written again");
        self.step(Input::BuryFailed { job });
    }

    fn attempt_ended(&mut self, job: JobId, end: AttemptEnd) {
        self.counts.attempt(end.finish);
        if let Some(held) = self.held.get_mut(&job) {
            let handler = usize::from(held.handler.0);
            self.counts.attempt_of(handler, end.finish, end.took);
            if end.finish == Finish::Done
                && let Some(age) = held.age()
            {
                self.counts.age(handler, age);
            }
            if let Some(error) = end.error {
                let name = self.setup.router.name(handler);
                tracing::warn!(handler = name, partition = %held.partition(), offset = held.delivery.position.0, finish = ?end.finish, error, "attempt failed");
                held.failed(error);
            }
        }
        match end.finish {
            Finish::Done | Finish::Skipped => self.note_settled(job),
            _ => self.note_unsettled(job),
        }
        self.step(Input::Finished {
            job,
            finish: end.finish,
        });
    }
}

fn panic_message(error: JoinError) -> String {
    let payload = error.into_panic();
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let message = text.or_else(|| payload.downcast_ref::<String>().cloned());
    let message = message.unwrap_or_else(|| "without a message".to_owned());
    format!("panicked: {message}")
}
