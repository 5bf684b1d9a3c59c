//! The same history in two captures: every difference between their events is one of the exceptions below, or a defect.

use std::collections::{BTreeMap, BTreeSet};

use afterwrite::decode::canonical::Canonical;
use afterwrite::event::change::ChangeEvent;
use afterwrite::event::delivery::Content;
use serde_json::{Map, Value as Json};

use super::exceptions::{EXCEPTIONS, Exception};
use super::{Capture, Captured, options};

/// The cell by which an exception names the id of an event.
const ID: &str = "(id)";

/// The changes and the rows that were read, in the form in which they print, each where it belongs. Those of signal tables
/// and heartbeats are one connector's own.
pub(crate) fn events(capture: &Capture) -> Vec<Json> {
    let decoded = capture.decoded(options()).into_iter();
    let changes = decoded.filter_map(|(record, content)| match content {
        Content::Change(event) => Some(event),
        Content::Skip(_) => None,
        Content::Undecodable(reason) => panic!("{} cannot be decoded: {reason}", place(record)),
    });
    let mut events: Vec<Json> = changes
        .filter(|event| &*event.origin().schema != "dbz")
        .map(|event| printed(&event))
        .collect();
    events.sort_by_cached_key(|event| {
        let is_read = event["op"] == "read";
        let lsn = if is_read { None } else { event["lsn"].as_i64() };
        let [op, key] = ["op", "key"].map(|part| event[part].to_string());
        (
            event["table"].to_string(),
            lsn,
            op,
            key.len(),
            key,
            event["lsn"].is_null(),
        )
    });
    events
}

fn place(record: &Captured) -> String {
    format!("{}[{}]@{}", record.topic, record.partition, record.offset)
}

/// The event without what a snapshot has for itself.
fn printed(event: &ChangeEvent) -> Json {
    let mut printed = serde_json::to_value(Canonical(event)).unwrap();
    if printed["op"] == "read" {
        printed["tx"] = Json::Null;
        printed["commit_ts_ms"] = Json::Null;
        printed["lsn"] = Json::from(event.origin().lsn.map(|_| 0));
    }
    printed
}

/// Which exceptions the events of a capture needed to be the same as those of the reference: (exception, cell).
///
/// # Panics
/// When they differ in what no exception explains.
pub(crate) fn compare(capture: &str, reference: &[Json], other: &[Json]) -> BTreeSet<(&'static str, String)> {
    let (mut expected, mut found) = (by_table(reference), by_table(other));
    // Some connectors were told to capture a part of the tables.
    expected.retain(|table, _| found.contains_key(table));
    found.retain(|table, _| expected.contains_key(table));
    let mut comparison = Comparison {
        capture,
        used: BTreeSet::new(),
    };
    for (table, events) in expected {
        let others = &found[table];
        assert_eq!(events.len(), others.len(), "{capture}: events of {table}");
        for (event, other) in events.iter().zip(others) {
            comparison.event(table, event, other);
        }
    }
    comparison.used
}

fn by_table(events: &[Json]) -> BTreeMap<&str, Vec<&Json>> {
    let mut tables: BTreeMap<&str, Vec<&Json>> = BTreeMap::new();
    for event in events {
        tables.entry(event["table"].as_str().unwrap()).or_default().push(event);
    }
    tables
}

struct Comparison<'a> {
    capture: &'a str,
    used: BTreeSet<(&'static str, String)>,
}

impl Comparison<'_> {
    fn event(&mut self, table: &str, expected: &Json, found: &Json) {
        self.cell(&format!("{table}.{ID}"), Some(&expected["id"]), Some(&found["id"]));
        for image in ["key", "before", "before_as_sent", "after", "moved_from", "moved_to"] {
            match (expected[image].as_object(), found[image].as_object()) {
                (Some(one), Some(other)) => self.row(table, one, other),
                (one, other) => assert_eq!(one, other, "{}: {image} of {expected} and {found}", self.capture),
            }
        }
        for part in ["schema", "table", "op", "unavailable", "tx", "lsn", "commit_ts_ms"] {
            assert_eq!(
                expected[part], found[part],
                "{}: {part} of {expected} and {found}",
                self.capture
            );
        }
    }

    fn row(&mut self, table: &str, expected: &Map<String, Json>, found: &Map<String, Json>) {
        let mut rest: BTreeMap<&str, &Json> = found.iter().map(|(name, cell)| (name.as_str(), cell)).collect();
        for (name, cell) in expected {
            let place = format!("{table}.{name}");
            let mut other = rest.remove(name.as_str());
            if other.is_none() && self.explained(&place, Some(cell), None) {
                other = rest.remove(adjusted(name).as_str());
            }
            self.cell(&place, Some(cell), other);
        }
        for (name, cell) in rest {
            self.cell(&format!("{table}.{name}"), None, Some(cell));
        }
    }

    fn cell(&mut self, place: &str, expected: Option<&Json>, found: Option<&Json>) {
        if expected != found && !self.explained(place, expected, found) {
            panic!("{}: {place} is {found:?}, not {expected:?}", self.capture);
        }
    }

    fn explained(&mut self, place: &str, expected: Option<&Json>, found: Option<&Json>) -> bool {
        let explains = |exception: &&Exception| {
            exception.captures.contains(&self.capture)
                && exception.cells.contains(&place)
                && (exception.explains)(expected, found)
        };
        let Some(exception) = EXCEPTIONS.iter().find(explains) else {
            return false;
        };
        self.used.insert((exception.arrives, place.to_owned()));
        true
    }
}

/// A name as Avro takes it.
fn adjusted(name: &str) -> String {
    let is_allowed = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let letters = name
        .chars()
        .map(|character| if is_allowed(character) { character } else { '_' });
    let prefix = if name.starts_with(|first: char| first.is_ascii_digit()) {
        "_"
    } else {
        ""
    };
    format!("{prefix}{}", letters.collect::<String>())
}
