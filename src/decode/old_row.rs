//! What the new row of an update takes over from the old one.
//!
//! Most updates change few columns, and both rows are printed alike: what stands in the new row byte for byte as in the
//! old one, names included, is the same cell. Whole runs of such columns are found by comparing, and are neither walked
//! over nor unescaped again.

use crate::decode::connect::{Field, Kind, Struct, Type};
use crate::decode::types::Meaning;
use crate::event::row::{Row, RowBuilder};

/// An old row that was read, with its text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OldRow<'r> {
    row: &'r Row,
    text: &'r [u8],
    ends: &'r [usize],
}

impl<'r> OldRow<'r> {
    /// `ends` are the places in the text at which the first column begins, and each column ends.
    pub(crate) fn new(row: &'r Row, text: &'r str, ends: &'r [usize]) -> Self {
        debug_assert_eq!(ends.len(), row.names().len() + 1, "every column has an end");
        let text = text.as_bytes();
        Self { row, text, ends }
    }

    /// The row itself.
    pub(crate) fn row(&self) -> &'r Row {
        self.row
    }

    /// Copies those columns from `place` on with which the rest of a new row begins, and answers how many they are and how
    /// many bytes of the rest they take.
    pub(crate) fn copy(&self, place: usize, rest: &[u8], row: &mut RowBuilder) -> (usize, usize) {
        let Some((start, ends)) = self.ends.get(place..).and_then(<[usize]>::split_first) else {
            return (0, 0);
        };
        let same = common_prefix(&self.text[*start..], rest);
        // One byte more must be the same: a number ends only where something else begins.
        let columns = ends.iter().take_while(|end| *end - start < same).count();
        if columns == 0 {
            return (0, 0);
        }
        row.next_is_known();
        row.push_cells_of(self.row, place..place + columns);
        (columns, self.ends[place + columns] - start)
    }
}

/// With how many same bytes two texts begin.
fn common_prefix(one: &[u8], other: &[u8]) -> usize {
    const BLOCK: usize = 32;
    let (blocks, others) = (one.chunks_exact(BLOCK), other.chunks_exact(BLOCK));
    let same = BLOCK * blocks.zip(others).take_while(|(one, other)| one == other).count();
    let is_same = |(one, other): &(&u8, &u8)| one == other;
    same + one[same..].iter().zip(&other[same..]).take_while(is_same).count()
}

/// Whether the same text reads the same in both rows of an envelope, by its schema, and costs nothing that is counted.
pub(crate) fn rows_are_alike(envelope: &Struct) -> bool {
    match (envelope.member("before"), envelope.member("after")) {
        (Some(before), Some(after)) => fields_are_alike(before, after),
        _ => false,
    }
}

fn fields_are_alike(one: &Struct, other: &Struct) -> bool {
    let is_alike = |(one, other): (&Field, &Field)| one.name == other.name && types_are_alike(&one.ty, &other.ty);
    one.fields.len() == other.fields.len() && one.fields.iter().zip(&other.fields).all(is_alike)
}

fn types_are_alike(one: &Type, other: &Type) -> bool {
    // The digits of decimals are counted for each record, so each is printed where it stands.
    let is_counted = matches!(one.meaning, Meaning::Decimal { .. } | Meaning::VariableScaleDecimal);
    let is_alike = match (&one.kind, &other.kind) {
        (Kind::List(one), Kind::List(other)) => types_are_alike(one, other),
        (
            Kind::Map { key, value },
            Kind::Map {
                key: keys,
                value: values,
            },
        ) => types_are_alike(key, keys) && types_are_alike(value, values),
        (Kind::Struct(one), Kind::Struct(other)) => fields_are_alike(one, other),
        (Kind::Bool, Kind::Bool)
        | (Kind::Int, Kind::Int)
        | (Kind::Single, Kind::Single)
        | (Kind::Double, Kind::Double)
        | (Kind::Text, Kind::Text)
        | (Kind::Bytes, Kind::Bytes) => true,
        _ => false,
    };
    is_alike && !is_counted && one.meaning == other.meaning
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::{Just, Strategy, any, prop};
    use proptest::{prop_assert_eq, prop_oneof, proptest};

    use super::*;
    use crate::decode::connect;
    use crate::decode::json::{self, Columns};
    use crate::decode::scan::Scanner;
    use crate::decode::types::Budget;
    use crate::event::modes::Modes;

    const CELLS: [&str; 12] = [
        "1",
        "12",
        "-0.5",
        "1e3",
        "null",
        "true",
        "\"\"",
        "\"a\"",
        "\"a\\n\\\"ä\"",
        "\"a longer text of more than one block of bytes\"",
        "[1,{\"a\":null}]",
        "[\"[Ljava.lang.String;@73249392\"]",
    ];

    fn columns() -> impl Strategy<Value = Vec<(usize, usize)>> {
        prop::collection::vec((0..8_usize, 0..CELLS.len()), 0..8)
    }

    /// A row as text; some have space after the commas.
    fn print(columns: &[(usize, usize)], space: &str) -> String {
        let member = |(name, cell): &(usize, usize)| format!("\"c{name}\":{}", CELLS[*cell]);
        let members: Vec<String> = columns.iter().map(member).collect();
        format!("{{{}}}", members.join(&format!(",{space}")))
    }

    /// A new row that was read after an old one, and by itself.
    fn read_both_ways(old: &str, new: &str) -> Option<(Result<Row, String>, Result<Row, String>)> {
        let names = Arc::default();
        let columns = Columns::Named(&names, Modes::default());
        let text = format!("{old}{new}");
        let (mut scanner, mut ends, mut budget) = (Scanner::new(&text), Vec::new(), Budget::of(text.len()));
        let old_row = json::old_row_at(&mut scanner, columns, 0, &mut budget, &mut ends).ok()?;
        let old_row = OldRow::new(&old_row, &text, &ends);
        let after_it = json::new_row_at(&mut scanner, columns, 0, &mut budget, old_row);
        if after_it.is_ok() {
            assert_eq!(scanner.end(), Ok(()));
        }
        Some((after_it, json::row(new, columns, &mut budget)))
    }

    proptest! {
        #[test]
        fn a_new_row_is_the_same_whatever_the_old_one_was(
            old in columns(),
            edits in prop::collection::vec((any::<prop::sample::Index>(), columns(), 0..3_usize), 0..3),
            space in prop_oneof![4 => Just(""), 1 => Just(" ")],
        ) {
            let mut new = old.clone();
            for (at, more, removed) in &edits {
                let start = at.index(new.len() + 1);
                let end = (start + removed).min(new.len());
                new.splice(start..end, more.iter().copied().take(2));
            }
            if let Some((after_it, alone)) = read_both_ways(&print(&old, ""), &print(&new, space)) {
                prop_assert_eq!(after_it, alone);
            }
        }
    }

    #[test]
    fn what_begins_alike_is_not_the_same_cell() {
        for (old, new) in [
            (r#"{"a":1,"b":2}"#, r#"{"a":12,"b":2}"#),
            (r#"{"a":1}"#, r#"{"a":1.5}"#),
            (r#"{"a":1}"#, r#"{"a":1,"b":2}"#),
            (r#"{"a":1,"b":2}"#, r#"{"a":1}"#),
            (r#"{"a":"x"}"#, r#"{"a":"xy"}"#),
            ("{}", r#"{"a":1}"#),
            (r#"{"a":1}"#, "{}"),
        ] {
            let (after_it, alone) = read_both_ways(old, new).unwrap();
            assert!(alone.is_ok());
            assert_eq!(after_it, alone, "{old} {new}");
        }
        let (after_it, alone) = read_both_ways(r#"{"a":1}"#, r#"{"a":1"#).unwrap();
        assert!(after_it.is_err() && alone.is_err());
    }

    #[test]
    fn rows_are_alike_only_when_every_cell_reads_the_same() {
        let alike = |before: &str, after: &str| {
            let row =
                |field: &str, columns: &str| format!(r#"{{"type":"struct","fields":[{columns}],"field":"{field}"}}"#);
            let text = format!(
                r#"{{"type":"struct","fields":[{},{}]}}"#,
                row("before", before),
                row("after", after)
            );
            let parsed = connect::parse(&text).unwrap();
            let Kind::Struct(envelope) = &parsed.kind else {
                panic!("not a struct")
            };
            rows_are_alike(envelope)
        };
        let int = r#"{"type":"int64","field":"a"}"#;
        let micros = r#"{"type":"int64","name":"io.debezium.time.MicroTimestamp","field":"a"}"#;
        let renamed = r#"{"type":"int64","field":"b"}"#;
        let list = r#"{"type":"array","items":{"type":"string"},"field":"a"}"#;
        let numbers = r#"{"type":"array","items":{"type":"int64"},"field":"a"}"#;
        let decimal =
            r#"{"type":"bytes","name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"2"},"field":"a"}"#;
        for same in [int, micros, list, ""] {
            assert!(alike(same, same), "{same}");
        }
        for (before, after) in [
            (int, micros),
            (int, renamed),
            (int, ""),
            (list, numbers),
            // The digits of a record's decimals are counted, so both rows print their own.
            (decimal, decimal),
        ] {
            assert!(!alike(before, after), "{before} {after}");
        }
    }
}
