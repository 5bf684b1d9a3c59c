//! Records at a fixed pace. Each has the moment at which it is due as its timestamp, so that whoever reads it can tell how
//! late it is, whatever held the writer up.

use std::time::Duration;

use chrono::Utc;
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::cli::Failure;
use crate::cli::bench::fill::Draw;
use crate::cli::bench::{Cluster, envelope};

/// How long nothing is measured: readers join, and a JVM compiles.
pub(super) const WARM_UP_S: u64 = 20;

/// How long the last records may take to be acknowledged.
const FLUSH_MAX: Duration = Duration::from_secs(60);

/// What is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) per_s: u64,
    /// Records before the first that counts.
    pub(super) warm_up: u64,
    pub(super) records: u64,
    pub(super) keys: u32,
    pub(super) columns: usize,
}

#[derive(Debug, thiserror::Error)]
#[error("the records were not written")]
struct NotWritten(#[source] KafkaError);

impl Pace {
    /// Writes all records, each when it is due. Blocks.
    pub(super) fn write(&self, cluster: &Cluster, topic: &str) -> Result<(), Failure> {
        let failed = |error| Failure::failed(NotWritten(error));
        let mut client = cluster.client();
        client.set("linger.ms", "0").set("partitioner", "murmur2_random");
        let producer: BaseProducer = client.create().map_err(Failure::usage)?;
        let mut draw = Draw::new(self.keys, false);
        let mut sequences = vec![0_u64; self.keys as usize];
        let mut value = String::new();
        let began_ms = Utc::now().timestamp_millis();
        for number in 0..self.records {
            let row = draw.row();
            sequences[row] += 1;
            value.clear();
            envelope::update(&mut value, number, row, sequences[row], self.columns).map_err(Failure::failed)?;
            let due_ms = began_ms + i64::try_from(number * 1_000 / self.per_s).unwrap_or(i64::MAX);
            await_moment(due_ms, &producer);
            let key = envelope::key(row);
            let record = BaseRecord::to(topic).key(&key).payload(&value).timestamp(due_ms);
            producer.send(record).map_err(|(error, _)| failed(error))?;
        }
        producer.flush(FLUSH_MAX).map_err(failed)
    }
}

/// Waits without spinning: a thread that asks all the time would take a core from those who are measured.
fn await_moment(due_ms: i64, producer: &BaseProducer) {
    loop {
        producer.poll(Duration::ZERO);
        let left_us = due_ms * 1_000 - Utc::now().timestamp_micros();
        match u64::try_from(left_us) {
            Ok(0) | Err(_) => return,
            Ok(left_us) => std::thread::park_timeout(Duration::from_micros(left_us)),
        }
    }
}
