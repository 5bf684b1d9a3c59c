//! The newest record of partitions, read without joining a group: nothing is committed, and nobody is disturbed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::Message;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio::time::Instant;

use crate::clients::brokers::{Access, Listener};
use crate::clients::kafka::{client_config, offsets_at};
use crate::event::delivery::{Position, SourcePartition};
use crate::source::kafka::follow::Followed;
use crate::source::kafka::poll;

/// How far before the end it is looked for, one after the other: the last places may hold markers of transactions, which no
/// reader is given.
const PLACES_BEFORE_END: [i64; 2] = [1, 32];

/// What a partition holds at its end.
#[derive(Debug)]
pub enum Newest {
    /// Its newest record.
    Record(Followed),
    /// Nothing was ever written to it.
    Nothing,
    /// All that was written has been removed.
    Removed,
    /// It may not be read.
    Denied,
    /// No record came in time.
    Unread,
}

/// The partitions could not be asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The properties were refused.
    #[error("the kafka client could not be made: are kafka.properties right?")]
    Client(#[source] KafkaError),
    /// The broker did not answer, or refused.
    #[error("the newest records of topics could not be read")]
    Read(#[source] KafkaError),
}

/// Reads the newest record of each of these partitions, all at once. Blocks for at most `within`; what does not come by then is
/// [`Newest::Unread`].
///
/// # Errors
/// When the properties are refused, or a broker does not say where the partitions begin and end.
pub fn newest(
    access: &Access,
    partitions: &[(&str, i32)],
    within: Duration,
) -> Result<BTreeMap<(String, i32), Newest>, Error> {
    let deadline = Instant::now() + within;
    let left = || deadline.saturating_duration_since(Instant::now());
    let consumer = Listener::client(config(access), access.clone()).map_err(Error::Client)?;
    let at = |place| offsets_at(&consumer, partitions, place, left()).map_err(Error::Read);
    let begins: BTreeMap<(String, i32), i64> = by_place(at(Offset::Beginning)?);
    let ends = by_place(at(Offset::End)?);
    let mut found: BTreeMap<(String, i32), Newest> = BTreeMap::new();
    for (place, end) in &ends {
        let is_empty = begins.get(place).is_some_and(|begin| begin >= end);
        found.insert(
            place.clone(),
            match is_empty {
                true if *end == 0 => Newest::Nothing,
                true => Newest::Removed,
                false => Newest::Unread,
            },
        );
    }
    for back in PLACES_BEFORE_END {
        let missing = found.iter().filter(|(_, newest)| matches!(newest, Newest::Unread));
        let from: Vec<((String, i32), i64)> = missing
            .map(|(place, _)| {
                let begin = begins.get(place).copied().unwrap_or_default();
                (place.clone(), (ends[place] - back).max(begin))
            })
            .collect();
        if from.is_empty() {
            break;
        }
        read(&consumer, &from, deadline, &mut found).map_err(Error::Read)?;
    }
    Ok(found)
}

fn by_place(offsets: Vec<(String, i32, i64)>) -> BTreeMap<(String, i32), i64> {
    let places = offsets.into_iter();
    places
        .map(|(topic, partition, offset)| ((topic, partition), offset))
        .collect()
}

/// Reads on from these offsets until each partition has said that this was all, and keeps the last record of each.
fn read(
    consumer: &BaseConsumer<Listener>,
    from: &[((String, i32), i64)],
    deadline: Instant,
    found: &mut BTreeMap<(String, i32), Newest>,
) -> KafkaResult<()> {
    let mut list = TopicPartitionList::new();
    for ((topic, partition), offset) in from {
        list.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
    }
    consumer.assign(&list)?;
    // The client names the number of a partition that is at its end, or denied, and not the topic: so many are waited for.
    let mut ended = 0;
    let mut is_denied = false;
    while ended < from.len() && Instant::now() < deadline {
        match consumer.poll(Duration::from_millis(50)) {
            None => {}
            Some(Ok(message)) => {
                let place = (message.topic().to_owned(), message.partition());
                let record = Followed {
                    partition: SourcePartition {
                        topic: message.topic().into(),
                        partition: message.partition(),
                    },
                    position: Position(message.offset()),
                    raw: poll::copy(&message),
                };
                found.insert(place, Newest::Record(record));
            }
            Some(Err(KafkaError::PartitionEOF(_))) => ended += 1,
            Some(Err(KafkaError::MessageConsumption(RDKafkaErrorCode::TopicAuthorizationFailed))) => {
                is_denied = true;
                ended += 1;
            }
            Some(Err(error)) => tracing::debug!(%error, "reading newest records waits for the broker"),
        }
    }
    consumer.unassign()?;
    if is_denied {
        let asked: BTreeSet<&(String, i32)> = from.iter().map(|(place, _)| place).collect();
        for (_, newest) in found.iter_mut().filter(|(place, _)| asked.contains(place)) {
            if matches!(newest, Newest::Unread) {
                *newest = Newest::Denied;
            }
        }
    }
    Ok(())
}

fn config(access: &Access) -> ClientConfig {
    let mut config = client_config(&access.brokers, &access.properties);
    config
        // A name that the client library asks for: partitions are assigned by hand, and nothing is committed.
        .set("group.id", "afterwrite.reader")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("allow.auto.create.topics", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        // One record of each partition is wanted; a larger one comes all the same.
        .set("fetch.message.max.bytes", "65536")
        .set("fetch.wait.max.ms", "20");
    config
}
