//! Refusing routes to tables without a primary key, where the handler does not say that it tolerates repetition.
//!
//! Debezium takes the columns of a unique index for the key of such a table, which may be null and so no key. Rows that
//! cannot be told apart have events that cannot be told apart, so whatever comes once more would be done once more.

use std::sync::Arc;

use sqlx::postgres::PgPool;

use crate::handler::{Handler, Keyless};

/// A route that cannot be kept, or a database that could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The table has no primary key.
    #[error(
        "handler {handler} is routed to {table}, which has no primary key: its events cannot be told apart, so nothing could \
         be done exactly once; add one (ALTER TABLE {table} ADD PRIMARY KEY (…)), or let the route say \
         `keyless: Keyless::AtLeastOnce`"
    )]
    NoPrimaryKey {
        /// The handler.
        handler: String,
        /// `schema.table`.
        table: String,
    },
    /// Postgres failed.
    #[error("the primary keys of the routed tables could not be read")]
    Asked(#[source] sqlx::Error),
}

/// Refuses the first route to a table without a primary key that does not allow it. A table that does not exist yet is not
/// refused.
///
/// # Errors
/// That route, or whatever Postgres answered.
pub(super) async fn refuse(pool: &PgPool, handlers: &[Arc<dyn Handler>]) -> Result<(), Error> {
    let specs: Vec<_> = handlers.iter().map(|handler| handler.spec()).collect();
    let routes = specs
        .iter()
        .flat_map(|spec| spec.routes.iter().map(|route| (&*spec.name, route)))
        .filter(|(_, route)| route.keyless == Keyless::Refused);
    let (names, places): (Vec<&str>, Vec<(&str, &str)>) = routes
        .map(|(name, route)| (name, (&*route.schema, &*route.table)))
        .unzip();
    let (schemas, tables): (Vec<&str>, Vec<&str>) = places.into_iter().unzip();
    let found: Option<(String, String)> = sqlx::query_as(
        "SELECT handler, format('%I.%I', n.nspname, c.relname)
         FROM unnest($1::text[], $2::text[], $3::text[]) AS routed (handler, schema_name, table_name)
         JOIN pg_namespace n ON n.nspname = schema_name
         JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = table_name AND c.relkind IN ('r', 'p')
         WHERE NOT EXISTS (SELECT FROM pg_index WHERE indrelid = c.oid AND indisprimary)
         ORDER BY 1, 2 LIMIT 1",
    )
    .bind(&names)
    .bind(&schemas)
    .bind(&tables)
    .fetch_optional(pool)
    .await
    .map_err(Error::Asked)?;
    match found {
        Some((handler, table)) => Err(Error::NoPrimaryKey { handler, table }),
        None => Ok(()),
    }
}
