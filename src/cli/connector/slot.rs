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
use crate::cli::output::size;
use crate::cli::{Failure, database};
use crate::clients::connect::ConnectorConfig;
use crate::config::Config;

/// The slot's name where the connector's configuration has none.
const DEFAULT_NAME: &str = "debezium";

/// A slot that is being made is active, too; it has no confirmed position until it captures.
const CAPTURES: &str =
    "SELECT active AND confirmed_flush_lsn IS NOT NULL FROM pg_replication_slots WHERE slot_name = $1";

/// Log that is kept for a slot; no row where there is no such slot.
const KEPT: &str = "SELECT pg_wal_lsn_diff(
        CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, restart_lsn)::int8
    FROM pg_replication_slots WHERE slot_name = $1";

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

/// Finds slots by which nobody reads.
const FIND: &str = "SELECT slot_name FROM pg_replication_slots WHERE NOT active;";

/// A slot that a connector has left.
#[derive(Debug, Serialize, PartialEq, Eq)]
pub(super) struct Held {
    /// Its name, or the reference that stands for it.
    name: String,
    /// The statement that drops it; the one that finds it, where only a reference to it is known.
    statement: String,
    /// How much log Postgres keeps for it; `None` where it could not be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    kept_bytes: Option<i64>,
}

impl Held {
    fn of(name: &str, kept_bytes: Option<i64>) -> Self {
        Self {
            statement: format!("SELECT pg_drop_replication_slot('{}');", name.replace('\'', "''")),
            name: name.to_owned(),
            kept_bytes,
        }
    }

    /// One that only Connect knows by name.
    fn referenced(reference: &str) -> Self {
        Self {
            name: reference.to_owned(),
            statement: FIND.to_owned(),
            kept_bytes: None,
        }
    }

    pub(super) fn in_words(&self) -> String {
        if self.statement == FIND {
            return format!(
                "the slot that {} stands for remains, where it was not dropped before, and Postgres keeps all log for it until the disk \
                 is full: when no connector is to go on from there, find its name and drop it by pg_drop_replication_slot: {FIND}",
                self.name
            );
        }
        let (unless, kept) = match self.kept_bytes {
            Some(bytes) => ("", format!(" ({} now)", size(bytes))),
            None => (", where it was not dropped before", String::new()),
        };
        format!(
            "slot {} remains{unless}, and Postgres keeps all log for it{kept} until the disk is full: drop it when no connector is to go \
             on from there: {}",
            self.name, self.statement
        )
    }
}

/// The slot that remains of a connector that was deleted; `None` where it had none, or Postgres says that it is gone.
pub(super) async fn held(config: &Config, connector: &ConnectorConfig) -> Option<Held> {
    let name = match wanted(connector) {
        Wanted::None => return None,
        Wanted::Referenced(name) => return Some(Held::referenced(name)),
        Wanted::Named(name) => name,
    };
    let Ok(pool) = database::connect(config).await else {
        return Some(Held::of(name, None));
    };
    match sqlx::query_scalar::<_, Option<i64>>(KEPT)
        .bind(name)
        .fetch_optional(&pool)
        .await
    {
        Ok(None) if connector.get("slot.drop.on.stop").is_some_and(|drops| drops == "true") => None,
        // It may be on another server than postgres.url names.
        Ok(None) | Err(_) => Some(Held::of(name, None)),
        Ok(Some(kept)) => Some(Held::of(name, kept)),
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

    #[test]
    fn a_slot_that_remains_is_told_with_the_statement_that_drops_it() {
        let words = Held::of("o'hara", Some(2048)).in_words();
        assert!(
            words.contains("slot o'hara remains") && words.contains("(2.0 kB now)"),
            "{words}"
        );
        assert!(
            words.ends_with("SELECT pg_drop_replication_slot('o''hara');"),
            "{words}"
        );
        let words = Held::referenced("${env:SLOT}").in_words();
        assert!(
            words.starts_with("the slot that ${env:SLOT} stands for remains") && words.ends_with(FIND),
            "{words}"
        );
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
