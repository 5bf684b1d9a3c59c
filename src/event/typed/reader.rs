//! The serde side of typed rows: a row as a map of its columns, and errors that never quote a value.
//!
//! Nothing here knows a handler's struct; nothing outside [`crate::event::typed`] uses it. A field's type that is read by the
//! modes of the connector asks by a name ([`DATE`] and the like), as serde lets types ask for a newtype of a name.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD as BASE64, URL_SAFE};
use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Expected, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
    VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use crate::event::modes::{Bytes, Decimals, Integers, Intervals, Modes};
use crate::event::row::{Cell, Row, Unavailable, Value, ValueRef};
use crate::event::structured::Structured;

/// The name under which [`crate::event::typed::Known`] is asked for.
const KNOWN: &str = "afterwrite::Known";
/// The name under which [`crate::event::typed::Column`] is asked for.
const COLUMN: &str = "afterwrite::Column";
/// The names under which [`crate::event::typed`] asks for what the connector's modes decide.
pub(crate) const DATE: &str = "afterwrite::Date";
pub(crate) const TIME: &str = "afterwrite::Time";
pub(crate) const TIMESTAMP: &str = "afterwrite::Timestamp";
pub(crate) const BYTES: &str = "afterwrite::Bytes";
pub(crate) const DECIMAL: &str = "afterwrite::Decimal";
pub(crate) const INTERVAL: &str = "afterwrite::Interval";

/// An error on the way, without the table and without any value.
#[derive(Debug)]
pub(crate) struct Mismatch {
    pub(crate) column: Option<String>,
    pub(crate) problem: String,
}

impl Mismatch {
    fn new(problem: impl Into<String>) -> Self {
        Self {
            column: None,
            problem: problem.into(),
        }
    }

    fn of_column(mut self, column: &str) -> Self {
        self.column = Some(column.to_owned());
        self
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.problem)
    }
}

impl std::error::Error for Mismatch {}

impl serde::de::Error for Mismatch {
    /// The text may quote the value, so it is dropped.
    fn custom<T: fmt::Display>(_message: T) -> Self {
        Self::new("does not parse as the type of its field")
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let kind = match found {
            Unexpected::Bool(_) => "a boolean",
            Unexpected::Unsigned(_) | Unexpected::Signed(_) => "an integer",
            Unexpected::Float(_) => "a floating point number",
            Unexpected::Char(_) | Unexpected::Str(_) => "text",
            Unexpected::Unit | Unexpected::Option => "null",
            Unexpected::Seq => "an array",
            _ => "another type",
        };
        Self::new(format!("holds {kind} where {expected} was expected"))
    }

    fn invalid_value(_found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(format!("holds something that is not {expected}"))
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> Self {
        Self::new(format!("holds {length} elements where {expected} was expected"))
    }

    fn unknown_variant(_variant: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!("holds none of {}", expected.join(", ")))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new("is absent").of_column(field)
    }
}

/// A row as a map of its columns.
pub(crate) struct RowReader<'r>(pub(crate) &'r Row);

impl<'de> Deserializer<'de> for RowReader<'_> {
    type Error = Mismatch;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        visitor.visit_map(Columns {
            rest: self.0.columns(),
            current: None,
            modes: self.0.modes(),
        })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

struct Columns<'r, I> {
    rest: I,
    current: Option<(&'r str, Cell<'r>)>,
    modes: Modes,
}

impl<'de, 'r, I: Iterator<Item = (&'r str, Cell<'r>)>> MapAccess<'de> for Columns<'r, I> {
    type Error = Mismatch;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Mismatch> {
        self.current = self.rest.next();
        match self.current {
            Some((name, _)) => seed.deserialize(name_reader(name)).map(Some),
            None => Ok(None),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Mismatch> {
        let (name, cell) = self
            .current
            .take()
            .ok_or_else(|| Mismatch::new("was asked for before its name"))?;
        seed.deserialize(CellReader(cell, self.modes))
            .map_err(|error| error.of_column(name))
    }
}

fn name_reader(name: &str) -> StrDeserializer<'_, Mismatch> {
    name.into_deserializer()
}

/// One cell.
struct CellReader<'r>(Cell<'r>, Modes);

impl<'r> CellReader<'r> {
    fn value(&self) -> Result<ValueReader<'r>, Mismatch> {
        match self.0 {
            Cell::Value(value) => Ok(ValueReader(Some(value), self.1)),
            Cell::Null => Ok(ValueReader(None, self.1)),
            Cell::Unavailable(Unavailable::Unchanged) => Err(Mismatch::new(
                "is unavailable (toasted and unchanged): read the row from the table, or use Known or Column",
            )),
            Cell::Unavailable(Unavailable::Unreadable) => Err(Mismatch::new(
                "is unavailable (the connector cannot print it): read the row from the table, or use Known or Column",
            )),
        }
    }
}

impl<'de> Deserializer<'de> for CellReader<'_> {
    type Error = Mismatch;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        self.value()?.deserialize_any(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        self.value()?.deserialize_option(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Mismatch> {
        match name {
            DATE | TIME | TIMESTAMP | BYTES | DECIMAL | INTERVAL => {
                self.value()?.deserialize_newtype_struct(name, visitor)
            }
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        let variant = match (name, self.0) {
            (KNOWN | COLUMN, Cell::Unavailable(_)) => "Unavailable",
            (COLUMN, Cell::Null) => "Null",
            (KNOWN | COLUMN, _) => "Value",
            _ => return self.value()?.deserialize_enum(name, variants, visitor),
        };
        visitor.visit_enum(StateReader { variant, cell: self })
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        visitor.visit_unit()
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        self.value()?.deserialize_f64(visitor)
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        self.value()?.deserialize_f64(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 char str string bytes byte_buf unit unit_struct
        seq tuple tuple_struct map struct identifier
    }
}

/// A cell as the variant of an enum that names its state.
struct StateReader<'r> {
    variant: &'static str,
    cell: CellReader<'r>,
}

impl<'de, 'r> EnumAccess<'de> for StateReader<'r> {
    type Error = Mismatch;
    type Variant = CellReader<'r>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, CellReader<'r>), Mismatch> {
        Ok((seed.deserialize(name_reader(self.variant))?, self.cell))
    }
}

impl<'de> VariantAccess<'de> for CellReader<'_> {
    type Error = Mismatch;

    fn unit_variant(self) -> Result<(), Mismatch> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Mismatch> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _length: usize, _visitor: V) -> Result<V::Value, Mismatch> {
        Err(Mismatch::new("cannot be an enum with fields"))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _visitor: V) -> Result<V::Value, Mismatch> {
        Err(Mismatch::new("cannot be an enum with fields"))
    }
}

/// Days and milli-, micro- and nanoseconds with which Debezium stands for the infinite dates and timestamps.
const INFINITE: [i64; 3] = [2_146_033_979, 9_223_372_036_825_200_000, i64::MAX];
const NEGATIVE_INFINITE: [i64; 4] = [-2_147_472_691, -2_147_472_692, -9_223_372_036_832_400_000, i64::MIN];

/// Gives the visitor nanoseconds since 1970-01-01 or midnight, and for the infinities the ends of their range.
fn moment<'de, V: Visitor<'de>>(value: i64, integers: Integers, visitor: V) -> Result<V::Value, Mismatch> {
    let Some(nanos) = integers.nanos() else {
        return Err(Mismatch::new(match integers {
            Integers::DependOnTheColumn => {
                "holds an integer whose unit source.time_precision=adaptive leaves open: let the connector send text \
                 (time.precision.mode=isostring), or one unit for all columns"
            }
            _ => {
                "holds an integer where source.time_precision promises none: set it to the connector's \
                 time.precision.mode"
            }
        }));
    };
    if INFINITE.contains(&value) {
        return visitor.visit_i128(i128::MAX);
    }
    if NEGATIVE_INFINITE.contains(&value) {
        return visitor.visit_i128(i128::MIN);
    }
    visitor.visit_i128(i128::from(value) * nanos)
}

/// Gives the visitor the text of a date, time or interval that arrives in parts.
fn parts<'de, V: Visitor<'de>>(
    name: &str,
    members: &[(Arc<str>, Option<Value>)],
    modes: Modes,
    visitor: V,
) -> Result<V::Value, Mismatch> {
    if modes.timestamps != Integers::ArePartsOfObjects {
        return Err(Mismatch::new(
            "holds an object where source.time_precision promises none: set it to the connector's time.precision.mode",
        ));
    }
    let structured = match name {
        DATE => Structured::Date,
        TIME => Structured::Time,
        TIMESTAMP => Structured::Timestamp,
        _ => Structured::Duration,
    };
    let text = structured.zoned(members).print(members).map_err(Mismatch::new)?;
    visitor.visit_str(&text)
}

/// Refuses a decimal that does not say what number it is.
fn check_decimal(value: ValueRef<'_>, decimals: Decimals) -> Result<(), Mismatch> {
    match (decimals, value) {
        (Decimals::Lost, ValueRef::Text(_) | ValueRef::Struct(_)) => Err(Mismatch::new(
            "holds a decimal whose scale is lost (source.decimal=precise): let the connector send text \
             (decimal.handling.mode=string)",
        )),
        (Decimals::Text, ValueRef::Float(_)) => Err(Mismatch::new(
            "holds a number where source.decimal=string promises text: set it to the connector's decimal.handling.mode",
        )),
        _ => Ok(()),
    }
}

fn bytes(text: &str, written: Bytes) -> Option<Vec<u8>> {
    match written {
        Bytes::Base64 => BASE64.decode(text).ok(),
        Bytes::Base64UrlSafe => URL_SAFE.decode(text).ok(),
        Bytes::Hex => hex::decode(text).ok(),
    }
}

/// A value, or null.
struct ValueReader<'r>(Option<ValueRef<'r>>, Modes);

impl<'de> Deserializer<'de> for ValueReader<'_> {
    type Error = Mismatch;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.0 {
            None => visitor.visit_unit(),
            Some(ValueRef::Bool(value)) => visitor.visit_bool(value),
            Some(ValueRef::Int(value)) => visitor.visit_i64(value),
            Some(ValueRef::Float(value)) => visitor.visit_f64(value),
            Some(ValueRef::Text(value)) => visitor.visit_str(value),
            Some(ValueRef::List(items)) => visitor.visit_seq(Items(items.iter(), self.1)),
            Some(ValueRef::Struct(members)) => visitor.visit_map(MemberReader {
                rest: members.iter(),
                current: None,
                modes: self.1,
            }),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.0 {
            None => visitor.visit_none(),
            Some(_) => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Mismatch> {
        match (name, self.0) {
            (DATE, Some(ValueRef::Int(value))) => moment(value, self.1.dates, visitor),
            (DATE | TIME | TIMESTAMP | INTERVAL, Some(ValueRef::Struct(members))) => {
                parts(name, members, self.1, visitor)
            }
            (TIME, Some(ValueRef::Int(value))) => moment(value, self.1.times, visitor),
            (TIMESTAMP, Some(ValueRef::Int(value))) => moment(value, self.1.timestamps, visitor),
            (DECIMAL, Some(value)) => {
                check_decimal(value, self.1.decimals)?;
                visitor.visit_newtype_struct(self)
            }
            (INTERVAL, Some(ValueRef::Int(_))) if self.1.intervals == Intervals::Text => Err(Mismatch::new(
                "holds an integer where source.interval=string promises text: set it to the connector's \
                 interval.handling.mode",
            )),
            (BYTES, Some(ValueRef::Text(text))) => match bytes(text, self.1.bytes) {
                Some(bytes) => visitor.visit_byte_buf(bytes),
                None => Err(Mismatch::new(
                    "does not hold bytes as source.binary says they are written: set it to the connector's \
                     binary.handling.mode",
                )),
            },
            _ => visitor.visit_newtype_struct(self),
        }
    }

    /// Floating point columns hold text where they are not finite.
    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.0 {
            Some(ValueRef::Text(text)) => match text {
                "NaN" => visitor.visit_f64(f64::NAN),
                "Infinity" => visitor.visit_f64(f64::INFINITY),
                "-Infinity" => visitor.visit_f64(f64::NEG_INFINITY),
                _ => self.deserialize_any(visitor),
            },
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        match self.0 {
            Some(ValueRef::Text(label)) => visitor.visit_enum(name_reader(label)),
            _ => self.deserialize_any(visitor),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 char str string bytes byte_buf unit unit_struct
        seq tuple tuple_struct map struct identifier ignored_any
    }
}

struct Items<'r>(std::slice::Iter<'r, Option<Value>>, Modes);

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Mismatch;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Mismatch> {
        let next = self.0.next();
        next.map(|item| seed.deserialize(ValueReader(item.as_ref().map(Value::borrowed), self.1)))
            .transpose()
    }
}

struct MemberReader<'r> {
    rest: std::slice::Iter<'r, (Arc<str>, Option<Value>)>,
    current: Option<&'r Option<Value>>,
    modes: Modes,
}

impl<'de> MapAccess<'de> for MemberReader<'_> {
    type Error = Mismatch;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Mismatch> {
        let Some((name, value)) = self.rest.next() else {
            return Ok(None);
        };
        self.current = Some(value);
        seed.deserialize(name_reader(name)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Mismatch> {
        let value = self.current.take().and_then(Option::as_ref);
        seed.deserialize(ValueReader(value.map(Value::borrowed), self.modes))
    }
}
