//! `bench poison`: one record of many fails for good, all the time. The others must keep their throughput, and the
//! memory must not grow with the letters.
//!
//! A run without failures and one with them follow each other, round after round, over one topic; only their ratio counts.

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

/// The others keep at least this share of their throughput.
const THROUGHPUT_MIN: f64 = 0.9;

/// From a quarter of the records to the end the memory may grow by this factor more than it does without failures.
const GROWTH_MAX: f64 = 1.1;

/// Arguments of `bench poison`.
#[derive(Debug, Args)]
pub struct PoisonArgs {
    #[command(flatten)]
    brokers: Brokers,
    /// Rounds; medians count
    #[arg(long, value_name = "ROUNDS", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=100))]
    rounds: u8,
    /// One record of so many fails for good
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(2..))]
    fail_every: u32,
    /// How long the handler waits for each record, in microseconds
    #[arg(long, value_name = "W", default_value_t = 1_000)]
    work_us: u64,
    /// Lanes that run at once
    #[arg(long, value_name = "L", default_value_t = 100)]
    lanes: usize,
    #[command(flatten)]
    shape: Shape,
}

/// What came out; figures are medians of the rounds.
#[derive(Debug, Serialize)]
struct Report {
    records: u64,
    rounds: usize,
    fail_every: u32,
    /// Letters of one run.
    letters: u64,
    /// Records that were done a second, without failures and with them.
    clean_records_per_s: f64,
    others_records_per_s: f64,
    /// Of those of the same round.
    throughput_ratio: f64,
    /// Resident memory at the end, as a multiple of what it was at a quarter.
    clean_growth: f64,
    growth: f64,
    clean_peak_rss_mb: f64,
    peak_rss_mb: f64,
}

#[derive(Debug, thiserror::Error)]
enum Disproved {
    #[error("the others had {ratio:.2} of their throughput, {THROUGHPUT_MIN} are promised")]
    Throughput { ratio: f64 },
    #[error("memory grew by {growth:.2} from a quarter to the end, and by {clean:.2} without failures")]
    Memory { growth: f64, clean: f64 },
    #[error("no record failed: there are too few of them")]
    Nothing,
}

/// Fills a topic, measures alternately, prints, and fails when a promise is disproved.
pub(super) async fn run(
    args: &PoisonArgs,
    config: &Config,
    settings: &[OsString],
    output: Output,
) -> Result<(), Failure> {
    let cluster = Cluster::of(&args.brokers, config);
    let topic = format!("afterwrite.bench.{}", Uuid::new_v4().simple());
    fill::fill(&cluster, &topic, &args.shape).await?;
    let measured = rounds(args, &cluster.brokers, &topic, settings).await;
    cluster.delete_topic(&topic).await?;
    let report = Report::of(args, &measured?);
    output.print(&report, Report::text)?;
    report.verdict().map_err(Failure::failed)
}

/// Reports of the rounds: without failures, and with them.
async fn rounds(
    args: &PoisonArgs,
    brokers: &str,
    topic: &str,
    settings: &[OsString],
) -> Result<Vec<(Value, Value)>, Failure> {
    let numbers = [args.shape.records, args.work_us, args.lanes as u64].map(|number| number.to_string());
    let [records, work, lanes] = numbers.each_ref().map(String::as_str);
    let every = args.fail_every.to_string();
    let fixed = ["drain", "--topics", topic, "--sequence-column", "seq"];
    let sized = ["--records", records, "--work-us", work, "--lanes", lanes];
    let clean = words(&fixed, &sized);
    let failing = [clean.clone(), words(&["--fail-every"], &[&every])].concat();
    let mut reports = Vec::new();
    for round in 1..=args.rounds {
        let clean = measure(&clean, brokers, settings).await?;
        let failing = measure(&failing, brokers, settings).await?;
        tracing::info!(
            round,
            clean = clean["records_per_s"].as_f64(),
            failing = failing["records_per_s"].as_f64(),
            "measured"
        );
        reports.push((clean, failing));
    }
    Ok(reports)
}

impl Report {
    fn of(args: &PoisonArgs, rounds: &[(Value, Value)]) -> Self {
        let number = |report: &Value, field: &str| report[field].as_f64().unwrap_or(f64::NAN);
        let growth = |report: &Value| number(report, "rss_end_mb") / number(report, "rss_quarter_mb");
        let of_clean =
            |figure: &dyn Fn(&Value) -> f64| round(median(rounds.iter().map(|(clean, _)| figure(clean)).collect()), 3);
        let of_failing = |figure: &dyn Fn(&Value) -> f64| {
            round(median(rounds.iter().map(|(_, failing)| figure(failing)).collect()), 3)
        };
        let rate = |report: &Value| number(report, "records_per_s");
        let ratios = rounds.iter().map(|(clean, failing)| rate(failing) / rate(clean));
        let letters = rounds.iter().filter_map(|(_, failing)| failing["buried"].as_u64());
        Self {
            records: args.shape.records,
            rounds: rounds.len(),
            fail_every: args.fail_every,
            letters: letters.min().unwrap_or_default(),
            clean_records_per_s: of_clean(&rate),
            others_records_per_s: of_failing(&rate),
            throughput_ratio: round(median(ratios.collect()), 3),
            clean_growth: of_clean(&growth),
            growth: of_failing(&growth),
            clean_peak_rss_mb: of_clean(&|report| number(report, "peak_rss_mb")),
            peak_rss_mb: of_failing(&|report| number(report, "peak_rss_mb")),
        }
    }

    fn verdict(&self) -> Result<(), Disproved> {
        if self.letters == 0 {
            return Err(Disproved::Nothing);
        }
        if self.throughput_ratio < THROUGHPUT_MIN {
            let ratio = self.throughput_ratio;
            return Err(Disproved::Throughput { ratio });
        }
        // Where the system does not tell the memory, nothing is claimed.
        if self.growth > self.clean_growth.max(1.0) * GROWTH_MAX {
            let (growth, clean) = (self.growth, self.clean_growth);
            return Err(Disproved::Memory { growth, clean });
        }
        Ok(())
    }

    fn text(&self) -> String {
        let head = format!(
            "{} records, one of {} fails for good ({} letters a run); {} rounds; medians\n\n",
            self.records, self.fail_every, self.letters, self.rounds
        );
        let row = |name: &str, rate: f64, ratio: String, growth: f64, peak: f64| {
            [
                name.to_owned(),
                format!("{rate:.0}"),
                ratio,
                format!("{growth:.2}"),
                format!("{peak:.0}"),
            ]
        };
        let names = ["MEASURED", "DONE/S", "RATIO", "MEMORY GREW BY", "PEAK MB"];
        let rows = [
            row(
                "no failures",
                self.clean_records_per_s,
                String::new(),
                self.clean_growth,
                self.clean_peak_rss_mb,
            ),
            row(
                "with failures",
                self.others_records_per_s,
                format!("{:.2}", self.throughput_ratio),
                self.growth,
                self.peak_rss_mb,
            ),
        ];
        head + &table(names, rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_throughput_and_growing_memory_are_refused() {
        let report = |throughput_ratio, growth, letters| Report {
            records: 1,
            rounds: 1,
            fail_every: 100,
            letters,
            clean_records_per_s: 1.0,
            others_records_per_s: 1.0,
            throughput_ratio,
            clean_growth: 1.2,
            growth,
            clean_peak_rss_mb: 1.0,
            peak_rss_mb: 1.0,
        };
        assert!(report(0.97, 1.25, 5).verdict().is_ok());
        assert!(report(0.97, f64::NAN, 5).verdict().is_ok());
        assert!(matches!(
            report(0.89, 1.2, 5).verdict(),
            Err(Disproved::Throughput { .. })
        ));
        assert!(matches!(report(0.97, 1.4, 5).verdict(), Err(Disproved::Memory { .. })));
        assert!(matches!(report(0.97, 1.2, 0).verdict(), Err(Disproved::Nothing)));
    }
}
