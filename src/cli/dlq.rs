//! `afterwrite dlq`: dead letters: follow them, list them, look at one, send them back, discard them, move them.

mod chosen;

mod list;

mod show;

mod tail;

mod replay;

mod discard;

mod export;

mod import;

use std::collections::BTreeMap;

use clap::{Args, Subcommand};

use crate::cli::Failure;
use crate::cli::output::Output;
use crate::cli::status::NoGroup;
use crate::config::Config;
use crate::dead_letter::filter::Count;
use crate::dead_letter::kept;
use crate::dead_letter::state::{self, LetterRow};
use crate::groups::known;

/// Arguments of `dlq`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  afterwrite dlq tail --group email                     follow new dead letters of a group
  afterwrite dlq list --group email --state open        what waits for somebody
  afterwrite dlq show 3f2a…                             why, where from, what became of it
  afterwrite dlq replay 3f2a… --wait                    send one back and wait for the end
  afterwrite dlq replay --group email --class timeout --since 2h --dry-run
  afterwrite dlq discard 3f2a… --reason 'test data'     never run it
  afterwrite dlq export --group email --to email.jsonl  with the records; `dlq import` puts them back

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
    List(list::ListArgs),
    /// Show one dead letter: why, where from, what became of it, and with --values its event
    Show(show::ShowArgs),
    /// Send dead letters back to the handler that failed
    Replay(replay::ReplayArgs),
    /// Decide that dead letters are never run again, and say why
    Discard(discard::DiscardArgs),
    /// Print dead letters with their records, one JSON object a line
    Export(export::ExportArgs),
    /// Put exported dead letters back
    Import(import::ImportArgs),
}

/// Runs a `dlq` command.
///
/// # Errors
/// When Postgres or the broker fails, or there is no such letter.
pub async fn run(args: &DlqArgs, config: &Config, output: Output) -> Result<(), Failure> {
    match &args.command {
        DlqCommand::Tail(args) => tail::run(args, config, output).await,
        DlqCommand::List(args) => list::run(args, config, output).await,
        DlqCommand::Show(args) => show::run(args, config, output).await,
        DlqCommand::Replay(args) => Box::pin(replay::run(args, config, output)).await,
        DlqCommand::Discard(args) => discard::run(args, config, output).await,
        DlqCommand::Export(args) => Box::pin(export::run(args, config, output)).await,
        DlqCommand::Import(args) => Box::pin(import::run(args, config, output)).await,
    }
}

/// Letters by group, handler and class.
fn counted(letters: &[LetterRow]) -> Vec<Count> {
    let mut counts = BTreeMap::new();
    for letter in letters {
        *counts
            .entry((&letter.group_name, &letter.handler, &letter.class))
            .or_insert(0) += 1;
    }
    let count = |((group, handler, class), letters): ((&String, &String, &String), i64)| Count {
        group_name: group.clone(),
        handler: handler.clone(),
        class: class.clone(),
        letters,
    };
    counts.into_iter().map(count).collect()
}

fn counts_in_words(heading: &str, counts: &[Count]) -> String {
    let lines = counts.iter().map(|count| format!("\n  {count}"));
    std::iter::once(heading.to_owned()).chain(lines).collect()
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

/// Exit code 3 when whatever keeps the letter was away, 1 when the letter is.
fn unreadable(error: kept::Error) -> Failure {
    match error.is_unreachable() {
        true => Failure::unreachable(error),
        false => Failure::failed(error),
    }
}

/// A group that Postgres does not know never ran: its letters would be waited for without end, and that it has none says
/// nothing.
async fn refuse_unknown(pool: &sqlx::PgPool, group: &str) -> Result<(), Failure> {
    let known = known::read(pool).await.map_err(LookFailed).map_err(Failure::failed)?;
    match known.contains_key(group) {
        true => Ok(()),
        false => Err(Failure::failed(NoGroup::of(group, &known))),
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

/// The beginning of an error, in one line.
fn shortened(error: &str, chars_max: usize) -> String {
    let line = |character: char| if character.is_control() { ' ' } else { character };
    match error.chars().nth(chars_max) {
        None => error.chars().map(line).collect(),
        Some(_) => error.chars().take(chars_max).map(line).chain(['…']).collect(),
    }
}
