//! The scheduler itself: each tick once over several processes that are killed, retries, what is caught up with, stops.

use std::sync::Arc;
use std::time::Duration;

use afterwrite::schedule::clock::Clock;
use afterwrite::schedule::rows;
use afterwrite::schedule::runner::{self, Ended, Options, Scheduler};
use afterwrite::schedule::timing::{self, Missed, Schedule};
use afterwrite::schedule::{Context, Error, Job, Planned, Report};
use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::postgres::PgPool;
use tokio::sync::watch;
use uuid::Uuid;

use crate::world::{World, in_world};

/// Longer than anything here takes.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Whoever holds this advisory lock keeps probes in the middle of their transaction.
const GATE: i64 = 4242;

pub(crate) fn at(text: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(text).unwrap().to_utc()
}

/// The time that a row says.
pub(crate) struct OfTable;

#[async_trait]
impl Clock for OfTable {
    async fn now(&self, pool: &PgPool) -> Result<DateTime<Utc>, sqlx::Error> {
        sqlx::query_scalar("SELECT at FROM test_clock").fetch_one(pool).await
    }
}

pub(crate) async fn set_clock(world: &World, now: DateTime<Utc>) {
    world
        .exec(&format!(
            "CREATE TABLE IF NOT EXISTS test_clock (at timestamptz); GRANT SELECT ON test_clock TO PUBLIC;
             DELETE FROM test_clock; INSERT INTO test_clock VALUES ('{}')",
            now.to_rfc3339()
        ))
        .await;
}

/// Writes each run down, in a table that would take one twice.
pub(crate) struct Probe {
    name: &'static str,
    missed: Missed,
    /// Attempts that fail, after they wrote.
    failures: u32,
    gated: bool,
}

impl Probe {
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            name,
            missed: Missed::Each { max: 1_000 },
            failures: 0,
            gated: false,
        }
    }

    /// One that waits at the gate, in the middle of its transaction.
    pub(crate) fn gated(name: &'static str) -> Self {
        Self {
            gated: true,
            ..Self::new(name)
        }
    }
}

#[async_trait]
impl Job for Probe {
    fn name(&self) -> &str {
        self.name
    }

    fn schedule(&self) -> Result<Schedule, timing::Error> {
        Schedule::every(Duration::from_secs(3_600))
    }

    fn missed(&self) -> Missed {
        self.missed
    }

    async fn run(&self, context: &mut Context) -> Result<Report, Error> {
        let (tick, previous, attempt) = (context.tick(), context.previous(), context.attempt());
        let connection = context.transaction().await?;
        sqlx::query("INSERT INTO ran (job, tick, previous) VALUES ($1, $2, $3)")
            .bind(self.name)
            .bind(tick)
            .bind(previous)
            .execute(&mut *connection)
            .await?;
        if self.gated {
            sqlx::query("SELECT pg_advisory_xact_lock_shared($1)")
                .bind(GATE)
                .execute(connection)
                .await?;
        }
        if attempt <= self.failures {
            return Err(format!("attempt {attempt} fails").into());
        }
        Ok(Report::from([("ran", 1)]))
    }
}

pub(crate) fn planned(job: impl Job) -> Planned {
    let schedule = job.schedule().unwrap();
    Planned {
        job: Arc::new(job),
        schedule,
    }
}

pub(crate) async fn make_ran(world: &World) {
    world
        .exec("CREATE TABLE ran (job text, tick timestamptz, previous timestamptz); GRANT ALL ON ran TO PUBLIC")
        .await;
}

pub(crate) fn options(world: &World) -> Options {
    let worker = world.worker_pool();
    Options {
        connect: (*worker.connect_options()).clone(),
        pool: worker,
        owner: Uuid::new_v4(),
        clock: Arc::new(OfTable),
        look_every: Duration::from_millis(20),
        grace: Duration::ZERO,
    }
}

/// Waits until a statement answers true.
pub(crate) async fn until(world: &World, what: &str, condition: &str) {
    let mut looks = tokio::time::interval(Duration::from_millis(20));
    let statement = format!("SELECT {condition}");
    let met = async {
        loop {
            looks.tick().await;
            let met: bool = sqlx::query_scalar(sqlx::AssertSqlSafe(statement.clone()))
                .fetch_one(&world.pool)
                .await
                .unwrap();
            if met {
                return;
            }
        }
    };
    assert!(
        tokio::time::timeout(WAIT_MAX, met).await.is_ok(),
        "waited in vain for {what}"
    );
}

/// Makes attempts at a run as one process does, at a time of the test's own.
pub(crate) struct Attempts {
    options: Options,
    planned: Planned,
    stop: watch::Sender<bool>,
}

impl Attempts {
    pub(crate) fn of(world: &World, job: impl Job) -> Self {
        Self {
            options: options(world),
            planned: planned(job),
            stop: watch::Sender::new(false),
        }
    }

    pub(crate) async fn add(&self, tick: DateTime<Utc>) {
        let name = self.planned.job.name();
        rows::add(&self.options.pool, name, &[tick], tick).await.unwrap();
    }

    pub(crate) async fn at(&self, tick: DateTime<Utc>, now: DateTime<Utc>) -> Ended {
        let stop = self.stop.subscribe();
        runner::attempt(&self.planned, &self.options, tick, now, stop)
            .await
            .unwrap()
    }
}

#[tokio::test]
async fn a_failed_run_leaves_nothing_behind_is_tried_again_later_and_is_seen() {
    in_world(async |world: &mut World| {
        make_ran(world).await;
        let attempts = Attempts::of(
            world,
            Probe {
                failures: 2,
                ..Probe::new("probe")
            },
        );
        let tick = at("2026-05-01T10:00:00Z");
        attempts.add(tick).await;
        let seconds = |seconds| tick + TimeDelta::seconds(seconds);
        let row = "SELECT status || ' ' || attempts || ' ' || coalesce(error, '-') FROM afterwrite.schedule_runs";
        for (now, ended, said) in [
            (0, Ended::Failed, "retrying 1 attempt 1 fails"),
            // Too early.
            (9, Ended::Elsewhere, "retrying 1 attempt 1 fails"),
            (10, Ended::Failed, "retrying 2 attempt 2 fails"),
            (29, Ended::Elsewhere, "retrying 2 attempt 2 fails"),
            (30, Ended::Done, "done 3 -"),
            (9_999, Ended::Elsewhere, "done 3 -"),
        ] {
            assert_eq!(attempts.at(tick, seconds(now)).await, ended, "after {now} s");
            assert_eq!(world.text(row).await, said, "after {now} s");
            assert_eq!(world.count("ran").await, i64::from(ended == Ended::Done || now > 30));
        }
        // A person asks for it once more.
        rows::request(&world.pool, "probe", tick, seconds(10_000), "ada")
            .await
            .unwrap();
        for now in [10_000, 10_010, 10_030] {
            attempts.at(tick, seconds(now)).await;
        }
        assert_eq!(world.text(row).await, "done 3 -");
        assert_eq!(world.count("ran").await, 2);
    })
    .await;
}

#[tokio::test]
async fn whoever_lost_the_run_to_another_process_changes_nothing_of_it() {
    in_world(async |world: &mut World| {
        make_ran(world).await;
        let pool = world.worker_pool();
        let tick = at("2026-05-01T10:00:00Z");
        rows::add(&pool, "probe", &[tick], tick).await.unwrap();
        let mut sessions = [pool.acquire().await.unwrap(), pool.acquire().await.unwrap()];
        let mut claims = Vec::new();
        for session in &mut sessions {
            let owner = Uuid::new_v4();
            let claim = rows::claim(session, "probe", tick, tick, owner, |_| Duration::ZERO).await;
            claims.push(claim.unwrap().unwrap());
        }
        let report = Report::new();
        let [first, second] = &mut sessions;
        for end in [rows::End::Done(&report), rows::End::Failed { error: "x" }] {
            assert!(rows::end(first, &claims[0], end).await.is_err());
        }
        assert!(rows::hold(first, &claims[0]).await.is_err());
        rows::hold(second, &claims[1]).await.unwrap();
        rows::end(second, &claims[1], rows::End::Done(&report)).await.unwrap();
        assert!(rows::end(second, &claims[1], rows::End::Done(&report)).await.is_err());
        assert_eq!(
            world
                .text("SELECT status || ' ' || attempts FROM afterwrite.schedule_runs")
                .await,
            "done 2"
        );
    })
    .await;
}

#[tokio::test]
async fn a_run_that_never_works_is_given_up_and_holds_no_other_back() {
    in_world(async |world: &mut World| {
        make_ran(world).await;
        let failing = Attempts::of(
            world,
            Probe {
                failures: u32::MAX,
                ..Probe::new("probe")
            },
        );
        let tick = at("2026-05-01T10:00:00Z");
        failing.add(tick).await;
        let mut now = tick;
        for _ in 0..timing::ATTEMPTS_MAX {
            assert_eq!(failing.at(tick, now).await, Ended::Failed);
            now += TimeDelta::hours(2);
        }
        assert_eq!(failing.at(tick, now).await, Ended::Elsewhere);
        assert_eq!(world.text("SELECT status FROM afterwrite.schedule_runs").await, "failed");

        // The next ticks of the same job are done.
        set_clock(world, tick + TimeDelta::hours(3)).await;
        let (stop, stopping) = watch::channel(false);
        let scheduler = Scheduler::new(vec![planned(Probe::new("probe"))], options(world));
        let running = tokio::spawn(scheduler.run(stopping));
        until(world, "the later ticks", "(SELECT count(*) = 3 FROM ran)").await;
        stop.send_replace(true);
        running.await.unwrap();
        let order = "SELECT string_agg(to_char(tick AT TIME ZONE 'UTC', 'HH24') || '-' ||
                                       coalesce(to_char(previous AT TIME ZONE 'UTC', 'HH24'), ''), ' ' ORDER BY tick) FROM ran";
        assert_eq!(world.text(order).await, "11- 12-11 13-12");
    })
    .await;
}

#[tokio::test]
async fn missed_ticks_are_caught_up_with_by_one_process_of_several() {
    in_world(async |world: &mut World| {
        make_ran(world).await;
        set_clock(world, at("2026-05-01T10:20:00Z")).await;
        let jobs = || {
            let last = Probe {
                missed: Missed::Last,
                ..Probe::new("last")
            };
            vec![planned(Probe::new("each")), planned(last)]
        };
        let (stop, stopping) = watch::channel(false);
        let running: Vec<_> = (0..3)
            .map(|_| tokio::spawn(Scheduler::new(jobs(), options(world)).run(stopping.clone())))
            .collect();
        until(world, "the first runs", "(SELECT count(*) = 2 FROM ran)").await;
        assert_eq!(
            world.text("SELECT max(tick) = '2026-05-01T10:00:00Z' FROM ran").await,
            "true"
        );
        set_clock(world, at("2026-05-03T10:20:00Z")).await;
        until(
            world,
            "48 more",
            "(SELECT count(*) FROM afterwrite.schedule_runs WHERE status = 'done') = 51",
        )
        .await;
        stop.send_replace(true);
        for process in running {
            process.await.unwrap();
        }
        assert_eq!(world.count("ran WHERE job = 'each'").await, 49);
        assert_eq!(
            world
                .count("(SELECT DISTINCT tick FROM ran WHERE job = 'each') AS ticks")
                .await,
            49
        );
        // Oldest first.
        assert_eq!(
            world
                .count("ran WHERE job = 'each' AND previous = tick - interval '1 hour'")
                .await,
            48
        );
        assert_eq!(world.count("ran WHERE job = 'last'").await, 2);
        assert_eq!(world.count("afterwrite.schedule_runs WHERE attempts <> 1").await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_stop_is_no_attempt_and_its_run_is_done_by_the_next_process() {
    in_world(async |world: &mut World| {
        make_ran(world).await;
        let tick = at("2026-05-01T10:00:00Z");
        let stopped = Attempts::of(world, Probe::gated("probe"));
        stopped.add(tick).await;
        let mut gate = world.pool.acquire().await.unwrap();
        lock_gate(&mut gate).await;
        let stop = stopped.stop.clone();
        let attempt = tokio::spawn(async move { stopped.at(tick, tick).await });
        until(world, "a run in the middle", IN_THE_MIDDLE).await;
        stop.send_replace(true);
        assert_eq!(attempt.await.unwrap(), Ended::Stopped);
        until(
            world,
            "the run to be free",
            "(SELECT status = 'due' AND attempts = 0 FROM afterwrite.schedule_runs)
             OR (SELECT status = 'running' FROM afterwrite.schedule_runs)",
        )
        .await;
        open_gate(&mut gate).await;
        let next = Attempts::of(world, Probe::gated("probe"));
        until_done(&next, tick).await;
        assert_eq!(world.count("ran").await, 1);
    })
    .await;
}

/// Tries until the dead session has let the lock go.
async fn until_done(attempts: &Attempts, tick: DateTime<Utc>) {
    let mut looks = tokio::time::interval(Duration::from_millis(20));
    let done = async {
        while attempts.at(tick, tick).await != Ended::Done {
            looks.tick().await;
        }
    };
    assert!(
        tokio::time::timeout(WAIT_MAX, done).await.is_ok(),
        "the run was never done"
    );
}

/// A probe waits at the gate.
pub(crate) const IN_THE_MIDDLE: &str = "EXISTS (SELECT FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE locktype = 'advisory' AND NOT granted AND objid = 4242 AND datname = current_database())";

pub(crate) async fn lock_gate(gate: &mut sqlx::PgConnection) {
    sqlx::query("SELECT pg_advisory_lock($1)")
        .bind(GATE)
        .execute(gate)
        .await
        .unwrap();
}

pub(crate) async fn open_gate(gate: &mut sqlx::PgConnection) {
    sqlx::query("SELECT pg_advisory_unlock($1)")
        .bind(GATE)
        .execute(gate)
        .await
        .unwrap();
}
