//! The test kit tells the truth: what it says happened did happen, in the engine and in Postgres.
//!
//! A kit that always said "done" would make every test of a handler green, so each kind of end is brought about here.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use afterwrite::event::change::ChangeEvent;
use afterwrite::handler::points::Point;
use afterwrite::handler::{Context, Handler, HandlerError, Once, Outcome, Route, Spec};
use afterwrite::ledger::effects::{self, Claim};
use afterwrite::testkit::kit::Kit;
use afterwrite::testkit::mishap::Mishap;
use afterwrite::testkit::report::{CallEnd, Ended, Report};
use afterwrite::testkit::table::Table;
use async_trait::async_trait;
use serde_json::json;

const TABLES: &str = "
    CREATE TABLE orders (id int PRIMARY KEY, status text NOT NULL);
    CREATE TABLE lines (order_id int NOT NULL, attempt int NOT NULL);";

/// Writes a line per paid order, and calls for it before.
#[derive(Default)]
struct Receipts {
    coalesce_max: usize,
    calls: AtomicU32,
}

#[derive(Debug, thiserror::Error)]
#[error("it failed before")]
struct FailedBefore;

#[async_trait]
impl Handler for Receipts {
    fn spec(&self) -> Spec {
        Spec::new("receipts", [Route::of("orders").by(["status"])]).coalescing(self.coalesce_max.max(1))
    }

    fn wants(&self, event: &ChangeEvent) -> bool {
        event.after().and_then(|row| row.text("status")) != Some("open")
    }

    async fn handle(&self, context: &mut Context, events: &[Arc<ChangeEvent>]) -> Result<Outcome, HandlerError> {
        let status = events[0].after().and_then(|row| row.text("status"));
        if status == Some("void") {
            return Ok(Outcome::Skipped("void"));
        }
        if context.unsettled().await?.is_empty() {
            return Ok(Outcome::Done);
        }
        let id = events[0].after().and_then(|row| row.int("id")).unwrap();
        let key = format!("receipt:{id}");
        match context.claim(&key, b"bytes").await? {
            Claim::Call { rendered } => {
                assert_eq!(rendered, b"bytes");
                self.calls.fetch_add(1, Ordering::SeqCst);
                context.accepted(&key, "ok");
            }
            Claim::Accepted { .. } | Claim::Finished { .. } => {}
            Claim::Failed { .. } => return Err(HandlerError::permanent(FailedBefore)),
            Claim::Leased { remaining } => return Ok(Outcome::Snooze(remaining)),
        }
        let attempt = i32::try_from(context.attempt()).unwrap();
        let Some(Once { events, connection }) = context.once().await? else {
            return Ok(Outcome::Done);
        };
        for id in events.iter().filter_map(|event| event.after()?.int("id")) {
            let insert = sqlx::query("INSERT INTO lines VALUES ($1, $2)").bind(id).bind(attempt);
            insert.execute(&mut *connection).await?;
        }
        effects::finish(connection, &key, "receipts", "sent", "ok").await?;
        Ok(Outcome::Done)
    }
}

fn orders() -> Table {
    Table::of("orders", ["id"])
}

fn paid(id: i32) -> Arc<ChangeEvent> {
    orders().insert(json!({"id": id, "status": "paid"}))
}

async fn kit() -> (Arc<Receipts>, Kit) {
    let handler = Arc::new(Receipts::default());
    let kit = Kit::new(Arc::clone(&handler) as Arc<_>, TABLES).await;
    (handler, kit)
}

fn buried(class: &str) -> Ended {
    Ended::Buried(class.to_owned())
}

fn ends(report: &Report) -> Vec<CallEnd> {
    report.calls().iter().filter_map(|call| call.ended.clone()).collect()
}

#[tokio::test]
async fn what_is_not_wanted_or_not_routed_is_told_apart_from_what_is_done() {
    let (handler, kit) = kit().await;
    let open = orders().insert(json!({"id": 1, "status": "open"}));
    let elsewhere = Table::of("carts", ["id"]).insert(json!({"id": 1}));
    let void = orders().insert(json!({"id": 1, "status": "void"}));
    let report = kit.deliver_all(&[open, elsewhere, void, paid(1)]).await;
    assert_eq!(
        report.all_ended(),
        [Ended::Unwanted, Ended::Unwanted, Ended::Skipped("void"), Ended::Done],
        "{report}"
    );
    assert_eq!((report.attempts(), handler.calls.load(Ordering::SeqCst)), (2, 1));
    assert_eq!(
        report.ledger(),
        ["done"],
        "what was skipped without a transaction has no row"
    );
    assert_eq!(kit.database().text("SELECT status FROM orders").await, None);
}

#[tokio::test]
async fn each_kind_of_failure_ends_in_the_letter_of_its_class() {
    let accepted = Mishap::panic().at(Point::accepted("receipt:1"));
    for (script, class, attempts) in [
        (vec![Mishap::transient(); 5], "exhausted", 5),
        (vec![Mishap::permanent()], "permanent", 1),
        (vec![Mishap::panic(); 5], "panic", 5),
        (vec![Mishap::time_out(); 5], "timeout", 5),
        // What was accepted is reached once; later attempts fail elsewhere.
        ([vec![accepted], vec![Mishap::transient(); 4]].concat(), "exhausted", 5),
    ] {
        let (handler, kit) = kit().await;
        kit.script(script.clone());
        let (report, again) = kit.deliver_twice(&paid(1)).await;
        assert_eq!(
            (report.ended(), report.attempts()),
            (&buried(class), attempts),
            "{script:?}: {report}"
        );
        let letter = &report.letters()[0];
        assert_eq!(
            (&*letter.class, &*letter.state, letter.attempts),
            (class, "open", attempts as i32),
            "{report}"
        );
        assert_eq!(report.ledger(), ["buried"], "{report}");
        assert_eq!(again.ended(), &Ended::Before("buried".to_owned()), "{again}");
        assert_eq!(kit.database().count("lines").await, 0);
        let called = handler.calls.load(Ordering::SeqCst);
        let replayed = kit.replay().await;
        assert_eq!(
            (replayed.ended(), kit.database().count("lines").await),
            (&Ended::Done, 1),
            "{replayed}"
        );
        // Another process knows nothing of what was accepted and not settled.
        assert_eq!(handler.calls.load(Ordering::SeqCst), called + 1, "{replayed}");
        assert!(
            replayed.calls()[0].replayed && replayed.letters()[0].state == "replayed",
            "{replayed}"
        );
    }
}

#[tokio::test]
async fn what_counts_no_attempt_counts_none() {
    let (_, kit) = kit().await;
    kit.script([
        Mishap::unreachable(),
        Mishap::unreachable(),
        Mishap::transient(),
        Mishap::none(),
    ]);
    let report = kit.deliver(&paid(1)).await;
    let numbers: Vec<u32> = report.calls().iter().map(|call| call.attempt).collect();
    assert_eq!((report.ended(), numbers), (&Ended::Done, vec![1, 1, 1, 2]), "{report}");
    assert_eq!(
        kit.database().text("SELECT attempt FROM lines").await.as_deref(),
        Some("2")
    );
}

#[tokio::test]
async fn a_crash_leaves_nothing_that_was_not_committed_and_a_new_process_goes_on() {
    let (_, clean) = kit().await;
    let points = clean.deliver(&paid(1)).await.points().to_vec();
    assert_eq!(
        points,
        [
            Point::Called,
            Point::claimed("receipt:1"),
            Point::accepted("receipt:1"),
            Point::Opened,
            Point::Returned
        ]
    );
    for point in points {
        let (handler, kit) = kit().await;
        kit.script([Mishap::die().at(point.clone())]);
        let report = kit.deliver(&paid(1)).await;
        assert_eq!(ends(&report), [CallEnd::Died, CallEnd::Done], "{point}: {report}");
        assert_eq!(kit.database().count("lines").await, 1, "{point}");
        // A process that died after the other side's answer does not know of it any more.
        let calls = if point >= Point::accepted("receipt:1") { 2 } else { 1 };
        assert_eq!(handler.calls.load(Ordering::SeqCst), calls, "{point}: {report}");
        assert_eq!(report.effects()[0].state, "sent", "{report}");
    }
}

#[tokio::test]
async fn an_event_that_kills_every_process_is_buried_as_the_killer() {
    let (_, kit) = kit().await;
    kit.script(vec![Mishap::die(); 20]);
    let report = kit.deliver(&paid(1)).await;
    assert_eq!(report.ended(), &buried("crashed"), "{report}");
    assert!((3..=5).contains(&report.attempts()), "{report}");
}

#[tokio::test]
async fn a_transaction_whose_session_is_lost_is_done_again_without_a_call() {
    for point in [Point::Opened, Point::Returned] {
        let (handler, kit) = kit().await;
        kit.script([Mishap::lose_database().at(point.clone())]);
        let report = kit.deliver(&paid(1)).await;
        assert_eq!(
            (report.ended(), report.attempts()),
            (&Ended::Done, 2),
            "{point}: {report}"
        );
        assert_eq!(
            kit.database().count("lines WHERE attempt = 1").await,
            1,
            "an outage is no attempt: {report}"
        );
        assert_eq!(handler.calls.load(Ordering::SeqCst), 1, "{report}");
        let first = ends(&report).remove(0);
        match point {
            Point::Returned => assert_eq!(first, CallEnd::NotCommitted, "{report}"),
            _ => assert!(first.to_string().starts_with("postgres did not answer"), "{report}"),
        }
    }
}

#[tokio::test]
async fn events_of_one_lane_are_taken_together_where_the_handler_allows_it() {
    let handler = Arc::new(Receipts {
        coalesce_max: 10,
        ..Receipts::default()
    });
    let kit = Kit::new(Arc::clone(&handler) as Arc<_>, TABLES).await;
    kit.script([Mishap::unreachable()]);
    let events: Vec<_> = (1..=4).map(paid).collect();
    let report = kit.deliver_all(&events).await;
    assert_eq!(report.all_ended(), vec![Ended::Done; 4], "{report}");
    assert!(report.attempts() < 5, "{report}");
    assert_eq!(kit.database().count("lines").await, 4);
}

#[tokio::test]
async fn a_lane_that_parks_holds_its_followers_back_until_the_replay() {
    let (_, kit) = kit().await;
    let kit = kit.with("handlers.receipts.on_bury=park");
    kit.script([Mishap::permanent()]);
    let report = kit.deliver_all(&[paid(1), paid(2)]).await;
    assert_eq!(report.all_ended(), [buried("permanent"), Ended::Parked], "{report}");
    assert_eq!(kit.database().count("lines").await, 0);
    let replayed = kit.replay().await;
    assert_eq!(replayed.all_ended()[0], Ended::Done, "{replayed}");
}

#[tokio::test]
async fn settings_are_those_of_the_program() {
    let (_, kit) = kit().await;
    let kit = kit.with("handlers.receipts.attempts_max=2");
    kit.script(vec![Mishap::transient(); 5]);
    let report = kit.deliver(&paid(1)).await;
    assert_eq!(
        (report.ended(), report.attempts()),
        (&buried("exhausted"), 2),
        "{report}"
    );
}

#[tokio::test]
async fn what_the_application_writes_is_delivered_as_its_own_changes() {
    let (_, mut kit) = kit().await;
    kit.record(&["orders"]).await;
    let events = kit
        .write("INSERT INTO orders VALUES (1, 'open'); UPDATE orders SET status = 'paid'; DELETE FROM orders")
        .await;
    assert_eq!(events.len(), 3);
    let report = kit.deliver_all(&events[..2]).await;
    assert_eq!(report.all_ended(), [Ended::Unwanted, Ended::Done], "{report}");
    assert!(kit.write("SELECT 1").await.is_empty());
}

#[tokio::test]
async fn another_handler_beside_it_has_its_own_ledger_and_the_same_tables() {
    struct Other;
    #[async_trait]
    impl Handler for Other {
        fn spec(&self) -> Spec {
            Spec::new("other", [Route::of("orders")])
        }
        async fn handle(&self, context: &mut Context, _: &[Arc<ChangeEvent>]) -> Result<Outcome, HandlerError> {
            let Some(Once { connection, .. }) = context.once().await? else {
                return Ok(Outcome::Done);
            };
            sqlx::query("INSERT INTO lines VALUES (0, 0)")
                .execute(connection)
                .await?;
            Ok(Outcome::Done)
        }
    }
    let (_, kit) = kit().await;
    let other = kit.beside(Arc::new(Other)).await;
    let event = paid(1);
    for (report, lines) in [(kit.deliver(&event).await, 1), (other.deliver(&event).await, 2)] {
        assert_eq!(report.ended(), &Ended::Done, "{report}");
        assert!(kit.database().count("lines").await >= lines);
    }
    assert_eq!(other.deliver(&event).await.ended(), &Ended::Before("done".to_owned()));
}

#[tokio::test]
async fn a_database_is_gone_with_its_kit() {
    let (_, kit) = kit().await;
    let name = kit.database().text("SELECT current_database()").await.unwrap();
    let (_, another) = self::kit().await;
    let is_there = format!("pg_database WHERE datname = '{name}'");
    assert_eq!(another.database().count(&is_there).await, 1);
    drop(kit);
    assert_eq!(another.database().count(&is_there).await, 0);
}
