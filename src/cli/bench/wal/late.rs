//! How late changes are, of a steady writer: from the moment at which the statement of each was sent to that at which the
//! worker calls its handler, and at which `pg_recvlogical` has it. All read the same changes at the same time.

use std::collections::HashMap;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::ChildStdout;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

use crate::cli::Failure;
use crate::cli::bench::wal::connected::Connected;
use crate::cli::bench::wal::limit::Limit;
use crate::cli::bench::wal::table::Rows;
use crate::cli::bench::wal::worker::Running;
use crate::config::Config;

/// Numbers of changes begin there, so that none is a part of another text of a row.
const FIRST: i64 = 7_000_000_000;

/// Digits of each number.
const DIGITS: usize = 10;

/// After the last change everything has arrived by then.
const REST_MAX: Duration = Duration::from_secs(10);

/// The first change is there by way of Kafka by then.
const JOIN_MAX: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
#[error("no change came by way of Kafka within {} s: see the log of Kafka Connect", JOIN_MAX.as_secs())]
struct NotJoined;

/// Median and 99th percentile, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Delays {
    pub(super) limit: (f64, f64),
    pub(super) worker: (f64, f64),
    /// By the way through Kafka, where that is measured.
    pub(super) kafka: Option<(f64, f64)>,
}

/// The group that reads by way of Kafka.
pub(super) fn kafka_group(rows: &Rows) -> String {
    format!("{}_kafka", rows.name)
}

type Seen = mpsc::UnboundedReceiver<(i64, Instant)>;

/// Writes so many changes a second for so long; what comes in the first third is not counted.
pub(super) async fn measure(
    config: &Config,
    rows: &Rows,
    limit: &Limit,
    connected: Option<&Connected>,
    per_second: u32,
    seconds: u32,
) -> Result<Delays, Failure> {
    let names = ["limit", "worker"].map(|of| format!("{}_{of}_late", rows.name));
    for name in &names {
        rows.make_slot(name).await.map_err(Failure::failed)?;
    }
    let [of_limit, of_worker] = &names;
    let (told, by_worker) = mpsc::unbounded_channel();
    let running = Running::start(config, rows, of_worker, told)?;
    let group = kafka_group(rows);
    let (told, mut by_kafka) = mpsc::unbounded_channel();
    let running_connected = connected
        .map(|connected| Running::start_connected(config, rows, connected, &group, told))
        .transpose()?;
    let mut child = limit.follow(of_limit)?;
    let (told, by_limit) = mpsc::unbounded_channel();
    let reading = child.stdout.take().map(|stdout| tokio::spawn(watch(stdout, told)));
    if running_connected.is_some() {
        // It joins its group first.
        rows.change(FIRST - 1).await.map_err(Failure::failed)?;
        let heard = tokio::time::timeout(JOIN_MAX, by_kafka.recv()).await;
        heard.map_err(|_| Failure::failed(NotJoined))?;
    }
    let count = i64::from(per_second) * i64::from(seconds);
    let sent = write(rows, per_second, count).await.map_err(Failure::failed)?;
    let counted = FIRST + count / 3;
    let (limit, worker) = tokio::join!(delays(by_limit, &sent, counted), delays(by_worker, &sent, counted));
    running.stop().await?;
    let kafka = match running_connected {
        Some(running) => {
            let kafka = delays(by_kafka, &sent, counted).await;
            running.stop().await?;
            Some(kafka)
        }
        None => None,
    };
    child.kill().await.map_err(Failure::failed)?;
    if let Some(reading) = reading {
        reading.await.map_err(Failure::failed)?;
    }
    rows.drop_slot(of_limit).await.map_err(Failure::failed)?;
    rows.forget_slot(of_worker).await.map_err(Failure::failed)?;
    Ok(Delays { limit, worker, kafka })
}

/// Writes changes at their times; answers when each was sent.
async fn write(rows: &Rows, per_second: u32, count: i64) -> Result<HashMap<i64, Instant>, sqlx::Error> {
    let mut pace = tokio::time::interval(Duration::from_secs(1) / per_second);
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut sent = HashMap::new();
    for number in FIRST..FIRST + count {
        pace.tick().await;
        sent.insert(number, Instant::now());
        rows.change(number).await?;
    }
    Ok(sent)
}

/// Tells of each number as soon as it is in what was received.
async fn watch(mut received: ChildStdout, told: mpsc::UnboundedSender<(i64, Instant)>) {
    let mut rest: Vec<u8> = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = received.read(&mut buffer).await {
        let now = Instant::now();
        rest.extend_from_slice(buffer.get(..count).unwrap_or_default());
        let mut digits = 0;
        for (place, byte) in rest.iter().enumerate() {
            digits = if byte.is_ascii_digit() { digits + 1 } else { 0 };
            let number = rest
                .get((place + 1).saturating_sub(DIGITS)..=place)
                .filter(|_| digits >= DIGITS);
            let number = number.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
            if let Some(number @ FIRST..) = number
                && told.send((number, now)).is_err()
            {
                return;
            }
        }
        let kept = rest.len().saturating_sub(DIGITS - 1);
        rest.drain(..kept);
    }
}

async fn delays(mut seen: Seen, sent: &HashMap<i64, Instant>, counted: i64) -> (f64, f64) {
    let mut first_seen: HashMap<i64, Instant> = HashMap::new();
    let deadline = Instant::now() + REST_MAX;
    while first_seen.len() < sent.len() {
        match tokio::time::timeout_at(deadline, seen.recv()).await {
            Ok(Some((number, _))) if !sent.contains_key(&number) => {}
            Ok(Some((number, at))) => {
                first_seen.entry(number).or_insert(at);
            }
            Ok(None) | Err(_) => break,
        }
    }
    let late = |(number, at): (&i64, &Instant)| Some(first_seen.get(number)?.saturating_duration_since(*at));
    let mut late: Vec<Duration> = sent
        .iter()
        .filter(|(number, _)| **number >= counted)
        .filter_map(late)
        .collect();
    late.sort_unstable();
    let of = |share: f64| {
        let place = (late.len() as f64 * share).ceil() as usize;
        late.get(place.saturating_sub(1))
            .map_or(f64::NAN, |late| late.as_secs_f64() * 1e3)
    };
    (of(0.5), of(0.99))
}
