//! From an empty database to a worker that reacts, each step proved before the next one begins.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use sqlx::postgres::PgPool;
use tokio::time::{Instant, sleep};

use super::DemoFailure;
use super::campaign;
use super::place::Place;
use super::screen::Screen;
use super::stack::Stack;
use super::watch::Watcher;
use super::worker::Worker;
use crate::app;
use crate::cli::database;
use crate::config::Config;

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

/// Makes tables, publication and connector, by the commands a person would use; answers connections.
pub(super) async fn install(
    screen: &Screen,
    stack: &Stack<'_>,
    place: &Place,
    settings: &BTreeMap<String, String>,
    config: &Config,
) -> Result<PgPool, DemoFailure> {
    let pool = database::connect(config).await.map_err(DemoFailure::Database)?;
    if make_tables(&pool, place).await? {
        screen.note("infra/postgres/waitlist.sql: the application's tables are made");
    } else {
        screen.note("the application's tables are there already");
    }
    screen.note("$ afterwrite migrate --publication require");
    screen.note(
        &stack
            .afterwrite(&["migrate", "--publication", "require"], settings)
            .await?,
    );
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

/// Rows that wake every handler.
pub(super) struct Rehearsal {
    pool: PgPool,
    watcher: Watcher,
    missing: BTreeSet<&'static str>,
    /// Every group with every topic that it has to own.
    unowned: BTreeSet<(String, String)>,
}

impl Rehearsal {
    /// Writes the rows. The worker is started after it: then the topics are there, or are being made.
    pub(super) async fn begin(pool: &PgPool, config: &Config, mailbox: PathBuf) -> Result<Self, DemoFailure> {
        let campaign = campaign::rehearse(pool).await.map_err(DemoFailure::Write)?;
        Ok(Self {
            watcher: Watcher::begin_from_nothing(pool, campaign, mailbox).await?,
            pool: pool.clone(),
            missing: REHEARSED.into_iter().collect(),
            unowned: topics_of(config)?,
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
        while !self.missing.is_empty() || !self.unowned.is_empty() {
            if Instant::now() >= deadline {
                return Err(self.late(worker));
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
            for owned in owned(&self.pool, self.watcher.since()).await? {
                self.unowned.remove(&owned);
            }
        }
        let after = began.elapsed().as_secs_f64();
        screen.note(&format!(
            "all groups own their partitions, all handlers work: {after:.1} s"
        ));
        Ok(())
    }

    fn late(&self, worker: &Worker) -> DemoFailure {
        let unowned = self
            .unowned
            .iter()
            .map(|(group, topic)| format!("{group} to own {topic}"));
        let missing = self.missing.iter().map(|key| (*key).to_owned());
        DemoFailure::Late {
            what: missing.chain(unowned).collect::<Vec<String>>().join(", "),
            seconds: READY_MAX.as_secs(),
            log: worker.log.clone(),
        }
    }
}

/// Every group with every topic that it reads.
fn topics_of(config: &Config) -> Result<BTreeSet<(String, String)>, DemoFailure> {
    let handlers = app::waitlist::handlers(config)
        .map_err(|_| DemoFailure::Wrong("the handlers could not be made from the stack's addresses"))?;
    let mut topics = BTreeSet::new();
    for spec in handlers.iter().map(|handler| handler.spec()) {
        for route in spec.routes {
            let topic = format!("{}.{}.{}", config.source.name, route.schema, route.table);
            topics.insert((config.group_name(&spec.name), topic));
        }
    }
    Ok(topics)
}

/// What has been claimed since then.
async fn owned(pool: &PgPool, since: chrono::DateTime<chrono::Utc>) -> Result<Vec<(String, String)>, DemoFailure> {
    sqlx::query_as("SELECT DISTINCT group_name, topic FROM afterwrite.claims WHERE claimed_at >= $1")
        .bind(since)
        .fetch_all(pool)
        .await
        .map_err(DemoFailure::Watch)
}
