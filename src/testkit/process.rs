//! One life of a worker process over the log in memory: the real core, driver, ledger, claims, dead letters and replays.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::app::options;
use crate::config::Config;
use crate::dead_letter::parking::StoredEvents;
use crate::dead_letter::table::TableLetters;
use crate::dead_letter::taker::{self, Taker};
use crate::dead_letter::wakeups::Wakeups;
use crate::decode::Decoder;
use crate::engine::core::messages::Limits;
use crate::engine::counts::Counts;
use crate::engine::driver::{self, Channels, Halted, OnUndecodable, Owned, Setup};
use crate::engine::retry::Policy;
use crate::event::delivery::SourcePartition;
use crate::handler::{Handler, Resources};
use crate::ledger::claims::Claims;
use crate::ledger::effects::Effects;
use crate::ledger::parked::Parking;
use crate::router::Router;
use crate::source::memory::{self, Log};
use crate::testkit::database::Database;
use crate::testkit::watched::SESSIONS;

/// The longest wait between two attempts: tests do not wait for what was asked for.
const WAIT_MAX: Duration = Duration::from_millis(20);

/// How often settled positions are committed.
const COMMIT_EVERY: Duration = Duration::from_millis(2);

/// Events on their way between source and engine.
const UNHEARD_MAX: usize = 256;

/// How long a claimed effect is leased: no call of a test takes so long.
const LEASE: Duration = Duration::from_secs(120);

/// Time passes.
const LEASES_OVER: &str =
    "UPDATE afterwrite.effects SET lease_until = now() - interval '1 second' WHERE state = 'sending'";

/// What every life of a process is made of.
pub(super) struct Plan<'a> {
    pub(super) database: &'a Database,
    pub(super) config: &'a Config,
    pub(super) group: &'a str,
    pub(super) handler: Arc<dyn Handler>,
    pub(super) decoder: &'a Arc<Decoder>,
    pub(super) log: &'a Log,
    pub(super) partition: &'a SourcePartition,
    pub(super) attempt_timeout: Duration,
}

/// A running process.
pub(super) struct Process {
    engine: JoinHandle<Result<Counts, Halted>>,
    source: memory::Running,
    taking: JoinHandle<()>,
    stop: watch::Sender<bool>,
    _wakeups: Wakeups,
}

impl Process {
    /// Starts a process, which takes the claim of the partition as every owner does. What the one before had leased is free.
    pub(super) async fn start(plan: &Plan<'_>) -> Self {
        plan.database.run(LEASES_OVER).await;
        let owner = Uuid::new_v4();
        let coordination = plan.database.pool().clone();
        let claims = Claims::new(coordination.clone(), plan.group, owner);
        let SourcePartition { topic, partition } = plan.partition;
        let claim = claims.take(topic, *partition).await.expect("the claim can be taken");
        claims
            .started(topic, *partition, 0)
            .await
            .expect("the beginning can be written down");
        plan.log.claimed(plan.partition, claim.epoch, claim.inherited);

        let limits = limits(plan);
        let lanes = u32::try_from(limits.running_max).unwrap_or(u32::MAX);
        let connect: PgConnectOptions = plan.database.options().application_name(SESSIONS);
        let pool = PgPoolOptions::new()
            .max_connections(lanes.saturating_add(2))
            .connect_lazy_with(connect);
        let letters = TableLetters::new(coordination.clone(), options::writing(plan.config).error_bytes_max);
        let settings = plan.config.engine_of(plan.group);
        let setup = Setup {
            group: plan.group.into(),
            router: Arc::new(Router::new(vec![Arc::clone(&plan.handler)]).with_timeout(0, plan.attempt_timeout)),
            resources: Resources {
                effects: Effects::new(pool.clone(), owner, LEASE),
                pool,
                redo_days: Arc::default(),
            },
            letters: Arc::new(letters),
            claims,
            parked: Some(Arc::new(StoredEvents {
                parking: Parking::new(coordination.clone(), plan.group),
                decoder: Arc::clone(plan.decoder),
                registry: None,
            })),
            alone: Arc::default(),
            limits,
            on_undecodable: OnUndecodable::Bury,
            times: driver::Times {
                commit_interval: COMMIT_EVERY,
                ..options::times(&settings)
            },
        };
        Self::run(plan, setup, coordination)
    }

    fn run(plan: &Plan<'_>, setup: Setup, coordination: sqlx::PgPool) -> Self {
        let (commands, orders) = std::sync::mpsc::channel();
        let (events, arriving) = mpsc::channel(UNHEARD_MAX);
        let (replays, taken) = mpsc::channel(taker::OPEN_MAX);
        let (drains, ended_heads) = mpsc::channel(taker::DRAINS_MAX as usize);
        let (ends, ended) = mpsc::unbounded_channel();
        let owned = Arc::new(watch::Sender::new(Owned::new()));
        let wakeups = Wakeups::new();
        let requests = Taker {
            parking: Parking::new(coordination.clone(), plan.group),
            pool: coordination,
            group: plan.group.into(),
            decoder: Arc::clone(plan.decoder),
            registry: None,
            owned: owned.subscribe(),
            wakeups: wakeups.subscribe(),
            replays,
            drains,
            ends: ended,
        };
        let (stop, mut stopping) = watch::channel(false);
        let channels = Channels {
            events: arriving,
            commands,
            replays: taken,
            drains: ended_heads,
            replay_ends: ends,
            owned,
            standing: watch::Sender::default(),
        };
        let stopped = async move {
            if stopping.wait_for(|stop| *stop).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        Self {
            source: memory::start(plan.log, orders, events),
            engine: tokio::spawn(driver::run(setup, channels, stopped)),
            taking: tokio::spawn(requests.run()),
            stop,
            _wakeups: wakeups,
        }
    }

    /// Whether it ended although nobody asked it to.
    pub(super) fn is_gone(&self) -> bool {
        self.engine.is_finished()
    }

    /// Stops it as SIGTERM does.
    pub(super) async fn stop(self) {
        self.stop.send_replace(true);
        let ended = self.engine.await.expect("the engine ends without a panic");
        ended.expect("the engine does not halt");
        self.source.ended().await;
        self.taking.await.expect("the taker of replays ends without a panic");
    }

    /// Ends it as SIGKILL does: nothing that was not committed survives.
    pub(super) async fn kill(self) {
        self.engine.abort();
        self.taking.abort();
        for task in [self.engine.await.err(), self.taking.await.err()].into_iter().flatten() {
            assert!(task.is_cancelled(), "the process died by itself: {task}");
        }
        self.source.ended().await;
    }
}

/// The limits that are configured, with waits that are short, and without the one hour in which a job that fails alone is not given
/// up: in a test it is always alone.
fn limits(plan: &Plan<'_>) -> Limits {
    let mut limits = options::limits(plan.config, plan.group, &plan.handler.spec());
    for handler in &mut limits.handlers {
        handler.policy = Policy {
            first_wait: handler.policy.first_wait.min(Duration::from_millis(1)),
            wait_max: WAIT_MAX,
            asked_wait_max: WAIT_MAX,
            outage_wait_max: WAIT_MAX,
            exhausted_alone_after: Duration::ZERO,
            ..handler.policy.clone()
        };
    }
    limits
}
