//! Reading a source's topics without joining a group: for looking, not for working.
//!
//! Nothing is committed and nobody is disturbed. Topics that appear later are read from their beginning.

use std::collections::HashSet;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::metadata::Metadata;
use rdkafka::{Offset, TopicPartitionList};
use tokio::time::Instant;

use crate::clients::brokers::{Access, Listener, Unanswered, first_answer};
use crate::clients::forgotten::FORGOT;
use crate::clients::kafka::{QUESTION_TIMEOUT, bounds};
use crate::event::delivery::{Position, RawRecord, SourcePartition};
use crate::hindrance::Hindered;
use crate::source::kafka::client::config;
use crate::source::kafka::{Options, poll};

/// How often topics that are new are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// Where following begins in the topics that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// At the oldest record there is.
    Beginning,
    /// After the newest record.
    End,
}

/// Topics could not be followed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The properties were refused.
    #[error("the kafka client could not be made: are kafka.properties right?")]
    Client(#[source] KafkaError),
    /// A broker lets nobody in who comes like this.
    #[error(transparent)]
    Refused(Hindered),
    /// The broker did not answer, or refused.
    #[error("the topics {topics}.* could not be read")]
    Read {
        /// What their names begin with.
        topics: String,
        /// What librdkafka said.
        #[source]
        source: KafkaError,
    },
}

/// A record and its place.
#[derive(Debug)]
pub struct Followed {
    /// Where it stands.
    pub partition: SourcePartition,
    /// Its offset.
    pub position: Position,
    /// Its bytes.
    pub raw: RawRecord,
}

/// Reads the topics of one source.
pub struct Follower {
    consumer: BaseConsumer<Listener>,
    name: String,
    known: HashSet<(String, i32)>,
    looked: Instant,
}

impl std::fmt::Debug for Follower {
    /// Leaves out the client, which knows credentials.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Follower")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Follower {
    /// Starts reading the topics whose names begin with `name` and a dot. Blocks until the broker has answered.
    ///
    /// # Errors
    /// When the properties are refused, or the broker does not answer in ten seconds.
    pub fn start(options: &Options, name: &str, from: From) -> Result<Self, Error> {
        // The group of the options is only a name that the client library asks for: partitions are assigned by hand.
        let access = Access {
            brokers: options.brokers.clone(),
            properties: options.properties.clone(),
        };
        let consumer = Listener::client(config(options), access).map_err(Error::Client)?;
        let topics = first_answer(&consumer, QUESTION_TIMEOUT).map_err(|unanswered| match unanswered {
            Unanswered::Refused(hindered) => Error::Refused(hindered),
            Unanswered::Silent(source) => Error::Read {
                topics: name.to_owned(),
                source,
            },
        })?;
        let mut follower = Self {
            consumer,
            name: name.to_owned(),
            known: HashSet::new(),
            looked: Instant::now(),
        };
        follower.add(&topics, from)?;
        Ok(follower)
    }

    /// How many partitions are read.
    pub fn partitions(&self) -> usize {
        self.known.len()
    }

    /// The next record, or `None` when none came in time. Brokers that are away for a while are waited for.
    ///
    /// # Errors
    /// When the client failed.
    pub fn next(&mut self, wait: Duration) -> Result<Option<Followed>, Error> {
        if self.consumer.context().has_forgotten_brokers() {
            return Err(self.failed(FORGOT));
        }
        if self.looked.elapsed() > LOOK_EVERY {
            self.looked = Instant::now();
            if let Err(error) = self.look(From::Beginning) {
                tracing::debug!(%error, "new topics could not be looked for");
            }
        }
        match self.consumer.poll(wait) {
            None => Ok(None),
            Some(Ok(message)) => Ok(Some(Followed {
                partition: SourcePartition {
                    topic: message.topic().into(),
                    partition: message.partition(),
                },
                position: Position(message.offset()),
                raw: poll::copy(&message),
            })),
            Some(Err(KafkaError::MessageConsumption(code))) => {
                tracing::debug!(%code, "following waits for the broker");
                Ok(None)
            }
            Some(Err(source)) => Err(self.failed(source)),
        }
    }

    /// Adds the partitions that are not read yet.
    fn look(&mut self, from: From) -> Result<(), Error> {
        let metadata = self
            .consumer
            .fetch_metadata(None, QUESTION_TIMEOUT)
            .map_err(|source| self.failed(source))?;
        self.add(&metadata, from)
    }

    fn add(&mut self, metadata: &Metadata, from: From) -> Result<(), Error> {
        let prefix = format!("{}.", self.name);
        let mut list = TopicPartitionList::new();
        for topic in metadata
            .topics()
            .iter()
            .filter(|topic| topic.name().starts_with(&prefix))
        {
            for partition in topic.partitions() {
                let place = (topic.name().to_owned(), partition.id());
                if self.known.contains(&place) {
                    continue;
                }
                // An explicit end: "end" would be resolved at the first fetch, and what is written before it be missed.
                let bounds = bounds(&self.consumer, topic.name(), partition.id());
                let (low, high) = bounds.map_err(|source| self.failed(source))?;
                let offset = Offset::Offset(if from == From::Beginning { low } else { high });
                list.add_partition_offset(topic.name(), partition.id(), offset)
                    .map_err(|source| self.failed(source))?;
                self.known.insert(place);
            }
        }
        if list.count() == 0 {
            return Ok(());
        }
        self.consumer
            .incremental_assign(&list)
            .map_err(|source| self.failed(source))
    }

    fn failed(&self, source: KafkaError) -> Error {
        Error::Read {
            topics: self.name.clone(),
            source,
        }
    }
}
