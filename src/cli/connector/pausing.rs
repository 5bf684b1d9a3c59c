//! Lets a connector rest, go on, or start again, and waits until it is so.

use tokio::time::{Duration, Instant};

use super::ConnectorFailure;
use super::apply::{Report, until_captured};
use super::file::Wanted;
use super::loss::{self, Loss};
use super::patience::Patience;
use super::plan::refuse;
use crate::cli::Failure;
use crate::clients::connect::{ConnectClient, ConnectError, ConnectorStatus};
use crate::config::Config;

/// A connector that was told to start again shows it within this time; one that never does has done it in between.
const SHOWS_WITHIN: Duration = Duration::from_secs(5);

/// What of a connector starts again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parts {
    /// The connector and its tasks.
    All,
    /// Its tasks alone: what the connector plans stays as it is.
    Tasks,
    /// What has failed.
    Failed,
}

/// A connector that exists, by the settings that it has.
async fn known(client: &ConnectClient, name: &str, patience: &Patience) -> Result<Wanted, Failure> {
    // Only this first request finds out whether there is a Connect at all.
    let config = match client.config(name).await {
        Err(ConnectError::Busy { .. }) => patience.insist(|| client.config(name)).await?,
        answer => answer?,
    };
    match config {
        Some(config) => Ok(Wanted {
            name: name.to_owned(),
            config,
        }),
        None => Err(Failure::failed(ConnectorFailure::Unknown(name.to_owned()))),
    }
}

fn report(name: &str, result: &'static str) -> Report {
    Report {
        connector: name.to_owned(),
        result,
        changed: Vec::new(),
        status: None,
        slot: None,
    }
}

/// Lets the tasks rest. The slot remains, and Postgres keeps for it what is written meanwhile.
pub(super) async fn pause(client: &ConnectClient, name: &str, wait_s: u64) -> Result<Report, Failure> {
    let patience = Patience::new(wait_s);
    known(client, name, &patience).await?;
    patience.insist(|| client.pause(name)).await?;
    let paused = |status: Option<&ConnectorStatus>| status.is_some_and(ConnectorStatus::is_paused);
    let status = patience.until(client, name, "paused", paused).await?;
    Ok(Report {
        status,
        ..report(name, "paused")
    })
}

/// Lets a connector that rests, or was stopped, go on from where it was.
pub(super) async fn resume(
    client: &ConnectClient,
    config: &Config,
    name: &str,
    wait_s: u64,
) -> Result<Report, Failure> {
    let patience = Patience::new(wait_s);
    let wanted = known(client, name, &patience).await?;
    patience.insist(|| client.resume(name)).await?;
    let (status, slot) = until_captured(client, config, &wanted, &patience).await?;
    Ok(Report {
        status,
        slot,
        ..report(name, "resumed")
    })
}

/// Starts a connector again. One that rests or is stopped is not started by it, and is refused.
pub(super) async fn restart(
    client: &ConnectClient,
    config: &Config,
    name: &str,
    parts: Parts,
    accepted: &[String],
    wait_s: u64,
) -> Result<Report, Failure> {
    let patience = Patience::new(wait_s);
    let wanted = known(client, name, &patience).await?;
    let status = patience.insist(|| client.status(name)).await?;
    let rests = |status: &&ConnectorStatus| status.connector.is("PAUSED") || status.connector.is("STOPPED");
    if let Some(status) = status.as_ref().filter(rests) {
        return Err(Failure::failed(ConnectorFailure::Rests {
            name: name.to_owned(),
            state: status.connector.state.to_lowercase(),
        }));
    }
    let failed = status.as_ref().is_some_and(|status| status.failed().is_some());
    if parts == Parts::Failed && !failed {
        return Ok(Report {
            status,
            ..report(name, "left alone, because nothing of it failed")
        });
    }
    refuse(
        of_stop(&wanted)
            .filter(|loss| !accepted.contains(&loss.accept))
            .into_iter()
            .collect(),
    )?;
    match parts {
        Parts::All => patience.insist(|| client.restart(name)).await?,
        Parts::Failed => patience.insist(|| client.restart_failed(name)).await?,
        Parts::Tasks => {
            let tasks = status
                .iter()
                .flat_map(|status| &status.tasks)
                .filter_map(|task| task.id);
            for task in tasks {
                patience.insist(|| client.restart_task(name, task)).await?;
            }
        }
    }
    // Connect answers before it acts, and until then a task that runs is the old one.
    let until = Instant::now() + SHOWS_WITHIN;
    let shows = |status: Option<&ConnectorStatus>| {
        let runs = status.is_some_and(ConnectorStatus::runs);
        let has_failed = status.is_some_and(|status| status.failed().is_some());
        !runs && !has_failed || Instant::now() > until
    };
    patience.until(client, name, "starting again", shows).await?;
    let (status, slot) = until_captured(client, config, &wanted, &patience).await?;
    Ok(Report {
        status,
        slot,
        ..report(name, "restarted")
    })
}

/// A restart is a stop, too.
fn of_stop(wanted: &Wanted) -> Option<Loss> {
    let key = "slot.drop.on.stop";
    let drops = loss::is_postgres(&wanted.config) && loss::value(&wanted.config, key, "false") == "true";
    drops.then(|| {
        Loss::new(
            key,
            "its slot is dropped by the stop: what is written until it runs again is captured by nobody",
            "set slot.drop.on.stop to false first, which loses as much once and never again",
        )
    })
}
