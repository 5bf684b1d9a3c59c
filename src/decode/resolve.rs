//! Decoding with a registry at hand: schemas that are missing are fetched, and waited for.
//!
//! A registry that does not answer is waited for without end: no record is given up because of an outage, of a password
//! that is refused, or of a certificate that is not trusted. What the registry does not know is asked for a few times,
//! because a schema can become visible later than its first record.

use std::sync::Arc;
use std::time::Duration;

use crate::decode::registry::{Fetched, Registry};
use crate::decode::schema::SchemaDocument;
use crate::decode::tables::Tables;
use crate::decode::unknown::Unknown;
use crate::decode::{Decoded, Decoder};
use crate::event::delivery::{Content, RawRecord};

/// First and longest pause before a registry that does not answer is asked again.
const UNREACHABLE_PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// Fetches a schema.
///
/// # Errors
/// When the registry has said often enough that there is none.
pub async fn schema(registry: &Registry, id: u32) -> Result<Arc<SchemaDocument>, Unknown> {
    let patience = registry.patience();
    let mut pause = UNREACHABLE_PAUSES.0;
    let mut asked = 0;
    loop {
        match registry.fetch(id).await {
            Ok(Fetched::Found(document)) => return Ok(document),
            Ok(Fetched::Unknown(unknown)) => {
                asked += 1;
                if asked >= patience.asks_max || !unknown.may_appear() {
                    return Err(unknown);
                }
                tokio::time::sleep(patience.pause).await;
            }
            Err(error) => {
                let pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
                tracing::warn!(schema = id, error = %error, cause = error.why(), pause_ms, "registry did not answer; what needs it waits");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(UNREACHABLE_PAUSES.1);
            }
        }
    }
}

/// Decodes one record, fetching the schemas it needs.
pub async fn content(decoder: &Decoder, registry: Option<&Registry>, topic: &str, record: &RawRecord) -> Content {
    let mut unknown: Vec<Unknown> = Vec::new();
    loop {
        let id = match decoder.decode_despite(topic, record, &Tables::all(), &unknown) {
            Decoded::Content(content) => return content,
            Decoded::MissingSchema(id) => id,
        };
        let document = match registry {
            Some(registry) => schema(registry, id).await,
            None => Err(Unknown::schema(id)),
        };
        match document {
            Ok(document) => {
                if let Err(error) = decoder.learn(id, &document) {
                    tracing::error!(schema = id, error = %error, "schema cannot be used: its records become dead letters");
                }
            }
            Err(lacking) => unknown.push(lacking),
        }
    }
}
