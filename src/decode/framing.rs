//! The outermost layer of a key or value: which encoding it is, and what wraps the payload.

use std::sync::Arc;

use bytes::Bytes;

use crate::decode::connect::{self, Struct};
use crate::decode::debezium::Kind;
use crate::decode::memo::{ConnectSchema, Side};
use crate::decode::options::Format;
use crate::decode::wrapper::Wrapper;

/// Magic byte and id of the Confluent wire format.
const HEADER_BYTES: usize = 5;

/// The encoding of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Framing<'a> {
    /// Confluent wire format.
    Avro { id: u32, body: &'a [u8] },
    /// Text that may be JSON.
    Json,
}

/// Which half of a record some bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Key,
    Value,
}

impl Part {
    /// Whether a header of this name carries the schema id of the part: Apicurio's and Confluent's converters can put it
    /// there, and then the bytes begin with the body.
    fn has_id_in(self, header: &str) -> bool {
        let (apicurio, confluent) = match self {
            Self::Key => ("apicurio.key.", "__key_schema_id"),
            Self::Value => ("apicurio.value.", "__value_schema_id"),
        };
        header == confluent || header.strip_prefix(apicurio).is_some_and(|rest| rest.ends_with("Id"))
    }
}

/// Tells the encoding by the first byte, or takes the configured one at its word.
pub(crate) fn of<'a>(
    bytes: &'a [u8],
    format: Format,
    part: Part,
    headers: &[(String, Option<Bytes>)],
) -> Result<Framing<'a>, &'static str> {
    let is_avro = match format {
        Format::Avro => true,
        Format::Json | Format::JsonSchema => false,
        Format::Auto => bytes.first() == Some(&0),
    };
    let has_header_id = || headers.iter().any(|(name, _)| part.has_id_in(name));
    if is_avro {
        return match bytes {
            _ if has_header_id() => Err(ID_IN_HEADERS),
            [0, rest @ ..] if rest.len() >= HEADER_BYTES - 1 => {
                let (id, body) = rest.split_at(HEADER_BYTES - 1);
                let id = id.iter().fold(0, |id, byte| (id << 8) | u32::from(*byte));
                if id == 0 && body.len() >= 4 {
                    return Err(WIDE_ID);
                }
                Ok(Framing::Avro { id, body })
            }
            [0, ..] => Err("the bytes end inside the schema id"),
            _ => Err("the magic byte is not 0, so this is not the Confluent wire format"),
        };
    }
    match trimmed(bytes).first() {
        Some(first) if first.is_ascii_graphic() => Ok(Framing::Json),
        _ if has_header_id() => Err(ID_IN_HEADERS),
        Some(_) => Err("the bytes are neither JSON nor the Confluent wire format"),
        None => Err("there are no bytes"),
    }
}

const ID_IN_HEADERS: &str = "the schema id is in the headers: set apicurio.registry.headers.enabled=false (Confluent: the default serializer of \
     schema ids) on the converter";
const WIDE_ID: &str =
    "the schema id has eight bytes: set apicurio.registry.as-confluent=true and use-id=contentId on the converter";

/// A JSON payload without its wrapper, and the schema that came with it.
#[derive(Debug)]
pub(crate) struct Payload<'a> {
    pub(crate) text: &'a str,
    pub(crate) schema: Option<Arc<ConnectSchema>>,
}

impl<'a> Payload<'a> {
    /// The struct that the schema describes.
    pub(crate) fn as_struct(&self) -> Option<&Struct> {
        self.schema.as_deref().and_then(ConnectSchema::as_struct)
    }

    /// The kind of record that the schema names.
    pub(crate) fn kind(&self) -> Option<Kind> {
        self.schema.as_ref().and_then(|schema| schema.kind)
    }

    /// Whether the old and the new row of a change are read alike: both by schemas that agree, or both without one.
    pub(crate) fn rows_are_alike(&self) -> bool {
        self.schema.as_ref().is_none_or(|schema| schema.rows_are_alike)
    }

    /// Takes the wrapper off. A wrapper that was seen before is known by comparing bytes, and is not parsed.
    pub(crate) fn of(bytes: &'a [u8], format: Format, memo: &Side) -> Result<Self, String> {
        if format != Format::Json
            && let Some((schema, start)) = memo.known_prefix(bytes)
            && let Some((b'}', payload)) = trimmed(&bytes[start..]).split_last()
            && is_one_value(payload)
        {
            return Ok(Self {
                text: utf8(payload)?,
                schema: Some(schema),
            });
        }
        let text = utf8(bytes)?;
        let wrapper = if format == Format::Json {
            None
        } else {
            Wrapper::of(text)
        };
        match wrapper {
            Some(Wrapper {
                schema: "null",
                payload,
            }) => Ok(Self {
                text: payload,
                schema: None,
            }),
            Some(Wrapper { schema, payload }) => {
                let parsed = Arc::new(ConnectSchema::new(connect::parse(schema)?));
                let start = payload.as_ptr().addr() - text.as_ptr().addr();
                let follows = payload.as_ptr().addr() > schema.as_ptr().addr();
                let prefix = &text[..start];
                if follows {
                    memo.remember_prefix(prefix.as_bytes(), &parsed);
                }
                Ok(Self {
                    text: payload,
                    schema: Some(parsed),
                })
            }
            None if format == Format::JsonSchema => {
                Err("the bytes are not an object with schema and payload: set source.format=json".to_owned())
            }
            None => Ok(Self { text, schema: None }),
        }
    }
}

/// Whether the bytes between a known prefix and the closing brace look like one value. A third member that ends in a
/// brace passes here and fails when the payload is parsed; as its first member is a schema, it is no row either way.
fn is_one_value(payload: &[u8]) -> bool {
    let value = trimmed(payload);
    value == b"null" || (value.first() == Some(&b'{') && value.last() == Some(&b'}'))
}

fn utf8(bytes: &[u8]) -> Result<&str, String> {
    let text = std::str::from_utf8(trimmed(bytes));
    text.map_err(|_| "the bytes are not UTF-8".to_owned())
}

/// The bytes without the space that JSON allows around a value, which is not all that ASCII calls space.
fn trimmed(bytes: &[u8]) -> &[u8] {
    let is_value = |byte: &u8| !matches!(byte, b' ' | b'\n' | b'\r' | b'\t');
    let start = bytes.iter().position(is_value).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(is_value).map_or(start, |last| last + 1);
    &bytes[start..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_tells_the_encoding() {
        let avro = [0, 0, 0, 1, 2, 9];
        assert_eq!(
            of(&avro, Format::Auto, Part::Value, &[]),
            Ok(Framing::Avro { id: 258, body: &[9] })
        );
        assert_eq!(of(b" {}", Format::Auto, Part::Value, &[]), Ok(Framing::Json));
        assert!(of(&[1, 0, 0, 0, 1], Format::Auto, Part::Value, &[]).is_err());
        assert!(of(&[0, 0, 0], Format::Auto, Part::Value, &[]).is_err());
        assert!(of(&[0, 0, 0, 0, 0, 0, 0, 0, 7, 1], Format::Auto, Part::Value, &[]).is_err());
        assert!(of(b"{}", Format::Avro, Part::Value, &[]).is_err());
        assert!(of(b"", Format::Auto, Part::Value, &[]).is_err());
        for (header, part) in [
            ("apicurio.value.globalId", Part::Value),
            ("apicurio.key.contentId", Part::Key),
            ("__value_schema_id", Part::Value),
            ("__key_schema_id", Part::Key),
        ] {
            let headers = vec![(header.to_owned(), None)];
            let other = if part == Part::Key { Part::Value } else { Part::Key };
            assert_eq!(of(&avro, Format::Auto, part, &headers), Err(ID_IN_HEADERS), "{header}");
            assert!(of(&avro, Format::Auto, other, &headers).is_ok(), "{header}");
        }
        let headers = vec![("apicurio.value.globalId".to_owned(), None)];
        assert_eq!(of(&[2, 2], Format::Auto, Part::Value, &headers), Err(ID_IN_HEADERS));
    }

    #[test]
    fn a_known_prefix_gives_the_same_payload_as_parsing() {
        let memo = Side::default();
        let first = br#"{"schema":{"type":"struct","fields":[]},"payload":{"a":1}}"#;
        let second = br#"{"schema":{"type":"struct","fields":[]},"payload":{"a":2} } "#;
        let third = br#"{"schema":{"type":"struct","fields":[]},"payload":{"a":3},"more":{}}"#;
        assert_eq!(Payload::of(first, Format::Auto, &memo).unwrap().text, r#"{"a":1}"#);
        assert!(memo.known_prefix(second).is_some());
        assert_eq!(Payload::of(second, Format::Auto, &memo).unwrap().text, r#"{"a":2}"#);
        // Three members are no wrapper: the fast path must not take the text between them for a payload.
        let other = Payload::of(third, Format::Auto, &memo).unwrap();
        assert!(other.schema.is_none() || serde_json::from_str::<serde_json::Value>(other.text).is_err());
        let bare = Payload::of(first, Format::Json, &memo).unwrap();
        assert!(bare.schema.is_none());
    }
}
