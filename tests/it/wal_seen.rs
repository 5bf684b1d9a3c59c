//! The log has the end of a transaction before others can see what it wrote. A handler reads what is there, so a change must
//! not be handed over before.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{AssertSqlSafe, Connection};
use tokio::task::JoinHandle;

use crate::stack::{self, until};
use crate::wal::{insert, remove, until_effects, until_it_reads, worker};
use crate::worker::Worker;
use crate::world::World;

async fn run(pool: &PgPool, sql: &str) {
    let ran = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(pool).await;
    ran.unwrap();
}

/// Sets which standby every commit has to wait for, and waits until the server knows.
async fn wait_for_standby(pool: &PgPool, name: &str) {
    run(pool, &format!("ALTER SYSTEM SET synchronous_standby_names = '{name}'")).await;
    run(pool, "SELECT pg_reload_conf()").await;
    until("the setting", Duration::from_secs(30), async || {
        let set: String = sqlx::query_scalar("SELECT current_setting('synchronous_standby_names')")
            .fetch_one(pool)
            .await
            .unwrap();
        (set == name).then_some(())
    })
    .await;
}

/// Writes a row and waits for its commit, which waits for a standby.
fn write_slowly(world: &World) -> JoinHandle<()> {
    let url = world.url().to_owned();
    tokio::spawn(async move {
        let mut connection = PgConnection::connect(&url).await.unwrap();
        let sql = "SET synchronous_commit = on; INSERT INTO work (k, seq) VALUES (1, 1)";
        sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    })
}

/// Until the worker says that it waits, nothing may have been done about a row that nobody sees.
async fn until_it_waits(pool: &PgPool, worker: &Worker) {
    until(
        "the worker to wait for the commit",
        Duration::from_secs(30),
        async || {
            let (rows, effects): (i64, i64) =
                sqlx::query_as("SELECT (SELECT count(*) FROM work), (SELECT count(*) FROM effects)")
                    .fetch_one(pool)
                    .await
                    .unwrap();
            assert_eq!(
                (rows, effects),
                (0, 0),
                "rows that can be seen, and those that were handled"
            );
            worker.said().contains("cannot be seen yet").then_some(())
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_handed_over_when_its_row_can_be_seen() {
    // Every commit of the server waits for the standby, but for those of this database.
    let _stack = stack::alone().await;
    let world = World::bare("wal_seen").await;
    let local = format!("ALTER DATABASE {} SET synchronous_commit = local", world.name);
    run(&world.pool, &local).await;
    let worker = worker(&world, "w");
    until_it_reads(&worker).await;

    wait_for_standby(&world.pool, "nobody").await;
    let writer = write_slowly(&world);
    let waited = AssertUnwindSafe(until_it_waits(&world.pool, &worker))
        .catch_unwind()
        .await;
    // Whatever was seen: no test after this one is to wait for a standby.
    wait_for_standby(&world.pool, "").await;
    waited.unwrap();
    writer.await.unwrap();
    until_effects(&world, 1).await;
    insert(&world, 2..=50, "ok").await;
    until_effects(&world, 50).await;
    worker.stop().await;
    remove(world).await;
}
