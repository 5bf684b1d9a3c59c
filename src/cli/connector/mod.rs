//! `afterwrite connector`: puts connector files into Kafka Connect, shows what runs, deletes.

pub(super) mod file;

pub(super) mod patience;

pub(super) mod slot;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Serialize;

use self::file::{FOLDER, Wanted, differing, read};
use self::patience::Patience;
use self::slot::Slot;
use crate::cli::Failure;
use crate::cli::output::{Output, table};
use crate::clients::connect::{ConnectClient, ConnectError, ConnectorStatus, Objection, Part};
use crate::config::Config;

/// Arguments of `connector`.
#[derive(Debug, Args)]
#[command(after_help = "\
A connector file is one flat JSON object, the connector's configuration. The connector is called as its key \"name\"
says, else like the file. ${env:…} and ${file:…} in it are resolved by Connect, not by this command.

Examples:
  afterwrite connector apply                          connectors/waitlist.json
  afterwrite connector apply waitlist-avro            connectors/waitlist-avro.json
  afterwrite connector plan ./my.json                 what apply would change
  afterwrite connector status --output json
  afterwrite connector delete waitlist")]
pub struct ConnectorArgs {
    /// What to do
    #[command(subcommand)]
    pub action: Action,
}

/// What to do with connectors.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Show what apply would change; changes nothing
    Plan(FileArgs),
    /// Make a connector, or change it to what its file says, and wait until it runs that way and captures
    Apply(ApplyArgs),
    /// Show the state of one connector or of all, with the trace of what failed
    Status {
        /// Name of the connector; all when left out
        name: Option<String>,
    },
    /// Delete a connector; its replication slot and stored position remain
    Delete {
        /// Name of the connector
        name: String,
        /// How long to wait
        #[command(flatten)]
        wait: WaitArgs,
    },
}

/// Which connector file.
#[derive(Debug, Args)]
pub struct FileArgs {
    /// A file, or a name that stands for connectors/NAME.json
    #[arg(default_value = "waitlist", value_name = "FILE|NAME")]
    pub file: String,
}

/// Arguments of `connector apply`.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    #[command(flatten)]
    file: FileArgs,
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
}

fn listed(objections: &[Objection]) -> String {
    let each = |objection: &Objection| format!("{}: {}", objection.key, objection.errors.join("; "));
    objections.iter().map(each).collect::<Vec<_>>().join("; ")
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Unreachable { .. } | ConnectError::Busy { .. } => Self::unreachable(error),
            ConnectError::Client(_) | ConnectError::Refused { .. } | ConnectError::Foreign { .. } => {
                Self::failed(error)
            }
        }
    }
}

/// Does what was asked.
///
/// # Errors
/// Exit code 2 for a wrong file, 3 when Connect cannot be reached, 1 when it refuses or does not get there in time.
pub async fn run(args: &ConnectorArgs, config: &Config, output: Output) -> Result<(), Failure> {
    let timeout = Duration::from_millis(config.connect.timeout_ms);
    let client = ConnectClient::new(config.connect.url.url().clone(), timeout)?;
    match &args.action {
        Action::Plan(args) => plan(&client, &args.file, output).await,
        Action::Apply(args) => {
            let report = Box::pin(apply(&client, config, &args.file.file, args.wait.wait_s)).await?;
            output.print(&report, Report::in_words)
        }
        Action::Status { name } => status(&client, name.as_deref(), output).await,
        Action::Delete { name, wait } => delete(&client, name, wait.wait_s, output).await,
    }
}

/// What happened, or would happen, to a connector.
#[derive(Debug, Serialize)]
struct Report {
    connector: String,
    /// `created`, `changed` or `unchanged`.
    result: &'static str,
    /// Keys that differ. Never values: they may be secrets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    changed: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<ConnectorStatus>,
    /// Whether what is written now is captured.
    #[serde(skip_serializing_if = "Option::is_none")]
    slot: Option<Slot>,
}

impl Report {
    fn in_words(&self) -> String {
        let mut text = format!("connector {} {}", self.connector, self.result);
        if !self.changed.is_empty() {
            text.push_str(&format!(": {}", self.changed.join(", ")));
        }
        if let Some(status) = &self.status {
            let places: BTreeSet<&str> = status.tasks.iter().map(|task| task.worker_id.as_str()).collect();
            let places: Vec<&str> = places.into_iter().collect();
            text.push_str(&format!("; it runs on {}", places.join(", ")));
        }
        if let Some(slot) = &self.slot {
            text.push_str(&format!("; {}", slot.in_words()));
        }
        text
    }
}

async fn plan(client: &ConnectClient, file: &str, output: Output) -> Result<(), Failure> {
    let wanted = read(file)?;
    let before = client.config(&wanted.name).await?;
    let changed = before
        .as_ref()
        .map(|before| differing(before, &wanted.config))
        .unwrap_or_default();
    let report = Report {
        result: match &before {
            None => "would be created",
            Some(_) if changed.is_empty() => "would be unchanged",
            Some(_) => "would be changed",
        },
        connector: wanted.name,
        changed,
        status: None,
        slot: None,
    };
    output.print(&report, Report::in_words)
}

/// Brings a connector to what its file says.
///
/// Connect answers a new configuration at once and exchanges the tasks some time later; until then it reports the old
/// task as `RUNNING`, and nothing it tells says which configuration a running task has. So a connector that exists is
/// stopped first, until its last task is gone: whatever runs afterwards runs with the new configuration. The position is
/// kept. The configuration is checked before, so that a mistake stops nothing; and whoever is cut off in the middle
/// leaves a stopped connector, which the next apply resumes.
///
/// A task that runs does not capture yet: that begins with its replication slot, which is waited for last.
async fn apply(client: &ConnectClient, config: &Config, file: &str, wait_s: u64) -> Result<Report, Failure> {
    let wanted = read(file)?;
    let name = wanted.name.clone();
    let patience = Patience::new(wait_s);
    // Only this first request finds out whether there is a Connect at all; later ones outlast its restarts.
    let before = match client.config(&name).await {
        Err(ConnectError::Busy { .. }) => patience.insist(|| client.config(&name)).await?,
        answer => answer?,
    };
    let changed = before
        .as_ref()
        .map(|before| differing(before, &wanted.config))
        .unwrap_or_default();
    let result = match &before {
        None => "created",
        Some(_) if changed.is_empty() => "unchanged",
        Some(_) => "changed",
    };
    if result != "unchanged" {
        check(client, &wanted, &patience).await?;
    }
    match result {
        "created" => {
            // A connector that was deleted a moment ago is still reported as running.
            patience.until(client, &name, "gone", |status| status.is_none()).await?;
            patience.insist(|| client.put_config(&name, &wanted.config)).await?;
        }
        "changed" => {
            patience.insist(|| client.stop(&name)).await?;
            let stopped = |status: Option<&ConnectorStatus>| status.is_some_and(ConnectorStatus::is_stopped);
            patience.until(client, &name, "stopped", stopped).await?;
            patience.insist(|| client.put_config(&name, &wanted.config)).await?;
            patience.insist(|| client.resume(&name)).await?;
        }
        _ => {
            patience.insist(|| client.resume(&name)).await?;
            // Whoever applies an unchanged file after the cause of a failure went away wants it to run again.
            let status = patience.insist(|| client.status(&name)).await?;
            if status.is_some_and(|status| status.failed().is_some()) {
                patience.insist(|| client.restart_failed(&name)).await?;
            }
        }
    }
    let runs = |status: Option<&ConnectorStatus>| status.is_some_and(ConnectorStatus::runs);
    let status = patience.until(client, &name, "running", runs).await?;
    let slot = slot::await_active(config, &wanted.config, &patience).await?;
    Ok(Report {
        connector: name,
        result,
        changed,
        status,
        slot,
    })
}

pub(super) async fn check(client: &ConnectClient, wanted: &Wanted, patience: &Patience) -> Result<(), Failure> {
    let class = &wanted.config["connector.class"];
    let objections = patience.insist(|| client.validate(class, &wanted.config)).await?;
    if objections.is_empty() {
        return Ok(());
    }
    Err(Failure::failed(ConnectorFailure::Objections(objections)))
}

async fn status(client: &ConnectClient, name: Option<&str>, output: Output) -> Result<(), Failure> {
    let names = match name {
        Some(name) => vec![name.to_owned()],
        None => client.names().await?,
    };
    let mut statuses = Vec::new();
    for connector in names {
        match client.status(&connector).await? {
            Some(status) => statuses.push(status),
            // Deleted since it was listed.
            None if name.is_none() => {}
            None => return Err(Failure::failed(ConnectorFailure::Unknown(connector))),
        }
    }
    output.print(&statuses, |statuses| status_table(statuses))
}

fn status_table(statuses: &[ConnectorStatus]) -> String {
    if statuses.is_empty() {
        return "there is no connector".to_owned();
    }
    let row = |status: &ConnectorStatus, what: String, part: &Part| {
        [status.name.clone(), what, part.state.clone(), part.worker_id.clone()]
    };
    let rows = statuses.iter().flat_map(|status| {
        let tasks = status
            .tasks
            .iter()
            .map(move |task| row(status, format!("task {}", task.id.unwrap_or_default()), task));
        std::iter::once(row(status, "connector".to_owned(), &status.connector)).chain(tasks)
    });
    let mut text = table(["NAME", "PART", "STATE", "WORKER"], rows);
    for status in statuses {
        if let Some(trace) = status.failed().and_then(|part| part.trace.as_deref()) {
            text.push_str(&format!("\n\n{} failed:\n{trace}", status.name));
        }
    }
    text
}

async fn delete(client: &ConnectClient, name: &str, wait_s: u64, output: Output) -> Result<(), Failure> {
    let patience = Patience::new(wait_s);
    let deleted = match client.delete(name).await {
        Err(ConnectError::Busy { .. }) => patience.insist(|| client.delete(name)).await?,
        answer => answer?,
    };
    if !deleted {
        return Err(Failure::failed(ConnectorFailure::Unknown(name.to_owned())));
    }
    patience.until(client, name, "gone", |status| status.is_none()).await?;
    let report = Report {
        connector: name.to_owned(),
        result: "deleted",
        changed: Vec::new(),
        status: None,
        slot: None,
    };
    output.print(&report, |report| {
        format!("{}; its replication slot and stored position remain", report.in_words())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_failed_task_shows_its_trace() {
        let status: Vec<ConnectorStatus> = serde_json::from_value(json!([{
            "name": "waitlist", "type": "source",
            "connector": {"state": "RUNNING", "worker_id": "w:1", "version": "3"},
            "tasks": [{"id": 0, "state": "FAILED", "worker_id": "w:2", "trace": "no slot"}],
        }]))
        .unwrap();
        let text = status_table(&status);
        assert!(
            text.contains("task 0") && text.ends_with("waitlist failed:\nno slot"),
            "{text}"
        );
    }
}
