//! `afterwrite bench`: how fast the worker drains a topic, and how fast anything could.
//!
//! `drain` runs the real source, decoder, router and engine with a handler that only waits, and proves while it measures:
//! order for each key, nothing twice, nothing missing. `raw` polls the same topic and does nothing else, which is the
//! ceiling; `raw --parse` also parses each value, which is what any worker has to do. `compare` runs them alternately, so
//! that a busy machine slows all of them. `poison`, `retrying` and `backlog` compare the worker with itself: with and without
//! events that fail for good, with and without a key that is retried all the time, with a short and a long backlog. `peers`
//! and `ledger` compare it with others: with Confluent's parallel-consumer, and with the commits of pgbench. `ranking` compares
//! the rankings of the waitlist with the bare statement that writes as many places.

mod drain;

mod sleeper;

mod waits;

mod progress;

mod order;

mod late;

mod raw;

mod fill;

pub mod envelope;

pub mod schema;

mod topic;

mod usage;

mod child;

mod compare;

mod table;

mod letters;

mod poison;

mod retrying;

mod peers;

mod ledger;

mod wal;

mod programs;

mod backlog;

mod ranking;

use std::ffi::OsString;

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::cli::Failure;
use crate::cli::output::{Output, print_line};
use crate::clients::kafka::client_config;
use crate::config::Config;
use crate::config::value::Secret;

/// Arguments of `bench`.
#[derive(Debug, Args)]
#[command(after_help = "\
Every action prints one JSON object, on one line; compare prints a table, and what compares the worker with something what
--output says.

Examples:
  afterwrite bench compare --brokers localhost:9092
  afterwrite bench fill  --brokers localhost:9092 --topic bench --records 200000 --keys 10000
  afterwrite bench drain --brokers localhost:9092 --topics bench --records 200000 --work-us 1000 --lanes 1000 \\
                         --sequence-column seq
  afterwrite bench raw   --brokers localhost:9092 --topic bench --records 200000 --parse
  afterwrite bench poison   --brokers localhost:9092 --fail-every 100
  afterwrite bench retrying --brokers localhost:9092 --seconds 60")]
pub struct BenchArgs {
    /// What to measure
    #[command(subcommand)]
    pub action: Action,
}

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Run the worker over topics with a handler that only waits
    Drain(drain::DrainArgs),
    /// Poll a topic and do nothing else: the ceiling
    Raw(raw::RawArgs),
    /// Write a topic of changes as Debezium prints them
    Fill(fill::FillArgs),
    /// Fill a topic, run raw and drain over it alternately, and print what bounds the worker
    Compare(compare::CompareArgs),
    /// Fail one record of many for good, all the time: the others must lose no throughput and memory must stay flat
    Poison(poison::PoisonArgs),
    /// Retry one key all the time: the other keys of its partition must not wait for it
    Retrying(retrying::RetryingArgs),
    /// The worker beside a bare poll loop and Confluent's parallel-consumer (`make bench-peers` builds and runs it)
    Peers(peers::PeersArgs),
    /// The ledger's transaction for each job, beside the commits of pgbench; needs a migrated database (DATABASE_URL)
    Ledger(ledger::LedgerArgs),
    /// The source wal beside pg_recvlogical, which only receives; needs a migrated database (DATABASE_URL)
    Wal(wal::WalArgs),
    /// A long backlog must take no more memory than a short one
    Backlog(backlog::BacklogArgs),
    /// Rankings of a large campaign, beside a bare UPDATE of all places; needs a server that lets it make a database (DATABASE_URL)
    Ranking(ranking::RankingArgs),
}

/// The brokers.
#[derive(Debug, Clone, Args)]
pub struct Brokers {
    /// Brokers, host:port, comma separated; kafka.brokers when left out
    #[arg(long, value_name = "HOST:PORT")]
    brokers: Option<String>,
}

/// Where the brokers are and how to speak to them.
#[derive(Debug, Clone)]
struct Cluster {
    brokers: String,
    properties: Vec<(String, String)>,
}

impl Cluster {
    fn of(args: &Brokers, config: &Config) -> Self {
        Self::at(args.brokers.as_ref().unwrap_or(&config.kafka.brokers), config)
    }

    fn at(brokers: &str, config: &Config) -> Self {
        let exposed = |(name, value): (&String, &Secret)| (name.clone(), value.expose().to_owned());
        Self {
            brokers: brokers.to_owned(),
            properties: config.kafka.properties.0.iter().map(exposed).collect(),
        }
    }

    /// A client's properties: the address, and what the user set.
    fn client(&self) -> rdkafka::ClientConfig {
        client_config(&self.brokers, &self.properties)
    }
}

/// Runs one action. `settings` are the words that made this configuration, for processes that work under it.
///
/// # Errors
/// When the broker cannot be reached, the arguments do not fit the topic, or a measurement disproves a promise.
pub async fn run(args: &BenchArgs, config: &Config, settings: &[OsString], output: Output) -> Result<(), Failure> {
    match &args.action {
        Action::Drain(args) => Box::pin(drain::run(args, config)).await,
        Action::Raw(args) => raw::run(args, config).await,
        Action::Fill(args) => fill::run(args, config).await,
        Action::Compare(args) => compare::run(args, config, settings).await,
        Action::Poison(args) => poison::run(args, config, settings, output).await,
        Action::Retrying(args) => Box::pin(retrying::run(args, config, output)).await,
        Action::Ledger(args) => ledger::run(args, config, settings, output).await,
        Action::Wal(args) => Box::pin(wal::run(args, config, output)).await,
        Action::Ranking(args) => Box::pin(ranking::run(args, config, output)).await,
        Action::Backlog(args) => backlog::run(args, config, settings, output).await,
        Action::Peers(args) => Box::pin(peers::run(args, config, settings, output)).await,
    }
}

/// Prints a report as one line.
fn print<T: Serialize>(report: &T) -> Result<(), Failure> {
    print_line(&serde_json::to_string(report).map_err(Failure::failed)?)
}

/// Runs what blocks beside the runtime.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.map_err(Failure::failed)?
}
