//! Delivers events to a handler through the whole engine, in one call: the real core, driver and retries, the real ledger, claims,
//! effects and dead letters in a Postgres; only the broker is a log in memory.
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use afterwrite::handler::Handler;
//! # async fn example(invoices: Arc<dyn Handler>) {
//! use afterwrite::handler::points::Point;
//! use afterwrite::testkit::kit::Kit;
//! use afterwrite::testkit::mishap::Mishap;
//! use afterwrite::testkit::report::Ended;
//! use afterwrite::testkit::table::Table;
//! use serde_json::json;
//!
//! let kit = Kit::new(invoices, "CREATE TABLE invoices (order_id int NOT NULL)").await;
//! let paid = Table::of("orders", ["id"]).insert(json!({"id": 1, "status": "paid"}));
//!
//! // One attempt fails; in the next one the process dies before the commit.
//! kit.script([Mishap::transient(), Mishap::die().at(Point::Returned)]);
//! let (first, again) = kit.deliver_twice(&paid).await;
//! assert_eq!(first.ended(), &Ended::Done, "{first}");
//! assert_eq!(first.attempts(), 3, "{first}");
//! assert_eq!(again.ended(), &Ended::Before("done".to_owned()), "{again}");
//! assert_eq!(kit.database().count("invoices").await, 1);
//! # }
//! ```
//!
//! Each delivery has a process of its own, as after a restart, and begins when the leases of the one before are over. Waits are
//! shortened to milliseconds, and a job is given up after its attempts although nothing else worked meanwhile; everything else is as
//! configured, and [`Kit::with`] configures it.

use std::sync::Arc;
use std::time::Duration;

use chrono::NaiveDate;
use tokio::time::{Instant, MissedTickBehavior};

use crate::app::options;
use crate::config::Config;
use crate::config::load::{Inputs, load};
use crate::dead_letter::filter::{self, Filter};
use crate::dead_letter::{kept, requests};
use crate::decode::{Decoded, Decoder};
use crate::event::change::ChangeEvent;
use crate::event::delivery::{Content, SourcePartition};
use crate::event::id::EventId;
use crate::handler::Handler;
use crate::ledger::LedgerKey;
use crate::ledger::registry;
use crate::source::memory::Log;
use crate::testkit::database::Database;
use crate::testkit::event::Recorder;
use crate::testkit::mishap::Mishap;
use crate::testkit::process::{Plan, Process};
use crate::testkit::report::{Call, CallEnd, Ended, Report};
use crate::testkit::table;
use crate::testkit::watched::{Notes, Watched};

/// How often it is looked whether everything is settled.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// How long a delivery may take before the test is told that it never ends.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);

/// How long an attempt may take, when nothing else is said; and where a time-out is scripted.
const ATTEMPT: Duration = Duration::from_secs(20);
const ATTEMPT_THAT_HANGS: Duration = Duration::from_millis(700);

/// Letters that one replay takes.
const LETTERS_MAX: i64 = 1_000;

/// A handler under test, with a database, and a log that brings it events.
pub struct Kit {
    database: Arc<Database>,
    handler: Arc<dyn Handler>,
    notes: Arc<Notes>,
    settings: Vec<String>,
    config: Config,
    group: String,
    decoder: Arc<Decoder>,
    log: Log,
    partition: SourcePartition,
    recorder: Option<Recorder>,
}

impl Kit {
    /// A handler over a new database in which `sql` was run.
    ///
    /// # Panics
    /// As [`Database::new`]; and when the handler's name cannot be registered.
    pub async fn new(handler: Arc<dyn Handler>, sql: &str) -> Self {
        Self::over(Arc::new(Database::new(sql).await), handler).await
    }

    /// Another handler over the same database, a group of its own.
    pub async fn beside(&self, handler: Arc<dyn Handler>) -> Self {
        Self::over(Arc::clone(&self.database), handler).await
    }

    async fn over(database: Arc<Database>, handler: Arc<dyn Handler>) -> Self {
        let spec = handler.spec();
        let config = configured(&[]);
        let group = config.group_name(&spec.name);
        let ordering = options::ordering_text(&spec);
        let name = registry::Name {
            name: &spec.name,
            was: None,
        };
        registry::register(database.pool(), name, &group, &ordering)
            .await
            .expect("the handler can be registered");
        let partition = SourcePartition {
            topic: group.as_str().into(),
            partition: 0,
        };
        Self {
            notes: Arc::new(Notes::new(database.pool().clone())),
            handler,
            settings: Vec::new(),
            config,
            group,
            decoder: Arc::new(table::decoder()),
            log: Log::new([partition.clone()]),
            partition,
            database,
            recorder: None,
        }
    }

    /// With a setting, written as after `--set`: `kit.with("handlers.invoices.on_bury=park")`.
    ///
    /// # Panics
    /// When the setting is refused.
    #[must_use]
    pub fn with(mut self, setting: &str) -> Self {
        self.settings.push(setting.to_owned());
        self.config = configured(&self.settings);
        self
    }

    /// The database.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Adds to the script: each attempt takes the next mishap, and those behind the last are left alone. A script goes on over
    /// deliveries.
    pub fn script(&self, mishaps: impl IntoIterator<Item = Mishap>) {
        self.notes.plan(mishaps);
    }

    /// Records what [`Kit::write`] changes in these tables of schema `public` from now on.
    ///
    /// # Panics
    /// When a table is not there, or recording began before.
    pub async fn record(&mut self, tables: &[&str]) {
        let recorder = Recorder::install(self.database.pool(), tables).await;
        self.recorder = Some(recorder.expect("the tables are there, and recorded once"));
    }

    /// Runs SQL as the application does, and answers the changes that a connector would have captured, in order.
    ///
    /// # Panics
    /// When it fails, or nothing is recorded.
    pub async fn write(&self, sql: &str) -> Vec<Arc<ChangeEvent>> {
        self.database.run(sql).await;
        let recorder = self.recorder.as_ref().expect("say record(&[…]) first");
        recorder.drain().await.expect("what was recorded can be read")
    }

    /// Delivers one event and waits until it is settled: done, skipped, or in the dead letters.
    ///
    /// # Panics
    /// When it is not settled within a minute; so do the three below.
    pub async fn deliver(&self, event: &Arc<ChangeEvent>) -> Report {
        self.deliver_all(std::slice::from_ref(event)).await
    }

    /// Delivers one event, and after it is settled once more to a new process, as after a crash or a rebalance.
    pub async fn deliver_twice(&self, event: &Arc<ChangeEvent>) -> (Report, Report) {
        let first = self.deliver(event).await;
        (first, self.deliver(event).await)
    }

    /// Delivers events together, in this order.
    pub async fn deliver_all(&self, events: &[Arc<ChangeEvent>]) -> Report {
        let mut before = Vec::with_capacity(events.len());
        for event in events {
            before.push(self.ledger_state(event).await);
            let raw = table::record(event);
            let decoded = match self.decoder.decode(&self.partition.topic, &raw) {
                Decoded::Content(Content::Change(decoded)) => decoded,
                other => panic!("the event cannot be delivered: {other:?}"),
            };
            assert_eq!(
                decoded.id(),
                event.id(),
                "the event is another one after it was printed"
            );
            self.log.append(&self.partition, raw, Content::Change(decoded));
        }
        let end = self.log.end(&self.partition);
        self.live_until(async || self.log.committed(&self.partition) >= end)
            .await;
        let mut report = self.report(events, &before).await;
        for (ended, event) in report.ended.iter_mut().zip(events) {
            // Nobody was called for it, and the handler wants it: it waits behind a letter.
            if *ended == Ended::Unwanted && self.is_wanted(event) {
                *ended = Ended::Parked;
            }
        }
        report
    }

    /// Replays the open dead letters of the handler, as `afterwrite dlq replay --all` does, and waits until each is done or failed
    /// again. The report's events are those of the letters, oldest first.
    pub async fn replay(&self) -> Report {
        let pool = self.database.pool();
        let chosen = Filter {
            group: Some(self.group.clone()),
            states: vec!["open".to_owned()],
            ..Filter::default()
        };
        let mut letters = filter::newest(pool, &chosen, LETTERS_MAX)
            .await
            .expect("letters can be read");
        letters.reverse();
        let (mut asked, mut events) = (Vec::new(), Vec::new());
        for letter in &letters {
            let record = kept::read(None, pool, letter)
                .await
                .expect("the letter's bytes are kept");
            if let Decoded::Content(Content::Change(event)) = self.decoder.decode(&self.partition.topic, &record) {
                events.push(event);
            }
            let request = requests::ask(pool, letter, &record, "a test").await;
            asked.extend(request.expect("a replay can be asked for"));
        }
        self.live_until(async || {
            let states = requests::states(pool, &asked).await.expect("requests can be read");
            states.iter().all(|state| state == "done" || state == "failed")
        })
        .await;
        self.report(&events, &vec![None; events.len()]).await
    }

    /// Runs a process until something is so; where one dies, another one after it.
    async fn live_until(&self, is_over: impl AsyncFn() -> bool) {
        let attempt_timeout = match self.notes.has_time_out() {
            true => ATTEMPT_THAT_HANGS,
            false => self.configured_timeout(),
        };
        let plan = Plan {
            database: &self.database,
            config: &self.config,
            group: &self.group,
            handler: Arc::new(Watched {
                handler: Arc::clone(&self.handler),
                notes: Arc::clone(&self.notes),
            }),
            decoder: &self.decoder,
            log: &self.log,
            partition: &self.partition,
            attempt_timeout,
        };
        let mut process = Process::start(&plan).await;
        let mut death = self.notes.death();
        let deadline = Instant::now() + SETTLED_WITHIN;
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                died = death.wait_for(|died| *died) => {
                    drop(died);
                    process = self.succeed(process, &plan).await;
                }
                _ = looks.tick() => {
                    if is_over().await {
                        break;
                    }
                    assert!(!process.is_gone(), "the engine ended by itself");
                    assert!(
                        Instant::now() < deadline,
                        "not settled within {SETTLED_WITHIN:?}; the calls so far: {:#?}",
                        self.notes.calls()
                    );
                }
            }
        }
        process.stop().await;
    }

    /// Ends a process that is to die, and starts the next one.
    async fn succeed(&self, process: Process, plan: &Plan<'_>) -> Process {
        // Before anything is dropped, so that no destructor says something else.
        self.notes.buried();
        process.kill().await;
        Process::start(plan).await
    }

    fn configured_timeout(&self) -> Duration {
        let spec = self.handler.spec();
        let chosen = self.config.attempt_timeout_of(&self.group, &spec.name);
        chosen.or(spec.attempt_timeout).unwrap_or(ATTEMPT)
    }

    fn is_wanted(&self, event: &ChangeEvent) -> bool {
        let origin = event.origin();
        let routes = self.handler.spec().routes;
        let is_routed = routes
            .iter()
            .any(|route| *route.schema == *origin.schema && *route.table == *origin.table);
        is_routed && self.handler.wants(event)
    }

    async fn ledger_state(&self, event: &Arc<ChangeEvent>) -> Option<String> {
        let key = LedgerKey::of(event)?;
        let found = sqlx::query_scalar(
            "SELECT state FROM afterwrite.ledger WHERE commit_day = $1 AND handler = $2 AND event_id = $3",
        )
        .bind::<NaiveDate>(key.commit_day)
        .bind(self.handler.spec().name)
        .bind(&key.event_id.0[..])
        .fetch_optional(self.database.pool())
        .await;
        found.expect("the ledger can be read")
    }

    async fn report(&self, events: &[Arc<ChangeEvent>], before: &[Option<String>]) -> Report {
        let mut calls = self.notes.take();
        Report::correct(&mut calls);
        let (pool, name) = (self.database.pool(), self.handler.spec().name);
        let letters = sqlx::query_as(
            "SELECT class, state, attempts, error, encode(event_id, 'hex') AS event_id FROM afterwrite.letters WHERE handler = $1 ORDER BY failed_at",
        )
        .bind(&name)
        .fetch_all(pool)
        .await
        .expect("letters can be read");
        let effects = sqlx::query_as(
            "SELECT effect_key, state, calls FROM afterwrite.effects WHERE handler = $1 ORDER BY effect_key",
        )
        .bind(&name)
        .fetch_all(pool)
        .await
        .expect("effects can be read");
        let mut report = Report {
            ended: Vec::with_capacity(events.len()),
            calls,
            letters,
            ledger: Vec::new(),
            effects,
        };
        for (event, before) in events.iter().zip(before) {
            let state = self.ledger_state(event).await;
            let ended = ended(&report, event.id(), before.as_deref(), state.as_deref());
            report.ended.push(ended);
            report.ledger.extend(state);
        }
        report
    }
}

/// How an event ended, from what the ledger said before and says now, from its letters, and from the calls for it.
fn ended(report: &Report, event: Option<EventId>, before: Option<&str>, now: Option<&str>) -> Ended {
    if let Some(state) = before {
        return Ended::Before(state.to_owned());
    }
    let hex = event.map(|id| id.to_string());
    let is_its = |letter: &&super::report::LetterSeen| letter.event_id == hex && letter.state == "open";
    if now != Some("done")
        && let Some(letter) = report.letters.iter().rfind(is_its)
    {
        return Ended::Buried(letter.class.clone());
    }
    let last: Option<&Call> = report.calls.iter().rfind(|call| call.events.contains(&event));
    match last.and_then(|call| call.ended.clone()) {
        None => Ended::Unwanted,
        Some(CallEnd::Skipped(reason)) => Ended::Skipped(reason),
        Some(_) => Ended::Done,
    }
}

fn configured(set: &[String]) -> Config {
    let inputs = Inputs {
        set: set.to_vec(),
        ..Inputs::default()
    };
    load(&inputs).unwrap_or_else(|error| panic!("{error}"))
}
