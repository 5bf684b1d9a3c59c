//! Bytes, bit strings and geometry of Postgres.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde::de::{Deserializer, Unexpected, Visitor};

use crate::event::typed::reader::BYTES;

/// Bytes of a `bytea` column, however the connector writes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base64(pub Vec<u8>);

/// A bit string of any length but one; `bit(1)` is a boolean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bits {
    /// The last bit of the string is the lowest of the first byte. Zero bytes at the end are not sent, so the length of a
    /// string is not known from it: it is that of the column, and of a `varbit` it is lost.
    pub bytes: Vec<u8>,
}

impl Bits {
    /// Whether a bit is set, counted from the last of the string on, as `B'100'` has its second set.
    pub fn is_set(&self, place: usize) -> bool {
        self.bytes
            .get(place / 8)
            .is_some_and(|byte| byte >> (place % 8) & 1 == 1)
    }
}

/// A `point`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Point {
    /// The first coordinate.
    pub x: f64,
    /// The second coordinate.
    pub y: f64,
}

/// A `geometry` or `geography` of PostGIS.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Geometry {
    /// The shape as well-known binary (OGC 06-103r4).
    #[serde(deserialize_with = "of_base64")]
    pub wkb: Vec<u8>,
    /// The spatial reference system, where there is one.
    pub srid: Option<i32>,
}

/// Reads bytes that the row has decoded already, or base64.
struct BytesVisitor;

impl<'de> Visitor<'de> for BytesVisitor {
    type Value = Vec<u8>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("base64")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, input: D) -> Result<Vec<u8>, D::Error> {
        input.deserialize_str(self)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Vec<u8>, E> {
        BASE64
            .decode(text)
            .map_err(|_| E::invalid_value(Unexpected::Str(""), &self))
    }

    fn visit_byte_buf<E: serde::de::Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
        Ok(bytes)
    }
}

/// What Kafka Connect calls bytes is base64 in every mode: `binary.handling.mode` is about `bytea` alone.
fn of_base64<'de, D: Deserializer<'de>>(input: D) -> Result<Vec<u8>, D::Error> {
    input.deserialize_str(BytesVisitor)
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_newtype_struct(BYTES, BytesVisitor).map(Self)
    }
}

impl<'de> Deserialize<'de> for Bits {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        of_base64(input).map(|bytes| Self { bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::modes::{Bytes, Modes};
    use crate::event::row::{Row, Value};

    #[derive(Debug, PartialEq, Deserialize)]
    struct Shapes {
        bits: Bits,
        none: Bits,
        place: Point,
        area: Geometry,
    }

    #[test]
    fn bits_and_shapes_are_base64_in_every_mode_of_binary_columns() {
        let text = |value: &str| Some(Value::Text(value.into()));
        let place = [("x", 1.5), ("y", -2.0)].map(|(name, value)| (name.into(), Some(Value::Float(value))));
        let wkb_and_srid = vec![("wkb".into(), text("AQI=")), ("srid".into(), None)];
        let row = Row::builder()
            .read_by(Modes {
                bytes: Bytes::Hex,
                ..Modes::default()
            })
            .value("bits", text("qgo=").unwrap())
            .value("none", text("").unwrap())
            .value("place", Value::Struct(place.to_vec()))
            .value("area", Value::Struct(wkb_and_srid))
            .finish();
        let shapes: Shapes = row.to().unwrap();
        // B'101010101010'
        assert_eq!(shapes.bits.bytes, [0b1010_1010, 0b1010]);
        let set: Vec<usize> = (0..20).filter(|place| shapes.bits.is_set(*place)).collect();
        assert_eq!(set, [1, 3, 5, 7, 9, 11]);
        assert!(!shapes.none.is_set(0));
        assert_eq!(shapes.place, Point { x: 1.5, y: -2.0 });
        assert_eq!((shapes.area.wkb, shapes.area.srid), (vec![1, 2], None));
    }
}
