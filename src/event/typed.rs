//! Rows as structs of the handler: `row.to::<User>()?`.
//!
//! A struct names the columns it wants; others are ignored. An `Option` field takes SQL null and a column that is
//! absent. A column that is unavailable (toasted, unchanged) is neither: it is refused, unless the field is a
//! [`Known`], which says so. Errors name the table and the column and never quote what the column holds.
//!
//! Canonical texts are read by [`Date`], [`Timestamp`], [`Base64`] and [`Document`]; `chrono::DateTime<Utc>`,
//! `uuid::Uuid` and `String` read the texts that have their form. Where JSON without schema carries integers for dates and
//! timestamps, or bytes as hexadecimal text, the settings `source.time_precision` and `source.binary` say how they are read;
//! an integer whose unit they leave open is refused.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::{DateTime, NaiveDate, Utc};
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Unexpected, Visitor};
use thiserror::Error;

use crate::event::change::ChangeEvent;
use crate::event::key::Key;
use crate::event::row::Row;
use crate::event::row_reader::{BYTES, DATE, RowReader, TIMESTAMP};

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

/// A date of Postgres.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Date {
    /// A day.
    Day(NaiveDate),
    /// After every day.
    Infinity,
    /// Before every day.
    NegativeInfinity,
}

/// A timestamp of Postgres, with or without a zone; without one it is taken for UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timestamp {
    /// A moment.
    At(DateTime<Utc>),
    /// After every moment.
    Infinity,
    /// Before every moment.
    NegativeInfinity,
}

/// Bytes of a `bytea` column, however the connector writes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base64(pub Vec<u8>);

/// The content of a `json` or `jsonb` column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document<T>(pub T);

const INFINITIES: [&str; 3] = ["infinity", "+292278994-08-16T23:00:00Z", "+5877611-06-21Z"];
const NEGATIVE_INFINITIES: [&str; 3] = ["-infinity", "-292275055-05-16T23:00:00Z", "-5877611-06-22Z"];

/// Reads a text by a function.
struct TextOf<F>(&'static str, F);

impl<T, F: FnOnce(&str) -> Option<T>> Visitor<'_> for TextOf<F> {
    type Value = T;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.0)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        let Self(expected, read) = self;
        read(text).ok_or_else(|| E::invalid_value(Unexpected::Str(""), &expected))
    }
}

/// Reads a date or a timestamp: a text by a function, or nanoseconds since 1970-01-01 where the connector sends integers.
struct MomentOf<T> {
    expected: &'static str,
    infinities: [T; 2],
    of_text: fn(&str) -> Option<T>,
    of_nanos: fn(i128) -> Option<T>,
}

impl<'de, T: Copy> Visitor<'de> for MomentOf<T> {
    type Value = T;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.expected)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, input: D) -> Result<T, D::Error> {
        input.deserialize_str(self)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        let [infinity, negative_infinity] = self.infinities;
        let found = match text {
            _ if INFINITIES.contains(&text) => Some(infinity),
            _ if NEGATIVE_INFINITIES.contains(&text) => Some(negative_infinity),
            _ => (self.of_text)(text),
        };
        found.ok_or_else(|| E::invalid_value(Unexpected::Str(""), &self.expected))
    }

    fn visit_i128<E: serde::de::Error>(self, nanos: i128) -> Result<T, E> {
        let [infinity, negative_infinity] = self.infinities;
        let found = match nanos {
            i128::MAX => Some(infinity),
            i128::MIN => Some(negative_infinity),
            _ => (self.of_nanos)(nanos),
        };
        found.ok_or_else(|| E::invalid_value(Unexpected::Str(""), &self.expected))
    }
}

/// A moment this many nanoseconds after 1970-01-01.
fn at(nanos: i128) -> Option<DateTime<Utc>> {
    const PER_SECOND: i128 = 1_000_000_000;
    let seconds = i64::try_from(nanos.div_euclid(PER_SECOND)).ok()?;
    DateTime::from_timestamp(seconds, u32::try_from(nanos.rem_euclid(PER_SECOND)).ok()?)
}

impl<'de> Deserialize<'de> for Date {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let moment = MomentOf {
            expected: "a date",
            infinities: [Self::Infinity, Self::NegativeInfinity],
            of_text: |text| text.strip_suffix('Z').unwrap_or(text).parse().ok().map(Self::Day),
            of_nanos: |nanos| at(nanos).map(|moment| Self::Day(moment.date_naive())),
        };
        input.deserialize_newtype_struct(DATE, moment)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let moment = MomentOf {
            expected: "a timestamp",
            infinities: [Self::Infinity, Self::NegativeInfinity],
            of_text: |text| text.parse().ok().map(Self::At),
            of_nanos: |nanos| at(nanos).map(Self::At),
        };
        input.deserialize_newtype_struct(TIMESTAMP, moment)
    }
}

/// Reads bytes, which the row has decoded already.
struct BytesVisitor;

impl<'de> Visitor<'de> for BytesVisitor {
    type Value = Base64;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("base64")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, input: D) -> Result<Base64, D::Error> {
        input.deserialize_str(self)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Base64, E> {
        let decoded = BASE64.decode(text);
        decoded
            .map(Base64)
            .map_err(|_| E::invalid_value(Unexpected::Str(""), &self))
    }

    fn visit_byte_buf<E: serde::de::Error>(self, bytes: Vec<u8>) -> Result<Base64, E> {
        Ok(Base64(bytes))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_newtype_struct(BYTES, BytesVisitor)
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Document<T> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_str(TextOf("a JSON document of the field's type", |text: &str| {
            serde_json::from_str(text).ok().map(Self)
        }))
    }
}

#[cfg(test)]
mod tests {
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
                "column born holds an integer where source.time_precision=isostring promises text: set it to the \
                 connector's time.precision.mode",
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
                "column at holds an integer where source.time_precision=isostring promises text",
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
