//! Runs ticks of a scheduled job, through the real runner and its rows, at the times that the test says.
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use afterwrite::schedule::Job;
//! # use afterwrite::testkit::database::Database;
//! # async fn example(job: Arc<dyn Job>, database: &Database) {
//! use afterwrite::testkit::mishap::Mishap;
//! use afterwrite::testkit::ticks::Ticks;
//!
//! let ticks = Ticks::of(job, database);
//! let at = "2026-07-01T10:00:00Z".parse().unwrap();
//! // The first attempt dies before the commit, the second fails.
//! let run = ticks.run_with(at, [Mishap::die(), Mishap::transient()]).await;
//! assert_eq!((run.status.as_str(), run.attempts), ("done", 3));
//! // Done is done: the same tick is not run once more.
//! assert_eq!(ticks.run(at).await.attempts, 3);
//! # }
//! ```

use std::collections::VecDeque;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::watch;
use uuid::Uuid;

use crate::schedule::clock::OfPostgres;
use crate::schedule::rows::{self, Run};
use crate::schedule::runner::{self, Ended, LOOK_EVERY, Options};
use crate::schedule::timing::{self, ATTEMPTS_MAX, Missed, Schedule};
use crate::schedule::{Context, Error, Job, Planned, Report};
use crate::testkit::database::Database;
use crate::testkit::mishap::{Mishap, Wanted, What};

/// Longer than any wait between two attempts: the test's time passes it at once.
const LATER: TimeDelta = TimeDelta::days(1);

/// A job under test.
pub struct Ticks<'a> {
    job: Arc<Watched>,
    schedule: Schedule,
    database: &'a Database,
}

impl<'a> Ticks<'a> {
    /// A job over a database.
    ///
    /// # Panics
    /// When its schedule cannot be.
    pub fn of(job: Arc<dyn Job>, database: &'a Database) -> Self {
        let schedule = job.schedule().unwrap_or_else(|error| panic!("{error}"));
        Self {
            job: Arc::new(Watched {
                job,
                script: Mutex::default(),
                died: watch::Sender::new(false),
            }),
            schedule,
            database,
        }
    }

    /// Runs a tick until it is done or given up, and answers its row.
    ///
    /// # Panics
    /// When Postgres refuses something.
    pub async fn run(&self, tick: DateTime<Utc>) -> Run {
        self.run_with(tick, []).await
    }

    /// The same, with a mishap for each attempt. They happen after the job's work and before the commit, whatever point they name; of
    /// a time-out, an unreachable or lost database there is none here.
    ///
    /// # Panics
    /// When Postgres refuses something, and for a mishap that there is none of.
    pub async fn run_with(&self, tick: DateTime<Utc>, mishaps: impl IntoIterator<Item = Mishap>) -> Run {
        self.job.plan(mishaps);
        let (pool, name) = (self.database.pool(), self.job.name());
        rows::add(pool, name, &[tick], tick)
            .await
            .expect("a tick can be written down");
        let planned = Planned {
            job: Arc::clone(&self.job) as Arc<dyn Job>,
            schedule: self.schedule.clone(),
        };
        for attempt in 0..=ATTEMPTS_MAX {
            let now = tick + LATER * i32::try_from(attempt).unwrap_or(i32::MAX);
            if self.attempt(&planned, tick, now).await == Some(Ended::Elsewhere) {
                break;
            }
        }
        let run = rows::one(pool, name, tick).await.expect("a run can be read");
        run.expect("the tick was written down")
    }

    /// One attempt by a process of its own; `None` when it died.
    async fn attempt(&self, planned: &Planned, tick: DateTime<Utc>, now: DateTime<Utc>) -> Option<Ended> {
        let options = Options {
            connect: self.database.options(),
            pool: self.database.pool().clone(),
            owner: Uuid::new_v4(),
            clock: Arc::new(OfPostgres),
            look_every: LOOK_EVERY,
            grace: Duration::from_secs(1),
        };
        let (_stop, stopping) = watch::channel(false);
        let planned = planned.clone();
        let process = tokio::spawn(async move { runner::attempt(&planned, &options, tick, now, stopping).await });
        let mut died = self.job.died.subscribe();
        let killing = process.abort_handle();
        // Ends with the process: once it is told to die there is nothing more to hear.
        let death = tokio::spawn(async move {
            if died.wait_for(|died| *died).await.is_ok() {
                killing.abort();
            }
        });
        let ended = process.await;
        death.abort();
        match ended {
            Ok(ended) => Some(ended.expect("an attempt can be made")),
            Err(error) => {
                assert!(error.is_cancelled(), "the attempt ended abnormally: {error}");
                self.job.died.send_replace(false);
                None
            }
        }
    }
}

/// The job under test, with what goes wrong.
struct Watched {
    job: Arc<dyn Job>,
    script: Mutex<VecDeque<Mishap>>,
    died: watch::Sender<bool>,
}

impl Watched {
    fn script(&self) -> MutexGuard<'_, VecDeque<Mishap>> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn plan(&self, mishaps: impl IntoIterator<Item = Mishap>) {
        self.script().extend(mishaps);
    }
}

#[async_trait]
impl Job for Watched {
    fn name(&self) -> &str {
        self.job.name()
    }

    fn schedule(&self) -> Result<Schedule, timing::Error> {
        self.job.schedule()
    }

    fn missed(&self) -> Missed {
        // A test chooses its ticks: none is passed over because a later one is known.
        Missed::Each { max: usize::MAX }
    }

    fn timeout(&self) -> Duration {
        self.job.timeout()
    }

    async fn run(&self, context: &mut Context) -> Result<Report, Error> {
        let next = self.script().pop_front();
        let report = self.job.run(context).await?;
        match next.map(|mishap| mishap.what) {
            None | Some(What::Nothing) => Ok(report),
            Some(What::Transient | What::RetryAfter(_) | What::Permanent) => Err(Wanted.into()),
            Some(What::Panic) => panic!("the test wants a panic"),
            Some(What::Death) => {
                self.died.send_replace(true);
                pending().await
            }
            Some(other @ (What::TimeOut | What::Unreachable | What::LostDatabase)) => {
                panic!("a scheduled job has no such mishap: {other:?}")
            }
        }
    }
}
