//! Records by hand: bytes that no connector would write, and reading topics back whole.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Duration;

use afterwrite::event::delivery::RawRecord;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use tokio::runtime::Handle;

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
    pub(crate) timestamp_ms: Option<i64>,
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
    assert!(try_configure(topic, settings).await, "{topic} could not be configured");
}

/// The same; `false` when the broker is away, or the topic is not there yet.
pub(crate) async fn try_configure(topic: &str, settings: &[(&str, &str)]) -> bool {
    let change = AlterConfig::new(ResourceSpecifier::Topic(topic));
    let change = settings
        .iter()
        .fold(change, |change, (name, value)| change.set(name, value));
    let altered = admin().alter_configs([&change], &AdminOptions::new()).await;
    altered.is_ok_and(|altered| altered.iter().all(Result::is_ok))
}

/// Deletes a group with its committed offsets.
pub(crate) async fn forget_group(group: &str) {
    for deleted in admin().delete_groups(&[group], &AdminOptions::new()).await.unwrap() {
        deleted.unwrap();
    }
}

/// Deletes the records before an offset of partition 0, as retention does.
pub(crate) async fn delete_before(topic: &str, offset: i64) {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Offset(offset)).unwrap();
    let deleted = admin().delete_records(&list, &AdminOptions::new()).await.unwrap();
    for element in deleted.elements() {
        element.error().unwrap();
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

/// Writes one record that names the trace it belongs to.
pub(crate) async fn write_traced(topic: &str, value: &str, trace: &str) {
    let producer: FutureProducer = config().create().unwrap();
    let header = Header {
        key: "traceparent",
        value: Some(trace),
    };
    let record = FutureRecord::to(topic)
        .key("{\"k\":1}")
        .payload(value)
        .headers(OwnedHeaders::new().insert(header));
    producer.send(record, Duration::from_secs(10)).await.unwrap();
}

/// Writes one record without a key.
pub(crate) async fn write_keyless(topic: &str, value: &[u8]) {
    let producer: FutureProducer = config().create().unwrap();
    let record: FutureRecord<'_, [u8], [u8]> = FutureRecord::to(topic).payload(value);
    producer.send(record, Duration::from_secs(10)).await.unwrap();
}

/// Writes records as they are, in order, to partition 0 of one topic.
pub(crate) struct Writer {
    producer: FutureProducer,
    topic: String,
}

impl Writer {
    pub(crate) fn of(topic: &str) -> Self {
        Self {
            producer: config().create().unwrap(),
            topic: topic.to_owned(),
        }
    }

    pub(crate) async fn write(&self, records: &[RawRecord]) {
        let sent = records.iter().map(async |raw| {
            let record: FutureRecord<'_, [u8], [u8]> = FutureRecord {
                key: raw.key.as_deref(),
                payload: raw.value.as_deref(),
                ..FutureRecord::to(&self.topic).partition(0)
            };
            self.producer.send(record, Duration::from_secs(10)).await.unwrap();
        });
        // Each is handed to the client when it is polled first, which is in this order.
        futures::future::join_all(sent).await;
    }
}

/// Writes a change of `work` as the connector would print it, to partition 0.
pub(crate) async fn write_change(topic: &str, k: i64, behaviour: &str) {
    write_change_to(topic, 0, k, behaviour).await;
}

/// The same, to another partition.
pub(crate) async fn write_change_to(topic: &str, partition: i32, k: i64, behaviour: &str) {
    let producer: FutureProducer = config().create().unwrap();
    send(&producer, topic, partition, k, &change(k, 1, behaviour)).await;
}

/// Writes changes of one row, one after the other.
pub(crate) async fn write_many_of(topic: &str, partition: i32, k: i64, versions: i64, behaviour: &str) {
    let producer: FutureProducer = config().create().unwrap();
    let values: Vec<String> = (1..=versions).map(|seq| change(k, seq, behaviour)).collect();
    let sent = values.iter().map(|value| send(&producer, topic, partition, k, value));
    // Each is handed to the client when it is polled first, which is in this order.
    futures::future::join_all(sent).await;
}

/// Writes one to a partition that was added a moment ago; `false` while it has no leader.
pub(crate) async fn try_write_change_to(topic: &str, partition: i32, k: i64) -> bool {
    let consumer: BaseConsumer = config().create().unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(10)).unwrap();
    let partitions = metadata.topics()[0].partitions();
    let is_led = partitions
        .iter()
        .any(|known| known.id() == partition && known.leader() >= 0);
    if is_led {
        write_change_to(topic, partition, k, "ok").await;
    }
    is_led
}

/// Writes so many changes of each of these rows to partition 0, one row's last change having the highest `seq`.
pub(crate) async fn write_versions(topic: &str, rows: std::ops::Range<i64>, versions: i64) {
    let producer: FutureProducer = config().create().unwrap();
    for seq in 1..=versions {
        for k in rows.clone() {
            send(&producer, topic, 0, k, &change(k, seq, "ok")).await;
        }
    }
}

/// Writes changes of these rows to partition 0 in one transaction, and commits or aborts it.
pub(crate) async fn write_in_transaction(topic: &str, rows: std::ops::Range<i64>, is_committed: bool) {
    let wait = Duration::from_secs(30);
    let mut settings = config();
    settings.set("transactional.id", format!("{topic}-{}", rows.start));
    let producer: FutureProducer = settings.create().unwrap();
    producer.init_transactions(wait).unwrap();
    producer.begin_transaction().unwrap();
    for k in rows {
        send(&producer, topic, 0, k, &change(k, 1, "ok")).await;
    }
    if is_committed {
        producer.commit_transaction(wait).unwrap();
    } else {
        producer.abort_transaction(wait).unwrap();
    }
}

/// Writes the change number `seq` of each of these rows, each row's to a partition of its own choice that stays the same.
pub(crate) async fn write_round(topic: &str, partitions: i64, rows: std::ops::Range<i64>, seq: i64) {
    let producer: FutureProducer = config().create().unwrap();
    let sent = rows.map(async |k| {
        let partition = i32::try_from(k % partitions).unwrap();
        send(&producer, topic, partition, k, &change(k, seq, "ok")).await;
    });
    for sending in sent {
        sending.await;
    }
}

/// Writes a change to partition 0 as if that had been so long ago.
pub(crate) async fn write_aged(topic: &str, k: i64, behaviour: &str, age: Duration) {
    let producer: FutureProducer = config().create().unwrap();
    let (key, value) = (format!("{{\"k\":{k}}}"), change(k, 1, behaviour));
    let now_ms = chrono::Utc::now().timestamp_millis();
    let record = FutureRecord::to(topic)
        .partition(0)
        .key(&key)
        .payload(&value)
        .timestamp(now_ms - i64::try_from(age.as_millis()).unwrap());
    producer.send(record, Duration::from_secs(10)).await.unwrap();
}

/// Removes the records before an offset of partition 0, as retention does.
pub(crate) async fn remove_before(topic: &str, offset: i64) {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Offset(offset)).unwrap();
    let removed = admin().delete_records(&list, &AdminOptions::new()).await.unwrap();
    for element in removed.elements() {
        element.error().unwrap();
    }
}

/// When all changes of this run were committed: the same for each, so that a change that is written twice is one event, and
/// so late that the ledger still knows the day.
static COMMITTED_MS: LazyLock<i64> = LazyLock::new(|| chrono::Utc::now().timestamp_millis());

/// A change of `work` as the connector would print it.
pub(crate) fn change(k: i64, seq: i64, behaviour: &str) -> String {
    let lsn = seq * 1_000_000 + k;
    let committed_ms = *COMMITTED_MS;
    format!(
        r#"{{"before":null,"after":{{"k":{k},"seq":{seq},"behaviour":"{behaviour}"}},"op":"c","source":{{"connector":"postgresql",
        "name":"it","db":"it","schema":"public","table":"work","ts_ms":{committed_ms},"txId":{k},"lsn":{lsn}}}}}"#
    )
}

async fn send(producer: &FutureProducer, topic: &str, partition: i32, k: i64, change: &str) {
    let key = format!("{{\"k\":{k}}}");
    let record = FutureRecord::to(topic).partition(partition).key(&key).payload(change);
    producer.send(record, Duration::from_secs(10)).await.unwrap();
}

/// Gives a topic more partitions.
pub(crate) async fn grow(topic: &str, partitions: usize) {
    let wanted = NewPartitions::new(topic, partitions);
    for grown in admin()
        .create_partitions([&wanted], &AdminOptions::new())
        .await
        .unwrap()
    {
        grown.unwrap();
    }
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

/// How far a group has committed one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reach {
    pub(crate) partition: i32,
    pub(crate) first: i64,
    pub(crate) committed: Option<i64>,
    pub(crate) end: i64,
}

/// How far a group has committed each partition of a topic.
pub(crate) fn reach(group: &str, topic: &str) -> KafkaResult<Vec<Reach>> {
    let wait = Duration::from_secs(10);
    let consumer: BaseConsumer = config().set("group.id", group).create()?;
    let metadata = consumer.fetch_metadata(Some(topic), wait)?;
    let mut list = TopicPartitionList::new();
    for partition in metadata.topics()[0].partitions() {
        list.add_partition(topic, partition.id());
    }
    let mut reached = Vec::new();
    for element in consumer.committed_offsets(list, wait)?.elements() {
        let (first, end) = consumer.fetch_watermarks(topic, element.partition(), wait)?;
        let committed = match element.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        };
        reached.push(Reach {
            partition: element.partition(),
            first,
            committed,
            end,
        });
    }
    Ok(reached)
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

/// How many partitions a topic has.
pub(crate) fn partitions(topic: &str) -> usize {
    let consumer: BaseConsumer = config().create().unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(10)).unwrap();
    metadata.topics()[0].partitions().len()
}

/// A setting of a topic.
pub(crate) async fn setting(topic: &str, name: &str) -> String {
    let asked = [ResourceSpecifier::Topic(topic)];
    let mut described = admin().describe_configs(&asked, &AdminOptions::new()).await.unwrap();
    let described = described.pop().unwrap().unwrap();
    described.get(name).unwrap().value.clone().unwrap()
}

/// The topics whose names begin so.
pub(crate) fn topics(prefix: &str) -> Vec<String> {
    let consumer: BaseConsumer = config().create().unwrap();
    let metadata = consumer.fetch_metadata(None, Duration::from_secs(10)).unwrap();
    let names = metadata.topics().iter().map(|topic| topic.name().to_owned());
    names.filter(|name| name.starts_with(prefix)).collect()
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

/// The same on a thread of its own, so that several topics can be read at once.
pub(crate) async fn read_beside(topic: &str) -> Vec<Record> {
    let (topic, runtime) = (topic.to_owned(), Handle::current());
    let reading = tokio::task::spawn_blocking(move || runtime.block_on(read_all(&topic)));
    reading.await.unwrap()
}

fn try_read_all(topic: &str) -> KafkaResult<Vec<Record>> {
    let wait = Duration::from_secs(10);
    let consumer: BaseConsumer = config()
        .set("group.id", "it.reader")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .create()
        .unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), wait)?;
    let mut list = TopicPartitionList::new();
    let mut ends = HashMap::new();
    for partition in metadata.topics()[0].partitions() {
        let (low, high) = consumer.fetch_watermarks(topic, partition.id(), wait)?;
        list.add_partition_offset(topic, partition.id(), Offset::Offset(low))
            .unwrap();
        if low < high {
            ends.insert(partition.id(), high);
        }
    }
    consumer.assign(&list).unwrap();
    let mut records = Vec::new();
    // Offsets have gaps, so records are not counted: a partition is read to where it ended, or to where it ends now. A topic
    // that is written all the time has no end to wait for.
    while !ends.is_empty() {
        let message = match consumer.poll(wait).expect("a record or the end of a partition") {
            Err(KafkaError::PartitionEOF(partition)) => {
                ends.remove(&partition);
                continue;
            }
            polled => polled?,
        };
        let Some(end) = ends.get(&message.partition()).copied() else {
            continue;
        };
        if message.offset() + 1 >= end {
            ends.remove(&message.partition());
        }
        if message.offset() >= end {
            continue;
        }
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
            timestamp_ms: message.timestamp().to_millis(),
        });
    }
    Ok(records)
}
