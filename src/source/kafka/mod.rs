//! The Kafka source: one consumer, one thread that only polls, one task that decodes.
//!
//! ```text
//! broker ─▶ poll thread ─(bounded)─▶ decoding task ─▶ engine
//!                ▲                                      │
//!                └──────────── commands ◀───────────────┘
//! ```
//!
//! The thread polls, pauses, resumes and commits; it never decodes and never runs a handler. Rebalances travel through
//! the same channel as records, so the engine hears of them in the order in which they happened, and a revocation blocks
//! the thread until the engine has let the partitions go or its budget is spent.

mod asking;

mod assignment;

mod beginning;

mod behind;

pub use beginning::is_subscribed;

mod client;

mod commits;

mod decoding;

pub mod follow;

mod gaps;

pub mod newest;

mod objections;

mod pauses;

mod poll;

pub mod protocol;

mod retention;

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use crate::decode::Decoder;
use crate::decode::registry::Registry;
use crate::decode::tables::Tables;
use crate::event::delivery::{SourceCommand, SourceEvent};
use crate::event::distance::Distance;
use crate::ledger::beginnings::Beginnings;
use crate::ledger::claims::Claims;
use crate::source::kafka::protocol::Membership;

/// Records between the poll thread and the decoding task.
const UNDECODED_MAX: usize = 512;

/// Events between the decoding task and the engine, which takes them also while its window is full: the bound is for
/// memory, and never holds a revocation back for long. What waits here for longer than it takes to decode the next few
/// hundred has left the processor's cache when the engine comes to it.
pub const UNHEARD_MAX: usize = 256;

/// Settings of the source.
#[derive(Debug, Clone)]
pub struct Options {
    /// `host:port` of brokers, comma separated.
    pub brokers: String,
    /// The consumer group.
    pub group: String,
    /// The tables whose changes are read; those of others are skipped.
    pub wanted: Tables,
    /// The topics; those that do not exist yet are picked up when they appear.
    pub topics: Vec<String>,
    /// Where a group that never ran starts.
    pub start: Start,
    /// Further librdkafka properties, such as those of TLS and SASL.
    pub properties: Vec<(String, String)>,
    /// How the process takes part in the group.
    pub membership: Membership,
    /// How long a rebalance may keep the poll thread from polling.
    pub budgets: Budgets,
    /// Where the number of records is told that the topics have and the group has not settled, over all partitions of the
    /// process.
    pub events_behind: Arc<Distance>,
}

/// How long a rebalance may keep the poll thread from polling. All three together must be shorter than
/// `max.poll.interval.ms`, after which the group takes the member for dead.
#[derive(Debug, Clone, Copy)]
pub struct Budgets {
    /// How long a revocation waits for the engine.
    pub revoke: Duration,
    /// How long the positions of a revocation, or of a stop, may take to be committed.
    pub commit: Duration,
    /// How long assigned partitions may wait for their claims.
    pub claim: Duration,
}

impl Budgets {
    /// For clients that join no group.
    pub const NONE: Self = Self {
        revoke: Duration::ZERO,
        commit: Duration::ZERO,
        claim: Duration::ZERO,
    };
}

/// What the source keeps about its group, where it outlives the process.
#[derive(Debug, Clone)]
pub struct Kept {
    /// Who owns which partition.
    pub claims: Claims,
    /// Where the group began.
    pub beginnings: Beginnings,
}

/// Where a group that never ran starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the oldest record there is.
    Earliest,
    /// After the newest record.
    Latest,
}

/// The source could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The properties were refused.
    #[error("kafka client of group {group} could not be made")]
    MadeClient {
        /// The consumer group.
        group: String,
        /// What librdkafka said.
        #[source]
        source: rdkafka::error::KafkaError,
    },
    /// The operating system gave no thread.
    #[error("poll thread of group {group} could not be started")]
    StartedThread {
        /// The consumer group.
        group: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// A running source; its channels end when it has left the group.
#[derive(Debug)]
pub struct Running {
    thread: std::thread::JoinHandle<()>,
    decoding: tokio::task::JoinHandle<()>,
    retention: tokio::task::JoinHandle<()>,
}

impl Running {
    /// Waits until the consumer has left its group.
    pub async fn ended(self) {
        let thread = self.thread;
        let joined = tokio::task::spawn_blocking(move || thread.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            tracing::error!("the poll thread panicked");
        }
        if self.decoding.await.is_err() {
            tracing::error!("the decoding task panicked");
        }
        // It may be in the middle of a question to a broker that is away, and nobody waits for the answer any more.
        self.retention.abort();
    }
}

/// Starts the source: checks the properties, then polls until it is told to leave. `stop` only ends what would make it
/// deaf to that, such as waiting for a database that is away.
///
/// # Errors
/// When the properties are refused or no thread can be had. An unreachable broker is no error: the source waits for it.
pub fn start(
    options: Options,
    kept: Kept,
    decoder: Arc<Decoder>,
    registry: Option<Arc<Registry>>,
    commands: mpsc::Receiver<SourceCommand>,
    events: tokio::sync::mpsc::Sender<SourceEvent>,
    stop: tokio::sync::watch::Receiver<bool>,
) -> Result<Running, Error> {
    let (records, undecoded) = tokio::sync::mpsc::channel(UNDECODED_MAX / client::BATCH_MAX);
    let group = options.group.clone();
    let wanted = options.wanted.clone();
    let (frontiers, watched) = tokio::sync::watch::channel(retention::Frontiers::new());
    let retention = retention::Watch::new(&options, watched, events.downgrade());
    let (pauses, paused_by_decoding) = mpsc::channel();
    let poller = poll::Poller::new(
        options,
        kept,
        records,
        poll::Orders::new(commands, paused_by_decoding),
        frontiers,
        stop,
    )
    .map_err(|source| Error::MadeClient {
        group: group.clone(),
        source,
    })?;
    let decoding = decoding::Decoding::new(decoder, wanted, registry, undecoded, events, pauses);
    let decoding = tokio::spawn(decoding.run());
    let thread = std::thread::Builder::new()
        .name(format!("poll {group}"))
        .spawn(move || poller.run())
        .map_err(|source| Error::StartedThread { group, source })?;
    Ok(Running {
        thread,
        decoding,
        retention: tokio::spawn(retention.run()),
    })
}

#[cfg(test)]
mod tests;
