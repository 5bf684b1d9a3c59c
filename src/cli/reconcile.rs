//! `afterwrite reconcile`: computes from the facts what the handlers keep up to date, and writes what differs.

use chrono::{DateTime, Utc};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use sqlx::postgres::PgPool;
use uuid::Uuid;

use crate::app;
use crate::cli::output::{self, Output};
use crate::cli::{Failure, database};
use crate::config::Config;
use crate::groups::moves::moment;
use crate::schedule::reconcile::{self, Campaign, Reconciling, What};

/// Arguments of `reconcile`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  afterwrite reconcile positions --dry-run           how many places are not as the facts say
  afterwrite reconcile rewards --campaign 6f0a…      of one campaign
  afterwrite reconcile fraud --from 2026-07-01T00:00:00Z --to 2026-07-08T00:00:00Z
  afterwrite reconcile analytics                     every hour since each campaign began

It may run beside the workers, and be repeated: what is right stays as it is. --from and --to choose users by when they came
(rewards, fraud), or hours (analytics). No welcome or verification mail is sent; a reward that is given is announced.")]
pub struct ReconcileArgs {
    /// What is computed
    what: Subject,
    /// One campaign only, by its id
    #[arg(long, value_name = "CAMPAIGN")]
    campaign: Option<Uuid>,
    /// From this time on
    #[arg(long, value_name = "TIME", value_parser = moment)]
    from: Option<DateTime<Utc>>,
    /// Before this time
    #[arg(long, value_name = "TIME", value_parser = moment)]
    to: Option<DateTime<Utc>>,
    /// Count what differs, and change nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Subject {
    /// Places of active campaigns
    Positions,
    /// Rewards, best places first
    Rewards,
    /// Fraud checks
    Fraud,
    /// Figures by hour
    Analytics,
}

impl Subject {
    fn what(self) -> What {
        match self {
            Self::Positions => What::Positions,
            Self::Rewards => What::Rewards,
            Self::Fraud => What::Fraud,
            Self::Analytics => What::Analytics,
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum ReconcileFailed {
    #[error("places are computed as they are now: --from and --to do nothing for positions")]
    NoTimes,
    #[error("--to must be later than --from")]
    EmptyTime,
    #[error("there is no campaign {0}, or it is deleted")]
    NoCampaign(Uuid),
    #[error("the campaigns could not be read from postgres")]
    Read(#[source] sqlx::Error),
    #[error("campaign {campaign} could not be reconciled; what was done until then is done, repeat the command")]
    Page {
        campaign: Uuid,
        #[source]
        source: sqlx::Error,
    },
}

/// What was done.
#[derive(Debug, Serialize)]
struct Report {
    what: String,
    dry_run: bool,
    checked: u64,
    differing: u64,
    campaigns: Vec<OfCampaign>,
}

#[derive(Debug, Serialize)]
struct OfCampaign {
    campaign: Uuid,
    slug: String,
    checked: u64,
    differing: u64,
    left_out: Option<&'static str>,
}

/// Runs the command.
///
/// # Errors
/// Exit code 2 for arguments that contradict, 3 when Postgres cannot be reached, 1 when it fails in the middle.
pub async fn run(args: &ReconcileArgs, config: &Config, output: Output) -> Result<(), Failure> {
    let has_times = args.from.is_some() || args.to.is_some();
    if args.what == Subject::Positions && has_times {
        return Err(Failure::usage(ReconcileFailed::NoTimes));
    }
    if args.from.zip(args.to).is_some_and(|(from, to)| from >= to) {
        return Err(Failure::usage(ReconcileFailed::EmptyTime));
    }
    let reconciling = Reconciling {
        what: args.what.what(),
        granting: app::schedule::granting(config).map_err(Failure::usage)?,
        from: args.from,
        until: args.to,
        dry_run: args.dry_run,
    };
    let pool = database::connect(config).await?;
    let campaigns = reconcile::campaigns(&pool, args.campaign).await;
    let campaigns = campaigns.map_err(|error| Failure::failed(ReconcileFailed::Read(error)))?;
    if let (Some(campaign), true) = (args.campaign, campaigns.is_empty()) {
        return Err(Failure::usage(ReconcileFailed::NoCampaign(campaign)));
    }
    let bar = progress(campaigns.len() as u64);
    let mut report = Report {
        what: format!("{:?}", args.what).to_lowercase(),
        dry_run: args.dry_run,
        checked: 0,
        differing: 0,
        campaigns: Vec::with_capacity(campaigns.len()),
    };
    for campaign in campaigns {
        let done = of_campaign(&reconciling, &pool, campaign, &bar).await?;
        report.checked += done.checked;
        report.differing += done.differing;
        report.campaigns.push(done);
        bar.inc(1);
    }
    bar.finish_and_clear();
    output.print(&report, table)
}

async fn of_campaign(
    reconciling: &Reconciling,
    pool: &PgPool,
    campaign: Campaign,
    bar: &ProgressBar,
) -> Result<OfCampaign, Failure> {
    let left_out = campaign.left_out(reconciling.what);
    let mut done = OfCampaign {
        campaign: campaign.id,
        slug: campaign.slug.clone(),
        checked: 0,
        differing: 0,
        left_out,
    };
    let mut cursor = None;
    while left_out.is_none() {
        let page = reconciling.page(pool, &campaign, cursor).await;
        let campaign = campaign.id;
        let page = page.map_err(|source| Failure::failed(ReconcileFailed::Page { campaign, source }))?;
        done.checked += page.checked;
        done.differing += page.differing;
        bar.set_message(format!(
            "{}: {} checked, {} differ",
            done.slug, done.checked, done.differing
        ));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    Ok(done)
}

/// How far it is, on a terminal; nothing elsewhere.
fn progress(campaigns: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} campaigns {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(campaigns).with_style(style)
}

fn table(report: &Report) -> String {
    let written = if report.dry_run {
        "differ"
    } else {
        "differed and were written"
    };
    let of_what = match report.what.as_str() {
        "analytics" => "hours",
        _ => "users",
    };
    let summary = format!(
        "{}: {} {of_what} checked, {} rows {written}",
        report.what, report.checked, report.differing
    );
    if report.campaigns.is_empty() {
        return summary;
    }
    let rows = report.campaigns.iter().map(|done| {
        [
            done.campaign.to_string(),
            done.slug.clone(),
            done.checked.to_string(),
            done.differing.to_string(),
            done.left_out.unwrap_or("-").to_owned(),
        ]
    });
    let campaigns = output::table(["campaign", "slug", "checked", "differ", "left out"], rows);
    format!("{campaigns}\n\n{summary}")
}
