//! `afterwrite dlq replay`: sends letters back to the handler that failed, and to no other.

use std::time::Duration;

use clap::Args;
use serde::Serialize;
use sqlx::postgres::PgPool;
use tokio::time::MissedTickBehavior;

use crate::app;
use crate::cli::dlq::{LookFailed, find, unreadable};
use crate::cli::output::Output;
use crate::cli::{Failure, database};
use crate::config::Config;
use crate::dead_letter::state::{self, LetterRow, short_id};
use crate::dead_letter::{reader, requests};

/// Letters that one call sends back at most.
const LETTERS_MAX: i64 = 100_000;

/// Unreadable letters that are named to people; JSON names all of them.
const NAMED_MAX: usize = 10;

#[derive(Debug, Args)]
pub(super) struct ReplayArgs {
    /// Ids of letters, or beginnings of them
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    letters: Vec<String>,
    /// All open letters of a group
    #[arg(long, requires = "group")]
    all: bool,
    /// The group of --all
    #[arg(long, requires = "all", conflicts_with = "letters")]
    group: Option<String>,
    /// Wait until the replays have ended; fails when one of them was buried again
    #[arg(long)]
    wait: bool,
    /// How long --wait waits
    #[arg(long, default_value_t = 120, value_name = "SECONDS", requires = "wait")]
    wait_s: u64,
}

#[derive(Debug, Serialize)]
struct Report {
    requested: usize,
    /// Letters that were not open any more.
    passed_over: Vec<String>,
    /// Letters whose bytes are not in their topic any more: they stay open.
    unreadable: Vec<String>,
    healed: Option<usize>,
    buried_again: Option<usize>,
}

#[derive(Debug, thiserror::Error)]
enum ReplayFailed {
    #[error("the replay could not be requested")]
    Asked(#[source] sqlx::Error),
    #[error("{open} replays had not ended after {seconds} s: does a worker run the group? They stay requested")]
    Late { open: usize, seconds: u64 },
    #[error("{0} replays were buried again: `afterwrite dlq list --state open` shows their new letters")]
    BuriedAgain(usize),
    #[error(
        "{0} letters could not be sent back, because their bytes are not in their topic any more: retention removed \
         them, or the topic was deleted or made anew. They stay open; `afterwrite dlq show ID` says what failed"
    )]
    Unreadable(usize),
}

pub(super) async fn run(args: &ReplayArgs, config: &Config, output: Output) -> Result<(), Failure> {
    let pool = database::connect(config).await?;
    let letters = chosen(args, config, &pool).await?;
    let by = std::env::var("USER").unwrap_or_else(|_| "afterwrite dlq replay".to_owned());
    let Requested {
        ids,
        passed_over,
        unreadable,
        cut_off,
    } = request(config, &pool, letters, &by).await?;
    let mut report = Report {
        requested: ids.len(),
        passed_over,
        unreadable,
        healed: None,
        buried_again: None,
    };
    if args.wait && cut_off.is_none() {
        let ended = wait(&pool, &ids, args.wait_s).await?;
        report.healed = Some(ended.0);
        report.buried_again = Some(ended.1);
    }
    output.print(&report, in_words)?;
    match (cut_off, report.buried_again, report.unreadable.len()) {
        (Some(failure), _, _) => Err(failure),
        (None, Some(count), _) if count > 0 => Err(Failure::failed(ReplayFailed::BuriedAgain(count))),
        (None, _, count) if count > 0 => Err(Failure::failed(ReplayFailed::Unreadable(count))),
        _ => Ok(()),
    }
}

/// What became of the letters that were to go back.
#[derive(Debug, Default)]
struct Requested {
    ids: Vec<i64>,
    passed_over: Vec<String>,
    unreadable: Vec<String>,
    /// Why the letters after these were not tried.
    cut_off: Option<Failure>,
}

/// Requests the replay of each letter. One whose bytes are gone holds no other back; a broker that went away does.
async fn request(config: &Config, pool: &PgPool, letters: Vec<LetterRow>, by: &str) -> Result<Requested, Failure> {
    let places = letters.iter().map(LetterRow::stored).collect();
    let mut records = reader::read_all(app::options::dead_letter_topics(config), places);
    let mut requested = Requested::default();
    for letter in letters {
        let record = match records.recv().await.unwrap_or(Err(reader::Error::Abandoned)) {
            Ok(record) => record,
            Err(reader::Error::Gone(_)) => {
                requested.unreadable.push(letter.letter_id);
                continue;
            }
            Err(error) => {
                requested.cut_off = Some(unreadable(error));
                break;
            }
        };
        let asked = requests::ask(pool, &letter, &record, by).await;
        match asked.map_err(ReplayFailed::Asked).map_err(Failure::failed)? {
            Some(id) => requested.ids.push(id),
            None => requested.passed_over.push(letter.letter_id),
        }
    }
    Ok(requested)
}

async fn chosen(args: &ReplayArgs, config: &Config, pool: &PgPool) -> Result<Vec<LetterRow>, Failure> {
    if let Some(group) = args.group.as_ref().filter(|_| args.all) {
        let group = config.group_name(group);
        let listed = state::list(pool, Some(&group), Some("open"), LETTERS_MAX).await;
        let mut letters = listed.map_err(LookFailed).map_err(Failure::failed)?;
        // Oldest first: letters of one key go back in the order in which they were written.
        letters.reverse();
        return Ok(letters);
    }
    let mut letters = Vec::with_capacity(args.letters.len());
    for beginning in &args.letters {
        letters.push(find(pool, beginning).await?);
    }
    Ok(letters)
}

/// Waits until all requests have ended; answers how many healed and how many were buried again.
async fn wait(pool: &PgPool, ids: &[i64], seconds: u64) -> Result<(usize, usize), Failure> {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(seconds);
    let mut looks = tokio::time::interval(Duration::from_millis(100));
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let states = requests::states(pool, ids)
            .await
            .map_err(LookFailed)
            .map_err(Failure::failed)?;
        let count = |wanted: &str| states.iter().filter(|state| *state == wanted).count();
        let (healed, failed) = (count("done"), count("failed"));
        if healed + failed == ids.len() {
            return Ok((healed, failed));
        }
        if tokio::time::Instant::now() >= deadline {
            return Err(Failure::failed(ReplayFailed::Late {
                open: ids.len() - healed - failed,
                seconds,
            }));
        }
    }
}

fn in_words(report: &Report) -> String {
    let mut text = format!("{} replays requested", report.requested);
    if let (Some(healed), Some(again)) = (report.healed, report.buried_again) {
        text.push_str(&format!("; {healed} healed, {again} buried again"));
    }
    if !report.passed_over.is_empty() {
        text.push_str(&format!(
            "; {} letters were not open and were passed over",
            report.passed_over.len()
        ));
    }
    if !report.unreadable.is_empty() {
        let named = report.unreadable.iter().take(NAMED_MAX).map(|id| short_id(id));
        let more = match report.unreadable.len().checked_sub(NAMED_MAX) {
            Some(more) if more > 0 => format!(" and {more} more"),
            _ => String::new(),
        };
        text.push_str(&format!(
            "; {} letters are not in their topic any more: {}{more}",
            report.unreadable.len(),
            named.collect::<Vec<_>>().join(", ")
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: ReplayArgs,
    }

    #[test]
    fn what_would_be_ignored_is_refused() {
        for (words, accepted) in [
            (&["x", "3f2a"][..], true),
            (&["x", "--all", "--group", "email"], true),
            (&["x", "3f2a", "--wait", "--wait-s", "5"], true),
            (&["x", "3f2a", "--group", "email"], false),
            (&["x", "3f2a", "--wait-s", "5"], false),
            (&["x", "--all"], false),
        ] {
            assert_eq!(Line::try_parse_from(words).is_ok(), accepted, "{words:?}");
        }
    }

    #[test]
    fn unreadable_letters_are_named_up_to_a_limit() {
        let report = Report {
            requested: 1,
            passed_over: Vec::new(),
            unreadable: (0..12).map(|number| format!("{number:016}")).collect(),
            healed: None,
            buried_again: None,
        };
        let words = in_words(&report);
        assert!(
            words.contains("12 letters") && words.contains("000000000000,"),
            "{words}"
        );
        assert!(words.ends_with("and 2 more"), "{words}");
    }
}
