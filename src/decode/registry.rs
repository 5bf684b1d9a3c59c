//! The schema registry: which schema an id stands for.
//!
//! Any registry with Confluent's HTTP API will do. References are resolved here, by subject and version, because not
//! every registry resolves them on request. What the registry says for certain ([`Fetched::Unknown`]) is kept apart
//! from what it did not say ([`RegistryError`]): a registry that does not answer is an outage, and no record is given
//! up because of it.
//!
//! Answers are remembered, because a schema never changes under its id; failures never are. Who asks for an id that
//! somebody else is asking for waits for that answer. Nothing here retries: the caller knows how long it can wait. What
//! is unknown should be asked for a few times before it is believed ([`Registry::patience`]), as a registry may lag
//! behind the producer that just registered it.

pub mod client;

mod recent;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use schema_registry_converter::schema_registry_common::RegisteredReference;

use crate::decode::registry::client::{Client, Registered, RegistryError, RegistrySettings, SettingsError};
use crate::decode::registry::recent::Recent;
use crate::decode::schema::SchemaDocument;
use crate::decode::unknown::{Lack, Unknown};

/// Schemas that one schema may refer to, directly and not: an envelope refers to three.
const REFERENCES_MAX: usize = 256;

/// What the registry said about an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched {
    /// This schema.
    Found(Arc<SchemaDocument>),
    /// There is no such schema, or not all of it; the registry is sure.
    Unknown(Unknown),
}

/// How long "there is none" is doubted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Questions until it is believed; one at least.
    pub asks_max: u32,
    /// Pause between them.
    pub pause: Duration,
}

/// A question that is under way.
type Flight = BoxFuture<'static, Result<Fetched, RegistryError>>;

/// A registry. Cheap to share; its locks are never held while waiting.
pub struct Registry {
    client: Client,
    recent: Mutex<Recent>,
    flights: Mutex<HashMap<u32, WeakShared<Flight>>>,
    patience: Patience,
}

impl std::fmt::Debug for Registry {
    /// Leaves out the client, which knows credentials.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Registry")
            .field("url", &self.client.url())
            .finish_non_exhaustive()
    }
}

impl Registry {
    /// A registry that was not asked yet; does no I/O.
    ///
    /// # Errors
    /// When the settings do not make a client.
    pub fn new(settings: &RegistrySettings) -> Result<Self, SettingsError> {
        Ok(Self {
            client: Client::new(settings)?,
            recent: Mutex::new(Recent::new(settings.remembered_max)),
            flights: Mutex::default(),
            patience: Patience {
                asks_max: settings.unknown_asks_max.max(1),
                pause: settings.unknown_pause,
            },
        })
    }

    /// How long "there is none" should be doubted.
    pub fn patience(&self) -> Patience {
        self.patience
    }

    /// The schema of an id with everything it refers to. Cancel-safe: a question that others wait for too goes on.
    ///
    /// # Errors
    /// When the registry did not answer.
    pub async fn fetch(&self, id: u32) -> Result<Fetched, RegistryError> {
        if let Some(known) = lock(&self.recent).get(id) {
            return Ok(Fetched::Found(known));
        }
        let answer = self.flight(id).await?;
        if let Fetched::Found(document) = &answer {
            lock(&self.recent).keep(id, document);
        }
        Ok(answer)
    }

    /// The question about an id that is under way, or a new one.
    fn flight(&self, id: u32) -> Shared<Flight> {
        let mut flights = lock(&self.flights);
        if let Some(flight) = flights.get(&id).and_then(WeakShared::upgrade) {
            return flight;
        }
        flights.retain(|_, flight| flight.upgrade().is_some());
        let client = self.client.clone();
        let flight = async move { whole(&client, id).await }.boxed().shared();
        if let Some(under_way) = flight.downgrade() {
            flights.insert(id, under_way);
        }
        flight
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A schema with everything it refers to.
async fn whole(client: &Client, id: u32) -> Result<Fetched, RegistryError> {
    let unknown = |lack| Fetched::Unknown(Unknown { id, lack });
    let Some(schema) = client.schema(id).await? else {
        return Ok(unknown(Lack::Schema));
    };
    Ok(match references(client, id, &schema).await? {
        Ok(references) => Fetched::Found(Arc::new(SchemaDocument {
            text: schema.text,
            references,
        })),
        Err(lack) => unknown(lack),
    })
}

/// The texts of all that a schema refers to, each before those that refer to it, or what is missing.
async fn references(client: &Client, id: u32, schema: &Registered) -> Result<Result<Vec<String>, Lack>, RegistryError> {
    enum Step {
        Visit(RegisteredReference),
        Emit(String),
    }
    let visits = |references: &[RegisteredReference]| {
        let copies: Vec<Step> = references.iter().rev().cloned().map(Step::Visit).collect();
        copies
    };
    let mut seen: HashSet<(String, u32)> = HashSet::new();
    let mut texts = Vec::new();
    let mut steps = visits(&schema.references);
    while let Some(step) = steps.pop() {
        match step {
            Step::Emit(found) => texts.push(found),
            Step::Visit(reference) => {
                if !seen.insert((reference.subject.clone(), reference.version)) {
                    continue;
                }
                if seen.len() > REFERENCES_MAX {
                    return Ok(Err(Lack::Limit {
                        references_max: REFERENCES_MAX,
                    }));
                }
                let Some(found) = client.referenced(id, &reference).await? else {
                    return Ok(Err(Lack::Reference {
                        subject: reference.subject,
                        version: reference.version,
                    }));
                };
                let inner = visits(&found.references);
                steps.push(Step::Emit(found.text));
                steps.extend(inner);
            }
        }
    }
    Ok(Ok(texts))
}
