//! `afterwrite connector`: puts connector files into Kafka Connect, shows what runs, lets it rest and go on, deletes.

pub(super) mod file;

mod difference;

mod published;

pub(super) mod loss;

pub(super) mod plan;

mod lint;

mod apply;

mod pausing;

mod status;

mod deleting;

pub(super) mod patience;

pub(super) mod slot;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use self::apply::Report;
use self::deleting::Deleted;
use self::file::{FOLDER, read};
use self::loss::Loss;
use self::pausing::Parts;
use crate::cli::Failure;
use crate::cli::output::Output;
use crate::cli::program::Program;
use crate::clients::connect::{ConnectError, Objection};
use crate::config::Config;

/// Arguments of `connector`.
#[derive(Debug, Args)]
#[command(after_help = "\
A connector file is one flat JSON object, the connector's configuration. The connector is called as its key \"name\"
says, else like the file. ${env:…} and ${file:…} in it are resolved by Connect, not by this command.

Examples:
  afterwrite connector apply                          connectors/waitlist.json
  afterwrite connector apply waitlist-avro            connectors/waitlist-avro.json
  afterwrite connector lint ./theirs.json             what in it loses, corrupts or hides changes
  afterwrite connector plan ./my.json                 what apply would change, key by key; changes nothing
  afterwrite connector apply --accept-loss slot.name  although that loses what the old slot held
  afterwrite connector status --output json
  afterwrite connector restart waitlist --failed-only
  afterwrite connector delete waitlist

What loses changes of the database is refused (a new slot, another topic prefix, a table less, a transform that moves
topics) until its setting is given to --accept-loss; plan says what, why, and how the same is reached without loss. Of
secrets and references no value is printed.")]
pub struct ConnectorArgs {
    /// What to do
    #[command(subcommand)]
    pub action: Action,
}

/// What to do with connectors.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Show what apply would change, key by key, and what it would lose; changes nothing
    Plan(PlanArgs),
    /// Make a connector, or change it to what its file says, and wait until it runs that way and captures
    Apply(ApplyArgs),
    /// Show the state of one connector or of all, with the trace of what failed
    Status {
        /// Name of the connector; all when left out
        name: Option<String>,
    },
    /// Look for settings in a connector file that lose, corrupt or hide changes; asks nobody
    Lint(LintArgs),
    /// Let a connector rest where it is; Postgres keeps for its slot what is written meanwhile
    Pause(NamedArgs),
    /// Let a connector that rests or was stopped go on, and wait until it captures
    Resume(NamedArgs),
    /// Start a connector and its tasks again, and wait until it captures
    Restart(RestartArgs),
    /// Delete a connector, and say what remains of it: its replication slot, its topics, its stored position
    Delete(NamedArgs),
}

/// Which connector file.
#[derive(Debug, Args)]
pub struct FileArgs {
    /// A file, or a name that stands for connectors/NAME.json
    #[arg(default_value = "waitlist", value_name = "FILE|NAME")]
    pub file: String,
}

/// What may be lost.
#[derive(Debug, Args)]
pub struct LossArgs {
    /// Lose what changing this setting loses, as `connector plan` names it; may be repeated
    #[arg(long = "accept-loss", value_name = "SETTING", value_delimiter = ',')]
    accepted: Vec<String>,
}

/// Arguments of `connector plan`.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit code 0 when an apply would do it, also when it changes something; 1 when Kafka Connect objects, or data would be lost
that is not accepted. For programs: --output json has result, changes, losses and objections.")]
pub struct PlanArgs {
    #[command(flatten)]
    file: FileArgs,
    #[command(flatten)]
    loss: LossArgs,
}

/// Arguments of `connector lint`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  afterwrite connector lint                           connectors/waitlist.json
  afterwrite connector lint ./theirs.json --output json | jq -r '.findings[] | \"\\(.code) \\(.remedy.text)\"'

Exit code 0 when nothing was found, 4 when there are warnings only, 1 when there is an error. docs/DOCTOR.md explains each
code; `afterwrite doctor` looks for the same in the connector that is deployed. Where topic.prefix is source.name, tables that
handlers wait for, columns that have to be left out, and the modes of [source] count too.")]
pub struct LintArgs {
    #[command(flatten)]
    file: FileArgs,
}

/// Which connector.
#[derive(Debug, Args)]
pub struct NamedArgs {
    /// Name of the connector
    name: String,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Arguments of `connector restart`.
#[derive(Debug, Args)]
pub struct RestartArgs {
    /// Name of the connector
    name: String,
    /// Only its tasks; the connector itself goes on
    #[arg(long, conflicts_with = "failed_only")]
    tasks: bool,
    /// Only what has failed of it
    #[arg(long)]
    failed_only: bool,
    #[command(flatten)]
    loss: LossArgs,
    #[command(flatten)]
    wait: WaitArgs,
}

impl RestartArgs {
    fn parts(&self) -> Parts {
        match (self.tasks, self.failed_only) {
            (true, _) => Parts::Tasks,
            (_, true) => Parts::Failed,
            (false, false) => Parts::All,
        }
    }
}

/// Arguments of `connector apply`.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    #[command(flatten)]
    file: FileArgs,
    #[command(flatten)]
    loss: LossArgs,
    #[command(flatten)]
    wait: WaitArgs,
}

/// How long to wait.
#[derive(Debug, Args)]
pub struct WaitArgs {
    /// Seconds to wait until it is so
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub wait_s: u64,
}

#[derive(Debug, thiserror::Error)]
enum ConnectorFailure {
    #[error("the connector file {} could not be read; name a file, or a connector of the folder {FOLDER}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the connector file {} was not JSON", path.display())]
    Json { path: PathBuf, source: serde_json::Error },
    #[error("the connector file {} was refused: {reason}", path.display())]
    Shape { path: PathBuf, reason: String },
    #[error("kafka connect objected to the configuration, nothing was changed: {}", listed(.0))]
    Objections(Vec<Objection>),
    #[error(
        "connector {name} was not {wanted} within {wait_s} s; it is {state}. Look at `afterwrite connector status` and \
         at the log of kafka connect, or give it more time with --wait-s"
    )]
    NotYet {
        name: String,
        wanted: &'static str,
        wait_s: u64,
        state: String,
    },
    #[error(
        "the connector runs, and its replication slot {name} was not active within {wait_s} s in the database of \
         postgres.url (DATABASE_URL): is that the one it captures? Look at the log of kafka connect, or give it more \
         time with --wait-s"
    )]
    NoSlot { name: String, wait_s: u64 },
    #[error("connector {name} failed: {trace}")]
    Failed { name: String, trace: String },
    #[error("there is no connector {0}")]
    Unknown(String),
    #[error("connector {name} is {state}, and a restart leaves it so: afterwrite connector resume {name}")]
    Rests { name: String, state: String },
    #[error(
        "nothing was changed, because it would lose data: {}. To do it all the same: --accept-loss {}",
        .0.iter().map(Loss::in_words).collect::<Vec<_>>().join(". "),
        .0.iter().map(|loss| loss.accept.as_str()).collect::<Vec<_>>().join(",")
    )]
    Loses(Vec<Loss>),
}

fn listed(objections: &[Objection]) -> String {
    let each = |objection: &Objection| format!("{}: {}", objection.key, objection.errors.join("; "));
    objections.iter().map(each).collect::<Vec<_>>().join("; ")
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Unreachable { .. } | ConnectError::Busy { .. } => Self::unreachable(error),
            ConnectError::Hindered(_) | ConnectError::Authorities(_) => Self::usage(error),
            ConnectError::Client(_) | ConnectError::Refused { .. } | ConnectError::Foreign { .. } => {
                Self::failed(error)
            }
        }
    }
}

/// Does what was asked.
///
/// # Errors
/// Exit code 2 for a wrong file, 3 when Connect cannot be reached, 1 when it refuses or does not get there in time, and when
/// data would be lost that was not accepted.
pub async fn run(args: &ConnectorArgs, config: &Config, program: &Program, output: Output) -> Result<(), Failure> {
    if let Action::Lint(args) = &args.action {
        return lint::lint(read(&args.file.file)?, config, program, output);
    }
    let timeout = Duration::from_millis(config.connect.timeout_ms);
    let client = crate::app::options::connect_client(config, timeout)?;
    let report = match &args.action {
        Action::Plan(args) => {
            let wanted = read(&args.file.file)?;
            return Box::pin(plan::plan(&client, config, wanted, &args.loss.accepted, output)).await;
        }
        Action::Lint(_) => unreachable!("it was done above"),
        Action::Status { name } => return status::status(&client, name.as_deref(), output).await,
        Action::Delete(args) => {
            let deleted = deleting::delete(&client, config, &args.name, args.wait.wait_s).await?;
            return output.print(&deleted, Deleted::in_words);
        }
        Action::Apply(args) => {
            let wanted = read(&args.file.file)?;
            Box::pin(apply::apply(
                &client,
                config,
                wanted,
                &args.loss.accepted,
                args.wait.wait_s,
            ))
            .await?
        }
        Action::Pause(args) => pausing::pause(&client, &args.name, args.wait.wait_s).await?,
        Action::Resume(args) => pausing::resume(&client, config, &args.name, args.wait.wait_s).await?,
        Action::Restart(args) => {
            let accepted = &args.loss.accepted;
            Box::pin(pausing::restart(
                &client,
                config,
                &args.name,
                args.parts(),
                accepted,
                args.wait.wait_s,
            ))
            .await?
        }
    };
    output.print(&report, Report::in_words)
}
