//! A row that is sent all the way: written as the application writes, read as a worker reads, by a client that joins no group.
//!
//! The row is the one of the connector's heartbeat, which wakes no handler. Where the write-ahead log is read without Kafka, a
//! slot of the probe's own that ends with its session takes the place of the connector.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::postgres::PgPool;
use sqlx::{Connection, PgConnection};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use super::codes;
use super::expected::{Expected, HEARTBEAT};
use super::finding::{Finding, Remedy};
use crate::decode::Decoder;
use crate::decode::registry::Registry;
use crate::decode::resolve;
use crate::event::delivery::{Content, RawRecord};
use crate::source::kafka;
use crate::source::kafka::follow::{Followed, Follower, From};

/// How long the row may take.
const WITHIN: Duration = Duration::from_secs(9);

/// Records that were read and are not looked at yet.
const AHEAD_MAX: usize = 64;

/// How long the row took on each part of the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trip {
    /// The parts, in their order.
    pub legs: Vec<Stretch>,
    /// From the statement to the decoded change, in milliseconds.
    pub total_ms: u64,
}

/// One part of the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stretch {
    /// From where to where.
    pub leg: &'static str,
    /// How long, in milliseconds. Where two machines' clocks are compared, what they differ by is in it.
    pub took_ms: i64,
}

/// What came of the probe.
#[derive(Debug)]
pub(super) enum Outcome {
    Arrived(Trip),
    Found(Finding),
}

/// The way by Kafka.
pub(super) async fn by_kafka(pool: &PgPool, options: kafka::Options, expected: &Expected) -> Outcome {
    let began = Instant::now();
    let (ready, started) = oneshot::channel();
    let (records, mut coming) = mpsc::channel(AHEAD_MAX);
    let name = format!("{}.{}", expected.source, HEARTBEAT.0);
    let reading = tokio::task::spawn_blocking(move || follow(&options, &name, ready, &records));
    let outcome = async {
        if timeout(WITHIN, started).await.is_err() {
            return Outcome::Found(lost("the topics could not be read"));
        }
        let written = match write(pool).await {
            Ok(written) => written,
            Err(error) => return Outcome::Found(unwritable(&error)),
        };
        let committed = Instant::now();
        match timeout(WITHIN, arrival(&mut coming, expected, written)).await {
            Ok(Some(Arrival::Change(raw))) => Outcome::Arrived(trip(began, committed, written, &raw)),
            Ok(Some(Arrival::Undecodable(reason))) => Outcome::Found(codes::PROBE_UNDECODABLE.found(
                format!("the change of {}.{} does not decode: {reason}", HEARTBEAT.0, HEARTBEAT.1),
                Remedy::shell("afterwrite tail # shows what records decode to; correct [source], [registry] or the connector's converters"),
            )),
            Ok(None) => Outcome::Found(lost("reading the topic ended")),
            Err(_) => Outcome::Found(lost(&format!("it did not come within {} s", WITHIN.as_secs()))),
        }
    }
    .await;
    drop(coming);
    if let Err(error) = reading.await {
        tracing::debug!(%error, "the reader of the probe ended abnormally");
    }
    outcome
}

/// Reads until nobody listens any more.
fn follow(options: &kafka::Options, name: &str, ready: oneshot::Sender<()>, records: &mpsc::Sender<Followed>) {
    let mut follower = match Follower::start(options, name, From::End) {
        Ok(follower) => follower,
        Err(error) => {
            tracing::debug!(%error, "the topics of the probe could not be read");
            return;
        }
    };
    if ready.send(()).is_err() {
        return;
    }
    while !records.is_closed() {
        match follower.next(Duration::from_millis(50)) {
            Ok(Some(followed)) => {
                if records.blocking_send(followed).is_err() {
                    return;
                }
            }
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(%error, "the topics of the probe could not be read on");
                return;
            }
        }
    }
}

enum Arrival {
    Change(RawRecord),
    Undecodable(String),
}

/// The record of the row that was written at this time.
async fn arrival(
    coming: &mut mpsc::Receiver<Followed>,
    expected: &Expected,
    written: DateTime<Utc>,
) -> Option<Arrival> {
    let decoder = Decoder::new(expected.decoding.clone());
    let registry = Registry::new(&expected.registry).ok();
    while let Some(followed) = coming.recv().await {
        let topic = &*followed.partition.topic;
        match resolve::content(&decoder, registry.as_ref(), topic, &followed.raw).await {
            Content::Change(event) => {
                let origin = event.origin();
                let is_ours = (&*origin.schema, &*origin.table) == HEARTBEAT;
                let text = event.after().and_then(|row| row.text("ts")).unwrap_or_default();
                let at = DateTime::parse_from_rfc3339(text).ok();
                // Another one may have been written over ours before it was read.
                if is_ours && at.is_some_and(|at| at.timestamp_micros() >= written.timestamp_micros()) {
                    return Some(Arrival::Change(followed.raw));
                }
            }
            Content::Undecodable(reason) => return Some(Arrival::Undecodable(reason)),
            Content::Skip(_) => {}
        }
    }
    None
}

async fn write(pool: &PgPool) -> Result<DateTime<Utc>, sqlx::Error> {
    sqlx::query_scalar(
        "INSERT INTO afterwrite.heartbeat (id, ts) VALUES (1, clock_timestamp())
         ON CONFLICT (id) DO UPDATE SET ts = excluded.ts RETURNING ts",
    )
    .fetch_one(pool)
    .await
}

fn trip(began: Instant, committed: Instant, written: DateTime<Utc>, raw: &RawRecord) -> Trip {
    let in_topic_ms = raw.timestamp_ms.unwrap_or_else(|| Utc::now().timestamp_millis());
    let stretch = |leg, took_ms: i64| Stretch {
        leg,
        took_ms: took_ms.max(0),
    };
    let since_committed = i64::try_from(committed.elapsed().as_millis()).unwrap_or(i64::MAX);
    let captured = (in_topic_ms - written.timestamp_millis()).clamp(0, since_committed.max(0));
    Trip {
        legs: vec![
            stretch(
                "written and committed in postgres",
                i64::try_from((committed - began).as_millis()).unwrap_or(i64::MAX),
            ),
            stretch("captured by the connector, and written to its topic", captured),
            stretch("read from the topic, and decoded", since_committed - captured),
        ],
        total_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
    }
}

/// The way through the log alone, on a session that may replicate.
pub(super) async fn by_log(pool: &PgPool, replicating: &PgPool, publication: &str) -> Outcome {
    let began = Instant::now();
    match timeout(WITHIN, through_slot(pool, replicating, publication)).await {
        Ok(Ok((committed, true))) => {
            let took = |from: Instant, to: Instant| i64::try_from((to - from).as_millis()).unwrap_or(i64::MAX);
            let now = Instant::now();
            Outcome::Arrived(Trip {
                legs: vec![
                    Stretch {
                        leg: "a slot made, written and committed in postgres",
                        took_ms: took(began, committed),
                    },
                    Stretch {
                        leg: "decoded from the log",
                        took_ms: took(committed, now),
                    },
                ],
                total_ms: u64::try_from((now - began).as_millis()).unwrap_or(u64::MAX),
            })
        }
        Ok(Ok((_, false))) => Outcome::Found(lost(&format!("publication {publication} does not send it"))),
        Ok(Err(error)) => Outcome::Found(unwritable(&error)),
        Err(_) => Outcome::Found(lost(&format!(
            "no slot could be made and read within {} s; a transaction that is open holds it up",
            WITHIN.as_secs()
        ))),
    }
}

async fn through_slot(pool: &PgPool, replicating: &PgPool, publication: &str) -> Result<(Instant, bool), sqlx::Error> {
    // A session of its own: the slot ends with it, also when this is given up in the middle.
    let mut session = PgConnection::connect_with(&replicating.connect_options()).await?;
    let slot = format!("afterwrite_doctor_{}", std::process::id());
    sqlx::query("SELECT pg_create_logical_replication_slot($1::name, 'pgoutput', true)")
        .bind(&slot)
        .execute(&mut session)
        .await?;
    write(pool).await?;
    let committed = Instant::now();
    // The messages of inserts and updates begin with I and U.
    let sent: bool = sqlx::query_scalar(
        "SELECT coalesce(bool_or(get_byte(data, 0) IN (73, 85)), false) FROM pg_logical_slot_peek_binary_changes($1::name, NULL, NULL,
             'proto_version', '1', 'publication_names', $2)",
    )
    .bind(&slot)
    .bind(publication)
    .fetch_one(&mut session)
    .await?;
    session.close().await?;
    Ok((committed, sent))
}

fn lost(how: &str) -> Finding {
    codes::PROBE_LOST.found(
        format!("a row of {}.{} was committed and did not arrive: {how}", HEARTBEAT.0, HEARTBEAT.1),
        Remedy::words(
            "mend what else is found, first of it what stands highest; when nothing is: see the log of Kafka Connect, and whether its \
             topics are renamed (RegexRouter)",
        ),
    )
}

fn unwritable(error: &sqlx::Error) -> Finding {
    codes::PROBE_UNWRITABLE.found(
        format!("a row of {}.{} could not be sent: {error}", HEARTBEAT.0, HEARTBEAT.1),
        Remedy::words("mend what else is found; when nothing is: see the log of Postgres"),
    )
}
