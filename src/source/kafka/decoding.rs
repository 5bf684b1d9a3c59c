//! The decoding task: records become deliveries, in order, one partition never waiting for another.
//!
//! A record whose writer schema is not known yet stalls its partition: what follows is kept in order, the poll thread is
//! asked to pause it, and the other partitions go on. A registry that does not answer is waited for; an id that it does
//! not know is asked for a few times, because a schema can become visible later than its first record, and is final then.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;

use crate::decode::registry::Registry;
use crate::decode::schema::SchemaDocument;
use crate::decode::tables::Tables;
use crate::decode::unknown::Unknown;
use crate::decode::{Decoded, Decoder, resolve};
use crate::event::delivery::{Content, Delivery, Position, RawRecord, SourceCommand, SourceEvent, SourcePartition};
use crate::source::kafka::client::{BATCH_MAX, Polled};

/// How long the answer "unknown" stands.
const UNKNOWN_STANDS: Duration = Duration::from_secs(30);

/// Ids that are known to be unknown at once. Bytes that only look like Avro have a new one in each record.
const UNKNOWN_MAX: usize = 1_024;

/// The task's state.
pub(super) struct Decoding {
    decoder: Arc<Decoder>,
    wanted: Tables,
    registry: Option<Arc<Registry>>,
    polled: mpsc::Receiver<Vec<Polled>>,
    events: mpsc::Sender<SourceEvent>,
    pauses: std::sync::mpsc::Sender<SourceCommand>,
    /// What the engine is to hear next, in order.
    untold: Vec<SourceEvent>,
    stalled: HashMap<SourcePartition, Stall>,
    fetches: JoinSet<(u32, Result<Arc<SchemaDocument>, Unknown>)>,
    fetching: HashMap<u32, Id>,
    unknown: HashMap<u32, (Instant, Unknown)>,
}

/// A partition that waits for a schema, with its records in order.
struct Stall {
    epoch: u64,
    schema: u32,
    records: VecDeque<(Position, RawRecord)>,
}

impl Decoding {
    pub(super) fn new(
        decoder: Arc<Decoder>,
        wanted: Tables,
        registry: Option<Arc<Registry>>,
        polled: mpsc::Receiver<Vec<Polled>>,
        events: mpsc::Sender<SourceEvent>,
        pauses: std::sync::mpsc::Sender<SourceCommand>,
    ) -> Self {
        Self {
            decoder,
            wanted,
            registry,
            polled,
            events,
            pauses,
            untold: Vec::new(),
            stalled: HashMap::new(),
            fetches: JoinSet::new(),
            fetching: HashMap::new(),
            unknown: HashMap::new(),
        }
    }

    /// Decodes until the poll thread ends.
    pub(super) async fn run(mut self) {
        loop {
            tokio::select! {
                polled = self.polled.recv() => match polled {
                    Some(batch) => batch.into_iter().for_each(|polled| self.polled(polled)),
                    None => break,
                },
                Some(fetched) = self.fetches.join_next(), if !self.fetches.is_empty() => match fetched {
                    Ok((id, document)) => self.fetched(id, document),
                    Err(error) => self.fetch_again(&error),
                },
            }
            self.tell_all().await;
        }
        self.fetches.shutdown().await;
    }

    fn polled(&mut self, polled: Polled) {
        match polled {
            Polled::Assigned { partitions } => self.tell(SourceEvent::Assigned { partitions }),
            Polled::Record {
                epoch,
                partition,
                position,
                raw,
            } => match self.stalled.get_mut(&partition) {
                Some(stall) => stall.records.push_back((position, raw)),
                None => self.decode(epoch, partition, position, raw),
            },
            Polled::Revoking { partitions, reply } => {
                self.stalled.retain(|partition, _| !partitions.contains(partition));
                self.tell(SourceEvent::Revoking { partitions, reply });
            }
            Polled::Lost { partitions } => {
                self.stalled.retain(|partition, _| !partitions.contains(partition));
                self.tell(SourceEvent::Lost { partitions });
            }
        }
    }

    /// Decodes one record and passes it on, or stalls its partition.
    fn decode(&mut self, epoch: u64, partition: SourcePartition, position: Position, raw: RawRecord) {
        match self.content(&partition.topic, &raw) {
            Ok(content) => {
                let delivery = Box::new(Delivery {
                    partition,
                    position,
                    raw,
                    content,
                });
                self.tell(SourceEvent::Delivered { epoch, delivery });
            }
            Err(schema) => {
                self.order(SourceCommand::Pause {
                    partition: partition.clone(),
                    epoch,
                });
                let stall = Stall {
                    epoch,
                    schema,
                    records: VecDeque::from([(position, raw)]),
                };
                self.stalled.insert(partition, stall);
                self.fetch(schema);
            }
        }
    }

    /// The content of a record, or the schema it waits for.
    fn content(&self, topic: &str, raw: &RawRecord) -> Result<Content, u32> {
        let mut without: Vec<Unknown> = Vec::new();
        loop {
            match self.decoder.decode_despite(topic, raw, &self.wanted, &without) {
                Decoded::Content(content) => return Ok(content),
                Decoded::MissingSchema(id) => {
                    let found_out = self.unknown.get(&id).filter(|(until, _)| Instant::now() < *until);
                    if found_out.is_none() && self.registry.is_some() {
                        return Err(id);
                    }
                    without.push(found_out.map_or_else(|| Unknown::schema(id), |(_, unknown)| unknown.clone()));
                }
            }
        }
    }

    fn fetch(&mut self, id: u32) {
        let Some(registry) = self.registry.clone() else { return };
        if !self.fetching.contains_key(&id) {
            let task = self
                .fetches
                .spawn(async move { (id, resolve::schema(&registry, id).await) });
            self.fetching.insert(id, task.id());
        }
    }

    /// A fetch that ended abnormally brought nothing, and a partition waits for it.
    fn fetch_again(&mut self, error: &JoinError) {
        tracing::error!(error = %error, "a schema fetch ended abnormally and is repeated");
        let failed = self.fetching.iter().find(|(_, task)| **task == error.id());
        if let Some(id) = failed.map(|(id, _)| *id) {
            self.fetching.remove(&id);
            self.fetch(id);
        }
    }

    fn fetched(&mut self, id: u32, document: Result<Arc<SchemaDocument>, Unknown>) {
        self.fetching.remove(&id);
        match document {
            Ok(document) => {
                if let Err(error) = self.decoder.learn(id, &document) {
                    tracing::error!(schema = id, error = %error, "schema cannot be used: its records become dead letters");
                }
            }
            Err(unknown) => {
                let now = Instant::now();
                self.unknown.retain(|_, (until, _)| *until > now);
                if self.unknown.len() >= UNKNOWN_MAX {
                    self.unknown.clear();
                }
                self.unknown.insert(id, (now + UNKNOWN_STANDS, unknown));
            }
        }
        let waiting = self.stalled.iter().filter(|(_, stall)| stall.schema == id);
        let partitions: Vec<SourcePartition> = waiting.map(|(partition, _)| partition.clone()).collect();
        for partition in partitions {
            self.go_on(partition);
        }
    }

    /// Decodes what a stalled partition kept, in order, until it is through or stalls again.
    fn go_on(&mut self, partition: SourcePartition) {
        let Some(stall) = self.stalled.remove(&partition) else {
            return;
        };
        self.order(SourceCommand::Resume {
            partition: partition.clone(),
            epoch: stall.epoch,
        });
        for (position, raw) in stall.records {
            match self.stalled.get_mut(&partition) {
                Some(again) => again.records.push_back((position, raw)),
                None => self.decode(stall.epoch, partition.clone(), position, raw),
            }
        }
    }

    fn tell(&mut self, event: SourceEvent) {
        self.untold.push(event);
    }

    /// Waits for room in front of the engine. An engine that has ended needs no events: the poll thread ends too.
    async fn tell_all(&mut self) {
        while !self.untold.is_empty() {
            // Room for several at a time: a place for each would be asked for, and waited for, by itself.
            // More than the channel holds has never room.
            let together = self.untold.len().min(BATCH_MAX).min(self.events.max_capacity());
            let Ok(places) = self.events.reserve_many(together).await else {
                tracing::debug!("the engine has already ended");
                self.untold.clear();
                return;
            };
            for (place, event) in places.zip(self.untold.drain(..together)) {
                place.send(event);
            }
        }
    }

    fn order(&self, command: SourceCommand) {
        if self.pauses.send(command).is_err() {
            tracing::debug!("the poll thread has already ended");
        }
    }
}
