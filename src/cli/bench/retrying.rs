//! `bench retrying`: one key is retried all the time. The other keys of its partition must not wait for it.
//!
//! Records are written at a fixed pace, far below what the worker could do, and how late each one is done is measured from
//! the moment at which it was due to be written: a writer that falls behind would otherwise hide what it waited for. A run
//! in which every key works and one in which a key is retried follow each other; only their ratio counts.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use clap::Args;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use crate::cli::Failure;
use crate::cli::bench::drain::{DrainArgs, Ledger, drive, setup};
use crate::cli::bench::letters::NoLetters;
use crate::cli::bench::progress::Progress;
use crate::cli::bench::table::median;
use crate::cli::bench::usage::round;
use crate::cli::bench::{Brokers, Cluster, blocking, envelope};
use crate::cli::output::{Output, table};
use crate::config::Config;
use crate::event::change::ChangeEvent;
use crate::handler::{Context, Handler, HandlerError, Outcome, Spec};

/// The others may be so much later, and a little more.
const FACTOR_MAX: f64 = 1.2;
const MARGIN_MS: f64 = 5.0;

/// The row that is retried; its share of the records is that of any other row.
const RETRIED: usize = 0;

/// Columns of a row.
const COLUMNS: usize = 25;

/// The whole worker gives up when nothing was done for so long.
const IDLE_S: u64 = 30;

/// How long the last records may take to be acknowledged.
const FLUSH_MAX: Duration = Duration::from_secs(60);

/// Arguments of `bench retrying`.
#[derive(Debug, Clone, Args)]
pub struct RetryingArgs {
    #[command(flatten)]
    brokers: Brokers,
    /// Rounds; medians count
    #[arg(long, value_name = "ROUNDS", default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=100))]
    rounds: u8,
    /// How long a run takes, and with it the retrying
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Records a second; those of a whole run must fit into the window (engine.buffered_events_max)
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    rate: u64,
    /// Rows that are changed in turn, all in one partition
    #[arg(long, value_name = "K", default_value_t = 200, value_parser = clap::value_parser!(u64).range(2..=100_000))]
    keys: u64,
    /// Pause between two attempts of the key that is retried, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    retry_ms: u64,
    /// How long the handler waits for each record, in microseconds
    #[arg(long, value_name = "W", default_value_t = 1_000)]
    work_us: u64,
    /// Lanes that run at once; engine.lanes_max when left out
    #[arg(long, value_name = "L")]
    lanes: Option<usize>,
}

/// What came out: how late the others were, in milliseconds; medians of the rounds.
#[derive(Debug, Serialize)]
struct Report {
    records: u64,
    rounds: usize,
    /// Attempts of the key that was retried, in one run.
    retries: u64,
    quiet_p50_ms: f64,
    quiet_p99_ms: f64,
    retrying_p50_ms: f64,
    retrying_p99_ms: f64,
    /// What the p99 may be beside a key that is retried.
    allowed_p99_ms: f64,
}

/// One run.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Run {
    p50_ms: f64,
    p99_ms: f64,
    retries: u64,
}

#[derive(Debug, thiserror::Error)]
enum RetryingError {
    #[error("the p99 of the other keys was {found:.1} ms, {allowed:.1} ms are promised")]
    Late { found: f64, allowed: f64 },
    #[error("{done} of {wanted} records were done")]
    Unfinished { done: u64, wanted: u64 },
    #[error("the key was never retried: the run is too short for --retry-ms")]
    Nothing,
    #[error("a run has {records} records, and the window takes {window}: what is measured then is the window")]
    Window { records: u64, window: usize },
    #[error("the records were not written")]
    Written(#[source] rdkafka::error::KafkaError),
}

/// Measures alternately, prints, and fails when the promise is disproved.
pub(super) async fn run(args: &RetryingArgs, config: &Config, output: Output) -> Result<(), Failure> {
    let (records, window) = (args.seconds * args.rate, config.engine.buffered_events_max);
    if records >= window as u64 {
        return Err(Failure::usage(RetryingError::Window { records, window }));
    }
    let cluster = Cluster::of(&args.brokers, config);
    let (mut quiet, mut retrying) = (Vec::new(), Vec::new());
    for number in 1..=args.rounds {
        quiet.push(one(args, config, &cluster, false).await?);
        retrying.push(one(args, config, &cluster, true).await?);
        let p99_ms = |runs: &[Run]| runs.last().map(|run| run.p99_ms);
        tracing::info!(
            round = number,
            quiet_p99_ms = p99_ms(&quiet),
            retrying_p99_ms = p99_ms(&retrying),
            "measured"
        );
    }
    let report = Report::of(records, &quiet, &retrying);
    output.print(&report, Report::text)?;
    report.verdict().map_err(Failure::failed)
}

/// One run over a topic of its own.
async fn one(args: &RetryingArgs, config: &Config, cluster: &Cluster, is_retrying: bool) -> Result<Run, Failure> {
    let topic = format!("afterwrite.bench.{}", Uuid::new_v4().simple());
    cluster.make_empty(&topic, 1).await?;
    let measured = measure(args, config, cluster, &topic, is_retrying).await;
    cluster.delete_topic(&topic).await?;
    cluster.delete_group(&topic).await?;
    measured
}

async fn measure(
    args: &RetryingArgs,
    config: &Config,
    cluster: &Cluster,
    topic: &str,
    is_retrying: bool,
) -> Result<Run, Failure> {
    let records = args.seconds * args.rate;
    let kept_back = if is_retrying { records.div_ceil(args.keys) } else { 0 };
    // One more is written first, and says that the worker is there.
    let wanted = records - kept_back + 1;
    let progress = Arc::new(Progress::new(wanted, None));
    let stopwatch = Stopwatch {
        work: Duration::from_micros(args.work_us),
        retry_after: is_retrying.then(|| Duration::from_millis(args.retry_ms)),
        retried: envelope::id(RETRIED).to_string(),
        pace: Pace::of(args),
        started: watch::Sender::new(None),
        late: Mutex::default(),
        progress: Arc::clone(&progress),
    };
    let stopwatch = Arc::new(stopwatch);
    let drain = DrainArgs {
        brokers: args.brokers.clone(),
        topics: vec![topic.to_owned()],
        records: wanted,
        work_us: args.work_us,
        lanes: args.lanes,
        group: Some(topic.to_owned()),
        fail_every: None,
        sequence_column: None,
        schemas: None,
        registry: None,
        ledger: false,
        warm_up: 0,
        late_after: None,
        idle_s: IDLE_S,
    };
    let handler: Arc<Stopwatch> = Arc::clone(&stopwatch);
    let mut setup = setup(drain.lanes, config, topic, handler, Arc::new(NoLetters), Ledger::none());
    for limits in &mut setup.limits.handlers {
        limits.policy.attempts_max = u32::MAX;
    }
    let writing = blocking({
        let (cluster, topic, args, started) = (
            cluster.clone(),
            topic.to_owned(),
            args.clone(),
            stopwatch.started.subscribe(),
        );
        move || write(&cluster, &topic, &args, started)
    });
    let (written, driven) = tokio::join!(writing, drive(&drain, config, cluster, setup, &progress));
    written?;
    driven?;
    let done = progress.settled();
    if done < wanted {
        return Err(Failure::failed(RetryingError::Unfinished { done, wanted }));
    }
    Ok(stopwatch.run())
}

/// When which record is due.
#[derive(Debug, Clone, Copy)]
struct Pace {
    between: Duration,
}

impl Pace {
    fn of(args: &RetryingArgs) -> Self {
        let between = Duration::from_secs(1).div_f64(args.rate as f64);
        Self { between }
    }

    /// The first one is the sign of life, which is due at no time.
    fn due(self, started: Instant, number: u64) -> Instant {
        started + self.between.mul_f64(number as f64)
    }
}

/// Writes one record, and when that is done the others, each when it is due.
fn write(
    cluster: &Cluster,
    topic: &str,
    args: &RetryingArgs,
    mut started: watch::Receiver<Option<Instant>>,
) -> Result<(), Failure> {
    let failed = |error| Failure::failed(RetryingError::Written(error));
    let mut client = cluster.client();
    client.set("linger.ms", "0").set("enable.idempotence", "true");
    let producer: BaseProducer = client.create().map_err(Failure::usage)?;
    let mut value = String::new();
    let mut send = |number: u64| {
        let row = if number == 0 { 1 } else { (number - 1) % args.keys };
        let row = usize::try_from(row).unwrap_or(usize::MAX);
        value.clear();
        envelope::update(&mut value, number, row, number / args.keys + 1, COLUMNS).map_err(Failure::failed)?;
        let key = envelope::key(row);
        let record = BaseRecord::to(topic).key(&key).payload(&value);
        producer.send(record).map_err(|(error, _)| failed(error))
    };
    send(0)?;
    producer.flush(FLUSH_MAX).map_err(failed)?;
    let ready = tokio::runtime::Handle::current().block_on(started.wait_for(Option::is_some));
    let Some(started) = ready.ok().and_then(|ready| *ready) else {
        // The measurement was given up, and says so itself.
        return Ok(());
    };
    let pace = Pace::of(args);
    for number in 1..=args.seconds * args.rate {
        let due = pace.due(started, number);
        while Instant::now() < due {
            producer.poll(due.saturating_duration_since(Instant::now()));
        }
        send(number)?;
    }
    producer.flush(FLUSH_MAX).map_err(failed)
}

/// The handler: waits, or fails for the key that is retried, and tells how late each record of another key was.
struct Stopwatch {
    work: Duration,
    retry_after: Option<Duration>,
    retried: String,
    pace: Pace,
    /// When the first record was done, from which on the others are due.
    started: watch::Sender<Option<Instant>>,
    late: Mutex<Late>,
    progress: Arc<Progress>,
}

#[derive(Debug, Default)]
struct Late {
    by: Vec<Duration>,
    retries: u64,
}

#[async_trait]
impl Handler for Stopwatch {
    /// No routes: the router of the measurement wakes it by every table.
    fn spec(&self) -> Spec {
        Spec {
            name: "bench".to_owned(),
            routes: Vec::new(),
            coalesce_max: 1,
            attempt_timeout: None,
        }
    }

    async fn handle(&self, _: &mut Context, events: &[Arc<ChangeEvent>]) -> Result<Outcome, HandlerError> {
        for event in events {
            let is_retried = event.key().and_then(|key| key.row().text("id")) == Some(self.retried.as_str());
            if let Some(after) = self.retry_after.filter(|_| is_retried) {
                self.late().retries += 1;
                return Err(HandlerError::retry_after(after, "this key is retried all the time"));
            }
            let began = Instant::now();
            if !self.work.is_zero() {
                tokio::time::sleep(self.work).await;
            }
            self.done(event, is_retried);
            self.progress.ends(event, Some(began.elapsed()));
        }
        Ok(Outcome::Done)
    }
}

impl Stopwatch {
    fn late(&self) -> std::sync::MutexGuard<'_, Late> {
        self.late.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn done(&self, event: &ChangeEvent, is_retried: bool) {
        let now = Instant::now();
        let tx = event
            .origin()
            .tx
            .and_then(|tx| u64::try_from(tx).ok())
            .unwrap_or_default();
        let number = tx.saturating_sub(envelope::FIRST_TX);
        let started = *self.started.borrow();
        match started {
            None => {
                self.started.send_replace(Some(now));
            }
            Some(started) if !is_retried && number > 0 => {
                self.late()
                    .by
                    .push(now.saturating_duration_since(self.pace.due(started, number)));
            }
            Some(_) => {}
        }
    }

    fn run(&self) -> Run {
        let mut late = self.late();
        late.by.sort_unstable();
        let of = |share: f64| {
            let place = (late.by.len() as f64 * share).ceil() as usize;
            late.by
                .get(place.saturating_sub(1))
                .map_or(f64::NAN, |by| by.as_secs_f64() * 1e3)
        };
        Run {
            p50_ms: of(0.5),
            p99_ms: of(0.99),
            retries: late.retries,
        }
    }
}

impl Report {
    fn of(records: u64, quiet: &[Run], retrying: &[Run]) -> Self {
        let of = |runs: &[Run], figure: fn(&Run) -> f64| round(median(runs.iter().map(figure).collect()), 2);
        let quiet_p99_ms = of(quiet, |run| run.p99_ms);
        Self {
            records,
            rounds: quiet.len(),
            retries: retrying.iter().map(|run| run.retries).min().unwrap_or_default(),
            quiet_p50_ms: of(quiet, |run| run.p50_ms),
            quiet_p99_ms,
            retrying_p50_ms: of(retrying, |run| run.p50_ms),
            retrying_p99_ms: of(retrying, |run| run.p99_ms),
            allowed_p99_ms: round(quiet_p99_ms * FACTOR_MAX + MARGIN_MS, 2),
        }
    }

    fn verdict(&self) -> Result<(), RetryingError> {
        let (found, allowed) = (self.retrying_p99_ms, self.allowed_p99_ms);
        match self.retries {
            0 => Err(RetryingError::Nothing),
            _ if found <= allowed => Ok(()),
            _ => Err(RetryingError::Late { found, allowed }),
        }
    }

    fn text(&self) -> String {
        let head = format!(
            "{} records a run, one key retried {} times; how late the others were done; medians of {} rounds\n\n",
            self.records, self.retries, self.rounds
        );
        let row = |name: &str, p50: f64, p99: f64, allowed: String| {
            [name.to_owned(), format!("{p50:.1}"), format!("{p99:.1}"), allowed]
        };
        let rows = [
            row("every key works", self.quiet_p50_ms, self.quiet_p99_ms, String::new()),
            row(
                "one key is retried",
                self.retrying_p50_ms,
                self.retrying_p99_ms,
                format!("{:.1}", self.allowed_p99_ms),
            ),
        ];
        head + &table(["MEASURED", "P50 ms", "P99 ms", "ALLOWED"], rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(quiet_p99_ms: f64, retrying_p99_ms: f64, retries: u64) -> Result<(), RetryingError> {
        let run = |p99_ms| Run {
            p50_ms: 1.0,
            p99_ms,
            retries,
        };
        // One round that the machine disturbed changes nothing.
        let quiet = [run(quiet_p99_ms), run(quiet_p99_ms), run(900.0)];
        let retrying = [run(retrying_p99_ms), run(900.0), run(retrying_p99_ms)];
        Report::of(10, &quiet, &retrying).verdict()
    }

    #[test]
    fn keys_that_wait_for_the_retried_one_are_refused() {
        assert!(verdict(10.0, 16.9, 5).is_ok());
        assert!(matches!(verdict(10.0, 17.1, 5), Err(RetryingError::Late { .. })));
        assert!(matches!(verdict(10.0, 10.0, 0), Err(RetryingError::Nothing)));
    }
}
