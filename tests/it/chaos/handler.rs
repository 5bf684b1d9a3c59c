//! The handler of the members: a call, then an effect in the once-only transaction, and the fate of each event.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use afterwrite::event::change::ChangeEvent;
use afterwrite::handler::{Context, Handler, HandlerError, Keyless, Ordering, Outcome, Route, Spec};
use async_trait::async_trait;
use tokio::time::Instant;
use uuid::Uuid;

use crate::chaos::calls::{End, Journal};
use crate::chaos::plan::{Fate, Plan};
use crate::worker::{self, Worker};
use crate::world::World;

/// The handler's name.
pub(super) const NAME: &str = "chaos";

/// Of a run, told to its workers: the seed, how long a slow attempt takes, where journals lie.
const SEED: &str = "CHAOS_WORKER_SEED";
const SLOW_MS: &str = "CHAOS_WORKER_SLOW_MS";
const JOURNALS: &str = "CHAOS_WORKER_JOURNALS";

/// What the members write to. A row of `heads` for each row of the source tells which change was last: it is looked at
/// without a lock, then locked and looked at again. What differs was committed in between, by somebody who worked on the
/// same lane at the same time. The lock comes after the ledger row and changes no order: who has it first commits first.
pub(super) const SCHEMA: &str = "
    CREATE TABLE public.bench_users (id uuid PRIMARY KEY, seq bigint NOT NULL);
    CREATE TABLE public.heads (k int PRIMARY KEY, last int NOT NULL);
    CREATE TABLE public.done (
        n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, k int NOT NULL, seq int NOT NULL, call text NOT NULL,
        seen int NOT NULL, locked int NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp());
    CREATE FUNCTION public.take_effect(row_number int, change int, by_call text) RETURNS void LANGUAGE plpgsql AS $$
    DECLARE
        seen int;
        locked int;
    BEGIN
        SELECT last INTO STRICT seen FROM heads WHERE k = row_number;
        SELECT last INTO STRICT locked FROM heads WHERE k = row_number FOR UPDATE;
        UPDATE heads SET last = change WHERE k = row_number;
        INSERT INTO done (k, seq, call, seen, locked) VALUES (row_number, change, by_call, seen, locked);
    END $$;";

/// Starts a member.
pub(super) fn start(world: &World, plan: &Plan, name: &str, journals: &Path) -> Worker {
    let (seed, slow_ms) = (plan.seed.to_string(), plan.slow.as_millis().to_string());
    let mut settings = plan.settings();
    settings.extend([
        (SEED, seed.as_str()),
        (SLOW_MS, &slow_ms),
        (JOURNALS, journals.to_str().unwrap()),
    ]);
    let test = "chaos::handler::works_when_started_as_a_worker";
    Worker::of_test(test, world, name, &settings)
}

/// What a member runs. In any other process it does nothing.
#[test]
fn works_when_started_as_a_worker() {
    worker::work_when_started_as_a_worker(|worker| {
        let told = |name| std::env::var(name).unwrap();
        Arc::new(Chaos {
            seed: told(SEED).parse().unwrap(),
            slow: Duration::from_millis(told(SLOW_MS).parse().unwrap()),
            journal: Journal::create(told(JOURNALS).as_ref(), &worker),
            mail_is_away: sign(told(JOURNALS).as_ref()),
        })
    });
}

struct Chaos {
    seed: u64,
    slow: Duration,
    journal: Journal,
    mail_is_away: PathBuf,
}

/// The file that is there while the mail server is away; beside the journals, which are every file in their directory.
fn sign(journals: &Path) -> PathBuf {
    journals.with_extension("mail-is-away")
}

pub(super) fn take_the_mail_away(journals: &Path) {
    std::fs::write(sign(journals), "").unwrap();
}

pub(super) fn bring_the_mail_back(journals: &Path) {
    std::fs::remove_file(sign(journals)).unwrap();
}

#[async_trait]
impl Handler for Chaos {
    fn spec(&self) -> Spec {
        Spec {
            name: NAME.to_owned(),
            routes: vec![Route {
                schema: "public".to_owned(),
                table: "bench_users".to_owned(),
                ordering: Ordering::PrimaryKey,
                keyless: Keyless::Refused,
            }],
            coalesce_max: 1,
            attempt_timeout: None,
        }
    }

    async fn handle(&self, context: &mut Context, events: &[Arc<ChangeEvent>]) -> Result<Outcome, HandlerError> {
        let (row, change) = place(&events[0]).ok_or_else(|| HandlerError::permanent("not a row of this test"))?;
        let fate = Fate::of(self.seed, row, change);
        match fate {
            Fate::FailsForGood => return Err(HandlerError::permanent(failure_text(row, change))),
            Fate::FailsTwice if context.attempt() < 3 => return Err(HandlerError::transient("it fails twice")),
            Fate::Works | Fate::Slow | Fate::FailsTwice => {}
        }
        if context.unsettled().await?.is_empty() {
            return Ok(Outcome::Done);
        }
        if self.mail_is_away.exists() {
            return Err(HandlerError::transient("the mail server is away"));
        }
        let call = self.journal.call(row, change);
        if fate == Fate::Slow {
            tokio::time::interval_at(Instant::now() + self.slow, self.slow)
                .tick()
                .await;
        }
        let name = call.name();
        let done = match context.once().await {
            Ok(None) => {
                call.end(End::Redundant);
                return Ok(Outcome::Done);
            }
            Ok(Some(once)) => sqlx::query("SELECT take_effect($1, $2, $3)")
                .bind(i32::try_from(row).unwrap())
                .bind(i32::try_from(change).unwrap())
                .bind(name)
                .execute(once.connection)
                .await
                .map_err(HandlerError::from),
            Err(error) => Err(error),
        };
        call.end(if done.is_ok() { End::Returned } else { End::Failed });
        done.map(|_| Outcome::Done)
    }
}

/// Row and change of an event.
fn place(event: &ChangeEvent) -> Option<(u32, u32)> {
    let row = event.after()?;
    let id: Uuid = row.text("id")?.parse().ok()?;
    let number = u32::try_from(id.as_u128() & u128::from(u32::MAX)).ok()?;
    Some((number, u32::try_from(row.int("seq")?).ok()?))
}

/// The error of an event that fails for good: its dead letter is told by it.
pub(super) fn failure_text(row: u32, change: u32) -> String {
    format!("change {change} of row {row} fails for good")
}
