//! The write-ahead log of Postgres itself, without Kafka: logical replication by `pgoutput`, one slot for each group.
//!
//! Changes are printed as the records that Debezium would have written, and decoded from there.

pub mod pgoutput;

pub mod kind;

pub mod table;

pub mod catalogue;

pub mod envelope;

pub mod connection;

pub mod slot;

mod stream;

pub mod session;

pub mod reading;

mod behind;

mod caught_up;

mod list;

mod moment;

mod progress;

mod shape;

mod value;

mod visible;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use self::behind::Behind;
use self::connection::Connection;
use self::envelope::Printer;
use self::reading::Reading;
use self::session::Error;
use self::stream::Stream;
use crate::decode::Decoder;
use crate::decode::tables::Tables;
use crate::event::delivery::{SourceCommand, SourceEvent, SourcePartition};
use crate::ledger::claims::Claims;
use crate::ledger::slots::Slots;
use crate::ledger::sources::Sources;

/// Deliveries that wait for the engine at most.
pub const UNHEARD_MAX: usize = 256;

/// Settings of the source.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the log is read.
    pub connection: Connection,
    /// The group that reads.
    pub group: String,
    /// The publication that says which tables' changes are sent.
    pub publication: String,
    /// Logical name of the source: the `topic.prefix` of a connector that reads the same database.
    pub name: String,
    /// The tables whose changes are handed over.
    pub wanted: Tables,
    /// Columns that are left out, each `schema.table.column`.
    pub excluded: Vec<String>,
    /// What stands for a value that was not sent, as the decoder knows it.
    pub unavailable: String,
    /// Where the source tells how many bytes of log were sent to it that are not confirmed.
    pub log_behind: Arc<AtomicU64>,
    /// Where the source says that the group is to leave the log, because it goes on from another source.
    pub leaves: Arc<watch::Sender<bool>>,
    /// Whether the engine is told how much log is written that is not confirmed.
    pub tells_lag: bool,
}

/// A running source; its channel ends when it has left.
#[derive(Debug)]
pub struct Running {
    reading: JoinHandle<Result<(), Error>>,
    orders: std::thread::JoinHandle<()>,
}

impl Running {
    /// Waits until it has left.
    ///
    /// # Errors
    /// Why it ended by itself.
    pub async fn ended(self) -> Result<(), Error> {
        let ended = match self.reading.await {
            Ok(ended) => ended,
            Err(error) => {
                tracing::error!(%error, "the task that reads the write-ahead log ended abnormally");
                Ok(())
            }
        };
        let joined = tokio::task::spawn_blocking(move || self.orders.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            tracing::error!("the thread that passes orders on panicked");
        }
        ended
    }
}

/// The partition of a slot.
pub fn partition(slot: &str) -> SourcePartition {
    SourcePartition {
        topic: slot.into(),
        partition: 0,
    }
}

/// Starts the source: reads until it is told to leave, and whenever the log can be read.
///
/// # Errors
/// When no thread can be had. A database that is away is no error: the source waits for it.
pub fn start(
    options: Options,
    claims: Claims,
    slots: Slots,
    decoder: Arc<Decoder>,
    commands: std::sync::mpsc::Receiver<SourceCommand>,
    events: mpsc::Sender<SourceEvent>,
) -> Result<Running, std::io::Error> {
    let (passed_on, orders) = mpsc::unbounded_channel();
    let pass_on = move || {
        while let Ok(command) = commands.recv() {
            let is_last = matches!(command, SourceCommand::Leave(_));
            if passed_on.send(command).is_err() || is_last {
                return;
            }
        }
    };
    let thread = std::thread::Builder::new()
        .name(format!("orders {}", options.group))
        .spawn(pass_on)?;
    let printer = Printer::new(&options.name, options.connection.database(), &options.unavailable);
    let reading = Reading::new(
        decoder,
        printer,
        partition(slots.name()),
        options.name,
        options.wanted,
        options.excluded,
        slots.pool().clone(),
    );
    let sources = Sources::new(slots.pool().clone(), options.group.as_str());
    let stream = Stream {
        connection: options.connection,
        publication: options.publication,
        group: options.group,
        claims,
        slots,
        sources,
        reading,
        behind: Behind::told_to(options.log_behind),
        leaves: options.leaves,
        tells_lag: options.tells_lag,
        orders,
        events,
    };
    Ok(Running {
        reading: tokio::spawn(stream.run()),
        orders: thread,
    })
}
