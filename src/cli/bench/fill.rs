//! `bench fill`: writes a topic of changes, some rows far busier than others.

use std::time::Duration;

use clap::Args;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::cli::Failure;
use crate::cli::bench::usage::round;
use crate::cli::bench::{Brokers, Cluster, envelope, print, schema};
use crate::config::Config;

/// How long the last records may take to be acknowledged.
const FLUSH_MAX: Duration = Duration::from_secs(60);

/// Arguments of `bench fill`.
#[derive(Debug, Clone, Args)]
pub struct FillArgs {
    #[command(flatten)]
    brokers: Brokers,
    /// The topic; it is made, or must be empty
    #[arg(long, value_name = "TOPIC")]
    topic: String,
    #[command(flatten)]
    shape: Shape,
}

/// What the topic holds.
#[derive(Debug, Clone, Args)]
pub(super) struct Shape {
    /// Changes to write
    #[arg(long, value_name = "N", default_value_t = 200_000)]
    pub(super) records: u64,
    /// Rows that are changed
    #[arg(long, value_name = "K", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(super) keys: u32,
    /// Columns of a row, key and sequence included
    #[arg(long, value_name = "C", default_value_t = 25, value_parser = clap::value_parser!(u16).range(2..=1_000))]
    pub(super) columns: u16,
    /// Partitions of a topic that is made
    #[arg(long, value_name = "P", default_value_t = 8, value_parser = clap::value_parser!(i32).range(1..=1_000))]
    pub(super) partitions: i32,
    /// The n-th row is changed 1/n times as often as the first (the default)
    #[arg(long, conflicts_with = "uniform")]
    pub(super) zipf: bool,
    /// All rows are changed equally often
    #[arg(long)]
    pub(super) uniform: bool,
    /// Each value has its Connect schema before it, as Kafka's JSON converter prints it by default
    #[arg(long)]
    pub(super) with_schema: bool,
}

/// What was written.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Report {
    pub(super) topic: String,
    pub(super) records: u64,
    pub(super) keys: u32,
    /// Changes of the busiest row: they can only be handled one after the other.
    pub(super) busiest_key_records: u64,
    pub(super) value_bytes_mean: f64,
    pub(super) seconds: f64,
}

#[cfg(test)]
impl Report {
    /// Of a topic with a tenth of its records on the busiest key.
    pub(super) fn sample() -> Self {
        Self {
            topic: "t".to_owned(),
            records: 1_000,
            keys: 10,
            busiest_key_records: 100,
            value_bytes_mean: 2_000.0,
            seconds: 1.0,
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum FillError {
    #[error("record {number} could not be handed to the client")]
    Sent { number: u64, source: KafkaError },
    #[error("the records were not acknowledged within {} s", FLUSH_MAX.as_secs())]
    Flushed(#[source] KafkaError),
    #[error("topic {topic} holds {found} of {wanted} records")]
    Lost { topic: String, found: i64, wanted: u64 },
}

pub(super) async fn run(args: &FillArgs, config: &Config) -> Result<(), Failure> {
    let cluster = Cluster::of(&args.brokers, config);
    print(&fill(&cluster, &args.topic, &args.shape).await?)
}

/// Makes the topic and writes it.
pub(super) async fn fill(cluster: &Cluster, topic: &str, shape: &Shape) -> Result<Report, Failure> {
    cluster.make_empty(topic, shape.partitions).await?;
    let (cluster, topic, shape) = (cluster.clone(), topic.to_owned(), shape.clone());
    super::blocking(move || {
        let report = write(&cluster, topic, &shape)?;
        let consumer = cluster.consumer("afterwrite.bench.look")?;
        let extents = cluster.extents(&consumer, std::slice::from_ref(&report.topic))?;
        let found: i64 = extents.iter().map(|(_, _, low, high)| high - low).sum();
        if u64::try_from(found) != Ok(report.records) {
            return Err(Failure::failed(FillError::Lost {
                topic: report.topic,
                found,
                wanted: report.records,
            }));
        }
        Ok(report)
    })
    .await
}

fn write(cluster: &Cluster, topic: String, shape: &Shape) -> Result<Report, Failure> {
    let began = Instant::now();
    let mut client = cluster.client();
    client
        .set("partitioner", "murmur2_random")
        .set("enable.idempotence", "true")
        .set("linger.ms", "20")
        .set("batch.size", "524288")
        .set("queue.buffering.max.kbytes", "131072");
    let producer: BaseProducer = client.create().map_err(Failure::usage)?;
    let keys: Vec<String> = (0..shape.keys as usize).map(envelope::key).collect();
    let mut headers = OwnedHeaders::new_with_capacity(envelope::HEADERS.len());
    for (key, value) in envelope::HEADERS {
        headers = headers.insert(Header {
            key,
            value: Some(value),
        });
    }
    let columns = usize::from(shape.columns);
    let schema = shape.with_schema.then(|| schema::connect(columns).to_string());
    let mut draw = Draw::new(shape.keys, shape.uniform);
    let mut sequences = vec![0_u64; keys.len()];
    let mut value = String::new();
    let mut bytes = 0;
    for number in 0..shape.records {
        let row = draw.row();
        sequences[row] += 1;
        value.clear();
        if let Some(schema) = &schema {
            value.extend([r#"{"schema":"#, schema, r#","payload":"#]);
        }
        envelope::update(&mut value, number, row, sequences[row], columns).map_err(Failure::failed)?;
        if schema.is_some() {
            value.push('}');
        }
        bytes += value.len();
        let record = BaseRecord::to(&topic)
            .key(keys[row].as_str())
            .payload(value.as_str())
            .headers(headers.clone());
        send(&producer, record).map_err(|source| Failure::failed(FillError::Sent { number, source }))?;
    }
    let flushed = producer.flush(FLUSH_MAX);
    flushed.map_err(|error| Failure::unreachable(FillError::Flushed(error)))?;
    Ok(Report {
        topic,
        records: shape.records,
        keys: shape.keys,
        busiest_key_records: sequences.iter().copied().max().unwrap_or_default(),
        value_bytes_mean: round(bytes as f64 / shape.records.max(1) as f64, 1),
        seconds: round(began.elapsed().as_secs_f64(), 1),
    })
}

/// Hands a record to the client, waiting while its queue is full.
fn send(producer: &BaseProducer<DefaultProducerContext>, record: BaseRecord<'_, str, str>) -> Result<(), KafkaError> {
    let mut waiting = record;
    loop {
        match producer.send(waiting) {
            Ok(()) => {
                producer.poll(Duration::ZERO);
                return Ok(());
            }
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                producer.poll(Duration::from_millis(20));
                waiting = back;
            }
            Err((error, _)) => return Err(error),
        }
    }
}

/// Draws rows, the same ones at each run.
pub(super) struct Draw {
    state: u64,
    /// The sum of the weights of all rows up to each.
    sums: Vec<f64>,
}

impl Draw {
    pub(super) fn new(keys: u32, uniform: bool) -> Self {
        let mut sum = 0.0;
        let weights = (1..=keys).map(|rank| if uniform { 1.0 } else { 1.0 / f64::from(rank) });
        let sums = weights
            .map(|weight| {
                sum += weight;
                sum
            })
            .collect();
        Self { state: 42, sums }
    }

    pub(super) fn row(&mut self) -> usize {
        let total = self.sums.last().copied().unwrap_or_default();
        // 53 bits are what a double holds.
        let drawn = (self.next() >> 11) as f64 / (1_u64 << 53) as f64 * total;
        self.sums.partition_point(|sum| *sum <= drawn).min(self.sums.len() - 1)
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(uniform: bool) -> Vec<u32> {
        let mut draw = Draw::new(100, uniform);
        let mut counts = vec![0; 100];
        for _ in 0..100_000 {
            counts[draw.row()] += 1;
        }
        counts
    }

    #[test]
    fn rows_are_drawn_as_often_as_asked() {
        let zipf = counts(false);
        // 1 / (1 + 1/2 + … + 1/100) of all draws fall on the first row.
        assert!((19_000..19_600).contains(&zipf[0]), "{}", zipf[0]);
        assert!((9_400..9_900).contains(&zipf[1]), "{}", zipf[1]);
        assert!(counts(true).iter().all(|count| (850..1_150).contains(count)));
    }
}
