//! Changes as Debezium 3.7 prints them: JSON without schema, rows of a table with many columns, before and after.

use std::fmt::Write;

use uuid::Uuid;

/// Commit time of the first change; each later one is a millisecond younger.
const FIRST_COMMIT_MS: u64 = 1_795_407_747_945;

/// Transaction of the first change; each later one has the next.
pub const FIRST_TX: u64 = 1_301;

/// Headers that Debezium puts on every record.
pub const HEADERS: [(&str, &str); 4] = [
    ("__debezium.context.connectorLogicalName", "bench"),
    ("__debezium.context.taskId", "0"),
    ("__debezium.context.connectorName", "postgresql"),
    ("__debezium.context.runId", "01a206a4-1a3a-71b1-bb30-108366b126cd"),
];

/// The primary key of a row.
pub fn id(row: usize) -> Uuid {
    Uuid::from_u128(0x5b1f_0000_0000_4000_8000_0000_0000_0000 | row as u128)
}

/// The key of a record.
pub fn key(row: usize) -> String {
    format!(r#"{{"id":"{}"}}"#, id(row))
}

/// The value of the `number`-th record of a topic: an update that makes the row's `seq` rise from `seq - 1` to `seq`.
///
/// # Errors
/// Never: a `String` takes any text.
pub fn update(out: &mut String, number: u64, row: usize, seq: u64, columns: usize) -> std::fmt::Result {
    let ms = FIRST_COMMIT_MS + number;
    let lsn = 37_900_528 + number * 312;
    out.push_str(r#"{"before":"#);
    image(out, row, seq - 1, columns)?;
    out.push_str(r#","after":"#);
    image(out, row, seq, columns)?;
    write!(
        out,
        concat!(
            r#","source":{{"version":"3.7.0.Final","connector":"postgresql","name":"bench","ts_ms":{ms},"#,
            r#""snapshot":"false","db":"waitlist","sequence":"[\"{last}\",\"{lsn}\"]","ts_us":{ms}174,"#,
            r#""ts_ns":{ms}174000,"schema":"public","table":"bench_users","txId":{tx},"lsn":{lsn},"xmin":null,"#,
            r#""origin":null,"origin_lsn":null}},"transaction":null,"op":"u","ts_ms":{now},"ts_us":{now}310,"#,
            r#""ts_ns":{now}310396}}"#,
        ),
        ms = ms,
        last = lsn - 56,
        lsn = lsn,
        tx = FIRST_TX + number,
        now = ms + 128,
    )
}

/// A row: its key, its sequence, and columns of every common type up to that many.
fn image(out: &mut String, row: usize, seq: u64, columns: usize) -> std::fmt::Result {
    write!(out, r#"{{"id":"{}","seq":{seq}"#, id(row))?;
    for column in 2..columns {
        write!(out, r#","c{column:02}_"#)?;
        match column % 8 {
            0 => write!(out, r#"email":"person.{row}@example.com""#)?,
            1 => write!(out, r#"count":{}"#, row * 7 + column)?,
            2 => write!(out, r#"consent":{}"#, row.is_multiple_of(2))?,
            3 => write!(out, r#"created_at":"2026-11-23T04:22:{:02}.943638Z""#, row % 60)?,
            4 => write!(out, r#"note":"Line {row} of \"notes\"\nwith an escape and some words""#)?,
            5 => write!(out, r#"deleted_at":null"#)?,
            6 => write!(out, r#"balance":"{}.{:02}""#, row * 3, seq % 100)?,
            _ => write!(
                out,
                r#"metadata":"{{\"source\": \"ad\", \"visits\": {seq}, \"tags\": [\"a\", \"b\"]}}""#
            )?,
        }
    }
    out.push('}');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::options::Options;
    use crate::decode::tables::Tables;
    use crate::decode::{Decoded, Decoder};
    use crate::event::delivery::{Content, RawRecord};

    #[test]
    fn a_change_decodes_into_an_update_of_that_many_columns() {
        let mut value = String::new();
        update(&mut value, 41, 7, 3, 25).unwrap();
        let record = RawRecord {
            key: Some(key(7).into()),
            value: Some(value.into()),
            ..RawRecord::default()
        };
        let options = Options {
            full_identity: Tables::like(["*.*"]),
            ..Options::default()
        };
        let decoded = Decoder::new(options).decode("bench", &record);
        let Decoded::Content(Content::Change(event)) = decoded else {
            panic!("not a change: {decoded:?}")
        };
        let after = event.after().unwrap();
        assert_eq!(after.columns().count(), 25);
        assert_eq!(after.int("seq"), Some(3));
        assert_eq!(event.before().unwrap().int("seq"), Some(2));
        assert_eq!(
            event.key().unwrap().row().text("id"),
            Some("5b1f0000-0000-4000-8000-000000000007")
        );
        assert!(event.id().is_some());
    }
}
