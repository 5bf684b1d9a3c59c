//! Letters as lines of JSON: everything Postgres and Kafka keep of one, so that it can be put back elsewhere or later.
//!
//! A line has the members of `dlq list`, what else the row holds, and the record as `afterwrite decode` reads it: topic,
//! partition and offset of the original record, key, value and headers as base64.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use chrono::{DateTime, NaiveDate, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::dead_letter::headers;
use crate::dead_letter::state::{CLASSES, LetterRow, OPEN, STATES, has_nul};
use crate::event::delivery::RawRecord;

/// Kafka's limit for names of topics, less the ending of a dead-letter topic.
const GROUP_CHARS_MAX: usize = 245;

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    #[serde(flatten)]
    letter: LetterRow,
    state_by: Option<String>,
    state_at: DateTime<Utc>,
    state_reason: Option<String>,
    commit_day: Option<NaiveDate>,
    event_key: Option<Value>,
    timestamp: Option<i64>,
    key: Option<String>,
    value: Option<String>,
    headers: Vec<(String, Option<String>)>,
}

/// One letter as a line, without its end.
///
/// # Errors
/// Never for a letter that was read; JSON has no other way to say so.
pub fn line(letter: &LetterRow, record: &RawRecord) -> Result<String, serde_json::Error> {
    let text = |bytes: &Bytes| STANDARD.encode(bytes);
    let headers = record
        .headers
        .iter()
        .map(|(name, value)| (name.clone(), value.as_ref().map(text)));
    serde_json::to_string(&Line {
        letter: letter.clone(),
        state_by: letter.state_by.clone(),
        state_at: letter.state_at,
        state_reason: letter.state_reason.clone(),
        commit_day: letter.commit_day,
        event_key: letter.event_key.clone(),
        timestamp: record.timestamp_ms,
        key: record.key.as_ref().map(text),
        value: record.value.as_ref().map(text),
        headers: headers.collect(),
    })
}

/// The letter of a line, with all headers of its record.
///
/// # Errors
/// What is wrong with the line, without what it holds of the event.
pub fn parse(line: &str) -> Result<(LetterRow, RawRecord), String> {
    let line: Line = serde_json::from_str(line).map_err(|error| {
        // The parser's own words quote what they found.
        format!(
            "it is not an exported letter ({:?} error at column {})",
            error.classify(),
            error.column()
        )
    })?;
    let bytes = |text: Option<&String>, what: &str| {
        let decoded = text.map(|text| STANDARD.decode(text)).transpose();
        decoded
            .map(|bytes| bytes.map(Bytes::from))
            .map_err(|_| format!("{what} is not base64"))
    };
    let headers = line
        .headers
        .iter()
        .map(|(name, value)| Ok((name.clone(), bytes(value.as_ref(), "a header")?)));
    let record = RawRecord {
        key: bytes(line.key.as_ref(), "key")?,
        value: bytes(line.value.as_ref(), "value")?,
        headers: headers.collect::<Result<_, String>>()?,
        timestamp_ms: line.timestamp,
    };
    let letter = LetterRow {
        state_by: line.state_by,
        state_at: line.state_at,
        state_reason: line.state_reason,
        commit_day: line.commit_day,
        event_key: line.event_key,
        ..line.letter
    };
    check(&letter, &record)?;
    Ok((letter, record))
}

/// What was read, said to be imported by somebody. A replay or a parked lane does not travel with a letter, so it is open.
pub fn imported(mut letter: LetterRow, by: &str) -> LetterRow {
    match letter.state.as_str() {
        "replayed" | "discarded" => {
            let before = letter.state_by.as_deref().unwrap_or("a worker");
            letter.state_by = Some(format!("{before}, imported by {by}"));
        }
        _ => {
            letter.state = OPEN.to_owned();
            letter.state_by = Some(by.to_owned());
            letter.state_reason = Some("imported".to_owned());
        }
    }
    letter
}

fn check(letter: &LetterRow, record: &RawRecord) -> Result<(), String> {
    let is_id = |text: &str| text.len() == 32 && hex::decode(text).is_ok();
    let is_name = |text: &str| {
        let legal = |character: char| character.is_ascii_alphanumeric() || ".-_".contains(character);
        (1..=GROUP_CHARS_MAX).contains(&text.len()) && text.chars().all(legal)
    };
    let texts = [
        Some(&letter.handler),
        Some(&letter.error),
        Some(&letter.source_topic),
        letter.table_name.as_ref(),
        letter.state_by.as_ref(),
        letter.state_reason.as_ref(),
    ];
    let names = record.headers.iter().map(|(name, _)| name);
    let has_nul = texts.into_iter().flatten().chain(names).any(|text| text.contains('\0'))
        || letter.event_key.as_ref().is_some_and(has_nul);
    for (holds, problem) in [
        (CLASSES.contains(&&*letter.class), "there is no such class"),
        (STATES.contains(&&*letter.state), "there is no such state"),
        (
            letter.attempts >= 0 && letter.replays >= 0,
            "attempts or replays are negative",
        ),
        (is_name(&letter.group_name), "group is no name of a group"),
        (!has_nul, "a text contains the character NUL"),
        (
            letter.event_id.as_deref().is_none_or(is_id),
            "event_id is not 32 hexadecimal digits",
        ),
        (
            letter.event_id.is_some() || letter.commit_day.is_none(),
            "commit_day is of an event, and event_id is missing",
        ),
        (
            is_identity(letter, record),
            "letter_id does not follow from group, handler, event and replays",
        ),
        (
            headers::text(&record.headers, "afterwrite.letter_id").is_none_or(|id| id == letter.letter_id),
            "the record's header afterwrite.letter_id is another letter's",
        ),
    ] {
        if !holds {
            return Err(problem.to_owned());
        }
    }
    Ok(())
}

/// Whether the letter's id follows from what it says, as [`crate::engine::letter::Letter::id`] makes it. The row does not
/// hold the id of an event whose day of commit is beyond the calendar; the record's header does.
fn is_identity(letter: &LetterRow, record: &RawRecord) -> bool {
    let place = format!(
        "{}/{}/{}",
        letter.source_topic, letter.source_partition, letter.source_offset
    );
    let event_id = letter
        .event_id
        .as_deref()
        .or_else(|| headers::text(&record.headers, "afterwrite.event_id"));
    let mut hash = Sha256::new();
    for part in [
        &*letter.group_name,
        &*letter.handler,
        event_id.unwrap_or(&place),
        &letter.replays.to_string(),
    ] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hex::encode(&hash.finalize()[..16]) == letter.letter_id
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::engine::letter::Letter;
    use crate::engine::retry::Class;
    use crate::event::change::{Change, ChangeEvent, Origin};
    use crate::event::delivery::{Position, SourcePartition};
    use crate::event::key::Key;
    use crate::event::row::{Row, Value as Cell};
    use crate::ledger::LedgerKey;

    fn letter(event: Option<ChangeEvent>) -> Letter {
        let at = "2026-11-25T10:00:00.123456Z".parse().unwrap();
        Letter {
            group: "waitlist.email".into(),
            handler: if event.is_some() { "email".into() } else { "*".into() },
            event: event.map(Arc::new),
            class: Class::Permanent,
            error: "the row says so".to_owned(),
            attempts: 1,
            first_failed_at: at,
            failed_at: at,
            replays: 2,
            partition: SourcePartition {
                topic: "waitlist.public.users".into(),
                partition: 3,
            },
            position: Position(41),
            raw: RawRecord {
                key: Some(Bytes::from_static(b"\xff\x00")),
                value: None,
                headers: vec![
                    ("a".to_owned(), None),
                    ("a".to_owned(), Some(Bytes::from_static(b"\xfe"))),
                ],
                timestamp_ms: Some(5),
            },
            parks: None,
            due_in: None,
        }
    }

    fn event() -> ChangeEvent {
        let row = || Row::of([("id", Some(Cell::Int(7)))]);
        let origin = Origin {
            tx: Some(1),
            lsn: Some(2),
            commit_ts_ms: Some(1_780_000_000_000),
            ..Origin::of_table("users")
        };
        ChangeEvent::new(
            origin,
            Key::of(row()),
            Change::Insert {
                moved_from: None,
                after: row(),
            },
        )
    }

    fn row_of(letter: &Letter) -> LetterRow {
        LetterRow::of(letter, &letter.error, letter.event.as_ref().and_then(LedgerKey::of))
    }

    #[test]
    fn a_line_gives_back_what_it_was_made_of() {
        for letter in [letter(None), letter(Some(event()))] {
            let row = row_of(&letter);
            assert_eq!(row.event_id.is_some(), letter.event.is_some());
            let text = line(&row, &letter.raw).unwrap();
            assert!(!text.contains('\n'), "{text}");
            assert_eq!(parse(&text), Ok((row, letter.raw.clone())), "{text}");
        }
    }

    #[test]
    fn a_line_that_was_changed_is_refused_without_quoting_it() {
        let letter = letter(Some(event()));
        let text = line(&row_of(&letter), &letter.raw).unwrap();
        let changed = |member: &str, value: Value| {
            let mut changed: Value = serde_json::from_str(&text).unwrap();
            changed[member] = value;
            parse(&changed.to_string()).unwrap_err()
        };
        for (member, value, problem) in [
            ("letter_id", "0".into(), "letter_id does not follow"),
            ("group", "other".into(), "letter_id does not follow"),
            ("handler", "other".into(), "letter_id does not follow"),
            ("replays", 3.into(), "letter_id does not follow"),
            ("event_id", "7".into(), "event_id is not"),
            ("event_id", Value::Null, "event_id is missing"),
            ("class", "secret".into(), "no such class"),
            ("state", "secret".into(), "no such state"),
            ("group", "a/b".into(), "no name of a group"),
            ("error", "secret\0".into(), "character NUL"),
            ("event_key", serde_json::json!({"id": ["secret\0"]}), "character NUL"),
            ("headers", serde_json::json!([["secret\0", null]]), "character NUL"),
            ("key", "*secret*".into(), "key is not base64"),
            ("offset", "secret".into(), "not an exported letter"),
        ] {
            let said = changed(member, value);
            assert!(said.contains(problem) && !said.contains("secret"), "{member}: {said}");
        }
    }

    #[test]
    fn what_does_not_travel_is_open_where_it_arrives() {
        for (state, expected) in [
            ("open", "open"),
            ("replaying", "open"),
            ("parked", "open"),
            ("replayed", "replayed"),
            ("discarded", "discarded"),
        ] {
            let row = LetterRow {
                state: state.to_owned(),
                ..row_of(&letter(None))
            };
            let arrived = imported(row, "ada");
            assert_eq!(arrived.state, expected);
            assert!(arrived.state_by.unwrap().ends_with("ada"), "{state}");
        }
    }
}
