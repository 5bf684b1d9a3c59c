//! Reconciling: what differs is counted, written once, and nobody is welcomed anew. And the commands about it.

use std::process::Command;

use afterwrite::schedule::reconcile::{self, Campaign, Reconciling, What};
use serde_json::Value;

use crate::reward::granting;
use crate::world::{World, env, in_world};

async fn reconciled(world: &World, what: What, dry_run: bool) -> (u64, u64) {
    let pool = world.worker_pool();
    let reconciling = Reconciling {
        what,
        granting: granting(),
        from: None,
        until: None,
        dry_run,
    };
    let campaigns: Vec<Campaign> = reconcile::campaigns(&pool, Some(world.campaign)).await.unwrap();
    assert_eq!(campaigns.len(), 1);
    let (mut checked, mut differing, mut cursor) = (0, 0, None);
    loop {
        let page = reconciling.page(&pool, &campaigns[0], cursor).await.unwrap();
        (checked, differing) = (checked + page.checked, differing + page.differing);
        cursor = page.next;
        if cursor.is_none() {
            return (checked, differing);
        }
    }
}

/// Rows that are older than the installation: nobody told a handler of them.
async fn old_rows(world: &World) {
    world.reward(2, &[]).await;
    let ann = world.member("ann").await;
    for number in 0..5 {
        world.friend(ann, &format!("friend{number}")).await;
    }
    let cheat = world.member("cheat").await;
    world.friend(cheat, "self").await;
    world
        .exec("UPDATE waitlist_users SET device_fingerprint = 'd' WHERE first_name IN ('cheat', 'self')")
        .await;
}

#[tokio::test]
async fn rows_older_than_the_installation_are_worked_on_and_nobody_is_welcomed() {
    in_world(async |world: &mut World| {
        old_rows(world).await;
        for (what, checked, differing, count, rows) in [
            (What::Fraud, 8, 1, "fraud_detections", 1),
            (What::Positions, 8, 8, "waitlist_positions", 8),
            (What::Rewards, 2, 1, "user_rewards WHERE status = 'earned'", 1),
        ] {
            let before = world.count(count).await;
            let (_, differed) = reconciled(world, what, true).await;
            assert_eq!(differed, differing, "{what:?}, dry");
            assert_eq!(world.count(count).await, before, "{what:?} was a dry run");
            assert_eq!(reconciled(world, what, false).await, (checked, differing), "{what:?}");
            assert_eq!(world.count(count).await, rows, "{what:?}");
            assert_eq!(reconciled(world, what, false).await, (checked, 0), "{what:?}, again");
        }
        let (hours, differing) = reconciled(world, What::Analytics, false).await;
        assert!(
            hours > 24 * 30 && hours == differing,
            "{hours} hours, {differing} written"
        );
        assert_eq!(reconciled(world, What::Analytics, false).await, (hours, 0));
        assert_eq!(
            world
                .text("SELECT sum(new_signups) || ' ' || max(total_signups) FROM campaign_analytics")
                .await,
            "8 8"
        );
        assert_eq!(world.count("email_log").await, 0);
        // One hour was wrong.
        world
            .exec(
                "UPDATE campaign_analytics SET emails_sent = 7 WHERE hour = (SELECT min(hour) FROM campaign_analytics)",
            )
            .await;
        assert_eq!(reconciled(world, What::Analytics, true).await, (hours, 1));
    })
    .await;
}

/// Runs the program; its exit code and what it printed.
fn afterwrite(world: &World, words: &[&str]) -> (i32, String) {
    let mut url = url::Url::parse(&env("DATABASE_URL")).unwrap();
    url.set_path(&world.name);
    let mut command = Command::new(env!("CARGO_BIN_EXE_afterwrite"));
    command.args(words).env("DATABASE_URL", url.as_str());
    let output = command.output().unwrap();
    let printed = match output.status.code() {
        Some(0) => output.stdout,
        _ => output.stderr,
    };
    (output.status.code().unwrap(), String::from_utf8(printed).unwrap())
}

/// The same, as JSON.
fn json(world: &World, words: &[&str]) -> Value {
    let (code, printed) = afterwrite(world, &[words, &["--output", "json"]].concat());
    assert_eq!(code, 0, "{words:?}: {printed}");
    serde_json::from_str(&printed).unwrap()
}

fn listed(world: &World, name: &str) -> Value {
    let listed = json(world, &["schedule", "list"]);
    let jobs = listed["jobs"].as_array().unwrap();
    assert_eq!(jobs.len(), 6);
    jobs.iter().find(|job| job["job"] == name).unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_listed_and_run_by_hand() {
    in_world(async |world: &mut World| {
        old_rows(world).await;
        let cleanup = listed(world, "cleanup");
        assert_eq!(
            (&cleanup["zone"], &cleanup["last"]),
            (&Value::from("UTC"), &Value::Null)
        );

        let run = ["schedule", "run", "fraud_scan", "--tick", "2026-01-01T00:30:00Z"];
        let ran = json(world, &run);
        assert_eq!(
            (&ran["status"], &ran["report"]["users"]),
            (&Value::from("done"), &Value::from(8)),
            "{ran}"
        );
        assert_eq!(world.count("fraud_detections").await, 1);
        assert_eq!(json(world, &run)["report"]["detections"], 0);
        let scan = listed(world, "fraud_scan");
        assert_eq!(
            (&scan["last"]["status"], &scan["open_since"]),
            (&Value::from("done"), &Value::Null)
        );
        // Its process died, and nobody has taken it over.
        world
            .exec("UPDATE afterwrite.schedule_runs SET status = 'running', finished_at = NULL")
            .await;
        assert_eq!(json(world, &run)["status"], "done");

        let mut at_it = world.pool.acquire().await.unwrap();
        sqlx::query("SELECT pg_advisory_lock(hashtextextended('afterwrite.schedule:fraud_scan', 0))")
            .execute(&mut *at_it)
            .await
            .unwrap();
        let (code, said) = afterwrite(world, &run);
        assert!(code == 1 && said.contains("a worker is at fraud_scan"), "{said}");
        let (_, table) = afterwrite(world, &["schedule", "list"]);
        assert!(table.lines().count() == 7 && table.contains("every 15m"), "{table}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_says_what_differed() {
    in_world(async |world: &mut World| {
        old_rows(world).await;
        let dry = json(world, &["reconcile", "positions", "--dry-run"]);
        assert_eq!(
            (&dry["differing"], &dry["dry_run"]),
            (&Value::from(8), &Value::from(true))
        );
        assert_eq!(world.count("waitlist_positions").await, 0);
        let campaign = world.campaign.to_string();
        let of_campaign = json(world, &["reconcile", "positions", "--campaign", &campaign]);
        assert_eq!(of_campaign["differing"], 8);
        world.exec("UPDATE campaigns SET status = 'completed'").await;
        let frozen = json(world, &["reconcile", "positions"]);
        assert_eq!(frozen["campaigns"][0]["left_out"], "completed: its places are frozen");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_meant_is_refused() {
    in_world(async |world: &mut World| {
        let future = "2999-01-01T00:00:00Z";
        let past = "2026-01-01T00:00:00Z";
        let nobody = "00000000-0000-0000-0000-000000000001";
        for (words, said) in [
            (
                &["schedule", "run", "fraud-scan"][..],
                "no scheduled job is called fraud-scan",
            ),
            (&["schedule", "run", "cleanup", "--tick", future], "in the future"),
            (&["reconcile", "positions", "--from", past], "do nothing for positions"),
            (&["reconcile", "fraud", "--campaign", nobody], "there is no campaign"),
            (&["run", "--set", "schedule.zone=Berlin"], "is no time zone"),
        ] {
            let (ended, printed) = afterwrite(world, words);
            assert!(ended == 2 && printed.contains(said), "{words:?}: {ended} {printed}");
        }
    })
    .await;
}
