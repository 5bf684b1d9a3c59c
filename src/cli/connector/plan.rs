//! What an apply would do, and what stands against it.

use serde::Serialize;

use super::ConnectorFailure;
use super::difference::{Change, changes, is_secret};
use super::file::{Wanted, differing};
use super::loss::{self, Loss, losses};
use super::patience::Patience;
use super::published::Published;
use crate::cli::Failure;
use crate::cli::output::Output;
use crate::clients::connect::{ConnectClient, ConnectorConfig, Objection};
use crate::config::Config;

/// What a connector is, and what its file makes of it.
#[derive(Debug)]
pub(super) struct Update {
    /// `None`: there is no such connector.
    pub(super) before: Option<ConnectorConfig>,
    /// Settings that differ.
    pub(super) changed: Vec<String>,
    pub(super) losses: Vec<Loss>,
}

impl Update {
    /// Compares a connector with its file.
    pub(super) async fn of(
        client: &ConnectClient,
        config: &Config,
        wanted: &Wanted,
        before: Option<ConnectorConfig>,
        patience: &Patience,
    ) -> Result<Self, Failure> {
        let changed = before
            .as_ref()
            .map(|before| differing(before, &wanted.config))
            .unwrap_or_default();
        let mut found = Vec::new();
        if let Some(before) = &before {
            let published = Published::ask(config, before, &wanted.config, &changed).await;
            found = losses(before, &wanted.config, &published);
        }
        let reads_another = changed
            .iter()
            .any(|key| key == "slot.name" || key.starts_with("database."));
        if before.is_none() || reads_another {
            let others = patience.insist(|| client.connectors()).await?;
            let others = others.iter().map(|(name, other)| (name.as_str(), &other.config));
            found.extend(twins(wanted, others));
        }
        Ok(Self {
            before,
            changed,
            losses: found,
        })
    }

    /// What is lost by it and was not accepted.
    pub(super) fn refused(&self, accepted: &[String]) -> Vec<Loss> {
        let refused = self.losses.iter().filter(|loss| !accepted.contains(&loss.accept));
        refused.cloned().collect()
    }
}

/// Connectors that read the same slot.
fn twins<'a>(wanted: &Wanted, others: impl Iterator<Item = (&'a str, &'a ConnectorConfig)>) -> Vec<Loss> {
    let ours = &wanted.config;
    let is_same = |other: &ConnectorConfig, key: &str, default: &str| {
        loss::value(other, key, default) == loss::value(ours, key, default)
    };
    let reads_same = |(name, other): &(&str, &ConnectorConfig)| {
        *name != wanted.name
            && loss::is_postgres(ours)
            && loss::is_postgres(other)
            && is_same(other, "slot.name", loss::SLOT)
            && is_same(other, "database.dbname", "")
            && is_same(other, "database.hostname", "")
    };
    others
        .filter(reads_same)
        .map(|(name, _)| {
            Loss::new(
                "slot.name",
                format!("connector {name} reads the same slot: two that share one take changes from each other"),
                format!(
                    "give this one a slot.name of its own, or delete the other: afterwrite connector delete {name}"
                ),
            )
        })
        .collect()
}

/// What is printed of it.
#[derive(Debug, Serialize)]
struct Plan {
    connector: String,
    /// `would be created`, `would be changed`, or `would be unchanged`.
    result: &'static str,
    /// Settings that differ, with their values as they may be printed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    changes: Vec<Change>,
    /// What an apply would lose.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    losses: Vec<Loss>,
    /// What Kafka Connect says against it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    objections: Vec<Objection>,
}

impl Plan {
    fn in_words(&self) -> String {
        let mut lines = vec![format!("connector {} {}", self.connector, self.result)];
        lines.extend(self.changes.iter().map(|change| format!("  {}", change.in_words())));
        if self.objections.is_empty() {
            lines.push("kafka connect has nothing against it".to_owned());
        }
        lines.extend(
            self.losses
                .iter()
                .map(|loss| format!("it would lose data: {}", loss.in_words())),
        );
        lines.join("\n")
    }
}

/// Prints what an apply would do.
///
/// # Errors
/// When an apply would be refused, by Connect or because it loses data that was not accepted; it was printed then.
pub(super) async fn plan(
    client: &ConnectClient,
    config: &Config,
    wanted: Wanted,
    accepted: &[String],
    output: Output,
) -> Result<(), Failure> {
    let before = client.config(&wanted.name).await?;
    // Whoever plans wants an answer now.
    let update = Update::of(client, config, &wanted, before, &Patience::new(0)).await?;
    let objections = objections(client, &wanted, &Patience::new(0)).await?;
    let plan = Plan {
        result: match &update.before {
            None => "would be created",
            Some(_) if update.changed.is_empty() => "would be unchanged",
            Some(_) => "would be changed",
        },
        changes: update
            .before
            .as_ref()
            .map(|before| changes(before, &wanted.config))
            .unwrap_or_default(),
        losses: update.losses.clone(),
        objections: objections.clone(),
        connector: wanted.name,
    };
    output.print(&plan, Plan::in_words)?;
    if !objections.is_empty() {
        return Err(Failure::failed(ConnectorFailure::Objections(objections)));
    }
    refuse(update.refused(accepted))
}

/// Refuses what is lost and was not accepted.
pub(super) fn refuse(losses: Vec<Loss>) -> Result<(), Failure> {
    match losses.is_empty() {
        true => Ok(()),
        false => Err(Failure::failed(ConnectorFailure::Loses(losses))),
    }
}

/// What Kafka Connect says against a configuration.
pub(super) async fn objections(
    client: &ConnectClient,
    wanted: &Wanted,
    patience: &Patience,
) -> Result<Vec<Objection>, Failure> {
    let class = &wanted.config["connector.class"];
    let mut objections = patience.insist(|| client.validate(class, &wanted.config)).await?;
    for objection in objections.iter_mut().filter(|objection| is_secret(&objection.key)) {
        // Connect quotes values.
        objection.errors =
            vec!["kafka connect refuses its value, and what it says of a secret is not shown".to_owned()];
    }
    Ok(objections)
}

/// Refuses what Kafka Connect has something against.
pub(in crate::cli) async fn check(client: &ConnectClient, wanted: &Wanted, patience: &Patience) -> Result<(), Failure> {
    let objections = objections(client, wanted, patience).await?;
    match objections.is_empty() {
        true => Ok(()),
        false => Err(Failure::failed(ConnectorFailure::Objections(objections))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(name: &str, slot: Option<&str>, database: &str) -> Wanted {
        let mut config = ConnectorConfig::from([
            (
                "connector.class".to_owned(),
                "io.debezium.connector.postgresql.PostgresConnector".to_owned(),
            ),
            ("database.dbname".to_owned(), database.to_owned()),
        ]);
        config.extend(slot.map(|slot| ("slot.name".to_owned(), slot.to_owned())));
        Wanted {
            name: name.to_owned(),
            config,
        }
    }

    #[test]
    fn only_another_connector_of_the_same_slot_is_a_twin() {
        let ours = wanted("a", None, "app");
        for (other, is_twin) in [
            (wanted("b", Some("debezium"), "app"), true),
            (wanted("b", None, "app"), true),
            (wanted("a", None, "app"), false),
            (wanted("b", Some("own"), "app"), false),
            (wanted("b", None, "other"), false),
        ] {
            let found = twins(&ours, std::iter::once((other.name.as_str(), &other.config)));
            assert_eq!(found.len(), usize::from(is_twin), "{other:?}");
        }
    }

    #[test]
    fn what_was_accepted_is_not_refused() {
        let loss = |accept| Loss::new(accept, "x", "y");
        let update = Update {
            before: None,
            changed: Vec::new(),
            losses: vec![loss("slot.name"), loss("topic.prefix")],
        };
        assert_eq!(update.refused(&["slot.name".to_owned()]), [loss("topic.prefix")]);
        let said = refuse(update.refused(&[])).unwrap_err();
        assert_eq!(said.exit_code(), 1);
        assert!(
            said.chain().ends_with("--accept-loss slot.name,topic.prefix"),
            "{}",
            said.chain()
        );
    }
}
