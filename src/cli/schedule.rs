//! `afterwrite schedule`: what runs by the clock, how its last run went, and running it now.

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use serde::Serialize;
use sqlx::postgres::PgPool;
use tokio::sync::watch;

use crate::app;
use crate::cli::output::{self, Output};
use crate::cli::program::Program;
use crate::cli::{Failure, database, stop_signal};
use crate::config::Config;
use crate::groups::moves::moment;
use crate::schedule::clock::{Clock, OfPostgres};
use crate::schedule::rows::{self, Run};
use crate::schedule::runner::{self, Ended};
use crate::schedule::{Planned, timing};

/// Nothing is known, or there is nothing.
const NONE: &str = "-";

/// Longest error in a table.
const ERROR_CHARS_MAX: usize = 60;

/// Arguments of `schedule`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  afterwrite schedule list                    every scheduled job, its last run and its next tick
  afterwrite schedule list --output json | jq '.jobs[] | select(.open_since != null)'
  afterwrite schedule run analytics           the newest tick, now and in this process
  afterwrite schedule run fraud_scan --tick 2026-07-01T14:15:00Z")]
pub struct ScheduleArgs {
    #[command(subcommand)]
    command: ScheduleCommand,
}

#[derive(Debug, Subcommand)]
enum ScheduleCommand {
    /// List the scheduled jobs
    List(ListArgs),
    /// Run one of them now, also when that tick was run before
    Run(RunArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  afterwrite schedule list

Columns: last: the newest tick that an attempt was made at. open since: the oldest tick that is neither done nor given up;
it is - when nothing is behind. Schedules are those of the configuration that this command reads.")]
struct ListArgs {}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  afterwrite schedule run cleanup
  afterwrite schedule run fraud_scan --tick 2026-07-01T14:15:00Z   the two intervals before that time

The run is done in this process, under the job's lock: when a worker is at the job, the command says so and changes nothing.
A run that fails is left to the workers, which try it again.")]
struct RunArgs {
    /// The job, as `afterwrite schedule list` names it
    job: String,
    /// The time it is run for; the newest tick when absent
    #[arg(long, value_name = "TIME", value_parser = moment)]
    tick: Option<DateTime<Utc>>,
}

#[derive(Debug, thiserror::Error)]
enum ScheduleFailed {
    #[error("scheduled runs could not be read from postgres; was `afterwrite migrate` run?")]
    Read(#[source] sqlx::Error),
    #[error("no scheduled job is called {job}; there are {known}")]
    Unknown { job: String, known: String },
    #[error("--tick lies in the future, and a tick is run when it is due")]
    Future,
    #[error("{job} has no tick before now: say --tick TIME")]
    NoTick { job: String },
    #[error("a worker is at {job} at the moment: repeat the command when it is done")]
    Busy { job: String },
    #[error("the run of {job} for {tick} failed: {error}")]
    Failed {
        job: String,
        tick: DateTime<Utc>,
        error: String,
    },
    #[error("stopped; the run of {job} is left to the workers")]
    Stopped { job: String },
}

fn unread(error: sqlx::Error) -> Failure {
    Failure::failed(ScheduleFailed::Read(error))
}

/// Runs the command.
///
/// # Errors
/// Exit code 2 for a job that there is not, 3 when Postgres cannot be reached, 1 when the run failed.
pub async fn run(args: &ScheduleArgs, config: &Config, program: &Program, output: Output) -> Result<(), Failure> {
    let jobs = program.jobs(config).map_err(Failure::usage)?;
    let planned = app::schedule::plan(config, jobs).map_err(Failure::usage)?;
    match &args.command {
        ScheduleCommand::List(_) => list(&planned, config, output).await,
        ScheduleCommand::Run(args) => Box::pin(run_now(args, planned, config, output)).await,
    }
}

#[derive(Debug, Serialize)]
struct Listed {
    at: DateTime<Utc>,
    jobs: Vec<ListedJob>,
}

#[derive(Debug, Serialize)]
struct ListedJob {
    job: String,
    schedule: String,
    zone: Option<&'static str>,
    last: Option<Run>,
    open_since: Option<DateTime<Utc>>,
    next_tick: Option<DateTime<Utc>>,
}

async fn list(planned: &[Planned], config: &Config, output: Output) -> Result<(), Failure> {
    let pool = database::connect(config).await?;
    let now = OfPostgres.now(&pool).await.map_err(unread)?;
    let mut jobs = Vec::with_capacity(planned.len());
    for planned in planned {
        jobs.push(listed(&pool, planned, now).await.map_err(unread)?);
    }
    output.print(&Listed { at: now, jobs }, table)
}

async fn listed(pool: &PgPool, planned: &Planned, now: DateTime<Utc>) -> Result<ListedJob, sqlx::Error> {
    let name = planned.job.name();
    let known = rows::known(pool, name).await?;
    let due = timing::due(&planned.schedule, known.last, now, planned.job.missed());
    // What is due already, and what nobody has looked at yet.
    let next_tick = match due.ticks.first() {
        Some(tick) => Some(*tick),
        None => planned.schedule.after(known.last.map_or(now, |last| last.max(now))),
    };
    Ok(ListedJob {
        job: name.to_owned(),
        schedule: planned.schedule.to_string(),
        zone: planned.schedule.zone(),
        last: rows::newest(pool, name, &["running", "retrying", "done", "failed"]).await?,
        open_since: known.oldest_open,
        next_tick,
    })
}

fn table(listed: &Listed) -> String {
    let at = |time: Option<DateTime<Utc>>| {
        time.map_or_else(|| NONE.to_owned(), |time| time.format("%Y-%m-%d %H:%M:%S").to_string())
    };
    let names = [
        "job",
        "schedule",
        "zone",
        "last",
        "status",
        "attempts",
        "open since",
        "next",
        "error",
    ];
    let rows = listed.jobs.iter().map(|job| {
        let of_last = |text: fn(&Run) -> String| job.last.as_ref().map_or_else(|| NONE.to_owned(), text);
        [
            job.job.clone(),
            job.schedule.clone(),
            job.zone.unwrap_or(NONE).to_owned(),
            at(job.last.as_ref().map(|last| last.tick)),
            of_last(|last| last.status.clone()),
            of_last(|last| last.attempts.to_string()),
            at(job.open_since),
            at(job.next_tick),
            of_last(|last| match &last.error {
                Some(error) => error.chars().take(ERROR_CHARS_MAX).collect(),
                None => NONE.to_owned(),
            }),
        ]
    });
    output::table(names, rows)
}

#[derive(Debug, Serialize)]
struct Ran {
    job: String,
    #[serde(flatten)]
    run: Run,
}

async fn run_now(args: &RunArgs, planned: Vec<Planned>, config: &Config, output: Output) -> Result<(), Failure> {
    let job = args.job.clone();
    let known: Vec<&str> = planned.iter().map(|planned| planned.job.name()).collect();
    let Some(planned) = planned.iter().find(|planned| planned.job.name() == job) else {
        let known = known.join(", ");
        return Err(Failure::usage(ScheduleFailed::Unknown { job, known }));
    };
    let pool = database::connect(config).await?;
    let options = app::schedule::options(config).await.map_err(Failure::failed)?;
    let now = options.clock.now(&pool).await.map_err(unread)?;
    let tick = match args.tick {
        Some(tick) if tick > now => return Err(Failure::usage(ScheduleFailed::Future)),
        Some(tick) => tick,
        None => match planned.schedule.at_or_before(now) {
            Some(tick) => tick,
            None => return Err(Failure::usage(ScheduleFailed::NoTick { job })),
        },
    };
    let by = std::env::var("USER").unwrap_or_else(|_| "afterwrite schedule run".to_owned());
    // One that says it is running is of a worker, which then has the lock, or of a process that died.
    rows::request(&pool, &job, tick, now, &by).await.map_err(unread)?;
    let (stop, stopping) = watch::channel(false);
    let signals = tokio::spawn(async move {
        let heard = stop_signal().await;
        stop.send_replace(true);
        heard
    });
    let ended = runner::attempt(planned, &options, tick, now, stopping)
        .await
        .map_err(unread);
    signals.abort();
    let run = rows::one(&pool, &job, tick).await.map_err(unread)?;
    match (ended?, run) {
        (Ended::Done, Some(run)) => output.print(&Ran { job, run }, in_words),
        (Ended::Failed, Some(Run { error: Some(error), .. })) => {
            Err(Failure::failed(ScheduleFailed::Failed { job, tick, error }))
        }
        (Ended::Stopped, _) => Err(Failure::failed(ScheduleFailed::Stopped { job })),
        _ => Err(Failure::failed(ScheduleFailed::Busy { job })),
    }
}

fn in_words(ran: &Ran) -> String {
    let counted = ran.run.report.as_ref().and_then(|report| report.as_object());
    let counted: Vec<String> = counted
        .into_iter()
        .flatten()
        .map(|(name, number)| format!("{}: {number}", name.replace('_', " ")))
        .collect();
    format!(
        "{} for {}: {} ({})",
        ran.job,
        ran.run.tick.to_rfc3339(),
        ran.run.status,
        counted.join(", ")
    )
}
