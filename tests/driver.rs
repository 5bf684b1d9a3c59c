//! The driver over a scripted source: what it tells the source, under which epoch, and what it does at the stop.
//!
//! No services: the handler touches no database, and nothing is buried.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use afterwrite::engine::core::messages::{HandlerLimits, Limits};
use afterwrite::engine::counts::Counts;
use afterwrite::engine::driver::{self, Channels, Halted, OnUndecodable, Owned, Setup, Times};
use afterwrite::engine::letter::{BuryError, Letter, Letters};
use afterwrite::engine::retry::{Class, Policy};
use afterwrite::event::change::{Change, ChangeEvent, Origin};
use afterwrite::event::delivery::{
    Assigned, Content, Delivery, Inherited, Position, RawRecord, Settled, SourceCommand, SourceEvent, SourcePartition,
};
use afterwrite::event::key::Key;
use afterwrite::event::row::{Row, Value};
use afterwrite::handler::{Context, Handler, HandlerError, Keyless, Ordering, Outcome, Resources, Route, Spec};
use afterwrite::ledger::claims::Claims;
use afterwrite::ledger::effects::Effects;
use afterwrite::router::Router;
use afterwrite::source::memory::{self, Log};
use async_trait::async_trait;
use tokio::sync::{Notify, mpsc, watch};

/// A handler that is only asked whether it wants this `k` panics, and so does the attempt.
const PANICS: i64 = 40;

/// Works on every event of `public.work`; an odd `k` waits for `gate`.
struct Gated {
    gate: Arc<Notify>,
}

#[async_trait]
impl Handler for Gated {
    fn spec(&self) -> Spec {
        let route = Route {
            schema: "public".to_owned(),
            table: "work".to_owned(),
            ordering: Ordering::PrimaryKey,
            keyless: Keyless::Refused,
        };
        Spec {
            name: "gated".to_owned(),
            routes: vec![route],
            coalesce_max: 1,
            attempt_timeout: None,
        }
    }

    fn wants(&self, event: &ChangeEvent) -> bool {
        assert_ne!(k_of(event), PANICS, "the test wants a panic");
        true
    }

    async fn handle(&self, _: &mut Context, events: &[Arc<ChangeEvent>]) -> Result<Outcome, HandlerError> {
        let k = k_of(&events[0]);
        assert_ne!(k, PANICS, "the test wants a panic");
        if k % 2 == 1 {
            self.gate.notified().await;
        }
        Ok(Outcome::Done)
    }
}

fn k_of(event: &ChangeEvent) -> i64 {
    event.after().and_then(|row| row.int("k")).unwrap()
}

/// Keeps the classes of letters; the first write panics.
#[derive(Default)]
struct Shelf(Mutex<Vec<Option<Class>>>);

#[async_trait]
impl Letters for Shelf {
    async fn bury(&self, letter: &Letter) -> Result<(), BuryError> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = kept.is_empty();
        kept.push((!is_first).then_some(letter.class));
        assert!(!is_first, "the test wants a panic");
        Ok(())
    }
}

/// More than any script says at once.
const EVENTS_MAX: usize = 64;

/// The source's ends of the channels, and the engine that runs behind them.
struct Script {
    events: mpsc::Sender<SourceEvent>,
    commands: Receiver<SourceCommand>,
    gate: Arc<Notify>,
    shelf: Arc<Shelf>,
    engine: Engine,
}

/// A running engine.
struct Engine {
    running: tokio::task::JoinHandle<Result<Counts, Halted>>,
    stop: watch::Sender<bool>,
    /// Keeps the taker's ends open.
    _replays: (
        mpsc::Sender<driver::Replay>,
        mpsc::Sender<driver::Drain>,
        mpsc::UnboundedReceiver<driver::ReplayEnd>,
    ),
}

impl Engine {
    fn start(
        events: mpsc::Receiver<SourceEvent>,
        commands: std::sync::mpsc::Sender<SourceCommand>,
        gate: &Arc<Notify>,
        shelf: &Arc<Shelf>,
    ) -> Self {
        let (replay, replays) = mpsc::channel(1);
        let (drain, drains) = mpsc::channel(1);
        let (replay_ends, ended) = mpsc::unbounded_channel();
        let (stop, mut stopping) = watch::channel(false);
        let channels = Channels {
            events,
            commands,
            replays,
            drains,
            replay_ends,
            owned: Arc::new(watch::Sender::new(Owned::new())),
            standing: watch::Sender::default(),
        };
        let setup = setup(Arc::clone(gate), Arc::clone(shelf));
        let running = tokio::spawn(driver::run(setup, channels, async move {
            stopping.wait_for(|stop| *stop).await.unwrap();
        }));
        Self {
            running,
            stop,
            _replays: (replay, drain, ended),
        }
    }
}

impl Script {
    fn start() -> Self {
        let (events, arriving) = mpsc::channel(EVENTS_MAX);
        let (orders, commands) = std::sync::mpsc::channel();
        let (gate, shelf) = (Arc::new(Notify::new()), Arc::new(Shelf::default()));
        Self {
            engine: Engine::start(arriving, orders, &gate, &shelf),
            events,
            commands,
            gate,
            shelf,
        }
    }

    fn assign(&self, epoch: u64) {
        self.events
            .try_send(SourceEvent::Assigned {
                partitions: vec![Assigned {
                    partition: partition(),
                    epoch,
                    inherited: Inherited::default(),
                }],
            })
            .unwrap();
    }

    fn deliver(&self, epoch: u64, position: i64, k: i64) {
        let delivery = Box::new(delivery(position, k));
        self.events
            .try_send(SourceEvent::Delivered { epoch, delivery })
            .unwrap();
    }

    /// The next command that is not a pause or a resume.
    async fn command(&self) -> SourceCommand {
        let mut look = tokio::time::interval(Duration::from_millis(5));
        for _ in 0..2_000 {
            look.tick().await;
            match self.commands.try_recv() {
                Ok(command) => return command,
                Err(std::sync::mpsc::TryRecvError::Empty) => {}
                Err(error) => panic!("the engine ended early: {error}"),
            }
        }
        panic!("no command came")
    }
}

fn setup(gate: Arc<Notify>, shelf: Arc<Shelf>) -> Setup {
    let pool = sqlx::postgres::PgPoolOptions::new()
        .connect_lazy("postgres://nobody@127.0.0.1:1/none")
        .unwrap();
    let effects = Effects::new(pool.clone(), uuid::Uuid::new_v4(), Duration::from_secs(60));
    Setup {
        group: "driver".into(),
        router: Arc::new(Router::new(vec![Arc::new(Gated { gate })])),
        resources: Resources {
            pool,
            effects,
            redo_days: Arc::default(),
        },
        letters: shelf,
        claims: Claims::in_memory("driver"),
        parked: None,
        alone: Arc::default(),
        on_undecodable: OnUndecodable::Halt,
        limits: Limits {
            running_max: 4,
            crash_deaths_max: 0,
            reserved_ahead: 1,
            buffered_events_max: 100,
            buffered_bytes_max: 1 << 20,
            lag_bytes_max: 0,
            handlers: vec![HandlerLimits {
                policy: Policy {
                    attempts_max: 1,
                    first_wait: Duration::from_millis(1),
                    ..Policy::default()
                },
                ..HandlerLimits::default()
            }],
        },
        times: Times {
            attempt: Duration::from_secs(30),
            commit_interval: Duration::from_millis(10),
            revoke_grace: Duration::from_secs(30),
            shutdown_grace: Duration::from_secs(30),
        },
    }
}

fn partition() -> SourcePartition {
    SourcePartition {
        topic: "t".into(),
        partition: 0,
    }
}

fn delivery(position: i64, k: i64) -> Delivery {
    let row = || Row::of([("k", Some(Value::Int(k)))]);
    let origin = Origin {
        name: "s".into(),
        db: "d".into(),
        schema: "public".into(),
        table: "work".into(),
        tx: Some(1),
        lsn: Some(position),
        commit_ts_ms: Some(0),
    };
    let change = Change::Insert {
        after: row(),
        moved_from: None,
    };
    let event = ChangeEvent::new(origin, Key::of(row()), change);
    Delivery {
        partition: partition(),
        position: Position(position),
        raw: RawRecord::default(),
        content: Content::Change(Arc::new(event)),
    }
}

fn settled(epoch: u64, position: i64) -> Vec<Settled> {
    vec![Settled {
        partition: partition(),
        epoch,
        position: Position(position),
    }]
}

#[tokio::test]
async fn a_partition_that_is_assigned_anew_commits_under_its_new_epoch() {
    let script = Script::start();
    script.assign(1);
    script.deliver(1, 10, 1);
    // Assigned again while an attempt of the first assignment still runs, and nobody said that it was lost.
    script.assign(2);
    script.deliver(2, 10, 2);
    let SourceCommand::Commit(committed) = script.command().await else {
        panic!("a commit was expected")
    };
    assert_eq!(committed, settled(2, 11));
}

#[tokio::test]
async fn a_revocation_waits_for_what_runs_and_answers_with_the_settled_position() {
    let script = Script::start();
    script.assign(1);
    script.deliver(1, 10, 1);
    script.deliver(1, 11, 2);
    let (reply, answered) = std::sync::mpsc::sync_channel(1);
    script
        .events
        .try_send(SourceEvent::Revoking {
            partitions: vec![partition()],
            reply,
        })
        .unwrap();
    script.gate.notify_one();
    let answer = tokio::task::spawn_blocking(move || answered.recv_timeout(Duration::from_secs(10)));
    let positions = answer.await.unwrap().unwrap();
    // Both were started when they arrived, so both are waited for.
    assert_eq!(positions, [(partition(), Position(12))]);
}

#[tokio::test]
async fn panics_outside_of_an_attempt_stop_neither_the_group_nor_the_lane() {
    let script = Script::start();
    script.assign(1);
    script.deliver(1, 10, PANICS);
    script.deliver(1, 11, 2);
    loop {
        match script.command().await {
            SourceCommand::Commit(committed) if committed == settled(1, 12) => break,
            SourceCommand::Commit(committed) => assert_eq!(committed, settled(1, 10), "a letter was not waited for"),
            other => panic!("a commit was expected, not {other:?}"),
        }
    }
    let kept = script.shelf.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    assert_eq!(kept, [None, Some(Class::Panic)]);
}

#[tokio::test]
async fn a_stop_finishes_what_runs_and_leaves_with_the_settled_position() {
    let script = Script::start();
    script.assign(7);
    script.deliver(7, 10, 1);
    let SourceCommand::Commit(first) = script.command().await else {
        panic!("a commit was expected")
    };
    assert_eq!(first, settled(7, 10), "nothing is settled yet");
    script.engine.stop.send_replace(true);
    script.gate.notify_one();
    let left = loop {
        match script.command().await {
            SourceCommand::Leave(left) => break left,
            SourceCommand::Commit(_) | SourceCommand::Pause { .. } | SourceCommand::Resume { .. } => {}
        }
    };
    assert_eq!(left, settled(7, 11));
    drop(script.events);
    assert_eq!(script.engine.running.await.unwrap().unwrap().done, 1);
}

#[tokio::test]
async fn a_record_that_cannot_be_decoded_ends_the_group_before_it_when_that_is_wanted() {
    let script = Script::start();
    script.assign(3);
    script.deliver(3, 10, 1);
    let undecodable = Delivery {
        content: Content::Undecodable("no schema 7".to_owned()),
        ..delivery(11, 0)
    };
    let delivered = SourceEvent::Delivered {
        epoch: 3,
        delivery: Box::new(undecodable),
    };
    script.events.try_send(delivered).unwrap();
    script.deliver(3, 12, 2);
    script.gate.notify_one();
    let left = loop {
        if let SourceCommand::Leave(left) = script.command().await {
            break left;
        }
    };
    assert_eq!(
        left,
        settled(3, 11),
        "what was before it is finished, what is behind it is not begun"
    );
    drop(script.events);
    let halted = script.engine.running.await.unwrap().unwrap_err().to_string();
    for part in ["offset 11 of t[0]", "no schema 7", "--to-offset t:0:12 --skip"] {
        assert!(halted.contains(part), "{part} is not in: {halted}");
    }
}

/// Runs an engine over a log until the log is settled up to a position, then stops it as SIGTERM does.
async fn settle(log: &Log, to: Position) -> Counts {
    let (told, events) = mpsc::channel(EVENTS_MAX);
    let (commands, orders) = std::sync::mpsc::channel();
    let source = memory::start(log, orders, told);
    let engine = Engine::start(events, commands, &Arc::default(), &Arc::default());
    let mut look = tokio::time::interval(Duration::from_millis(5));
    while log.committed(&partition()) < to {
        look.tick().await;
    }
    engine.stop.send_replace(true);
    source.ended().await;
    engine.running.await.unwrap().unwrap()
}

#[tokio::test]
async fn a_log_in_memory_is_worked_on_once_by_one_process_after_the_other() {
    let log = Log::new([partition()]);
    for written in [3, 2] {
        let mut end = Position(0);
        for _ in 0..written {
            let Content::Change(event) = delivery(log.end(&partition()).0, 2).content else {
                panic!("a change was made")
            };
            let position = log.write(&partition(), event);
            end = Position(position.0 + 1);
        }
        let counts = tokio::time::timeout(Duration::from_secs(30), settle(&log, end))
            .await
            .unwrap();
        assert_eq!((counts.delivered, counts.done), (written, written));
    }
}
