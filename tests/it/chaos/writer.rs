//! Writes events in their order over a broker that is killed, as Kafka Connect does: what is not acknowledged when a client is
//! given up is written again, and may be there twice.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::statistics::Statistics;
use tokio::time::Instant;

use crate::stack;

/// How long the broker may take to acknowledge everything, its own restarts included.
const FLUSH_MAX: Duration = Duration::from_secs(120);

/// How often it is looked whether the client is of any use yet.
const LOOK_EVERY: Duration = Duration::from_secs(1);

pub(super) struct Writer {
    pub(super) producer: BaseProducer<Seen>,
    topic: String,
    /// Keys and values of what is not acknowledged, by the number of the event.
    open: BTreeMap<usize, (String, String)>,
    /// How many were written again.
    pub(super) again: usize,
}

/// What a client told of itself.
#[derive(Default)]
pub(super) struct Seen {
    statistics: Mutex<Statistics>,
    acknowledged: Mutex<Vec<usize>>,
}

impl ClientContext for Seen {
    fn stats(&self, statistics: Statistics) {
        *self.statistics.lock().unwrap() = statistics;
    }
}

impl ProducerContext for Seen {
    type DeliveryOpaque = usize;

    /// What is refused stays open: it is written again.
    fn delivery(&self, delivered: &DeliveryResult<'_>, number: usize) {
        if delivered.is_ok() {
            self.acknowledged.lock().unwrap().push(number);
        }
    }
}

fn producer() -> BaseProducer<Seen> {
    ClientConfig::new()
        .set("bootstrap.servers", stack::address("KAFKA_BROKERS"))
        .set("partitioner", "murmur2_random")
        .set("enable.idempotence", "true")
        .set("linger.ms", "20")
        .set("reconnect.backoff.max.ms", "1000")
        .set("message.timeout.ms", "240000")
        .set("statistics.interval.ms", "1000")
        .create_with_context(Seen::default())
        .unwrap()
}

impl Writer {
    pub(super) fn of(topic: &str) -> Self {
        Self {
            producer: producer(),
            topic: topic.to_owned(),
            open: BTreeMap::new(),
            again: 0,
        }
    }

    /// Hands an event to the client.
    pub(super) fn write(&mut self, number: usize, key: String, value: String) {
        send(&self.producer, &self.topic, number, &key, &value);
        self.open.insert(number, (key, value));
    }

    /// Waits until everything is acknowledged.
    pub(super) fn flush(&mut self) {
        let began = Instant::now();
        loop {
            let flushed = self.producer.flush(LOOK_EVERY);
            for number in self.producer.context().acknowledged.lock().unwrap().drain(..) {
                self.open.remove(&number);
            }
            if self.open.is_empty() {
                return;
            }
            // A client that has forgotten every broker looks for none: librdkafka issue 5301.
            if flushed.is_ok() || self.producer.context().statistics.lock().unwrap().brokers.is_empty() {
                self.begin_again();
            }
            assert!(began.elapsed() < FLUSH_MAX, "{}", self.standing());
        }
    }

    fn begin_again(&mut self) {
        self.producer = producer();
        self.again += self.open.len();
        for (number, (key, value)) in &self.open {
            send(&self.producer, &self.topic, *number, key, value);
        }
    }

    /// How the client sees its brokers, and the partitions for which it has anything.
    fn standing(&self) -> String {
        let seen = self.producer.context().statistics.lock().unwrap();
        let brokers = seen.brokers.values().map(|broker| {
            let (unsent, unanswered) = (broker.outbuf_cnt, broker.waitresp_cnt);
            format!(
                "{} {} for {} us: {unsent} requests unsent, {unanswered} unanswered",
                broker.name, broker.state, broker.stateage
            )
        });
        let partitions = seen.topics.values().flat_map(|topic| topic.partitions.values());
        let waiting = partitions.filter(|partition| partition.msgq_cnt + partition.xmit_msgq_cnt > 0);
        let waiting = waiting.map(|partition| {
            let (queued, ready, flying) = (partition.msgq_cnt, partition.xmit_msgq_cnt, partition.msgs_inflight);
            format!(
                "[{}] at {}, leader {}: {queued} queued, {ready} ready, {flying} under way",
                partition.partition, partition.broker, partition.leader
            )
        });
        let told: Vec<String> = brokers.chain(waiting).collect();
        format!(
            "{} events are not acknowledged; {told:#?}; {:?}",
            self.open.len(),
            seen.eos
        )
    }
}

/// Hands a record to the client, waiting while its queue is full.
fn send(producer: &BaseProducer<Seen>, topic: &str, number: usize, key: &str, value: &str) {
    let mut waiting = BaseRecord::with_opaque_to(topic, number).key(key).payload(value);
    while let Err((error, back)) = producer.send(waiting) {
        assert_eq!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull));
        producer.poll(Duration::from_millis(20));
        waiting = back;
    }
    producer.poll(Duration::ZERO);
}
