//! Headers that tell the other key of a row whose primary key was changed.
//!
//! A worker of Kafka Connect writes headers with a converter of its own (`header.converter`): as text that is JSON in all
//! but its name by default, or as JSON with a schema around it. What is written otherwise still tells that the key changed.

use std::sync::Arc;

use crate::decode::connect::{self, Kind};
use crate::decode::debezium::Surroundings;
use crate::decode::json::{self, Columns};
use crate::decode::types::Budget;
use crate::decode::wrapper::Wrapper;
use crate::event::key::{Key, Moved};
use crate::event::modes::Modes;
use crate::event::row::Row;

/// On the insert half of a changed key.
const OLD_KEY: &str = "__debezium.oldkey";
/// On the delete half, and on the tombstone that follows it.
const NEW_KEY: &str = "__debezium.newkey";

/// The key from which the row of this record came; `None` when it came from none.
pub(crate) fn from(surroundings: Surroundings<'_>) -> Option<Moved> {
    header(surroundings, OLD_KEY)
}

/// The key to which the row of this record went; `None` when it went nowhere.
pub(crate) fn to(surroundings: Surroundings<'_>) -> Option<Moved> {
    header(surroundings, NEW_KEY)
}

fn header(surroundings: Surroundings<'_>, name: &str) -> Option<Moved> {
    let (_, value) = surroundings.raw.headers.iter().find(|(header, _)| header == name)?;
    let text = value.as_deref().and_then(|bytes| std::str::from_utf8(bytes).ok());
    Some(Moved {
        key: text.and_then(|text| key(text.trim(), surroundings.options.modes())),
    })
}

fn key(text: &str, modes: Modes) -> Option<Key> {
    let names = Arc::default();
    let mut budget = Budget::of(text.len());
    let row: Row = match Wrapper::of(text) {
        Some(Wrapper { schema, payload }) if schema != "null" => match connect::parse(schema).ok()?.kind {
            Kind::Struct(columns) => json::row(payload, Columns::Typed(&columns), &mut budget).ok()?,
            _ => return None,
        },
        Some(Wrapper { payload, .. }) => json::row(payload, Columns::Named(&names, modes), &mut budget).ok()?,
        None => json::row(text, Columns::Named(&names, modes), &mut budget).ok()?,
    };
    Key::of(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_text_and_behind_a_schema() {
        let typed = r#"{"schema":{"type":"struct","fields":[{"type":"int32","field":"id"}]},"payload":{"id":2}}"#;
        for text in [r#"{"id":2}"#, typed, r#"{"schema":null,"payload":{"id":2}}"#] {
            let key = key(text, Modes::default()).unwrap();
            assert_eq!(key.row().int("id"), Some(2), "{text}");
        }
        for text in ["Struct{id=2}", "{}", "2", "", "\u{0}\u{0}"] {
            assert_eq!(key(text, Modes::default()), None, "{text}");
        }
    }
}
