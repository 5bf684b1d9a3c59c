//! The handler API: code that reacts to changes of rows.
//!
//! A handler is one trait with one method that works; everything else about delivery (order, retries, dead letters,
//! once-only effects) is the engine's. What a handler may answer is four verbs: done, skipped, later, or an error that
//! says whether it may heal.

mod building;

mod failure;

mod counting;

#[cfg(feature = "testkit")]
pub mod points;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::NaiveDate;
use sqlx::postgres::PgPool;
use sqlx::{PgConnection, Postgres, Transaction};

use crate::event::change::ChangeEvent;
use crate::event::id::EventId;
use crate::handler::counting::Counted;
use crate::ledger::LedgerKey;
use crate::ledger::effects::{Claim, Effects};
use crate::ledger::redo;
use crate::ledger::transaction::{self, Mode};

pub use self::failure::{Fault, HandlerError};

/// Reacts to changes.
///
/// # Contract
/// - Order: events of one ordering key arrive in commit order, one call at a time, across retries and restarts.
/// - Repetition: a call may be repeated at any time (crash, rebalance, retry). SQL run through [`Context::once`] takes
///   effect exactly once; anything else must tolerate repetition.
/// - Concurrency: calls for different ordering keys run in parallel.
/// - Cancellation: a call that outlives its time-out is dropped at its next await; its transaction rolls back.
/// - Durability: when the method returns `Ok`, its transaction is committed before the event counts as done.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Name, routes and limits. Must not change while the process runs.
    fn spec(&self) -> Spec;

    /// Whether this change of a routed table concerns the handler at all. Pure: decides on the event alone. What is
    /// not wanted costs no attempt and no ledger row.
    fn wants(&self, _event: &ChangeEvent) -> bool {
        true
    }

    /// The key on which this event must be alone in the whole system, or `None`. [`Context::once`] holds a
    /// transaction-level advisory lock on it; facts read after that are those the last holder left.
    fn exclusive(&self, _event: &ChangeEvent) -> Option<String> {
        None
    }

    /// Works on one event, or on several of one ordering key in order where [`Spec::coalesce_max`] allows it.
    ///
    /// # Errors
    /// A [`HandlerError`] that says whether trying again can help.
    async fn handle(&self, context: &mut Context, events: &[Arc<ChangeEvent>]) -> Result<Outcome, HandlerError>;
}

/// What a handler is called and what wakes it.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Stable name; it is part of the ledger's key, of the consumer group and of the dead-letter topic.
    pub name: String,
    /// The tables that wake it.
    pub routes: Vec<Route>,
    /// How many events of one ordering key one call may take; 1 means one at a time.
    pub coalesce_max: usize,
    /// Time-out of one attempt, when `[engine]` does not fit; what is configured for the handler or its group beats it.
    pub attempt_timeout: Option<Duration>,
}

/// One table that wakes a handler.
#[derive(Debug, Clone)]
pub struct Route {
    /// Schema of the table.
    pub schema: String,
    /// Name of the table.
    pub table: String,
    /// What keeps events in order.
    pub ordering: Ordering,
    /// What holds when the table has no primary key.
    pub keyless: Keyless,
}

/// What a route allows of a table without a primary key. Its rows cannot be told apart, so its events may have no identity and
/// no place in the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keyless {
    /// A process that is routed to such a table does not start.
    #[default]
    Refused,
    /// Events that come once more are worked on once more: what the handler does must tolerate it.
    AtLeastOnce,
}

/// Events with equal ordering keys are handled strictly one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ordering {
    /// The table's primary key.
    PrimaryKey,
    /// These columns of the row (of the new row, or of the old one when there is no new one).
    Columns(Vec<String>),
}

/// How a handler ended without an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The work is done.
    Done,
    /// Nothing had to be done, for this reason: a short constant such as `not_active`.
    Skipped(&'static str),
    /// Not now: try again after this time, without counting an attempt.
    Snooze(Duration),
}

/// What handlers of one group share: their database connections and the store of effects.
#[derive(Debug, Clone)]
pub struct Resources {
    /// Connections reserved for the group.
    pub pool: PgPool,
    /// Mails and calls.
    pub effects: Effects,
    /// Days of commit on which events of these handlers were marked to be done again.
    pub redo_days: Arc<BTreeSet<NaiveDate>>,
}

/// One attempt, as the handler sees it.
#[derive(Debug)]
pub struct Context {
    resources: Arc<Resources>,
    handler: Arc<str>,
    attempt: u32,
    mode: Mode,
    exclusive: BTreeSet<String>,
    events: Vec<Arc<ChangeEvent>>,
    accepted: Vec<String>,
    transaction: Option<Transaction<'static, Postgres>>,
    /// The handler was given the connection.
    worked: bool,
    counted: Counted,
}

/// The once-only part of an attempt: the ledger rows are written, and what runs on `connection` commits with them.
#[derive(Debug)]
pub struct Once<'a> {
    /// The events nobody did before, in order. Never empty.
    pub events: Vec<Arc<ChangeEvent>>,
    /// The connection inside the transaction.
    pub connection: &'a mut PgConnection,
}

impl Context {
    /// A context for one attempt of `handler` at `events`.
    pub fn new(
        resources: Resources,
        handler: &dyn Handler,
        events: &[Arc<ChangeEvent>],
        attempt: u32,
        mode: Mode,
    ) -> Self {
        let name = handler.spec().name.into();
        Self::named(Arc::new(resources), name, handler, events, attempt, mode)
    }

    /// As [`Context::new`], for who knows the handler's name: its spec is not made again for each attempt.
    pub(crate) fn named(
        resources: Arc<Resources>,
        name: Arc<str>,
        handler: &dyn Handler,
        events: &[Arc<ChangeEvent>],
        attempt: u32,
        mode: Mode,
    ) -> Self {
        Self {
            resources,
            handler: name,
            attempt,
            mode,
            exclusive: events.iter().filter_map(|event| handler.exclusive(event)).collect(),
            events: events.to_vec(),
            accepted: Vec::new(),
            transaction: None,
            worked: false,
            counted: Counted::default(),
        }
    }

    /// Counts from 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Whether this is the replay of a dead letter. It may run after later events of its key.
    pub fn replayed(&self) -> bool {
        matches!(self.mode, Mode::Replay { .. })
    }

    /// The handler's name.
    pub fn handler(&self) -> &str {
        &self.handler
    }

    /// Connections for reading facts before [`Context::once`].
    pub fn pool(&self) -> &PgPool {
        &self.resources.pool
    }

    /// Mails and calls.
    pub fn effects(&self) -> &Effects {
        &self.resources.effects
    }

    /// Claims an effect for the event of this attempt that was first to come: answers what may be done about it now, and the
    /// bytes to do it with. A replay also claims what had failed for good.
    ///
    /// # Errors
    /// Whatever Postgres answered, classified.
    pub async fn claim(&self, key: &str, rendered: &[u8]) -> Result<Claim, HandlerError> {
        let (effects, event) = (&self.resources.effects, self.first_event());
        let claim = effects.claim(key, &self.handler, event, rendered, self.replayed());
        let claim = claim.await?;
        #[cfg(feature = "testkit")]
        points::claimed(key, &claim).await?;
        Ok(claim)
    }

    /// Claims as [`Context::claim`] does, as the last statement of this transaction, and commits it: what has to be there
    /// before the call is there with the claim. Where there is no call to make, the transaction is rolled back.
    ///
    /// # Errors
    /// Whatever Postgres answered, classified.
    pub async fn claim_in(
        &self,
        transaction: Transaction<'_, Postgres>,
        key: &str,
        rendered: &[u8],
    ) -> Result<Claim, HandlerError> {
        let (effects, event) = (&self.resources.effects, self.first_event());
        let claim = effects.claim_in(transaction, key, &self.handler, event, rendered, self.replayed());
        let claim = claim.await?;
        #[cfg(feature = "testkit")]
        points::claimed(key, &claim).await?;
        Ok(claim)
    }

    /// Notes that the other side accepted the call of this effect: it is never made again, also when this attempt's
    /// transaction fails. Forgotten when the transaction has committed.
    pub fn accepted(&mut self, key: &str, reply: &str) {
        self.resources.effects.accepted(key, reply);
        self.accepted.push(key.to_owned());
        #[cfg(feature = "testkit")]
        points::passed(points::Point::accepted(key));
    }

    /// The events of this attempt that this handler has neither done nor buried, or is to do again; those that a replay
    /// brings back although they are buried are among them. For handlers that call before [`Context::once`]: what is
    /// settled must not be called for again.
    ///
    /// # Errors
    /// Whatever Postgres answered, classified.
    pub async fn unsettled(&self) -> Result<Vec<Arc<ChangeEvent>>, HandlerError> {
        Ok(transaction::unsettled(&self.resources.pool, &self.handler, &self.events, &self.mode).await?)
    }

    /// Lets the handler see the events of this attempt as something else; their ids must stay.
    pub(crate) fn rename_events(&mut self, renamed: impl Fn(&Arc<ChangeEvent>) -> Arc<ChangeEvent>) {
        for event in &mut self.events {
            *event = renamed(event);
        }
    }

    /// The event of this attempt that was first to come.
    pub fn first_event(&self) -> Option<EventId> {
        self.events.first().and_then(|event| event.id())
    }

    /// Opens the transaction whose SQL takes effect exactly once: ledger rows first, then the locks of
    /// [`Handler::exclusive`]. `None` when all events were done before: answer [`Outcome::Done`].
    ///
    /// The transaction commits when the handler returns `Ok`, and rolls back when it fails.
    ///
    /// # Errors
    /// Whatever Postgres answered, classified.
    ///
    /// # Panics
    /// When called twice in one attempt.
    pub async fn once(&mut self) -> Result<Option<Once<'_>>, HandlerError> {
        assert!(self.transaction.is_none(), "once() was called twice in one attempt");
        let opened = transaction::open(&self.resources.pool, &self.handler, &self.events, &self.mode).await?;
        let connection = self.transaction.insert(opened.transaction);
        if opened.pending.is_empty() {
            return Ok(None);
        }
        self.worked = true;
        for key in &self.exclusive {
            sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))")
                .bind(key)
                .execute(&mut **connection)
                .await?;
        }
        #[cfg(feature = "testkit")]
        points::reached(points::Point::Opened).await?;
        Ok(Some(Once {
            events: opened.pending,
            connection,
        }))
    }

    /// An attempt, but for its time-out: the handler, then the commit of what it opened. A snooze commits nothing.
    pub(crate) async fn handle_and_commit(
        mut self,
        handler: &dyn Handler,
        events: &[Arc<ChangeEvent>],
    ) -> Result<Outcome, HandlerError> {
        let outcome = handler.handle(&mut self, events).await?;
        // What was done before says nothing about whether it could be done now.
        let outcome = match outcome {
            Outcome::Done if self.found_all_done() => Outcome::Skipped("done_before"),
            outcome => outcome,
        };
        match outcome {
            Outcome::Done | Outcome::Skipped(_) if self.has_something_to_end() => Box::pin(self.commit()).await?,
            Outcome::Done | Outcome::Skipped(_) | Outcome::Snooze(_) => drop(self),
        }
        Ok(outcome)
    }

    /// Whether [`Context::once`] found that everything was done before.
    pub(crate) fn found_all_done(&self) -> bool {
        self.transaction.is_some() && !self.worked
    }

    /// Whether [`Context::commit`] has anything to do.
    fn has_something_to_end(&self) -> bool {
        self.transaction.is_some() || !self.resources.redo_days.is_empty() || !self.counted.is_empty()
    }

    /// Commits what [`Context::once`] opened. Called by whoever ran the handler, never by the handler.
    ///
    /// # Errors
    /// Whatever Postgres answered, classified. The outcome is then unknown; the ledger tells at the next attempt.
    pub async fn commit(mut self) -> Result<(), HandlerError> {
        let Some(mut transaction) = self.transaction.take() else {
            self.end_marks().await?;
            self.counted.count();
            return Ok(());
        };
        if self.worked {
            // Postgres answers the COMMIT of a failed transaction with a rollback and no error: a handler that
            // swallowed an error of its SQL would be taken for done.
            sqlx::raw_sql("SELECT 1").execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        self.counted.count();
        for key in &self.accepted {
            self.resources.effects.settled(key);
        }
        Ok(())
    }

    /// Ends an attempt that had nothing to write: events of it that were to be done again are done with that.
    async fn end_marks(&self) -> Result<(), HandlerError> {
        let may_be_marked = |key: &LedgerKey| self.resources.redo_days.contains(&key.commit_day);
        let mut keys: Vec<LedgerKey> = self.events.iter().filter_map(LedgerKey::of).collect();
        keys.retain(may_be_marked);
        if keys.is_empty() || self.mode != Mode::Deliver {
            return Ok(());
        }
        let mut connection = self.resources.pool.acquire().await?;
        redo::turn(&mut connection, &self.handler, &keys).await?;
        Ok(())
    }
}
