//! Opening the transaction in which a handler works: ledger rows first, then the lock, then the handler's SQL.

use std::sync::Arc;

use sqlx::postgres::PgPool;
use sqlx::{PgConnection, Postgres, Transaction};

use crate::event::change::ChangeEvent;
use crate::ledger::LedgerKey;
use crate::ledger::days;

/// Postgres: no partition of the relation takes this row.
const NO_PARTITION: &str = "23514";

/// A transaction whose ledger rows are written, and the events that are still to be done in it.
#[derive(Debug)]
pub struct Opened {
    /// The transaction; dropped without a commit it takes the ledger rows back.
    pub transaction: Transaction<'static, Postgres>,
    /// The members that nobody did before, in the order given. Empty: everything was done already.
    pub pending: Vec<Arc<ChangeEvent>>,
}

/// How an event that the ledger already knows is treated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// A delivery from the source: a known event is settled, whatever its state.
    Deliver,
    /// The replay of this dead letter: a buried event becomes done, and the letter replayed.
    Replay {
        /// The letter.
        letter_id: String,
    },
}

/// Opens a transaction and writes the ledger rows of `events`, sorted, so that two transactions never wait for each
/// other in a circle.
///
/// # Errors
/// Whatever Postgres answered. A missing partition of the ledger is made, outside the transaction, and tried again.
pub async fn open(
    pool: &PgPool,
    handler: &str,
    events: &[Arc<ChangeEvent>],
    mode: &Mode,
) -> Result<Opened, sqlx::Error> {
    let keyed: Vec<(Option<LedgerKey>, &Arc<ChangeEvent>)> =
        events.iter().map(|event| (LedgerKey::of(event), event)).collect();
    let mut keys: Vec<LedgerKey> = keyed.iter().filter_map(|(key, _)| *key).collect();
    keys.sort_unstable();
    keys.dedup();
    let (transaction, fresh) = write_rows_making_days(pool, handler, &keys, mode).await?;
    let pending = keyed
        .into_iter()
        .filter(|(key, _)| key.is_none_or(|key| fresh.contains(&key)))
        .map(|(_, event)| Arc::clone(event))
        .collect();
    Ok(Opened { transaction, pending })
}

/// The events that are not in the ledger: neither done nor buried by this handler. An event without identity never is.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn unsettled(
    pool: &PgPool,
    handler: &str,
    events: &[Arc<ChangeEvent>],
) -> Result<Vec<Arc<ChangeEvent>>, sqlx::Error> {
    let keys: Vec<LedgerKey> = events.iter().filter_map(LedgerKey::of).collect();
    let days: Vec<chrono::NaiveDate> = keys.iter().map(|key| key.commit_day).collect();
    let ids: Vec<Vec<u8>> = keys.iter().map(|key| key.event_id.0.to_vec()).collect();
    let known: Vec<(Vec<u8>,)> = sqlx::query_as(
        "SELECT event_id FROM afterwrite.ledger
         WHERE handler = $2 AND (commit_day, event_id) IN (SELECT * FROM unnest($1::date[], $3::bytea[]))",
    )
    .bind(&days)
    .bind(handler)
    .bind(&ids)
    .fetch_all(pool)
    .await?;
    let is_known = |event: &Arc<ChangeEvent>| {
        event
            .id()
            .is_some_and(|id| known.iter().any(|(known,)| **known == id.0))
    };
    Ok(events.iter().filter(|event| !is_known(event)).map(Arc::clone).collect())
}

async fn write_rows_making_days(
    pool: &PgPool,
    handler: &str,
    keys: &[LedgerKey],
    mode: &Mode,
) -> Result<(Transaction<'static, Postgres>, Vec<LedgerKey>), sqlx::Error> {
    let mut transaction = pool.begin().await?;
    match write_rows(&mut transaction, handler, keys, mode).await {
        Ok(fresh) => Ok((transaction, fresh)),
        Err(error) if is_missing_day(&error) => {
            transaction.rollback().await?;
            for key in keys {
                days::make(pool, key.commit_day).await?;
            }
            let mut again = pool.begin().await?;
            let fresh = write_rows(&mut again, handler, keys, mode).await?;
            Ok((again, fresh))
        }
        Err(error) => Err(error),
    }
}

/// Writes one row per key and answers which of them are this transaction's to do.
async fn write_rows(
    connection: &mut PgConnection,
    handler: &str,
    keys: &[LedgerKey],
    mode: &Mode,
) -> Result<Vec<LedgerKey>, sqlx::Error> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let days: Vec<chrono::NaiveDate> = keys.iter().map(|key| key.commit_day).collect();
    let ids: Vec<Vec<u8>> = keys.iter().map(|key| key.event_id.0.to_vec()).collect();
    let sql = match mode {
        Mode::Deliver => {
            "INSERT INTO afterwrite.ledger (commit_day, handler, event_id, state)
             SELECT day, $2, id, 'done' FROM unnest($1::date[], $3::bytea[]) AS key(day, id)
             ON CONFLICT DO NOTHING
             RETURNING commit_day, event_id"
        }
        Mode::Replay { .. } => {
            "INSERT INTO afterwrite.ledger AS known (commit_day, handler, event_id, state)
             SELECT day, $2, id, 'done' FROM unnest($1::date[], $3::bytea[]) AS key(day, id)
             ON CONFLICT (commit_day, handler, event_id) DO UPDATE SET state = 'done', settled_at = now()
                 WHERE known.state = 'buried'
             RETURNING commit_day, event_id"
        }
    };
    let rows: Vec<(chrono::NaiveDate, Vec<u8>)> = sqlx::query_as(sql)
        .bind(&days)
        .bind(handler)
        .bind(&ids)
        .fetch_all(&mut *connection)
        .await?;
    if let Mode::Replay { letter_id } = mode {
        sqlx::query("UPDATE afterwrite.letters SET state = 'replayed', state_at = now() WHERE letter_id = $1")
            .bind(letter_id)
            .execute(&mut *connection)
            .await?;
    }
    Ok(keys
        .iter()
        .filter(|key| {
            rows.iter()
                .any(|(day, id)| *day == key.commit_day && **id == key.event_id.0)
        })
        .copied()
        .collect())
}

fn is_missing_day(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|database| {
        database.code().as_deref() == Some(NO_PARTITION) && database.table() == Some("ledger")
            || database.code().as_deref() == Some(NO_PARTITION)
                && database.message().contains("no partition of relation")
    })
}
