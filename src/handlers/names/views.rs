//! Views of the reference's names over the application's tables, and what is published of these.
//!
//! Postgres lets a view of one table be written as the table itself, `ON CONFLICT` included, where its columns are plain.
//! They are in tables that the worker writes; elsewhere they are cast to the reference's types, so that a `varchar`, an
//! enum or a `bigint` does.

use crate::handlers::SCHEMA;
use crate::handlers::names::reference::Absent;
use crate::handlers::names::{Mapped, Names};

/// The schema of the views.
pub const VIEWS: &str = "afterwrite_names";

/// What the worker's sessions look through, in this order.
pub const SEARCH_PATH: &str = "afterwrite_names,public";

/// A script that makes the views what these names say, in one transaction of the caller; without names it takes them away.
pub fn script(names: &Names) -> String {
    let mut script = format!("DROP SCHEMA IF EXISTS {VIEWS} CASCADE;\n");
    if names.is_empty() {
        return script;
    }
    script.push_str(&format!("CREATE SCHEMA {VIEWS};\n"));
    for mapped in &names.tables {
        script.push_str(&view(mapped));
    }
    script
}

/// Who may use the views: whoever may use the tables under them, and nobody else, because the views ask with the rights of
/// the one who asks.
pub fn grants(names: &Names, role: &str) -> String {
    if names.is_empty() {
        return String::new();
    }
    let mut script = format!("GRANT USAGE ON SCHEMA {VIEWS} TO {role};\n");
    for mapped in &names.tables {
        let rights = if mapped.reference.is_written {
            "SELECT, INSERT, UPDATE"
        } else {
            "SELECT"
        };
        script.push_str(&format!(
            "GRANT {rights} ON {VIEWS}.{} TO {role};\n",
            mapped.reference.name
        ));
    }
    script
}

/// A script that names the reference's tables, with the application's in their place. Statements about a table that the
/// application does not have lose it.
pub fn rename_tables(names: &Names, script: &str) -> String {
    let mut renamed = script.to_owned();
    for mapped in &names.tables {
        let reference = format!("{SCHEMA}.{}", mapped.reference.name);
        renamed = match &mapped.place {
            Some(place) => replace_name(
                &renamed,
                &reference,
                &format!("{}.{}", quoted(&place.schema), quoted(&place.table)),
            ),
            None => remove_name(&renamed, &reference),
        };
    }
    renamed
}

fn view(mapped: &Mapped) -> String {
    let reference = mapped.reference;
    let columns = reference.columns.iter().zip(&mapped.columns).map(|(column, own)| {
        let value = match (own, column.absent) {
            (Some(own), _) if reference.is_written => quoted(own),
            (Some(own), _) => format!("{}::{}", quoted(own), column.sql_type),
            (None, Absent::Is(expression)) => format!("{expression}::{}", column.sql_type),
            (None, _) => format!("NULL::{}", column.sql_type),
        };
        format!("{value} AS {}", quoted(column.name))
    });
    let columns: Vec<String> = match &mapped.place {
        Some(_) => columns.collect(),
        None => reference
            .columns
            .iter()
            .map(|column| format!("NULL::{} AS {}", column.sql_type, quoted(column.name)))
            .collect(),
    };
    let rows = match &mapped.place {
        Some(place) => format!("FROM {}.{}", quoted(&place.schema), quoted(&place.table)),
        None => "WHERE false".to_owned(),
    };
    format!(
        "CREATE VIEW {VIEWS}.{} WITH (security_invoker = true) AS\n    SELECT {}\n    {rows};\n",
        reference.name,
        columns.join(", ")
    )
}

/// A name as SQL wants it, whatever is in it.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Where `name` stands as a whole word.
fn places(text: &str, name: &str) -> Vec<usize> {
    let is_part = |character: char| character.is_ascii_alphanumeric() || character == '_';
    text.match_indices(name)
        .map(|(place, _)| place)
        .filter(|place| {
            let next = text[place + name.len()..].chars().next();
            let before = text[..*place].chars().next_back();
            !next.is_some_and(is_part) && !before.is_some_and(|character| is_part(character) || character == '.')
        })
        .collect()
}

fn replace_name(text: &str, name: &str, by: &str) -> String {
    let mut renamed = text.to_owned();
    for place in places(text, name).into_iter().rev() {
        renamed.replace_range(place..place + name.len(), by);
    }
    renamed
}

/// Takes the name out of the lists in which it stands, with one comma; a statement about it alone goes as a whole.
fn remove_name(text: &str, name: &str) -> String {
    let statements = text.split_inclusive(';').map(|statement| {
        let mut kept = statement.to_owned();
        while let Some(place) = places(&kept, name).first().copied() {
            let end = place + name.len();
            let before = kept[..place].trim_end();
            let after = kept[end..].trim_start();
            if after.starts_with(',') {
                let end = kept.len() - after.len() + 1;
                kept.replace_range(place..end, "");
            } else if before.ends_with(',') {
                let start = before.len() - 1;
                kept.replace_range(start..end, "");
            } else {
                return String::new();
            }
        }
        kept
    });
    statements.collect()
}
