//! Chaos: a group whose members join, leave and are killed all the time, under Postgres and a broker that are killed too,
//! with slow handlers, failing handlers and a dead-letter topic that refuses letters. At the end everything is accounted
//! for: nothing lost, nothing twice, nothing out of order, no call repeated without a reason, and never a standstill.
//!
//! The short form is part of every run; `make chaos` is the long one. A seed decides events, fates and the plan of the
//! storm; processes and their timing it cannot decide.

mod plan;

mod events;

mod writer;

mod log;

mod calls;

mod handler;

mod watch;

mod storm;

mod verdict;

mod traces;

#[cfg(test)]
#[path = "../../simulation/random.rs"]
mod random;

use std::path::Path;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::chaos::plan::{PARTITIONS, Plan, Source};
use crate::chaos::storm::{Figures, Storm};
use crate::chaos::traces::Traces;
use crate::chaos::verdict::{Calls, Done, Effects, Letter};
use crate::chaos::watch::Watch;
use crate::producer;
use crate::stack::{self, until};
use crate::world::World;

/// What is settled is committed at latest when so many seconds have passed.
const COMMIT_LOOKS: usize = 30;

/// What a member may need, however much there is to read.
const MEMORY_KB_MAX: u64 = 200 * 1_024;

/// Something can always progress while a member lives and nothing else is away.
const STALL_MAX: Duration = Duration::from_secs(30);

/// The same for each source, and each group protocol; `make chaos CHAOS_PROTOCOL=eager` and `make chaos CHAOS_SOURCE=wal` find it
/// by the module's name.
macro_rules! for_sources {
    ($($module:ident: $source:ident),*) => {$(
        mod $module {
            #[tokio::test(flavor = "multi_thread")]
            async fn a_group_in_chaos_loses_nothing_repeats_nothing_and_keeps_order() {
                super::survives(super::Source::$source).await;
            }
        }
    )*};
}

for_sources!(cooperative_sticky: COOPERATIVE_STICKY, eager: EAGER, consumer: CONSUMER, wal: Wal);

async fn survives(source: Source) {
    let _stack = stack::alone().await;
    let plan = Plan::of_environment(source);
    let world = World::bare("chaos").await;
    let traces = Traces::new(&plan, &world);
    println!(
        "{}: {} events, seed {}, {}",
        world.name,
        plan.events,
        plan.seed,
        plan.source.name()
    );
    let settled = run(&plan, &world, &traces).await;
    settled.print(&plan);
    settled.prove(&plan);
    traces.removed_with_the_world.set(true);
    match source {
        Source::Kafka(_) => world.remove().await,
        Source::Wal => crate::wal::remove(world).await,
    }
}

/// What a run came to.
struct Settled {
    took: Duration,
    stall: (Duration, Duration),
    pace: String,
    records: usize,
    /// Events that were written again, so that they may be there twice.
    again: usize,
    behind: Vec<String>,
    copies: usize,
    figures: Figures,
    effects: Effects,
    calls: Calls,
}

async fn run(plan: &Plan, world: &World, traces: &Traces) -> Settled {
    let journals = &*traces.journals;
    prepare(plan, world, journals).await;
    let rows = events::rows(plan);
    let changes = events::changes(plan, &rows);
    let writing = write(plan, world, rows).await;

    let watch = Watch::new(plan.run_max);
    let storm = Storm::new(world, plan, &watch, journals);
    let raging = async {
        storm.rage().await;
        let again = writing.await.unwrap();
        if plan.source == Source::Wal {
            log::interrupt(world, plan, &storm).await;
        }
        until("every event to be settled", plan.run_max, async || {
            storm.reap();
            (watch.settled() >= plan.wanted()).then_some(())
        })
        .await;
        again
    };
    let again = tokio::select! {
        () = watch.run(world) => unreachable!("the watch looks for ever"),
        again = raging => again,
    };
    let took = watch.elapsed();
    let (records, behind) = committed(plan, world, &storm).await;
    traces.explain(&behind);
    storm.disperse().await;
    let (done, letters) = (done(world).await, letters(world).await);
    let kept = match plan.source {
        Source::Kafka(_) => producer::read_all(&format!("{}.dlq", world.group_of(handler::NAME)))
            .await
            .len(),
        Source::Wal => log::letters(world).await,
    };
    let told = calls::read(journals);
    let figures = storm.figures.take();
    Settled {
        took,
        stall: watch.longest_stall(),
        pace: watch.pace(),
        records,
        again,
        behind,
        copies: kept.saturating_sub(letters.len()),
        effects: verdict::effects(&changes, |row, change| plan.fate(row, change), &done, &letters),
        calls: verdict::calls(&told, &done, &figures.killed),
        figures,
    }
}

/// Makes what is written to.
async fn prepare(plan: &Plan, world: &World, journals: &Path) {
    sqlx::raw_sql(handler::SCHEMA).execute(&world.pool).await.unwrap();
    sqlx::query("INSERT INTO heads SELECT k, 0 FROM generate_series(0, $1) k")
        .bind(i32::try_from(plan.rows + plan.large_wanted()).unwrap() - 1)
        .execute(&world.pool)
        .await
        .unwrap();
    match plan.source {
        Source::Kafka(_) => producer::make_topic_of(&topic(world), PARTITIONS).await,
        Source::Wal => log::begin(world, plan, journals).await,
    }
}

/// Begins to write, and answers when those events are there that come before the storm.
async fn write(plan: &Plan, world: &World, rows: Vec<u32>) -> JoinHandle<usize> {
    let (told, first_part) = tokio::sync::oneshot::channel();
    let (plan, topic, pool, runtime) = (plan.clone(), topic(world), world.pool.clone(), Handle::current());
    let writing = tokio::task::spawn_blocking(move || match plan.source {
        Source::Kafka(_) => events::write(&plan, &rows, &topic, told),
        Source::Wal => {
            runtime.block_on(log::write(plan, pool, rows, told));
            0
        }
    });
    first_part.await.unwrap();
    writing
}

/// Waits until everything is committed, and answers how much there is and what of it is not.
async fn committed(plan: &Plan, world: &World, storm: &Storm<'_>) -> (usize, Vec<String>) {
    let (mut records, mut behind) = (0, Vec::new());
    for _ in 0..COMMIT_LOOKS {
        storm.wait_ms(1_000).await;
        let looked = match plan.source {
            Source::Kafka(_) => reached(world),
            Source::Wal => log::reached(world).await,
        };
        let Some(looked) = looked else { continue };
        (records, behind) = looked;
        if behind.is_empty() {
            break;
        }
    }
    (records, behind)
}

fn topic(world: &World) -> String {
    format!("{}.public.bench_users", world.name)
}

/// Records in the topic, and what of it is not committed; `None` when nobody answered.
fn reached(world: &World) -> Option<(usize, Vec<String>)> {
    let reached = producer::reach(&world.group_of(handler::NAME), &topic(world)).ok()?;
    let records: i64 = reached.iter().map(|reach| reach.end - reach.first).sum();
    let behind = reached.into_iter().filter(|reach| reach.committed != Some(reach.end));
    let behind = behind.map(|reach| format!("[{}] {reach:?}", reach.partition)).collect();
    Some((usize::try_from(records).unwrap(), behind))
}

async fn done(world: &World) -> Vec<Done> {
    let rows: Vec<(i32, i32, String, i32, i32)> =
        sqlx::query_as("SELECT k, seq, call, seen, locked FROM done ORDER BY n")
            .fetch_all(&world.pool)
            .await
            .unwrap();
    let number = |number: i32| u32::try_from(number).unwrap();
    let done = rows.into_iter().map(|(row, change, call, seen, locked)| Done {
        row: number(row),
        change: number(change),
        call,
        seen: number(seen),
        locked: number(locked),
    });
    done.collect()
}

async fn letters(world: &World) -> Vec<Letter> {
    let rows: Vec<(String, String)> = sqlx::query_as("SELECT class, error FROM afterwrite.letters")
        .fetch_all(&world.pool)
        .await
        .unwrap();
    rows.into_iter().map(|(class, error)| Letter { class, error }).collect()
}

impl Settled {
    fn print(&self, plan: &Plan) {
        let (storm, effects, calls) = (&self.figures, &self.effects, &self.calls);
        let seconds = self.took.as_secs_f64();
        let line = |name: &str, figure: String| println!("  {name:<34} {figure}");
        println!("chaos, {}, seed {}", plan.source.name(), plan.seed);
        line("events", plan.size());
        line(
            "duration",
            format!("{seconds:.1} s, {:.0} events/s", plan.wanted() as f64 / seconds),
        );
        line(
            "memory of a member, at most",
            format!("{} MB", storm.memory_peak_kb / 1_024),
        );
        line("events/s in tenths of the duration", self.pace.clone());
        line("members at once, at most", plan.source.members().1.to_string());
        line("gusts", storm.gusts.to_string());
        line(
            "joins, leaves, kills",
            format!("{}, {}, {}", storm.joins, storm.leaves, storm.killed.len()),
        );
        line("gave up in an outage", storm.given_up.to_string());
        line(
            "broker kills, restarts",
            format!("{}, {}", storm.broker_kills, storm.broker_restarts),
        );
        line(
            "Postgres kills, restarts",
            format!("{}, {}", storm.postgres_kills, storm.postgres_restarts),
        );
        line(
            plan.source.refusal(),
            format!("{:.1} s", storm.unwritable.as_secs_f64()),
        );
        line(
            "done, letters (copies)",
            format!("{}, {} ({})", effects.done, effects.letters, self.copies),
        );
        line("lost", effects.lost.to_string());
        line("twice", effects.twice.to_string());
        line(
            "out of order, two at once",
            format!("{}, {}", effects.disordered, effects.at_once),
        );
        line("calls, repeated", format!("{}, {}", calls.made, calls.repeated));
        line(
            "outcome unknown",
            format!(
                "{} killed, {} abandoned, {} not recorded",
                calls.killed, calls.abandoned, calls.unrecorded
            ),
        );
        line("repeated without a reason", calls.without_reason.to_string());
        line("records written again", self.again.to_string());
        line("partitions not committed", self.behind.len().to_string());
        let (stall, until) = self.stall;
        line(
            "longest without progress",
            format!("{:.0} s, until second {:.0}", stall.as_secs_f64(), until.as_secs_f64()),
        );
    }

    fn prove(&self, plan: &Plan) {
        let (effects, calls) = (&self.effects, &self.calls);
        assert!(
            self.figures.faults.is_empty(),
            "members failed: {:#?}",
            self.figures.faults
        );
        assert!(effects.unjust.is_empty(), "buried unjustly: {:#?}", effects.unjust);
        let written = plan.wanted()..=plan.wanted() + self.again;
        assert!(
            written.contains(&self.records),
            "{} records in the topic, {written:?} were written",
            self.records
        );
        assert_eq!(effects.done + effects.letters, plan.wanted(), "done and buried");
        assert!(
            self.figures.memory_peak_kb <= MEMORY_KB_MAX,
            "a member had {} kB of memory",
            self.figures.memory_peak_kb
        );
        assert_eq!((effects.lost, effects.twice), (0, 0), "lost, twice");
        assert_eq!(
            (effects.disordered, effects.at_once),
            (0, 0),
            "out of order, two at once"
        );
        assert_eq!(
            (calls.without_reason, calls.unexplained),
            (0, 0),
            "calls without a reason, without an end"
        );
        assert!(
            self.stall.0 <= STALL_MAX,
            "nothing was settled for {:.0?}",
            self.stall.0
        );
        assert!(self.behind.is_empty(), "settled and not committed: {:?}", self.behind);
    }
}
