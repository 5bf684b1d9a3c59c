//! `bench wal`: the source `wal` beside `pg_recvlogical`, which receives the same log and does nothing with it.
//!
//! Both have slots of their own from before the rows are written, so each reads all of them. `pg_recvlogical` is the limit:
//! what the server decodes and sends in a second, and how soon a change is there at all.

mod connected;
mod late;
mod limit;
mod table;
mod worker;

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use self::connected::Connected;
use self::limit::Limit;
use self::table::Rows;
use crate::cli::bench::table::median;
use crate::cli::bench::usage::{peak_rss_mb, round};
use crate::cli::bench::{Cluster, programs};
use crate::cli::output::{self, Output};
use crate::cli::{Failure, database};
use crate::config::Config;

/// Arguments of `bench wal`.
#[derive(Debug, Args)]
pub struct WalArgs {
    /// Rows of 25 columns that are written in bulk
    #[arg(long, value_name = "N", default_value_t = 500_000, value_parser = clap::value_parser!(u32).range(1_000..))]
    rows: u32,
    /// Rounds; medians count
    #[arg(long, value_name = "ROUNDS", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=100))]
    rounds: u8,
    /// Changes a second of which is told how late they are
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    per_second: u32,
    /// Measure beside it how late they are by way of Kafka Connect (connect.url) and these brokers
    #[arg(long, value_name = "HOST:PORT,…")]
    brokers: Option<String>,
    /// For how long these are written, the first third of it to warm up
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u32).range(3..))]
    seconds: u32,
}

/// What came out; figures are medians of the rounds.
#[derive(Debug, Serialize)]
struct Report {
    rows: u32,
    rounds: u8,
    limit_rows_per_s: f64,
    worker_rows_per_s: f64,
    /// The worker's rows for each of the limit.
    of_limit: f64,
    worker_peak_mb: Option<f64>,
    per_second: u32,
    limit_p50_ms: f64,
    limit_p99_ms: f64,
    worker_p50_ms: f64,
    worker_p99_ms: f64,
    /// By way of Kafka; null where that was not measured.
    kafka_p50_ms: Option<f64>,
    kafka_p99_ms: Option<f64>,
    /// The worker's 99th percentile for that of the limit.
    late_of_limit: f64,
}

/// What one round measured.
struct Round {
    limit: f64,
    worker: f64,
    late: late::Delays,
}

/// Writes, measures alternately, prints, and removes what it made.
pub(super) async fn run(args: &WalArgs, config: &Config, output: Output) -> Result<(), Failure> {
    let program = programs::find("pg_recvlogical").map_err(Failure::usage)?;
    let pool = database::connect(config).await?;
    let rows = Rows::make(&pool).await.map_err(Failure::failed)?;
    let limit = Limit::new(program, config.postgres.url.expose(), &rows.name)?;
    let mut connected = None;
    let measured = rounds(args, config, &rows, &limit, &mut connected).await;
    if let Some(connected) = connected {
        connected.remove(&late::kafka_group(&rows)).await?;
    }
    rows.remove().await.map_err(Failure::failed)?;
    output.print(&Report::of(args, &measured?), Report::text)
}

async fn rounds(
    args: &WalArgs,
    config: &Config,
    rows: &Rows,
    limit: &Limit,
    connected: &mut Option<Connected>,
) -> Result<Vec<Round>, Failure> {
    let mut slots = Vec::new();
    for number in 1..=args.rounds {
        let names = [
            format!("{}_limit_{number}", rows.name),
            format!("{}_worker_{number}", rows.name),
        ];
        for name in &names {
            rows.make_slot(name).await.map_err(Failure::failed)?;
        }
        slots.push(names);
    }
    let end = rows.write(args.rows).await.map_err(Failure::failed)?;
    tracing::info!(rows = args.rows, "written");
    // What was written in bulk is not for it.
    if let Some(brokers) = &args.brokers {
        let cluster = Cluster::at(brokers, config);
        *connected = Some(Connected::make(config, cluster, rows).await?);
    }
    let mut measured = Vec::new();
    for [of_limit, of_worker] in slots {
        let received = limit.receive(&of_limit, &end).await?;
        rows.drop_slot(&of_limit).await.map_err(Failure::failed)?;
        let handled = worker::handle(config, rows, &of_worker, args.rows.into()).await?;
        rows.forget_slot(&of_worker).await.map_err(Failure::failed)?;
        let per_second = |took: Duration| f64::from(args.rows) / took.as_secs_f64();
        let late = late::measure(config, rows, limit, connected.as_ref(), args.per_second, args.seconds).await?;
        let round = Round {
            limit: per_second(received),
            worker: per_second(handled),
            late,
        };
        tracing::info!(limit = round.limit, worker = round.worker, "measured");
        measured.push(round);
    }
    Ok(measured)
}

impl Report {
    fn of(args: &WalArgs, rounds: &[Round]) -> Self {
        let of = |figure: fn(&Round) -> f64, decimals| round(median(rounds.iter().map(figure).collect()), decimals);
        Self {
            rows: args.rows,
            rounds: args.rounds,
            limit_rows_per_s: of(|round| round.limit, 0),
            worker_rows_per_s: of(|round| round.worker, 0),
            of_limit: of(|round| round.worker / round.limit, 2),
            worker_peak_mb: peak_rss_mb(),
            per_second: args.per_second,
            limit_p50_ms: of(|round| round.late.limit.0, 2),
            limit_p99_ms: of(|round| round.late.limit.1, 2),
            worker_p50_ms: of(|round| round.late.worker.0, 2),
            worker_p99_ms: of(|round| round.late.worker.1, 2),
            kafka_p50_ms: args
                .brokers
                .as_ref()
                .map(|_| of(|round| round.late.kafka.map_or(f64::NAN, |kafka| kafka.0), 2)),
            kafka_p99_ms: args
                .brokers
                .as_ref()
                .map(|_| of(|round| round.late.kafka.map_or(f64::NAN, |kafka| kafka.1), 2)),
            late_of_limit: of(|round| round.late.worker.1 / round.late.limit.1, 2),
        }
    }

    fn text(&self) -> String {
        let head = format!(
            "{} rows of 25 columns in bulk, then {} changes a second; medians of {} rounds\n\n",
            self.rows, self.per_second, self.rounds
        );
        let names = ["MEASURED", "ROWS A SECOND", "P50 MS", "P99 MS"];
        let rows = [
            [
                "pg_recvlogical".to_owned(),
                format!("{:.0}", self.limit_rows_per_s),
                self.limit_p50_ms.to_string(),
                self.limit_p99_ms.to_string(),
            ],
            [
                "worker".to_owned(),
                format!("{:.0}", self.worker_rows_per_s),
                self.worker_p50_ms.to_string(),
                self.worker_p99_ms.to_string(),
            ],
            [
                "worker / pg_recvlogical".to_owned(),
                self.of_limit.to_string(),
                round(self.worker_p50_ms / self.limit_p50_ms, 2).to_string(),
                self.late_of_limit.to_string(),
            ],
        ];
        let by_kafka = self.kafka_p50_ms.zip(self.kafka_p99_ms).map(|(p50, p99)| {
            let figures = [p50, p99].map(|figure| figure.to_string());
            let [p50, p99] = figures;
            ["worker by way of Kafka".to_owned(), String::new(), p50, p99]
        });
        head + &output::table(names, rows.into_iter().chain(by_kafka))
    }
}
