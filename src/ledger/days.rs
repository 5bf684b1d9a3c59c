//! The ledger's partitions: one per UTC day of commit.
//!
//! They are made ahead of time, and on demand for any other day, never inside a handler's transaction. A day is made as a
//! table of its own and then attached: making it as a partition at once would lock the whole ledger, and every group
//! would wait behind the longest handler that has written to it.

use chrono::{Days, NaiveDate, Utc};
use sqlx::postgres::{PgConnection, PgPool};

use crate::ledger::patience::{ask, transact};

/// How many days from today on are kept ready.
pub const DAYS_AHEAD: u64 = 7;

/// Makes the partitions of yesterday, today and the days ahead.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn make_ahead(pool: &PgPool) -> Result<(), sqlx::Error> {
    let yesterday = Utc::now().date_naive() - Days::new(1);
    for day in 0..=DAYS_AHEAD + 1 {
        make_in_advance(pool, yesterday + Days::new(day)).await?;
    }
    Ok(())
}

/// Nobody needs it at this moment, so whoever makes it, or drops another one, need not be waited for.
async fn make_in_advance(pool: &PgPool, day: NaiveDate) -> Result<(), sqlx::Error> {
    let table = table(day);
    let made = async |connection: &mut PgConnection| state(connection, &table).await;
    match ask(pool, "looking for a day of the ledger", made).await? {
        State::Attached => Ok(()),
        _ => make(pool, day).await,
    }
}

/// Makes the partition of one day; that it exists already, or that another process makes it now, is no error.
///
/// Whoever makes it is waited for, also when its row can be seen already: a session learns that a table has another
/// partition a moment after that, but before the lock is free. Who asked because a row had no partition would otherwise
/// be told that there is one, and find none again.
///
/// # Errors
/// Whatever Postgres answered, and that the day is being dropped: then it can be made a little later.
pub async fn make(pool: &PgPool, day: NaiveDate) -> Result<(), sqlx::Error> {
    let table = table(day);
    transact(
        pool,
        "making a day of the ledger",
        async |connection: &mut PgConnection| make_on(connection, &table, day).await,
    )
    .await
}

async fn make_on(connection: &mut PgConnection, table: &str, day: NaiveDate) -> Result<(), sqlx::Error> {
    // Two sessions could both find the table missing.
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('afterwrite.ledger.days', 0))")
        .execute(&mut *connection)
        .await?;
    match state(connection, table).await? {
        State::Attached => return Ok(()),
        State::Leaving => return Err(sqlx::Error::Protocol(format!("{table} is being dropped"))),
        State::Absent | State::Apart => {}
    }
    let next = day + Days::new(1);
    let create = format!("CREATE TABLE IF NOT EXISTS {table} (LIKE afterwrite.ledger INCLUDING ALL)");
    let attach =
        format!("ALTER TABLE afterwrite.ledger ATTACH PARTITION {table} FOR VALUES FROM ('{day}') TO ('{next}')");
    for statement in [create, attach] {
        sqlx::query(sqlx::AssertSqlSafe(statement))
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// How the table of a day stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Absent,
    /// A partition of the ledger.
    Attached,
    /// A partition that takes no rows any more.
    Leaving,
    /// No partition: whoever dropped the day did not come to its end.
    Apart,
}

async fn state(connection: &mut PgConnection, table: &str) -> Result<State, sqlx::Error> {
    let (exists, leaving): (bool, Option<bool>) = sqlx::query_as(
        "SELECT to_regclass($1) IS NOT NULL,
             (SELECT inhdetachpending FROM pg_inherits
              WHERE inhrelid = to_regclass($1) AND inhparent = 'afterwrite.ledger'::regclass)",
    )
    .bind(table)
    .fetch_one(connection)
    .await?;
    Ok(match (exists, leaving) {
        (false, _) => State::Absent,
        (true, None) => State::Apart,
        (true, Some(false)) => State::Attached,
        (true, Some(true)) => State::Leaving,
    })
}

/// The table of a day.
fn table(day: NaiveDate) -> String {
    format!("{PREFIX}{}", day.format(FORMAT))
}

/// The day of a table of the ledger, given with its schema.
pub(super) fn day_of(table: &str) -> Option<NaiveDate> {
    NaiveDate::parse_from_str(table.strip_prefix(PREFIX)?, FORMAT).ok()
}

const PREFIX: &str = "afterwrite.ledger_";

const FORMAT: &str = "%Y%m%d";
