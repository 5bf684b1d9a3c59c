//! `bench drain`: the worker over topics, with a handler that only waits, measured and proved.
//!
//! Everything between the broker and the handler is what `run` uses. Two things are not: claims are kept in memory,
//! because a measurement needs no database, and dead letters are counted instead of written. Where records are to fail for
//! good, their letters are written to their topic, and have no state.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use uuid::Uuid;

use crate::app;
use crate::cli::bench::late::Late;
use crate::cli::bench::letters::{NoLetters, TopicLetters};
use crate::cli::bench::order::Order;
use crate::cli::bench::progress::Progress;
use crate::cli::bench::sleeper::Sleeper;
use crate::cli::bench::usage::{Threads, Usage, round, rss_mb, threads};
use crate::cli::bench::waits::Waits;
use crate::cli::bench::{Brokers, Cluster, print};
use crate::cli::decode::SchemaFile;
use crate::cli::{Failure, database};
use crate::config::Config;
use crate::dead_letter::topic;
use crate::decode::Decoder;
use crate::decode::registry::Registry;
use crate::decode::registry::client::RegistrySettings;
use crate::decode::tables::Tables;
use crate::engine::core::messages::{HandlerLimits, Limits};
use crate::engine::driver::{self, Channels, Owned, Setup};
use crate::engine::letter::Letters;
use crate::event::delivery::SourceEvent;
use crate::handler::{Handler, Resources};
use crate::ledger::beginnings::Beginnings;
use crate::ledger::claims::Claims;
use crate::ledger::effects::Effects;
use crate::router::Router;
use crate::source::kafka;

/// Database connections of a measurement with the ledger.
pub(super) const CONNECTIONS_MAX: u32 = 20;

/// Events that are passed on together.
const HEARD_MAX: usize = 64;

/// How often it is looked whether the worker still gets anywhere.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Arguments of `bench drain`.
#[derive(Debug, Clone, Args)]
pub struct DrainArgs {
    #[command(flatten)]
    pub(super) brokers: Brokers,
    /// Topics, comma separated; every table in them is handled, rows of snapshots too
    #[arg(long, value_name = "TOPIC", value_delimiter = ',', required = true)]
    pub(super) topics: Vec<String>,
    /// Ends when so many distinct (partition, offset) are done
    #[arg(long, value_name = "N")]
    pub(super) records: u64,
    /// How long the handler waits for each record, in microseconds
    #[arg(long, value_name = "W", default_value_t = 0)]
    pub(super) work_us: u64,
    /// Lanes that run at once; engine.lanes_max when left out
    #[arg(long, value_name = "L")]
    pub(super) lanes: Option<usize>,
    /// Consumer group, which is moved to the beginning first; one made for this run, and deleted, when left out
    #[arg(long, value_name = "G")]
    pub(super) group: Option<String>,
    /// One of so many records fails for good, and its letter is written to the dead-letter topic of the group
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    pub(super) fail_every: Option<u32>,
    /// Column that must rise by one with every change of a row
    #[arg(long, value_name = "C")]
    pub(super) sequence_column: Option<String>,
    /// Schemas of a registry, by id
    #[arg(long, value_name = "FILE", conflicts_with = "registry")]
    pub(super) schemas: Option<PathBuf>,
    /// Address of a schema registry
    #[arg(long, value_name = "URL")]
    pub(super) registry: Option<String>,
    /// Measure again with the ledger's transaction for each record; needs a migrated database (DATABASE_URL)
    #[arg(long)]
    pub(super) ledger: bool,
    /// Handle so many of the records before, by another group, and measure nothing of it
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) warm_up: u64,
    /// Tell how late records are done after their timestamp, all but the first so many
    #[arg(long, value_name = "N")]
    pub(super) late_after: Option<u64>,
    /// Gives up when nothing was done for so long, for example because the topics hold fewer records
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub(super) idle_s: u64,
}

/// What was measured and proved.
#[derive(Debug, Serialize)]
struct Report {
    work_us: u64,
    lanes: usize,
    /// Distinct (partition, offset) that were done when the last wanted one was.
    records: u64,
    /// From the first record to the last wanted one.
    seconds: f64,
    records_per_s: f64,
    #[serde(flatten)]
    usage: Usage,
    /// Absent when no column was named.
    order_violations: Option<u64>,
    duplicates: u64,
    missing: u64,
    /// Records that failed for good and have their letter; they are neither done nor missing.
    buried: u64,
    /// Resident memory when a quarter was settled, and at the end.
    rss_quarter_mb: Option<f64>,
    rss_end_mb: Option<f64>,
    /// Among the missing: bytes that cannot be decoded.
    undecodable: u64,
    /// Among the records: those that wake nobody, such as tombstones.
    skipped: u64,
    /// How long a call took in fact.
    work_us_mean: f64,
    /// The same for the busiest row alone; absent when no column was named.
    busiest_work_us_mean: Option<f64>,
    /// How late records were done, where that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    late_p50_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    late_p99_ms: Option<f64>,
    #[serde(flatten)]
    threads: Threads,
    #[serde(skip_serializing_if = "Option::is_none")]
    with_ledger: Option<Box<Report>>,
}

#[derive(Debug, thiserror::Error)]
#[error("a promise was not kept: {order} order violations, {duplicates} duplicates, {missing} missing")]
struct Disproved {
    order: u64,
    duplicates: u64,
    missing: u64,
}

/// Measures, and fails when a promise is disproved.
pub(super) async fn run(args: &DrainArgs, config: &Config) -> Result<(), Failure> {
    if args.warm_up > 0 {
        let warming = DrainArgs {
            records: args.warm_up,
            group: None,
            late_after: None,
            ..args.clone()
        };
        Box::pin(measure(&warming, config, None)).await?;
    }
    let mut report = Box::pin(measure(args, config, None)).await?;
    if args.ledger {
        let pool = database::connect(config).await?;
        let name = format!("bench-{}", Uuid::new_v4().simple());
        let ledger = Ledger::open(config, &name)?;
        let measured = Box::pin(measure(args, config, Some(&ledger))).await;
        sqlx::query("DELETE FROM afterwrite.ledger WHERE handler = $1")
            .bind(&name)
            .execute(&pool)
            .await
            .map_err(Failure::failed)?;
        report.with_ledger = Some(Box::new(measured?));
    }
    print(&report)?;
    let ledger = report.with_ledger.as_deref();
    [Some(&report), ledger]
        .into_iter()
        .flatten()
        .try_for_each(Report::verdict)
}

impl Report {
    fn verdict(&self) -> Result<(), Failure> {
        let order = self.order_violations.unwrap_or_default();
        let (duplicates, missing) = (self.duplicates, self.missing);
        if order + duplicates + missing == 0 {
            return Ok(());
        }
        Err(Failure::failed(Disproved {
            order,
            duplicates,
            missing,
        }))
    }
}

/// The database of a measurement with the ledger.
pub(super) struct Ledger {
    handler: String,
    pool: PgPool,
}

impl Ledger {
    fn open(config: &Config, handler: &str) -> Result<Self, Failure> {
        let options: PgConnectOptions = config.postgres.url.expose().parse().map_err(Failure::usage)?;
        Ok(Self {
            handler: handler.to_owned(),
            // Lanes wait for their turn on a connection, which is part of what is measured and no failure.
            pool: PgPoolOptions::new()
                .max_connections(CONNECTIONS_MAX)
                .acquire_timeout(Duration::from_secs(600))
                .connect_lazy_with(options),
        })
    }

    /// A pool that nobody asks for a connection.
    pub(super) fn none() -> PgPool {
        PgPoolOptions::new().connect_lazy_with(PgConnectOptions::new_without_pgpass())
    }
}

async fn measure(args: &DrainArgs, config: &Config, ledger: Option<&Ledger>) -> Result<Report, Failure> {
    let cluster = Cluster::of(&args.brokers, config);
    let made_up = format!("afterwrite.bench.{}", Uuid::new_v4().simple());
    let group = args.group.clone().unwrap_or(made_up);
    let (rewound, name, topics) = (cluster.clone(), group.clone(), args.topics.clone());
    super::blocking(move || rewound.rewind(&name, &topics)).await?;
    let (used, worked) = (Usage::now(), threads());
    let late = args.late_after.map(Late::after);
    let progress = Arc::new(Progress::timed(args.records, args.sequence_column.clone(), late));
    let sleeper = Sleeper {
        name: ledger.map_or_else(|| "bench".to_owned(), |ledger| ledger.handler.clone()),
        work: Duration::from_micros(args.work_us),
        waits: Waits::start().map_err(Failure::failed)?,
        with_ledger: ledger.is_some(),
        fail_every: args.fail_every,
        progress: Arc::clone(&progress),
    };
    let letters: Arc<dyn Letters> = match args.fail_every {
        None => Arc::new(NoLetters),
        Some(_) => Arc::new(TopicLetters::open(config, &cluster, &group, Arc::clone(&progress)).await?),
    };
    let pool = ledger.map_or_else(Ledger::none, |ledger| ledger.pool.clone());
    let setup = setup(args.lanes, config, &group, Arc::new(sleeper), letters, pool);
    let lanes = setup.limits.running_max;
    let threads = drive(args, config, &cluster, setup, &progress).await?;
    if args.group.is_none() {
        cluster.delete_group(&group).await?;
        if args.fail_every.is_some() {
            cluster.delete_topic(&topic::name(&group)).await?;
        }
    }
    Ok(report(
        args,
        &progress,
        lanes,
        threads.since(&worked),
        Usage::now().since(&used),
    ))
}

/// Runs the worker until everything wanted is done or nothing moves any more; answers what the threads did until then.
pub(super) async fn drive(
    args: &DrainArgs,
    config: &Config,
    cluster: &Cluster,
    setup: Setup,
    progress: &Arc<Progress>,
) -> Result<Threads, Failure> {
    let (commands, orders) = std::sync::mpsc::channel();
    let (events, from_source) = mpsc::channel(kafka::UNHEARD_MAX);
    let (to_engine, arriving) = mpsc::channel(kafka::UNHEARD_MAX);
    let (_replays, taken) = mpsc::channel(1);
    let (_drains, ended_heads) = mpsc::channel(1);
    let (ends, _ended) = mpsc::unbounded_channel();
    let (stop, mut stopping) = watch::channel(false);
    let channels = Channels {
        events: arriving,
        commands,
        replays: taken,
        drains: ended_heads,
        replay_ends: ends,
        owned: Arc::new(watch::Sender::new(Owned::new())),
        standing: watch::Sender::default(),
    };
    let kept = kafka::Kept {
        claims: Claims::in_memory(&*setup.group),
        beginnings: Beginnings::in_memory(),
    };
    let options = source_options(args, config, cluster, &setup.group);
    let (decoder, registry) = decoding(args, config)?;
    let source =
        kafka::start(options, kept, decoder, registry, orders, events, stopping.clone()).map_err(Failure::usage)?;
    let listening = tokio::spawn(listen(from_source, to_engine, Arc::clone(progress)));
    let stopped = async move {
        if stopping.wait_for(|stopping| *stopping).await.is_err() {
            tracing::debug!("the measurement was given up");
        }
    };
    let engine = tokio::spawn(driver::run(setup, channels, stopped));
    await_end(progress, Duration::from_secs(args.idle_s)).await;
    let threads = threads();
    stop.send_replace(true);
    engine.await.map_err(Failure::failed)?.map_err(Failure::failed)?;
    source.ended().await;
    listening.await.map_err(Failure::failed)?;
    Ok(threads)
}

/// Passes on what the source says, and counts it on its way.
async fn listen(mut from: mpsc::Receiver<SourceEvent>, to: mpsc::Sender<SourceEvent>, progress: Arc<Progress>) {
    let mut heard = Vec::with_capacity(HEARD_MAX);
    while from.recv_many(&mut heard, HEARD_MAX).await > 0 {
        progress.heard(&heard);
        let Ok(places) = to.reserve_many(heard.len()).await else {
            return;
        };
        places.zip(heard.drain(..)).for_each(|(place, event)| place.send(event));
    }
}

/// Waits until everything wanted is done, or nothing was done for `idle_max`.
async fn await_end(progress: &Progress, idle_max: Duration) {
    let mut complete = progress.complete();
    let mut settled = 0;
    let mut moved_at = Instant::now();
    loop {
        let waited = tokio::time::timeout(LOOK_EVERY, complete.wait_for(|complete| *complete)).await;
        if waited.is_ok() {
            return;
        }
        let now_settled = progress.settled();
        progress.look();
        if now_settled != settled {
            settled = now_settled;
            moved_at = Instant::now();
        } else if moved_at.elapsed() >= idle_max {
            tracing::warn!(settled, "nothing was done for the idle time: giving up");
            return;
        }
    }
}

fn report(args: &DrainArgs, progress: &Progress, lanes: usize, threads: Threads, usage: Usage) -> Report {
    let state = progress.state();
    // What was still under way when the last wanted record was done is no part of the figures.
    let others = state.undecodable + state.buried;
    let records = state.done.min(args.records - others.min(args.records));
    let end = state.last_at.unwrap_or_else(Instant::now);
    let seconds = state.first_at.map_or(0.0, |first| (end - first).as_secs_f64());
    let calls = state.calls.max(1) as f64;
    let busiest = state.order.as_ref().and_then(Order::busiest_mean);
    let late_ms = |share| state.late.as_ref().and_then(|late| late.percentile_ms(share));
    Report {
        work_us: args.work_us,
        lanes,
        records,
        seconds: round(seconds, 3),
        records_per_s: round(records as f64 / seconds.max(1e-6), 0),
        usage,
        order_violations: state.order.as_ref().map(|order| order.violations()),
        duplicates: state.duplicates,
        missing: args.records - records - state.buried.min(args.records - records),
        buried: state.buried,
        rss_quarter_mb: state.rss_quarter_mb,
        rss_end_mb: rss_mb(),
        undecodable: state.undecodable,
        skipped: state.skipped,
        work_us_mean: round(state.worked.as_secs_f64() * 1e6 / calls, 1),
        busiest_work_us_mean: busiest.map(|mean| round(mean.as_secs_f64() * 1e6, 1)),
        late_p50_ms: late_ms(0.5),
        late_p99_ms: late_ms(0.99),
        threads,
        with_ledger: None,
    }
}

/// What the engine of a measurement is made of, which keeps nothing but in memory.
pub(super) fn setup(
    lanes: Option<usize>,
    config: &Config,
    group: &str,
    handler: Arc<dyn Handler>,
    letters: Arc<dyn Letters>,
    pool: PgPool,
) -> Setup {
    let settings = &config.engine;
    let milliseconds = Duration::from_millis;
    Setup {
        group: group.into(),
        router: Arc::new(Router::of_every_table(handler)),
        resources: Resources {
            effects: Effects::new(pool.clone(), Uuid::nil(), milliseconds(settings.effect_lease_ms)),
            pool,
            redo_days: Arc::default(),
        },
        letters,
        claims: Claims::in_memory(group),
        parked: None,
        alone: Arc::default(),
        on_undecodable: driver::OnUndecodable::Bury,
        limits: Limits {
            running_max: lanes.unwrap_or(settings.lanes_max).max(1),
            crash_deaths_max: 0,
            reserved_ahead: 1,
            buffered_events_max: settings.buffered_events_max,
            buffered_bytes_max: settings.buffered_bytes_max,
            lag_bytes_max: 0,
            handlers: vec![HandlerLimits {
                running_max: usize::MAX,
                ..app::options::handler_limits(settings)
            }],
        },
        times: app::options::times(settings),
    }
}

fn source_options(args: &DrainArgs, config: &Config, cluster: &Cluster, group: &str) -> kafka::Options {
    kafka::Options {
        brokers: cluster.brokers.clone(),
        group: group.to_owned(),
        wanted: Tables::all(),
        topics: args.topics.clone(),
        start: kafka::Start::Earliest,
        properties: cluster.properties.clone(),
        membership: app::options::membership(&config.kafka),
        budgets: app::options::budgets(&config.engine),
        events_behind: Arc::default(),
    }
}

/// The decoder, and the registry it learns from where one was named. The configured one is not asked: a topic without
/// Avro must not wait for it.
fn decoding(args: &DrainArgs, config: &Config) -> Result<(Arc<Decoder>, Option<Arc<Registry>>), Failure> {
    let mut options = app::options::decode_options(config);
    options.reads = true;
    let decoder = Decoder::new(options);
    if let Some(path) = &args.schemas {
        let schemas = SchemaFile::read(path).map_err(Failure::usage)?;
        for id in schemas.ids() {
            let document = schemas.document(id);
            if document.is_none_or(|document| decoder.learn(id, &document).is_err()) {
                tracing::warn!(schema = id, "schema cannot be used: its records count as undecodable");
            }
        }
    }
    let registry = args.registry.as_ref().map(|url| {
        let settings = RegistrySettings {
            url: url.clone(),
            ..app::options::registry_settings(config)
        };
        Registry::new(&settings).map(Arc::new).map_err(Failure::usage)
    });
    Ok((Arc::new(decoder), registry.transpose()?))
}
