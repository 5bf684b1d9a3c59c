//! One lane: attempts one after the other, each taken back.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::session::{Rows, Session};
use super::{Decision, Seen, Told, Verdict};
use crate::event::change::ChangeEvent;
use crate::handler::{Context, Fault, Handler, HandlerError, Outcome, Resources};
use crate::ledger::transaction::Mode;
use crate::ledger::would_call::WouldCall;

/// How long a lane waits for something every attempt needs, at first and at most.
const AWAY_FIRST: Duration = Duration::from_millis(200);
const AWAY_MAX: Duration = Duration::from_secs(10);

/// What one lane works with.
pub(super) struct Lane {
    pub(super) handler: Arc<dyn Handler>,
    pub(super) name: Arc<str>,
    pub(super) resources: Arc<Resources>,
    pub(super) session: Session,
    pub(super) calls: WouldCall,
    pub(super) timeout: Duration,
}

/// What every attempt needs does not answer.
struct Away {
    what: &'static str,
    error: String,
}

impl Lane {
    /// Decides about what comes, until there is no more or nobody listens.
    pub(super) async fn run(self, mut coming: mpsc::Receiver<Seen>, told: mpsc::Sender<Told>) {
        while let Some(seen) = coming.recv().await {
            let decision = tokio::select! {
                decision = self.decide(&seen.event) => decision,
                () = told.closed() => return,
            };
            if told.send(Told::Decided(seen, decision)).await.is_err() {
                return;
            }
        }
    }

    /// Tries until what every attempt needs answers.
    async fn decide(&self, event: &Arc<ChangeEvent>) -> Decision {
        let mut wait = AWAY_FIRST;
        loop {
            let began = Instant::now();
            match self.attempt(event).await {
                Ok((verdict, rows)) => {
                    let succeeded = matches!(verdict, Verdict::Done | Verdict::Skipped { .. });
                    return Decision {
                        handler: Arc::clone(&self.name),
                        verdict,
                        calls: self.calls.end(succeeded),
                        rows,
                        took_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
                    };
                }
                Err(Away { what, error }) => {
                    self.calls.end(false);
                    tracing::warn!(handler = %self.name, cause = what, error, "the shadow waits for what does not answer");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(AWAY_MAX);
                }
            }
        }
    }

    async fn attempt(&self, event: &Arc<ChangeEvent>) -> Result<(Verdict, Vec<Rows>), Away> {
        let before = self.session.begin().await.map_err(postgres_is_away)?;
        let work = AssertUnwindSafe(self.work(event)).catch_unwind();
        let verdict = match tokio::time::timeout(self.timeout, work).await {
            Ok(Ok(Ok(outcome))) => Ok(verdict_of(&outcome)),
            Ok(Ok(Err(error))) => failed(&error),
            Ok(Err(_)) => Ok(failure(
                "panic",
                "the handler panicked; its message is in the log above",
            )),
            Err(_) => {
                let said = format!("the attempt did not end within {} ms", self.timeout.as_millis());
                Ok(failure("timeout", &said))
            }
        };
        let rows = match &verdict {
            Ok(Verdict::Done | Verdict::Skipped { .. }) => self.session.written(&before).await,
            _ => Ok(Vec::new()),
        };
        // Also where the rows could not be counted.
        let taken_back = self.session.take_back().await;
        let verdict = verdict?;
        taken_back.map_err(postgres_is_away)?;
        Ok((verdict, rows.map_err(postgres_is_away)?))
    }

    /// What the engine does in an attempt. What is committed there is a savepoint here.
    async fn work(&self, event: &Arc<ChangeEvent>) -> Result<Outcome, HandlerError> {
        let events = [Arc::clone(event)];
        let (resources, name) = (Arc::clone(&self.resources), Arc::clone(&self.name));
        let context = Context::named(resources, name, &*self.handler, &events, 1, Mode::Deliver);
        context.handle_and_commit(&*self.handler, &events).await
    }
}

fn verdict_of(outcome: &Outcome) -> Verdict {
    match outcome {
        Outcome::Done => Verdict::Done,
        Outcome::Skipped(reason) => Verdict::Skipped { reason },
        Outcome::Snooze(delay) => Verdict::Later {
            after_ms: u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
        },
    }
}

fn failed(error: &HandlerError) -> Result<Verdict, Away> {
    let said = format!("{error}: {}", error.chain());
    match error.fault {
        Fault::Unreachable { what } => Err(Away { what, error: said }),
        Fault::Transient { .. } => Ok(failure("transient", &said)),
        Fault::Permanent => Ok(failure("permanent", &said)),
        Fault::Expired => Ok(failure("expired", &said)),
    }
}

fn failure(class: &'static str, error: &str) -> Verdict {
    Verdict::Failed {
        class,
        error: error.to_owned(),
    }
}

fn postgres_is_away(error: sqlx::Error) -> Away {
    Away {
        what: "postgres",
        error: HandlerError::from(error).chain(),
    }
}
