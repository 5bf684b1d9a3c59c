//! Work that the clock wakes: scheduled jobs, each run exactly once per tick over any number of processes.
//!
//! A tick is a time at which a job is due, computed by everybody alike ([`timing`]). It has one row in
//! `afterwrite.schedule_runs`; whoever holds the job's lock works on it, and what a job writes in its transaction commits
//! together with the row's `done`. The lock is held by a database session: when its process dies, Postgres lets it go, the
//! transaction is rolled back, and another process takes the run over.
//!
//! A job of your own is an implementation of [`Job`], handed to [`crate::app::serve_with_jobs`]:
//!
//! ```
//! use afterwrite::schedule::timing::{self, Missed, Schedule};
//! use afterwrite::schedule::{Context, Error, Job, Report};
//!
//! struct Digest;
//!
//! #[async_trait::async_trait]
//! impl Job for Digest {
//!     fn name(&self) -> &str {
//!         "digest"
//!     }
//!
//!     fn schedule(&self) -> Result<Schedule, timing::Error> {
//!         Schedule::cron("0 9 * * MON", "Europe/Berlin")
//!     }
//!
//!     fn missed(&self) -> Missed {
//!         Missed::Each { max: 10 }
//!     }
//!
//!     async fn run(&self, context: &mut Context) -> Result<Report, Error> {
//!         let week_until = context.tick();
//!         let written = sqlx::query("INSERT INTO digests (week_until) VALUES ($1)")
//!             .bind(week_until)
//!             .execute(context.transaction().await?)
//!             .await?;
//!         Ok(Report::from([("digests", written.rows_affected())]))
//!     }
//! }
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use self::timing::{Missed, Schedule};

pub mod timing;

pub mod clock;

mod context;

pub mod rows;

pub mod runner;

pub mod analytics;

pub mod fraud_scan;

pub mod webhook_retries;

pub mod position_notices;

pub mod reward_windows;

pub mod cleanup;

pub mod reconcile;

#[doc(inline)]
pub use self::context::Context;

/// What a run counted, by name: kept with the run, and shown by `afterwrite schedule list`.
pub type Report = BTreeMap<&'static str, u64>;

/// Why a run failed. Its text is kept and logged, so it must hold no cell values, addresses or secrets.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// A scheduled job.
///
/// # Contract
/// - Repetition: a tick is run to its end once. A run that failed, or whose process died, is run again from its beginning, with
///   growing waits, [`timing::ATTEMPTS_MAX`] times at most. What it wrote through [`Context::transaction`] was rolled back;
///   what it did through [`Context::pool`] or elsewhere was not, and must be such that doing it again changes nothing.
/// - Concurrency: one run of a job at a time, over all processes. Runs of different jobs overlap.
/// - Order: ticks are run oldest first, but a tick that failed and waits does not hold the later ones back.
/// - Cancellation: when [`Job::timeout`] has passed, or the process was told to stop and the grace is over, the run is dropped at
///   its next `.await`. A stop is no failed attempt.
#[async_trait]
pub trait Job: Send + Sync + 'static {
    /// Its name, by which runs are kept: never change it, or the job begins anew.
    fn name(&self) -> &str;

    /// When it runs, unless `[schedule.jobs.NAME]` says otherwise.
    ///
    /// # Errors
    /// When what it was made with is no schedule; then nothing is started.
    fn schedule(&self) -> Result<Schedule, timing::Error>;

    /// What becomes of ticks that passed while nobody ran it.
    fn missed(&self) -> Missed {
        Missed::Last
    }

    /// How long one attempt may take; also the longest statement of its sessions.
    fn timeout(&self) -> Duration {
        Duration::from_secs(600)
    }

    /// Does the work of one tick.
    ///
    /// # Errors
    /// Whatever kept it from being done: it is tried again later.
    async fn run(&self, context: &mut Context) -> Result<Report, Error>;
}

/// A job with the schedule it has here.
#[derive(Clone)]
pub struct Planned {
    /// The job.
    pub job: Arc<dyn Job>,
    /// When it runs.
    pub schedule: Schedule,
}

impl std::fmt::Debug for Planned {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} ({})", self.job.name(), self.schedule)
    }
}
