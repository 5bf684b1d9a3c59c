//! JSON of Kafka's converter, with and without schema.
//!
//! No tree of the document is built: one walk over the text gives each column its cell, by its own first byte, and by its
//! type where a schema gives one. Numbers are never forced through a double: what does not fit an integer, or has more
//! digits than a double keeps, stays the text it was sent as. Texts of errors name columns and never quote what they hold.

use std::borrow::Cow;
use std::sync::Arc;

use crate::decode::connect::{Field, Kind, Struct, Type};
use crate::decode::decimal;
use crate::decode::old_row::OldRow;
use crate::decode::placeholder;
use crate::decode::scan::{Broken, Quoted, Scanner, are_printed_alike};
use crate::decode::types::{self, Budget, Meaning, Sent};
use crate::event::modes::Modes;
use crate::event::row::{Row, RowBuilder, Value};

/// Arrays and objects inside a column nest at most this deep; Debezium's own nest three deep.
const DEPTH_MAX: u32 = 16;
/// Every double is printed with at most this many digits; a number with more is a decimal.
const DOUBLE_DIGITS_MAX: usize = 17;

/// What is known about the columns of an object before it is read.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Columns<'s> {
    /// Nothing but how they were called last time, so that names are shared between rows, and the connector's modes.
    Named(&'s Arc<[Arc<str>]>, Modes),
    /// Everything.
    Typed(&'s Struct),
}

/// Reads a row.
pub(crate) fn row(text: &str, columns: Columns<'_>, budget: &mut Budget) -> Result<Row, String> {
    let mut scanner = Scanner::new(text);
    let row = row_at(&mut scanner, columns, text.len() / 2, budget)?;
    scanner.end().map_err(broken)?;
    Ok(row)
}

/// Reads the row that begins where the scanner stands, and passes it. A row that cannot be read leaves the scanner
/// somewhere inside.
pub(crate) fn row_at(
    scanner: &mut Scanner<'_>,
    columns: Columns<'_>,
    text_bytes: usize,
    budget: &mut Budget,
) -> Result<Row, String> {
    Reader::pass(scanner, budget, |reader| reader.row(columns, text_bytes, None, None))
}

/// As [`row_at`]; says where each column ends too, as [`OldRow`] wants it.
pub(crate) fn old_row_at(
    scanner: &mut Scanner<'_>,
    columns: Columns<'_>,
    text_bytes: usize,
    budget: &mut Budget,
    ends: &mut Vec<usize>,
) -> Result<Row, String> {
    Reader::pass(scanner, budget, |reader| {
        reader.row(columns, text_bytes, None, Some(ends))
    })
}

/// As [`row_at`], of a row that is much like an old one.
pub(crate) fn new_row_at(
    scanner: &mut Scanner<'_>,
    columns: Columns<'_>,
    text_bytes: usize,
    budget: &mut Budget,
    old: OldRow<'_>,
) -> Result<Row, String> {
    Reader::pass(scanner, budget, |reader| {
        reader.row(columns, text_bytes, Some(old), None)
    })
}

/// The field of a column. A name that was known beforehand is mostly the field's own, which tells itself without a look at
/// the letters.
fn field<'s>(row: &'s Struct, column: &str, place: usize) -> Option<&'s Field> {
    match row.fields.get(place) {
        Some(field) if std::ptr::eq(&*field.name, column) => Some(field),
        _ => row.field(column, place),
    }
}

fn broken(problem: Broken) -> String {
    format!("a row is {problem}")
}

/// Why a value could not be read.
#[derive(Debug, PartialEq, Eq)]
enum Problem {
    /// The text is not JSON.
    Broken(Broken),
    /// It is, and is not what the column may hold.
    Wrong(&'static str),
}

impl From<Broken> for Problem {
    fn from(problem: Broken) -> Self {
        Self::Broken(problem)
    }
}

impl From<&'static str> for Problem {
    fn from(problem: &'static str) -> Self {
        Self::Wrong(problem)
    }
}

/// Reads values where the scanner stands.
struct Reader<'a, 'b> {
    scanner: Scanner<'a>,
    budget: &'b mut Budget,
}

impl<'a> Reader<'a, '_> {
    /// Reads where a scanner stands, and moves it behind what was read.
    fn pass(
        scanner: &mut Scanner<'a>,
        budget: &mut Budget,
        read: impl FnOnce(&mut Reader<'a, '_>) -> Result<Row, String>,
    ) -> Result<Row, String> {
        if scanner.peek() != Some(b'{') {
            return Err("a row is not a JSON object".to_owned());
        }
        let mut reader = Reader {
            scanner: *scanner,
            budget,
        };
        let row = read(&mut reader);
        *scanner = reader.scanner;
        row
    }

    fn row(
        &mut self,
        columns: Columns<'_>,
        text_bytes: usize,
        old: Option<OldRow<'_>>,
        mut ends: Option<&mut Vec<usize>>,
    ) -> Result<Row, String> {
        let (known, modes, typed) = match columns {
            Columns::Named(names, modes) => (names, modes, None),
            Columns::Typed(row) => (&row.names, Modes::default(), Some(row)),
        };
        // Names of an earlier record were looked at when they were remembered; those of this record's old row may be new.
        let old = old.filter(|old| Arc::ptr_eq(old.row().names(), known) || are_printed_alike(old.row().names()));
        let known = old.map_or(known, |old| old.row().names());
        let mut row = RowBuilder::like(known, text_bytes).read_by(modes);
        self.scanner.open(b'{').map_err(broken)?;
        if let Some(ends) = &mut ends {
            ends.reserve(known.len() + 1);
        }
        let mut is_first = true;
        let mut place = 0;
        loop {
            if let Some(ends) = &mut ends {
                ends.push(self.scanner.place());
            }
            if let Some(old) = old.filter(|_| row.is_like()) {
                let (copied, bytes) = old.copy(place, self.scanner.rest(), &mut row);
                self.scanner.move_to(self.scanner.place() + bytes);
                place += copied;
                is_first &= copied == 0;
            }
            let Some(column) = self.column(&mut row, known.get(place), &mut is_first)? else {
                return Ok(row.finish());
            };
            let ty = match typed.map(|row| field(row, &column, place)) {
                Some(None) => return Err(format!("column {column} is not in the schema that came with it")),
                Some(Some(field)) => Some(&field.ty),
                None => None,
            };
            self.cell(&mut row, ty).map_err(|problem| match problem {
                Problem::Broken(problem) => broken(problem),
                Problem::Wrong(problem) => format!("column {column} {problem}"),
            })?;
            place += 1;
        }
    }

    /// Names the next column of the row; `None` at its end.
    fn column<'n>(
        &mut self,
        row: &mut RowBuilder,
        known: Option<&'n Arc<str>>,
        is_first: &mut bool,
    ) -> Result<Option<Cow<'n, str>>, String>
    where
        'a: 'n,
    {
        if let Some(name) = known
            && row.is_like()
            && self.scanner.member_is(name, is_first)
        {
            row.next_is_known();
            return Ok(Some(Cow::Borrowed(name)));
        }
        let Some(quoted) = self.scanner.member(is_first).map_err(broken)? else {
            return Ok(None);
        };
        let name = plain(quoted).map_err(|problem| format!("a column's name {problem}"))?;
        if !row.name(&name) {
            return Err(format!("column {name} is there twice"));
        }
        Ok(Some(name))
    }

    /// Gives the column that was named last its cell. Plain texts go straight into the row; they are most of all cells.
    fn cell(&mut self, row: &mut RowBuilder, ty: Option<&Type>) -> Result<(), Problem> {
        let is_plain = ty.is_none_or(|ty| matches!(ty.kind, Kind::Text));
        if !is_plain || self.scanner.peek() != Some(b'"') {
            let sent = self.value(ty, 0)?;
            placeholder::push(row, sent);
            return Ok(());
        }
        match row.push_text_by(|texts| self.scanner.append_string(texts))? {
            true => Ok(()),
            false => Err(NOT_UNICODE.into()),
        }
    }

    /// Reads one value.
    fn value(&mut self, ty: Option<&Type>, depth: u32) -> Result<Sent<'a>, Problem> {
        if depth > DEPTH_MAX {
            return Err("is nested too deeply".into());
        }
        match self.scanner.peek() {
            Some(b'n') => self.scanner.literal("null").map(|()| Sent::Null).map_err(Problem::from),
            Some(b't') => self.boolean("true", true, ty),
            Some(b'f') => self.boolean("false", false, ty),
            Some(b'"') => {
                let quoted = self.scanner.string()?;
                Ok(string(quoted, ty, self.budget)?)
            }
            Some(b'[') => self.list(ty, depth),
            Some(b'{') => self.object(ty, depth),
            _ => {
                if ty.is_none_or(|ty| matches!(ty.kind, Kind::Int))
                    && let Some(value) = self.scanner.integer()
                {
                    return Ok(types::integer(ty.map_or(Meaning::Plain, |ty| ty.meaning), value));
                }
                let text = self.scanner.number()?;
                Ok(number(text, ty, self.budget)?)
            }
        }
    }

    fn boolean(&mut self, literal: &'static str, value: bool, ty: Option<&Type>) -> Result<Sent<'a>, Problem> {
        self.scanner.literal(literal)?;
        match ty.map(|ty| &ty.kind) {
            None | Some(Kind::Bool) => Ok(Sent::Bool(value)),
            Some(_) => Err("holds a boolean where its schema has another type".into()),
        }
    }

    fn list(&mut self, ty: Option<&Type>, depth: u32) -> Result<Sent<'a>, Problem> {
        let mut values = Vec::new();
        self.scanner.open(b'[')?;
        let mut is_first = true;
        while self.scanner.element(&mut is_first)? {
            values.push(match ty.map(|ty| &ty.kind) {
                None => self.value(None, depth + 1)?.into_value(),
                Some(Kind::List(items)) => self.value(Some(items), depth + 1)?.into_value(),
                Some(Kind::Map { key, value }) => Some(self.entry(key, value, depth + 1)?),
                Some(_) => return Err("holds an array where its schema has another type".into()),
            });
        }
        match ty.map(|ty| &ty.kind) {
            None | Some(Kind::List(_) | Kind::Map { .. }) => Ok(Sent::Nested(Value::List(values))),
            Some(_) => Err("holds an array where its schema has another type".into()),
        }
    }

    /// One entry of a map whose keys are not text: an array of two.
    fn entry(&mut self, key: &Type, item: &Type, depth: u32) -> Result<Value, Problem> {
        const NO_PAIR: &str = "holds a map entry that is not a pair";
        if self.scanner.peek() != Some(b'[') {
            return Err(NO_PAIR.into());
        }
        self.scanner.open(b'[')?;
        let mut is_first = true;
        let mut pair = Vec::with_capacity(2);
        for ty in [key, item] {
            if !self.scanner.element(&mut is_first)? {
                return Err(NO_PAIR.into());
            }
            pair.push(self.value(Some(ty), depth + 1)?.into_value());
        }
        if self.scanner.element(&mut is_first)? {
            return Err(NO_PAIR.into());
        }
        Ok(Value::List(pair))
    }

    fn object(&mut self, ty: Option<&Type>, depth: u32) -> Result<Sent<'a>, Problem> {
        let meaning = ty.map_or(Meaning::Plain, |ty| ty.meaning);
        let mut members: Vec<(Arc<str>, Option<Value>)> = Vec::new();
        self.scanner.open(b'{')?;
        let mut is_first = true;
        while let Some(quoted) = self.scanner.member(&mut is_first)? {
            let name = plain(quoted)?;
            let (shared, inner) = match ty.map(|ty| &ty.kind) {
                None => (Arc::from(&*name), None),
                Some(Kind::Map { value, .. }) => (Arc::from(&*name), Some(&**value)),
                Some(Kind::Struct(known)) => match known.field(&name, members.len()) {
                    Some(field) => (Arc::clone(&field.name), Some(&field.ty)),
                    None => return Err("holds a member that is not in its schema".into()),
                },
                Some(_) => return Err("holds an object where its schema has another type".into()),
            };
            members.push((shared, self.value(inner, depth + 1)?.into_value()));
        }
        match ty.map(|ty| &ty.kind) {
            Some(Kind::Map { .. }) => Ok(types::map(members)),
            None | Some(Kind::Struct(_)) => Ok(types::structure(meaning, members, self.budget)?),
            Some(_) => Err("holds an object where its schema has another type".into()),
        }
    }
}

fn string<'a>(quoted: Quoted<'a>, ty: Option<&Type>, budget: &mut Budget) -> Result<Sent<'a>, &'static str> {
    let content = plain(quoted)?;
    let Some(ty) = ty else {
        return Ok(Sent::Text(content));
    };
    match (&ty.kind, ty.meaning) {
        (Kind::Bytes, Meaning::Decimal { scale }) => {
            decimal::print(&types::from_base64(&content)?, scale, budget).map(types::text)
        }
        (Kind::Text | Kind::Bytes, _) => Ok(Sent::Text(content)),
        (Kind::Single | Kind::Double, _) if ["NaN", "Infinity", "-Infinity"].contains(&&*content) => {
            Ok(Sent::Text(content))
        }
        _ => Err("holds text where its schema has another type"),
    }
}

/// The text that a string stands for.
pub(crate) fn plain(quoted: Quoted<'_>) -> Result<Cow<'_, str>, &'static str> {
    if !quoted.is_escaped {
        return Ok(Cow::Borrowed(quoted.inner));
    }
    let mut text = String::with_capacity(quoted.inner.len());
    match quoted.append_to(&mut text) {
        true => Ok(Cow::Owned(text)),
        false => Err(NOT_UNICODE),
    }
}

const NOT_UNICODE: &str = "holds text that is not Unicode";

fn number<'a>(text: &'a str, ty: Option<&Type>, budget: &mut Budget) -> Result<Sent<'a>, &'static str> {
    let Some(ty) = ty else {
        return untyped_number(text);
    };
    match (&ty.kind, ty.meaning) {
        (Kind::Int, meaning) => text
            .parse()
            .map(|value| types::integer(meaning, value))
            .map_err(|_| "holds a number that is no 64-bit integer"),
        (Kind::Single, _) => text
            .parse()
            .map(types::single)
            .map_err(|_| "holds a number that is no single"),
        (Kind::Double, _) => text
            .parse()
            .map(types::float)
            .map_err(|_| "holds a number that is no double"),
        // decimal.format=NUMERIC writes decimals as literals. Their digits are kept.
        (Kind::Bytes, Meaning::Decimal { .. }) => decimal::print_literal(text, budget).map(types::text),
        _ => Err("holds a number where its schema has another type"),
    }
}

fn untyped_number(text: &str) -> Result<Sent<'_>, &'static str> {
    if let Ok(integer) = text.parse() {
        return Ok(Sent::Int(integer));
    }
    let mantissa = text.split(['e', 'E']).next().unwrap_or_default();
    let digits = mantissa.bytes().filter(u8::is_ascii_digit);
    let significant = digits.skip_while(|digit| *digit == b'0').count();
    let is_integer = !text.contains(['.', 'e', 'E']);
    if is_integer || significant > DOUBLE_DIGITS_MAX {
        return Ok(types::text(text));
    }
    match text.parse::<f64>() {
        Ok(double) if double.is_finite() => Ok(Sent::Float(double)),
        Ok(_) => Ok(types::text(text)),
        Err(_) => Err("holds a broken number"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::connect;
    use crate::event::row::Cell;

    fn untyped(text: &str) -> Result<Sent<'_>, Problem> {
        let mut reader = Reader {
            scanner: Scanner::new(text),
            budget: &mut Budget::of(0),
        };
        let sent = reader.value(None, 0)?;
        reader.scanner.end()?;
        Ok(sent)
    }

    fn read(text: &str, columns: Columns<'_>) -> Result<Row, String> {
        row(text, columns, &mut Budget::of(text.len()))
    }

    #[test]
    fn numbers_without_schema_keep_every_digit() {
        for (text, expected) in [
            ("-0", Sent::Int(0)),
            ("999999999999999999", Sent::Int(999_999_999_999_999_999)),
            ("9007199254740993", Sent::Int(9_007_199_254_740_993)),
            ("-9223372036854775808", Sent::Int(i64::MIN)),
            ("12345678901234567890123", types::text("12345678901234567890123")),
            ("1.5", Sent::Float(1.5)),
            ("-0.0", Sent::Float(-0.0)),
            ("4.9E-324", Sent::Float(5e-324)),
            ("1.234567890123456789", types::text("1.234567890123456789")),
            ("1e999", types::text("1e999")),
        ] {
            assert_eq!(untyped(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn text_is_unescaped_and_lone_surrogates_are_refused() {
        assert_eq!(untyped(r#""a\n\ud83d\ude80""#), Ok(types::text("a\n🚀")));
        assert!(untyped(r#""\ud83d""#).is_err());
    }

    #[test]
    fn deep_nesting_is_refused_and_does_not_overflow_the_stack() {
        let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
        assert_eq!(untyped(&deep), Err(Problem::Wrong("is nested too deeply")));
        let deeper = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(untyped(&deeper).is_err());
    }

    #[test]
    fn a_row_keeps_null_and_absent_apart_and_names_the_column_in_errors() {
        let names = Arc::default();
        let untyped = Columns::Named(&names, Modes::default());
        let found = read(r#"{"id":1,"note":null}"#, untyped).unwrap();
        assert_eq!(found.get("note"), Some(Cell::Null));
        assert_eq!(found.get("other"), None);
        let problem = read(r#"{"id":1,"note":"\ud83d secret"}"#, untyped).unwrap_err();
        assert!(problem.contains("column note"), "{problem}");
        assert!(!problem.contains("secret"), "{problem}");
        let scalar = read("\"secret\"", untyped).unwrap_err();
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
        let found = read(
            r#"{"at":500000,"sum":"MDk=","sparse":[[1,1.5]]}"#,
            Columns::Typed(fields),
        )
        .unwrap();
        assert_eq!(found.text("at"), Some("1970-01-01T00:00:00.5Z"));
        assert_eq!(found.text("sum"), Some("123.45"));
        let pair = Value::List(vec![Some(Value::Int(1)), Some(Value::Float(1.5))]);
        assert_eq!(
            found.get("sparse"),
            Some(Cell::Value(Value::List(vec![Some(pair)]).borrowed()))
        );
        for (wrong, problem) in [
            (
                r#"{"at":"soon"}"#,
                "column at holds text where its schema has another type",
            ),
            (r#"{"other":1}"#, "column other is not in the schema that came with it"),
            (r#"{"at":1,"at":2}"#, "column at is there twice"),
        ] {
            assert_eq!(read(wrong, Columns::Typed(fields)).unwrap_err(), problem);
        }
    }
}
