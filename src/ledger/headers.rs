//! Headers of a record as jsonb: pairs of name and base64, in order. Names may repeat, and null is not an empty value.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};

/// As records carry them.
type Header = (String, Option<Bytes>);

/// Headers as they are stored beside a record.
pub fn to_json(headers: &[Header]) -> Value {
    let pair = |(name, value): &Header| json!([name, value.as_ref().map(|value| STANDARD.encode(value))]);
    Value::Array(headers.iter().map(pair).collect())
}

/// Headers as they were before they were stored.
pub fn from_json(headers: &Value) -> Vec<Header> {
    let pairs = headers.as_array().map(Vec::as_slice).unwrap_or_default();
    let decoded = pairs.iter().filter_map(|pair| {
        let name = pair.get(0)?.as_str()?.to_owned();
        let value = pair
            .get(1)?
            .as_str()
            .and_then(|value| STANDARD.decode(value).ok())
            .map(Bytes::from);
        Some((name, value))
    });
    decoded.collect()
}
