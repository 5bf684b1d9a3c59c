//! Rows as structs of the handler: `row.to::<User>()?`.
//!
//! A struct names the columns it wants; others are ignored. An `Option` field takes SQL null and a column that is
//! absent. A column that is unavailable (not sent, though there is a value) is neither: it is refused, unless the field is a
//! [`Known`] or a [`Column`], which say so. Errors name the table and the column and never quote what the column holds.
//!
//! Canonical texts are read by the types below; `chrono::DateTime<Utc>`, `uuid::Uuid` and `String` read the texts that have
//! their form. Where JSON without schema carries integers for times, bytes as hexadecimal text and the like, the settings
//! `source.time_precision`, `source.decimal`, `source.interval` and `source.binary` say how they are read; what they leave
//! open is refused.

mod binary;
mod moment;
mod number;
mod reader;

#[cfg(test)]
mod one;

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Unexpected, Visitor};
use thiserror::Error;

use crate::event::change::ChangeEvent;
use crate::event::key::Key;
use crate::event::row::Row;
use crate::event::typed::reader::RowReader;

pub use self::binary::{Base64, Bits, Geometry, Point};
pub use self::moment::{Date, Time, Timestamp};
pub use self::number::{Decimal, Interval};

/// A row does not fit the struct. Permanent: the same row never will.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct RowError {
    /// `schema.table`, where it is known.
    pub table: Option<String>,
    /// The column; `None` when the struct itself cannot be made of a row.
    pub column: Option<String>,
    /// What is wrong, without the value.
    pub problem: String,
}

impl fmt::Display for RowError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(table) = &self.table {
            write!(out, "table {table}: ")?;
        }
        if let Some(column) = &self.column {
            write!(out, "column {column} ")?;
        }
        out.write_str(&self.problem)
    }
}

impl Row {
    /// The row as a struct.
    ///
    /// # Errors
    /// When a column is absent, null, unavailable or of another type than its field. The error names the column.
    pub fn to<T: DeserializeOwned>(&self) -> Result<T, RowError> {
        T::deserialize(RowReader(self)).map_err(|error| RowError {
            table: None,
            column: error.column,
            problem: error.problem,
        })
    }
}

impl ChangeEvent {
    /// The new row as a struct.
    ///
    /// # Errors
    /// As [`Row::to`], also when there is no new row. The error names the table.
    pub fn after_as<T: DeserializeOwned>(&self) -> Result<T, RowError> {
        self.row_as(self.after(), "the event has no new row")
    }

    /// The old row as a struct.
    ///
    /// # Errors
    /// As [`Row::to`], also when there is no old row. The error names the table.
    pub fn before_as<T: DeserializeOwned>(&self) -> Result<T, RowError> {
        self.row_as(self.before(), "the event has no old row")
    }

    /// The primary key as a struct.
    ///
    /// # Errors
    /// As [`Row::to`], also when there is no key. The error names the table.
    pub fn key_as<T: DeserializeOwned>(&self) -> Result<T, RowError> {
        self.row_as(self.key().map(Key::row), "the event has no key")
    }

    fn row_as<T: DeserializeOwned>(&self, row: Option<&Row>, missing: &str) -> Result<T, RowError> {
        let read = match row {
            Some(row) => row.to(),
            None => Err(RowError {
                table: None,
                column: None,
                problem: missing.to_owned(),
            }),
        };
        read.map_err(|error| RowError {
            table: Some(format!("{}.{}", self.origin().schema, self.origin().table)),
            ..error
        })
    }
}

/// A column that may be unavailable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename = "afterwrite::Known")]
pub enum Known<T> {
    /// It was sent.
    Value(T),
    /// It was not sent because it did not change.
    Unavailable,
}

/// A column in every state it can have. Give the field `#[serde(default)]`, or an absent column is an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename = "afterwrite::Column")]
pub enum Column<T> {
    /// It was not sent: the table had no such column, or the connector leaves it out.
    #[default]
    Absent,
    /// SQL null.
    Null,
    /// There is a value, and it was not sent.
    Unavailable,
    /// It was sent.
    Value(T),
}

/// The content of a `json` or `jsonb` column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document<T>(pub T);

/// Reads the text of a document.
struct DocumentVisitor<T>(std::marker::PhantomData<T>);

impl<T: DeserializeOwned> Visitor<'_> for DocumentVisitor<T> {
    type Value = Document<T>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a JSON document of the field's type")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Document<T>, E> {
        let read = serde_json::from_str(text).map(Document);
        read.map_err(|_| E::invalid_value(Unexpected::Str(""), &self))
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Document<T> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_str(DocumentVisitor(std::marker::PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, NaiveDate, Utc};

    use super::*;
    use crate::event::modes::{Bytes, Integers, Modes};
    use crate::event::row::Value;

    /// What a column of a test holds.
    #[derive(Clone)]
    enum Held {
        Value(Value),
        Null,
        Unavailable,
    }

    fn row(cells: Vec<(&str, Held)>) -> Row {
        let filled = cells.into_iter().fold(Row::builder(), |row, (name, held)| match held {
            Held::Value(value) => row.value(name, value),
            Held::Null => row.null(name),
            Held::Unavailable => row.unavailable(name),
        });
        filled.finish()
    }

    fn text(value: &str) -> Held {
        Held::Value(Value::Text(value.into()))
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Status {
        Waiting,
        Invited,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct User {
        id: i64,
        status: Status,
        note: Option<String>,
        missing: Option<i32>,
        born: Date,
        seen: Timestamp,
        joined: DateTime<Utc>,
        avatar: Base64,
        metadata: Document<Vec<i32>>,
        bio: Known<Option<String>>,
        rate: f64,
        tags: Vec<Option<String>>,
        ext: uuid::Uuid,
    }

    fn user() -> Vec<(&'static str, Held)> {
        vec![
            ("id", Held::Value(Value::Int(7))),
            ("status", text("invited")),
            ("note", Held::Null),
            ("born", text("1999-12-31Z")),
            ("seen", text("+292278994-08-16T23:00:00Z")),
            ("joined", text("2026-07-01T12:00:00.5Z")),
            ("avatar", text("AQID")),
            ("metadata", text("[1, 2]")),
            ("bio", Held::Unavailable),
            ("rate", text("Infinity")),
            (
                "tags",
                Held::Value(Value::List(vec![None, Some(Value::Text("x".into()))])),
            ),
            ("ext", text("11111111-2222-3333-4444-555555555555")),
            ("other", Held::Unavailable),
        ]
    }

    #[test]
    fn a_row_becomes_a_struct() {
        let read: User = row(user()).to().unwrap();
        assert_eq!(read.id, 7);
        assert_eq!(read.status, Status::Invited);
        assert_eq!((read.note, read.missing), (None, None));
        assert_eq!(read.born, Date::Day(NaiveDate::from_ymd_opt(1999, 12, 31).unwrap()));
        assert_eq!(read.seen, Timestamp::Infinity);
        assert_eq!(read.joined.timestamp_subsec_millis(), 500);
        assert_eq!(read.avatar, Base64(vec![1, 2, 3]));
        assert_eq!(read.metadata, Document(vec![1, 2]));
        assert_eq!(read.bio, Known::Unavailable);
        assert!(read.rate.is_infinite());
        assert_eq!(read.tags, [None, Some("x".to_owned())]);
    }

    #[test]
    fn errors_name_the_column_and_never_the_value() {
        for (column, cell, expected) in [
            ("id", text("secret"), "column id holds text where i64 was expected"),
            ("id", Held::Null, "column id holds null where i64 was expected"),
            ("status", text("secret"), "column status holds none of waiting, invited"),
            (
                "born",
                Held::Value(Value::Int(4242)),
                "column born holds an integer where source.time_precision promises none: set it to the connector's \
                 time.precision.mode",
            ),
            ("born", text("secret"), "column born holds something that is not a date"),
            (
                "joined",
                text("secret"),
                "column joined does not parse as the type of its field",
            ),
            (
                "ext",
                text("secret"),
                "column ext does not parse as the type of its field",
            ),
        ] {
            let mut cells = user();
            cells.iter_mut().find(|(name, _)| *name == column).unwrap().1 = cell;
            let problem = row(cells).to::<User>().unwrap_err().to_string();
            assert_eq!(problem, expected);
        }
    }

    #[test]
    fn unavailable_is_neither_null_nor_absent() {
        let mut cells = user();
        cells[2].1 = Held::Unavailable;
        let problem = row(cells).to::<User>().unwrap_err();
        assert_eq!(problem.column.as_deref(), Some("note"));
        assert!(problem.to_string().contains("unavailable"), "{problem}");
        let absent = row(user().into_iter().skip(1).collect()).to::<User>().unwrap_err();
        assert_eq!(absent.to_string(), "column id is absent");
        let known = row(vec![("bio", Held::Null)]);
        #[derive(Debug, PartialEq, Deserialize)]
        struct Bio {
            bio: Known<Option<String>>,
        }
        assert_eq!(known.to::<Bio>().unwrap().bio, Known::Value(None));
    }

    #[test]
    fn a_column_tells_all_its_states_apart() {
        #[derive(Debug, PartialEq, Deserialize)]
        struct Four {
            #[serde(default)]
            absent: Column<i64>,
            null: Column<i64>,
            unavailable: Column<i64>,
            value: Column<i64>,
        }
        let row = Row::builder()
            .null("null")
            .unavailable("unavailable")
            .value("value", Value::Int(1));
        assert_eq!(
            row.finish().to(),
            Ok(Four {
                absent: Column::Absent,
                null: Column::Null,
                unavailable: Column::Unavailable,
                value: Column::Value(1),
            })
        );
        let wrong = Row::builder()
            .value("value", Value::Bool(true))
            .null("null")
            .unavailable("unavailable");
        let problem = wrong.finish().to::<Four>().unwrap_err();
        assert_eq!(
            problem.to_string(),
            "column value holds a boolean where i64 was expected"
        );
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Sent {
        day: Date,
        at: Option<Timestamp>,
        bytes: Base64,
    }

    fn sent(modes: Modes, day: i64, at: i64, bytes: &str) -> Result<Sent, RowError> {
        let row = Row::builder()
            .read_by(modes)
            .value("day", Value::Int(day))
            .value("at", Value::Int(at))
            .value("bytes", Value::Text(bytes.into()));
        row.finish().to()
    }

    #[test]
    fn the_modes_of_the_connector_say_what_integers_and_hexadecimal_text_are() {
        let moment = "2026-07-01T12:00:00.5Z".parse().unwrap();
        for (timestamps, bytes, at, text) in [
            (Integers::Millis, Bytes::Base64, 1_782_907_200_500, "3q2+7w=="),
            (
                Integers::Micros,
                Bytes::Base64UrlSafe,
                1_782_907_200_500_000,
                "3q2-7w==",
            ),
            (Integers::Nanos, Bytes::Hex, 1_782_907_200_500_000_000, "deadbeef"),
        ] {
            let modes = Modes {
                timestamps,
                bytes,
                dates: Integers::Days,
                ..Modes::default()
            };
            let expected = Sent {
                day: Date::Day(NaiveDate::from_ymd_opt(1969, 12, 31).unwrap()),
                at: Some(Timestamp::At(moment)),
                bytes: Base64(vec![0xde, 0xad, 0xbe, 0xef]),
            };
            assert_eq!(sent(modes, -1, at, text), Ok(expected), "{modes:?}");
            let infinite = sent(modes, 2_146_033_979, i64::MIN, text).unwrap();
            assert_eq!(
                (infinite.day, infinite.at),
                (Date::Infinity, Some(Timestamp::NegativeInfinity))
            );
        }
    }

    #[test]
    fn what_the_modes_leave_open_is_refused_and_names_the_setting() {
        let days = Modes {
            dates: Integers::Days,
            ..Modes::default()
        };
        let adaptive = Modes {
            timestamps: Integers::DependOnTheColumn,
            ..days
        };
        let micros = Modes {
            timestamps: Integers::Micros,
            bytes: Bytes::Hex,
            ..days
        };
        for (modes, problem) in [
            (
                days,
                "column at holds an integer where source.time_precision promises none",
            ),
            (
                adaptive,
                "column at holds an integer whose unit source.time_precision=adaptive leaves open",
            ),
            (
                micros,
                "column bytes does not hold bytes as source.binary says they are written",
            ),
        ] {
            let said = sent(modes, 0, 4_242, "no hex").unwrap_err().to_string();
            assert!(said.starts_with(problem) && !said.contains("4242"), "{said}");
        }
    }
}
