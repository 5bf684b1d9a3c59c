//! Changes as the records that Debezium would have written for them: JSON without schema, in the recommended modes.
//!
//! So a change means the same whichever source it comes from, and everything behind the source knows one form: the decoder,
//! the dead letters and their replay. The place in the log and the time are those that Debezium tells too, from which the id
//! of an event is made.
//!
//! Two things the connector does are left out. It makes up values for the columns of an old row that were not sent; here they
//! are absent. And where the replica identity is an index without the primary key, it makes up the key of the old row; here
//! a deletion has no key then.

use bytes::Bytes;

use crate::event::delivery::RawRecord;
use crate::source::wal::pgoutput::{Datum, Old};
use crate::source::wal::table::Table;
use crate::source::wal::value;

/// Header of the delete half of a changed primary key.
const NEW_KEY: &str = "__debezium.newkey";
/// Header of its insert half.
const OLD_KEY: &str = "__debezium.oldkey";

/// Records that one message can become: the halves of a changed primary key.
pub const RECORDS_MAX: i64 = 2;

/// What prints changes of one database.
#[derive(Debug, Clone)]
pub struct Printer {
    /// `"source":{"version":…,"connector":…,"name":…,"db":…,`.
    source: Vec<u8>,
    /// What stands for a value that was not sent, as JSON.
    unavailable: Vec<u8>,
}

/// What all changes of a transaction share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transaction {
    /// Its number.
    pub xid: u32,
    /// When it was committed, in microseconds since 1970-01-01.
    pub committed_us: i64,
}

/// What happened to a row, or to a table.
#[derive(Debug, Clone, Copy)]
pub enum Change<'a> {
    /// A new row.
    Insert(&'a [Datum<'a>]),
    /// A changed row, with what was sent of the old one.
    Update(Option<&'a Old<'a>>, &'a [Datum<'a>]),
    /// A deleted row.
    Delete(&'a Old<'a>),
    /// A table that was emptied.
    Truncate,
}

impl Printer {
    /// For the source of this name, which is the connector's `topic.prefix`, and this database.
    pub fn new(name: &str, database: &str, unavailable: &str) -> Self {
        let mut source = br#""source":{"version":"#.to_vec();
        value::string(concat!("afterwrite ", env!("CARGO_PKG_VERSION")), &mut source);
        source.extend(br#","connector":"postgresql","name":"#);
        value::string(name, &mut source);
        source.extend(br#","db":"#);
        value::string(database, &mut source);
        source.push(b',');
        let mut placeholder = Vec::new();
        value::string(unavailable, &mut placeholder);
        Self {
            source,
            unavailable: placeholder,
        }
    }

    /// The records of a change, one or two. `lsn` is where the change begins in the log.
    pub fn records(&self, table: &Table, transaction: Transaction, lsn: u64, change: Change<'_>) -> Vec<RawRecord> {
        let tail = |op| self.tail(table, transaction, lsn, op);
        let record = |key, before, after, op, headers| RawRecord {
            key,
            value: Some(envelope(before, after, &tail(op))),
            headers,
            timestamp_ms: Some(transaction.committed_us.div_euclid(1_000)),
        };
        match change {
            Change::Insert(new) => vec![record(
                self.key(table, new),
                None,
                Some(self.row(table, new, None)),
                "c",
                vec![],
            )],
            Change::Delete(old) => {
                let key = self.old_key(table, old);
                vec![record(key, Some(self.old_row(table, old)), None, "d", vec![])]
            }
            Change::Truncate => vec![record(None, None, None, "t", vec![])],
            Change::Update(old, new) => {
                let whole = old.and_then(|old| match old {
                    Old::Whole(row) => Some(row.as_slice()),
                    Old::Identity(_) => None,
                });
                let after = self.row(table, new, whole);
                let key = self.key_of(table, new, whole);
                let old_key = old.and_then(|old| self.old_key(table, old));
                match (old, old_key) {
                    (Some(old), Some(old_key)) if Some(&old_key) != key.as_ref() => {
                        let went = key.clone().map(|key| (NEW_KEY.to_owned(), Some(key)));
                        let came = vec![(OLD_KEY.to_owned(), Some(old_key.clone()))];
                        let before = self.old_row(table, old);
                        vec![
                            record(Some(old_key), Some(before), None, "d", went.into_iter().collect()),
                            record(key, None, Some(after), "c", came),
                        ]
                    }
                    _ => {
                        let before = whole.map(|row| self.row(table, row, None));
                        vec![record(key, before, Some(after), "u", vec![])]
                    }
                }
            }
        }
    }

    fn tail(&self, table: &Table, transaction: Transaction, lsn: u64, op: &str) -> Vec<u8> {
        let Transaction { xid, committed_us } = transaction;
        let mut out = Vec::with_capacity(self.source.len() + table.labelled.len() + 160);
        out.extend(&self.source);
        out.extend(&table.labelled);
        let committed_ms = committed_us.div_euclid(1_000);
        out.extend(
            format!(r#","ts_ms":{committed_ms},"ts_us":{committed_us},"txId":{xid},"lsn":{lsn}}},"op":"{op}"}}"#)
                .bytes(),
        );
        out
    }

    fn key(&self, table: &Table, row: &[Datum<'_>]) -> Option<Bytes> {
        self.key_of(table, row, None)
    }

    /// The primary key of a row as a JSON object; `None` where the table has none.
    fn key_of(&self, table: &Table, row: &[Datum<'_>], old: Option<&[Datum<'_>]>) -> Option<Bytes> {
        if table.key.is_empty() {
            return None;
        }
        let mut out = vec![b'{'];
        for place in &table.key {
            self.cell(table, row, old, *place, &mut out);
        }
        Some(closed(out).into())
    }

    fn old_key(&self, table: &Table, old: &Old<'_>) -> Option<Bytes> {
        let (Old::Identity(row) | Old::Whole(row)) = old;
        self.key(table, row).filter(|_| table.old_has_key)
    }

    /// A row as a JSON object; what was not sent is taken from the old row where that is whole.
    fn row(&self, table: &Table, row: &[Datum<'_>], old: Option<&[Datum<'_>]>) -> Vec<u8> {
        let mut out = Vec::with_capacity(row.len() * 24);
        out.push(b'{');
        for place in 0..table.columns.len() {
            self.cell(table, row, old, place, &mut out);
        }
        closed(out)
    }

    /// What was sent of an old row.
    fn old_row(&self, table: &Table, old: &Old<'_>) -> Vec<u8> {
        match old {
            Old::Whole(row) => self.row(table, row, None),
            Old::Identity(row) => {
                let mut out = vec![b'{'];
                for (place, column) in table.columns.iter().enumerate() {
                    if column.identifies {
                        self.cell(table, row, None, place, &mut out);
                    }
                }
                closed(out)
            }
        }
    }

    /// `"name":value,`
    fn cell(&self, table: &Table, row: &[Datum<'_>], old: Option<&[Datum<'_>]>, place: usize, out: &mut Vec<u8>) {
        let Some(column) = table.columns.get(place) else {
            return;
        };
        let Some(kind) = &column.kind else { return };
        let sent = match row.get(place) {
            Some(Datum::Unchanged) => old.and_then(|old| old.get(place)).or(row.get(place)),
            datum => datum,
        };
        out.extend(&column.label);
        match sent {
            Some(Datum::Text(text)) => value::print(kind, text, out),
            Some(Datum::Unchanged) => out.extend(&self.unavailable),
            Some(Datum::Null) | None => out.extend(b"null"),
        }
        out.push(b',');
    }
}

/// Closes an object whose members each end with a comma.
fn closed(mut members: Vec<u8>) -> Vec<u8> {
    match members.last_mut() {
        Some(comma) if *comma == b',' => *comma = b'}',
        _ => members.push(b'}'),
    }
    members
}

fn envelope(before: Option<Vec<u8>>, after: Option<Vec<u8>>, tail: &[u8]) -> Bytes {
    let null = || b"null".to_vec();
    let (before, after) = (before.unwrap_or_else(null), after.unwrap_or_else(null));
    let mut out = Vec::with_capacity(before.len() + after.len() + tail.len() + 24);
    out.extend(br#"{"before":"#);
    out.extend(before);
    out.extend(br#","after":"#);
    out.extend(after);
    out.push(b',');
    out.extend(tail);
    out.into()
}
