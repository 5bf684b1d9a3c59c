//! The messages of `pgoutput`, and what is made of them: tables, records, events.

use std::collections::BTreeMap;

use afterwrite::decode::options::{Format, Options};
use afterwrite::decode::tables::Tables;
use afterwrite::decode::{Decoded, Decoder};
use afterwrite::event::delivery::{Content, RawRecord};
use afterwrite::source::wal::envelope::{Change, Printer, RECORDS_MAX, Transaction};
use afterwrite::source::wal::kind::{Catalogue, CatalogueType};
use afterwrite::source::wal::pgoutput::{self, Column, Datum, Message, Old, Relation};
use afterwrite::source::wal::table::{Described, Table};
use serde::de::IgnoredAny;

use super::frame;

/// Messages of one input; more add nothing but time.
const MESSAGES_MAX: usize = 8;

/// How many bytes parsing may ask for at once: a multiple of the message, because a null of one byte is a value in memory.
const PARSED_TIMES: usize = 48;

/// The same for the records of a change, with the names of its table counted to it: rows repeat them, and what is drawn on a
/// plane is read before it is printed.
const PRINTED_TIMES: usize = 192;

/// What the decimals of each column may be printed with: their type says with how many digits.
const COLUMN_BYTES: usize = 3 * 4_096;

/// For either, however short the message is.
const BYTES_FREE: usize = 64 * 1024;

/// Shorter cells may be in a reason by chance.
const CELL_BYTES_MIN: usize = 16;

/// Oids of built-in types as Postgres has them, with the oids of their arrays.
const TYPES: [(u32, &str, u32); 26] = [
    (16, "bool", 1000),
    (17, "bytea", 1001),
    (18, "char", 1002),
    (19, "name", 1003),
    (20, "int8", 1016),
    (23, "int4", 1007),
    (25, "text", 1009),
    (114, "json", 199),
    (600, "point", 1017),
    (601, "lseg", 1018),
    (602, "path", 1019),
    (603, "box", 1020),
    (604, "polygon", 1027),
    (628, "line", 629),
    (701, "float8", 1022),
    (718, "circle", 719),
    (790, "money", 791),
    (1082, "date", 1182),
    (1083, "time", 1183),
    (1114, "timestamp", 1115),
    (1184, "timestamptz", 1185),
    (1186, "interval", 1187),
    (1266, "timetz", 1270),
    (1560, "bit", 1561),
    (1562, "varbit", 1563),
    (1700, "numeric", 1231),
];

/// Of this test's catalogue.
const HSTORE: u32 = 20_000;
const MOOD: u32 = 20_001;
const PRICE: u32 = 20_002;

/// Whose changes they are.
const TRANSACTION: Transaction = Transaction {
    xid: 7,
    committed_us: 1_780_000_000_000_000,
};

/// A table as the input described it.
struct Known {
    topic: String,
    /// With a catalogue that knows nothing, and with one that knows types and a key.
    tables: [Table; 2],
    bytes: usize,
    columns: usize,
}

/// A byte that chooses the key, then messages ([`frame::parts`]).
pub fn pgoutput(input: &[u8]) {
    let Some((first, rest)) = input.split_first() else {
        return;
    };
    let decoder = Decoder::new(Options {
        format: Format::Json,
        ..Options::default()
    });
    let printer = Printer::new("waitlist", "waitlist", "__debezium_unavailable_value");
    let mut known: BTreeMap<u32, Known> = BTreeMap::new();
    for message in frame::parts(rest).take(MESSAGES_MAX) {
        let Some(parsed) = parsed(message) else { continue };
        let (oids, change, row) = match &parsed {
            Message::Relation(relation) => {
                known.insert(relation.oid, described(relation, *first, message.len()));
                continue;
            }
            Message::Insert { relation, new } => (vec![*relation], Change::Insert(new), cells(new, None)),
            Message::Update { relation, old, new } => {
                let change = Change::Update(old.as_ref(), new);
                (vec![*relation], change, cells(new, old.as_ref()))
            }
            Message::Delete { relation, old } => (vec![*relation], Change::Delete(old), cells(&[], Some(old))),
            Message::Truncate { relations } => (relations.clone(), Change::Truncate, Vec::new()),
            Message::Other => continue,
        };
        for known in oids.iter().take(MESSAGES_MAX).filter_map(|oid| known.get(oid)) {
            for table in &known.tables {
                let bytes_max = (known.bytes + message.len()) * PRINTED_TIMES + known.columns * COLUMN_BYTES;
                let records = printed(&printer, table, change, bytes_max);
                for (place, record) in records.iter().enumerate() {
                    let Some(reason) = refusal(&decoder, known, record) else {
                        continue;
                    };
                    if row.iter().any(|cell| reason.contains(*cell)) {
                        let others = with_other_cells(&printer, table, change);
                        let other = others.get(place).and_then(|record| refusal(&decoder, known, record));
                        assert_eq!(other.as_ref(), Some(&reason), "the reason tells a cell");
                    }
                }
            }
        }
    }
}

/// A message that is one; it is the same when it is read again.
fn parsed(message: &[u8]) -> Option<Message<'_>> {
    let mut parsed = None;
    let counted = allocation_counter::measure(|| parsed = Some(pgoutput::parse(message)));
    let bytes_max = (message.len() * PARSED_TIMES + BYTES_FREE) as u64;
    assert!(
        counted.bytes_max <= bytes_max,
        "a message of {} bytes asked for {}",
        message.len(),
        counted.bytes_max
    );
    let parsed = parsed.expect("it was parsed");
    assert_eq!(parsed, pgoutput::parse(message), "asked twice, answered differently");
    parsed.ok()
}

fn described(relation: &Relation, key: u8, bytes: usize) -> Known {
    let identifies = |column: &&Column| key.is_multiple_of(3) || column.identifies;
    let columns = relation.columns.iter().filter(identifies);
    let described = Described {
        key: columns
            .take(usize::from(key / 3 % 4))
            .map(|column| column.name.clone())
            .collect(),
        types: catalogue(),
    };
    let excluded = match (key / 12 % 2, relation.columns.first()) {
        (1, Some(column)) => vec![format!("{}.{}.{}", relation.schema, relation.table, column.name)],
        _ => Vec::new(),
    };
    Known {
        topic: format!("waitlist.{}.{}", relation.schema, relation.table),
        tables: [Described::default(), described].map(|described| Table::new(relation, &described, &excluded)),
        bytes,
        columns: relation.columns.len(),
    }
}

fn catalogue() -> Catalogue {
    let found = |name: &str, is_builtin, class, base, element| CatalogueType {
        name: name.to_owned(),
        is_builtin,
        class,
        base,
        base_modifier: if base == 0 { -1 } else { 4 + 3 },
        element,
    };
    let mut types: Catalogue = [
        (HSTORE, found("hstore", false, 'b', 0, 0)),
        (MOOD, found("mood", false, 'e', 0, 0)),
        (PRICE, found("price", false, 'd', 1700, 0)),
    ]
    .into();
    for (oid, name, list) in TYPES {
        types.insert(oid, found(name, true, 'b', 0, 0));
        types.insert(list, found("_", true, 'b', 0, oid));
    }
    types
}

/// The texts that must not be told.
fn cells<'a>(new: &[Datum<'a>], old: Option<&Old<'a>>) -> Vec<&'a str> {
    let old = old.map(|old| match old {
        Old::Identity(row) | Old::Whole(row) => row.as_slice(),
    });
    let all = new.iter().chain(old.unwrap_or_default());
    let texts = all.filter_map(|datum| match datum {
        Datum::Text(text) => Some(*text),
        Datum::Null | Datum::Unchanged => None,
    });
    texts.filter(|text| text.len() >= CELL_BYTES_MIN).collect()
}

fn printed(printer: &Printer, table: &Table, change: Change<'_>, bytes_max: usize) -> Vec<RawRecord> {
    let mut records = Vec::new();
    let counted = allocation_counter::measure(|| records = printer.records(table, TRANSACTION, 1_000, change));
    let bytes_max = (bytes_max + BYTES_FREE) as u64;
    assert!(
        counted.bytes_max <= bytes_max,
        "a change asked for {} bytes, {bytes_max} are allowed",
        counted.bytes_max
    );
    assert!(
        (1..=RECORDS_MAX).contains(&i64::try_from(records.len()).expect("they are few")),
        "a change became {} records",
        records.len()
    );
    records
}

/// What is printed is JSON; answers why it is not decoded.
fn refusal(decoder: &Decoder, known: &Known, record: &RawRecord) -> Option<String> {
    let headers = record.headers.iter().map(|(_, value)| value.as_ref());
    let parts = [record.key.as_ref(), record.value.as_ref()].into_iter().chain(headers);
    for part in parts.flatten() {
        let json = serde_json::from_slice::<IgnoredAny>(part);
        assert!(json.is_ok(), "printed, and no JSON: {}", String::from_utf8_lossy(part));
    }
    match decoder.decode_despite(&known.topic, record, &Tables::all(), &[]) {
        Decoded::MissingSchema(id) => panic!("JSON without schema named schema {id}"),
        Decoded::Content(Content::Undecodable(reason)) => Some(reason),
        Decoded::Content(_) => None,
    }
}

/// The records of the same change with other texts. A reason that tells a cell is another one then; one that a cell looks like
/// by chance is the same.
fn with_other_cells(printer: &Printer, table: &Table, change: Change<'_>) -> Vec<RawRecord> {
    let (new, old) = match change {
        Change::Insert(new) => (new, None),
        Change::Update(old, new) => (new, old),
        Change::Delete(old) => (&[][..], Some(old)),
        Change::Truncate => (&[][..], None),
    };
    let old_row = old.map_or(&[][..], |old| match old {
        Old::Identity(row) | Old::Whole(row) => row,
    });
    let (texts, old_texts) = (other_texts(new), other_texts(old_row));
    let (new, old_row) = (other_row(new, &texts), other_row(old_row, &old_texts));
    let other_old = match old {
        Some(Old::Whole(_)) => Old::Whole(old_row),
        Some(Old::Identity(_)) | None => Old::Identity(old_row),
    };
    let other = match change {
        Change::Insert(_) => Change::Insert(&new),
        Change::Update(old, _) => Change::Update(old.map(|_| &other_old), &new),
        Change::Delete(_) => Change::Delete(&other_old),
        Change::Truncate => Change::Truncate,
    };
    printer.records(table, TRANSACTION, 1_000, other)
}

/// Each text with another first letter, so that what is no value of its type is still none.
fn other_texts(row: &[Datum<'_>]) -> Vec<String> {
    let texts = row.iter().map(|datum| match datum {
        Datum::Text(text) => *text,
        Datum::Null | Datum::Unchanged => "",
    });
    let other = |text: &str| {
        let mut letters = text.chars();
        let first = letters.next().map(|letter| if letter == '~' { '!' } else { '~' });
        first.into_iter().chain(letters).collect()
    };
    texts.map(other).collect()
}

fn other_row<'a>(row: &[Datum<'a>], texts: &'a [String]) -> Vec<Datum<'a>> {
    let others = row.iter().zip(texts).map(|(datum, text)| match datum {
        Datum::Text(cell) if cell.len() >= CELL_BYTES_MIN => Datum::Text(text),
        datum => *datum,
    });
    others.collect()
}
