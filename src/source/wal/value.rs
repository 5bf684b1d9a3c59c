//! Values of columns, printed as Debezium prints them in JSON without schema in its recommended modes.
//!
//! A text that is not what its type prints becomes a JSON string as it stands: nothing is lost, and whoever reads the column
//! by its type is told.

use std::borrow::Cow;
use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::source::wal::kind::Kind;
use crate::source::wal::list::{self, List};
use crate::source::wal::{moment, shape};

/// What the connector sends for an array of more than one dimension: the name that Java prints for one, which the decoder
/// takes for a value that cannot be read.
const NESTED: &str = r#"["[Ljava.lang.Object;@0"]"#;

/// Prints a value that is not null.
pub(super) fn print(kind: &Kind, text: &str, out: &mut Vec<u8>) {
    match kind {
        Kind::List(element) => match list::read(text) {
            Some(List::Flat(elements)) => print_list(element, &elements, out),
            Some(List::Nested) => out.extend(NESTED.as_bytes()),
            None => string(text, out),
        },
        kind => print_one(kind, text, out),
    }
}

fn print_list(kind: &Kind, elements: &[Option<Cow<'_, str>>], out: &mut Vec<u8>) {
    out.push(b'[');
    for (place, element) in elements.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        let Some(text) = element.as_deref() else {
            out.extend(b"null");
            continue;
        };
        let other = match kind {
            Kind::Date => moment::date_of_list(text),
            Kind::Time => moment::time_of_list(text),
            Kind::TimestampWithZone(digits) => moment::timestamp_with_zone_of_list(text, *digits),
            _ => None,
        };
        match other {
            Some(text) => string(&text, out),
            None => print_one(kind, text, out),
        }
    }
    out.push(b']');
}

fn print_one(kind: &Kind, text: &str, out: &mut Vec<u8>) {
    let printed = match kind {
        Kind::Bool => {
            return literal(
                match text {
                    "t" => Some("true"),
                    "f" => Some("false"),
                    _ => None,
                },
                text,
                out,
            );
        }
        Kind::Integer => return literal(is_whole(text).then_some(text), text, out),
        Kind::Float => return float(text, out),
        Kind::Shape(shape) => return json(shape::read(*shape, text), text, out),
        Kind::Bit => {
            return literal(
                match text {
                    "1" => Some("true"),
                    "0" => Some("false"),
                    _ => None,
                },
                text,
                out,
            );
        }
        Kind::AlwaysNull => return out.extend(b"null"),
        Kind::Decimal(digits) => decimal(text, *digits),
        Kind::Money => money(text),
        Kind::Bytes => bytes(text),
        Kind::Bits => bits(text),
        Kind::Date => moment::date(text),
        Kind::Time => moment::time(text),
        Kind::TimeWithZone => moment::time_with_zone(text),
        Kind::Timestamp => moment::timestamp(text),
        Kind::TimestampWithZone(digits) => moment::timestamp_with_zone(text, *digits),
        Kind::Interval => moment::interval(text),
        Kind::Hstore => hstore(text),
        Kind::Text | Kind::List(_) => None,
    };
    string(printed.as_deref().unwrap_or(text), out);
}

/// Prints a text as a JSON string.
pub(super) fn string(text: &str, out: &mut Vec<u8>) {
    let written = serde_json::to_writer(&mut *out, text);
    debug_assert!(written.is_ok(), "a text is JSON, and a Vec takes any bytes");
}

fn literal(printed: Option<&str>, text: &str, out: &mut Vec<u8>) {
    match printed {
        Some(printed) => out.extend(printed.as_bytes()),
        None => string(text, out),
    }
}

/// Whether it is a whole number as JSON and Postgres write one: others take signs and zeros before it too.
fn is_whole(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    text.parse::<i64>().is_ok() && !digits.starts_with('+') && (digits == "0" || !digits.starts_with('0'))
}

fn json(value: Option<serde_json::Value>, text: &str, out: &mut Vec<u8>) {
    match value {
        Some(value) => {
            let written = write!(out, "{value}");
            debug_assert!(written.is_ok(), "a Vec takes any bytes");
        }
        None => string(text, out),
    }
}

/// A number of either precision: Postgres prints as few digits as tell it from its neighbours.
fn float(text: &str, out: &mut Vec<u8>) {
    match text.parse::<f64>() {
        // JSON has no numbers that are not finite.
        Ok(number) if number.is_finite() => {
            let written = serde_json::to_writer(&mut *out, &number);
            debug_assert!(written.is_ok(), "a number is JSON, and a Vec takes any bytes");
        }
        _ => string(text, out),
    }
}

/// With as many digits after the point as the column's type says, of which Postgres prints all that it has.
fn decimal(text: &str, digits: usize) -> Option<String> {
    let special = match text {
        "NaN" => "NAN",
        "Infinity" => "POSITIVE_INFINITY",
        "-Infinity" => "NEGATIVE_INFINITY",
        _ => "",
    };
    if !special.is_empty() {
        return Some(special.to_owned());
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    (fraction.len() < digits).then(|| format!("{whole}.{fraction:0<digits$}"))
}

/// `-$1,234.50`, as the locale `C` has it.
fn money(text: &str) -> Option<String> {
    let plain: String = text.chars().filter(|letter| !matches!(letter, '$' | ',')).collect();
    plain.parse::<f64>().is_ok().then_some(plain)
}

fn bytes(text: &str) -> Option<String> {
    let bytes = hex::decode(text.strip_prefix("\\x")?).ok()?;
    Some(BASE64.encode(bytes))
}

/// The bits as a number, its lowest byte first, without zero bytes at its end.
fn bits(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len() / 8 + 1);
    for (place, bit) in text.bytes().rev().enumerate() {
        if place % 8 == 0 {
            bytes.push(0_u8);
        }
        let byte = bytes.last_mut()?;
        match bit {
            b'1' => *byte |= 1 << (place % 8),
            b'0' => {}
            _ => return None,
        }
    }
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    bytes.truncate(used);
    Some(BASE64.encode(bytes))
}

/// `"a"=>"1", "b"=>NULL` as the text of a JSON object.
fn hstore(text: &str) -> Option<String> {
    let mut out = vec![b'{'];
    let mut rest = text;
    while !rest.is_empty() {
        if out.len() > 1 {
            out.push(b',');
            rest = rest.strip_prefix(", ")?;
        }
        let (key, after) = list::unquote(rest.strip_prefix('"')?)?;
        string(&key?, &mut out);
        out.push(b':');
        let value = after.strip_prefix("=>")?;
        rest = match value.strip_prefix('"') {
            Some(quoted) => {
                let (value, after) = list::unquote(quoted)?;
                string(&value?, &mut out);
                after
            }
            None => {
                out.extend(b"null");
                value.strip_prefix("NULL")?
            }
        };
    }
    out.push(b'}');
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(kind: Kind, text: &str) -> String {
        let mut out = Vec::new();
        print(&kind, text, &mut out);
        String::from_utf8(out).unwrap()
    }

    /// Texts of Postgres, and what Debezium 3.7.0 sent for them.
    #[test]
    fn values_are_sent_as_the_connector_sends_them() {
        let cases = [
            (Kind::Bool, "t", "true"),
            (Kind::Integer, "-9223372036854775808", "-9223372036854775808"),
            (Kind::Float, "9.007199254740992e+15", "9007199254740992.0"),
            (Kind::Float, "5e-324", "5e-324"),
            (Kind::Float, "-Infinity", r#""-Infinity""#),
            (Kind::Decimal(0), "1.10", r#""1.10""#),
            (Kind::Decimal(4), "12.34", r#""12.3400""#),
            (Kind::Decimal(0), "NaN", r#""NAN""#),
            (Kind::Money, "-$92,233,720,368,547,758.08", r#""-92233720368547758.08""#),
            (Kind::Bytes, r"\x010203", r#""AQID""#),
            (Kind::Bytes, r"\x", r#""""#),
            (Kind::Bit, "1", "true"),
            (Kind::Bits, "101010101010", r#""qgo=""#),
            (Kind::Bits, "000000000000", r#""""#),
            (Kind::Text, "tab\t \"q\"", r#""tab\t \"q\"""#),
            (Kind::AlwaysNull, "n", "null"),
            (
                Kind::Hstore,
                r#""k1"=>"v1", "k2"=>NULL, "k 3"=>"v\"3""#,
                r#""{\"k1\":\"v1\",\"k2\":null,\"k 3\":\"v\\\"3\"}""#,
            ),
            (Kind::Hstore, "", r#""{}""#),
        ];
        for (kind, text, expected) in cases {
            assert_eq!(printed(kind, text), expected);
        }
    }

    #[test]
    fn elements_are_printed_by_their_kind() {
        let list = |kind| Kind::List(Box::new(kind));
        assert_eq!(printed(list(Kind::Integer), "{1,NULL}"), "[1,null]");
        assert_eq!(printed(list(Kind::Bytes), r#"{"\\x0102",NULL}"#), r#"["AQI=",null]"#);
        assert_eq!(printed(list(Kind::Time), "{01:02:03.456789}"), r#"["01:02:03.456Z"]"#);
        assert_eq!(printed(list(Kind::Date), "{infinity}"), r#"["+292278994-08-16Z"]"#);
        assert_eq!(printed(list(Kind::Integer), "{{1},{2}}"), NESTED);
        assert_eq!(printed(list(Kind::Text), "{}"), "[]");
    }

    #[test]
    fn what_a_type_does_not_print_stays_as_it_is() {
        for kind in [
            Kind::Bool,
            Kind::Integer,
            Kind::Float,
            Kind::Bit,
            Kind::Bits,
            Kind::Bytes,
            Kind::Date,
            Kind::Interval,
            Kind::Money,
            Kind::Hstore,
            Kind::List(Box::new(Kind::Integer)),
        ] {
            assert_eq!(printed(kind, "né"), r#""né""#);
        }
        for number in ["007", "-01", "+1", "--1", "9223372036854775808"] {
            assert_eq!(printed(Kind::Integer, number), format!("\"{number}\""));
        }
    }
}
