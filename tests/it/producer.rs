//! Records by hand: bytes that no connector would write, and reading topics back whole.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{Headers, Message};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use crate::stack::{address, until};

/// What a broker answers while a partition's leader is being chosen.
const BETWEEN_LEADERS: [RDKafkaErrorCode; 2] = [
    RDKafkaErrorCode::NotLeaderForPartition,
    RDKafkaErrorCode::LeaderNotAvailable,
];

/// A record as it stands in a topic.
pub(crate) struct Record {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Record {
    /// The text of a header.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let (_, value) = self.headers.iter().find(|(known, _)| known == name)?;
        Some(String::from_utf8(value.clone()?).unwrap())
    }
}

fn config() -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address("KAFKA_BROKERS"));
    config
}

fn admin() -> AdminClient<DefaultClientContext> {
    config().create().unwrap()
}

/// Makes a topic of one partition.
pub(crate) async fn make_topic(topic: &str) {
    make_topic_of(topic, 1).await;
}

/// Makes a topic of some partitions.
pub(crate) async fn make_topic_of(topic: &str, partitions: i32) {
    let wanted = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    for made in admin().create_topics([&wanted], &AdminOptions::new()).await.unwrap() {
        made.unwrap();
    }
}

/// Sets the largest record a topic takes.
pub(crate) async fn limit_records(topic: &str, bytes_max: &str) {
    configure(topic, &[("max.message.bytes", bytes_max)]).await;
}

/// Gives a topic these settings of its own, and no others.
pub(crate) async fn configure(topic: &str, settings: &[(&str, &str)]) {
    let change = AlterConfig::new(ResourceSpecifier::Topic(topic));
    let change = settings
        .iter()
        .fold(change, |change, (name, value)| change.set(name, value));
    for altered in admin().alter_configs([&change], &AdminOptions::new()).await.unwrap() {
        altered.unwrap();
    }
}

/// Deletes a group with its committed offsets.
pub(crate) async fn forget_group(group: &str) {
    for deleted in admin().delete_groups(&[group], &AdminOptions::new()).await.unwrap() {
        deleted.unwrap();
    }
}

/// Writes one record.
pub(crate) async fn write(topic: &str, key: &[u8], value: &[u8]) {
    let producer: FutureProducer = config().create().unwrap();
    producer
        .send(FutureRecord::to(topic).key(key).payload(value), Duration::from_secs(10))
        .await
        .unwrap();
}

/// Writes a change of `work` as the connector would print it, to partition 0.
pub(crate) async fn write_change(topic: &str, k: i64, behaviour: &str) {
    write_change_to(topic, 0, k, behaviour).await;
}

/// The same, to another partition.
pub(crate) async fn write_change_to(topic: &str, partition: i32, k: i64, behaviour: &str) {
    let key = format!("{{\"k\":{k}}}");
    let change = format!(
        r#"{{"before":null,"after":{{"k":{k},"seq":1,"behaviour":"{behaviour}"}},"op":"c","source":{{"connector":"postgresql",
        "name":"it","db":"it","schema":"public","table":"work","ts_ms":1780000000000,"txId":{k},"lsn":{k}}}}}"#
    );
    let producer: FutureProducer = config().create().unwrap();
    let record = FutureRecord::to(topic).partition(partition).key(&key).payload(&change);
    producer.send(record, Duration::from_secs(10)).await.unwrap();
}

/// The committed offset of a group on partition 0 of a topic.
pub(crate) fn committed(group: &str, topic: &str) -> Option<i64> {
    let consumer: BaseConsumer = config().set("group.id", group).create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, 0);
    let committed = consumer.committed_offsets(list, Duration::from_secs(10)).unwrap();
    match committed.find_partition(topic, 0).unwrap().offset() {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    }
}

/// Whether a topic exists.
pub(crate) fn exists(topic: &str) -> bool {
    let consumer: BaseConsumer = config().create().unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(10)).unwrap();
    metadata
        .topics()
        .iter()
        .any(|known| known.error().is_none() && !known.partitions().is_empty())
}

/// Everything that stands in a topic now; a topic made a moment ago may have no leaders yet, and is asked again.
pub(crate) async fn read_all(topic: &str) -> Vec<Record> {
    until(
        "the leaders of the topic's partitions",
        Duration::from_secs(30),
        async || match try_read_all(topic) {
            Ok(records) => Some(records),
            Err(KafkaError::MetadataFetch(code) | KafkaError::MessageConsumption(code))
                if BETWEEN_LEADERS.contains(&code) =>
            {
                None
            }
            Err(error) => panic!("{topic} could not be read: {error}"),
        },
    )
    .await
}

fn try_read_all(topic: &str) -> KafkaResult<Vec<Record>> {
    let wait = Duration::from_secs(10);
    let consumer: BaseConsumer = config()
        .set("group.id", "it.reader")
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), wait)?;
    let mut list = TopicPartitionList::new();
    let mut left = 0;
    for partition in metadata.topics()[0].partitions() {
        let (low, high) = consumer.fetch_watermarks(topic, partition.id(), wait)?;
        list.add_partition_offset(topic, partition.id(), Offset::Offset(low))
            .unwrap();
        left += high - low;
    }
    consumer.assign(&list).unwrap();
    let mut records = Vec::new();
    for _ in 0..left {
        let message = consumer.poll(wait).expect("a record that the watermarks promise")?;
        let headers = message.headers().map(|headers| {
            headers
                .iter()
                .map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
                .collect()
        });
        records.push(Record {
            partition: message.partition(),
            offset: message.offset(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers: headers.unwrap_or_default(),
        });
    }
    Ok(records)
}
