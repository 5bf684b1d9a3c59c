//! `afterwrite dlq`: dead letters: follow them, list them, look at one, send them back.

mod replay;

mod show;

mod tail;

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::cli::output::{self, Output};
use crate::cli::{Failure, database};
use crate::config::Config;
use crate::dead_letter::reader;
use crate::dead_letter::state::{self, LetterRow};

/// Longest error text in a table; `dlq show` has all of it.
const ERROR_CHARS_MAX: usize = 60;

/// Arguments of `dlq`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  afterwrite dlq tail --group email                     follow new dead letters of a group
  afterwrite dlq list --group email --state open        what waits for somebody
  afterwrite dlq show 3f2a…                             everything about one letter
  afterwrite dlq replay 3f2a… --wait                    send one back and wait for the end
  afterwrite dlq replay --all --group email             send all open ones of a group back

A group is named short (email) or full (afterwrite.email). A letter's id may be shortened while it is unique.")]
pub struct DlqArgs {
    #[command(subcommand)]
    command: DlqCommand,
}

#[derive(Debug, Subcommand)]
enum DlqCommand {
    /// Follow the dead letters of a group as they are written
    Tail(tail::TailArgs),
    /// List dead letters, newest first
    List(ListArgs),
    /// Show one dead letter: why, where from, and its event
    Show(show::ShowArgs),
    /// Send dead letters back to the handler that failed
    Replay(replay::ReplayArgs),
}

#[derive(Debug, Args)]
struct ListArgs {
    /// Only this group
    #[arg(long)]
    group: Option<String>,
    /// Only letters in this state
    #[arg(long, value_parser = ["open", "parked", "replaying", "replayed", "discarded"])]
    state: Option<String>,
    /// At most this many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=100_000))]
    limit: i64,
}

/// Runs a `dlq` command.
///
/// # Errors
/// When Postgres or the broker fails, or there is no such letter.
pub async fn run(args: &DlqArgs, config: &Config, output: Output) -> Result<(), Failure> {
    match &args.command {
        DlqCommand::Tail(args) => tail::run(args, config, output).await,
        DlqCommand::List(args) => list(args, config, output).await,
        DlqCommand::Show(args) => show::run(args, config, output).await,
        DlqCommand::Replay(args) => replay::run(args, config, output).await,
    }
}

#[derive(Debug, Serialize)]
struct Letters {
    letters: Vec<LetterRow>,
}

async fn list(args: &ListArgs, config: &Config, output: Output) -> Result<(), Failure> {
    let pool = database::connect(config).await?;
    let group = args.group.as_ref().map(|group| config.group_name(group));
    let letters = state::list(&pool, group.as_deref(), args.state.as_deref(), args.limit)
        .await
        .map_err(LookFailed)
        .map_err(Failure::failed)?;
    output.print(&Letters { letters }, |listed| letters_table(&listed.letters))
}

fn letters_table(letters: &[LetterRow]) -> String {
    if letters.is_empty() {
        return "no dead letters".to_owned();
    }
    let names = [
        "letter",
        "failed at",
        "handler",
        "table",
        "class",
        "attempts",
        "state",
        "error",
    ];
    let rows = letters.iter().map(|letter| {
        [
            letter.short_id().to_owned(),
            letter.failed_at.format("%Y-%m-%d %H:%M:%S").to_string(),
            letter.handler.clone(),
            letter.table_name.clone().unwrap_or_else(|| "-".to_owned()),
            letter.class.clone(),
            letter.attempts.to_string(),
            letter.state.clone(),
            shortened(&letter.error),
        ]
    });
    output::table(names, rows)
}

fn shortened(error: &str) -> String {
    if error.chars().count() <= ERROR_CHARS_MAX {
        return error.to_owned();
    }
    error.chars().take(ERROR_CHARS_MAX).chain(['…']).collect()
}

#[derive(Debug, thiserror::Error)]
#[error("dead letters could not be looked up; was `afterwrite migrate` run?")]
struct LookFailed(#[source] sqlx::Error);

#[derive(Debug, thiserror::Error)]
enum FindFailed {
    #[error("there is no dead letter {0}; `afterwrite dlq list` shows those there are")]
    None(String),
    #[error("{0} is the beginning of more than one dead letter's id: give more of it")]
    Several(String),
}

/// Exit code 3 when the broker was away, 1 when the letter is.
fn unreadable(error: reader::Error) -> Failure {
    match error.is_unreachable() {
        true => Failure::unreachable(error),
        false => Failure::failed(error),
    }
}

/// The letter whose id begins so.
async fn find(pool: &sqlx::PgPool, beginning: &str) -> Result<LetterRow, Failure> {
    let mut found = state::find(pool, beginning)
        .await
        .map_err(LookFailed)
        .map_err(Failure::failed)?;
    match (found.pop(), found.is_empty()) {
        (Some(letter), true) => Ok(letter),
        (Some(_), false) => Err(Failure::usage(FindFailed::Several(beginning.to_owned()))),
        (None, _) => Err(Failure::failed(FindFailed::None(beginning.to_owned()))),
    }
}
