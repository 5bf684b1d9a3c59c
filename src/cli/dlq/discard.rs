//! `afterwrite dlq discard`: letters that nobody will ever run again, and why.

use clap::Args;
use serde::Serialize;

use crate::cli::dlq::chosen::{Chosen, Letters};
use crate::cli::dlq::{LookFailed, counted};
use crate::cli::operator::by;
use crate::cli::output::{self, Output};
use crate::cli::{Failure, database};
use crate::config::Config;
use crate::dead_letter::discards::{self, Discarded};
use crate::dead_letter::filter::{self, Count};
use crate::dead_letter::state::{LetterRow, OPEN, short_id};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  afterwrite dlq discard 3f2a… --reason 'test data of 24 November'
  afterwrite dlq discard --group email --class permanent --until 30d --reason 'older than the campaign' --dry-run

Only open letters can be discarded, and parked ones by their ids or with --state parked. Their events count as settled from then on, also when they are delivered again.
`dlq show` says who discarded a letter, when and why.")]
pub(super) struct DiscardArgs {
    #[command(flatten)]
    chosen: Letters,
    /// Why; it is kept with the letters
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    reason: String,
    /// Only say how many there are, by handler and class
    #[arg(long)]
    dry_run: bool,
}

fn reason(text: &str) -> Result<String, &'static str> {
    match text.trim() {
        "" => Err("say why: whoever asks later has nothing else"),
        _ if text.contains('\0') => Err("a text cannot contain the character NUL"),
        reason => Ok(reason.to_owned()),
    }
}

#[derive(Debug, Serialize)]
struct Report {
    dry_run: bool,
    reason: String,
    /// What would be discarded, by handler and class.
    counts: Vec<Count>,
    discarded: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
enum DiscardFailed {
    #[error("the letters could not be discarded; nothing was changed")]
    Discarded(#[source] sqlx::Error),
    #[error("nothing was discarded, because only open and parked letters can be: {}", in_words(.0))]
    NotOpen(Vec<(String, String)>),
}

fn in_words(letters: &[(String, String)]) -> String {
    let said = letters.iter().map(|(id, state)| match state.as_str() {
        "replaying" => format!("{} is being replayed, wait for its end", short_id(id)),
        state => format!("{} is {state} already", short_id(id)),
    });
    said.collect::<Vec<_>>().join("; ")
}

pub(super) async fn run(args: &DiscardArgs, config: &Config, output: Output) -> Result<(), Failure> {
    let pool = database::connect(config).await?;
    let chosen = args.chosen.open(config, &pool, "discarded").await?;
    let mut report = Report {
        dry_run: args.dry_run,
        reason: args.reason.clone(),
        counts: Vec::new(),
        discarded: Vec::new(),
    };
    if args.dry_run {
        report.counts = match &chosen {
            Chosen::Letters(letters) => {
                let others = letters.iter().filter(|letter| letter.state != OPEN);
                let others: Vec<_> = others
                    .map(|letter| (letter.letter_id.clone(), letter.state.clone()))
                    .collect();
                if !others.is_empty() {
                    return Err(Failure::failed(DiscardFailed::NotOpen(others)));
                }
                counted(letters)
            }
            Chosen::Filter(open) => filter::counts(&pool, open)
                .await
                .map_err(LookFailed)
                .map_err(Failure::failed)?,
        };
        return output.print(&report, |report| {
            let letters: i64 = report.counts.iter().map(|count| count.letters).sum();
            super::counts_in_words(
                &format!("{} would be discarded", output::counted(letters, "letter")),
                &report.counts,
            )
        });
    }
    let chosen = match chosen {
        Chosen::Letters(letters) => discards::Chosen::Ids(
            letters
                .into_iter()
                .map(|LetterRow { letter_id, .. }| letter_id)
                .collect(),
        ),
        Chosen::Filter(open) => discards::Chosen::Filter(open),
    };
    let discarded = discards::discard(&pool, &chosen, &by(&pool).await?, &args.reason).await;
    match discarded.map_err(DiscardFailed::Discarded).map_err(Failure::failed)? {
        Discarded::All(ids) => report.discarded = ids,
        Discarded::NotOpen(others) => return Err(Failure::failed(DiscardFailed::NotOpen(others))),
    }
    output.print(&report, |report| {
        format!("{} discarded", output::counted(report.discarded.len(), "letter"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_a_text_that_says_something() {
        assert_eq!(reason("  a typo "), Ok("a typo".to_owned()));
        for text in ["", "  ", "a\0b"] {
            assert!(reason(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn letters_that_stand_in_the_way_are_named_with_what_to_do() {
        let letters =
            [("3f2a", "replaying"), ("77aa", "replayed")].map(|(id, state)| (id.to_owned(), state.to_owned()));
        assert_eq!(
            in_words(&letters),
            "3f2a is being replayed, wait for its end; 77aa is replayed already"
        );
    }
}
