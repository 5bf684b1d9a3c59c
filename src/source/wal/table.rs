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
    /// The places of the primary key's columns; none where there is no key, or one with a column that is left out of rows: what
    /// is left of it might be another row's too.
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
    /// Whether its rows can be told apart.
    pub(super) fn has_key(&self) -> bool {
        !self.key.is_empty()
    }

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
        let column = |place: &usize| columns.get(*place);
        let is_sent = |place: &usize| column(place).is_some_and(|column| column.identifies);
        let is_read = |place: &usize| column(place).is_some_and(|column| column.kind.is_some());
        let is_whole = key.len() == described.key.len() && key.iter().all(is_read);
        let mut labelled = label("schema");
        value::string(schema, &mut labelled);
        labelled.push(b',');
        labelled.extend(label("table"));
        value::string(table, &mut labelled);
        Self {
            old_has_key: relation.identity != Identity::Nothing && key.iter().all(is_sent),
            key: if is_whole { key } else { Vec::new() },
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::wal::kind::CatalogueType;
    use crate::source::wal::pgoutput;

    const INT8: u32 = 20;
    const PG_LSN: u32 = 3220;

    fn table(key: &[&str], excluded: &[&str]) -> Table {
        let column = |name: &str, type_oid| pgoutput::Column {
            name: name.to_owned(),
            identifies: true,
            type_oid,
            type_modifier: -1,
        };
        let relation = Relation {
            oid: 1,
            schema: "public".to_owned(),
            table: "t".to_owned(),
            identity: Identity::Key,
            columns: vec![column("id", INT8), column("place", PG_LSN), column("note", INT8)],
        };
        let builtin = |name: &str| CatalogueType {
            name: name.to_owned(),
            is_builtin: true,
            class: 'b',
            base: 0,
            base_modifier: -1,
            element: 0,
        };
        let described = Described {
            key: key.iter().map(|name| (*name).to_owned()).collect(),
            types: [(INT8, builtin("int8")), (PG_LSN, builtin("pg_lsn"))].into(),
        };
        let excluded: Vec<String> = excluded.iter().map(|name| (*name).to_owned()).collect();
        Table::new(&relation, &described, &excluded)
    }

    #[test]
    fn a_key_with_a_column_that_is_not_read_is_none() {
        assert_eq!(table(&["id"], &[]).key, [0]);
        for key in [&["id", "place"][..], &["place"], &["id", "dropped"], &[]] {
            assert!(!table(key, &[]).has_key(), "{key:?}");
        }
    }

    #[test]
    fn columns_are_left_out_by_their_whole_name_and_keys_are_not() {
        let read = |excluded: &[&str]| -> Vec<bool> {
            let columns = table(&["id"], excluded).columns;
            columns.iter().map(|column| column.kind.is_some()).collect()
        };
        assert_eq!(read(&[]), [true, false, true]);
        assert_eq!(read(&["public.t.note"]), [true, false, false]);
        assert_eq!(
            read(&["public.t.id", "public.other.note", "t.note"]),
            [true, false, true]
        );
    }
}
