//! The composition root: the only place where sources, decoders, engines, handlers and sinks are plugged together.
//!
//! Each handler is a group of its own, with its own consumer, lanes and database connections, so that no handler's trouble
//! reaches another.

pub(crate) mod connections;
pub(crate) mod counted;
mod figures;
pub mod keyless;
mod letters;
pub mod options;
pub mod own;
pub mod refusals;
mod replica_identity;
pub mod schedule;
pub mod shadow;
mod source;
mod summary;
mod telling;
mod traced;
pub mod waitlist;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use sqlx::postgres::{PgConnectOptions, PgPool};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use uuid::Uuid;

use self::connections::{bounded, connect_options, connect_timeout, place_of, pool};
use self::source::Source;
use crate::admin;
use crate::config::Config;
use crate::dead_letter::parking::StoredEvents;
use crate::dead_letter::taker::{self, Taker};
use crate::dead_letter::topic;
use crate::dead_letter::wakeups::Wakeups;
use crate::decode::registry::Registry;
use crate::decode::{self, Decoder};
use crate::engine::counts::Counts;
use crate::engine::driver::{self, Channels, Owned, Setup};
use crate::engine::standing::Standing;
use crate::groups::workers::{self, Process};
use crate::handler::{Handler, Resources};
use crate::ledger::claims::Claims;
use crate::ledger::effects::Effects;
use crate::ledger::parked::Parking;
use crate::ledger::retention::{self, Held, Retention};
use crate::ledger::sources::Sources;
use crate::ledger::{days, patience, redo, registry};
use crate::router::Router;
use crate::schedule::Job;

/// How often the ledger's coming days are made, and old ones dropped.
const DAYS_EVERY: Duration = Duration::from_secs(3_600);

/// Connections for claims, letters and replay requests, beside those of the groups.
const COORDINATION_CONNECTIONS: u32 = 8;

/// How much longer than an attempt an effect is leased whose handler asks for attempts longer than the configured lease.
const LEASE_MARGIN: Duration = Duration::from_secs(30);

/// Runs handlers, each as a group of its own, until `stop` becomes true; answers what passed through each group.
///
/// # Errors
/// When something is wrong that waiting does not mend: settings, names, missing tables.
pub async fn serve(
    config: &Config,
    handlers: Vec<Arc<dyn Handler>>,
    stop: watch::Receiver<bool>,
) -> anyhow::Result<HashMap<String, Counts>> {
    Box::pin(serve_with_jobs(config, handlers, Vec::new(), stop)).await
}

/// As [`serve`], and runs scheduled jobs beside the groups: each tick in one of all processes that have them. Those of
/// `afterwrite run` are [`schedule::waitlist_jobs`].
///
/// # Errors
/// As those of [`serve`].
pub async fn serve_with_jobs(
    config: &Config,
    handlers: Vec<Arc<dyn Handler>>,
    jobs: Vec<Arc<dyn Job>>,
    stop: watch::Receiver<bool>,
) -> anyhow::Result<HashMap<String, Counts>> {
    traced::start(config)?;
    let listener = match &config.admin.listen {
        Some(address) => Some(admin::listen(address).await?),
        None => None,
    };
    let shared = Shared::new(config, &handlers).await?;
    source::warn_of_the_disk(config, &shared.coordination).await;
    let scheduler = schedule::scheduler(config, jobs).await?;
    // All are prepared before the first one runs: a group that runs already would be cut off by an error, and not leave.
    let mut prepared = Vec::with_capacity(handlers.len());
    for handler in handlers {
        prepared.push(Group::prepare(config, &shared, handler).await?);
    }
    summary::say(config, &prepared, scheduler.as_ref());
    let telling = match listener {
        Some(listener) => telling::begin(config, &shared, listener, &prepared, scheduler.as_ref())?,
        None => Vec::new(),
    };
    let halt = Arc::new(watch::Sender::new(false));
    let by_the_clock = scheduler.map(|scheduler| tokio::spawn(scheduler.run(halt.subscribe())));
    let mut groups = JoinSet::new();
    let has_groups = !prepared.is_empty();
    for group in prepared {
        groups.spawn(group.run(halt.subscribe()));
    }
    let background = [
        tokio::spawn(pass_on(stop, Arc::clone(&halt))),
        tokio::spawn(keep_days(shared.coordination.clone(), config.ledger.retention_days)),
        tokio::spawn(connections::meet(
            shared.coordination.clone(),
            place_of(&shared.connect),
        )),
        tokio::spawn(
            shared
                .wakeups
                .clone()
                .listen(pool(&shared.connect, 1, connect_timeout(config))),
        ),
    ];
    let mut counts = HashMap::new();
    let mut failure = None;
    while let Some(ended) = groups.join_next().await {
        match ended.context("a group ended abnormally").flatten() {
            Ok((group, counted)) => {
                counts.insert(group, counted);
            }
            // What runs in the other groups ends, and they leave, before the process does.
            Err(error) => {
                halt.send_replace(true);
                failure = failure.or(Some(error));
            }
        }
    }
    if let Some(by_the_clock) = by_the_clock {
        // Groups that leave their source end by themselves, and the process with them. Without groups it is there for the
        // schedule.
        if has_groups {
            halt.send_replace(true);
        }
        by_the_clock.await.context("the scheduler ended abnormally")?;
    }
    background
        .iter()
        .chain(&telling)
        .for_each(tokio::task::JoinHandle::abort);
    traced::end().await;
    failure.map_or(Ok(counts), Err)
}

async fn pass_on(stop: watch::Receiver<bool>, halt: Arc<watch::Sender<bool>>) {
    stopped(stop).await;
    halt.send_replace(true);
}

/// What the groups of a process share.
struct Shared {
    process: Process,
    connect: PgConnectOptions,
    coordination: PgPool,
    wakeups: Wakeups,
    /// Held by the one job of all groups that runs alone.
    alone: Arc<tokio::sync::Mutex<()>>,
    decoder: Arc<Decoder>,
    registry: Option<Arc<Registry>>,
}

impl Shared {
    async fn new(config: &Config, handlers: &[Arc<dyn Handler>]) -> anyhow::Result<Self> {
        let connect = connect_options(config)?;
        let bounded = bounded(&connect, patience::STATEMENT_MAX);
        let coordination = pool(&bounded, COORDINATION_CONNECTIONS, connect_timeout(config));
        days::make_ahead(&coordination).await.context(
            "the ledger's partitions could not be made: is postgres there, and was `afterwrite migrate` run?",
        )?;
        keyless::refuse(&coordination, handlers).await?;
        let decoding = decoding(config, &coordination, handlers).await?;
        let registry = options::registry(config).context("the settings of [registry] cannot be used")?;
        Ok(Self {
            process: Process::this(Uuid::new_v4()),
            connect,
            coordination,
            wakeups: Wakeups::new(),
            alone: Arc::default(),
            decoder: Arc::new(Decoder::new(decoding)),
            registry: registry.map(Arc::new),
        })
    }
}

/// How records are decoded; where the configuration does not say which tables send whole old rows, the database does.
async fn decoding(
    config: &Config,
    pool: &PgPool,
    handlers: &[Arc<dyn Handler>],
) -> anyhow::Result<decode::options::Options> {
    let mut decoding = options::decode_options(config);
    if config.source.full_identity.is_none() {
        decoding.full_identity = replica_identity::full(pool, handlers)
            .await
            .context("the replica identities of the routed tables could not be read")?;
    }
    Ok(decoding)
}

/// One group, checked and ready to run.
struct Group {
    name: Arc<str>,
    process: Process,
    source: Source,
    /// `None` where letters go to no topic.
    topic: Option<topic::Options>,
    setup: Setup,
    coordination: PgPool,
    wakeups: Wakeups,
    decoder: Arc<Decoder>,
    registry: Option<Arc<Registry>>,
    handlers: Vec<String>,
    is_critical: bool,
    /// Topics, or tables of the log.
    reads: Vec<String>,
    /// Where it starts when it never ran.
    first_start: &'static str,
    attempts_max: u32,
    attempt_timeout: Duration,
    standing: watch::Sender<Standing>,
}

impl Group {
    async fn prepare(config: &Config, shared: &Shared, handler: Arc<dyn Handler>) -> anyhow::Result<Self> {
        let spec = handler.spec();
        let group = config.group_name(&spec.name);
        let own = config.handlers.get(&spec.name);
        let handler_name = registry::Name {
            name: &spec.name,
            was: own.and_then(|own| own.was.as_deref()),
        };
        let ordering = options::ordering_text(&spec);
        registry::register(&shared.coordination, handler_name, &group, &ordering).await?;
        let redo_days = redo::days(&shared.coordination, &spec.name).await.context(
            "the events that are to be done again could not be read: was `afterwrite migrate` run after the update?",
        )?;
        let settings = config.engine_of(&group);
        let topic = options::letter_topics(config);
        let router = router(config, &group, handler);
        let attempt = Duration::from_millis(settings.attempt_timeout_ms);
        let longest = router.timeout(0).unwrap_or(attempt);
        let connect = bounded(&shared.connect, longest);
        let pool = pool(&connect, settings.connections(), connect_timeout(config));
        let lease = lease(Duration::from_millis(settings.effect_lease_ms), longest);
        let effects = Effects::new(pool.clone(), shared.process.owner, lease);
        let letters = letters::sink(config, topic.as_ref(), shared.coordination.clone())?;
        let claims = Claims::new(shared.coordination.clone(), group.as_str(), shared.process.owner);
        let setup = Setup {
            group: group.as_str().into(),
            limits: options::limits(config, &group, &spec),
            router: Arc::new(router),
            resources: Resources {
                pool,
                effects,
                redo_days: Arc::new(redo_days),
            },
            letters,
            claims: claims.clone(),
            parked: Some(Arc::new(StoredEvents {
                parking: Parking::new(shared.coordination.clone(), group.as_str()),
                decoder: Arc::clone(&shared.decoder),
                registry: shared.registry.clone(),
            })),
            alone: Arc::clone(&shared.alone),
            on_undecodable: options::on_undecodable(&settings),
            times: options::times(&settings),
        };
        Ok(Self {
            source: Source::new(config, &group, &spec, claims, &shared.coordination).await?,
            reads: options::reads(config, &group, &spec),
            name: group.into(),
            process: shared.process.clone(),
            topic,
            setup,
            coordination: shared.coordination.clone(),
            wakeups: shared.wakeups.clone(),
            decoder: Arc::clone(&shared.decoder),
            registry: shared.registry.clone(),
            is_critical: own.is_none_or(|own| own.critical),
            first_start: options::first_start(config),
            attempts_max: settings.attempts_max,
            attempt_timeout: longest,
            handlers: vec![spec.name],
            standing: watch::Sender::default(),
        })
    }

    /// What is told of it over HTTP.
    fn told(&self) -> admin::Group {
        admin::Group {
            name: self.name.to_string(),
            handlers: self.handlers.clone(),
            is_critical: self.is_critical,
            standing: self.standing.subscribe(),
            log_behind: self.source.log_behind(),
            events_behind: self.source.events_behind(),
        }
    }

    /// Its database connections, by its name.
    fn pool(&self) -> (String, PgPool) {
        (self.name.to_string(), self.setup.resources.pool.clone())
    }

    async fn run(self, stop: watch::Receiver<bool>) -> anyhow::Result<(String, Counts)> {
        let name = self.name.to_string();
        let sources = Sources::new(self.coordination.clone(), name.as_str());
        if !source::begin(&sources, self.source.kind(), stop.clone()).await? {
            return Ok((name, Counts::default()));
        }
        if let Some(topic) = &self.topic
            && !letters::ensure_topic(topic, &topic::name(&name), stop.clone()).await?
        {
            return Ok((name, Counts::default()));
        }
        let (halt, stop) = until_halted(stop, self.source.leaves());
        let halting = tokio::spawn(halt);
        let (commands, orders) = std::sync::mpsc::channel();
        let (events, arriving) = mpsc::channel(source::UNHEARD_MAX);
        let (replays, taken) = mpsc::channel(taker::OPEN_MAX);
        let (drains, ended_heads) = mpsc::channel(taker::DRAINS_MAX as usize);
        let (ends, ended) = mpsc::unbounded_channel();
        let owned = Arc::new(watch::Sender::new(Owned::new()));
        let telling = workers::tell(
            self.coordination.clone(),
            self.process,
            name.clone(),
            self.standing.subscribe(),
        );
        let telling = tokio::spawn(telling);
        let requests = Taker {
            parking: Parking::new(self.coordination.clone(), name.as_str()),
            drains,
            pool: self.coordination,
            group: Arc::clone(&self.name),
            decoder: Arc::clone(&self.decoder),
            registry: self.registry.clone(),
            owned: owned.subscribe(),
            wakeups: self.wakeups.subscribe(),
            replays,
            ends: ended,
        };
        let source = self
            .source
            .start(self.decoder, self.registry, orders, events, stop.clone())?;
        let taking = tokio::spawn(requests.run());
        let channels = Channels {
            events: arriving,
            commands,
            replays: taken,
            drains: ended_heads,
            replay_ends: ends,
            owned,
            standing: self.standing,
        };
        let told_to_stop = stop.clone();
        let ended = driver::run(self.setup, channels, stopped(stop)).await;
        let left = source.ended().await;
        halting.abort();
        taking.await.context("the taker of replay requests ended abnormally")?;
        telling
            .await
            .context("telling where the group stands ended abnormally")?;
        let counts = ended?;
        left.with_context(|| format!("group {name} cannot go on"))?;
        anyhow::ensure!(
            *told_to_stop.borrow(),
            "the source of group {name} ended by itself; restart the process, the group goes on where it was"
        );
        Ok((name, counts))
    }
}

/// What becomes true when the process stops or the group leaves its source, and what makes it so.
fn until_halted(
    stop: watch::Receiver<bool>,
    leaves: Option<watch::Receiver<bool>>,
) -> (impl Future<Output = ()>, watch::Receiver<bool>) {
    let (halt, halting) = watch::channel(false);
    let leaves = async {
        match leaves {
            Some(leaves) => stopped(leaves).await,
            None => std::future::pending().await,
        }
    };
    let halt = async move {
        tokio::select! {
            () = stopped(stop) => {}
            () = leaves => {}
        }
        halt.send_replace(true);
    };
    (halt, halting)
}

/// Resolves when `stop` becomes true, or when nobody can set it any more.
async fn stopped(mut stop: watch::Receiver<bool>) {
    if stop.wait_for(|stopping| *stopping).await.is_err() {
        tracing::debug!("whoever could have stopped the process is gone");
    }
}

/// Makes the coming days of the ledger and drops the old ones.
async fn keep_days(pool: PgPool, retention_days: u32) {
    let mut every = tokio::time::interval(DAYS_EVERY);
    loop {
        every.tick().await;
        if let Err(error) = days::make_ahead(&pool).await {
            tracing::warn!(error = %error, "the ledger's coming days could not be made yet; they are made on demand");
        }
        match retention::drop_days(&pool, retention_days).await {
            Ok(Retention { dropped, held_by }) => {
                if let (Some(first), Some(last)) = (dropped.first(), dropped.last()) {
                    tracing::info!(days = dropped.len(), %first, %last, "old days of the ledger dropped");
                }
                if let Some(Held { day, what }) = held_by {
                    let day = day.map_or_else(|| "all".to_owned(), |day| day.to_string());
                    tracing::warn!(
                        from_day = day,
                        needed_by = what,
                        "the ledger keeps days beyond its retention"
                    );
                }
            }
            Err(error) => tracing::warn!(error = %error, "old days of the ledger could not be dropped yet"),
        }
    }
}

/// How long an effect is leased.
fn lease(configured: Duration, longest_attempt: Duration) -> Duration {
    if configured > longest_attempt {
        return configured;
    }
    // The handler itself asks for more time than the configuration knows of.
    longest_attempt + LEASE_MARGIN
}

/// A router over one handler; a time-out that somebody configured beats the handler's own.
fn router(config: &Config, group: &str, handler: Arc<dyn Handler>) -> Router {
    let chosen = config.attempt_timeout_of(group, &handler.spec().name);
    let router = Router::new(vec![handler]);
    match chosen {
        Some(timeout) => router.with_timeout(0, timeout),
        None => router,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_configured_time_out_beats_the_handlers_own() {
        let set = |timeout_ms: u64| format!("handlers.position.attempt_timeout_ms={timeout_ms}");
        for (settings, expected) in [(vec![], 300_000), (vec![set(50_000)], 50_000)] {
            let inputs = crate::config::load::Inputs {
                set: settings,
                ..Default::default()
            };
            let config = crate::config::load::load(&inputs).unwrap();
            let handlers = waitlist::handlers(&config).unwrap();
            let position = handlers.into_iter().find(|handler| handler.spec().name == "position");
            let router = router(&config, "afterwrite.position", position.unwrap());
            assert_eq!(router.timeout(0), Some(Duration::from_millis(expected)));
        }
    }
}
