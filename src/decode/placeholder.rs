//! Values that stand for "Postgres did not send this": the connector's placeholder for unchanged toasted columns, and
//! the garbage it prints for arrays of more than one dimension.
//!
//! A user's own text may equal the placeholder. It is taken for one only where the connector can have put it: in the
//! new row of an update, and of the insert half of a changed primary key. Garbage is garbage anywhere.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use md5::{Digest, Md5};

use crate::decode::types::{Meaning, Sent};
use crate::event::calendar;
use crate::event::row::{Row, RowBuilder, Unavailable, Value, ValueRef};

/// Which form of the placeholder a column of some type can carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Toast {
    /// The type is not known: any form.
    Any,
    /// The text itself.
    Text,
    /// The text itself, or a document with the text as its only member.
    Json,
    /// The bytes of the text.
    Bytes,
    /// One element, the text.
    Texts,
    /// One element, the bytes of the text.
    ByteStrings,
    /// One element per byte of the text, also where the integers are dates.
    Ints,
    /// One element, a uuid made of the text.
    Uuids,
    /// One entry, the text for key and value.
    Map,
    /// The connector has no placeholder for the type.
    Never,
}

impl Toast {
    pub(crate) fn of_text(meaning: Meaning) -> Self {
        match meaning {
            Meaning::Plain | Meaning::Document => Self::Text,
            Meaning::Json => Self::Json,
            _ => Self::Never,
        }
    }

    pub(crate) fn of_bytes(meaning: Meaning) -> Self {
        if meaning == Meaning::Plain {
            Self::Bytes
        } else {
            Self::Never
        }
    }

    pub(crate) fn of_texts(meaning: Meaning) -> Self {
        match meaning {
            Meaning::Plain | Meaning::Document | Meaning::Json => Self::Texts,
            Meaning::Uuid => Self::Uuids,
            _ => Self::Never,
        }
    }
}

/// The placeholder in every form it takes.
#[derive(Debug)]
pub(crate) struct Placeholder {
    text: Box<str>,
    base64: Box<str>,
    document: Box<str>,
    uuid: Box<str>,
}

impl Placeholder {
    /// The forms of `unavailable.value.placeholder`, which may be given as hexadecimal digits behind `hex:`.
    pub(crate) fn new(setting: &str) -> Self {
        let given = setting.strip_prefix("hex:").and_then(|digits| hex::decode(digits).ok());
        let text = given.and_then(|bytes| String::from_utf8(bytes).ok());
        let text = text.as_deref().unwrap_or(setting);
        let member = serde_json::Value::from(text);
        Self {
            text: text.into(),
            base64: BASE64.encode(text).into(),
            document: format!("{{{member}:{member}}}").into(),
            // What Java's `UUID.nameUUIDFromBytes` makes of it: arrays of uuid carry that.
            uuid: uuid::Builder::from_md5_bytes(Md5::digest(text).into())
                .into_uuid()
                .to_string()
                .into(),
        }
    }

    /// Makes the columns of a row unavailable that carry the placeholder; `toast` says which form a column can carry.
    pub(crate) fn mark(&self, row: &mut Row, toast: impl Fn(usize, &str) -> Toast) {
        row.make_unavailable(|place, name, value| match value {
            ValueRef::Text(text) => self.is_form(text) && self.stands_in_text(toast(place, name), text),
            ValueRef::List(items) => self.stands_in_list_of(toast(place, name), items),
            ValueRef::Struct(members) => self.stands_in_map(toast(place, name), members),
            ValueRef::Bool(_) | ValueRef::Int(_) | ValueRef::Float(_) => false,
        });
    }

    /// Whether a text is one of the forms that a text can be; most are not, whatever their column is.
    fn is_form(&self, text: &str) -> bool {
        [&self.text, &self.base64, &self.document]
            .iter()
            .any(|form| ***form == *text)
    }

    fn stands_in_text(&self, toast: Toast, text: &str) -> bool {
        match toast {
            Toast::Text => *text == *self.text,
            Toast::Json => *text == *self.text || *text == *self.document,
            Toast::Bytes => *text == *self.base64,
            Toast::Any => self.is_form(text),
            _ => false,
        }
    }

    fn stands_in_list_of(&self, toast: Toast, items: &[Option<Value>]) -> bool {
        match toast {
            Toast::Any => [Toast::Texts, Toast::ByteStrings, Toast::Uuids, Toast::Ints]
                .into_iter()
                .any(|form| self.stands_in_list(form, items)),
            form => self.stands_in_list(form, items),
        }
    }

    fn stands_in_map(&self, toast: Toast, members: &[(Arc<str>, Option<Value>)]) -> bool {
        match (toast, members) {
            (Toast::Map | Toast::Any, [(key, Some(Value::Text(value)))]) => **key == *self.text && *value == self.text,
            _ => false,
        }
    }

    fn stands_in_list(&self, form: Toast, items: &[Option<Value>]) -> bool {
        match (form, items) {
            (Toast::Texts, [Some(Value::Text(text))]) => *text == self.text,
            (Toast::ByteStrings, [Some(Value::Text(text))]) => *text == self.base64,
            (Toast::Uuids, [Some(Value::Text(text))]) => *text == self.uuid,
            (Toast::Ints, items) if items.len() == self.text.len() => {
                items.iter().zip(self.text.bytes()).all(|(item, byte)| match item {
                    Some(Value::Int(number)) => *number == i64::from(byte),
                    Some(Value::Text(day)) => **day == *calendar::date(i64::from(byte)),
                    _ => false,
                })
            }
            _ => false,
        }
    }
}

/// Gives the column that was named last the cell that was sent.
pub(crate) fn push(row: &mut RowBuilder, sent: Sent<'_>) {
    match sent {
        Sent::Null => row.push_null(),
        Sent::Bool(value) => row.push_bool(value),
        Sent::Int(value) => row.push_int(value),
        Sent::Float(value) => row.push_float(value),
        Sent::Text(text) => row.push_text(&text),
        Sent::Nested(Value::List(items)) if items.iter().any(is_java_object) => {
            row.push_unavailable(Unavailable::Unreadable)
        }
        Sent::Nested(value) => row.push_value(value),
    }
}

/// Whether an element is the name that Java prints for an array, such as `[Ljava.lang.String;@73249392`: what Debezium
/// sends for arrays of more than one dimension, different in every emission.
fn is_java_object(item: &Option<Value>) -> bool {
    let Some(Value::Text(text)) = item else {
        return false;
    };
    let Some(name) = text.strip_prefix('[') else {
        return false;
    };
    let Some((class, hash)) = name.trim_start_matches('[').rsplit_once('@') else {
        return false;
    };
    let is_class = match class.strip_prefix('L').and_then(|named| named.strip_suffix(';')) {
        Some(named) => {
            named.contains('.')
                && named
                    .chars()
                    .all(|letter| letter.is_alphanumeric() || "._$".contains(letter))
        }
        None => class.len() == 1 && "BCDFIJSZ".contains(class),
    };
    is_class && (1..=8).contains(&hash.len()) && hash.bytes().all(|digit| digit.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::options::UNAVAILABLE_PLACEHOLDER;
    use crate::event::row::Cell;

    fn text(value: &str) -> Value {
        Value::Text(value.into())
    }

    /// Whether a column that was sent as this value is unavailable.
    fn is_unavailable(value: Value, toast: Toast, placeholder: Option<&Placeholder>) -> bool {
        let sent = match value {
            Value::Text(text) => Sent::Text(text.into_string().into()),
            nested => Sent::Nested(nested),
        };
        let mut builder = Row::builder();
        assert!(builder.name("a"));
        push(&mut builder, sent);
        let mut row = builder.finish();
        if let Some(placeholder) = placeholder {
            placeholder.mark(&mut row, |_, _| toast);
        }
        row.get("a").is_some_and(Cell::is_unavailable)
    }

    fn form(toast: Toast) -> Value {
        let sent = UNAVAILABLE_PLACEHOLDER;
        match toast {
            Toast::Any | Toast::Text | Toast::Json | Toast::Never => text(sent),
            Toast::Bytes => text("X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ=="),
            Toast::Texts => Value::List(vec![Some(text(sent))]),
            Toast::ByteStrings => Value::List(vec![Some(text("X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ=="))]),
            Toast::Ints => Value::List(sent.bytes().map(|byte| Some(Value::Int(i64::from(byte)))).collect()),
            Toast::Uuids => Value::List(vec![Some(text("b68a35a7-17ad-35b3-af2a-ae46edb4545a"))]),
            Toast::Map => Value::Struct(vec![(sent.into(), Some(text(sent)))]),
        }
    }

    #[test]
    fn every_form_is_known_by_its_type_and_without_one() {
        let placeholder = Placeholder::new(UNAVAILABLE_PLACEHOLDER);
        for toast in [
            Toast::Text,
            Toast::Json,
            Toast::Bytes,
            Toast::Texts,
            Toast::ByteStrings,
            Toast::Ints,
            Toast::Uuids,
            Toast::Map,
        ] {
            assert!(is_unavailable(form(toast), toast, Some(&placeholder)), "{toast:?}");
            assert!(is_unavailable(form(toast), Toast::Any, Some(&placeholder)), "{toast:?}");
            assert!(
                !is_unavailable(form(toast), Toast::Never, Some(&placeholder)),
                "{toast:?}"
            );
            assert!(!is_unavailable(form(toast), toast, None), "{toast:?}");
        }
    }

    #[test]
    fn a_placeholder_may_be_given_in_hexadecimal_digits() {
        let placeholder = Placeholder::new("hex:5f5f64656265");
        let sent = Value::Text("__debe".into());
        assert!(is_unavailable(sent, Toast::Text, Some(&placeholder)));
        assert_eq!(*placeholder.text, *"__debe");
        assert_eq!(*Placeholder::new("hex:no digits").text, *"hex:no digits");
    }

    #[test]
    fn a_typed_column_is_not_unavailable_because_of_another_types_form() {
        let placeholder = Placeholder::new(UNAVAILABLE_PLACEHOLDER);
        let encoded = form(Toast::Bytes);
        assert!(!is_unavailable(encoded, Toast::Text, Some(&placeholder)));
    }

    #[test]
    fn java_object_names_are_never_values() {
        for (element, expected) in [
            ("[Ljava.lang.String;@73249392", true),
            ("[[Ljava.lang.Long;@1a", true),
            ("[I@1b6d3586", true),
            ("[email]@cafe", false),
            ("[L@home", false),
            ("Ljava.lang.String;@73249392", false),
            ("[Ljava.lang.String;@nothex", false),
        ] {
            let list = Value::List(vec![None, Some(text(element))]);
            assert_eq!(is_unavailable(list, Toast::Texts, None), expected, "{element}");
        }
    }
}
