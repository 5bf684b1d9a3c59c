//! Decoding with a registry at hand: schemas that are missing are fetched, and waited for.
//!
//! A registry that does not answer is waited for without end: no record is given up because of an outage. An id that the
//! registry does not know is asked for a few times, because a schema can become visible later than its first record.

use std::sync::Arc;
use std::time::Duration;

use crate::decode::registry::{Fetched, Registry, RegistryError};
use crate::decode::schema::SchemaDocument;
use crate::decode::wanted::Wanted;
use crate::decode::{Decoded, Decoder};
use crate::event::delivery::{Content, RawRecord};

/// How often an id that the registry does not know is asked for.
const UNKNOWN_ASKS_MAX: u32 = 5;

/// Pause between such questions.
const UNKNOWN_PAUSE: Duration = Duration::from_millis(400);

/// First and longest pause before a registry that does not answer is asked again.
const UNREACHABLE_PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// Fetches a schema. `None`: the registry has said often enough that there is none.
pub async fn schema(registry: &Registry, id: u32) -> Option<Arc<SchemaDocument>> {
    let mut pause = UNREACHABLE_PAUSES.0;
    let mut asked = 0;
    loop {
        match registry.fetch(id).await {
            Ok(Fetched::Found(document)) => return Some(document),
            Ok(Fetched::Unknown) => {
                asked += 1;
                if asked >= UNKNOWN_ASKS_MAX {
                    return None;
                }
                tokio::time::sleep(UNKNOWN_PAUSE).await;
            }
            Err(error @ RegistryError::TooManyReferences { .. }) => {
                tracing::error!(schema = id, error = %error, "schema cannot be used");
                return None;
            }
            Err(error) => {
                let pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
                tracing::warn!(schema = id, error = %error, pause_ms, "registry did not answer; what needs it waits");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(UNREACHABLE_PAUSES.1);
            }
        }
    }
}

/// Decodes one record, fetching the schemas it needs.
pub async fn content(decoder: &Decoder, registry: Option<&Registry>, topic: &str, record: &RawRecord) -> Content {
    let mut unknown: Vec<u32> = Vec::new();
    loop {
        let id = match decoder.decode_despite(topic, record, &Wanted::everything(), &unknown) {
            Decoded::Content(content) => return content,
            Decoded::MissingSchema(id) => id,
        };
        let document = match registry {
            Some(registry) => schema(registry, id).await,
            None => None,
        };
        match document {
            Some(document) => {
                if let Err(error) = decoder.learn(id, &document) {
                    tracing::error!(schema = id, error = %error, "schema cannot be used: its records become dead letters");
                }
            }
            None => unknown.push(id),
        }
    }
}
