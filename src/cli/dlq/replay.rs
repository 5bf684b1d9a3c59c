//! `afterwrite dlq replay`: sends letters back to the handler that failed, and to no other.

use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio::time::MissedTickBehavior;

use crate::cli::dlq::{LookFailed, find, show};
use crate::cli::output::Output;
use crate::cli::{Failure, database};
use crate::config::Config;
use crate::dead_letter::requests;
use crate::dead_letter::state::{self, LetterRow};

/// Letters that one call sends back at most.
const LETTERS_MAX: i64 = 100_000;

#[derive(Debug, Args)]
pub(super) struct ReplayArgs {
    /// Ids of letters, or beginnings of them
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    letters: Vec<String>,
    /// All open letters of a group
    #[arg(long, requires = "group")]
    all: bool,
    /// The group of --all
    #[arg(long)]
    group: Option<String>,
    /// Wait until the replays have ended; fails when one of them was buried again
    #[arg(long)]
    wait: bool,
    /// How long --wait waits
    #[arg(long, default_value_t = 120, value_name = "SECONDS")]
    wait_s: u64,
}

#[derive(Debug, Serialize)]
struct Report {
    requested: usize,
    /// Letters that were not open any more.
    passed_over: Vec<String>,
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
}

pub(super) async fn run(args: &ReplayArgs, config: &Config, output: Output) -> Result<(), Failure> {
    let pool = database::connect(config).await?;
    let letters = chosen(args, config, &pool).await?;
    let by = std::env::var("USER").unwrap_or_else(|_| "afterwrite dlq replay".to_owned());
    let mut ids = Vec::with_capacity(letters.len());
    let mut passed_over = Vec::new();
    for letter in letters {
        let stored = show::read(config, &letter).await?;
        match requests::ask(&pool, &letter, &stored, &by)
            .await
            .map_err(ReplayFailed::Asked)
            .map_err(Failure::failed)?
        {
            Some(id) => ids.push(id),
            None => passed_over.push(letter.letter_id),
        }
    }
    let mut report = Report {
        requested: ids.len(),
        passed_over,
        healed: None,
        buried_again: None,
    };
    if args.wait {
        let ended = wait(&pool, &ids, args.wait_s).await?;
        report.healed = Some(ended.0);
        report.buried_again = Some(ended.1);
    }
    output.print(&report, in_words)?;
    match report.buried_again {
        Some(count) if count > 0 => Err(Failure::failed(ReplayFailed::BuriedAgain(count))),
        _ => Ok(()),
    }
}

async fn chosen(args: &ReplayArgs, config: &Config, pool: &sqlx::PgPool) -> Result<Vec<LetterRow>, Failure> {
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
async fn wait(pool: &sqlx::PgPool, ids: &[i64], seconds: u64) -> Result<(usize, usize), Failure> {
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
    text
}
