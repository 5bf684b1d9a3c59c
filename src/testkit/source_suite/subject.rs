//! What the suite asks of a source under test: to be started, written to, and looked at from behind.

use std::pin::Pin;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::event::delivery::{Content, Delivery, Position, RawRecord, SourceCommand, SourceEvent};

/// Something that is written to where the source reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// A row of `public.work` with `seq` 1 is inserted.
    Insert {
        /// Its primary key, the column `k`.
        k: i64,
    },
    /// Its column `seq` is changed.
    Update {
        /// The row.
        k: i64,
        /// What the column becomes.
        seq: i64,
    },
    /// It is deleted.
    Delete {
        /// The row.
        k: i64,
    },
    /// A change of a table nobody wants, of about a kilobyte.
    Unwanted,
    /// Bytes that cannot be decoded.
    Damaged(Vec<u8>),
}

/// What not every source has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// It lets a partition go while it runs on, and asks before.
    Revoking,
    /// It can lose a partition in a way that a test can bring about.
    Lost,
    /// It can meet bytes that cannot be decoded.
    Damaged,
    /// It obeys while the engine takes nothing.
    ObeysUnheard,
}

/// What resolves when a source has ended.
pub type Ended = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A source under test: one group, one partition, and nobody else who uses either.
#[async_trait(?Send)]
pub trait Subject {
    /// Starts a process of the group. It may have to wait until the partition is free.
    fn start(&self, commands: Receiver<SourceCommand>, events: mpsc::Sender<SourceEvent>) -> Ended;

    /// Commits these, in this order; together, where there is such a thing.
    async fn write(&self, writes: &[Write]);

    /// The first position that is not settled, as whoever comes next would find it.
    async fn kept(&self) -> Option<Position>;

    /// Whether nothing of what was written would be read again.
    async fn is_all_kept(&self) -> bool;

    /// Decodes the bytes of a delivery once more.
    fn decode(&self, delivery: &Delivery) -> Content;

    /// What it is without, and why; the check of that part is left out.
    fn lacks(&self, part: Part) -> Option<&'static str>;

    /// Has the owner let the partition go. Nothing, where a second process that starts is enough.
    async fn hand_over(&self) {}

    /// Takes the partition away from its owner.
    async fn take_away(&self) {}

    /// For how long a process that does nothing keeps its partition.
    fn patience(&self) -> Duration;

    /// Removes what was made for it, after a check that held.
    async fn remove(self)
    where
        Self: Sized,
    {
    }
}

/// The record that a connector would have written for this, as the `number`-th of a topic, and the tombstone behind it.
pub fn records(write: &Write, number: i64) -> Vec<RawRecord> {
    let source = |table: &str| {
        format!(
            r#"{{"connector":"postgresql","name":"suite","db":"suite","schema":"public","table":"{table}","ts_ms":1780000000000,"txId":{number},"lsn":{number}}}"#
        )
    };
    let row = |k: &i64, seq: &i64| format!(r#"{{"k":{k},"seq":{seq}}}"#);
    let key = |k: &i64| Some(format!(r#"{{"k":{k}}}"#).into());
    let change = |op: &str, before: &str, after: &str, table: &str| {
        let source = source(table);
        Some(format!(r#"{{"before":{before},"after":{after},"source":{source},"op":"{op}"}}"#).into())
    };
    let record = |key, value| RawRecord {
        key,
        value,
        ..RawRecord::default()
    };
    match write {
        Write::Insert { k } => vec![record(key(k), change("c", "null", &row(k, &1), "work"))],
        Write::Update { k, seq } => vec![record(key(k), change("u", "null", &row(k, seq), "work"))],
        Write::Delete { k } => {
            let deleted = record(key(k), change("d", &row(k, &0), "null", "work"));
            vec![deleted, record(key(k), None)]
        }
        Write::Unwanted => {
            let note = "x".repeat(1_000);
            let after = format!(r#"{{"k":1,"note":"{note}"}}"#);
            vec![record(key(&1), change("c", "null", &after, "unwanted"))]
        }
        Write::Damaged(bytes) => vec![record(None, Some(bytes.clone().into()))],
    }
}
