//! The events: changes as Debezium prints them, some rows far busier than others, written before and during the storm.

use std::time::Duration;

use afterwrite::cli::bench::envelope;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
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
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", stack::address("KAFKA_BROKERS"))
        .set("partitioner", "murmur2_random")
        .set("enable.idempotence", "true")
        .set("linger.ms", "20")
        .set("reconnect.backoff.max.ms", "1000")
        .set("message.timeout.ms", "120000")
        .create()
        .unwrap();
    let mut changes = vec![0_u64; plan.rows as usize];
    let mut value = String::new();
    let before = plan.events * BEFORE_PERCENT / 100;
    let portion = (plan.events - before).div_ceil(PORTIONS).max(1);
    let pause = plan.written_over / u32::try_from(PORTIONS).unwrap();
    let mut first_part = Some(first_part);
    for (number, row) in rows.iter().enumerate() {
        if number >= before && (number - before).is_multiple_of(portion) {
            producer.flush(FLUSH_MAX).unwrap();
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
    producer.flush(FLUSH_MAX).unwrap();
}

/// Hands a record to the client, waiting while its queue is full.
fn send(producer: &BaseProducer, topic: &str, key: &str, value: &str) {
    let mut waiting = BaseRecord::to(topic).key(key).payload(value);
    while let Err((error, back)) = producer.send(waiting) {
        assert_eq!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull));
        producer.poll(Duration::from_millis(20));
        waiting = back;
    }
    producer.poll(Duration::ZERO);
}
