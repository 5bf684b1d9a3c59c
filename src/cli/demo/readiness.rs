//! From an empty database to a worker that reacts, each step proved before the next one begins.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::postgres::PgPool;
use tokio::time::{Instant, sleep};

use super::campaign;
use super::failure::DemoFailure;
use super::place::Place;
use super::screen::Screen;
use super::stack::Stack;
use super::watch::Watcher;
use super::worker::Worker;
use crate::app;
use crate::cli::database;
use crate::config::Config;
use crate::config::wal::slot_of;

/// How often a state is asked for that nobody announces.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Every handler must have reacted by then.
const READY_MAX: Duration = Duration::from_secs(90);

/// What the rehearsal has to bring about: every handler did something, and so did every way between them.
const REHEARSED: [&str; 7] = [
    "mail verification theo",
    "mail welcome tess",
    "mail reward_earned tess",
    "reward tess Applause delivered",
    "fraud theo disposable_email",
    "placed tess",
    "placed theo",
];

/// What is made, for people.
pub(super) fn what(with_kafka: bool) -> &'static str {
    match with_kafka {
        true => "the tables, the publication, the connector",
        false => "the tables, the publication",
    }
}

/// Makes tables, publication and, where there is Kafka, the connector, by the commands a person would use; answers
/// connections. Roles are the server's, and in somebody's server there are none for the demo.
pub(super) async fn install(
    screen: &Screen,
    stack: &Stack<'_>,
    place: &Place,
    (settings, config): (&BTreeMap<String, String>, &Config),
    has_roles: bool,
) -> Result<PgPool, DemoFailure> {
    let pool = database::connect(config).await.map_err(DemoFailure::Database)?;
    if make_tables(&pool, place).await? {
        screen.note("infra/postgres/waitlist.sql: the application's tables are made");
    } else {
        screen.note("the application's tables are there already");
    }
    let publication = if has_roles { "require" } else { "without-grants" };
    screen.note(&format!("$ afterwrite migrate --publication {publication}"));
    screen.note(
        &stack
            .afterwrite(&["migrate", "--publication", publication], settings)
            .await?,
    );
    if !config.source.kind.has_brokers() {
        return Ok(pool);
    }
    let connector = place.root.join("connectors/waitlist.json");
    screen.note("$ afterwrite connector apply connectors/waitlist.json");
    let waiting = screen.waiting("waiting for Debezium");
    let applied = stack
        .afterwrite(&["connector", "apply", &connector.display().to_string()], settings)
        .await?;
    drop(waiting);
    screen.note(&applied);
    Ok(pool)
}

/// Answers whether the tables had to be made.
async fn make_tables(pool: &PgPool, place: &Place) -> Result<bool, DemoFailure> {
    let exist: bool = sqlx::query_scalar("SELECT to_regclass('public.waitlist_users') IS NOT NULL")
        .fetch_one(pool)
        .await
        .map_err(DemoFailure::Write)?;
    if exist {
        return Ok(false);
    }
    let path = place.root.join("infra/postgres/waitlist.sql");
    let sql = std::fs::read_to_string(&path).map_err(|source| DemoFailure::Log { path, source })?;
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
        .execute(pool)
        .await
        .map_err(DemoFailure::Write)?;
    Ok(true)
}

/// Every group with every stream that it has to own.
pub(super) struct Owners {
    pool: PgPool,
    since: DateTime<Utc>,
    unowned: BTreeSet<(String, String)>,
}

impl Owners {
    /// Those of a worker that is about to be started.
    pub(super) async fn of(pool: &PgPool, config: &Config) -> Result<Self, DemoFailure> {
        let since = sqlx::query_scalar("SELECT now()").fetch_one(pool).await;
        Ok(Self {
            pool: pool.clone(),
            since: since.map_err(DemoFailure::Watch)?,
            unowned: streams_of(config)?,
        })
    }

    /// Waits until every group owns what it has to.
    pub(super) async fn wait(mut self, worker: &mut Worker) -> Result<(), DemoFailure> {
        let deadline = Instant::now() + READY_MAX;
        while !self.look().await? {
            if Instant::now() >= deadline {
                return Err(late(self.in_words(), worker));
            }
            tokio::select! {
                failure = worker.ended() => return Err(failure),
                () = sleep(LOOK_EVERY) => {}
            }
        }
        Ok(())
    }

    /// Whether nothing is unowned any more.
    async fn look(&mut self) -> Result<bool, DemoFailure> {
        for owned in owned(&self.pool, self.since).await? {
            self.unowned.remove(&owned);
        }
        Ok(self.unowned.is_empty())
    }

    fn in_words(&self) -> Vec<String> {
        let unowned = self.unowned.iter();
        unowned
            .map(|(group, stream)| format!("{group} to own {stream}"))
            .collect()
    }
}

fn late(missing: Vec<String>, worker: &Worker) -> DemoFailure {
    DemoFailure::Late {
        what: missing.join(", "),
        seconds: READY_MAX.as_secs(),
        log: worker.log.clone(),
    }
}

/// Rows that wake every handler.
pub(super) struct Rehearsal {
    watcher: Watcher,
    missing: BTreeSet<&'static str>,
    owners: Owners,
}

impl Rehearsal {
    /// Writes the rows. With Kafka the worker is started after it: then the topics are there, or are being made.
    pub(super) async fn begin(pool: &PgPool, config: &Config, mailbox: PathBuf) -> Result<Self, DemoFailure> {
        let mut owners = Owners::of(pool, config).await?;
        if !config.source.kind.has_brokers() {
            // They were waited for before.
            owners.unowned.clear();
        }
        let campaign = campaign::rehearse(pool).await.map_err(DemoFailure::Write)?;
        Ok(Self {
            watcher: Watcher::begin_from_nothing(pool, campaign, mailbox).await?,
            missing: REHEARSED.into_iter().collect(),
            owners,
        })
    }

    /// Waits until every handler has reacted and every topic has been claimed.
    pub(super) async fn end(mut self, screen: &Screen, worker: &mut Worker) -> Result<(), DemoFailure> {
        let began = Instant::now();
        let pid = worker.pid().map(|pid| pid.to_string()).unwrap_or_default();
        screen.note(&format!(
            "$ afterwrite run     (process {pid}, log {})",
            worker.log.display()
        ));
        let _waiting = screen.waiting("waiting for the first reactions");
        let deadline = began + READY_MAX;
        let mut handlers = BTreeSet::new();
        while !self.owners.look().await? || !self.missing.is_empty() {
            if Instant::now() >= deadline {
                let missing = self.missing.iter().map(|key| (*key).to_owned());
                return Err(late(missing.chain(self.owners.in_words()).collect(), worker));
            }
            tokio::select! {
                failure = worker.ended() => return Err(failure),
                () = sleep(LOOK_EVERY) => {}
            }
            for reaction in self.watcher.look().await? {
                let awaited = self.missing.len();
                self.missing
                    .retain(|key| !reaction.keys.iter().any(|known| known == key));
                if self.missing.len() < awaited && handlers.insert(reaction.who) {
                    let after = began.elapsed().as_secs_f64();
                    screen.note(&format!(
                        "{:<8} reacted to the first row after {after:.1} s",
                        reaction.who
                    ));
                }
            }
        }
        let after = began.elapsed().as_secs_f64();
        screen.note(&format!(
            "all groups own their partitions, all handlers work: {after:.1} s"
        ));
        Ok(())
    }
}

/// Tables to which the rehearsal brings no row: their topics are made later, and read from their beginning then.
const LATER: [&str; 3] = ["position_changes", "campaign_milestones", "reward_rounds"];

/// Every group with every topic that it reads and that is there, or with its slot.
pub(super) fn streams_of(config: &Config) -> Result<BTreeSet<(String, String)>, DemoFailure> {
    let handlers = app::waitlist::handlers(config)
        .map_err(|_| DemoFailure::Wrong("the handlers could not be made from the stack's addresses"))?;
    let mut streams = BTreeSet::new();
    for spec in handlers.iter().map(|handler| handler.spec()) {
        let group = config.group_name(&spec.name);
        if !config.source.kind.has_brokers() {
            let slot = slot_of(&group);
            streams.insert((group, slot));
            continue;
        }
        for route in spec.routes.iter().filter(|route| !LATER.contains(&&*route.table)) {
            let topic = format!("{}.{}.{}", config.source.name, route.schema, route.table);
            streams.insert((group.clone(), topic));
        }
    }
    Ok(streams)
}

/// What has been claimed since then.
async fn owned(pool: &PgPool, since: DateTime<Utc>) -> Result<Vec<(String, String)>, DemoFailure> {
    sqlx::query_as("SELECT DISTINCT group_name, topic FROM afterwrite.claims WHERE claimed_at >= $1")
        .bind(since)
        .fetch_all(pool)
        .await
        .map_err(DemoFailure::Watch)
}
