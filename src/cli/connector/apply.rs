//! Brings a connector to what its file says.

use std::collections::BTreeSet;

use serde::Serialize;

use super::file::Wanted;
use super::patience::Patience;
use super::plan::{Update, check, refuse};
use super::slot::{self, Slot};
use crate::cli::Failure;
use crate::clients::connect::{ConnectClient, ConnectError, ConnectorStatus};
use crate::config::Config;

/// What happened to a connector.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) connector: String,
    /// `created`, `changed`, `unchanged`, `paused`, `resumed` or `restarted`.
    pub(super) result: &'static str,
    /// Keys that differ. Never values: they may be secrets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) changed: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<ConnectorStatus>,
    /// Whether what is written now is captured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) slot: Option<Slot>,
}

impl Report {
    pub(super) fn in_words(&self) -> String {
        let mut text = format!("connector {} {}", self.connector, self.result);
        if !self.changed.is_empty() {
            text.push_str(&format!(": {}", self.changed.join(", ")));
        }
        if let Some(status) = self.status.as_ref().filter(|status| status.runs()) {
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

/// Brings a connector to what its file says.
///
/// Connect answers a new configuration at once and exchanges the tasks some time later; until then it reports the old
/// task as `RUNNING`, and nothing it tells says which configuration a running task has. So a connector that exists is
/// stopped first, until its last task is gone: whatever runs afterwards runs with the new configuration. The position is
/// kept. The configuration is checked before, so that a mistake stops nothing, and so is what it would lose; and whoever is
/// cut off in the middle leaves a stopped connector, which the next apply resumes.
///
/// A task that runs does not capture yet: that begins with its replication slot, which is waited for last.
pub(super) async fn apply(
    client: &ConnectClient,
    config: &Config,
    wanted: Wanted,
    accepted: &[String],
    wait_s: u64,
) -> Result<Report, Failure> {
    let name = wanted.name.clone();
    let patience = Patience::new(wait_s);
    // Only this first request finds out whether there is a Connect at all; later ones outlast its restarts.
    let before = match client.config(&name).await {
        Err(ConnectError::Busy { .. }) => patience.insist(|| client.config(&name)).await?,
        answer => answer?,
    };
    let update = Update::of(client, config, &wanted, before, &patience).await?;
    let result = match &update.before {
        None => "created",
        Some(_) if update.changed.is_empty() => "unchanged",
        Some(_) => "changed",
    };
    if result != "unchanged" {
        check(client, &wanted, &patience).await?;
        refuse(update.refused(accepted))?;
    }
    put(client, &wanted, result, &patience).await?;
    let (status, slot) = until_captured(client, config, &wanted, &patience).await?;
    Ok(Report {
        connector: name,
        result,
        changed: update.changed,
        status,
        slot,
    })
}

async fn put(client: &ConnectClient, wanted: &Wanted, result: &str, patience: &Patience) -> Result<(), Failure> {
    let name = &wanted.name;
    match result {
        "created" => {
            // A connector that was deleted a moment ago is still reported as running.
            patience.until(client, name, "gone", |status| status.is_none()).await?;
            patience.insist(|| client.put_config(name, &wanted.config)).await?;
        }
        "changed" => {
            patience.insist(|| client.stop(name)).await?;
            let stopped = |status: Option<&ConnectorStatus>| status.is_some_and(ConnectorStatus::is_stopped);
            patience.until(client, name, "stopped", stopped).await?;
            patience.insist(|| client.put_config(name, &wanted.config)).await?;
            patience.insist(|| client.resume(name)).await?;
        }
        _ => {
            patience.insist(|| client.resume(name)).await?;
            // Whoever applies an unchanged file after the cause of a failure went away wants it to run again.
            let status = patience.insist(|| client.status(name)).await?;
            if status.is_some_and(|status| status.failed().is_some()) {
                patience.insist(|| client.restart_failed(name)).await?;
            }
        }
    }
    Ok(())
}

/// Waits until a connector runs, and then until its slot captures.
pub(super) async fn until_captured(
    client: &ConnectClient,
    config: &Config,
    wanted: &Wanted,
    patience: &Patience,
) -> Result<(Option<ConnectorStatus>, Option<Slot>), Failure> {
    let runs = |status: Option<&ConnectorStatus>| status.is_some_and(ConnectorStatus::runs);
    let status = patience.until(client, &wanted.name, "running", runs).await?;
    let slot = slot::await_active(config, &wanted.config, patience).await?;
    Ok((status, slot))
}
