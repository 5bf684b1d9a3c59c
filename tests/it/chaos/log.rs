//! The same storm over the write-ahead log: changes are rows that are written, and one transaction is far larger than anything
//! that a member could hold.

use std::path::Path;
use std::time::Duration;

use sqlx::AssertSqlSafe;
use sqlx::postgres::PgPool;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::chaos::events::{BEFORE_PERCENT, PORTIONS};
use crate::chaos::handler;
use crate::chaos::plan::Plan;
use crate::chaos::storm::Storm;
use crate::stack::until;
use crate::world::World;

/// The large transaction, whose changes of both tables are mixed. It does nothing when it was committed before: a server that is
/// killed does not always say so.
const LARGE: &str = "
    DO $$ BEGIN
        IF EXISTS (SELECT FROM bench_users WHERE id = row_id({FIRST})) THEN RETURN; END IF;
        FOR part IN 0..99 LOOP
            INSERT INTO unwanted SELECT FROM generate_series(1, {UNWANTED} / 100);
            INSERT INTO bench_users SELECT row_id({FIRST} + part * ({WANTED} / 100) + n), 1
            FROM generate_series(0, {WANTED} / 100 - 1) n;
        END LOOP;
        INSERT INTO written VALUES (pg_current_wal_insert_lsn());
    END $$";

/// How long a transaction may take to be written, outages included.
const WRITTEN_WITHIN: Duration = Duration::from_secs(180);

/// The log is read from where a slot was made: makes it, by a member that leaves again.
pub(super) async fn begin(world: &World, plan: &Plan, journals: &Path) {
    let tables = "
        CREATE TABLE public.unwanted (n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text DEFAULT 'nobody wants it');
        CREATE FUNCTION public.row_id(k int) RETURNS uuid LANGUAGE sql IMMUTABLE AS
            $$ SELECT lpad(to_hex(k), 32, '0')::uuid $$;
        CREATE TABLE public.written (at pg_lsn NOT NULL);
        ALTER PUBLICATION it ADD TABLE public.bench_users, public.unwanted";
    sqlx::raw_sql(tables).execute(&world.pool).await.unwrap();
    let first = handler::start(world, plan, "m0", journals);
    crate::wal::until_it_reads(&first).await;
    first.stop().await;
}

/// Writes the events, then the large transaction; `first_part` is told when those are there that come before the storm.
pub(super) async fn write(plan: Plan, pool: PgPool, rows: Vec<u32>, first_part: oneshot::Sender<()>) {
    let mut changes = vec![0_u32; plan.rows as usize];
    let (before, after) = rows.split_at(plan.events * BEFORE_PERCENT / 100);
    let portion = after.len().div_ceil(PORTIONS).max(1);
    for together in before.chunks(portion) {
        write_portion(&pool, &mut changes, together).await;
    }
    first_part.send(()).unwrap();
    let pause = plan.written_over / u32::try_from(PORTIONS).unwrap();
    let mut pace = tokio::time::interval(pause);
    for together in after.chunks(portion) {
        pace.tick().await;
        write_portion(&pool, &mut changes, together).await;
    }
    let began = Instant::now();
    let wanted = plan.large_wanted();
    let large = LARGE
        .replace("{FIRST}", &plan.rows.to_string())
        .replace("{WANTED}", &wanted.to_string())
        .replace("{UNWANTED}", &(plan.large - wanted).to_string());
    run(&pool, &large).await;
    println!(
        "a transaction of {} changes was written in {:.1?}",
        plan.large,
        began.elapsed()
    );
}

/// Writes events in one transaction.
async fn write_portion(pool: &PgPool, changes: &mut [u32], rows: &[u32]) {
    let mut script = String::new();
    for row in rows {
        let change = &mut changes[*row as usize];
        *change += 1;
        script.push_str(&format!(
            "INSERT INTO bench_users VALUES (row_id({row}), {change})
             ON CONFLICT (id) DO UPDATE SET seq = excluded.seq WHERE bench_users.seq < excluded.seq;"
        ));
    }
    run(pool, &script).await;
}

/// Runs what changes nothing when it is repeated, until the server has said that it did.
async fn run(pool: &PgPool, script: &str) {
    until("a transaction to be written", WRITTEN_WITHIN, async || {
        let ran = sqlx::raw_sql(AssertSqlSafe(script.to_owned())).execute(pool).await;
        ran.ok()
    })
    .await;
}

/// Writes log that nobody wants until jobs that wait are parked; answers how many were then.
pub(super) async fn reach_the_limit(world: &World) -> i64 {
    until("jobs to be parked", Duration::from_secs(60), async || {
        let filled = sqlx::query("SELECT pg_logical_emit_message(false, 'filler', repeat('x', 1024 * 1024))");
        filled.execute(&world.pool).await.ok()?;
        let parked = sqlx::query_scalar("SELECT count(*) FROM afterwrite.letters WHERE state = 'parked'");
        let parked: i64 = parked.fetch_one(&world.pool).await.ok()?;
        (parked > 0).then_some(parked)
    })
    .await
}

/// Kills everybody when a part of the large transaction is settled: whoever comes next goes on in its middle.
pub(super) async fn interrupt(world: &World, plan: &Plan, storm: &Storm<'_>) {
    let some = i64::from(plan.large_wanted() / 4);
    until("a part of the large transaction", plan.run_max, async || {
        storm.reap();
        let of_it = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM done WHERE k >= $1");
        let settled = of_it
            .bind(i32::try_from(plan.rows).unwrap())
            .fetch_one(&world.pool)
            .await
            .ok()?;
        (settled >= some).then_some(())
    })
    .await;
    storm.strike();
}

/// Changes of the wanted table, and whether the log is not confirmed to the last of them.
pub(super) async fn reached(world: &World) -> Option<(usize, Vec<String>)> {
    let sql = "SELECT (SELECT sum(seq)::bigint FROM bench_users), confirmed_flush_lsn::text,
                      confirmed_flush_lsn >= (SELECT max(at) FROM written)
               FROM pg_replication_slots WHERE database = current_database()";
    let (changes, confirmed, is_to_the_end): (i64, String, bool) =
        sqlx::query_as(sql).fetch_one(&world.pool).await.ok()?;
    let behind = (!is_to_the_end).then(|| format!("the log is confirmed to {confirmed}"));
    Some((usize::try_from(changes).unwrap(), behind.into_iter().collect()))
}

/// Letters whose bytes are kept.
pub(super) async fn letters(world: &World) -> usize {
    usize::try_from(world.count("SELECT count(*) FROM afterwrite.dead_letters").await).unwrap()
}
