//! Waiting for the replication slot of a Postgres connector.
//!
//! A task runs before its slot exists, and only what is written after the slot was made is captured: whoever writes rows
//! as soon as the task runs may write them in vain. Connect knows nothing of slots, so Postgres is asked. Where it cannot
//! be, that is said, and nothing fails: the connector itself is as it was wanted.

use serde::Serialize;
use sqlx::postgres::PgPool;
use tokio::time::sleep;

use super::ConnectorFailure;
use super::patience::{POLL_EVERY, Patience};
use crate::cli::{Failure, database};
use crate::clients::connect::ConnectorConfig;
use crate::config::Config;

/// The slot's name where the connector's configuration has none.
const DEFAULT_NAME: &str = "debezium";

/// A slot that is being made is active, too; it has no confirmed position until it captures.
const CAPTURES: &str =
    "SELECT active AND confirmed_flush_lsn IS NOT NULL FROM pg_replication_slots WHERE slot_name = $1";

/// What is known about the slot of a connector that runs.
#[derive(Debug, Serialize, PartialEq, Eq)]
#[serde(tag = "state", rename_all = "lowercase")]
pub(in crate::cli) enum Slot {
    /// What is written from now on is captured.
    Active { name: String },
    /// It could not be asked for.
    Unknown { reason: String },
}

impl Slot {
    pub(in crate::cli) fn in_words(&self) -> String {
        match self {
            Self::Active { name } => format!("its slot {name} is active"),
            Self::Unknown { reason } => {
                format!("whether it captures already is not known ({reason}): rows written at once may be missed")
            }
        }
    }
}

/// Where a connector's slot is looked for.
#[derive(Debug, PartialEq, Eq)]
enum Wanted<'a> {
    /// It reads no slot.
    None,
    Named(&'a str),
    /// Only Connect knows the name.
    Referenced(&'a str),
}

fn wanted(connector: &ConnectorConfig) -> Wanted<'_> {
    let class = connector.get("connector.class").map_or("", String::as_str);
    if class.rsplit('.').next() != Some("PostgresConnector") {
        return Wanted::None;
    }
    match connector.get("slot.name").map_or(DEFAULT_NAME, String::as_str) {
        reference if reference.contains("${") => Wanted::Referenced(reference),
        name => Wanted::Named(name),
    }
}

/// Waits until the slot captures; `None` for a connector that has none.
///
/// # Errors
/// When Postgres answers, and the slot is not active in time.
pub(in crate::cli) async fn await_active(
    config: &Config,
    connector: &ConnectorConfig,
    patience: &Patience,
) -> Result<Option<Slot>, Failure> {
    let name = match wanted(connector) {
        Wanted::None => return Ok(None),
        Wanted::Referenced(reference) => {
            let reason = format!("slot.name is {reference}, which only kafka connect resolves");
            return Ok(Some(Slot::Unknown { reason }));
        }
        Wanted::Named(name) => name,
    };
    let pool = match database::connect(config).await {
        Ok(pool) => pool,
        Err(failure) => {
            let reason = failure.chain();
            return Ok(Some(Slot::Unknown { reason }));
        }
    };
    loop {
        match captures(&pool, name).await {
            Ok(true) => return Ok(Some(Slot::Active { name: name.to_owned() })),
            Ok(false) if patience.is_over() => {
                return Err(Failure::failed(ConnectorFailure::NoSlot {
                    name: name.to_owned(),
                    wait_s: patience.wait_s,
                }));
            }
            Ok(false) => sleep(POLL_EVERY).await,
            Err(error) => {
                let reason = format!("postgres could not be asked for slot {name}: {error}");
                return Ok(Some(Slot::Unknown { reason }));
            }
        }
    }
}

async fn captures(pool: &PgPool, name: &str) -> Result<bool, sqlx::Error> {
    let captures: Option<bool> = sqlx::query_scalar(CAPTURES).bind(name).fetch_optional(pool).await?;
    Ok(captures == Some(true))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::{Inputs, load};

    fn connector(class: &str, slot: Option<&str>) -> ConnectorConfig {
        let mut connector = ConnectorConfig::from([("connector.class".to_owned(), class.to_owned())]);
        connector.extend(slot.map(|name| ("slot.name".to_owned(), name.to_owned())));
        connector
    }

    const POSTGRES: &str = "io.debezium.connector.postgresql.PostgresConnector";

    #[test]
    fn the_slot_is_the_files_or_debeziums_own() {
        for (class, slot, expected) in [
            (POSTGRES, Some("mine"), Wanted::Named("mine")),
            (POSTGRES, None, Wanted::Named("debezium")),
            (POSTGRES, Some("${env:SLOT}"), Wanted::Referenced("${env:SLOT}")),
            ("io.debezium.connector.mysql.MySqlConnector", Some("mine"), Wanted::None),
        ] {
            assert_eq!(wanted(&connector(class, slot)), expected, "{class} {slot:?}");
        }
    }

    #[tokio::test]
    async fn a_database_that_does_not_answer_is_a_note_and_no_failure() {
        let inputs = Inputs {
            // Nobody listens there.
            set: vec!["postgres.url=postgres://127.0.0.1:1/none".to_owned()],
            ..Inputs::default()
        };
        let config = load(&inputs).unwrap();
        let patience = Patience::new(60);
        let slot = await_active(&config, &connector(POSTGRES, None), &patience).await;
        let words = slot.unwrap().unwrap().in_words();
        assert!(words.contains("127.0.0.1:1/none could not be reached"), "{words}");
    }
}
