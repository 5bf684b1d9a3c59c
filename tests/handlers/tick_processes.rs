//! Two processes that are killed all the time run each tick once, and what they compute is what the facts say.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use afterwrite::schedule::analytics::Analytics;
use afterwrite::schedule::fraud_scan::FraudScan;
use afterwrite::schedule::runner::{Options, Scheduler};
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::postgres::PgPoolOptions;
use tokio::sync::watch;
use uuid::Uuid;

use crate::ticks::{IN_THE_MIDDLE, OfTable, Probe, at, lock_gate, make_ran, open_gate, planned, set_clock, until};
use crate::world::{World, env, in_world, settings};

const HOUR: TimeDelta = TimeDelta::hours(1);

/// Set in a process of this binary that is to work: its name, and its database.
const NAME: &str = "AFTERWRITE_TEST_SCHEDULER";
const DATABASE: &str = "AFTERWRITE_TEST_DATABASE";

/// A process of this binary that runs the scheduler. Dropped, it is killed.
struct Process(Child);

impl Process {
    fn start(world: &World, name: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["tick_processes::works_as_a_process", "--exact", "--nocapture"])
            .env(NAME, name)
            .env(DATABASE, &world.name)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        Self(command.spawn().unwrap())
    }

    /// SIGKILL.
    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }
}

/// Does nothing in a test run; in a process that was started for it, it runs the scheduler until it is killed.
#[tokio::test(flavor = "multi_thread")]
async fn works_as_a_process() {
    let Ok(name) = std::env::var(NAME) else { return };
    let connect: sqlx::postgres::PgConnectOptions = env("DATABASE_URL").parse().unwrap();
    let connect = connect
        .database(&env(DATABASE))
        .options([("role", "afterwrite_worker")])
        .application_name(&name);
    let options = Options {
        pool: PgPoolOptions::new()
            .max_connections(5)
            .connect_lazy_with(connect.clone()),
        connect,
        owner: Uuid::new_v4(),
        clock: Arc::new(OfTable),
        look_every: Duration::from_millis(20),
        grace: Duration::ZERO,
    };
    let interval = Duration::from_secs(3_600);
    let jobs = vec![
        planned(Probe::gated("probe")),
        planned(Analytics::new(interval)),
        planned(FraudScan::new(interval, settings().fraud, settings().secret)),
    ];
    let (_stop, stopping) = watch::channel(false);
    Scheduler::new(jobs, options).run(stopping).await;
}

const TICKS: i32 = 48;

/// After each so many ticks a process is killed in the middle of a run.
const KILL_EVERY: i32 = 4;

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_that_are_killed_run_each_of_48_ticks_once() {
    in_world(async |world: &mut World| {
        make_ran(world).await;
        let start = at("2026-05-01T00:00:00Z");
        world
            .exec(&format!("UPDATE campaigns SET created_at = '{start}'"))
            .await;
        set_clock(world, start).await;
        let mut processes: BTreeMap<String, Process> = BTreeMap::new();
        for name in ["one-0", "two-0"] {
            processes.insert(name.to_owned(), Process::start(world, name));
        }
        let mut gate = world.pool.acquire().await.unwrap();
        let mut killed = 0;
        until_all_done(world, start).await;
        for number in 1..=TICKS {
            let tick = start + HOUR * number;
            live_an_hour(world, tick, number).await;
            let kills = number % KILL_EVERY == 0;
            if kills {
                lock_gate(&mut gate).await;
            }
            set_clock(world, tick + TimeDelta::seconds(1)).await;
            if kills {
                until(world, "a run in the middle", IN_THE_MIDDLE).await;
                let victim = who_is_in_the_middle(world).await;
                processes.remove(&victim).expect("it is one of ours").kill();
                killed += 1;
                let (side, generation) = victim.split_once('-').unwrap();
                let next = format!("{side}-{}", generation.parse::<u32>().unwrap() + 1);
                processes.insert(next.clone(), Process::start(world, &next));
                open_gate(&mut gate).await;
            }
            until_all_done(world, tick).await;
        }
        drop(processes);
        assert_eq!(killed, TICKS / KILL_EVERY);
        assert_eq!(world.count("ran").await, i64::from(TICKS) + 1);
        assert_eq!(
            world.count("(SELECT DISTINCT tick FROM ran) AS ticks").await,
            i64::from(TICKS) + 1
        );
        for job in ["probe", "analytics", "fraud_scan"] {
            let done = format!("afterwrite.schedule_runs WHERE job = '{job}' AND status = 'done'");
            assert_eq!(world.count(&done).await, i64::from(TICKS) + 1, "{job}");
        }
        let again = world
            .count("afterwrite.schedule_runs WHERE job = 'probe' AND attempts > 1")
            .await;
        assert!(
            again >= i64::from(killed),
            "{killed} were killed in the middle, {again} were run again"
        );

        // The figures, computed anew by nothing but counting.
        let (figures, recomputed) = (world.text(FIGURES).await, world.text(RECOMPUTED).await);
        assert!(figures.lines().count() >= TICKS as usize, "{figures}");
        assert_eq!(figures, recomputed);
        assert_eq!(
            world.count("fraud_detections WHERE type = 'self_referral'").await,
            i64::from(TICKS / 3)
        );
    })
    .await;
}

/// Meanwhile, what a run wrote is never seen without its end, nor its end without what it wrote.
async fn until_all_done(world: &World, tick: DateTime<Utc>) {
    let done = format!(
        "(SELECT count(*) = 3 FROM afterwrite.schedule_runs WHERE tick = '{}' AND status = 'done')
         OR 1 / (SELECT (SELECT count(*) FROM ran)
                        = (SELECT count(*) FROM afterwrite.schedule_runs WHERE job = 'probe' AND status = 'done'))::integer < 0",
        tick.to_rfc3339()
    );
    until(world, "a tick to be done by all jobs", &done).await;
}

async fn who_is_in_the_middle(world: &World) -> String {
    world
        .text(
            "SELECT application_name FROM pg_locks JOIN pg_stat_activity USING (pid)
             WHERE locktype = 'advisory' AND NOT granted AND objid = 4242 AND datname = current_database()",
        )
        .await
}

/// Rows of the hour before a tick, and one that comes late, for the hour before that one.
async fn live_an_hour(world: &World, tick: DateTime<Utc>, number: i32) {
    let campaign = world.campaign;
    let hour = (tick - HOUR).to_rfc3339();
    let device = if number % 3 == 0 { "'same'" } else { "NULL" };
    world
        .exec(&format!(
            "WITH referrer AS (
                 INSERT INTO waitlist_users (campaign_id, email, referral_code, created_at, email_verified, verified_at, device_fingerprint)
                 SELECT '{campaign}', 'r{number}@w.example', 'r{number}', '{hour}', true, '{hour}', {device} RETURNING id
             ), friend AS (
                 INSERT INTO waitlist_users (campaign_id, email, referral_code, created_at, email_verified, status, updated_at, device_fingerprint)
                 SELECT '{campaign}', 'f{number}@w.example', 'f{number}', '{hour}'::timestamptz + interval '59 min 59.9 s',
                        {number} % 2 = 0, CASE WHEN {number} % 5 = 0 THEN 'converted' ELSE 'pending' END,
                        '{hour}'::timestamptz + interval '20 min', {device} RETURNING id
             ), late AS (
                 INSERT INTO waitlist_users (campaign_id, email, referral_code, created_at)
                 SELECT '{campaign}', 'l{number}-' || k || '@w.example', 'l{number}-' || k, '{hour}'::timestamptz - k * interval '40 min'
                 FROM generate_series(1, {number} % 2) AS k WHERE {number} > 1 RETURNING id
             ), referral AS (
                 INSERT INTO referrals (campaign_id, referrer_id, referred_id, created_at)
                 SELECT '{campaign}', referrer.id, friend.id, '{hour}'::timestamptz + interval '1 min' FROM referrer, friend
             ), reward AS (
                 INSERT INTO rewards (campaign_id, name, type, trigger_type)
                 VALUES ('{campaign}', 'R{number}', 'custom', 'manual') RETURNING id
             ), given AS (
                 INSERT INTO user_rewards (campaign_id, reward_id, user_id, earned_at, delivered_at)
                 SELECT '{campaign}', reward.id, referrer.id, '{hour}'::timestamptz + interval '5 min',
                        CASE WHEN {number} % 2 = 1 THEN '{hour}'::timestamptz + interval '50 min' END
                 FROM reward, referrer
             )
             INSERT INTO email_log (effect_key, campaign_id, type, status, sent_at)
             SELECT 'k{number}-' || k, '{campaign}', 'custom', 'sent', '{hour}'::timestamptz + k * interval '7 min'
             FROM generate_series(0, {number} % 7) AS k"
        ))
        .await;
}

const FIGURES: &str =
    "SELECT string_agg(concat_ws(' ', hour, new_signups, new_verified, new_referrals, conversions, emails_sent,
           rewards_earned, rewards_delivered, total_signups, total_verified, total_referrals), E'\n' ORDER BY hour)
    FROM campaign_analytics";

const RECOMPUTED: &str = "SELECT string_agg(concat_ws(' ', h,
        (SELECT count(*) FROM waitlist_users WHERE created_at >= h AND created_at < e),
        (SELECT count(*) FROM waitlist_users WHERE email_verified AND coalesce(verified_at, created_at) >= h
                                               AND coalesce(verified_at, created_at) < e),
        (SELECT count(*) FROM referrals WHERE created_at >= h AND created_at < e),
        (SELECT count(*) FROM waitlist_users WHERE status = 'converted' AND updated_at >= h AND updated_at < e),
        (SELECT count(*) FROM email_log WHERE sent_at >= h AND sent_at < e),
        (SELECT count(*) FROM user_rewards WHERE earned_at >= h AND earned_at < e),
        (SELECT count(*) FROM user_rewards WHERE delivered_at >= h AND delivered_at < e),
        (SELECT count(*) FROM waitlist_users WHERE created_at < e),
        (SELECT count(*) FROM waitlist_users WHERE email_verified AND coalesce(verified_at, created_at) < e),
        (SELECT count(*) FROM referrals WHERE created_at < e)), E'\n' ORDER BY h)
    FROM (SELECT hour AS h, hour + interval '1 hour' AS e
          FROM generate_series((SELECT min(hour) FROM campaign_analytics), '2026-05-02T23:00:00Z', interval '1 hour') AS hour) AS hours";
