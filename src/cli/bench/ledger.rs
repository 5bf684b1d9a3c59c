//! `bench ledger`: jobs a second with the ledger's transaction for each, beside the same without it, and beside the commits
//! that the database takes from as many connections of pgbench.
//!
//! pgbench writes what an attempt writes first, one row of the ledger's shape: once as a statement of its own, which is the
//! most that this database commits, and once in the three steps of an attempt, which is the most that one can do that asks
//! for them one after the other.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;

use clap::Args;
use serde::Serialize;
use serde_json::Value;
use sqlx::postgres::PgPool;
use tokio::process::Command;
use uuid::Uuid;

use crate::cli::bench::child::{measure, words};
use crate::cli::bench::drain::CONNECTIONS_MAX;
use crate::cli::bench::fill::{self, Shape};
use crate::cli::bench::table::median;
use crate::cli::bench::usage::round;
use crate::cli::bench::{Brokers, Cluster, programs};
use crate::cli::output::{Output, table};
use crate::cli::{Failure, database};
use crate::config::Config;

const STATEMENT: &str = "INSERT INTO {table} (commit_day, handler, event_id, state) \
                         VALUES (current_date, 'bench', decode(md5(random()::text), 'hex'), 'done');\n";

/// Arguments of `bench ledger`.
#[derive(Debug, Args)]
pub struct LedgerArgs {
    #[command(flatten)]
    brokers: Brokers,
    /// Rounds; medians count
    #[arg(long, value_name = "ROUNDS", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=100))]
    rounds: u8,
    /// How long pgbench writes, each time
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
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
    rounds: u8,
    connections: u32,
    bare_jobs_per_s: f64,
    ledger_jobs_per_s: f64,
    /// Statements of their own.
    pgbench_commits_per_s: f64,
    /// Begin, insert, commit.
    pgbench_transactions_per_s: f64,
    /// Jobs for each commit of pgbench.
    of_commits: f64,
    of_transactions: f64,
}

#[derive(Debug, thiserror::Error)]
enum PgbenchError {
    #[error("pgbench ended with {status}: {said}")]
    Ended { status: String, said: String },
    #[error("pgbench did not say how many transactions it did: {said}")]
    Said { said: String },
}

/// Fills, measures alternately, prints.
pub(super) async fn run(
    args: &LedgerArgs,
    config: &Config,
    settings: &[OsString],
    output: Output,
) -> Result<(), Failure> {
    let program = programs::find("pgbench").map_err(Failure::usage)?;
    let pool = database::connect(config).await?;
    let cluster = Cluster::of(&args.brokers, config);
    let name = format!("bench_{}", Uuid::new_v4().simple());
    let topic = format!("afterwrite.{name}");
    fill::fill(&cluster, &topic, &args.shape).await?;
    let table = format!("afterwrite.{name}");
    execute(
        &pool,
        format!(
            "CREATE TABLE {table} (commit_day date NOT NULL, handler text NOT NULL, event_id bytea NOT NULL,
                 state text NOT NULL, PRIMARY KEY (commit_day, handler, event_id))"
        ),
    )
    .await?;
    let pgbench = Pgbench {
        program,
        url: config.postgres.url.expose().to_owned(),
        seconds: args.seconds,
        table: table.clone(),
    };
    let measured = rounds(args, &cluster.brokers, &topic, settings, &pgbench).await;
    execute(&pool, format!("DROP TABLE {table}")).await?;
    cluster.delete_topic(&topic).await?;
    output.print(&Report::of(args, &measured?), Report::text)
}

/// Made up here and never put together from what somebody typed.
async fn execute(pool: &PgPool, sql: String) -> Result<(), Failure> {
    let done = sqlx::query(sqlx::AssertSqlSafe(sql)).execute(pool).await;
    done.map(|_| ()).map_err(Failure::failed)
}

/// What one round measured.
struct Round {
    bare: f64,
    ledger: f64,
    commits: f64,
    transactions: f64,
}

async fn rounds(
    args: &LedgerArgs,
    brokers: &str,
    topic: &str,
    settings: &[OsString],
    pgbench: &Pgbench,
) -> Result<Vec<Round>, Failure> {
    let numbers = [args.shape.records, args.lanes as u64].map(|number| number.to_string());
    let [records, lanes] = numbers.each_ref().map(String::as_str);
    let fixed = ["drain", "--ledger", "--topics", topic, "--sequence-column", "seq"];
    let action = words(&fixed, &["--records", records, "--lanes", lanes]);
    let mut measured = Vec::new();
    for number in 1..=args.rounds {
        let report = measure(&action, brokers, settings).await?;
        let rate = |report: &Value| report["records_per_s"].as_f64().unwrap_or(f64::NAN);
        let round = Round {
            bare: rate(&report),
            ledger: rate(&report["with_ledger"]),
            commits: pgbench.commits_per_s(STATEMENT).await?,
            transactions: pgbench.commits_per_s(&format!("BEGIN;\n{STATEMENT}COMMIT;\n")).await?,
        };
        tracing::info!(round = number, jobs = round.ledger, commits = round.commits, "measured");
        measured.push(round);
    }
    Ok(measured)
}

/// Writes rows as fast as the database takes them.
struct Pgbench {
    program: PathBuf,
    url: String,
    seconds: u64,
    table: String,
}

impl Pgbench {
    async fn commits_per_s(&self, script: &str) -> Result<f64, Failure> {
        let path = std::env::temp_dir().join(format!("{}.sql", self.table));
        let script = script.replace("{table}", &self.table);
        let mut file = std::fs::File::create(&path).map_err(Failure::failed)?;
        file.write_all(script.as_bytes()).map_err(Failure::failed)?;
        let output = Command::new(&self.program)
            .args(["--no-vacuum", "--protocol=prepared", "--jobs=2"])
            .arg(format!("--client={CONNECTIONS_MAX}"))
            .arg(format!("--time={}", self.seconds))
            .arg("--file")
            .arg(&path)
            // As an argument everybody on this machine could read it.
            .env("PGDATABASE", &self.url)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(Failure::failed);
        std::fs::remove_file(&path).map_err(Failure::failed)?;
        let output = output?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let (status, said) = (
                output.status.to_string(),
                String::from_utf8_lossy(&output.stderr).into(),
            );
            return Err(Failure::failed(PgbenchError::Ended { status, said }));
        }
        tps(&said).ok_or_else(|| Failure::failed(PgbenchError::Said { said }))
    }
}

/// `tps = 5841.1 (without initial connection time)`
fn tps(said: &str) -> Option<f64> {
    let line = said.lines().find_map(|line| line.strip_prefix("tps = "))?;
    line.split_whitespace().next()?.parse().ok()
}

impl Report {
    fn of(args: &LedgerArgs, rounds: &[Round]) -> Self {
        let of = |figure: fn(&Round) -> f64, decimals| round(median(rounds.iter().map(figure).collect()), decimals);
        Self {
            records: args.shape.records,
            rounds: args.rounds,
            connections: CONNECTIONS_MAX,
            bare_jobs_per_s: of(|round| round.bare, 0),
            ledger_jobs_per_s: of(|round| round.ledger, 0),
            pgbench_commits_per_s: of(|round| round.commits, 0),
            pgbench_transactions_per_s: of(|round| round.transactions, 0),
            of_commits: of(|round| round.ledger / round.commits, 2),
            of_transactions: of(|round| round.ledger / round.transactions, 2),
        }
    }

    fn text(&self) -> String {
        let head = format!(
            "{} records, {} connections; medians of {} rounds\n\n",
            self.records, self.connections, self.rounds
        );
        let row = |name: &str, rate: f64, jobs: Option<f64>| {
            [
                name.to_owned(),
                format!("{rate:.0}"),
                jobs.map_or_else(String::new, |jobs| format!("{jobs:.2}")),
            ]
        };
        let rows = [
            row("jobs without the ledger", self.bare_jobs_per_s, None),
            row("jobs with the ledger", self.ledger_jobs_per_s, Some(1.0)),
            row("pgbench: inserts", self.pgbench_commits_per_s, Some(self.of_commits)),
            row(
                "pgbench: begin, insert, commit",
                self.pgbench_transactions_per_s,
                Some(self.of_transactions),
            ),
        ];
        head + &table(["MEASURED", "PER SECOND", "JOBS FOR EACH"], rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pgbench_says_is_read() {
        let said = "number of failed transactions: 0 (0.000%)\ntps = 5841.123456 (without initial connection time)\n";
        assert_eq!(tps(said), Some(5_841.123_456));
        assert_eq!(tps("pgbench: error"), None);
    }
}
