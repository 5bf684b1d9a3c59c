//! What the catalogue says of a table: its primary key, and the types of its columns.
//!
//! It is asked when the log describes a table, which is before its first change and again after the table was changed. What it
//! answers is as of now, as with Debezium's connector.

use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgConnection, PgPool};

use crate::ledger::patience::ask;
use crate::source::wal::kind::{Catalogue, CatalogueType};
use crate::source::wal::pgoutput::Relation;
use crate::source::wal::table::Described;

/// Describes a table.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn describe(pool: &PgPool, relation: &Relation) -> Result<Described, sqlx::Error> {
    let oids: Vec<Oid> = relation.columns.iter().map(|column| Oid(column.type_oid)).collect();
    ask(pool, "describing a table", async |connection: &mut PgConnection| {
        Ok(Described {
            key: key(connection, relation.oid).await?,
            types: types(connection, &oids).await?,
        })
    })
    .await
}

async fn key(connection: &mut PgConnection, table: u32) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT a.attname::text
         FROM pg_index i, unnest(i.indkey) WITH ORDINALITY AS member (number, place), pg_attribute a
         WHERE i.indrelid = $1 AND i.indisprimary AND a.attrelid = i.indrelid AND a.attnum = member.number
         ORDER BY member.place",
    )
    .bind(Oid(table))
    .fetch_all(connection)
    .await
}

/// Types, and those behind them: of a domain's values, of an array's elements.
async fn types(connection: &mut PgConnection, oids: &[Oid]) -> Result<Catalogue, sqlx::Error> {
    type Row = (Oid, String, bool, String, Oid, i32, Option<Oid>);
    let rows: Vec<Row> = sqlx::query_as(
        "WITH RECURSIVE needed (oid) AS (
             SELECT unnest($1::oid[])
             UNION
             SELECT behind.oid
             FROM needed JOIN pg_type t ON t.oid = needed.oid, unnest(ARRAY[t.typbasetype, t.typelem]) AS behind (oid)
             WHERE behind.oid <> 0)
         SELECT t.oid, t.typname::text, n.nspname = 'pg_catalog', t.typtype::text, t.typbasetype, t.typtypmod,
                CASE WHEN t.typcategory = 'A' THEN t.typelem END
         FROM needed JOIN pg_type t ON t.oid = needed.oid JOIN pg_namespace n ON n.oid = t.typnamespace",
    )
    .bind(oids)
    .fetch_all(connection)
    .await?;
    let types = rows
        .into_iter()
        .map(|(oid, name, is_builtin, class, base, base_modifier, element)| {
            let found = CatalogueType {
                name,
                is_builtin,
                class: class.chars().next().unwrap_or('b'),
                base: base.0,
                base_modifier,
                element: element.map_or(0, |oid| oid.0),
            };
            (oid.0, found)
        });
    Ok(types.collect())
}
