//! Reading dead letters back from their topic: one by its place, or all of them as they come.
//!
//! Readers assign partitions themselves and never join a group, so reading disturbs nobody.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::mpsc;
use tokio::time::Instant;

use bytes::Bytes;

use crate::clients::brokers::{Access, Listener, Unanswered, first_answer};
use crate::clients::forgotten::FORGOT;
use crate::clients::kafka::{QUESTION_TIMEOUT, bounds, is_between_leaders};
use crate::dead_letter::state::Place;
use crate::dead_letter::topic::{Options, client_config};
use crate::event::delivery::RawRecord;
use crate::hindrance::Hindered;

/// Letters that are read ahead of whoever asked for them.
const AHEAD_MAX: usize = 16;

/// What librdkafka says of brokers that do not answer.
const AWAY: [RDKafkaErrorCode; 5] = [
    RDKafkaErrorCode::BrokerTransportFailure,
    RDKafkaErrorCode::AllBrokersDown,
    RDKafkaErrorCode::Resolve,
    RDKafkaErrorCode::OperationTimedOut,
    RDKafkaErrorCode::RequestTimedOut,
];

/// What is said of a topic or a partition that does not exist.
const UNKNOWN: [RDKafkaErrorCode; 3] = [
    RDKafkaErrorCode::UnknownTopic,
    RDKafkaErrorCode::UnknownPartition,
    RDKafkaErrorCode::UnknownTopicOrPartition,
];

/// A dead letter could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client failed.
    #[error("dead-letter topic {topic} could not be read")]
    Read {
        /// The topic.
        topic: String,
        /// What librdkafka said.
        #[source]
        source: KafkaError,
    },
    /// A broker lets nobody in who comes like this.
    #[error(transparent)]
    Refused(Hindered),
    /// The letter's bytes are no longer there.
    #[error("no record at {0}: retention removed it, or the topic was deleted or made anew")]
    Gone(Place),
    /// The record should be there, and did not come. Whether it is there is not known.
    #[error("the record at {place} did not arrive within {} s; is the broker there?", within.as_secs())]
    Silent {
        /// Where it should be.
        place: Place,
        /// How long it was waited for.
        within: Duration,
    },
    /// There is no such topic.
    #[error("there is no dead-letter topic {topic}")]
    Missing {
        /// The topic.
        topic: String,
    },
    /// The reading thread ended before it had read everything.
    #[error("reading dead letters ended abnormally")]
    Abandoned,
}

impl Error {
    /// Whether the broker was away: asking again later may help, and nothing is known about the letter.
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Read { source, .. } => source.rdkafka_error_code().is_some_and(|code| AWAY.contains(&code)),
            Self::Silent { .. } | Self::Refused(_) => true,
            Self::Gone(_) | Self::Missing { .. } | Self::Abandoned => false,
        }
    }
}

/// A letter as it stands in its topic.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Where it stands.
    pub place: Place,
    /// Its record, with all headers.
    pub record: RawRecord,
}

/// Reads letters one after the other, with one client a topic; the answers come in the same order. Dropping the receiver
/// ends it.
pub fn read_all(options: Options, places: Vec<Place>) -> mpsc::Receiver<Result<RawRecord, Error>> {
    let (answers, receiver) = mpsc::channel(AHEAD_MAX);
    tokio::task::spawn_blocking(move || {
        let mut readers = HashMap::new();
        for place in &places {
            let reader = match readers.entry(place.topic.clone()) {
                Entry::Occupied(known) => Ok(known.into_mut()),
                Entry::Vacant(missing) => Reader::new(&options, &place.topic).map(|reader| missing.insert(reader)),
            };
            let answer = reader.and_then(|reader: &mut Reader| reader.read(place));
            if answers.blocking_send(answer).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Reads dead-letter topics.
pub struct Reader {
    consumer: BaseConsumer<Listener>,
    topic: String,
}

impl Reader {
    /// A reader of one topic. Blocks until a broker has answered.
    ///
    /// # Errors
    /// When the properties are refused, or no broker answers in ten seconds.
    pub fn new(options: &Options, topic: &str) -> Result<Self, Error> {
        let access = Access {
            brokers: options.brokers.clone(),
            properties: options.properties.clone(),
        };
        let mut config = client_config(options);
        config
            // Required by the client library; no group is joined, because partitions are assigned by hand.
            .set("group.id", "afterwrite.dlq.reader")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .set("fetch.wait.max.ms", "50");
        let consumer = Listener::client(config, access).map_err(|source| Error::Read {
            topic: topic.to_owned(),
            source,
        })?;
        first_answer(&consumer, QUESTION_TIMEOUT).map_err(|unanswered| match unanswered {
            Unanswered::Refused(hindered) => Error::Refused(hindered),
            Unanswered::Silent(source) => Error::Read {
                topic: topic.to_owned(),
                source,
            },
        })?;
        Ok(Self {
            consumer,
            topic: topic.to_owned(),
        })
    }

    fn failed(&self, source: KafkaError) -> Error {
        Error::Read {
            topic: self.topic.clone(),
            source,
        }
    }

    /// Reads the letter at a place. Blocks for at most ten seconds.
    ///
    /// # Errors
    /// When the broker does not answer, or nothing stands there any more.
    pub fn read(&self, place: &Place) -> Result<RawRecord, Error> {
        let gone = || Error::Gone(place.clone());
        let (low, high) = match self.bounds(place.partition) {
            Err(Error::Read { source, .. }) if is_unknown(&source) => return Err(gone()),
            answer => answer?,
        };
        if place.offset < low || place.offset >= high {
            return Err(gone());
        }
        self.assign(&[(place.partition, Offset::Offset(place.offset))])?;
        let deadline = Instant::now() + QUESTION_TIMEOUT;
        while Instant::now() < deadline {
            match self.next(Duration::from_millis(100))? {
                Some(stored) if stored.place == *place => return Ok(stored.record),
                Some(stored) if stored.place.partition == place.partition && stored.place.offset > place.offset => {
                    return Err(gone());
                }
                Some(_) | None => {}
            }
        }
        Err(Error::Silent {
            place: place.clone(),
            within: QUESTION_TIMEOUT,
        })
    }

    /// Starts following the topic: from its beginning, or from its end.
    ///
    /// # Errors
    /// When the broker does not answer or the topic does not exist.
    pub fn follow(&self, from_beginning: bool) -> Result<(), Error> {
        let metadata = self
            .consumer
            .fetch_metadata(Some(&self.topic), QUESTION_TIMEOUT)
            .map_err(|source| self.failed(source))?;
        let refused = metadata.topics().iter().find_map(|topic| topic.error());
        match refused.map(|error| KafkaError::MetadataFetch(error.into())) {
            Some(error) if !is_unknown(&error) && !is_between_leaders(&error) => return Err(self.failed(error)),
            _ => {}
        }
        let mut partitions = Vec::new();
        for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
            // An explicit end: "end" would be resolved at the first fetch, and letters written before it be missed.
            let (low, high) = self.bounds(partition.id())?;
            partitions.push((partition.id(), Offset::Offset(if from_beginning { low } else { high })));
        }
        if partitions.is_empty() {
            return Err(Error::Missing {
                topic: self.topic.clone(),
            });
        }
        self.assign(&partitions)
    }

    /// The next letter, or `None` when none came in time.
    ///
    /// # Errors
    /// When the client failed. Brokers that are down for a while are waited for.
    pub fn next(&self, wait: Duration) -> Result<Option<Stored>, Error> {
        if self.consumer.context().has_forgotten_brokers() {
            return Err(self.failed(FORGOT));
        }
        match self.consumer.poll(wait) {
            None => Ok(None),
            Some(Ok(message)) => Ok(Some(stored(&message))),
            Some(Err(KafkaError::MessageConsumption(code))) => {
                tracing::debug!(topic = self.topic, %code, "reading dead letters waits for the broker");
                Ok(None)
            }
            Some(Err(source)) => Err(self.failed(source)),
        }
    }

    /// The first offset of a partition and the one after its last.
    fn bounds(&self, partition: i32) -> Result<(i64, i64), Error> {
        bounds(&self.consumer, &self.topic, partition).map_err(|source| self.failed(source))
    }

    fn assign(&self, partitions: &[(i32, Offset)]) -> Result<(), Error> {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in partitions {
            list.add_partition_offset(&self.topic, *partition, *offset)
                .map_err(|source| self.failed(source))?;
        }
        self.consumer.assign(&list).map_err(|source| self.failed(source))
    }
}

fn is_unknown(error: &KafkaError) -> bool {
    error.rdkafka_error_code().is_some_and(|code| UNKNOWN.contains(&code))
}

fn stored(message: &BorrowedMessage<'_>) -> Stored {
    let headers = message.headers().map(|headers| {
        let named = headers
            .iter()
            .map(|header| (header.key.to_owned(), header.value.map(Bytes::copy_from_slice)));
        named.collect()
    });
    Stored {
        place: Place {
            topic: message.topic().to_owned(),
            partition: message.partition(),
            offset: message.offset(),
        },
        record: RawRecord {
            key: message.key().map(Bytes::copy_from_slice),
            value: message.payload().map(Bytes::copy_from_slice),
            headers: headers.unwrap_or_default(),
            timestamp_ms: message.timestamp().to_millis(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_that_is_away_is_not_taken_for_a_letter_that_is_gone() {
        let place = Place {
            topic: "g.dlq".to_owned(),
            partition: 2,
            offset: 7,
        };
        let read = |code| Error::Read {
            topic: "g.dlq".to_owned(),
            source: KafkaError::MetadataFetch(code),
        };
        let silent = Error::Silent {
            place: place.clone(),
            within: QUESTION_TIMEOUT,
        };
        assert!(!silent.to_string().contains("retention"), "{silent}");
        for (error, expected) in [
            (read(RDKafkaErrorCode::BrokerTransportFailure), true),
            (read(RDKafkaErrorCode::OperationTimedOut), true),
            (read(RDKafkaErrorCode::TopicAuthorizationFailed), false),
            (silent, true),
            (Error::Gone(place), false),
        ] {
            assert_eq!(error.is_unreachable(), expected, "{error:?}");
        }
    }
}
