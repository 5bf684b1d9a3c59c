//! The worker as `run` has it, but for two things: the handler does nothing, and dead letters are counted.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgPool;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use uuid::Uuid;

use crate::app;
use crate::cli::Failure;
use crate::cli::bench::drain;
use crate::cli::bench::letters::NoLetters;
use crate::cli::bench::wal::connected::{Connected, PREFIX};
use crate::cli::bench::wal::table::Rows;
use crate::config::Config;
use crate::decode::Decoder;
use crate::decode::options::{Format, Options, UNAVAILABLE_PLACEHOLDER};
use crate::decode::tables::Tables;
use crate::engine::counts::Counts;
use crate::engine::driver::{self, Channels, Drain, Owned, Replay, ReplayEnd, Setup};
use crate::event::change::ChangeEvent;
use crate::event::delivery::{SourceCommand, SourceEvent};
use crate::handler::{Context, Handler, HandlerError, Outcome, Spec};
use crate::ledger::beginnings::Beginnings;
use crate::ledger::claims::Claims;
use crate::ledger::slots::Slots;
use crate::source::{kafka, wal};

/// Positions that are reserved ahead, as by the worker.
const RESERVED_AHEAD: i64 = 1_000;

/// Nothing was done for so long.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// A handler that tells of each event when it is called with it.
pub(super) struct Teller {
    pub(super) told: mpsc::UnboundedSender<(i64, Instant)>,
}

#[async_trait::async_trait]
impl Handler for Teller {
    fn spec(&self) -> Spec {
        Spec {
            name: "bench".to_owned(),
            routes: Vec::new(),
            coalesce_max: 1,
            attempt_timeout: None,
        }
    }

    async fn handle(&self, _context: &mut Context, events: &[Arc<ChangeEvent>]) -> Result<Outcome, HandlerError> {
        let now = Instant::now();
        for event in events {
            let number = event.after().and_then(|row| row.int("seq")).unwrap_or_default();
            if self.told.send((number, now)).is_err() {
                tracing::debug!("nobody counts any more: the measurement is over");
            }
        }
        Ok(Outcome::Done)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("nothing was handled for {} s: {done} of {wanted} rows", IDLE_MAX.as_secs())]
struct Idle {
    done: u64,
    wanted: u64,
}

/// How long the worker takes to handle so many rows, from its start.
pub(super) async fn handle(config: &Config, rows: &Rows, slot: &str, wanted: u64) -> Result<Duration, Failure> {
    let (told, mut heard) = mpsc::unbounded_channel();
    let began = Instant::now();
    let running = Running::start(config, rows, slot, told)?;
    let mut done = 0;
    while done < wanted {
        let waited = tokio::time::timeout(IDLE_MAX, heard.recv()).await;
        if !matches!(waited, Ok(Some(_))) {
            running.stop().await?;
            return Err(Failure::failed(Idle { done, wanted }));
        }
        done += 1;
    }
    let took = began.elapsed();
    running.stop().await?;
    Ok(took)
}

type Silent = (
    mpsc::Sender<Replay>,
    mpsc::Sender<Drain>,
    mpsc::UnboundedReceiver<ReplayEnd>,
);

/// What a worker reads.
enum Source {
    Wal(wal::Running),
    Kafka(kafka::Running),
}

/// A worker that runs.
pub(super) struct Running {
    source: Source,
    engine: JoinHandle<Result<Counts, Failure>>,
    stop: watch::Sender<bool>,
    /// Channels over which nothing comes stay open: a closed one is asked again and again.
    _silent: Silent,
}

/// What a source and an engine talk over.
struct Between {
    commands: std::sync::mpsc::Receiver<SourceCommand>,
    events: mpsc::Sender<SourceEvent>,
    stop: watch::Receiver<bool>,
}

impl Running {
    /// A worker that reads the log by this slot.
    pub(super) fn start(
        config: &Config,
        rows: &Rows,
        slot: &str,
        told: mpsc::UnboundedSender<(i64, Instant)>,
    ) -> Result<Self, Failure> {
        let claims = Claims::new(rows.pool.clone(), slot, Uuid::new_v4());
        let options = wal::Options {
            connection: config.postgres.url.expose().parse().map_err(Failure::usage)?,
            group: slot.to_owned(),
            publication: rows.name.clone(),
            name: PREFIX.to_owned(),
            wanted: Tables::named([("public", rows.name.as_str())]),
            excluded: Vec::new(),
            unavailable: UNAVAILABLE_PLACEHOLDER.to_owned(),
            log_behind: Arc::default(),
            leaves: Arc::default(),
            tells_lag: false,
        };
        let slots = Slots::new(rows.pool.clone(), slot, slot);
        let of_source = claims.clone();
        let handler = Arc::new(Teller { told });
        Self::over(setup(config, slot, claims, rows.pool.clone(), handler), |between| {
            let Between { commands, events, .. } = between;
            let started = wal::start(options, of_source, slots, decoder(), commands, events);
            started.map(Source::Wal).map_err(Failure::failed)
        })
    }

    /// A worker that reads the topic of a connector, from its beginning.
    pub(super) fn start_connected(
        config: &Config,
        rows: &Rows,
        connected: &Connected,
        group: &str,
        told: mpsc::UnboundedSender<(i64, Instant)>,
    ) -> Result<Self, Failure> {
        let claims = Claims::in_memory(group);
        let options = kafka::Options {
            brokers: connected.cluster.brokers.clone(),
            group: group.to_owned(),
            wanted: Tables::all(),
            topics: vec![connected.topic.clone()],
            start: kafka::Start::Earliest,
            properties: connected.cluster.properties.clone(),
            membership: app::options::membership(&config.kafka),
            budgets: app::options::budgets(&config.engine),
            events_behind: Arc::default(),
        };
        let kept = kafka::Kept {
            claims: claims.clone(),
            beginnings: Beginnings::in_memory(),
        };
        let handler = Arc::new(Teller { told });
        Self::over(setup(config, group, claims, rows.pool.clone(), handler), |between| {
            let Between { commands, events, stop } = between;
            let started = kafka::start(options, kept, decoder(), None, commands, events, stop);
            started.map(Source::Kafka).map_err(Failure::usage)
        })
    }

    /// An engine over a source.
    fn over(setup: Setup, source: impl FnOnce(Between) -> Result<Source, Failure>) -> Result<Self, Failure> {
        let (commands, orders) = std::sync::mpsc::channel();
        let (events, arriving) = mpsc::channel(wal::UNHEARD_MAX);
        let (no_replays, replays) = mpsc::channel(1);
        let (no_drains, drains) = mpsc::channel(1);
        let (replay_ends, no_ends) = mpsc::unbounded_channel();
        let (stop, mut stopping) = watch::channel(false);
        let channels = Channels {
            events: arriving,
            commands,
            replays,
            drains,
            replay_ends,
            owned: Arc::new(watch::Sender::new(Owned::new())),
            standing: watch::Sender::default(),
        };
        let source = source(Between {
            commands: orders,
            events,
            stop: stopping.clone(),
        })?;
        let stopped = async move {
            if stopping.wait_for(|stopping| *stopping).await.is_err() {
                tracing::debug!("the measurement was given up");
            }
        };
        Ok(Self {
            source,
            engine: tokio::spawn(async { driver::run(setup, channels, stopped).await.map_err(Failure::failed) }),
            stop,
            _silent: (no_replays, no_drains, no_ends),
        })
    }

    pub(super) async fn stop(self) -> Result<(), Failure> {
        self.stop.send_replace(true);
        self.engine.await.map_err(Failure::failed)??;
        match self.source {
            Source::Wal(source) => source.ended().await.map_err(Failure::failed),
            Source::Kafka(source) => {
                source.ended().await;
                Ok(())
            }
        }
    }
}

fn decoder() -> Arc<Decoder> {
    Arc::new(Decoder::new(Options {
        format: Format::Json,
        ..Options::default()
    }))
}

/// As a worker has it: positions are reserved, and deaths are blamed.
fn setup(config: &Config, group: &str, claims: Claims, pool: PgPool, handler: Arc<dyn Handler>) -> Setup {
    let mut setup = drain::setup(None, config, group, handler, Arc::new(NoLetters), pool);
    setup.claims = claims;
    setup.limits.crash_deaths_max = config.engine.crash_deaths_max;
    setup.limits.reserved_ahead = RESERVED_AHEAD;
    setup
}
