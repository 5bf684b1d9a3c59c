//! A table as its changes are printed: what `pgoutput` says of it, put together with what the catalogue says.

use crate::source::wal::kind::{self, Catalogue, Kind};
use crate::source::wal::pgoutput::{Identity, Relation};
use crate::source::wal::value;

/// What the catalogue says of a table and of the types of its columns.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Described {
    /// The columns of the primary key, in its order; none where there is no key.
    pub key: Vec<String>,
    /// The types of the columns, and those behind them.
    pub types: Catalogue,
}

/// A table whose changes can be printed.
#[derive(Debug, Clone)]
pub struct Table {
    pub(super) columns: Vec<Column>,
    /// The places of the primary key's columns.
    pub(super) key: Vec<usize>,
    /// Whether an old row has the primary key.
    pub(super) old_has_key: bool,
    /// `"schema":"…","table":"…"`.
    pub(super) labelled: Vec<u8>,
}

/// A column.
#[derive(Debug, Clone)]
pub(super) struct Column {
    /// `"name":`.
    pub(super) label: Vec<u8>,
    /// `None` is left out of a row.
    pub(super) kind: Option<Kind>,
    /// Whether it is part of the replica identity.
    pub(super) identifies: bool,
}

impl Table {
    /// Puts both together. Columns in `excluded`, each `schema.table.column`, are left out as the connector's
    /// `column.exclude.list` leaves them out; a column of the key is not.
    pub fn new(relation: &Relation, described: &Described, excluded: &[String]) -> Self {
        let (schema, table) = (relation.schema.as_str(), relation.table.as_str());
        let place = |name: &String| relation.columns.iter().position(|column| column.name == *name);
        let key: Vec<usize> = described.key.iter().filter_map(place).collect();
        let columns: Vec<Column> = relation
            .columns
            .iter()
            .enumerate()
            .map(|(place, column)| {
                let is_excluded = !key.contains(&place) && is_excluded(excluded, schema, table, &column.name);
                let kind = kind::of(&described.types, column.type_oid, column.type_modifier);
                Column {
                    label: label(&column.name),
                    kind: kind.filter(|_| !is_excluded),
                    identifies: column.identifies,
                }
            })
            .collect();
        let is_sent = |place: &usize| columns.get(*place).is_some_and(|column| column.identifies);
        let mut labelled = label("schema");
        value::string(schema, &mut labelled);
        labelled.push(b',');
        labelled.extend(label("table"));
        value::string(table, &mut labelled);
        Self {
            old_has_key: relation.identity != Identity::Nothing && !key.is_empty() && key.iter().all(is_sent),
            key: if key.len() == described.key.len() {
                key
            } else {
                Vec::new()
            },
            columns,
            labelled,
        }
    }
}

fn label(name: &str) -> Vec<u8> {
    let mut label = Vec::with_capacity(name.len() + 3);
    value::string(name, &mut label);
    label.push(b':');
    label
}

fn is_excluded(excluded: &[String], schema: &str, table: &str, column: &str) -> bool {
    excluded.iter().any(|pattern| {
        let rest = pattern.strip_prefix(schema).and_then(|rest| rest.strip_prefix('.'));
        let rest = rest.and_then(|rest| rest.strip_prefix(table)?.strip_prefix('.'));
        rest == Some(column)
    })
}
