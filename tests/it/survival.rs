//! Nothing lost, nothing twice, in order: while workers, the broker and Kafka Connect are killed.

use std::ops::RangeInclusive;
use std::time::Duration;

use tokio::time::Instant;

use crate::stack::{self, until};
use crate::world::World;

const KEYS: i32 = 500;

/// Changes of [`ROUNDS`] rounds.
pub(crate) const CHANGES: i64 = 20_000;

/// Rounds of changes; in each every key changes once.
pub(crate) const ROUNDS: i32 = 40;

/// Guests of a worker that stays that are killed, after one that leaves as asked.
const VISITS: i32 = 5;

/// Rounds that are written while a guest is there.
const ROUNDS_A_VISIT: i32 = 5;

/// Inserts every key in round 1, then updates all keys round after round, each round in transactions of 50 rows. A transaction
/// that Postgres was killed under is repeated, and changes nothing when it was committed.
pub(crate) async fn write_changes(world: &World, rounds: RangeInclusive<i32>) {
    let mut pace = tokio::time::interval(Duration::from_millis(40));
    for round in rounds {
        for first in (1..=KEYS).step_by(50) {
            pace.tick().await;
            until("a transaction to be written", Duration::from_secs(60), async || {
                let written = sqlx::query(
                    "INSERT INTO work (k, seq) SELECT k, $1 FROM generate_series($2, $2 + 49) k
                     ON CONFLICT (k) DO UPDATE SET seq = excluded.seq WHERE work.seq < excluded.seq",
                );
                written.bind(round).bind(first).execute(&world.pool).await.ok()
            })
            .await;
        }
    }
}

/// Waits until so many changes have their effect, then checks that none is missing, none is there twice, and each key's are in
/// order.
pub(crate) async fn check_effects(world: &World, changes: i64, began: Instant) {
    until(
        "every change to have its effect",
        Duration::from_secs(180),
        async || (world.count("SELECT count(DISTINCT (k, seq)) FROM effects").await == changes).then_some(()),
    )
    .await;
    let twice = world
        .count("SELECT count(*) FROM (SELECT FROM effects GROUP BY k, seq HAVING count(*) > 1) t")
        .await;
    let disordered = world
        .count("SELECT count(*) FROM (SELECT seq < lag(seq) OVER (PARTITION BY k ORDER BY n) AS back FROM effects) t WHERE back")
        .await;
    let attempts = world.count("SELECT count(*) FROM attempts").await;
    let letters = world.count("SELECT count(*) FROM afterwrite.letters").await;
    println!(
        "{}: {changes} changes over {KEYS} keys in {:.1} s: 0 lost, {twice} twice, {disordered} out of order, {} attempts \
         repeated, {letters} dead letters",
        world.name,
        began.elapsed().as_secs_f64(),
        attempts - changes
    );
    assert_eq!((twice, disordered, letters), (0, 0, 0));
}

async fn worked(world: &World, name: &str) -> bool {
    let sql = "SELECT EXISTS (SELECT FROM effects WHERE worker = $1)";
    sqlx::query_scalar(sql).bind(name).fetch_one(&world.pool).await.unwrap()
}

/// A moment that differs from run to run; it is printed, so that a failure can be told from its neighbours.
pub(crate) async fn a_random_moment(most: Duration) {
    let share = f64::from(u16::try_from(uuid::Uuid::new_v4().as_u128() % 1_000).unwrap()) / 1_000.0;
    let moment = most.mul_f64(share) + Duration::from_millis(200);
    let mut tick = tokio::time::interval_at(Instant::now() + moment, moment);
    tick.tick().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_survive_kills_of_worker_broker_and_connect() {
    let _stack = stack::alone().await;
    let world = World::captured("survive").await;
    let began = Instant::now();
    let kills = async {
        let mut worker = world.worker("w0", &[]);
        for kill in 1..=5 {
            a_random_moment(Duration::from_secs(3)).await;
            println!("{:6.1} s: kill -9 of the worker", began.elapsed().as_secs_f64());
            worker.kill();
            worker = world.worker(&format!("w{kill}"), &[]);
            let service = match kill {
                2 => "kafka",
                4 => "connect",
                _ => continue,
            };
            a_random_moment(Duration::from_secs(3)).await;
            println!("{:6.1} s: kill -9 of {service}", began.elapsed().as_secs_f64());
            stack::order("kill", service).await;
            stack::order("start", service).await;
        }
        worker
    };
    let ((), worker) = tokio::join!(write_changes(&world, 1..=ROUNDS), kills);
    check_effects(&world, CHANGES, began).await;
    worker.stop().await;
    world.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_share_the_work_and_lose_nothing() {
    let _stack = stack::alone().await;
    let world = World::captured("two").await;
    let began = Instant::now();
    let staying = world.worker("staying", &[]);
    // The topic appears with the first change; before that there is nothing to share.
    write_changes(&world, 1..=1).await;
    // One guest leaves as asked, five are killed, two of them behind a service that was killed before.
    for visit in 0..=VISITS {
        let service = match visit {
            2 => Some("kafka"),
            4 => Some("connect"),
            _ => None,
        };
        let name = format!("guest{visit}");
        let guest = world.worker(&name, &[]);
        until("the guest to join", Duration::from_secs(60), async || {
            guest.said().contains("partition assigned").then_some(())
        })
        .await;
        let before = ROUNDS_A_VISIT * visit;
        let stay = async {
            until("the guest to work", Duration::from_secs(60), async || {
                worked(&world, &name).await.then_some(())
            })
            .await;
            if let Some(service) = service {
                println!("{:6.1} s: kill -9 of {service}", began.elapsed().as_secs_f64());
                stack::order("kill", service).await;
                stack::order("start", service).await;
            }
            if visit == 0 {
                println!("{:6.1} s: {name} leaves", began.elapsed().as_secs_f64());
                guest.stop().await;
            } else {
                a_random_moment(Duration::from_secs(1)).await;
                println!("{:6.1} s: kill -9 of {name}", began.elapsed().as_secs_f64());
                guest.kill();
            }
        };
        tokio::join!(
            write_changes(&world, (before + 1).max(2)..=before + ROUNDS_A_VISIT),
            stay
        );
    }
    write_changes(&world, ROUNDS_A_VISIT * (VISITS + 1) + 1..=ROUNDS).await;
    check_effects(&world, CHANGES, began).await;
    let sharers = world.count("SELECT count(DISTINCT worker) FROM effects").await;
    println!("{}: {sharers} workers had a share", world.name);
    assert_eq!(sharers, i64::from(VISITS) + 2, "the one that stayed and its guests");
    staying.stop().await;
    world.remove().await;
}
