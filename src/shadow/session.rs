//! A database session in which a handler writes and nothing stays.
//!
//! Each attempt runs inside one transaction that is rolled back. The handler gets a pool of one connection, which takes
//! itself to be inside a transaction all the time: what the handler opens is a savepoint, what it commits is released into the
//! transaction around it. Outside of that transaction the session is read-only, so that a connection that was lost and made
//! anew in the middle of an attempt cannot write either.

use std::time::Duration;

use serde::Serialize;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{Connection, Executor};

/// Tables of the program's own: what they hold is how it works, not what it decided.
const OWN_SCHEMA: &str = "afterwrite";

/// Rows of one table that an attempt would have written. What the handler itself took back is counted too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, sqlx::FromRow)]
pub struct Rows {
    /// `schema.table`.
    pub table: String,
    /// Rows inserted.
    pub inserted: i64,
    /// Rows updated.
    pub updated: i64,
    /// Rows deleted.
    pub deleted: i64,
}

/// One session.
#[derive(Debug, Clone)]
pub struct Session {
    pool: PgPool,
}

impl Session {
    /// A session with this database, connected when it is first used.
    pub fn new(connect: &PgConnectOptions, acquire: Duration) -> Self {
        let connect = connect.clone().options([("default_transaction_read_only", "on")]);
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(acquire)
            .after_connect(|connection, _| Box::pin(stay_inside(connection)))
            .connect_lazy_with(connect);
        Self { pool }
    }

    /// The connections of the handler: one.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Begins an attempt; answers what its session has counted so far.
    ///
    /// # Errors
    /// Whatever Postgres answered.
    pub async fn begin(&self) -> Result<Vec<Rows>, sqlx::Error> {
        let mut connection = self.pool.acquire().await?;
        // A transaction that an earlier attempt left behind ends first.
        connection.execute("ROLLBACK; BEGIN READ WRITE").await?;
        counted(&mut connection).await
    }

    /// Takes back what the attempt wrote.
    ///
    /// # Errors
    /// Whatever Postgres answered. Nothing stays then either: it ends the transaction of a session that is gone.
    pub async fn take_back(&self) -> Result<(), sqlx::Error> {
        self.pool.acquire().await?.execute("ROLLBACK").await?;
        Ok(())
    }

    /// What the attempt would have written, as long as nothing was taken back, beyond what was counted before it.
    ///
    /// # Errors
    /// Whatever Postgres answered.
    pub async fn written(&self, before: &[Rows]) -> Result<Vec<Rows>, sqlx::Error> {
        let mut connection = self.pool.acquire().await?;
        let mut rows = counted(&mut connection).await?;
        for table in &mut rows {
            if let Some(before) = before.iter().find(|before| before.table == table.table) {
                table.inserted -= before.inserted;
                table.updated -= before.updated;
                table.deleted -= before.deleted;
            }
        }
        rows.retain(|table| table.inserted + table.updated + table.deleted > 0);
        Ok(rows)
    }
}

/// Makes the client take the connection to be inside a transaction, in which `begin` is a savepoint: the guard that would end
/// that is given up, and the client counts on.
async fn stay_inside(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    std::mem::forget(connection.begin().await?);
    connection.execute("ROLLBACK").await?;
    Ok(())
}

/// The session's own statistics are told to others after a while, so they may hold what transactions before this one wrote.
async fn counted(connection: &mut PgConnection) -> Result<Vec<Rows>, sqlx::Error> {
    sqlx::query_as(
        "SELECT schemaname || '.' || relname AS table, n_tup_ins AS inserted, n_tup_upd AS updated, n_tup_del AS deleted
         FROM pg_stat_xact_user_tables
         WHERE n_tup_ins + n_tup_upd + n_tup_del > 0 AND schemaname <> $1
         ORDER BY 1",
    )
    .bind(OWN_SCHEMA)
    .fetch_all(connection)
    .await
}
