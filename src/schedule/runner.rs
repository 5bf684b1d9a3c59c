//! Looks which ticks are due, and runs them: one task for each job.
//!
//! Every process looks; who works is decided by the job's lock ([`super::rows`]). A look costs two short questions, and the
//! next one is when the next tick is due, or [`LOOK_EVERY`] later, so that a run whose process died does not wait for long.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::FutureExt;
use sqlx::Connection;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool};
use tokio::sync::watch;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::clock::Clock;
use super::rows::{self, End};
use super::timing::{self, Missed, Verdict};
use super::{Context, Error, Planned, Report};
use crate::causes::chain;

/// The longest time without a look.
pub const LOOK_EVERY: Duration = Duration::from_secs(10);

/// How long after a failed look the next one is.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// From this attempt on a failure is somebody's business: it healed neither in seconds nor in minutes.
const ALARM_FROM: u32 = 5;

/// How long Postgres waits for a process that says nothing, so that a run of a host that vanished is free soon.
const KEEPALIVES: [(&str, &str); 3] = [
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
];

/// How long recording an end may take, on either way.
const RECORD_MAX: Duration = Duration::from_secs(5);

/// Longest error that is kept.
const ERROR_CHARS_MAX: usize = 2_000;

/// What the scheduler works with.
#[derive(Clone)]
pub struct Options {
    /// How a run's own session is opened.
    pub connect: PgConnectOptions,
    /// Connections for looks and for the work of jobs, reserved for them.
    pub pool: PgPool,
    /// This process.
    pub owner: Uuid,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// The longest time without a look.
    pub look_every: Duration,
    /// How long a run may go on after the process was told to stop.
    pub grace: Duration,
}

/// What this process has done of a job, and what is open of it anywhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// Runs that this process brought to their end.
    pub done: u64,
    /// Attempts of this process that failed.
    pub failed: u64,
    /// The oldest tick that is neither done nor given up, of whatever process.
    pub oldest_open: Option<DateTime<Utc>>,
}

/// Standings by name of the job.
pub type Standings = BTreeMap<String, Standing>;

/// Runs jobs.
pub struct Scheduler {
    jobs: Vec<Planned>,
    options: Options,
    told: Arc<watch::Sender<Standings>>,
}

impl std::fmt::Debug for Scheduler {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Scheduler")
            .field("jobs", &self.jobs)
            .finish_non_exhaustive()
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The run is done.
    Done,
    /// It failed; another attempt may follow.
    Failed,
    /// The process stops.
    Stopped,
    /// There was nothing to do: another process works on the job, or has done it.
    Elsewhere,
}

#[derive(Debug, thiserror::Error)]
enum AttemptError {
    #[error("the run did not end within {} s", .0.as_secs())]
    TooLong(Duration),
    #[error("the run panicked")]
    Panicked,
}

impl Scheduler {
    /// A scheduler of these jobs.
    pub fn new(jobs: Vec<Planned>, options: Options) -> Self {
        let standings = jobs
            .iter()
            .map(|planned| (planned.job.name().to_owned(), Standing::default()));
        Self {
            told: Arc::new(watch::Sender::new(standings.collect())),
            jobs,
            options,
        }
    }

    /// The jobs and when they run.
    pub fn planned(&self) -> &[Planned] {
        &self.jobs
    }

    /// Connections for looks and for the work of jobs.
    pub fn pool(&self) -> &PgPool {
        &self.options.pool
    }

    /// What it tells of itself.
    pub fn standings(&self) -> watch::Receiver<Standings> {
        self.told.subscribe()
    }

    /// Runs what is due until `stop` becomes true and what runs has ended, or its grace.
    pub async fn run(self, stop: watch::Receiver<bool>) {
        let mut loops = JoinSet::new();
        for planned in self.jobs {
            let job = OneJob {
                planned,
                options: self.options.clone(),
                told: Arc::clone(&self.told),
                stop: stop.clone(),
            };
            loops.spawn(job.run());
        }
        while let Some(ended) = loops.join_next().await {
            if let Err(error) = ended {
                tracing::error!(error = %error, "the task of a scheduled job ended abnormally; it is run no more by this process");
            }
        }
    }
}

/// One job of a process.
struct OneJob {
    planned: Planned,
    options: Options,
    told: Arc<watch::Sender<Standings>>,
    stop: watch::Receiver<bool>,
}

impl OneJob {
    async fn run(self) {
        let mut stop = self.stop.clone();
        loop {
            let wait = match self.look().await {
                Ok(wait) => wait,
                Err(error) => {
                    let job = self.planned.job.name();
                    tracing::warn!(job, error = %error, "scheduled work could not be looked for yet");
                    LOOK_AGAIN
                }
            };
            tokio::select! {
                _ = stop.wait_for(|stopping| *stopping) => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Writes down what is due, does one run of it, and answers when to look again.
    async fn look(&self) -> Result<Duration, sqlx::Error> {
        let (options, name) = (&self.options, self.planned.job.name());
        let now = options.clock.now(&options.pool).await?;
        let known = rows::known(&options.pool, name).await?;
        self.tell(|standing| standing.oldest_open = known.oldest_open);
        let due = timing::due(&self.planned.schedule, known.last, now, self.planned.job.missed());
        if !due.ticks.is_empty() {
            rows::add(&options.pool, name, &due.ticks, now).await?;
        }
        if due.passed_over {
            tracing::info!(job = name, first = %due.ticks[0], "ticks before this one were missed and are passed over");
        }
        if let Some(tick) = rows::ready(&options.pool, name, now, self.planned.job.missed()).await? {
            let ended = self.attempt(tick, now).await?;
            self.count(ended);
            if ended != Ended::Elsewhere {
                // Others may be due.
                return Ok(Duration::ZERO);
            }
        }
        let newest = due
            .ticks
            .last()
            .copied()
            .or(known.last)
            .map_or(now, |last| last.max(now));
        let next = self.planned.schedule.after(newest);
        let until_next = next.and_then(|next| (next - now).to_std().ok());
        Ok(until_next.unwrap_or(options.look_every).min(options.look_every))
    }

    fn tell(&self, change: impl FnOnce(&mut Standing)) {
        self.told.send_if_modified(|standings| {
            let standing = standings.entry(self.planned.job.name().to_owned()).or_default();
            let before = standing.clone();
            change(standing);
            *standing != before
        });
    }

    fn count(&self, ended: Ended) {
        self.tell(|standing| match ended {
            Ended::Done => standing.done += 1,
            Ended::Failed => standing.failed += 1,
            Ended::Stopped | Ended::Elsewhere => {}
        });
    }

    async fn attempt(&self, tick: DateTime<Utc>, now: DateTime<Utc>) -> Result<Ended, sqlx::Error> {
        attempt(&self.planned, &self.options, tick, now, self.stop.clone()).await
    }
}

/// Makes one attempt at a run, if nobody else is at the job. `stop` ends it, after the grace.
///
/// # Errors
/// Whatever Postgres answered before the attempt began; what happens in it is recorded with the run.
pub async fn attempt(
    planned: &Planned,
    options: &Options,
    tick: DateTime<Utc>,
    now: DateTime<Utc>,
    stop: watch::Receiver<bool>,
) -> Result<Ended, sqlx::Error> {
    let name = planned.job.name();
    let mut session = PgConnection::connect_with(&session_of(&options.connect, planned.job.timeout())).await?;
    if !rows::lock(&mut session, name).await? {
        drop(session);
        return Ok(Ended::Elsewhere);
    }
    if planned.job.missed() == Missed::Last {
        rows::pass_over(&mut session, name).await?;
    }
    let claimed = rows::claim(&mut session, name, tick, now, options.owner, timing::wait_after_death).await?;
    let Some(claim) = claimed else {
        leave(session, name).await;
        return Ok(Ended::Elsewhere);
    };
    let mut context = Context {
        claim,
        schedule: planned.schedule.clone(),
        now,
        session,
        pool: options.pool.clone(),
        stop: stop.clone(),
        is_open: false,
    };
    let ended = tokio::select! {
        () = grace_over(stop, options.grace) => None,
        ended = work(planned, &mut context) => Some(ended),
    };
    Ok(conclude(options, context, ended).await)
}

/// The job's part, and the end of its transaction.
async fn work(planned: &Planned, context: &mut Context) -> Result<Report, Error> {
    let limit = planned.job.timeout();
    let running = AssertUnwindSafe(planned.job.run(context)).catch_unwind();
    let report = match tokio::time::timeout(limit, running).await {
        Ok(Ok(report)) => report?,
        Ok(Err(_)) => return Err(AttemptError::Panicked.into()),
        Err(_) => return Err(AttemptError::TooLong(limit).into()),
    };
    context.transaction().await?;
    rows::end(&mut context.session, &context.claim, End::Done(&report)).await?;
    sqlx::raw_sql("COMMIT").execute(&mut context.session).await?;
    Ok(report)
}

/// Records how an attempt ended; `None`: it was stopped in the middle.
async fn conclude(options: &Options, mut context: Context, ended: Option<Result<Report, Error>>) -> Ended {
    let (attempts, tick, now) = (context.claim.attempt, context.claim.tick, context.now);
    let job = context.claim.job.clone();
    let error = match ended {
        Some(Ok(report)) => {
            tracing::debug!(job, %tick, attempts, ?report, "scheduled run done");
            leave(context.session, &job).await;
            return Ended::Done;
        }
        Some(Err(error)) if !context.is_stopping() => error,
        // Whatever it says: it was in the way of a stop.
        Some(Err(_)) | None => {
            record(options, &mut context, End::Stopped { now }).await;
            leave(context.session, &job).await;
            return Ended::Stopped;
        }
    };
    let text: String = chain(&*error).chars().take(ERROR_CHARS_MAX).collect();
    let end = match timing::verdict(attempts) {
        Verdict::Failed => {
            tracing::error!(job, %tick, attempts, error = text, "scheduled run failed for good; later ones go on");
            End::Failed { error: &text }
        }
        Verdict::Again(wait) => {
            let wait_s = wait.as_secs();
            if attempts >= ALARM_FROM {
                tracing::error!(job, %tick, attempts, wait_s, error = text, "scheduled run keeps failing; it is tried again");
            } else {
                tracing::warn!(job, %tick, attempts, wait_s, error = text, "scheduled run failed; it is tried again");
            }
            let next = now + wait;
            End::Retrying { error: &text, next }
        }
    };
    record(options, &mut context, end).await;
    leave(context.session, &job).await;
    Ended::Failed
}

/// Takes back what the attempt wrote, and writes down how it ended: while the lock is held, so that nobody begins anew in
/// between. Over another connection where that one is of no use any more.
async fn record(options: &Options, context: &mut Context, end: End<'_>) {
    let Context { session, claim, .. } = context;
    let here = async {
        sqlx::raw_sql("ROLLBACK").execute(&mut *session).await?;
        rows::end(session, claim, end).await
    };
    if let Ok(Ok(())) = tokio::time::timeout(RECORD_MAX, here).await {
        return;
    }
    let elsewhere = async {
        let mut connection = options.pool.acquire().await?;
        rows::end(&mut connection, claim, end).await
    };
    let failure = match tokio::time::timeout(RECORD_MAX, elsewhere).await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(_) => "postgres did not answer".to_owned(),
    };
    // The row goes on saying `running`, under a lock that is free.
    tracing::warn!(
        job = claim.job,
        error = failure,
        "the end of a scheduled run could not be recorded; it is run again"
    );
}

async fn grace_over(mut stop: watch::Receiver<bool>, grace: Duration) {
    if stop.wait_for(|stopping| *stopping).await.is_err() {
        return std::future::pending().await;
    }
    tokio::time::sleep(grace).await;
}

/// Nothing of a session outlasts an attempt: neither a statement, nor a transaction or a lock of a process that is frozen.
fn session_of(connect: &PgConnectOptions, longest: Duration) -> PgConnectOptions {
    let within = longest.as_millis().to_string();
    connect.clone().options(KEEPALIVES).options(
        [
            "statement_timeout",
            "idle_in_transaction_session_timeout",
            "idle_session_timeout",
        ]
        .map(|name| (name, within.as_str())),
    )
}

/// Gives the lock back before the session ends: Postgres takes a moment to notice the end, and the next run shall not find
/// the lock taken.
async fn leave(mut session: PgConnection, job: &str) {
    let left = async {
        rows::unlock(&mut session, job).await?;
        session.close().await
    };
    if !matches!(tokio::time::timeout(RECORD_MAX, left).await, Ok(Ok(()))) {
        tracing::debug!(job, "the session of a scheduled run was not closed in form");
    }
}
