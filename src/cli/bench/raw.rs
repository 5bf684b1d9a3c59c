//! `bench raw`: a bare poll loop over one topic, which is as fast as this client library gets.

use std::hint::black_box;
use std::time::Duration;

use clap::Args;
use rdkafka::consumer::Consumer;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};
use serde::Serialize;
use tokio::time::Instant;

use crate::app;
use crate::cli::Failure;
use crate::cli::bench::late::Late;
use crate::cli::bench::usage::{Threads, Usage, round, threads};
use crate::cli::bench::{Brokers, Cluster, print};
use crate::config::Config;
use crate::decode::Decoder;
use crate::event::delivery::RawRecord;

/// Longest silence before it is given up.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// Arguments of `bench raw`.
#[derive(Debug, Clone, Args)]
pub struct RawArgs {
    #[command(flatten)]
    brokers: Brokers,
    /// The topic, read from its beginning by no group
    #[arg(long, value_name = "TOPIC")]
    topic: String,
    /// Ends after so many records
    #[arg(long, value_name = "N")]
    records: u64,
    /// Parse each value as JSON into a tree
    #[arg(long, conflicts_with = "decode")]
    parse: bool,
    /// Decode each record into an event, as the worker does
    #[arg(long)]
    decode: bool,
    /// Tell how late records arrive after their timestamp, all but the first so many
    #[arg(long, value_name = "N")]
    late_after: Option<u64>,
}

/// What is done with each record.
enum Work {
    Count,
    Parse,
    Decode(Box<Decoder>),
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Report {
    mode: &'static str,
    records: u64,
    /// From the first record to the last one.
    seconds: f64,
    records_per_s: f64,
    value_mb: f64,
    #[serde(flatten)]
    usage: Usage,
    /// Records that are missing, and values that could not be parsed.
    missing: u64,
    /// How late records arrived, where that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    late_p50_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    late_p99_ms: Option<f64>,
    #[serde(flatten)]
    threads: Threads,
}

pub(super) async fn run(args: &RawArgs, config: &Config) -> Result<(), Failure> {
    let cluster = Cluster::of(&args.brokers, config);
    let work = match (args.parse, args.decode) {
        (true, _) => Work::Parse,
        (_, true) => {
            let mut options = app::options::decode_options(config);
            options.reads = true;
            Work::Decode(Box::new(Decoder::new(options)))
        }
        _ => Work::Count,
    };
    let args = args.clone();
    let report = super::blocking(move || measure(&args, &cluster, &work)).await?;
    print(&report)
}

fn measure(args: &RawArgs, cluster: &Cluster, work: &Work) -> Result<Report, Failure> {
    // The group is a name that the client insists on; it is never joined.
    let consumer = cluster.consumer("afterwrite.bench.raw")?;
    let mut list = TopicPartitionList::new();
    for (topic, partition, _, _) in cluster.extents(&consumer, std::slice::from_ref(&args.topic))? {
        list.add_partition_offset(&topic, partition, Offset::Beginning)
            .map_err(Failure::failed)?;
    }
    consumer.assign(&list).map_err(Failure::failed)?;
    let (mut records, mut bytes, mut failed) = (0, 0, 0);
    let mut first_at = None;
    let mut late = args.late_after.map(Late::after);
    while records < args.records {
        let Some(polled) = consumer.poll(IDLE_MAX) else { break };
        let message = polled.map_err(Failure::failed)?;
        first_at.get_or_insert_with(Instant::now);
        records += 1;
        bytes += message.payload_len();
        failed += u64::from(!work.succeeds(&message));
        if let (Some(late), Some(due_ms)) = (&mut late, message.timestamp().to_millis()) {
            late.done(due_ms);
        }
    }
    let late_ms = |share| late.as_ref().and_then(|late| late.percentile_ms(share));
    let seconds = first_at.map_or(0.0, |first| first.elapsed().as_secs_f64());
    Ok(Report {
        mode: work.name(),
        records,
        seconds: round(seconds, 3),
        records_per_s: round(records as f64 / seconds.max(1e-6), 0),
        value_mb: round(bytes as f64 / 1e6, 1),
        usage: Usage::now(),
        missing: args.records - records + failed,
        late_p50_ms: late_ms(0.5),
        late_p99_ms: late_ms(0.99),
        threads: threads(),
    })
}

impl Work {
    fn name(&self) -> &'static str {
        match self {
            Self::Count => "raw",
            Self::Parse => "parse",
            Self::Decode(_) => "decode",
        }
    }

    fn succeeds(&self, message: &BorrowedMessage<'_>) -> bool {
        match self {
            Self::Count => true,
            Self::Parse => message
                .payload()
                .is_none_or(|value| black_box(serde_json::from_slice::<serde_json::Value>(value)).is_ok()),
            Self::Decode(decoder) => {
                let copied = |bytes: &[u8]| bytes.to_vec().into();
                let record = RawRecord {
                    key: message.key().map(copied),
                    value: message.payload().map(copied),
                    ..RawRecord::default()
                };
                use crate::decode::Decoded;
                use crate::event::delivery::Content;
                let decoded = black_box(decoder.decode(message.topic(), &record));
                matches!(decoded, Decoded::Content(Content::Change(_) | Content::Skip(_)))
            }
        }
    }
}
