//! Which kind of record this is, and how a change becomes an event.
//!
//! A record is known by the name of its schema where it has one, else by its shape. What is none of the known kinds is
//! an error with the remedy, never a guess: taking an unknown record for a delete would act on it.

use std::sync::Arc;

use crate::decode::envelope::{Envelope, Image, Shape, Toasts};
use crate::decode::memo::Topic;
use crate::decode::moved;
use crate::decode::options::Options;
use crate::decode::placeholder::Placeholder;
use crate::decode::tables::Tables;
use crate::decode::types::Budget;
use crate::event::change::{Before, Change, ChangeEvent};
use crate::event::delivery::{Content, RawRecord, SkipReason};
use crate::event::key::Key;
use crate::event::row::Row;

/// Commit times in milliseconds, from 1970 to 9999: the ledger has a day for each, and no day for anything else.
const COMMIT_TIMES: std::ops::RangeInclusive<i64> = 0..=253_402_300_799_999;

/// What a record is, by its name or shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A change of a row or table, or a logical message.
    Change,
    /// Nothing to react to.
    Skip(SkipReason),
    /// A row without its envelope.
    Flattened,
    /// A change in the envelope of CloudEvents.
    CloudEvents,
    /// Something with `ts_ms` alone: a heartbeat if its key is one.
    Beat,
}

impl Kind {
    /// The kind of a record whose schema has this name; `None` when the name says nothing. Adjustment of names may
    /// have touched the namespace, so only the end counts.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        let (space, last) = name.rsplit_once('.').unwrap_or(("", name));
        let of_debezium = space.ends_with("connector.common");
        match last {
            "Envelope" => Some(Self::Change),
            "MessageValue" if space.ends_with("postgresql") => Some(Self::Change),
            "Heartbeat" if of_debezium => Some(Self::Skip(SkipReason::Heartbeat)),
            "TransactionMetadataValue" if of_debezium => Some(Self::Skip(SkipReason::Transaction)),
            "Notification" if of_debezium => Some(Self::Skip(SkipReason::Notification)),
            "Value" => Some(Self::Flattened),
            _ => None,
        }
    }

    /// The kind of a JSON object without schema. What is skipped must have no member that Debezium does not put there: a
    /// flattened row of a user's table may look much like a marker or a notification, and would be lost.
    pub(crate) fn of_shape(shape: &Shape<'_>) -> Option<Self> {
        if shape.has_specversion && shape.op.is_none() {
            Some(Self::CloudEvents)
        } else if shape.op.is_some() && shape.source.is_some() {
            Some(Self::Change)
        } else if is_marker(shape) {
            Some(Self::Skip(SkipReason::Transaction))
        } else if is_notification(shape) {
            Some(Self::Skip(SkipReason::Notification))
        } else if shape.members == 1 && shape.has_ts_ms {
            Some(Self::Beat)
        } else {
            None
        }
    }
}

/// `{"status", "id", "event_count", "data_collections", "ts_ms"}`; the id is that of a transaction, with the LSN behind it
/// in newer versions.
fn is_marker(shape: &Shape<'_>) -> bool {
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    let is_id = |id: &str| {
        let inner = id.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        inner.is_some_and(|id| id.splitn(2, ':').all(is_number))
    };
    let others = [shape.has_event_count, shape.has_data_collections, shape.has_ts_ms];
    matches!(shape.status, Some("\"BEGIN\"" | "\"END\""))
        && shape.id.is_some_and(is_id)
        && shape.members == 2 + count(&others)
}

/// `{"id", "type", "aggregate_type", "additional_data", "timestamp"}`.
fn is_notification(shape: &Shape<'_>) -> bool {
    let others = [shape.has_additional_data, shape.has_timestamp];
    shape.id.is_some() && shape.has_type && shape.has_aggregate_type && shape.members == 3 + count(&others)
}

fn count(members: &[bool]) -> usize {
    members.iter().filter(|is_there| **is_there).count()
}

/// Why a flattened row is refused.
pub(crate) const FLATTENED: &str = "the value is a row without its envelope, which has no identity: remove \
     ExtractNewRecordState from the connector's transforms";
/// Why a CloudEvent is refused.
pub(crate) const CLOUD_EVENTS: &str = "the value is a CloudEvent, whose id is not unique for a row: configure the JSON \
     or Avro converter";
/// Why anything else is refused.
pub(crate) const UNKNOWN: &str = "the value is none of the records of a Debezium connector for PostgreSQL";

/// Everything that turning an envelope into an event needs beside the envelope.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Surroundings<'a> {
    pub(crate) options: &'a Options,
    pub(crate) placeholder: &'a Placeholder,
    pub(crate) topic: &'a Topic,
    pub(crate) raw: &'a RawRecord,
    pub(crate) wanted: &'a Tables,
}

/// Turns an envelope into an event, or into the reason why it wakes nobody. The key is read only when it is needed.
pub(crate) fn content<E: From<String>>(
    envelope: Envelope<'_>,
    surroundings: Surroundings<'_>,
    read_key: impl FnOnce() -> Result<Option<Row>, E>,
) -> Result<Content, E> {
    let source = &envelope.source;
    if !source.connector.is_empty() && source.connector != "postgresql" {
        return Err(format!("source.connector is {}, not postgresql", source.connector).into());
    }
    if surroundings
        .options
        .signal_tables
        .contains(&source.schema, &source.table)
    {
        return Ok(Content::Skip(SkipReason::Signal));
    }
    if envelope.op == "r" && !surroundings.options.reads {
        return Ok(Content::Skip(SkipReason::Read));
    }
    if envelope.op != "m" && source.table.is_empty() {
        return Err("source.table is empty".to_owned().into());
    }
    if source.ts_ms.is_some_and(|ms| !COMMIT_TIMES.contains(&ms)) {
        return Err(
            "source.ts_ms is no time in milliseconds between the years 1970 and 9999"
                .to_owned()
                .into(),
        );
    }
    if !surroundings.wanted.contains(&source.schema, &source.table) {
        return Ok(Content::Skip(SkipReason::Unrouted));
    }
    let origin = surroundings.topic.origin(source);
    let change = change(envelope, surroundings)?;
    let key = match change {
        Change::Truncate | Change::Message { .. } => None,
        _ => read_key()?.and_then(Key::of),
    };
    Ok(Content::Change(Arc::new(ChangeEvent::new(origin, key, change))))
}

fn change(envelope: Envelope<'_>, surroundings: Surroundings<'_>) -> Result<Change, String> {
    let source = &envelope.source;
    let in_table = |problem: String| format!("table {}.{}: {problem}", source.schema, source.table);
    let is_full = surroundings
        .options
        .full_identity
        .contains(&source.schema, &source.table);
    let moved_from = match &*envelope.op {
        "c" => moved::from(surroundings),
        _ => None,
    };
    // The connector puts its placeholder into the new row of an update, and of the insert that a changed key becomes. Where
    // it knows the old row it takes the value from there, and then a text like the placeholder is a user's own. An update
    // without an old row is from a time when the table had another identity.
    let may_be_unavailable = match &*envelope.op {
        "u" => !(is_full && envelope.before.is_some()),
        "c" => moved_from.is_some(),
        _ => false,
    };
    let mut budget = Budget::of(surroundings.raw.weight());
    let mut row = |image: Image<'_>, may_be_unavailable: bool| {
        let row = row(image, surroundings, may_be_unavailable, &mut budget);
        row.map_err(in_table)
    };
    if is_contradiction(&envelope) {
        return Err(in_table(format!(
            "op {} came with a row that it cannot have",
            envelope.op
        )));
    }
    let before = match envelope.before.map(|image| row(image, false)).transpose()? {
        None => Before::Unknown,
        Some(row) if is_full => Before::Whole(row),
        Some(row) => Before::AsSent(row),
    };
    let after = envelope.after.map(|image| row(image, may_be_unavailable)).transpose()?;
    let required = |row: Option<Row>| row.ok_or_else(|| in_table(format!("op {} came without after", envelope.op)));
    match &*envelope.op {
        "c" => Ok(Change::Insert {
            after: required(after)?,
            moved_from,
        }),
        "u" => Ok(Change::Update {
            before,
            after: required(after)?,
        }),
        "d" => Ok(Change::Delete {
            before,
            moved_to: moved::to(surroundings),
        }),
        "r" => Ok(Change::Read {
            after: required(after)?,
        }),
        "t" => Ok(Change::Truncate),
        "m" => {
            let message = envelope.message.ok_or("op m came without message")?;
            Ok(Change::Message {
                prefix: message.prefix,
                content: message.content,
            })
        }
        _ => Err("op is none of c, u, d, r, t, m".to_owned()),
    }
}

/// Reads a row, and marks what was not sent where that can be.
fn row(
    image: Image<'_>,
    surroundings: Surroundings<'_>,
    may_be_unavailable: bool,
    budget: &mut Budget,
) -> Result<Row, String> {
    let values = &surroundings.topic.values;
    let modes = surroundings.options.modes();
    let toasts = image.toasts();
    let mut row = match toasts {
        Toasts::Unknown => {
            let known = values.names();
            let row = image.read(&known, modes, budget)?;
            values.remember_names(&known, &row);
            row
        }
        // Its columns came with it.
        Toasts::Json(_) | Toasts::Avro(_) => image.read(&Arc::default(), modes, budget)?,
    };
    values.remember_text(&row);
    if may_be_unavailable {
        let toast = |place: usize, name: &str| toasts.of(name, place);
        surroundings.placeholder.mark(&mut row, toast);
    }
    Ok(row)
}

/// Whether an operation came with a row that it cannot have.
fn is_contradiction(envelope: &Envelope<'_>) -> bool {
    match &*envelope.op {
        "c" | "r" => envelope.before.is_some(),
        "d" => envelope.after.is_some(),
        "t" | "m" => envelope.before.is_some() || envelope.after.is_some(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_known_by_the_end_of_their_name() {
        for (name, expected) in [
            ("waitlist.public.users.Envelope", Some(Kind::Change)),
            ("io.debezium.connector.postgresql.MessageValue", Some(Kind::Change)),
            (
                "io.debezium.connector.common.Heartbeat",
                Some(Kind::Skip(SkipReason::Heartbeat)),
            ),
            // A table may be called so.
            ("waitlist.public.CloudEvents.Envelope", Some(Kind::Change)),
            ("com.shop.Notification", None),
            ("com.shop.Heartbeat", None),
            ("waitlist.public.users.Value", Some(Kind::Flattened)),
            ("com.example.Order", None),
        ] {
            assert_eq!(Kind::of_name(name), expected, "{name}");
        }
    }

    #[test]
    fn kinds_are_known_by_shape() {
        for (text, expected) in [
            (r#"{"op":"c","source":{}}"#, Some(Kind::Change)),
            (
                r#"{"status":"BEGIN","id":"1:2","ts_ms":1}"#,
                Some(Kind::Skip(SkipReason::Transaction)),
            ),
            (
                r#"{"status":"END","id":"1","event_count":2,"data_collections":[],"ts_ms":1}"#,
                Some(Kind::Skip(SkipReason::Transaction)),
            ),
            (r#"{"status":"waiting","id":1}"#, None),
            (r#"{"status":"BEGIN","id":5,"name":"x"}"#, None),
            (r#"{"status":"BEGIN","id":"1:2","name":"x"}"#, None),
            (r#"{"status":"BEGIN","id":"five"}"#, None),
            (
                r#"{"id":"x","type":"t","aggregate_type":"a","additional_data":{},"timestamp":1}"#,
                Some(Kind::Skip(SkipReason::Notification)),
            ),
            (r#"{"id":"x","aggregate_type":"order","type":"t","payload":"{}"}"#, None),
            (r#"{"id":1,"aggregate_type":"order","payload":"{}"}"#, None),
            (r#"{"ts_ms":1}"#, Some(Kind::Beat)),
            (r#"{"ts_ms":1,"id":2}"#, None),
            (r#"{"specversion":"1.0","source":"x"}"#, Some(Kind::CloudEvents)),
            (r#"{"id":1,"op":"c"}"#, None),
        ] {
            assert_eq!(
                Kind::of_shape(&Shape::of(text, None, None).unwrap()),
                expected,
                "{text}"
            );
        }
    }
}
