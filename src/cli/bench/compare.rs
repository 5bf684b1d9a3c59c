//! `bench compare`: the worker against the ceiling, on one topic, alternately.
//!
//! Every measurement is a process of its own, so that memory and processor time are its own too. Rounds alternate, so
//! that whatever else the machine does falls on all of them.

use std::ffi::OsString;

use clap::Args;
use uuid::Uuid;

use crate::cli::Failure;
use crate::cli::bench::child::{measure, words};
use crate::cli::bench::fill::{self, Shape};
use crate::cli::bench::table::{Comparison, Run};
use crate::cli::bench::{Brokers, Cluster};
use crate::cli::output::print_line;
use crate::config::Config;

/// Arguments of `bench compare`.
#[derive(Debug, Args)]
pub struct CompareArgs {
    #[command(flatten)]
    brokers: Brokers,
    /// Rounds; the table shows medians
    #[arg(long, value_name = "ROUNDS", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=100))]
    rounds: u8,
    /// How long the handler waits for each record, in microseconds, comma separated
    #[arg(long, value_name = "W", value_delimiter = ',', default_values_t = [0, 1_000])]
    work_us: Vec<u64>,
    /// Lanes that run at once
    #[arg(long, value_name = "L", default_value_t = 1_000)]
    lanes: usize,
    #[command(flatten)]
    shape: Shape,
    /// Keep the topic, and say how it is called
    #[arg(long)]
    keep: bool,
}

/// Fills, measures alternately, prints the table.
pub(super) async fn run(args: &CompareArgs, config: &Config, settings: &[OsString]) -> Result<(), Failure> {
    let cluster = Cluster::of(&args.brokers, config);
    let topic = format!("afterwrite.bench.{}", Uuid::new_v4().simple());
    let filled = fill::fill(&cluster, &topic, &args.shape).await?;
    tracing::info!(
        topic,
        records = filled.records,
        seconds = filled.seconds,
        "topic filled"
    );
    let compared = rounds(args, &cluster.brokers, &topic, settings).await;
    if !args.keep {
        cluster.delete_topic(&topic).await?;
    }
    print_line(&Comparison::new(filled, args.lanes, compared?).text())
}

async fn rounds(args: &CompareArgs, brokers: &str, topic: &str, settings: &[OsString]) -> Result<Vec<Run>, Failure> {
    let records = args.shape.records.to_string();
    let lanes = args.lanes.to_string();
    let raw = |flags: &[&str]| words(&["raw", "--topic", topic, "--records", &records], flags);
    let mut actions = vec![
        ("raw".to_owned(), raw(&[])),
        ("raw --parse".to_owned(), raw(&["--parse"])),
        ("raw --decode".to_owned(), raw(&["--decode"])),
    ];
    for work in &args.work_us {
        let work = work.to_string();
        let fixed = [
            "drain",
            "--topics",
            topic,
            "--records",
            &records,
            "--sequence-column",
            "seq",
        ];
        let drain = words(&fixed, &["--work-us", &work, "--lanes", &lanes]);
        actions.push((format!("drain {work} µs"), drain));
    }
    let mut runs = Vec::new();
    for round in 1..=args.rounds {
        for (name, action) in &actions {
            let report = measure(action, brokers, settings).await?;
            tracing::info!(
                round,
                name,
                records_per_s = report["records_per_s"].as_f64(),
                "measured"
            );
            runs.push(Run {
                name: name.clone(),
                report,
            });
        }
    }
    Ok(runs)
}
