//! The handler under test as the engine sees it: the same handler, with notes taken of each call, and a mishap where the script
//! has one.

use std::collections::VecDeque;
use std::future::pending;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures::FutureExt;
use sqlx::postgres::PgPool;
use tokio::sync::watch;

use crate::event::change::ChangeEvent;
use crate::event::id::EventId;
use crate::handler::points::{self, Point, Watch};
use crate::handler::{Context, Handler, HandlerError, Outcome, Spec};
use crate::testkit::mishap::{Mishap, What};
use crate::testkit::report::{Call, CallEnd};

/// The name of the sessions in which handlers under test work.
pub(super) const SESSIONS: &str = "handler under test";

/// What is known of the calls of a handler, over all lives of its process.
#[derive(Debug)]
pub(super) struct Notes {
    pool: PgPool,
    died: watch::Sender<bool>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    script: VecDeque<Mishap>,
    calls: Vec<Call>,
}

impl Notes {
    /// `pool` reaches the database with rights to end the sessions of the handler.
    pub(super) fn new(pool: PgPool) -> Self {
        Self {
            pool,
            died: watch::Sender::new(false),
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds to the script.
    pub(super) fn plan(&self, mishaps: impl IntoIterator<Item = Mishap>) {
        self.state().script.extend(mishaps);
    }

    /// Whether a time-out is still to come.
    pub(super) fn has_time_out(&self) -> bool {
        self.state().script.iter().any(|mishap| mishap.what == What::TimeOut)
    }

    /// The calls so far, which are forgotten.
    pub(super) fn take(&self) -> Vec<Call> {
        std::mem::take(&mut self.state().calls)
    }

    /// The calls so far.
    pub(super) fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    /// Becomes true when the process is to die.
    pub(super) fn death(&self) -> watch::Receiver<bool> {
        self.died.subscribe()
    }

    /// A process has died; the next one is alive.
    pub(super) fn buried(&self) {
        for call in &mut self.state().calls {
            call.ended.get_or_insert(CallEnd::Died);
        }
        self.died.send_replace(false);
    }

    fn begin(&self, context: &Context, events: &[Arc<ChangeEvent>]) -> (usize, Option<Mishap>) {
        let mut state = self.state();
        let mishap = state.script.pop_front();
        state.calls.push(Call {
            attempt: context.attempt(),
            replayed: context.replayed(),
            events: events.iter().map(|event| event.id()).collect::<Vec<Option<EventId>>>(),
            points: Vec::new(),
            ended: None,
        });
        (state.calls.len() - 1, mishap)
    }

    fn end(&self, call: usize, end: CallEnd) {
        if let Some(call) = self.state().calls.get_mut(call) {
            call.ended.get_or_insert(end);
        }
    }

    async fn end_sessions(&self) {
        let ended = sqlx::query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND application_name = $1 AND xact_start IS NOT NULL",
        )
        .bind(SESSIONS)
        .execute(&self.pool)
        .await;
        ended.expect("the test's own session may end those of the handler");
    }
}

/// Why an attempt was unwound at a point at which it could not wait.
enum Unwound {
    Death,
    TimeOut,
    Failure(HandlerError),
}

/// One attempt that is watched.
struct Attempt {
    notes: Arc<Notes>,
    call: usize,
    mishap: Mutex<Option<Mishap>>,
}

impl Attempt {
    /// The mishap that happens at this point, if there is one; it happens once.
    fn due(&self, point: &Point) -> Option<Mishap> {
        let step = match self.notes.state().calls.get_mut(self.call) {
            Some(call) => {
                call.points.push(point.clone());
                call.points.len() - 1
            }
            None => return None,
        };
        let mut mishap = self.mishap.lock().unwrap_or_else(PoisonError::into_inner);
        mishap.take_if(|mishap| mishap.is_due(step, point))
    }
}

#[async_trait]
impl Watch for Attempt {
    async fn reached(&self, point: Point) -> Result<(), HandlerError> {
        let Some(mishap) = self.due(&point) else {
            return Ok(());
        };
        if let Some(error) = mishap.error() {
            return Err(error);
        }
        match mishap.what {
            What::Death => {
                self.notes.died.send_replace(true);
                pending().await
            }
            What::TimeOut => pending().await,
            What::Panic => panic!("the test wants a panic"),
            What::LostDatabase => self.notes.end_sessions().await,
            What::Nothing | What::Transient | What::RetryAfter(_) | What::Permanent | What::Unreachable => {}
        }
        Ok(())
    }

    fn passed(&self, point: Point) {
        let Some(mishap) = self.due(&point) else { return };
        let unwound = match (mishap.error(), mishap.what) {
            (Some(error), _) => Unwound::Failure(error),
            (None, What::Death) => Unwound::Death,
            (None, What::TimeOut) => Unwound::TimeOut,
            (None, What::Panic) => panic!("the test wants a panic"),
            (None, _) => return,
        };
        // No panic: nothing is printed, and the frame below catches it.
        resume_unwind(Box::new(unwound));
    }
}

/// Whatever was not said of a call when its future is dropped: its time was over.
struct CutOff<'a>(&'a Notes, usize);

impl Drop for CutOff<'_> {
    fn drop(&mut self) {
        // Where the process dies, whoever buries it has said so by now.
        self.0.end(self.1, CallEnd::TimedOut);
    }
}

/// The handler under test.
pub(super) struct Watched {
    pub(super) handler: Arc<dyn Handler>,
    pub(super) notes: Arc<Notes>,
}

#[async_trait]
impl Handler for Watched {
    fn spec(&self) -> Spec {
        self.handler.spec()
    }

    fn wants(&self, event: &ChangeEvent) -> bool {
        self.handler.wants(event)
    }

    fn exclusive(&self, event: &ChangeEvent) -> Option<String> {
        self.handler.exclusive(event)
    }

    async fn handle(&self, context: &mut Context, events: &[Arc<ChangeEvent>]) -> Result<Outcome, HandlerError> {
        let (call, mishap) = self.notes.begin(context, events);
        let _cut_off = CutOff(&self.notes, call);
        let attempt = Arc::new(Attempt {
            notes: Arc::clone(&self.notes),
            call,
            mishap: Mutex::new(mishap),
        });
        let watch = Arc::clone(&attempt);
        let work = async {
            watch.reached(Point::Called).await?;
            let outcome = self.handler.handle(&mut *context, events).await?;
            watch.reached(Point::Returned).await?;
            Ok(outcome)
        };
        let ended = AssertUnwindSafe(points::watched(attempt, work)).catch_unwind().await;
        let ended = match ended {
            Ok(ended) => ended,
            Err(payload) => match payload.downcast::<Unwound>() {
                Ok(unwound) => match *unwound {
                    Unwound::Death => {
                        self.notes.died.send_replace(true);
                        pending().await
                    }
                    Unwound::TimeOut => pending().await,
                    Unwound::Failure(error) => Err(error),
                },
                Err(panic) => {
                    self.notes.end(call, CallEnd::Panicked);
                    resume_unwind(panic)
                }
            },
        };
        self.notes.end(call, CallEnd::of(&ended, context.found_all_done()));
        ended
    }
}
