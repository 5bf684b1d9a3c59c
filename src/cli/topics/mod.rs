//! `afterwrite topics`: the topics that the source and the groups need, beside those that the brokers have.

mod wanted;

mod found;

mod steps;

mod making;

mod acls;

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use self::acls::{Acl, Principals};
use self::found::Found;
use self::making::make;
use self::steps::{Impossible, Loss, Planned, plan};
use self::wanted::wanted;
use crate::cli::Failure;
use crate::cli::connector::file::read;
use crate::cli::doctor::expected;
use crate::cli::output::Output;
use crate::cli::program::Program;
use crate::clients::connect::ConnectorConfig;
use crate::config::Config;
use crate::doctor::expected::Expected;

/// Arguments of `topics`.
#[derive(Debug, Args)]
#[command(after_help = "\
What each topic should be like is said by the connector file (topic.creation.default.*, partition.topic.num of
PartitionRouting) and, for dead letters, by [dead_letters]. The worker makes missing topics of dead letters itself, and Kafka
Connect those of tables with their first change: `topics apply` makes all of them before.

Examples:
  afterwrite topics plan                              what is missing or otherwise; changes nothing
  afterwrite topics plan --acls                       what each principal has to be allowed, as commands for kafka-acls.sh
  afterwrite topics apply --replication-factor 3
  afterwrite topics apply --accept-loss retention.ms")]
pub struct TopicsArgs {
    /// What to do
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show what apply would make and change, and what it would lose; changes nothing
    Plan(PlanArgs),
    /// Make what is missing and change what is otherwise; refuses what would lose records or their order
    Apply(ApplyArgs),
}

#[derive(Debug, Args)]
struct FileArgs {
    /// The connector file, or a name that stands for connectors/NAME.json
    #[arg(default_value = "waitlist", value_name = "FILE|NAME")]
    file: String,
    /// Replicas of each topic where the file leaves that to Kafka Connect; the brokers' own default where it is not said
    #[arg(long, value_name = "REPLICAS", value_parser = clap::value_parser!(i32).range(1..=100))]
    replication_factor: Option<i32>,
    /// Do it although records or their order are lost by it, as `topics plan` names it; may be repeated
    #[arg(long = "accept-loss", value_name = "WHAT", value_delimiter = ',', value_enum)]
    accepted: Vec<Accept>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Exit code 0 when an apply would do it, also when it changes something; 1 when it would refuse. For programs: --output json
has steps, losses and impossible.")]
struct PlanArgs {
    #[command(flatten)]
    topics: FileArgs,
    /// Print what each principal has to be allowed instead; asks nobody
    #[arg(long)]
    acls: bool,
    #[command(flatten)]
    principals: Principals,
}

#[derive(Debug, Args)]
struct ApplyArgs {
    #[command(flatten)]
    topics: FileArgs,
}

/// What may be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
pub(super) enum Accept {
    /// Keys move to other partitions, and order across the change is lost
    #[value(name = "partitions")]
    #[serde(rename = "partitions")]
    Partitions,
    /// Records that are older than the new retention are removed
    #[value(name = "retention.ms")]
    #[serde(rename = "retention.ms")]
    Retention,
    /// Records that were kept are removed
    #[value(name = "cleanup.policy")]
    #[serde(rename = "cleanup.policy")]
    Cleanup,
}

impl Accept {
    fn name(self) -> &'static str {
        match self {
            Self::Partitions => "partitions",
            Self::Retention => "retention.ms",
            Self::Cleanup => "cleanup.policy",
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum TopicsFailure {
    #[error(
        "changes are read from the write-ahead log (source.kind = \"wal\"): there are no topics, and letters are in Postgres"
    )]
    NoBrokers,
    #[error(
        "the connector file writes topics under {prefix}, and source.name is {source_name}: name the file of this source, or correct \
         either"
    )]
    Foreign { prefix: String, source_name: String },
    #[error("nothing was changed: {}", .0.join(". "))]
    Refused(Vec<String>),
    #[error("{done} of {all} steps were done, and not these: {}; repeat the command", .failed.join("; "))]
    Half {
        done: usize,
        all: usize,
        failed: Vec<String>,
    },
}

/// What is printed.
#[derive(Debug, Serialize)]
struct Report {
    /// `would be done`, or `done`.
    result: &'static str,
    /// Topics that are wanted.
    topics: usize,
    steps: Vec<Planned>,
    /// What no apply does.
    impossible: Vec<Impossible>,
    /// Topics whose settings may not be read, so that nothing is said of them.
    unread: Vec<String>,
    /// Subscribed patterns: what they stand for is known to the brokers alone.
    patterns: Vec<String>,
}

impl Report {
    fn in_words(&self) -> String {
        let mut lines = Vec::new();
        if self.steps.is_empty() && self.impossible.is_empty() {
            lines.push(format!("{} topics are as they should be", self.topics));
        }
        for planned in &self.steps {
            lines.push(planned.step.in_words());
            if let Some(loss) = &planned.loss {
                lines.push(format!("    it would lose data: {}", loss.in_words()));
            }
        }
        lines.extend(
            self.impossible
                .iter()
                .map(|one| format!("impossible: {}", one.in_words())),
        );
        if !self.unread.is_empty() {
            lines.push(format!("the settings of {} may not be read", self.unread.join(", ")));
        }
        if !self.patterns.is_empty() {
            lines.push(format!("topics of {} are not looked at", self.patterns.join(", ")));
        }
        lines.join("\n")
    }
}

/// Shows or does what topics need.
///
/// # Errors
/// Exit code 2 for a file of another source, 3 when no broker answers, 1 when something is refused.
pub async fn run(args: &TopicsArgs, config: &Config, program: &Program, output: Output) -> Result<(), Failure> {
    let topics = match &args.action {
        Action::Plan(args) => &args.topics,
        Action::Apply(args) => &args.topics,
    };
    let expected = expected(None, config, program)?;
    let connector = read(&topics.file)?.config;
    of_this_source(&connector, &expected)?;
    let wanted = wanted(&connector, &expected, topics.replication_factor);
    if let Action::Plan(PlanArgs {
        acls: true, principals, ..
    }) = &args.action
    {
        let acls = acls::needed(&wanted, &connector, &expected, principals);
        return output.print(&acls, |acls| Acl::all_in_words(acls));
    }
    let found = Found::ask(config, &wanted).await?;
    let (steps, impossible) = plan(&wanted.topics, &found);
    let mut report = Report {
        result: "would be done",
        topics: wanted.topics.len(),
        unread: found.unread(),
        patterns: wanted.patterns,
        steps,
        impossible,
    };
    let refused = refused(&report, &topics.accepted);
    match &args.action {
        Action::Plan(_) => {
            output.print(&report, Report::in_words)?;
            refused
        }
        Action::Apply(_) => {
            refused?;
            make(config, &report.steps, &found).await?;
            report.result = "done";
            output.print(&report, Report::in_words)
        }
    }
}

fn of_this_source(connector: &ConnectorConfig, expected: &Expected) -> Result<(), Failure> {
    if expected.brokers.is_none() {
        return Err(Failure::usage(TopicsFailure::NoBrokers));
    }
    let prefix = connector.get("topic.prefix").cloned().unwrap_or_default();
    match crate::doctor::lints::is_of_source(connector, expected) {
        true => Ok(()),
        false => Err(Failure::usage(TopicsFailure::Foreign {
            prefix,
            source_name: expected.source.clone(),
        })),
    }
}

/// Refuses what cannot be done, and what loses something that was not accepted.
fn refused(report: &Report, accepted: &[Accept]) -> Result<(), Failure> {
    let lost: Vec<&Loss> = report
        .steps
        .iter()
        .filter_map(|planned| planned.loss.as_ref())
        .filter(|loss| !accepted.contains(&loss.accept))
        .collect();
    let mut said: Vec<String> = report.impossible.iter().map(Impossible::in_words).collect();
    said.extend(lost.iter().map(|loss| loss.in_words()));
    if said.is_empty() {
        return Ok(());
    }
    let mut names: Vec<&str> = lost.iter().map(|loss| loss.accept.name()).collect();
    names.sort_unstable();
    names.dedup();
    if !names.is_empty() {
        said.push(format!("To do it all the same: --accept-loss {}", names.join(",")));
    }
    Err(Failure::failed(TopicsFailure::Refused(said)))
}
