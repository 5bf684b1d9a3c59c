//! `afterwrite fraud show`: one detection, with all that helps to decide.

use clap::Args;
use uuid::Uuid;

use crate::app;
use crate::cli::fraud::{ReadFailed, list};
use crate::cli::output::{self, Output};
use crate::cli::{Failure, database};
use crate::config::Config;
use crate::handlers::fraud::review::{self, Detail};

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  afterwrite fraud show 7d4f0c2e-6a51-4d0e-9c43-0d7c1f0a2b11

Evidence holds hashes: two detections with the same hash are about the same device or address.")]
pub(super) struct ShowArgs {
    /// The detection, as `afterwrite fraud list` names it
    detection: Uuid,
}

#[derive(Debug, thiserror::Error)]
#[error("there is no detection {0}; `afterwrite fraud list --all` shows those there are")]
struct Unknown(Uuid);

pub(super) async fn run(args: &ShowArgs, config: &Config, output: Output) -> Result<(), Failure> {
    let pool = database::connect(config).await?;
    let read = review::show(&pool, args.detection, app::waitlist::hold_at(config)).await;
    match read.map_err(ReadFailed).map_err(Failure::failed)? {
        None => Err(Failure::failed(Unknown(args.detection))),
        Some(detail) => output.print(&detail, in_words),
    }
}

fn in_words(detail: &Detail) -> String {
    let Detail { listed, .. } = detail;
    let decided = match (&listed.reviewed_by, listed.reviewed_at) {
        (Some(by), Some(at)) => format!("{} by {by}", at.format("%Y-%m-%d %H:%M:%S")),
        _ => "-".to_owned(),
    };
    let facts = [
        ("detection", listed.id.to_string()),
        (
            "campaign",
            format!(
                "{} {}",
                listed.campaign_slug.as_deref().unwrap_or("-"),
                listed.campaign_id
            ),
        ),
        ("user", listed.user_id.to_string()),
        ("type", listed.kind.clone()),
        ("sure", format!("{} %", listed.confidence_percent)),
        ("status", listed.status.clone()),
        ("found at", listed.created_at.format("%Y-%m-%d %H:%M:%S").to_string()),
        ("decided", decided),
        ("notes", detail.notes.clone().unwrap_or_else(|| "-".to_owned())),
        ("evidence", detail.evidence.to_string()),
    ];
    let mut text: String = facts
        .iter()
        .map(|(name, value)| format!("{name:<10} {value}\n"))
        .collect();
    text.push_str("\nat stake\n");
    text.push_str(&at_stake(detail));
    if !detail.others.is_empty() {
        text.push_str("\n\nothers about this user\n");
        text.push_str(&list::table(&detail.others));
    }
    text
}

fn at_stake(detail: &Detail) -> String {
    if detail.referrals.is_empty() {
        return "nobody referred this user: no credit depends on it".to_owned();
    }
    let names = ["referral", "credit of", "status", "suspicion", "credit"];
    let rows = detail.referrals.iter().map(|referral| {
        [
            referral.referral_id.to_string(),
            referral.referrer_id.to_string(),
            referral.status.clone(),
            format!("{} %", referral.suspicion_percent),
            if referral.is_held { "held" } else { "not held" }.to_owned(),
        ]
    });
    output::table(names, rows)
}
