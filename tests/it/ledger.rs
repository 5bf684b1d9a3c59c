//! The ledger against a real Postgres: what a handler's transaction is worth, and what making a day costs the others.

use std::sync::Arc;
use std::time::Duration;

use afterwrite::event::change::ChangeEvent;
use afterwrite::handler::{Context, Fault, Handler, HandlerError, Keyless, Ordering, Outcome, Resources, Route, Spec};
use afterwrite::ledger::days;
use afterwrite::ledger::effects::Effects;
use afterwrite::ledger::transaction::Mode;
use afterwrite::testkit::event::Recorder;
use async_trait::async_trait;
use chrono::NaiveDate;

use crate::stack;
use crate::world::World;

/// Swallows the error of its own SQL.
struct Careless;

#[async_trait]
impl Handler for Careless {
    fn spec(&self) -> Spec {
        Spec {
            name: "careless".to_owned(),
            routes: vec![Route {
                schema: "public".to_owned(),
                table: "work".to_owned(),
                ordering: Ordering::PrimaryKey,
                keyless: Keyless::Refused,
            }],
            coalesce_max: 1,
            attempt_timeout: None,
        }
    }

    async fn handle(&self, context: &mut Context, _: &[Arc<ChangeEvent>]) -> Result<Outcome, HandlerError> {
        let Some(once) = context.once().await? else {
            return Ok(Outcome::Done);
        };
        let swallowed = sqlx::query("INSERT INTO no_such_table VALUES (1)")
            .execute(once.connection)
            .await;
        assert!(swallowed.is_err());
        Ok(Outcome::Done)
    }
}

fn resources(world: &World) -> Resources {
    let lease = Duration::from_secs(60);
    Resources {
        effects: Effects::new(world.pool.clone(), uuid::Uuid::new_v4(), lease),
        pool: world.pool.clone(),
        redo_days: Arc::default(),
    }
}

#[tokio::test]
async fn an_event_is_not_done_when_its_transaction_failed_unnoticed() {
    let _stack = stack::shared().await;
    let world = World::bare("careless").await;
    let recorder = Recorder::install(&world.pool, &["work"]).await.unwrap();
    sqlx::query("INSERT INTO work (k, seq) VALUES (1, 1)")
        .execute(&world.pool)
        .await
        .unwrap();
    let events = recorder.drain().await.unwrap();
    let mut context = Context::new(resources(&world), &Careless, &events, 1, Mode::Deliver);
    let outcome = Careless.handle(&mut context, &events).await.unwrap();
    assert_eq!(outcome, Outcome::Done, "the handler believes so");
    let fault = context.commit().await.unwrap_err().fault;
    assert_eq!(fault, Fault::Transient { after: None });
    assert_eq!(world.count("SELECT count(*) FROM afterwrite.ledger").await, 0);
    world.remove().await;
}

#[tokio::test]
async fn a_day_is_made_beside_a_handler_that_takes_long() {
    let _stack = stack::shared().await;
    let world = World::bare("days").await;
    let mut long = world.pool.begin().await.unwrap();
    let row = "INSERT INTO afterwrite.ledger (commit_day, handler, event_id, state)
               VALUES (current_date, 'long', decode(repeat('00', 16), 'hex'), 'done')";
    sqlx::query(row).execute(&mut *long).await.unwrap();
    let day = NaiveDate::from_ymd_opt(2020, 2, 29).unwrap();
    for _ in 0..2 {
        tokio::time::timeout(Duration::from_secs(10), days::make(&world.pool, day))
            .await
            .expect("making a day waited for a handler")
            .unwrap();
    }
    long.commit().await.unwrap();
    let old = "INSERT INTO afterwrite.ledger (commit_day, handler, event_id, state)
               VALUES ('2020-02-29', 'long', decode(repeat('00', 16), 'hex'), 'done') ON CONFLICT DO NOTHING";
    for written in [1, 0] {
        let done = sqlx::query(old).execute(&world.pool).await.unwrap();
        assert_eq!(done.rows_affected(), written, "the day keeps the ledger's key");
    }
    world.remove().await;
}
