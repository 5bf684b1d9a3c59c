//! What the types of Kafka Connect mean, and how their values read in canonical form.
//!
//! Both typed encodings (JSON with schema, Avro) carry the same Connect names and differ only in how they write the
//! primitive below. They read the primitive and come here. Nothing here panics on any value of any type.

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::decode::decimal;
use crate::event::calendar::{self, Unit};
use crate::event::row::Value;
use crate::event::structured::Structured;

/// The Connect name of a decimal whose scale is a parameter of its schema.
pub(crate) const DECIMAL: &str = "org.apache.kafka.connect.data.Decimal";

/// What a column was sent as, in canonical form.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Sent<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Cow<'a, str>),
    /// A list or a struct.
    Nested(Value),
}

impl Sent<'_> {
    /// The value on its own; `None` is null.
    pub(crate) fn into_value(self) -> Option<Value> {
        match self {
            Self::Null => None,
            Self::Bool(value) => Some(Value::Bool(value)),
            Self::Int(value) => Some(Value::Int(value)),
            Self::Float(value) => Some(Value::Float(value)),
            Self::Text(text) => Some(Value::Text(text.into())),
            Self::Nested(value) => Some(value),
        }
    }
}

/// How many digits the decimals of one record may still be printed with. A scale or an exponent of a few bytes stands for
/// thousands of zeros, so without a limit a record would grow a thousandfold.
#[derive(Debug)]
pub(crate) struct Budget(usize);

impl Budget {
    /// The budget of a record of so many bytes: ample for what Postgres holds.
    pub(crate) fn of(record_bytes: usize) -> Self {
        Self((256 * 1024_usize).saturating_add(record_bytes.saturating_mul(16)))
    }

    pub(crate) fn spend(&mut self, digits: usize) -> Result<(), &'static str> {
        self.0 = self
            .0
            .checked_sub(digits)
            .ok_or("holds a decimal that takes the record past the digits that so many bytes may be printed with")?;
        Ok(())
    }
}

/// What a Connect schema says about the primitive it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// No name: the value is what it is.
    Plain,
    /// `io.debezium.data.Json`: the text of a document.
    Json,
    /// Another named text that Postgres may toast: xml, tsvector, ltree.
    Document,
    /// `io.debezium.data.Uuid`.
    Uuid,
    /// Bytes of an unscaled integer with this scale.
    Decimal {
        /// Digits after the point.
        scale: i32,
    },
    /// A struct of scale and unscaled bytes.
    VariableScaleDecimal,
    /// Days since 1970-01-01.
    Date,
    /// Time since midnight.
    Time(Unit),
    /// Time since 1970-01-01, without a zone.
    Timestamp(Unit),
    /// A struct of the parts of a date, time or duration.
    Structured(Structured),
    /// A struct of `io.debezium.data.geometry`, which may hold a map.
    Geometry,
    /// A name that changes nothing: enums, zoned times (already text), intervals, bits.
    Named,
}

impl Meaning {
    /// What a Connect schema name means; `scale` is the parameter of decimals.
    pub(crate) fn of_name(name: &str, scale: Option<i32>) -> Self {
        match name {
            // Without a scale the schema is refused before.
            DECIMAL => Self::Decimal {
                scale: scale.unwrap_or(0),
            },
            "io.debezium.data.VariableScaleDecimal" => Self::VariableScaleDecimal,
            "io.debezium.time.Date" | "org.apache.kafka.connect.data.Date" => Self::Date,
            "io.debezium.time.Time" | "org.apache.kafka.connect.data.Time" => Self::Time(Unit::Millis),
            "io.debezium.time.MicroTime" => Self::Time(Unit::Micros),
            "io.debezium.time.NanoTime" => Self::Time(Unit::Nanos),
            "io.debezium.time.Timestamp" | "org.apache.kafka.connect.data.Timestamp" => Self::Timestamp(Unit::Millis),
            "io.debezium.time.MicroTimestamp" => Self::Timestamp(Unit::Micros),
            "io.debezium.time.NanoTimestamp" => Self::Timestamp(Unit::Nanos),
            "io.debezium.data.Json" => Self::Json,
            "io.debezium.data.Uuid" => Self::Uuid,
            "io.debezium.data.Xml" | "io.debezium.data.Tsvector" | "io.debezium.data.Ltree" => Self::Document,
            _ if name.starts_with("io.debezium.data.geometry.") => Self::Geometry,
            _ => Structured::of_name(name).map_or(Self::Named, Self::Structured),
        }
    }

    /// What an Avro logical type means where no Connect name is given.
    pub(crate) fn of_logical(logical: &str, scale: Option<i32>) -> Self {
        match logical {
            "decimal" => Self::Decimal {
                scale: scale.unwrap_or(0),
            },
            "date" => Self::Date,
            "time-millis" => Self::Time(Unit::Millis),
            "time-micros" => Self::Time(Unit::Micros),
            "timestamp-millis" | "local-timestamp-millis" => Self::Timestamp(Unit::Millis),
            "timestamp-micros" | "local-timestamp-micros" => Self::Timestamp(Unit::Micros),
            "timestamp-nanos" | "local-timestamp-nanos" => Self::Timestamp(Unit::Nanos),
            "uuid" => Self::Uuid,
            _ => Self::Plain,
        }
    }
}

/// An integer of any width.
pub(crate) fn integer(meaning: Meaning, value: i64) -> Sent<'static> {
    match meaning {
        Meaning::Date => text(calendar::date(value)),
        Meaning::Time(unit) => text(calendar::time_of_day(value, unit)),
        Meaning::Timestamp(unit) => text(calendar::timestamp(value, unit)),
        _ => Sent::Int(value),
    }
}

/// A floating point number. JSON has no way to print those that are not finite, so they are text.
pub(crate) fn float(value: f64) -> Sent<'static> {
    if value.is_nan() {
        text("NaN")
    } else if value.is_infinite() {
        text(if value > 0.0 { "Infinity" } else { "-Infinity" })
    } else {
        Sent::Float(value)
    }
}

/// A number of single precision: the double that prints with the same digits, not the one with the same bits.
pub(crate) fn single(value: f32) -> Sent<'static> {
    float(value.to_string().parse().unwrap_or(f64::from(value)))
}

/// Bytes of any length.
pub(crate) fn bytes(meaning: Meaning, value: &[u8], budget: &mut Budget) -> Result<Sent<'static>, &'static str> {
    match meaning {
        Meaning::Decimal { scale } => decimal::print(value, scale, budget).map(text),
        _ => Ok(text(BASE64.encode(value))),
    }
}

/// The members of a map. A map has no order of its own and each encoding writes it in another, so it is sorted.
pub(crate) fn map(mut members: Vec<(Arc<str>, Option<Value>)>) -> Sent<'static> {
    members.sort_by(|(one, _), (other, _)| one.cmp(other));
    Sent::Nested(Value::Struct(members))
}

/// The members of a struct.
pub(crate) fn structure(
    meaning: Meaning,
    mut members: Vec<(Arc<str>, Option<Value>)>,
    budget: &mut Budget,
) -> Result<Sent<'static>, &'static str> {
    match meaning {
        Meaning::VariableScaleDecimal => {}
        Meaning::Structured(structured) => return structured.print(&members).map(text),
        // A geometry, or what may be one where there is no schema: each encoding writes the map inside in an order of its own.
        Meaning::Geometry | Meaning::Plain => {
            let map = members.iter_mut().find(|(name, _)| **name == *"extensions");
            if let Some((_, Some(Value::Struct(entries)))) = map {
                entries.sort_by(|(one, _), (other, _)| one.cmp(other));
            }
            return Ok(Sent::Nested(Value::Struct(members)));
        }
        _ => return Ok(Sent::Nested(Value::Struct(members))),
    }
    let member = |name: &str| {
        let found = members.iter().find(|(member, _)| &**member == name);
        found.and_then(|(_, value)| value.as_ref())
    };
    match (member("scale"), member("value")) {
        (Some(Value::Int(scale)), Some(Value::Text(unscaled))) => {
            let narrow = i32::try_from(*scale).map_err(|_| decimal::WRONG_SCALE)?;
            decimal::print(&from_base64(unscaled)?, narrow, budget).map(text)
        }
        _ => Err("holds a decimal without scale and value"),
    }
}

/// The bytes behind a JSON string of a field of type bytes.
pub(crate) fn from_base64(value: &str) -> Result<Vec<u8>, &'static str> {
    BASE64.decode(value).map_err(|_| "holds bytes that are not base64")
}

/// A text value.
pub(crate) fn text<'a>(value: impl Into<Cow<'a, str>>) -> Sent<'a> {
    Sent::Text(value.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_precision_prints_its_own_digits() {
        assert_eq!(single(3.3), Sent::Float(3.3));
        assert_eq!(single(f32::NAN), text("NaN"));
        assert_eq!(float(f64::NEG_INFINITY), text("-Infinity"));
    }

    #[test]
    fn a_variable_scale_decimal_is_one_text() {
        let members = vec![
            (Arc::from("scale"), Some(Value::Int(4))),
            (Arc::from("value"), Some(Value::Text("A2Yu".into()))),
        ];
        let mut budget = Budget::of(0);
        let read = structure(Meaning::VariableScaleDecimal, members, &mut budget);
        assert_eq!(read, Ok(text("22.2766")));
        let broken = vec![(Arc::from("scale"), Some(Value::Int(4)))];
        assert!(structure(Meaning::VariableScaleDecimal, broken, &mut budget).is_err());
    }

    #[test]
    fn a_map_inside_a_struct_has_one_order() {
        let text = |value: &str| Some(Value::Text(value.into()));
        let map = |names: [&str; 2]| Value::Struct(names.iter().map(|name| (Arc::from(*name), text(name))).collect());
        for meaning in [
            Meaning::of_name("io.debezium.data.geometry.Geometry", None),
            Meaning::Plain,
        ] {
            let members = vec![
                (Arc::from("wkb"), text("")),
                (Arc::from("extensions"), Some(map(["type", "closed"]))),
            ];
            let Ok(Sent::Nested(Value::Struct(read))) = structure(meaning, members, &mut Budget::of(0)) else {
                panic!("not a struct")
            };
            assert_eq!(&*read[0].0, "wkb");
            assert_eq!(read[1].1, Some(map(["closed", "type"])));
        }
    }

    #[test]
    fn a_map_is_sorted_by_its_keys() {
        let entry = |key: &str| (Arc::from(key), None);
        let sorted = Sent::Nested(Value::Struct(vec![entry("a"), entry("b"), entry("c")]));
        assert_eq!(map(vec![entry("b"), entry("c"), entry("a")]), sorted);
    }

    #[test]
    fn names_decide_the_unit() {
        let micro = Meaning::of_name("io.debezium.time.MicroTimestamp", None);
        assert_eq!(integer(micro, 500_000), text("1970-01-01T00:00:00.5Z"));
        let duration = Meaning::of_name("io.debezium.time.MicroDuration", None);
        assert_eq!(integer(duration, 500_000), Sent::Int(500_000));
    }
}
