//! `afterwrite fraud list`: detections, newest first.

use clap::Args;
use serde::Serialize;
use uuid::Uuid;

use crate::cli::fraud::ReadFailed;
use crate::cli::output::{self, Output};
use crate::cli::{Failure, database};
use crate::config::Config;
use crate::handlers::fraud::review::{self, Filter, Listed, STATES, TYPES};

/// What waits for somebody.
const PENDING: &str = "pending";

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  afterwrite fraud list
  afterwrite fraud list --status confirmed --status false_positive --type velocity
  afterwrite fraud list --all --user 5b6f… --output json | jq '.detections[].id'")]
pub(super) struct ListArgs {
    /// Of this campaign
    #[arg(long, value_name = "ID")]
    campaign: Option<Uuid>,
    /// About this user: of a referral, the friend
    #[arg(long, value_name = "ID")]
    user: Option<Uuid>,
    /// Of this type
    #[arg(long = "type", value_name = "TYPE", value_parser = TYPES)]
    types: Vec<String>,
    /// In this state instead of pending
    #[arg(long = "status", value_name = "STATUS", value_parser = STATES)]
    states: Vec<String>,
    /// In whatever state
    #[arg(long, conflicts_with = "states")]
    all: bool,
    /// At most this many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=100_000))]
    limit: i64,
}

impl ListArgs {
    fn filter(&self) -> Filter {
        let states = match (self.all, self.states.is_empty()) {
            (true, _) => Vec::new(),
            (false, true) => vec![PENDING.to_owned()],
            (false, false) => self.states.clone(),
        };
        Filter {
            campaign: self.campaign,
            user: self.user,
            types: self.types.clone(),
            states,
        }
    }
}

#[derive(Debug, Serialize)]
struct Detections {
    detections: Vec<Listed>,
    /// Detections that --limit left out.
    left_out: i64,
}

pub(super) async fn run(args: &ListArgs, config: &Config, output: Output) -> Result<(), Failure> {
    let pool = database::connect(config).await?;
    let read = review::list(&pool, &args.filter(), args.limit).await;
    let (detections, all) = read.map_err(ReadFailed).map_err(Failure::failed)?;
    let listed = i64::try_from(detections.len()).unwrap_or(i64::MAX);
    let left_out = (all - listed).max(0);
    output.print(&Detections { detections, left_out }, in_words)
}

fn in_words(found: &Detections) -> String {
    if found.detections.is_empty() {
        return "no detections; --all shows those that were decided, too".to_owned();
    }
    let table = table(&found.detections);
    match found.left_out {
        0 => table,
        more => format!("{table}\n\n{more} older detections are not shown: raise --limit, or filter"),
    }
}

pub(super) fn table(detections: &[Listed]) -> String {
    let names = ["detection", "found at", "campaign", "user", "type", "sure", "status"];
    let rows = detections.iter().map(|detection| {
        [
            detection.id.to_string(),
            detection.created_at.format("%Y-%m-%d %H:%M:%S").to_string(),
            detection.campaign_slug.clone().unwrap_or_else(|| "-".to_owned()),
            detection.user_id.to_string(),
            detection.kind.clone(),
            format!("{} %", detection.confidence_percent),
            detection.status.clone(),
        ]
    });
    output::table(names, rows)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: ListArgs,
    }

    #[test]
    fn what_waits_is_listed_unless_other_states_are_asked_for() {
        let states = |words: &[&str]| Line::parse_from([&["list"], words].concat()).args.filter().states;
        assert_eq!(states(&[]), ["pending"]);
        assert_eq!(states(&["--status", "confirmed"]), ["confirmed"]);
        assert!(states(&["--all"]).is_empty());
        assert!(Line::try_parse_from(["list", "--type", "velocty"]).is_err());
    }
}
