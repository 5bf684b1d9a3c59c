//! The events: changes as Debezium prints them, some rows far busier than others, written before and during the storm.

use std::sync::Mutex;
use std::time::Duration;

use afterwrite::cli::bench::envelope;
use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::statistics::Statistics;
use tokio::time::Instant;

use crate::chaos::plan::Plan;
use crate::stack;

/// Columns of a row, key and sequence included.
const COLUMNS: usize = 6;

/// This share of the events is there before the first member; the others come in so many portions.
pub(super) const BEFORE_PERCENT: usize = 60;
pub(super) const PORTIONS: usize = 20;

/// How long the broker may take to acknowledge everything, its own restarts included.
const FLUSH_MAX: Duration = Duration::from_secs(120);

/// Remembers how the client was, for when something does not arrive.
#[derive(Default)]
struct Seen(Mutex<Statistics>);

impl ClientContext for Seen {
    fn stats(&self, statistics: Statistics) {
        *self.0.lock().unwrap() = statistics;
    }
}

impl ProducerContext for Seen {
    type DeliveryOpaque = ();

    fn delivery(&self, delivered: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = delivered {
            panic!("an event could not be written: {error}");
        }
    }
}

/// The rows of all events in the order in which they are written; the n-th row comes 1/n times as often as the first.
pub(super) fn rows(plan: &Plan) -> Vec<u32> {
    let mut sum = 0.0;
    let weights = (1..=plan.rows).map(|rank| 1.0 / f64::from(rank));
    let sums: Vec<f64> = weights
        .map(|weight| {
            sum += weight;
            sum
        })
        .collect();
    let mut chance = plan.chance(1);
    let mut draw = || {
        // 53 bits are what a double holds.
        let drawn = (chance.next() >> 11) as f64 / (1_u64 << 53) as f64 * sum;
        sums.partition_point(|sum| *sum <= drawn).min(sums.len() - 1)
    };
    (0..plan.events).map(|_| u32::try_from(draw()).unwrap()).collect()
}

/// How many changes each row has.
pub(super) fn changes(plan: &Plan, rows: &[u32]) -> Vec<u32> {
    let mut changes = vec![0; plan.rows as usize];
    for row in rows {
        changes[*row as usize] += 1;
    }
    changes.extend((0..plan.large_wanted()).map(|_| 1));
    changes
}

/// Writes the events; `first_part` is told when those are there that come before the storm. Blocks.
pub(super) fn write(plan: &Plan, rows: &[u32], topic: &str, first_part: tokio::sync::oneshot::Sender<()>) {
    // The broker is killed meanwhile: nothing may be missing, twice or in another order because of that.
    let producer: BaseProducer<Seen> = ClientConfig::new()
        .set("bootstrap.servers", stack::address("KAFKA_BROKERS"))
        .set("partitioner", "murmur2_random")
        .set("enable.idempotence", "true")
        .set("linger.ms", "20")
        .set("reconnect.backoff.max.ms", "1000")
        .set("message.timeout.ms", "240000")
        .set("statistics.interval.ms", "1000")
        .create_with_context(Seen::default())
        .unwrap();
    let mut changes = vec![0_u64; plan.rows as usize];
    let mut value = String::new();
    let before = plan.events * BEFORE_PERCENT / 100;
    let portion = (plan.events - before).div_ceil(PORTIONS).max(1);
    let pause = plan.written_over / u32::try_from(PORTIONS).unwrap();
    let mut first_part = Some(first_part);
    for (number, row) in rows.iter().enumerate() {
        if number >= before && (number - before).is_multiple_of(portion) {
            flush(&producer);
            if let Some(told) = first_part.take() {
                told.send(()).unwrap();
            }
            let go_on = Instant::now() + pause;
            while Instant::now() < go_on {
                producer.poll(Duration::from_millis(50));
            }
        }
        let row = *row as usize;
        changes[row] += 1;
        value.clear();
        envelope::update(&mut value, number as u64, row, changes[row], COLUMNS).unwrap();
        send(&producer, topic, &envelope::key(row), &value);
    }
    flush(&producer);
}

/// Waits until everything is acknowledged; says of what is not how the client sees its brokers and partitions.
fn flush(producer: &BaseProducer<Seen>) {
    let Err(error) = producer.flush(FLUSH_MAX) else { return };
    let seen = producer.context().0.lock().unwrap();
    let brokers = seen.brokers.values().map(|broker| {
        let (unsent, unanswered) = (broker.outbuf_cnt, broker.waitresp_cnt);
        let (timeouts, retries, idle_us) = (broker.req_timeouts, broker.txretries, broker.rxidle);
        format!(
            "{} {} for {} us: {unsent} requests unsent, {unanswered} unanswered, {timeouts} timed out, {retries} repeated, \
             nothing heard for {idle_us} us",
            broker.name, broker.state, broker.stateage
        )
    });
    let partitions = seen.topics.values().flat_map(|topic| topic.partitions.values());
    let partitions =
        partitions.filter(|partition| partition.msgq_cnt + partition.xmit_msgq_cnt + partition.msgs_inflight > 0);
    let partitions = partitions.map(|partition| {
        let (queued, ready, flying) = (partition.msgq_cnt, partition.xmit_msgq_cnt, partition.msgs_inflight);
        format!(
            "[{}] at {}, leader {}: {queued} queued, {ready} ready, {flying} under way",
            partition.partition, partition.broker, partition.leader
        )
    });
    let told: Vec<String> = brokers.chain(partitions).collect();
    panic!(
        "{error}: {} events are not acknowledged; {:?}; {told:#?}",
        producer.in_flight_count(),
        seen.eos
    );
}

/// Hands a record to the client, waiting while its queue is full.
fn send(producer: &BaseProducer<Seen>, topic: &str, key: &str, value: &str) {
    let mut waiting = BaseRecord::to(topic).key(key).payload(value);
    while let Err((error, back)) = producer.send(waiting) {
        assert_eq!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull));
        producer.poll(Duration::from_millis(20));
        waiting = back;
    }
    producer.poll(Duration::ZERO);
}
