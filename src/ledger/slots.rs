//! Where a group stands that reads the write-ahead log itself: kept here, and told to the server afterwards.

use sqlx::postgres::{PgConnection, PgPool};

use crate::event::delivery::{Position, SourcePartition};
use crate::ledger::patience::ask;

/// The slot of one group.
#[derive(Debug, Clone)]
pub struct Slots {
    group: String,
    slot: String,
    pool: PgPool,
}

/// Where a slot stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// All transactions that end before this place in the log are settled.
    pub confirmed_lsn: u64,
    /// The number of the first change after it.
    pub position: Position,
    /// Changes before this one are settled.
    pub settled_to: Position,
}

/// What is known of a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// The cluster whose log it is.
    pub system_id: String,
    /// The group it belongs to.
    pub group: String,
    /// Where it stands.
    pub standing: Standing,
}

/// A slot as the server has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnServer {
    /// The plug-in that decodes for it; none for a physical slot.
    pub plugin: Option<String>,
    /// The database it belongs to.
    pub database: Option<String>,
    /// The process that reads it.
    pub active_pid: Option<i32>,
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: Option<String>,
    /// What its reader confirmed.
    pub confirmed_lsn: Option<u64>,
}

impl Slots {
    /// The slot of this name, read by `group`.
    pub fn new(pool: PgPool, group: impl Into<String>, slot: impl Into<String>) -> Self {
        Self {
            group: group.into(),
            slot: slot.into(),
            pool,
        }
    }

    /// The slot that a group reads: the one that is known as its own, which may have the name of a group that was renamed, or
    /// else one of this name.
    ///
    /// # Errors
    /// Whatever Postgres answered.
    pub async fn of_group(pool: PgPool, group: &str, name: impl Into<String>) -> Result<Self, sqlx::Error> {
        let query =
            sqlx::query_scalar("SELECT slot_name::text FROM afterwrite.slots WHERE group_name = $1").bind(group);
        let known: Option<String> = ask(
            &pool,
            "looking for the slot of a group",
            async |connection: &mut PgConnection| query.fetch_optional(connection).await,
        )
        .await?;
        Ok(Self::new(pool, group, known.unwrap_or_else(|| name.into())))
    }

    /// The slot's name.
    pub fn name(&self) -> &str {
        &self.slot
    }

    /// The database that keeps it.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// What is known of it; `None` before its first use.
    ///
    /// # Errors
    /// Whatever Postgres answered.
    pub async fn known(&self) -> Result<Option<Known>, sqlx::Error> {
        let query = sqlx::query_as(
            "SELECT system_id, group_name, (confirmed_lsn - '0/0')::bigint, position, settled_to FROM afterwrite.slots WHERE slot_name = $1::name",
        )
        .bind(&self.slot);
        let row: Option<(String, String, i64, i64, i64)> =
            ask(&self.pool, "reading a slot", async |connection: &mut PgConnection| {
                query.fetch_optional(connection).await
            })
            .await?;
        Ok(
            row.map(|(system_id, group, confirmed_lsn, position, settled_to)| Known {
                system_id,
                group,
                standing: Standing {
                    confirmed_lsn: confirmed_lsn.cast_unsigned(),
                    position: Position(position),
                    settled_to: Position(settled_to),
                },
            }),
        )
    }

    /// What the server says of it; `None` where it has none of that name.
    ///
    /// # Errors
    /// Whatever Postgres answered.
    pub async fn on_server(&self) -> Result<Option<OnServer>, sqlx::Error> {
        let query = sqlx::query_as(
            "SELECT plugin::text, database::text, active_pid, wal_status, (confirmed_flush_lsn - '0/0')::bigint
             FROM pg_replication_slots WHERE slot_name = $1::name",
        )
        .bind(&self.slot);
        type Row = (Option<String>, Option<String>, Option<i32>, Option<String>, Option<i64>);
        let row: Option<Row> = ask(
            &self.pool,
            "looking at a slot",
            async |connection: &mut PgConnection| query.fetch_optional(connection).await,
        )
        .await?;
        Ok(
            row.map(|(plugin, database, active_pid, wal_status, confirmed_lsn)| OnServer {
                plugin,
                database,
                active_pid,
                wal_status,
                confirmed_lsn: confirmed_lsn.map(i64::cast_unsigned),
            }),
        )
    }

    /// Keeps a slot that is used for the first time; one that is known already stays as it is.
    ///
    /// # Errors
    /// Whatever Postgres answered.
    pub async fn began(&self, system_id: &str, standing: Standing) -> Result<(), sqlx::Error> {
        let query = sqlx::query(
            "INSERT INTO afterwrite.slots (slot_name, group_name, system_id, confirmed_lsn, position, settled_to)
             VALUES ($1::name, $2, $3, $4::pg_lsn, $5, $6) ON CONFLICT (slot_name) DO NOTHING",
        )
        .bind(&self.slot)
        .bind(&self.group)
        .bind(system_id)
        .bind(printed(standing.confirmed_lsn))
        .bind(standing.position.0)
        .bind(standing.settled_to.0);
        ask(&self.pool, "keeping a slot", async |connection: &mut PgConnection| {
            query.execute(connection).await
        })
        .await?;
        Ok(())
    }

    /// Keeps how far the slot's partition is settled. False: the epoch is over, and nothing was changed.
    ///
    /// # Errors
    /// Whatever Postgres answered.
    pub async fn settled(
        &self,
        partition: &SourcePartition,
        epoch: u64,
        standing: Standing,
    ) -> Result<bool, sqlx::Error> {
        let query = sqlx::query(
            "WITH claim AS (
                 SELECT FROM afterwrite.claims
                 WHERE group_name = $2 AND topic = $3 AND partition = $4 AND epoch = $5 FOR UPDATE)
             UPDATE afterwrite.slots SET confirmed_lsn = $6::pg_lsn, position = $7, settled_to = $8, updated_at = now()
             WHERE slot_name = $1::name AND group_name = $2 AND EXISTS (SELECT FROM claim)",
        )
        .bind(&self.slot)
        .bind(&self.group)
        .bind(&*partition.topic)
        .bind(partition.partition)
        .bind(epoch.cast_signed())
        .bind(printed(standing.confirmed_lsn))
        .bind(standing.position.0)
        .bind(standing.settled_to.0);
        let kept = ask(
            &self.pool,
            "keeping how far a slot is settled",
            async |connection: &mut PgConnection| query.execute(connection).await,
        );
        Ok(kept.await?.rows_affected() > 0)
    }
}

/// Open transactions that are told of at most.
const OPEN_MAX: i64 = 5;

/// A transaction that has written and not ended.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct OpenTransaction {
    /// The process of Postgres it runs in; none for a prepared one.
    pub pid: Option<i32>,
    /// What its client calls itself, or `prepared`.
    pub application: String,
    /// Seconds since it began.
    pub open_s: Option<i64>,
}

/// The transactions that a slot which is being made waits for, the oldest first, and not all of them where there are many.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn open_transactions(pool: &PgPool) -> Result<Vec<OpenTransaction>, sqlx::Error> {
    let query = sqlx::query_as(
        "SELECT pid, coalesce(application_name, '') AS application, extract(epoch FROM now() - xact_start)::bigint AS open_s
         FROM pg_stat_activity WHERE backend_xid IS NOT NULL
         UNION ALL
         SELECT NULL, 'prepared', extract(epoch FROM now() - prepared)::bigint FROM pg_prepared_xacts
         ORDER BY 3 DESC NULLS LAST LIMIT $1",
    )
    .bind(OPEN_MAX);
    ask(
        pool,
        "looking for open transactions",
        async |connection: &mut PgConnection| query.fetch_all(connection).await,
    )
    .await
}

/// A place in the log as Postgres prints it.
pub fn printed(lsn: u64) -> String {
    format!("{:X}/{:X}", lsn >> 32, lsn & 0xffff_ffff)
}
