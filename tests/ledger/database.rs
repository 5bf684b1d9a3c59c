//! A database with the worker's tables, and waiting for what waits in it.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use afterwrite::event::delivery::SourcePartition;
use afterwrite::ledger::claims::{Claim, Claims};
use futures::FutureExt;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use uuid::Uuid;

/// Longer than any wait for Postgres here; who waits for so long has failed.
const WAIT_MAX: Duration = Duration::from_secs(20);

/// The group of all tests.
pub(crate) const GROUP: &str = "afterwrite.email";

/// Runs a test in a database of its own, and takes the database away afterwards, whatever came. The pool's connections have
/// the worker's role.
pub(crate) async fn in_database(test: impl AsyncFnOnce(&PgPool)) {
    let name = format!("ledger_{}", Uuid::new_v4().simple());
    let url = std::env::var("DATABASE_URL").expect("DATABASE_URL names a real Postgres");
    let options: PgConnectOptions = url.parse().expect("DATABASE_URL is a Postgres URL");
    let admin = pool(options.clone()).await;
    // Roles belong to the whole cluster, and tests run side by side.
    let roles = include_str!("../../infra/postgres/roles.sql");
    let roles = format!("BEGIN; SELECT pg_advisory_xact_lock(7); {roles}; COMMIT");
    exec(&admin, &roles).await;
    exec(&admin, &format!("CREATE DATABASE {name}")).await;
    let owner = pool(options.clone().database(&name)).await;
    for script in [
        include_str!("../../infra/postgres/waitlist.sql"),
        include_str!("../../infra/postgres/migrations/0001_coordination.sql"),
        include_str!("../../infra/postgres/migrations/0002_waitlist_worker.sql"),
        include_str!("../../infra/postgres/migrations/0003_effect_failures.sql"),
        include_str!("../../infra/postgres/migrations/0004_inheritance.sql"),
        include_str!("../../infra/postgres/migrations/0005_letters.sql"),
        include_str!("../../infra/postgres/migrations/0006_groups.sql"),
        include_str!("../../infra/postgres/migrations/0007_status.sql"),
        include_str!("../../infra/postgres/migrations/0008_slots.sql"),
        include_str!("../../infra/postgres/migrations/0009_sources.sql"),
        include_str!("../../infra/postgres/migrations/0010_parked_letters.sql"),
        include_str!("../../infra/postgres/migrations/0011_schedule.sql"),
        include_str!("../../infra/postgres/migrations/0013_milestone_mails.sql"),
        include_str!("../../infra/postgres/migrations/0014_ranking.sql"),
        include_str!("../../infra/postgres/migrations/0015_erasure.sql"),
        include_str!("../../infra/postgres/migrations/0016_acceptances.sql"),
        include_str!("../../infra/postgres/publication.sql"),
    ] {
        exec(&owner, script).await;
    }
    owner.close().await;
    let worker = pool(options.database(&name).options([("role", "afterwrite_worker")])).await;
    let ended = AssertUnwindSafe(test(&worker)).catch_unwind().await;
    exec(&admin, &format!("DROP DATABASE {name} WITH (FORCE)")).await;
    if let Err(panic) = ended {
        std::panic::resume_unwind(panic);
    }
}

async fn pool(options: PgConnectOptions) -> PgPool {
    let pool = PgPoolOptions::new().max_connections(10).connect_with(options);
    pool.await.expect("Postgres answers")
}

/// Runs statements.
pub(crate) async fn exec(pool: &PgPool, sql: &str) {
    let sql = sqlx::AssertSqlSafe(sql.to_owned());
    sqlx::raw_sql(sql).execute(pool).await.unwrap();
}

/// How many rows there are: `afterwrite.marks WHERE alone`.
pub(crate) async fn count(pool: &PgPool, of: &str) -> i64 {
    let sql = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {of}"));
    sqlx::query_scalar(sql).fetch_one(pool).await.unwrap()
}

/// Resolves when this many sessions of the database wait for a lock.
pub(crate) async fn sessions_wait(pool: &PgPool, number: i64) {
    let waiting = "(SELECT DISTINCT pid FROM pg_locks JOIN pg_stat_activity USING (pid)
                    WHERE NOT granted AND datname = current_database()) AS waiting";
    let mut looks = tokio::time::interval(Duration::from_millis(20));
    let all_wait = async {
        while count(pool, waiting).await < number {
            looks.tick().await;
        }
    };
    let waited = tokio::time::timeout(WAIT_MAX, all_wait).await;
    waited.unwrap_or_else(|_| panic!("{number} sessions should wait for a lock"));
}

/// What a task answered that had to wait for a lock.
pub(crate) async fn end_of<T>(task: tokio::task::JoinHandle<T>) -> T {
    tokio::time::timeout(WAIT_MAX, task).await.expect("it ends").unwrap()
}

/// The partition of all tests.
pub(crate) fn partition() -> SourcePartition {
    SourcePartition {
        topic: "waitlist.public.waitlist_users".into(),
        partition: 3,
    }
}

/// Claims of a process that starts now.
pub(crate) fn claims(pool: &PgPool) -> Claims {
    Claims::new(pool.clone(), GROUP, Uuid::new_v4())
}

/// Takes the partition as a process that starts now.
pub(crate) async fn take(pool: &PgPool) -> (Claims, Claim) {
    let claims = claims(pool);
    let claim = claims.take(&partition().topic, 3).await.unwrap();
    (claims, claim)
}
