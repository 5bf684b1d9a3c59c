//! `afterwrite dlq list`: what is known of dead letters, without what is in them.

use clap::Args;
use serde::Serialize;

use crate::cli::dlq::chosen::FilterArgs;
use crate::cli::dlq::{LookFailed, refuse_unknown, shortened};
use crate::cli::output::{self, Output};
use crate::cli::{Failure, database};
use crate::config::Config;
use crate::dead_letter::filter;
use crate::dead_letter::state::LetterRow;

/// Longest error text in a table; `dlq show` has all of it.
const ERROR_CHARS_MAX: usize = 60;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  afterwrite dlq list --group email --state open
  afterwrite dlq list --class timeout --since 2h
  afterwrite dlq list --table public.waitlist_users --key id=7")]
pub(super) struct ListArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// At most this many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=100_000))]
    limit: i64,
}

#[derive(Debug, Serialize)]
struct Letters {
    letters: Vec<LetterRow>,
    /// Letters that --limit left out.
    left_out: i64,
}

pub(super) async fn run(args: &ListArgs, config: &Config, output: Output) -> Result<(), Failure> {
    let pool = database::connect(config).await?;
    let chosen = args.filter.filter(config);
    let looked = async {
        let letters = filter::newest(&pool, &chosen, args.limit).await?;
        let counts = filter::counts(&pool, &chosen).await?;
        Ok((letters, counts.iter().map(|count| count.letters).sum::<i64>()))
    };
    let (letters, all) = looked.await.map_err(LookFailed).map_err(Failure::failed)?;
    if all == 0
        && let Some(group) = &chosen.group
    {
        refuse_unknown(&pool, group).await?;
    }
    let listed = i64::try_from(letters.len()).unwrap_or(i64::MAX);
    let left_out = (all - listed).max(0);
    output.print(&Letters { letters, left_out }, in_words)
}

fn in_words(listed: &Letters) -> String {
    let table = letters_table(&listed.letters);
    match listed.left_out {
        0 => table,
        more => format!("{table}\n\n{more} older letters are not shown: raise --limit, or filter"),
    }
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
            shortened(&letter.error, ERROR_CHARS_MAX),
        ]
    });
    output::table(names, rows)
}
