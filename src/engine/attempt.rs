//! One attempt: the handler's call, its time-out, and what its end means.

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::Instant;

use crate::engine::retry::Finish;
use crate::event::change::ChangeEvent;
use crate::handler::{Context, Fault, Handler, HandlerError, Outcome, Resources};
use crate::ledger::claims::{Claims, OwnedJob};
use crate::ledger::transaction::Mode;
use crate::traces::AttemptSpan;

/// How an attempt ended, and the error's chain when it failed.
#[derive(Debug)]
pub(crate) struct AttemptEnd {
    pub(crate) finish: Finish,
    pub(crate) error: Option<String>,
    /// How long it took; nothing where that was not seen.
    pub(crate) took: Option<Duration>,
}

impl AttemptEnd {
    /// The end of an attempt at a record that could be decoded once.
    pub(crate) fn undecodable() -> Self {
        Self {
            finish: Finish::Permanent,
            error: Some(
                "the stored record cannot be decoded any more: is its schema still in the registry?".to_owned(),
            ),
            took: None,
        }
    }
}

/// What an attempt needs.
pub(crate) struct Attempt {
    pub(crate) resources: Arc<Resources>,
    pub(crate) handler: Arc<dyn Handler>,
    pub(crate) name: Arc<str>,
    pub(crate) events: Vec<Arc<ChangeEvent>>,
    pub(crate) number: u32,
    pub(crate) mode: Mode,
    pub(crate) timeout: Duration,
    /// What has to be committed before it begins.
    pub(crate) mark: Option<MarkFirst>,
    /// What is told of it to whoever traces.
    pub(crate) span: Option<Box<AttemptSpan>>,
}

/// The mark of an attempt that may kill the process.
pub(crate) struct MarkFirst {
    pub(crate) claims: Claims,
    pub(crate) job: OwnedJob,
    /// Set for a job that has to run alone: no other such job of this process, of whatever group, runs meanwhile.
    pub(crate) alone: Option<Arc<Mutex<()>>>,
}

impl MarkFirst {
    /// Commits the mark; answers the permission to run alone, where that is needed.
    async fn commit(self) -> Result<Option<OwnedMutexGuard<()>>, HandlerError> {
        let is_alone = self.alone.is_some();
        let permission = match self.alone {
            Some(alone) => Some(alone.lock_owned().await),
            None => None,
        };
        let OwnedJob {
            partition,
            epoch,
            position,
            handler,
        } = &self.job;
        match self.claims.mark(partition, *epoch, *position, handler, is_alone).await {
            Ok(true) => Ok(permission),
            Ok(false) => Err(HandlerError::unreachable("the partition's claim", Deposed)),
            Err(error) => Err(HandlerError::unreachable("postgres", error)),
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("another process owns the partition by now")]
struct Deposed;

impl Attempt {
    /// Runs the handler and commits its transaction, within the time-out. A panic passes through to the caller.
    pub(crate) async fn run(mut self) -> AttemptEnd {
        let began = Instant::now();
        let span = self.span.take();
        let (finish, error) = self.within_timeout().await;
        if let Some(span) = span {
            span.ended(finish.as_str(), error.is_some());
        }
        AttemptEnd {
            finish,
            error,
            took: Some(began.elapsed()),
        }
    }

    async fn within_timeout(mut self) -> (Finish, Option<String>) {
        let timeout = self.timeout;
        let permission = match self.mark.take() {
            // Rare and large: the future of every attempt would have room for it.
            Some(mark) => Box::pin(mark.commit()).await,
            None => Ok(None),
        };
        let _alone = match permission {
            Ok(permission) => permission,
            Err(error) => return failed(&error),
        };
        let mut work = pin!(self.handle_and_commit());
        // One that never waits needs no timer.
        let ended = match futures::poll!(work.as_mut()) {
            Poll::Ready(ended) => Ok(ended),
            Poll::Pending => tokio::time::timeout(timeout, work).await,
        };
        match ended {
            Ok(Ok(outcome)) => (outcome_finish(&outcome), None),
            Ok(Err(error)) => failed(&error),
            Err(_) => {
                let error = format!("the attempt did not end within {} ms", timeout.as_millis());
                (Finish::TimedOut, Some(error))
            }
        }
    }

    async fn handle_and_commit(self) -> Result<Outcome, HandlerError> {
        let context = Context::named(
            self.resources,
            self.name,
            &*self.handler,
            &self.events,
            self.number,
            self.mode,
        );
        context.handle_and_commit(&*self.handler, &self.events).await
    }
}

fn failed(error: &HandlerError) -> (Finish, Option<String>) {
    (fault_finish(&error.fault), Some(format!("{error}: {}", error.chain())))
}

fn outcome_finish(outcome: &Outcome) -> Finish {
    match outcome {
        Outcome::Done => Finish::Done,
        Outcome::Skipped(_) => Finish::Skipped,
        Outcome::Snooze(delay) => Finish::Snooze(*delay),
    }
}

fn fault_finish(fault: &Fault) -> Finish {
    match fault {
        Fault::Transient { after } => Finish::Transient(*after),
        Fault::Permanent => Finish::Permanent,
        Fault::Expired => Finish::Expired,
        Fault::Unreachable { .. } => Finish::Unreachable,
    }
}
