//! Messages of the log become deliveries: tables are known, changes numbered, printed and decoded.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use sqlx::postgres::PgPool;

use crate::decode::tables::Tables;
use crate::decode::{Decoded, Decoder};
use crate::event::delivery::{Content, Delivery, Position, RawRecord, SourcePartition};
use crate::source::wal::catalogue;
use crate::source::wal::envelope::{Change, Printer, Transaction};
use crate::source::wal::pgoutput::{self, Malformed, Message, Relation};
use crate::source::wal::progress::Progress;
use crate::source::wal::table::Table;
use crate::source::wal::visible::{Unseen, Visible};

/// Microseconds from 1970-01-01 to 2000-01-01, from which Postgres counts.
const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;

/// What is read of the log.
pub(super) struct Reading {
    pub(super) decoder: Arc<Decoder>,
    pub(super) printer: Printer,
    pub(super) partition: SourcePartition,
    /// First part of what the decoder takes for the topic of a table.
    pub(super) name: String,
    pub(super) wanted: Tables,
    /// Columns that are left out, each `schema.table.column`.
    pub(super) excluded: Vec<String>,
    pub(super) pool: PgPool,
    /// The tables that this session has described, by their oids; those that nobody wants without more.
    tables: HashMap<u32, Option<Known>>,
    transaction: Option<Transaction>,
    visible: Visible,
}

/// A table somebody wants.
struct Known {
    table: Table,
    topic: String,
}

/// The log cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// A message is none.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// A change of a table that was never described, or outside of a transaction.
    #[error("a change of table {relation} came before {what}")]
    Undescribed {
        /// The table's oid.
        relation: u32,
        /// What was to come first.
        what: &'static str,
    },
    /// The catalogue did not answer.
    #[error("table {table} could not be described")]
    Described {
        /// `schema.table`.
        table: String,
        /// What Postgres answered.
        #[source]
        source: sqlx::Error,
    },
}

impl Reading {
    pub(super) fn new(
        decoder: Arc<Decoder>,
        printer: Printer,
        partition: SourcePartition,
        name: String,
        wanted: Tables,
        excluded: Vec<String>,
        pool: PgPool,
    ) -> Self {
        Self {
            decoder,
            printer,
            partition,
            name,
            wanted,
            excluded,
            pool,
            tables: HashMap::new(),
            transaction: None,
            visible: Visible::default(),
        }
    }

    /// A session begins: it describes each table anew.
    pub(super) fn anew(&mut self) {
        self.tables.clear();
        self.transaction = None;
    }

    /// A transaction begins; `committed_us` counts as Postgres does. Its changes are not read before others can see them.
    pub(super) async fn begin(&mut self, xid: u32, committed_us: i64) -> Result<(), Unseen> {
        self.visible.wait_for(&self.pool, xid).await?;
        self.transaction = Some(Transaction {
            xid,
            committed_us: committed_us.saturating_add(POSTGRES_EPOCH_US),
        });
        Ok(())
    }

    /// Reads one message at this place of the log; what it tells of wanted tables is appended to `deliveries`.
    pub(super) async fn message(
        &mut self,
        lsn: u64,
        bytes: &Bytes,
        progress: &mut Progress,
        deliveries: &mut Vec<Delivery>,
    ) -> Result<(), Unreadable> {
        match pgoutput::parse(bytes)? {
            Message::Relation(relation) => self.describe(relation).await?,
            Message::Insert { relation, new } => {
                self.change(lsn, relation, Change::Insert(&new), progress, deliveries)?;
            }
            Message::Update { relation, old, new } => {
                self.change(lsn, relation, Change::Update(old.as_ref(), &new), progress, deliveries)?;
            }
            Message::Delete { relation, old } => {
                self.change(lsn, relation, Change::Delete(&old), progress, deliveries)?;
            }
            Message::Truncate { relations } => {
                for relation in relations {
                    self.change(lsn, relation, Change::Truncate, progress, deliveries)?;
                }
            }
            Message::Other => {}
        }
        Ok(())
    }

    async fn describe(&mut self, relation: Relation) -> Result<(), Unreadable> {
        let oid = relation.oid;
        let (schema, table) = (&relation.schema, &relation.table);
        if !self.wanted.contains(schema, table) {
            self.tables.insert(oid, None);
            return Ok(());
        }
        let described = catalogue::describe(&self.pool, &relation)
            .await
            .map_err(|source| Unreadable::Described {
                table: format!("{schema}.{table}"),
                source,
            })?;
        let topic = format!("{}.{schema}.{table}", self.name);
        let described_key = !described.key.is_empty();
        let table = Table::new(&relation, &described, &self.excluded);
        if described_key && !table.has_key() {
            tracing::warn!(
                table = topic,
                "a column of the primary key has a type that is left out of events: they have no key and cannot be told apart"
            );
        }
        let known = Known { table, topic };
        self.tables.insert(oid, Some(known));
        Ok(())
    }

    fn change(
        &self,
        lsn: u64,
        relation: u32,
        change: Change<'_>,
        progress: &mut Progress,
        deliveries: &mut Vec<Delivery>,
    ) -> Result<(), Unreadable> {
        let undescribed = |what| Unreadable::Undescribed { relation, what };
        let transaction = self.transaction.ok_or(undescribed("a transaction began"))?;
        let known = self.tables.get(&relation).ok_or(undescribed("it was described"))?;
        let first = progress.number();
        let Some(known) = known else { return Ok(()) };
        let records = self.printer.records(&known.table, transaction, lsn, change);
        for (record, place) in records.into_iter().zip(first.0..) {
            let position = Position(place);
            if !progress.was_settled(position) {
                progress.delivered(position);
                deliveries.push(self.delivery(known, position, record));
            }
        }
        Ok(())
    }

    fn delivery(&self, known: &Known, position: Position, raw: RawRecord) -> Delivery {
        let content = match self.decoder.decode_despite(&known.topic, &raw, &self.wanted, &[]) {
            Decoded::Content(content) => content,
            // What is printed here is JSON, which needs no schema.
            Decoded::MissingSchema(id) => {
                Content::Undecodable(format!("it names schema {id}, and there is no registry"))
            }
        };
        Delivery {
            partition: self.partition.clone(),
            position,
            raw,
            content,
        }
    }
}
