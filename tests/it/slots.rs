//! Replication slots of groups, as an operator sees them: `afterwrite slot`, `afterwrite status`, metrics and log lines.

use std::sync::LazyLock;
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use tokio::sync::{Mutex, MutexGuard};

use crate::stack::{self, until};
use crate::suspending::asked;
use crate::wal::{SETTINGS, insert, remove, until_effects, until_it_reads, worker};
use crate::worker::Worker;
use crate::world::World;

fn slot_of(world: &World) -> String {
    format!("{}_recorder", world.name)
}

/// Runs `afterwrite` with the settings of a group that reads the log; answers exit code, standard output and standard error.
async fn said(world: &World, words: &[&str]) -> (Option<i32>, String, String) {
    let mut command = world.command(env!("CARGO_BIN_EXE_afterwrite"));
    let output = command.args(words).envs(SETTINGS).output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// What a command that has to succeed prints.
async fn printed(world: &World, words: &[&str]) -> String {
    let (code, out, error) = said(world, words).await;
    assert_eq!(code, Some(0), "{words:?}: {out}{error}");
    out
}

async fn in_json(world: &World, words: &[&str]) -> Value {
    let words = [words, &["--output", "json"]].concat();
    serde_json::from_str(&printed(world, &words).await).unwrap()
}

/// Why a command did not do its work.
async fn refusal(world: &World, words: &[&str]) -> String {
    let (code, out, error) = said(world, words).await;
    assert_eq!(code, Some(1), "{words:?}: {out}{error}");
    error
}

async fn run(world: &World, sql: &str) {
    let ran = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&world.pool).await;
    ran.unwrap();
}

/// The setting belongs to the whole server: tests that look at it take turns.
static KEEP_SIZE: LazyLock<Mutex<()>> = LazyLock::new(Mutex::default);

/// How much log the server keeps for a slot: what the stack says, until a test says otherwise.
struct KeepSize {
    _turn: MutexGuard<'static, ()>,
}

impl KeepSize {
    async fn take() -> Self {
        Self {
            _turn: KEEP_SIZE.lock().await,
        }
    }

    async fn without_limit(&self, world: &World) {
        self.say(world, "SET max_slot_wal_keep_size = -1", |size| size == -1)
            .await;
    }

    async fn end(self, world: &World) {
        self.say(world, "RESET max_slot_wal_keep_size", |size| size > 0).await;
    }

    /// Waits until sessions know.
    async fn say(&self, world: &World, setting: &str, is_known: impl Fn(i64) -> bool) {
        run(world, &format!("ALTER SYSTEM {setting}")).await;
        run(world, "SELECT pg_reload_conf()").await;
        let query = "SELECT setting::bigint FROM pg_settings WHERE name = 'max_slot_wal_keep_size'";
        until("the setting", Duration::from_secs(30), async || {
            is_known(world.count(query).await).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_is_shown_while_it_is_read_and_after_and_dropped_by_its_name() {
    let _stack = stack::shared().await;
    let world = World::bare("slots").await;
    let keep_size = KeepSize::take().await;
    let slot = slot_of(&world);
    let drop = ["slot", "drop", &slot];
    let first = worker(&world, "first");
    until_it_reads(&first).await;
    // The stack has a limit.
    assert!(!first.said().contains("max_slot_wal_keep_size"), "{}", first.said());
    assert!(!printed(&world, &["status"]).await.contains("max_slot_wal_keep_size"));
    let listed = printed(&world, &["slot", "list"]).await;
    assert!(
        listed.contains("for a slot at most (max_slot_wal_keep_size)"),
        "{listed}"
    );
    keep_size.without_limit(&world).await;
    insert(&world, 1..=10, "ok").await;
    until_effects(&world, 10).await;
    let group = until("what is open to be settled", Duration::from_secs(60), async || {
        let report = in_json(&world, &["status"]).await;
        let group = report["groups"][0].clone();
        (group["state"] == "running" && group["lag_s"] == 0).then_some(group)
    })
    .await;
    assert_eq!(
        (&group["slot"]["slot"], &group["slot"]["is_there"]),
        (&json!(slot), &json!(true)),
        "{group}"
    );
    let pid = group["slot"]["active_pid"].as_i64().unwrap();
    let refused = refusal(&world, &drop).await;
    assert!(
        refused.contains(&format!("read by process {pid} of postgres")),
        "{refused}"
    );
    assert_eq!(world.count("SELECT count(*) FROM afterwrite.slots").await, 1);
    first.stop().await;

    // What is written meanwhile is what it is behind.
    let megabytes = "INSERT INTO work (k, seq, note) SELECT k, 1, repeat('x', 1000) FROM generate_series(11, 2010) k";
    run(&world, megabytes).await;
    let report = in_json(&world, &["status"]).await;
    let group = &report["groups"][0];
    assert_eq!(group["state"], "stopped");
    for bytes in ["lag_bytes", "kept_bytes"] {
        assert!(group["slot"][bytes].as_i64().unwrap() > 2_000_000, "{bytes}: {group}");
    }
    assert!(group["lag_s"].as_i64().unwrap() < 120, "{group}");
    let told = printed(&world, &["status"]).await;
    for part in [" MB", "! max_slot_wal_keep_size is -1"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let listed = printed(&world, &["slot", "list"]).await;
    for part in [slot.as_str(), &world.group(), "not read", " MB", "without limit"] {
        assert!(listed.contains(part), "{part}: {listed}");
    }
    keep_size.end(&world).await;

    let done = printed(&world, &drop).await;
    for part in ["is dropped, with", "written from then on", "is missed"] {
        assert!(done.contains(part), "{part}: {done}");
    }
    assert_eq!(world.count("SELECT count(*) FROM afterwrite.slots").await, 0);
    assert!(printed(&world, &drop).await.contains("nothing to do"));
    let second = worker(&world, "second");
    until_it_reads(&second).await;
    insert(&world, 5_001..=5_010, "ok").await;
    until_effects(&world, 20).await;
    second.stop().await;
    remove(world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_slot_is_told_and_nobody_elses_is_dropped() {
    let _stack = stack::shared().await;
    let world = World::bare("slots_wrong").await;
    let slot = slot_of(&world);
    let drop = ["slot", "drop", &slot];
    let make = |plugin: &str| format!("SELECT pg_create_logical_replication_slot('{slot}', '{plugin}')");
    let drop_by_hand = format!("SELECT pg_drop_replication_slot('{slot}')");
    let there = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()";

    let foreign = refusal(&world, &["slot", "drop", "somebody_elses"]).await;
    assert!(foreign.contains("is no group's"), "{foreign}");
    // As a connector's would be.
    run(&world, &make("pgoutput")).await;
    let listed = printed(&world, &["slot", "list"]).await;
    assert!(listed.contains("unknown to afterwrite"), "{listed}");
    let told = printed(&world, &["status"]).await;
    assert!(
        told.contains(&format!("slot {slot} is unknown to afterwrite")),
        "{told}"
    );
    assert!(refusal(&world, &drop).await.contains("add --unknown"));
    assert_eq!(world.count(there).await, 1);
    printed(&world, &["slot", "drop", &slot, "--unknown"]).await;
    assert_eq!(world.count(there).await, 0);

    let first = worker(&world, "first");
    until_it_reads(&first).await;
    first.stop().await;
    run(&world, &drop_by_hand).await;
    let told = printed(&world, &["status"]).await;
    for part in [&format!("slot {slot} is gone"), &format!("afterwrite slot drop {slot}")] {
        assert!(told.contains(part.as_str()), "{part}: {told}");
    }
    // One of that name which cannot be a group's stays.
    run(&world, &make("test_decoding")).await;
    let done = in_json(&world, &drop).await;
    assert_eq!(
        (&done["dropped"], &done["forgotten"]),
        (&json!(false), &json!(true)),
        "{done}"
    );
    assert_eq!(world.count(there).await, 1);
    remove(world).await;
}

async fn until_it_said(worker: &Worker, what: &str) {
    until(what, Duration::from_secs(60), async || {
        worker.said().contains(what).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_says_who_holds_up_a_slot_and_that_the_disk_has_no_limit() {
    let _stack = stack::shared().await;
    let world = World::bare("slots_held_up").await;
    let keep_size = KeepSize::take().await;
    keep_size.without_limit(&world).await;
    run(&world, "CREATE TABLE secrets (value text)").await;
    let mut open = world.pool.begin().await.unwrap();
    sqlx::raw_sql("SET LOCAL application_name = 'forgetful'; INSERT INTO secrets VALUES ('hush')")
        .execute(&mut *open)
        .await
        .unwrap();
    let first = worker(&world, "first");
    until_it_said(&first, "making a replication slot waits for an open transaction").await;
    let log = first.said();
    assert!(log.contains("forgetful") && !log.contains("hush"), "{log}");
    assert!(!log.contains("partition assigned"), "{log}");
    assert_eq!(log.matches("max_slot_wal_keep_size is -1").count(), 1, "{log}");
    keep_size.end(&world).await;
    open.rollback().await.unwrap();
    until_it_reads(&first).await;
    // Nobody reads it for now, and whoever keeps the process running starts it again in a moment.
    first.kill();
    let active = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database() AND active";
    until("the slot to be free", Duration::from_secs(60), async || {
        (world.count(active).await == 0).then_some(())
    })
    .await;
    let refused = refusal(&world, &["slot", "drop", &slot_of(&world)]).await;
    assert!(refused.contains("counts as running"), "{refused}");
    remove(world).await;
}

/// What the metric says.
async fn lag_bytes(worker: &Worker, world: &World) -> f64 {
    let (_, metrics) = asked(worker, "/metrics").await;
    let beginning = format!(
        "afterwrite_slot_lag_bytes{{group=\"{}\",critical=\"true\"}} ",
        world.group()
    );
    let value = metrics.lines().find_map(|line| line.strip_prefix(&beginning));
    value
        .unwrap_or_else(|| panic!("{beginning}: {metrics}"))
        .parse()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_say_how_much_log_is_not_confirmed() {
    let _stack = stack::shared().await;
    let world = World::bare("slots_metrics").await;
    let settings = [&SETTINGS[..], &[("AFTERWRITE__ADMIN__LISTEN", "localhost:0")]].concat();
    let worker = world.worker("w", &settings);
    until_it_reads(&worker).await;
    // The first is not done for now, and holds back the confirmation of what is written behind it.
    insert(&world, 1..=1, "down").await;
    let megabytes = "INSERT INTO work (k, seq, note) SELECT k, 1, repeat('x', 1000) FROM generate_series(2, 3001) k";
    run(&world, megabytes).await;
    until_effects(&world, 3_000).await;
    until("the metric to grow", Duration::from_secs(60), async || {
        (lag_bytes(&worker, &world).await > 3_000_000.0).then_some(())
    })
    .await;
    run(&world, "INSERT INTO mended VALUES (0)").await;
    until_effects(&world, 3_001).await;
    // Log without changes for the group is told to the server by the megabyte.
    until("the metric to fall", Duration::from_secs(60), async || {
        (lag_bytes(&worker, &world).await < 2_000_000.0).then_some(())
    })
    .await;
    worker.stop().await;
    remove(world).await;
}
