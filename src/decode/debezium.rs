//! Which kind of record this is, and how a change becomes an event.
//!
//! A record is known by the name of its schema where it has one, else by its shape. What is none of the known kinds is
//! an error with the remedy, never a guess: taking an unknown record for a delete would act on it.

use std::sync::Arc;

use crate::decode::envelope::{Envelope, Image, Shape};
use crate::decode::identity;
use crate::decode::memo::Topic;
use crate::decode::options::Options;
use crate::decode::placeholder::Placeholder;
use crate::event::change::{Change, ChangeEvent};
use crate::event::delivery::{Content, RawRecord, SkipReason};
use crate::event::row::Row;

/// Header on the insert half of a changed primary key.
const OLD_KEY_HEADER: &str = "__debezium.oldkey";

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
        let last = name.rsplit('.').next().unwrap_or(name);
        match last {
            _ if name.ends_with("CloudEvents.Envelope") => Some(Self::CloudEvents),
            "Envelope" | "MessageValue" => Some(Self::Change),
            "Heartbeat" => Some(Self::Skip(SkipReason::Heartbeat)),
            "TransactionMetadataValue" => Some(Self::Skip(SkipReason::Transaction)),
            "Notification" => Some(Self::Skip(SkipReason::Notification)),
            "Value" => Some(Self::Flattened),
            _ => None,
        }
    }

    /// The kind of a JSON object without schema.
    pub(crate) fn of_shape(shape: &Shape<'_>) -> Option<Self> {
        let is_marker = matches!(shape.status, Some("\"BEGIN\"" | "\"END\""));
        if shape.has_specversion {
            Some(Self::CloudEvents)
        } else if shape.op.is_some() && shape.source.is_some() {
            Some(Self::Change)
        } else if shape.op.is_none() && is_marker && shape.has_id {
            Some(Self::Skip(SkipReason::Transaction))
        } else if shape.has_aggregate_type && shape.has_id {
            Some(Self::Skip(SkipReason::Notification))
        } else if shape.members == 1 && shape.has_ts_ms {
            Some(Self::Beat)
        } else {
            None
        }
    }
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
    if surroundings.options.is_signal_table(&source.schema, &source.table) {
        return Ok(Content::Skip(SkipReason::Signal));
    }
    if envelope.op == "r" && !surroundings.options.reads {
        return Ok(Content::Skip(SkipReason::Read));
    }
    if envelope.op != "m" && source.table.is_empty() {
        return Err("source.table is empty".to_owned().into());
    }
    let origin = surroundings.topic.origin(source);
    let change = change(envelope, surroundings)?;
    let key = match change {
        Change::Truncate | Change::Message { .. } => None,
        _ => read_key()?,
    };
    let id = identity::event_id(&origin, key.as_ref(), &change);
    let event = ChangeEvent {
        id,
        origin,
        key,
        change,
    };
    Ok(Content::Change(Arc::new(event)))
}

fn change(envelope: Envelope<'_>, surroundings: Surroundings<'_>) -> Result<Change, String> {
    // The connector puts its placeholder into the new row of an update, and of the insert that a changed key becomes.
    let may_be_unavailable = match &*envelope.op {
        "u" => true,
        "c" => surroundings.raw.headers.iter().any(|(name, _)| name == OLD_KEY_HEADER),
        _ => false,
    };
    let placeholder = may_be_unavailable.then_some(surroundings.placeholder);
    let source = &envelope.source;
    let in_table = |problem: String| format!("table {}.{}: {problem}", source.schema, source.table);
    let row = |image: Image<'_>, placeholder: Option<&Placeholder>| {
        let known = surroundings.topic.values.names();
        let untyped = matches!(image, Image::Json { columns: None, .. });
        let row = image.read(&known, placeholder);
        let row = row.map_err(in_table)?;
        if untyped {
            surroundings.topic.values.remember_names(&known, &row);
        }
        Ok::<Row, String>(row)
    };
    let before = envelope.before.map(|image| row(image, None)).transpose()?;
    let after = envelope.after.map(|image| row(image, placeholder)).transpose()?;
    let required = |row: Option<Row>| row.ok_or_else(|| in_table(format!("op {} came without after", envelope.op)));
    match &*envelope.op {
        "c" => Ok(Change::Insert {
            after: required(after)?,
        }),
        "u" => Ok(Change::Update {
            before,
            after: required(after)?,
        }),
        "d" => Ok(Change::Delete { before }),
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
            ("a.CloudEvents.Envelope", Some(Kind::CloudEvents)),
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
            (r#"{"status":"waiting","id":1}"#, None),
            (
                r#"{"id":"x","type":"t","aggregate_type":"a"}"#,
                Some(Kind::Skip(SkipReason::Notification)),
            ),
            (r#"{"ts_ms":1}"#, Some(Kind::Beat)),
            (r#"{"ts_ms":1,"id":2}"#, None),
            (
                r#"{"specversion":"1.0","op":"c","source":"x"}"#,
                Some(Kind::CloudEvents),
            ),
            (r#"{"id":1,"op":"c"}"#, None),
        ] {
            assert_eq!(Kind::of_shape(&Shape::of(text).unwrap()), expected, "{text}");
        }
    }
}
