//! Whether the application's tables are what the names say: looked at before the views are made, and by whoever asks.

use std::fmt;

use serde::Serialize;
use sqlx::PgConnection;

use crate::handlers::names::reference::{TABLES, Table};
use crate::handlers::names::{Mapped, Names};

/// Something that the application's tables lack. Its text says what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Table of the reference schema.
    pub table: String,
    /// Column of the reference schema, where it is about one.
    pub column: Option<String>,
    /// What kind of thing it is.
    pub about: About,
    /// What is wrong.
    pub problem: String,
}

/// What a table may lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum About {
    /// The table itself.
    Table,
    /// A column.
    Column,
    /// The type of a column.
    Type,
    /// The primary key.
    Key,
    /// Whole old rows in the log.
    Identity,
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.column {
            Some(column) => write!(out, "{}.{column}: {}", self.table, self.problem),
            None => write!(out, "{}: {}", self.table, self.problem),
        }
    }
}

/// A column of the application, as the catalogue has it.
#[derive(Debug, sqlx::FromRow)]
struct Found {
    name: String,
    sql_type: String,
    /// `e` for an enum.
    kind: String,
}

/// Types that can stand for a type of the reference where they are only read.
const READABLE: &[(&str, &[&str])] = &[
    ("text", &["character varying", "character", "citext", "name"]),
    ("integer", &["smallint"]),
    ("integer[]", &["smallint[]"]),
    ("jsonb", &["json"]),
    ("inet", &["cidr"]),
    ("boolean", &[]),
];

/// Everything the application's tables lack: tables, columns, types, a primary key `id`, whole old rows in the log.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn check(connection: &mut PgConnection, names: &Names) -> Result<Vec<Finding>, sqlx::Error> {
    let mut findings = Vec::new();
    for table in TABLES {
        let mapped = names.tables.iter().find(|mapped| mapped.reference.name == table.name);
        let Some((schema, name)) = names.place(table.name) else {
            continue;
        };
        check_table(connection, table, mapped, (&schema, &name), &mut findings).await?;
    }
    Ok(findings)
}

async fn check_table(
    connection: &mut PgConnection,
    table: &'static Table,
    mapped: Option<&Mapped>,
    (schema, name): (&str, &str),
    findings: &mut Vec<Finding>,
) -> Result<(), sqlx::Error> {
    let mut find = |about: About, column: Option<&str>, problem: String| {
        findings.push(Finding {
            table: table.name.to_owned(),
            column: column.map(str::to_owned),
            about,
            problem,
        });
    };
    let place = format!("{schema}.{name}");
    let relation = relation_of(connection, schema, name).await?;
    let Some((oid, is_full, primary_key)) = relation else {
        find(
            About::Table,
            None,
            format!("there is no table {place}; set waitlist.tables.{}.name", table.name),
        );
        return Ok(());
    };
    let columns = columns_of(connection, oid).await?;
    for (number, column) in table.columns.iter().enumerate() {
        let own = match mapped {
            None => Some(column.name),
            Some(mapped) => mapped.columns[number].as_deref(),
        };
        let Some(own) = own else { continue };
        match columns.iter().find(|found| found.name == own) {
            None => find(
                About::Column,
                Some(column.name),
                format!(
                    "{place} has no column {own}; set waitlist.tables.{}.columns.{}",
                    table.name, column.name
                ),
            ),
            Some(found) if !fits(found, column.sql_type, table.is_written) => find(
                About::Type,
                Some(column.name),
                format!("{place}.{own} is {}, and should be {}", found.sql_type, column.sql_type),
            ),
            Some(_) => {}
        }
    }
    if table.is_captured {
        let id = mapped.map_or("id".to_owned(), |mapped| mapped.application_column("id"));
        if primary_key.as_deref() != Some(id.as_str()) {
            find(
                About::Key,
                None,
                format!("the primary key of {place} should be {id} alone"),
            );
        }
        if !is_full {
            find(
                About::Identity,
                None,
                format!("old rows of {place} are not logged whole; ALTER TABLE {place} REPLICA IDENTITY FULL"),
            );
        }
    }
    Ok(())
}

/// The table's number, whether its old rows are logged whole, and the columns of its primary key.
async fn relation_of(
    connection: &mut PgConnection,
    schema: &str,
    name: &str,
) -> Result<Option<(i64, bool, Option<String>)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT c.oid::bigint, c.relreplident = 'f',
                (SELECT string_agg(a.attname, ',') FROM pg_index i JOIN pg_attribute a
                     ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
                 WHERE i.indrelid = c.oid AND i.indisprimary)
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p')",
    )
    .bind(schema)
    .bind(name)
    .fetch_optional(connection)
    .await
}

async fn columns_of(connection: &mut PgConnection, table: i64) -> Result<Vec<Found>, sqlx::Error> {
    sqlx::query_as(
        "SELECT a.attname::text AS name, format_type(a.atttypid, NULL) AS sql_type, t.typtype::text AS kind
         FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
         WHERE a.attrelid = $1::bigint::oid AND a.attnum > 0 AND NOT a.attisdropped",
    )
    .bind(table)
    .fetch_all(connection)
    .await
}

fn fits(found: &Found, wanted: &str, is_written: bool) -> bool {
    if found.sql_type == wanted {
        return true;
    }
    let readable = READABLE.iter().find(|(known, _)| *known == wanted);
    let is_readable = readable.is_some_and(|(_, types)| types.contains(&found.sql_type.as_str()));
    let is_word = wanted == "text" && found.kind == "e";
    // A text is written into any type of text; the others are written as they are.
    match is_written {
        true => wanted == "text" && is_readable,
        false => is_readable || is_word,
    }
}
