//! `bench backlog`: the worker over a short backlog and over a long one. What waits in Kafka must not wait in memory.

use std::ffi::OsString;

use clap::Args;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use crate::cli::Failure;
use crate::cli::bench::child::{measure, words};
use crate::cli::bench::fill::{self, Shape};
use crate::cli::bench::table::median;
use crate::cli::bench::usage::round;
use crate::cli::bench::{Brokers, Cluster};
use crate::cli::output::{Output, table};
use crate::config::Config;

/// The peak over the long backlog is at most this multiple of the other.
const GROWTH_MAX: f64 = 1.1;

/// Arguments of `bench backlog`.
#[derive(Debug, Args)]
pub struct BacklogArgs {
    #[command(flatten)]
    brokers: Brokers,
    /// Rounds; medians count
    #[arg(long, value_name = "ROUNDS", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=100))]
    rounds: u8,
    /// How many times the short backlog the long one is
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(2..=1_000))]
    times: u64,
    /// How long the handler waits for each record, in microseconds
    #[arg(long, value_name = "W", default_value_t = 0)]
    work_us: u64,
    /// Lanes that run at once
    #[arg(long, value_name = "L", default_value_t = 1_000)]
    lanes: usize,
    /// The short backlog
    #[command(flatten)]
    shape: Shape,
}

/// What came out; figures are medians of the rounds.
#[derive(Debug, Serialize)]
struct Report {
    rounds: u8,
    short: Backlog,
    long: Backlog,
    /// The peak over the long backlog as a multiple of the other.
    growth: f64,
}

#[derive(Debug, Serialize)]
struct Backlog {
    records: u64,
    records_per_s: f64,
    peak_rss_mb: f64,
}

#[derive(Debug, thiserror::Error)]
#[error("the peak of memory grew by {growth:.2} with the backlog, {GROWTH_MAX} is allowed")]
struct Grew {
    growth: f64,
}

/// Fills two topics, measures alternately, prints, and fails when memory grows with the backlog.
pub(super) async fn run(
    args: &BacklogArgs,
    config: &Config,
    settings: &[OsString],
    output: Output,
) -> Result<(), Failure> {
    let cluster = Cluster::of(&args.brokers, config);
    let long = Shape {
        records: args.shape.records * args.times,
        ..args.shape.clone()
    };
    let mut measured = Vec::new();
    for shape in [&args.shape, &long] {
        measured.push(drained(args, &cluster, settings, shape).await?);
    }
    let (Some(long), Some(short)) = (measured.pop(), measured.pop()) else {
        unreachable!("two backlogs are measured")
    };
    let report = Report {
        rounds: args.rounds,
        growth: round(long.peak_rss_mb / short.peak_rss_mb, 3),
        short,
        long,
    };
    output.print(&report, Report::text)?;
    report.verdict().map_err(Failure::failed)
}

/// One backlog, drained once a round.
async fn drained(
    args: &BacklogArgs,
    cluster: &Cluster,
    settings: &[OsString],
    shape: &Shape,
) -> Result<Backlog, Failure> {
    let topic = format!("afterwrite.bench.{}", Uuid::new_v4().simple());
    fill::fill(cluster, &topic, shape).await?;
    tracing::info!(records = shape.records, "topic filled");
    let numbers = [shape.records, args.work_us, args.lanes as u64].map(|number| number.to_string());
    let [records, work, lanes] = numbers.each_ref().map(String::as_str);
    let fixed = ["drain", "--topics", &topic, "--sequence-column", "seq"];
    let action = words(&fixed, &["--records", records, "--work-us", work, "--lanes", lanes]);
    let mut reports = Vec::new();
    for _ in 0..args.rounds {
        reports.push(measure(&action, &cluster.brokers, settings).await);
    }
    cluster.delete_topic(&topic).await?;
    let reports: Vec<Value> = reports.into_iter().collect::<Result<_, _>>()?;
    let figure = |field: &str| median(reports.iter().filter_map(|report| report[field].as_f64()).collect());
    Ok(Backlog {
        records: shape.records,
        records_per_s: figure("records_per_s"),
        peak_rss_mb: figure("peak_rss_mb"),
    })
}

impl Report {
    fn verdict(&self) -> Result<(), Grew> {
        let growth = self.growth;
        // Where the system does not tell the memory, nothing is claimed.
        if growth > GROWTH_MAX {
            return Err(Grew { growth });
        }
        Ok(())
    }

    fn text(&self) -> String {
        let row = |backlog: &Backlog, growth: String| {
            [
                backlog.records.to_string(),
                format!("{:.0}", backlog.records_per_s),
                format!("{:.1}", backlog.peak_rss_mb),
                growth,
            ]
        };
        let rows = [
            row(&self.short, String::new()),
            row(&self.long, format!("{:.2}", self.growth)),
        ];
        table(["BACKLOG", "RECORDS/S", "PEAK MB", "TIMES"], rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_grows_with_the_backlog_is_refused() {
        let backlog = || Backlog {
            records: 1,
            records_per_s: 1.0,
            peak_rss_mb: 1.0,
        };
        let verdict = |growth| {
            let report = Report {
                rounds: 1,
                short: backlog(),
                long: backlog(),
                growth,
            };
            report.verdict().is_ok()
        };
        assert!(verdict(1.1) && verdict(0.8) && verdict(f64::NAN));
        assert!(!verdict(1.11));
    }
}
