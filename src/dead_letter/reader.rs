//! Reading dead letters back from their topic: one by its place, or all of them as they come.
//!
//! Readers assign partitions themselves and never join a group, so reading disturbs nobody.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use tokio::time::Instant;

use bytes::Bytes;

use crate::dead_letter::state::Place;
use crate::dead_letter::topic::{Options, client_config};
use crate::event::delivery::RawRecord;

/// Longest time for one question to the broker.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause before a partition that has no leader is asked again.
const LEADER_PAUSE: Duration = Duration::from_millis(100);

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
    /// The letter's bytes are no longer there.
    #[error("no record at {topic}[{partition}] offset {offset}: retention removed it, or the topic was made anew")]
    Gone {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The offset.
        offset: i64,
    },
}

/// A letter as it stands in its topic.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Where it stands.
    pub place: Place,
    /// Its record, with all headers.
    pub record: RawRecord,
}

/// Reads dead-letter topics.
pub struct Reader {
    consumer: BaseConsumer,
    topic: String,
}

impl Reader {
    /// A reader of one topic.
    ///
    /// # Errors
    /// When the properties are refused.
    pub fn new(options: &Options, topic: &str) -> Result<Self, Error> {
        let consumer: BaseConsumer = client_config(options)
            // Required by the client library; no group is joined, because partitions are assigned by hand.
            .set("group.id", "afterwrite.dlq.reader")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .set("fetch.wait.max.ms", "50")
            .create()
            .map_err(|source| Error::Read {
                topic: topic.to_owned(),
                source,
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
        let gone = || Error::Gone {
            topic: place.topic.clone(),
            partition: place.partition,
            offset: place.offset,
        };
        let (low, high) = self.bounds(&place.topic, place.partition)?;
        if place.offset < low || place.offset >= high {
            return Err(gone());
        }
        self.assign(&[(place.partition, Offset::Offset(place.offset))])?;
        let deadline = Instant::now() + QUESTION_TIMEOUT;
        while Instant::now() < deadline {
            match self.next(Duration::from_millis(100))? {
                Some(stored) if stored.place.offset == place.offset => return Ok(stored.record),
                Some(stored) if stored.place.offset > place.offset => return Err(gone()),
                Some(_) | None => {}
            }
        }
        Err(gone())
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
        let mut partitions = Vec::new();
        for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
            // An explicit end: "end" would be resolved at the first fetch, and letters written before it be missed.
            let (low, high) = self.bounds(&self.topic, partition.id())?;
            partitions.push((partition.id(), Offset::Offset(if from_beginning { low } else { high })));
        }
        if partitions.is_empty() {
            return Err(self.failed(KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition)));
        }
        self.assign(&partitions)
    }

    /// The next letter, or `None` when none came in time.
    ///
    /// # Errors
    /// When the client failed. Brokers that are down for a while are waited for.
    pub fn next(&self, wait: Duration) -> Result<Option<Stored>, Error> {
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

    /// The first offset of a partition and the one after its last. A partition whose leader is being chosen, as in the
    /// moments after its topic was made, is asked again.
    fn bounds(&self, topic: &str, partition: i32) -> Result<(i64, i64), Error> {
        let deadline = Instant::now() + QUESTION_TIMEOUT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.consumer.fetch_watermarks(topic, partition, left) {
                Err(error) if is_between_leaders(&error) && left > LEADER_PAUSE => {
                    tracing::debug!(topic, partition, "waiting for the partition's leader");
                    std::thread::park_timeout(LEADER_PAUSE);
                }
                answer => return answer.map_err(|source| self.failed(source)),
            }
        }
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

/// Whether the broker that was asked is not the partition's leader yet, or not any more.
fn is_between_leaders(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::NotLeaderForPartition | RDKafkaErrorCode::LeaderNotAvailable)
    )
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
    fn only_a_partition_between_two_leaders_is_asked_again() {
        for (code, expected) in [
            (RDKafkaErrorCode::NotLeaderForPartition, true),
            (RDKafkaErrorCode::LeaderNotAvailable, true),
            (RDKafkaErrorCode::UnknownTopicOrPartition, false),
            (RDKafkaErrorCode::TopicAuthorizationFailed, false),
        ] {
            assert_eq!(is_between_leaders(&KafkaError::MetadataFetch(code)), expected, "{code}");
        }
    }
}
