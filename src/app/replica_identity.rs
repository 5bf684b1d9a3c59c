//! Which tables send whole old rows.
//!
//! An event does not tell: under another identity than `FULL` the connector makes up what it was not sent, and the row
//! looks whole. So the database is asked, which knows how things are now. Events from before a table's identity was
//! changed are still told apart where they can be (an update without an old row), and the setting `source.full_identity`
//! is for where they cannot.

use std::sync::Arc;

use sqlx::postgres::PgPool;

use crate::decode::tables::Tables;
use crate::handler::Handler;

/// Those of the tables to which handlers are routed that have `REPLICA IDENTITY FULL` now. A partitioned table has it when all of its
/// partitions have it: their changes are what is logged.
///
/// # Errors
/// Whatever Postgres answered.
pub(super) async fn full(pool: &PgPool, handlers: &[Arc<dyn Handler>]) -> Result<Tables, sqlx::Error> {
    let tables = routed(handlers);
    let (schemas, names): (Vec<&str>, Vec<&str>) = tables
        .iter()
        .map(|(schema, table)| (schema.as_str(), table.as_str()))
        .unzip();
    let full: Vec<(String, String)> = sqlx::query_as(
        "SELECT n.nspname::text, c.relname::text
         FROM unnest($1::text[], $2::text[]) AS routed (schema_name, table_name)
         JOIN pg_namespace n ON n.nspname = routed.schema_name
         JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = routed.table_name
         WHERE CASE c.relkind
             WHEN 'p' THEN (SELECT bool_and(leaf.relreplident = 'f') FROM pg_partition_tree(c.oid) AS member
                            JOIN pg_class leaf ON leaf.oid = member.relid WHERE member.isleaf)
             ELSE c.relreplident = 'f' END",
    )
    .bind(&schemas)
    .bind(&names)
    .fetch_all(pool)
    .await?;
    let is_full = |table: &&(String, String)| full.contains(table);
    let others: Vec<String> = tables
        .iter()
        .filter(|table| !is_full(table))
        .map(|(schema, table)| format!("{schema}.{table}"))
        .collect();
    if !others.is_empty() {
        tracing::info!(
            tables = others.join(", "),
            "these tables have no REPLICA IDENTITY FULL: their old rows are not handed to handlers"
        );
    }
    Ok(Tables::named(full))
}

/// The tables to which handlers are routed, as (schema, table), each once.
fn routed(handlers: &[Arc<dyn Handler>]) -> Vec<(String, String)> {
    let routes = handlers.iter().flat_map(|handler| handler.spec().routes);
    let mut tables: Vec<(String, String)> = routes.map(|route| (route.schema, route.table)).collect();
    tables.sort_unstable();
    tables.dedup();
    tables
}
