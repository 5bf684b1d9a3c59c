//! `bench peers`: the worker beside a bare poll loop and Confluent's parallel-consumer, in one run over the same topics.
//!
//! Every measurement is a process of its own and warms up before. In each cell the arms take turns, round after round, and
//! ratios are those of a round: a machine that is busy with something else is so for all arms. What is to be reached is
//! printed with what was found; that it is missed is no failure, but a record that is lost, repeated or out of order is.

mod arms;

mod goals;

mod pace;

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use clap::Args;
use clap::builder::PossibleValuesParser;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use crate::cli::Failure;
use crate::cli::bench::fill::{self, Shape};
use crate::cli::bench::peers::arms::{Arm, CELLS, Cell, Topic};
use crate::cli::bench::peers::goals::{Figures, Goal, Measured};
use crate::cli::bench::usage::round;
use crate::cli::bench::{Brokers, Cluster, blocking};
use crate::cli::output::{Output, table};
use crate::config::Config;

/// Partitions of each topic.
const PARTITIONS: i32 = 8;

/// Columns of each row.
const COLUMNS: u16 = 25;

/// Arguments of `bench peers`.
#[derive(Debug, Args)]
pub struct PeersArgs {
    #[command(flatten)]
    brokers: Brokers,
    /// Rounds; medians count. What a busy key bounds is measured in the first alone
    #[arg(long, value_name = "ROUNDS", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=100))]
    rounds: u8,
    /// Changes in a topic; with schemas half as many
    #[arg(long, value_name = "N", default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(100..))]
    records: u64,
    /// Rows that are changed
    #[arg(long, value_name = "K", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    keys: u32,
    /// Lanes of the worker that run at once, and threads of parallel-consumer
    #[arg(long, value_name = "L", default_value_t = 1_000)]
    lanes: usize,
    /// Records a second where delays are measured
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    rate: u64,
    /// How long delays are measured, after 20 s of warming up
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    paced_s: u64,
    /// Only these cells, comma separated
    #[arg(long, value_name = "CELL", value_delimiter = ',',
          value_parser = PossibleValuesParser::new(CELLS.iter().map(|cell| cell.name)))]
    only: Vec<String>,
    /// Where the Java arm was built: classes/ and dependency/
    #[arg(long, value_name = "DIR", default_value = "benches/peers/target")]
    java: PathBuf,
    /// Heap of the Java arm
    #[arg(long, value_name = "MB", default_value_t = 512)]
    java_heap_mb: u32,
}

/// What came out.
#[derive(Debug, Serialize)]
struct Report {
    cores: usize,
    /// What else wanted the machine: processes that were ready to run, over a minute, before and after.
    load_before: Option<f64>,
    load_after: Option<f64>,
    rounds: u8,
    lanes: usize,
    topics: Vec<fill::Report>,
    rows: Vec<Row>,
    goals: Vec<Goal>,
}

/// Medians of one arm in one cell.
#[derive(Debug, Serialize)]
struct Row {
    cell: &'static str,
    arm: Arm,
    records_per_s: Option<f64>,
    cpu_us: Option<f64>,
    peak_rss_mb: Option<f64>,
    /// What a call of the busiest key took.
    work_ms_mean: Option<f64>,
    late_p50_ms: Option<f64>,
    late_p99_ms: Option<f64>,
    /// Of what the busiest key allows.
    of_ceiling: Option<f64>,
}

#[derive(Debug, thiserror::Error)]
#[error("{} holds no classes: `make bench-peers` builds the Java arm", dir.display())]
struct NotBuilt {
    dir: PathBuf,
}

/// A topic, and what it holds.
type Filled = (Topic, fill::Report);

/// Fills topics, measures, prints.
pub(super) async fn run(
    args: &PeersArgs,
    config: &Config,
    settings: &[OsString],
    output: Output,
) -> Result<(), Failure> {
    let is_wanted = |cell: &&Cell| args.only.is_empty() || args.only.iter().any(|name| name == cell.name);
    let cells: Vec<&Cell> = CELLS.iter().filter(is_wanted).collect();
    if !args.java.join("classes").is_dir() && cells.iter().any(|cell| cell.arms.contains(&Arm::ParallelConsumer)) {
        let dir = args.java.clone();
        return Err(Failure::usage(NotBuilt { dir }));
    }
    let load_before = load();
    let cluster = Cluster::of(&args.brokers, config);
    let (mut topics, mut measured) = (Vec::new(), Vec::new());
    let worked = measure(args, &cluster, settings, &cells, &mut topics, &mut measured).await;
    for (_, filled) in &topics {
        cluster.delete_topic(&filled.topic).await?;
    }
    worked?;
    let figures = Figures::new(measured, &topics);
    let report = Report {
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        load_before,
        load_after: load(),
        rounds: args.rounds,
        lanes: args.lanes,
        rows: rows(&cells, &figures),
        goals: goals::all(&figures),
        topics: topics.into_iter().map(|(_, filled)| filled).collect(),
    };
    output.print(&report, Report::text)
}

async fn measure(
    args: &PeersArgs,
    cluster: &Cluster,
    settings: &[OsString],
    cells: &[&Cell],
    topics: &mut Vec<Filled>,
    measured: &mut Vec<Measured>,
) -> Result<(), Failure> {
    for topic in [Topic::Zipf, Topic::Uniform, Topic::WithSchema] {
        if cells.iter().any(|cell| cell.topic == topic) {
            let filled = fill(args, cluster, topic).await?;
            // Read once, so that the broker has it in memory for whoever comes first.
            let run = run_of(args, cluster, settings, 0);
            run.drain(Arm::Raw, &filled.topic, filled.records).await?;
            topics.push((topic, filled));
        }
    }
    for number in 1..=args.rounds {
        for cell in cells.iter().filter(|cell| number == 1 || !cell.is_slow) {
            for arm in cell.arms {
                let report = one(args, cluster, settings, cell, *arm, topics).await?;
                let per_s = report["records_per_s"].as_f64();
                tracing::info!(
                    round = number,
                    cell = cell.name,
                    arm = arm.name(),
                    records_per_s = per_s,
                    "measured"
                );
                measured.push(Measured {
                    cell: cell.name,
                    arm: *arm,
                    round: number,
                    report,
                });
            }
        }
    }
    Ok(())
}

/// Writes a topic.
async fn fill(args: &PeersArgs, cluster: &Cluster, topic: Topic) -> Result<fill::Report, Failure> {
    let with_schema = topic == Topic::WithSchema;
    let shape = Shape {
        records: if with_schema { args.records / 2 } else { args.records },
        keys: args.keys,
        columns: COLUMNS,
        partitions: PARTITIONS,
        zipf: topic != Topic::Uniform,
        uniform: topic == Topic::Uniform,
        with_schema,
    };
    let name = format!("afterwrite.bench.{}", Uuid::new_v4().simple());
    let filled = fill::fill(cluster, &name, &shape).await?;
    tracing::info!(topic = name, records = filled.records, "topic filled");
    Ok(filled)
}

fn run_of<'a>(args: &'a PeersArgs, cluster: &'a Cluster, settings: &'a [OsString], work_us: u64) -> arms::Run<'a> {
    arms::Run {
        brokers: &cluster.brokers,
        settings,
        lanes: args.lanes,
        java: &args.java,
        java_heap_mb: args.java_heap_mb,
        work_us,
    }
}

/// One arm in one cell, once.
async fn one(
    args: &PeersArgs,
    cluster: &Cluster,
    settings: &[OsString],
    cell: &Cell,
    arm: Arm,
    topics: &[Filled],
) -> Result<Value, Failure> {
    let run = run_of(args, cluster, settings, cell.work_us);
    if let Some((_, filled)) = topics.iter().find(|(topic, _)| *topic == cell.topic) {
        return run.drain(arm, &filled.topic, filled.records).await;
    }
    let topic = format!("afterwrite.bench.{}", Uuid::new_v4().simple());
    cluster.make_empty(&topic, PARTITIONS).await?;
    let pace = pace::Pace {
        per_s: args.rate,
        warm_up: args.rate * pace::WARM_UP_S,
        records: args.rate * (pace::WARM_UP_S + args.paced_s),
        keys: args.keys,
        columns: usize::from(COLUMNS),
    };
    let (writing, to) = (cluster.clone(), topic.clone());
    let (written, report) = tokio::join!(
        blocking(move || pace.write(&writing, &to)),
        run.follow(arm, &topic, &pace)
    );
    cluster.delete_topic(&topic).await?;
    written?;
    report
}

fn rows(cells: &[&Cell], figures: &Figures) -> Vec<Row> {
    let arms = cells.iter().flat_map(|cell| cell.arms.iter().map(|arm| (**cell, *arm)));
    let rounded = |figure: Option<f64>, decimals| figure.map(|figure| round(figure, decimals));
    arms.map(|(cell, arm)| {
        let figure = |field| figures.median(cell.name, arm, field);
        Row {
            cell: cell.name,
            arm,
            records_per_s: rounded(figure("records_per_s"), 0),
            cpu_us: rounded(figures.cpu_us(cell.name, arm), 1),
            peak_rss_mb: rounded(figure("peak_rss_mb"), 0),
            work_ms_mean: rounded(figure("busiest_work_us_mean").map(|micros| micros / 1e3), 2),
            late_p50_ms: rounded(figure("late_p50_ms"), 1),
            late_p99_ms: rounded(figure("late_p99_ms"), 1),
            of_ceiling: rounded(figures.of_ceiling(cell.name, arm), 3),
        }
    })
    .collect()
}

/// The load average of the last minute, as Linux tells it.
fn load() -> Option<f64> {
    let text = fs::read_to_string("/proc/loadavg").ok()?;
    text.split_whitespace().next()?.parse().ok()
}

impl Report {
    fn text(&self) -> String {
        let load = |load: Option<f64>| load.map_or_else(|| "?".to_owned(), |load| format!("{load:.1}"));
        let mut head = format!(
            "{} cores, load {} before and {} after; {} lanes; medians of {} rounds\n",
            self.cores,
            load(self.load_before),
            load(self.load_after),
            self.lanes,
            self.rounds
        );
        for topic in &self.topics {
            head += &format!(
                "{}: {} records of {:.0} bytes, {} keys, the busiest with {} records\n",
                topic.topic, topic.records, topic.value_bytes_mean, topic.keys, topic.busiest_key_records
            );
        }
        let shown =
            |figure: Option<f64>, decimals| figure.map_or_else(String::new, |figure| format!("{figure:.decimals$}"));
        let rows = self.rows.iter().map(|row| {
            [
                row.cell.to_owned(),
                row.arm.name().to_owned(),
                shown(row.records_per_s, 0),
                shown(row.cpu_us, 1),
                shown(row.peak_rss_mb, 0),
                shown(row.work_ms_mean, 2),
                shown(row.of_ceiling, 2),
                shown(row.late_p50_ms, 1),
                shown(row.late_p99_ms, 1),
            ]
        });
        let names = [
            "CELL",
            "ARM",
            "RECORDS/S",
            "CPU µs",
            "PEAK MB",
            "WORK ms",
            "OF CEILING",
            "P50 ms",
            "P99 ms",
        ];
        let goals = self.goals.iter().map(|goal| {
            [
                goal.what.to_owned(),
                goal.wanted(),
                shown(goal.found, 2),
                goal.verdict().to_owned(),
            ]
        });
        format!(
            "{head}\n{}\n\n{}",
            table(names, rows),
            table(["GOAL", "WANTED", "FOUND", ""], goals)
        )
    }
}
