//! The table of the measurement, its publication and its slots: of a name that is made up.

use std::fmt::Write;

use sqlx::postgres::PgPool;
use uuid::Uuid;

/// Columns beside the key and the number of the change.
const COLUMNS: usize = 23;

/// Rows of one transaction.
const ROWS_A_TRANSACTION: u32 = 10_000;

/// A table whose changes are published.
pub(super) struct Rows {
    /// Its name, and that of the publication; the names of slots begin with it.
    pub(super) name: String,
    pub(super) pool: PgPool,
}

impl Rows {
    pub(super) async fn make(pool: &PgPool) -> Result<Self, sqlx::Error> {
        let rows = Self {
            name: format!("bench_{}", Uuid::new_v4().simple()),
            pool: pool.clone(),
        };
        let mut columns = String::from("id bigint PRIMARY KEY, seq bigint NOT NULL");
        for column in 0..COLUMNS {
            let kind = ["text", "integer", "timestamptz", "numeric(12,2)", "boolean"][column % 5];
            write!(columns, ", c{column} {kind}").ok();
        }
        let name = &rows.name;
        rows.execute(format!("CREATE TABLE public.{name} ({columns})")).await?;
        rows.execute(format!("CREATE PUBLICATION {name} FOR TABLE public.{name}"))
            .await?;
        Ok(rows)
    }

    /// Writes so many rows; answers the place in the log behind them.
    pub(super) async fn write(&self, count: u32) -> Result<String, sqlx::Error> {
        let mut values = String::from("n, 1");
        for column in 0..COLUMNS {
            values += [
                ", 'a text of some thirty letters ' || n",
                ", n",
                ", now()",
                ", n / 100.0",
                ", n % 2 = 0",
            ][column % 5];
        }
        let name = &self.name;
        let mut first = 1;
        while first <= count {
            let last = count.min(first + ROWS_A_TRANSACTION - 1);
            self.execute(format!(
                "INSERT INTO public.{name} SELECT {values} FROM generate_series({first}, {last}) n"
            ))
            .await?;
            first = last + 1;
        }
        self.place().await
    }

    /// Writes one change: the row whose number is the smallest gets this number.
    pub(super) async fn change(&self, number: i64) -> Result<(), sqlx::Error> {
        let sql = format!("UPDATE public.{} SET seq = $1 WHERE id = $2", self.name);
        sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(number)
            .bind(number % 1_000 + 1)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Where the log ends now.
    pub(super) async fn place(&self) -> Result<String, sqlx::Error> {
        sqlx::query_scalar("SELECT pg_current_wal_insert_lsn()::text")
            .fetch_one(&self.pool)
            .await
    }

    pub(super) async fn make_slot(&self, slot: &str) -> Result<(), sqlx::Error> {
        sqlx::query("SELECT pg_create_logical_replication_slot($1, 'pgoutput')")
            .bind(slot)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    pub(super) async fn drop_slot(&self, slot: &str) -> Result<(), sqlx::Error> {
        sqlx::query("SELECT pg_drop_replication_slot($1)")
            .bind(slot)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Drops a slot, and what is known of it and of the group that read it.
    pub(super) async fn forget_slot(&self, slot: &str) -> Result<(), sqlx::Error> {
        self.drop_slot(slot).await?;
        for sql in [
            "DELETE FROM afterwrite.slots WHERE slot_name = $1::name",
            "DELETE FROM afterwrite.claims WHERE topic = $1",
        ] {
            sqlx::query(sql).bind(slot).execute(&self.pool).await?;
        }
        Ok(())
    }

    /// Removes everything.
    pub(super) async fn remove(self) -> Result<(), sqlx::Error> {
        let name = &self.name;
        sqlx::query(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
             WHERE starts_with(slot_name::text, $1) AND NOT active",
        )
        .bind(name)
        .execute(&self.pool)
        .await?;
        self.execute(format!("DROP PUBLICATION {name}")).await?;
        self.execute(format!("DROP TABLE public.{name}")).await
    }

    /// Runs a statement that is made up here, and never put together from what somebody typed.
    async fn execute(&self, sql: String) -> Result<(), sqlx::Error> {
        sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&self.pool).await?;
        Ok(())
    }
}
