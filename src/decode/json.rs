//! JSON of Kafka's converter, with and without schema.
//!
//! No tree of the document is built: an object is split into the raw text of its members, and each member is read by
//! its own first byte, and by its type where a schema gives one. Numbers are never forced through a double: what does
//! not fit an integer, or has more digits than a double keeps, stays the text it was sent as. Texts of errors name
//! columns and never quote what they hold.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::decode::connect::{Field, Kind, Struct, Type};
use crate::decode::decimal;
use crate::decode::placeholder::{self, Placeholder, Toast};
use crate::decode::types::{self, Meaning};
use crate::event::row::{Cell, Row, Value};

/// Arrays and objects inside a column nest at most this deep; Debezium's own nest three deep.
const DEPTH_MAX: u32 = 16;
/// Every double is printed with at most this many digits; a number with more is a decimal.
const DOUBLE_DIGITS_MAX: usize = 17;

/// What is known about the columns of an object before it is read.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Columns<'s> {
    /// Nothing but how they were called last time, so that names are shared between rows.
    Named(&'s [Arc<str>]),
    /// Everything.
    Typed(&'s Struct),
}

/// A member's name; borrowed unless it is escaped.
#[derive(Deserialize)]
pub(crate) struct Name<'a>(#[serde(borrow)] pub(crate) Cow<'a, str>);

/// The error text of the parser, which tells a place and never a value for the documents split here.
pub(crate) fn broken(what: &str, error: &serde_json::Error) -> String {
    format!("{what} is not valid JSON: {error}")
}

/// Reads a row. With a placeholder, columns that carry it are unavailable.
pub(crate) fn row(text: &str, columns: Columns<'_>, placeholder: Option<&Placeholder>) -> Result<Row, String> {
    if !text.starts_with('{') {
        return Err("a row is not a JSON object".to_owned());
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    let visitor = RowVisitor { columns, placeholder };
    let read = serde::Deserializer::deserialize_map(&mut reader, visitor);
    let row = read.map_err(|error| broken("a row", &error))?;
    reader.end().map_err(|error| broken("a row", &error))?;
    Ok(row)
}

struct RowVisitor<'s> {
    columns: Columns<'s>,
    placeholder: Option<&'s Placeholder>,
}

impl<'de> Visitor<'de> for RowVisitor<'_> {
    type Value = Row;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a row")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Row, A::Error> {
        let expected = match self.columns {
            Columns::Named(names) => names.len(),
            Columns::Typed(row) => row.fields.len(),
        };
        let mut cells: Vec<(Arc<str>, Cell)> = Vec::with_capacity(expected);
        while let Some((Name(name), raw)) = members.next_entry::<Name<'de>, &'de RawValue>()? {
            let (shared, field) = self.column(&name, cells.len());
            let (ty, toast) = field.map_or((None, Toast::Any), |field| (Some(&field.ty), field.toast));
            let read = value(raw.get(), ty, 0);
            let value = read.map_err(|problem| A::Error::custom(format_args!("column {shared} {problem}")))?;
            cells.push((shared, placeholder::cell(value, toast, self.placeholder)));
        }
        Ok(Row::new(cells))
    }
}

impl RowVisitor<'_> {
    /// The shared name of the next column, and its type where there is one.
    fn column(&self, name: &str, position: usize) -> (Arc<str>, Option<&Field>) {
        match self.columns {
            Columns::Named(names) => match names.get(position) {
                Some(known) if &**known == name => (Arc::clone(known), None),
                _ => (Arc::from(name), None),
            },
            Columns::Typed(row) => match row.field(name, position) {
                Some(field) => (Arc::clone(&field.name), Some(field)),
                None => (Arc::from(name), None),
            },
        }
    }
}

/// Reads one value; `None` is null. The text is one complete JSON value.
fn value(text: &str, ty: Option<&Type>, depth: u32) -> Result<Option<Value>, &'static str> {
    if depth > DEPTH_MAX {
        return Err("is nested too deeply");
    }
    let found = match text.as_bytes().first() {
        Some(b'n') => return Ok(None),
        Some(b't') => boolean(true, ty),
        Some(b'f') => boolean(false, ty),
        Some(b'"') => string(text, ty),
        Some(b'[') => list(text, ty, depth),
        Some(b'{') => object(text, ty, depth),
        Some(_) => number(text, ty),
        None => Err("is empty"),
    };
    found.map(Some)
}

fn boolean(value: bool, ty: Option<&Type>) -> Result<Value, &'static str> {
    match ty.map(|ty| &ty.kind) {
        None | Some(Kind::Bool) => Ok(Value::Bool(value)),
        Some(_) => Err("holds a boolean where its schema has another type"),
    }
}

fn string(text: &str, ty: Option<&Type>) -> Result<Value, &'static str> {
    let content = unescape(text)?;
    let Some(ty) = ty else {
        return Ok(types::text(content));
    };
    match (&ty.kind, ty.meaning) {
        (Kind::Bytes, Meaning::Decimal { scale }) => {
            decimal::print(&types::from_base64(&content)?, scale).map(types::text)
        }
        (Kind::Text | Kind::Bytes, _) => Ok(types::text(content)),
        (Kind::Single | Kind::Double, _) if ["NaN", "Infinity", "-Infinity"].contains(&&*content) => {
            Ok(types::text(content))
        }
        _ => Err("holds text where its schema has another type"),
    }
}

fn unescape(text: &str) -> Result<Cow<'_, str>, &'static str> {
    let inner = text
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .ok_or("holds a broken string")?;
    if !inner.contains('\\') {
        return Ok(Cow::Borrowed(inner));
    }
    resolve_escapes(inner)
        .map(Cow::Owned)
        .ok_or("holds text that is not Unicode")
}

/// The text that escapes stand for; `None` when they stand for none, such as half of a surrogate pair. It is never longer
/// than what it is made of, so one allocation is enough; a parser of documents grows its buffer anew for each text.
fn resolve_escapes(inner: &str) -> Option<String> {
    let mut text = String::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        let escape = *rest.as_bytes().get(at + 1)?;
        rest = rest.get(at + 2..)?;
        text.push(match escape {
            b'"' | b'\\' | b'/' => char::from(escape),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => unicode_escape(&mut rest)?,
            _ => return None,
        });
    }
    text.push_str(rest);
    Some(text)
}

/// Takes the digits after `\u`, and a whole second escape where the first is half of a pair.
fn unicode_escape(rest: &mut &str) -> Option<char> {
    let mut take = |count: usize| {
        let (taken, behind) = rest.split_at_checked(count)?;
        *rest = behind;
        Some(taken)
    };
    let unit = |hex: &str| {
        let is_hex = hex.bytes().all(|digit| digit.is_ascii_hexdigit());
        is_hex.then(|| u16::from_str_radix(hex, 16).ok()).flatten()
    };
    let first = unit(take(4)?)?;
    if !(0xd800..0xdc00).contains(&first) {
        return char::from_u32(u32::from(first));
    }
    let second = unit(take(6)?.strip_prefix("\\u")?)?;
    char::decode_utf16([first, second]).next()?.ok()
}

fn number(text: &str, ty: Option<&Type>) -> Result<Value, &'static str> {
    let Some(ty) = ty else {
        return untyped_number(text);
    };
    match (&ty.kind, ty.meaning) {
        (Kind::Int, meaning) => text
            .parse()
            .map(|value| types::integer(meaning, value))
            .map_err(|_| "holds a number that is no 64-bit integer"),
        (Kind::Single | Kind::Double, _) => text
            .parse()
            .map(types::float)
            .map_err(|_| "holds a number that is no double"),
        // decimal.format=NUMERIC writes decimals as literals. Their digits are kept.
        (Kind::Bytes, Meaning::Decimal { .. }) => decimal::print_literal(text).map(types::text),
        _ => Err("holds a number where its schema has another type"),
    }
}

fn untyped_number(text: &str) -> Result<Value, &'static str> {
    if let Ok(integer) = text.parse() {
        return Ok(Value::Int(integer));
    }
    let mantissa = text.split(['e', 'E']).next().unwrap_or_default();
    let digits = mantissa.bytes().filter(u8::is_ascii_digit);
    let significant = digits.skip_while(|digit| *digit == b'0').count();
    let is_integer = !text.contains(['.', 'e', 'E']);
    if is_integer || significant > DOUBLE_DIGITS_MAX {
        return Ok(types::text(text));
    }
    match text.parse::<f64>() {
        Ok(double) if double.is_finite() => Ok(Value::Float(double)),
        Ok(_) => Ok(types::text(text)),
        Err(_) => Err("holds a broken number"),
    }
}

fn list(text: &str, ty: Option<&Type>, depth: u32) -> Result<Value, &'static str> {
    let elements: Vec<&RawValue> = serde_json::from_str(text).map_err(|_| "holds a broken array")?;
    let read = |element: &&RawValue, ty| value(element.get(), ty, depth + 1);
    match ty.map(|ty| &ty.kind) {
        None => elements
            .iter()
            .map(|element| read(element, None))
            .collect::<Result<_, _>>(),
        Some(Kind::List(items)) => elements.iter().map(|element| read(element, Some(items))).collect(),
        Some(Kind::Map { key, value }) => elements.iter().map(|pair| entry(pair, key, value, depth + 1)).collect(),
        Some(_) => return Err("holds an array where its schema has another type"),
    }
    .map(Value::List)
}

/// One entry of a map whose keys are not text: an array of two.
fn entry(pair: &RawValue, key: &Type, item: &Type, depth: u32) -> Result<Option<Value>, &'static str> {
    let [first, second]: [&RawValue; 2] =
        serde_json::from_str(pair.get()).map_err(|_| "holds a map entry that is not a pair")?;
    let read = vec![
        value(first.get(), Some(key), depth + 1)?,
        value(second.get(), Some(item), depth + 1)?,
    ];
    Ok(Some(Value::List(read)))
}

fn object(text: &str, ty: Option<&Type>, depth: u32) -> Result<Value, &'static str> {
    let Members(members) = serde_json::from_str(text).map_err(|_| "holds a broken object")?;
    let meaning = ty.map_or(Meaning::Plain, |ty| ty.meaning);
    let mut read = Vec::with_capacity(members.len());
    for (position, (name, raw)) in members.iter().enumerate() {
        let (shared, inner) = match ty.map(|ty| &ty.kind) {
            None => (Arc::from(&**name), None),
            Some(Kind::Map { value, .. }) => (Arc::from(&**name), Some(&**value)),
            Some(Kind::Struct(members)) => match members.field(name, position) {
                Some(field) => (Arc::clone(&field.name), Some(&field.ty)),
                None => (Arc::from(&**name), None),
            },
            Some(_) => return Err("holds an object where its schema has another type"),
        };
        read.push((shared, value(raw.get(), inner, depth + 1)?));
    }
    types::structure(meaning, read)
}

/// The members of an object in order, unread.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct MembersVisitor;
        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members<'de>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some((Name(name), raw)) = access.next_entry::<Name<'de>, &'de RawValue>()? {
                    members.push((name, raw));
                }
                Ok(Members(members))
            }
        }
        input.deserialize_map(MembersVisitor)
    }
}

/// `{"schema":…,"payload":…}`, unread. Anything else, also with a third member, is not a wrapper: a flattened row may
/// well have columns of these names.
pub(crate) struct Wrapper<'a> {
    pub(crate) schema: &'a str,
    pub(crate) payload: &'a str,
}

impl<'a> Wrapper<'a> {
    /// `None` when the text is something else, or not JSON. A text that begins otherwise is not parsed for it.
    pub(crate) fn of(text: &'a str) -> Option<Self> {
        let members = text.strip_prefix('{')?.trim_ascii_start();
        if !(members.starts_with("\"schema\"") || members.starts_with("\"payload\"")) {
            return None;
        }
        serde_json::from_str::<WrapperParts<'a>>(text).ok()?.0
    }
}

struct WrapperParts<'a>(Option<Wrapper<'a>>);

impl<'de> Deserialize<'de> for WrapperParts<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct WrapperVisitor;
        impl<'de> Visitor<'de> for WrapperVisitor {
            type Value = WrapperParts<'de>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<WrapperParts<'de>, A::Error> {
                let (mut schema, mut payload) = (None, None);
                while let Some(Name(name)) = access.next_key::<Name<'de>>()? {
                    match &*name {
                        "schema" if schema.is_none() => schema = Some(access.next_value::<&'de RawValue>()?.get()),
                        "payload" if payload.is_none() => payload = Some(access.next_value::<&'de RawValue>()?.get()),
                        _ => return Err(A::Error::custom("a third member")),
                    }
                }
                let wrapper = match (schema, payload) {
                    (Some(schema), Some(payload)) if schema == "null" || is_schema(schema) => {
                        Some(Wrapper { schema, payload })
                    }
                    _ => None,
                };
                Ok(WrapperParts(wrapper))
            }
        }
        input.deserialize_map(WrapperVisitor)
    }
}

/// Whether the text is an object with a `type`.
fn is_schema(text: &str) -> bool {
    #[derive(Deserialize)]
    struct Typed {
        #[serde(rename = "type")]
        _kind: IgnoredAny,
    }
    text.starts_with('{') && serde_json::from_str::<Typed>(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::connect;

    fn untyped(text: &str) -> Result<Option<Value>, &'static str> {
        value(text, None, 0)
    }

    #[test]
    fn numbers_without_schema_keep_every_digit() {
        for (text, expected) in [
            ("9007199254740993", Value::Int(9_007_199_254_740_993)),
            ("-9223372036854775808", Value::Int(i64::MIN)),
            ("12345678901234567890123", types::text("12345678901234567890123")),
            ("1.5", Value::Float(1.5)),
            ("-0.0", Value::Float(-0.0)),
            ("4.9E-324", Value::Float(5e-324)),
            ("1.234567890123456789", types::text("1.234567890123456789")),
            ("1e999", types::text("1e999")),
        ] {
            assert_eq!(untyped(text), Ok(Some(expected)), "{text}");
        }
    }

    #[test]
    fn text_is_unescaped_and_lone_surrogates_are_refused() {
        assert_eq!(untyped(r#""a\n\ud83d\ude80""#), Ok(Some(types::text("a\n🚀"))));
        assert!(untyped(r#""\ud83d""#).is_err());
    }

    #[test]
    fn escapes_are_resolved_as_a_parser_of_documents_does() {
        for inner in [
            r#"\" \\ \/ \b\f\n\r\t"#,
            r"line\nend\\",
            r"\u00e4\u20AC\u0000",
            r"\ud83d\ude80 and \uD83D\uDE80",
            r"\ud83d",
            r"\ud83dx",
            r"\ud83d\n",
            r"\ud83d\u0041",
            r"\ude80\ud83d",
            r"\u12",
            r"\u+123",
            r"\u12ä",
            r"\u12ä4",
            r"\x",
            r"\ä",
            "ä\\n🚀",
        ] {
            let document = serde_json::from_str::<String>(&format!("\"{inner}\"")).ok();
            assert_eq!(resolve_escapes(inner), document, "{inner}");
        }
        assert_eq!(resolve_escapes("\\"), None);
    }

    #[test]
    fn deep_nesting_is_refused_and_does_not_overflow_the_stack() {
        let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
        assert_eq!(untyped(&deep), Err("is nested too deeply"));
        let deeper = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(untyped(&deeper).is_err());
    }

    #[test]
    fn a_row_keeps_null_and_absent_apart_and_names_the_column_in_errors() {
        let read = row(r#"{"id":1,"note":null}"#, Columns::Named(&[]), None).unwrap();
        assert_eq!(read.get("note"), Some(&Cell::Null));
        assert_eq!(read.get("other"), None);
        let problem = row(r#"{"id":1,"note":"\ud83d secret"}"#, Columns::Named(&[]), None).unwrap_err();
        assert!(problem.contains("column note"), "{problem}");
        assert!(!problem.contains("secret"), "{problem}");
        let scalar = row("\"secret\"", Columns::Named(&[]), None).unwrap_err();
        assert!(!scalar.contains("secret"), "{scalar}");
    }

    #[test]
    fn a_schema_decides_how_a_value_reads() {
        let schema = r#"{"type":"struct","fields":[
            {"type":"int64","name":"io.debezium.time.MicroTimestamp","field":"at"},
            {"type":"bytes","name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"2"},"field":"sum"},
            {"type":"map","keys":{"type":"int16"},"values":{"type":"double"},"field":"sparse"}]}"#;
        let parsed = connect::parse(schema).unwrap();
        let Kind::Struct(fields) = &parsed.kind else {
            panic!("not a struct")
        };
        let read = row(
            r#"{"at":500000,"sum":"MDk=","sparse":[[1,1.5]]}"#,
            Columns::Typed(fields),
            None,
        )
        .unwrap();
        assert_eq!(read.text("at"), Some("1970-01-01T00:00:00.5Z"));
        assert_eq!(read.text("sum"), Some("123.45"));
        let pair = Value::List(vec![Some(Value::Int(1)), Some(Value::Float(1.5))]);
        assert_eq!(read.get("sparse"), Some(&Cell::Value(Value::List(vec![Some(pair)]))));
        assert!(row(r#"{"at":"soon"}"#, Columns::Typed(fields), None).is_err());
    }

    #[test]
    fn a_wrapper_has_exactly_two_members_and_a_schema() {
        for (text, expected) in [
            (r#"{"schema":{"type":"struct"},"payload":{}}"#, true),
            (r#"{"payload":{},"schema":{"type":"struct"}}"#, true),
            (r#"{"schema":null,"payload":null}"#, true),
            (r#"{"schema":"public","payload":{}}"#, false),
            (r#"{"schema":{"type":"struct"},"payload":{},"id":1}"#, false),
            (r#"{"schema":{"kind":"struct"},"payload":{}}"#, false),
            (r#"{"schema":null}"#, false),
            ("[]", false),
            ("{", false),
        ] {
            assert_eq!(Wrapper::of(text).is_some(), expected, "{text}");
        }
    }
}
