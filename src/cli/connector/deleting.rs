//! Deletes a connector, and says what remains of it.

use serde::Serialize;

use super::ConnectorFailure;
use super::patience::Patience;
use super::slot::{self, Held};
use crate::cli::Failure;
use crate::clients::connect::{ConnectClient, ConnectError};
use crate::config::Config;

/// What happened.
#[derive(Debug, Serialize)]
pub(super) struct Deleted {
    connector: String,
    /// `deleted`.
    result: &'static str,
    /// Its slot, for which Postgres keeps the log until it is dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    slot: Option<Held>,
}

impl Deleted {
    pub(super) fn in_words(&self) -> String {
        let stored =
            "its topics and its stored position remain: a connector of the same name and prefix goes on from there";
        let slot = match &self.slot {
            Some(slot) => format!(", as long as its slot is there; {}", slot.in_words()),
            None => String::new(),
        };
        format!("connector {} {}; {stored}{slot}", self.connector, self.result)
    }
}

pub(super) async fn delete(
    client: &ConnectClient,
    config: &Config,
    name: &str,
    wait_s: u64,
) -> Result<Deleted, Failure> {
    let patience = Patience::new(wait_s);
    // Only this first request finds out whether there is a Connect at all.
    let connector = match client.config(name).await {
        Err(ConnectError::Busy { .. }) => patience.insist(|| client.config(name)).await?,
        answer => answer?,
    };
    let unknown = || Failure::failed(ConnectorFailure::Unknown(name.to_owned()));
    let connector = connector.ok_or_else(unknown)?;
    if !patience.insist(|| client.delete(name)).await? {
        return Err(unknown());
    }
    patience.until(client, name, "gone", |status| status.is_none()).await?;
    Ok(Deleted {
        connector: name.to_owned(),
        result: "deleted",
        slot: slot::held(config, &connector).await,
    })
}
