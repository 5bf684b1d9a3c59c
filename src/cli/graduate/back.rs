//! Taking a graduation back: the groups read the log again where they left it, and the connector goes.

use super::told::{State, Told, Way};
use super::{Graduate, GraduateFailed};
use crate::cli::Failure;
use crate::cli::connector::patience::Patience;
use crate::clients::connect::ConnectorStatus;
use crate::groups::graduation::{gone_on, rows};

/// How long Kafka Connect may take for each thing it is asked for.
const PATIENCE_S: u64 = 60;

impl Graduate<'_> {
    pub(super) async fn take_back(&self, told: &mut Told) -> Result<(), Failure> {
        let facts = self.facts().await?;
        let begun = facts
            .begun
            .ok_or_else(|| Failure::failed(GraduateFailed::NothingBegun))?;
        // The groups first: from here on they may run, whatever becomes of the rest.
        if !rows::switch_back(&self.pool, begun.id)
            .await
            .map_err(GraduateFailed::postgres)?
        {
            let gone = gone_on(&facts.members).into_iter().map(str::to_owned).collect();
            return Err(Failure::failed(GraduateFailed::GoneOn(gone)));
        }
        told.say(
            Way::Back,
            State::Done,
            "the groups may read the log again, from where they left it: start them with source.kind = \"wal\"",
        )?;
        // Before this there was no connector of this name, so it is the graduation's own.
        if begun.has_beginnings {
            self.remove_connector(&begun.connector, told).await?;
        }
        if self.drop_slot(&begun.slot, Way::Back, told).await? {
            told.say(Way::Back, State::Done, &format!("slot {} is dropped", begun.slot))?;
        }
        rows::taken_back(&self.pool, begun.id)
            .await
            .map_err(GraduateFailed::postgres)?;
        told.say(
            Way::Back,
            State::Done,
            "the graduation is taken back; topics stay as they are",
        )
    }

    async fn remove_connector(&self, name: &str, told: &mut Told) -> Result<(), Failure> {
        let (connect, patience) = (&self.connect, Patience::new(PATIENCE_S));
        if patience.insist(|| connect.config(name)).await?.is_none() {
            return Ok(());
        }
        patience.insist(|| connect.stop(name)).await?;
        let is_stopped = |status: Option<&ConnectorStatus>| status.is_some_and(ConnectorStatus::is_stopped);
        patience.until(connect, name, "stopped", is_stopped).await?;
        // The next connector of this name begins at its own slot.
        patience.insist(|| connect.forget_offsets(name)).await?;
        patience.insist(|| connect.delete(name)).await?;
        patience.until(connect, name, "gone", |status| status.is_none()).await?;
        told.say(Way::Back, State::Done, &format!("connector {name} is deleted"))
    }
}
