//! The `source` block of a change: which table it is of, and where in the log it stands.

use std::borrow::Cow;

use crate::decode::avro::Reader;
use crate::decode::json;
use crate::decode::scan::{Broken, Scanner};
use crate::decode::schema::Record;

/// The parts of the `source` block that an event keeps.
#[derive(Debug, Default)]
pub(crate) struct Source<'a> {
    pub(crate) connector: Cow<'a, str>,
    pub(crate) name: Cow<'a, str>,
    pub(crate) db: Cow<'a, str>,
    pub(crate) schema: Cow<'a, str>,
    pub(crate) table: Cow<'a, str>,
    pub(crate) tx: Option<i64>,
    pub(crate) lsn: Option<i64>,
    pub(crate) ts_ms: Option<i64>,
}

/// Passes a source block; `None` is null.
pub(crate) fn pass<'a>(scanner: &mut Scanner<'a>) -> Result<Option<Result<Source<'a>, &'static str>>, Broken> {
    let is_null = scanner.peek() == Some(b'n');
    let start = *scanner;
    let source = Source::of_json(scanner);
    if source.is_none() {
        *scanner = start;
        scanner.skip()?;
    }
    let source = source.ok_or("source is not the source block of a Debezium connector");
    Ok((!is_null).then_some(source))
}

/// Where the last member begins that may be the source block, with its comma. Behind it there are few braces: those of the
/// transaction.
pub(crate) fn last(text: &str) -> Option<usize> {
    const MEMBER: &str = ",\"source\":";
    let mut before = text;
    for _ in 0..BRACES_MAX {
        before = &before[..before.rfind('{')?];
        if before.ends_with(MEMBER) {
            return Some(before.len() - MEMBER.len());
        }
    }
    None
}

/// How many braces are looked at for that of the source block.
const BRACES_MAX: usize = 8;

impl<'a> Source<'a> {
    /// Reads the block; `None` when it is no object, or a part of it is of another type. Then it is passed in part only.
    fn of_json(scanner: &mut Scanner<'a>) -> Option<Self> {
        scanner.open(b'{').ok()?;
        let mut source = Self::default();
        let mut is_first = true;
        let mut expected = SOURCE_MEMBERS.as_slice();
        loop {
            let name = match expected.split_first() {
                Some((next, rest)) if scanner.member_is(next, &mut is_first) => {
                    expected = rest;
                    *next
                }
                _ => match scanner.member(&mut is_first).ok()? {
                    Some(quoted) => {
                        let place = SOURCE_MEMBERS.iter().position(|member| *member == quoted.inner);
                        expected = place.map_or(expected, |place| &SOURCE_MEMBERS[place + 1..]);
                        quoted.inner
                    }
                    None => return Some(source),
                },
            };
            let slot = match name {
                "connector" => &mut source.connector,
                "name" => &mut source.name,
                "db" => &mut source.db,
                "schema" => &mut source.schema,
                "table" => &mut source.table,
                "txId" => {
                    source.tx = number(scanner)?;
                    continue;
                }
                "lsn" => {
                    source.lsn = number(scanner)?;
                    continue;
                }
                "ts_ms" => {
                    source.ts_ms = number(scanner)?;
                    continue;
                }
                _ => {
                    scanner.skip().ok()?;
                    continue;
                }
            };
            scanner.peek();
            *slot = json::plain(scanner.string().ok()?).ok()?;
        }
    }

    /// Reads the block; the reader stands before its first field.
    pub(crate) fn of_avro(reader: &mut Reader<'a>, record: &'a Record) -> Result<Self, &'static str> {
        let mut source = Self::default();
        for field in &record.fields {
            let text = match &*field.name {
                "connector" => &mut source.connector,
                "name" => &mut source.name,
                "db" => &mut source.db,
                "schema" => &mut source.schema,
                "table" => &mut source.table,
                other => {
                    match other {
                        "txId" => source.tx = reader.integer(&field.ty)?,
                        "lsn" => source.lsn = reader.integer(&field.ty)?,
                        "ts_ms" => source.ts_ms = reader.integer(&field.ty)?,
                        _ => reader.skip(&field.ty, 0)?,
                    }
                    continue;
                }
            };
            *text = reader.text(&field.ty)?.unwrap_or_default().into();
        }
        Ok(source)
    }
}

/// The members of a source block in the order in which the connector writes them: a name that is expected is compared, not
/// searched for its end.
const SOURCE_MEMBERS: [&str; 16] = [
    "version",
    "connector",
    "name",
    "ts_ms",
    "snapshot",
    "db",
    "sequence",
    "ts_us",
    "ts_ns",
    "schema",
    "table",
    "txId",
    "lsn",
    "xmin",
    "origin",
    "origin_lsn",
];

/// Passes an integer or null; `None` is anything else.
fn number(scanner: &mut Scanner<'_>) -> Option<Option<i64>> {
    if scanner.peek() == Some(b'n') {
        return scanner.literal("null").ok().map(|()| None);
    }
    match scanner.integer() {
        Some(value) => Some(Some(value)),
        None => scanner.number().ok()?.parse().ok().map(Some),
    }
}
