//! The step that starts the connector: from its slot's place on, and from nowhere else.

use crate::cli::Failure;
use crate::cli::connector::file::{Wanted, differing};
use crate::cli::connector::patience::Patience;
use crate::cli::connector::plan::check;
use crate::cli::connector::slot;
use crate::clients::connect::ConnectorStatus;
use crate::groups::graduation::{Graduation, rows};

use super::told::{State, Told, Way};
use super::{Graduate, GraduateFailed};

/// How long Kafka Connect may take for each thing it is asked for.
const PATIENCE_S: u64 = 120;

#[derive(Debug, thiserror::Error)]
#[error(
    "connector {name} is there with other settings than its file has ({keys}): did somebody change either? Repeat the command when both are the same"
)]
struct Changed {
    name: String,
    keys: String,
}

impl Graduate<'_> {
    /// Makes the connector stopped, forgets the position that an earlier one of this name may have left, and lets it run: it
    /// has nowhere to begin but at its slot. A connector that runs was resumed by a command that ended here.
    pub(super) async fn start_connector(
        &self,
        begun: &Graduation,
        wanted: &Wanted,
        told: &mut Told,
    ) -> Result<(), Failure> {
        let name = &wanted.name;
        let (connect, patience) = (&self.connect, Patience::new(PATIENCE_S));
        self.check_again(wanted, begun, told).await?;
        let there = patience.insist(|| connect.config(name)).await?;
        match there {
            Some(there) => {
                let keys = differing(&there, &wanted.config);
                if !keys.is_empty() {
                    let (name, keys) = (name.clone(), keys.join(", "));
                    return Err(Failure::failed(Changed { name, keys }));
                }
            }
            None => {
                told.say(Way::Connector, State::Doing, &format!("starting connector {name}"))?;
                check(connect, wanted, &patience).await?;
                patience.insist(|| connect.create_stopped(name, &wanted.config)).await?;
            }
        }
        let is_known = |status: Option<&ConnectorStatus>| {
            status.is_some_and(|status| status.is_stopped() || status.runs() || status.failed().is_some())
        };
        let status = patience.until(connect, name, "made", is_known).await?;
        if status.is_some_and(|status| status.is_stopped()) {
            patience.insist(|| connect.forget_offsets(name)).await?;
            patience.insist(|| connect.resume(name)).await?;
        }
        let runs = |status: Option<&ConnectorStatus>| status.is_some_and(ConnectorStatus::runs);
        patience.until(connect, name, "running", runs).await?;
        let slot = slot::await_active(self.config, &wanted.config, &patience).await?;
        rows::has_connector(&self.pool, begun.id)
            .await
            .map_err(GraduateFailed::postgres)?;
        let slot = slot.map(|slot| format!("; {}", slot.in_words()));
        told.say(
            Way::Connector,
            State::Done,
            &format!("connector {name} runs{}", slot.unwrap_or_default()),
        )
    }
}
