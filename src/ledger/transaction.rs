//! Opening the transaction in which a handler works: ledger rows first, then the lock, then the handler's SQL.

use std::sync::Arc;

use chrono::NaiveDate;
use sqlx::postgres::PgPool;
use sqlx::{PgConnection, Postgres, Transaction};

use crate::event::change::ChangeEvent;
use crate::ledger::LedgerKey;
use crate::ledger::{days, redo};

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

/// The transaction of an attempt could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody knows whether the event was done: its day is not in the ledger any more.
    #[error(
        "the event was committed on {day}, and what handler {handler} did is known from {kept_from} on only \
         (ledger.retention_days): see whether it was done, then replay its dead letter, or leave it"
    )]
    Expired {
        /// The handler.
        handler: String,
        /// UTC day of the event's commit.
        day: NaiveDate,
        /// The first day that is kept.
        kept_from: NaiveDate,
    },
    /// An event of the call was parked by the next owner of its partition, so those behind it are that one's.
    #[error(
        "handler {handler} is to do events behind one that was parked because of lag: another process owns them by now"
    )]
    BehindParked {
        /// The handler.
        handler: String,
    },
    /// The ledger had no partition for the event's day, although it was made just now.
    #[error("the ledger has no table for the day of the event yet")]
    DayMissing(#[source] sqlx::Error),
    /// Postgres failed.
    #[error(transparent)]
    Postgres(#[from] sqlx::Error),
}

/// How an event that the ledger already knows is treated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// A delivery from the source: a known event is settled, unless it is marked to be done again.
    Deliver,
    /// The replay of this dead letter: an event that is buried, or failed when it was to be done again, becomes done, and
    /// the letter replayed.
    Replay {
        /// The letter.
        letter_id: String,
    },
    /// The release of an event that was parked because of lag: the same, but nobody asked for it, and it keeps its place among
    /// the events of its key.
    Release {
        /// The letter.
        letter_id: String,
    },
}

/// Opens a transaction and writes the ledger rows of `events`, sorted, so that two transactions never wait for each
/// other in a circle.
///
/// # Errors
/// Whatever Postgres answered, and, but for a replay, that an event is older than the ledger. A missing partition of the
/// ledger is made, outside the transaction, and tried again.
pub async fn open(pool: &PgPool, handler: &str, events: &[Arc<ChangeEvent>], mode: &Mode) -> Result<Opened, Error> {
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

/// The events that this handler has still to do: neither done nor buried, or marked to be done again; for a replay and a
/// release also those that are buried. An event without identity always is.
///
/// # Errors
/// Whatever Postgres answered, and, but for a replay, that an event is older than the ledger.
pub async fn unsettled(
    pool: &PgPool,
    handler: &str,
    events: &[Arc<ChangeEvent>],
    mode: &Mode,
) -> Result<Vec<Arc<ChangeEvent>>, Error> {
    let keys: Vec<LedgerKey> = events.iter().filter_map(LedgerKey::of).collect();
    let mut connection = pool.acquire().await?;
    let found = look(&mut connection, handler, &keys).await?;
    if *mode == Mode::Deliver {
        refuse_expired(handler, &found.unknown, kept_from(&mut connection, handler).await?)?;
    }
    let is_open = |key: LedgerKey| {
        let is_buried = *mode != Mode::Deliver && found.buried.contains(&key);
        found.unknown.contains(&key) || found.marked.contains(&key) || is_buried
    };
    let open = events.iter().filter(|event| LedgerKey::of(event).is_none_or(is_open));
    Ok(open.map(Arc::clone).collect())
}

/// The first day of the ledger that is kept for a handler; `None` when all of it is.
async fn kept_from(connection: &mut PgConnection, handler: &str) -> Result<Option<NaiveDate>, sqlx::Error> {
    let found: Option<Option<NaiveDate>> =
        sqlx::query_scalar("SELECT kept_from FROM afterwrite.handlers WHERE name = $1")
            .bind(handler)
            .fetch_optional(connection)
            .await?;
    Ok(found.flatten())
}

/// What the ledger says of some keys.
struct Found {
    /// Those without a row.
    unknown: Vec<LedgerKey>,
    /// Those that are to be done again.
    marked: Vec<LedgerKey>,
    /// Those that have a dead letter.
    buried: Vec<LedgerKey>,
}

async fn look(connection: &mut PgConnection, handler: &str, keys: &[LedgerKey]) -> Result<Found, sqlx::Error> {
    let (days, ids) = columns(keys);
    let known: Vec<(NaiveDate, Vec<u8>, String)> = sqlx::query_as(
        "SELECT commit_day, event_id, state FROM afterwrite.ledger
         WHERE handler = coalesce((SELECT ledger_name FROM afterwrite.handlers WHERE name = $2), $2)
           AND (commit_day, event_id) IN (SELECT * FROM unnest($1::date[], $3::bytea[]))",
    )
    .bind(&days)
    .bind(handler)
    .bind(&ids)
    .fetch_all(connection)
    .await?;
    let state_of = |key: &LedgerKey| {
        let row = known
            .iter()
            .find(|(day, id, _)| *day == key.commit_day && **id == key.event_id.0);
        row.map(|(.., state)| state.as_str())
    };
    let with = |state: Option<&str>| keys.iter().filter(|key| state_of(key) == state).copied().collect();
    Ok(Found {
        unknown: with(None),
        marked: with(Some("redo")),
        buried: with(Some("buried")),
    })
}

fn refuse_expired(handler: &str, unknown: &[LedgerKey], kept_from: Option<NaiveDate>) -> Result<(), Error> {
    let Some(kept_from) = kept_from else { return Ok(()) };
    let earliest = unknown.iter().map(|key| key.commit_day).min();
    match earliest {
        Some(day) if day < kept_from => Err(Error::Expired {
            handler: handler.to_owned(),
            day,
            kept_from,
        }),
        _ => Ok(()),
    }
}

fn columns(keys: &[LedgerKey]) -> (Vec<NaiveDate>, Vec<Vec<u8>>) {
    keys.iter().map(|key| (key.commit_day, key.event_id.0.to_vec())).unzip()
}

fn is_among(key: &LedgerKey, rows: &[(NaiveDate, Vec<u8>)]) -> bool {
    rows.iter()
        .any(|(day, id)| *day == key.commit_day && **id == key.event_id.0)
}

async fn write_rows_making_days(
    pool: &PgPool,
    handler: &str,
    keys: &[LedgerKey],
    mode: &Mode,
) -> Result<(Transaction<'static, Postgres>, Vec<LedgerKey>), Error> {
    let mut transaction = pool.begin().await?;
    match write_rows(&mut transaction, handler, keys, mode).await {
        Ok(fresh) => Ok((transaction, fresh)),
        Err(Error::Postgres(error)) if is_missing_day(&error) => {
            transaction.rollback().await?;
            for key in keys {
                days::make(pool, key.commit_day).await?;
            }
            let mut again = pool.begin().await?;
            match write_rows(&mut again, handler, keys, mode).await {
                Ok(fresh) => Ok((again, fresh)),
                // It was dropped meanwhile, or the session does not know of it yet. Nothing is wrong with the event.
                Err(Error::Postgres(error)) if is_missing_day(&error) => Err(Error::DayMissing(error)),
                Err(error) => Err(error),
            }
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
) -> Result<Vec<LedgerKey>, Error> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    // A day of which nothing is known any more may have a partition: letters of its events and their replays make it anew.
    let sql = match mode {
        Mode::Deliver => {
            "INSERT INTO afterwrite.ledger (commit_day, handler, event_id, state)
             SELECT day, coalesce(registered.ledger_name, $2), id, 'done'
             FROM unnest($1::date[], $3::bytea[]) AS key(day, id)
             LEFT JOIN afterwrite.handlers registered ON registered.name = $2
             WHERE day >= coalesce(registered.kept_from, '-infinity')
             ORDER BY day, id
             ON CONFLICT DO NOTHING
             RETURNING commit_day, event_id"
        }
        Mode::Replay { .. } | Mode::Release { .. } => {
            "INSERT INTO afterwrite.ledger AS known (commit_day, handler, event_id, state)
             SELECT day, coalesce(registered.ledger_name, $2), id, 'done'
             FROM unnest($1::date[], $3::bytea[]) AS key(day, id)
             LEFT JOIN afterwrite.handlers registered ON registered.name = $2
             ORDER BY day, id
             ON CONFLICT (commit_day, handler, event_id) DO UPDATE SET state = 'done', settled_at = now()
                 WHERE known.state IN ('buried', 'redo')
             RETURNING commit_day, event_id"
        }
    };
    let (days, ids) = columns(keys);
    let mut rows: Vec<(NaiveDate, Vec<u8>)> = sqlx::query_as(sql)
        .bind(&days)
        .bind(handler)
        .bind(&ids)
        .fetch_all(&mut *connection)
        .await?;
    if *mode == Mode::Deliver && rows.len() < keys.len() {
        // Apart from the INSERT, which would otherwise lock every row of a redelivery.
        rows.extend(redo::turn(connection, handler, keys).await?);
    }
    let (fresh, others): (Vec<LedgerKey>, Vec<LedgerKey>) = keys.iter().partition(|key| is_among(key, &rows));
    match mode {
        // A row that was not written stands there already, or must not be written.
        Mode::Deliver if !others.is_empty() => {
            refuse_unknown(connection, handler, &others).await?;
            if !fresh.is_empty() {
                refuse_behind_parked(connection, handler, &others).await?;
            }
        }
        Mode::Deliver => {}
        Mode::Replay { letter_id } | Mode::Release { letter_id } => {
            sqlx::query("UPDATE afterwrite.letters SET state = 'replayed', state_at = now() WHERE letter_id = $1")
                .bind(letter_id)
                .execute(connection)
                .await?;
        }
    }
    Ok(fresh)
}

async fn refuse_unknown(connection: &mut PgConnection, handler: &str, keys: &[LedgerKey]) -> Result<(), Error> {
    let kept_from = kept_from(connection, handler).await?;
    let is_old = |key: &&LedgerKey| kept_from.is_some_and(|kept_from| key.commit_day < kept_from);
    let old: Vec<LedgerKey> = keys.iter().filter(is_old).copied().collect();
    if old.is_empty() {
        return Ok(());
    }
    refuse_expired(handler, &look(connection, handler, &old).await?.unknown, kept_from)
}

/// A process that was deposed without noticing may have called for several events of a lane, of which its successor has
/// parked one since then: what is behind that one waits for it.
async fn refuse_behind_parked(connection: &mut PgConnection, handler: &str, others: &[LedgerKey]) -> Result<(), Error> {
    let (_, ids) = columns(others);
    let is_behind: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM afterwrite.letters
             WHERE class = 'parked' AND state IN ('parked', 'replaying') AND handler = $1 AND event_id = ANY ($2))",
    )
    .bind(handler)
    .bind(&ids)
    .fetch_one(connection)
    .await?;
    match is_behind {
        true => Err(Error::BehindParked {
            handler: handler.to_owned(),
        }),
        false => Ok(()),
    }
}

fn is_missing_day(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|database| {
        database.code().as_deref() == Some(NO_PARTITION) && database.table() == Some("ledger")
            || database.code().as_deref() == Some(NO_PARTITION)
                && database.message().contains("no partition of relation")
    })
}
