//! A dead letter as the engine hands it over, and the sink that makes it durable.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};

use crate::engine::retry::Class;
use crate::event::change::ChangeEvent;
use crate::event::delivery::{Position, RawRecord, SourcePartition};
use crate::ledger::parked::Lane;

/// The handler's name on letters of records that could not be decoded: they concern every handler of the group.
pub const EVERY_HANDLER: &str = "*";

/// A job that failed for good, with everything needed to understand it and to run it again.
#[derive(Debug, Clone)]
pub struct Letter {
    /// The group whose job it was.
    pub group: Arc<str>,
    /// The handler that failed, or [`EVERY_HANDLER`].
    pub handler: Arc<str>,
    /// The event; `None` when the bytes could not be decoded.
    pub event: Option<Arc<ChangeEvent>>,
    /// Why it is dead.
    pub class: Class,
    /// The last error's chain.
    pub error: String,
    /// Attempts that were made.
    pub attempts: u32,
    /// When the first attempt failed.
    pub first_failed_at: DateTime<Utc>,
    /// When the last attempt failed.
    pub failed_at: DateTime<Utc>,
    /// How often the event was replayed before.
    pub replays: u32,
    /// Where the record came from.
    pub partition: SourcePartition,
    /// Its place there.
    pub position: Position,
    /// The record, byte for byte.
    pub raw: RawRecord,
    /// The lane that is parked behind it, in the same transaction.
    pub parks: Option<Parks>,
    /// How long a job waits that was parked because of lag, before it is released.
    pub due_in: Option<Duration>,
}

/// A lane that is parked behind a letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parks {
    /// The lane.
    pub lane: Lane,
    /// The epoch of its partition's claim: under another one nothing is written.
    pub epoch: u64,
}

impl Letter {
    /// Identity of the letter: copies written by a crash at the wrong moment share it and collapse.
    pub fn id(&self) -> String {
        let identity = match self.event.as_ref().and_then(|event| event.id()) {
            Some(event_id) => event_id.to_string(),
            None => format!(
                "{}/{}/{}",
                self.partition.topic, self.partition.partition, self.position.0
            ),
        };
        // A job may be parked before it fails for good: these are two letters.
        let parked = (self.class == Class::Parked).then_some(Class::Parked.as_str());
        let replays = self.replays.to_string();
        let parts = [&*self.group, &*self.handler, &identity, &replays];
        let mut hash = Sha256::new();
        for part in parts.into_iter().chain(parked) {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        hex::encode(&hash.finalize()[..16])
    }
}

/// Makes dead letters durable.
///
/// # Contract
/// `Ok` means that the letter survives the loss of this process, and of a machine as its broker's or database's replicas
/// do, and that its state is recorded.
/// Writing the same letter twice leaves one letter. Dropping the future may leave the letter written or not.
#[async_trait]
pub trait Letters: Send + Sync + 'static {
    /// Writes one letter.
    ///
    /// # Errors
    /// Always worth another try: the engine waits and writes again.
    async fn bury(&self, letter: &Letter) -> Result<(), BuryError>;

    /// Writes letters of one partition that are parked because of lag, together where that is cheaper.
    ///
    /// # Errors
    /// Always worth another try. Some of them may be written.
    async fn park(&self, letters: &[Letter]) -> Result<(), BuryError> {
        for letter in letters {
            self.bury(letter).await?;
        }
        Ok(())
    }
}

/// A dead letter could not be written.
#[derive(Debug, thiserror::Error)]
#[error("dead letter could not be written to {place}")]
pub struct BuryError {
    /// The topic or table.
    pub place: String,
    /// Why.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}
