//! What a run has: its tick, its transaction, and connections beside it.

use chrono::{DateTime, Utc};
use sqlx::postgres::{PgConnection, PgPool};
use tokio::sync::watch;

use super::rows::{self, Claim};
use super::timing::Schedule;

/// What a scheduled job's run has. Dropped before its end, it leaves nothing of its transaction behind.
#[derive(Debug)]
pub struct Context {
    pub(super) claim: Claim,
    pub(super) schedule: Schedule,
    pub(super) now: DateTime<Utc>,
    pub(super) session: PgConnection,
    pub(super) pool: PgPool,
    pub(super) stop: watch::Receiver<bool>,
    pub(super) is_open: bool,
}

impl Context {
    /// The time this run is for. It stays the same in every attempt, however late.
    pub fn tick(&self) -> DateTime<Utc> {
        self.claim.tick
    }

    /// The time at which this attempt began.
    pub fn now(&self) -> DateTime<Utc> {
        self.now
    }

    /// The newest tick before this one that was run to its end.
    pub fn previous(&self) -> Option<DateTime<Utc>> {
        self.claim.previous
    }

    /// The tick that the schedule has `steps` before this one, whether it was run or not.
    pub fn steps_before(&self, steps: usize) -> Option<DateTime<Utc>> {
        (0..steps).try_fold(self.claim.tick, |tick, _| self.schedule.before(tick))
    }

    /// Which attempt this is, from 1 on.
    pub fn attempt(&self) -> u32 {
        self.claim.attempt
    }

    /// Whether the process is about to stop: a run in steps ends after the one it is in, and is not done then.
    pub fn is_stopping(&self) -> bool {
        *self.stop.borrow()
    }

    /// Connections for work in transactions of its own: pages that may be done again, and effects, which must not be made
    /// while a transaction is open.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// The connection inside of the run's transaction, which is opened by the first call: what is written on it commits
    /// together with the end of the run, or not at all.
    ///
    /// # Errors
    /// Whatever Postgres answered, and that the run is another process's by now.
    pub async fn transaction(&mut self) -> Result<&mut PgConnection, sqlx::Error> {
        if !self.is_open {
            sqlx::raw_sql("BEGIN").execute(&mut self.session).await?;
            self.is_open = true;
            rows::hold(&mut self.session, &self.claim).await?;
        }
        Ok(&mut self.session)
    }
}
