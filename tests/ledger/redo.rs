//! Events that are to be done again: who does them, and under which name the ledger knows them.

use std::sync::Arc;

use afterwrite::event::change::ChangeEvent;
use afterwrite::groups::moves::{Account, Move};
use afterwrite::ledger::redo::{self, Chosen, Marked};
use afterwrite::ledger::transaction::{self, Mode};
use chrono::{Duration, Utc};
use sqlx::postgres::PgPool;

use crate::database::{GROUP, count, end_of, exec, in_database, partition, sessions_wait};
use crate::retention::{days_ago, drop_days, event, register, started, work};

const ALL_MARKED: &str = "afterwrite.ledger WHERE state = 'redo'";

/// Everything this handler did within the last hour.
fn of_the_last_hour(handler: &str) -> Chosen {
    Chosen {
        handler: handler.to_owned(),
        from: Utc::now() - Duration::hours(1),
        until: Utc::now() + Duration::hours(1),
        repeat_effects: true,
    }
}

async fn mark(pool: &PgPool, handler: &str) -> Marked {
    let mut connection = pool.acquire().await.unwrap();
    let chosen = of_the_last_hour(handler);
    let counted = redo::count(&mut connection, &chosen).await.unwrap();
    let marked = redo::mark(&mut connection, &chosen).await.unwrap();
    assert_eq!(counted, marked, "what is counted is what is marked");
    marked
}

/// Two events of different days, done an hour and a half ago and now.
async fn done(pool: &PgPool) -> [Arc<ChangeEvent>; 2] {
    register(pool, "email", GROUP).await;
    let events = [event(days_ago(3), 1), event(days_ago(1), 2)];
    assert_eq!(work(pool, "email", &events, &Mode::Deliver).await, Ok(2));
    let earlier =
        "UPDATE afterwrite.ledger SET settled_at = now() - interval '90 minutes' WHERE commit_day = current_date - 3";
    exec(pool, earlier).await;
    events
}

#[tokio::test]
async fn only_what_was_settled_within_the_time_is_done_again_and_by_one_of_two_rivals() {
    in_database(async |pool| {
        let events = done(pool).await;
        let marked = mark(pool, "email").await;
        assert_eq!((marked.events, marked.first_day), (1, Some(days_ago(1))), "{marked:?}");
        assert_eq!(marked.days, [days_ago(1)]);
        let found = transaction::unsettled(pool, "email", &events, &Mode::Deliver)
            .await
            .unwrap();
        assert_eq!(
            found.iter().map(|event| event.id()).collect::<Vec<_>>(),
            [events[1].id()]
        );

        let first = transaction::open(pool, "email", &events, &Mode::Deliver).await.unwrap();
        assert_eq!(first.pending.len(), 1);
        let (rival, again) = (pool.clone(), events.clone());
        let second = tokio::spawn(async move { work(&rival, "email", &again, &Mode::Deliver).await });
        sessions_wait(pool, 1).await;
        first.transaction.commit().await.unwrap();
        assert_eq!(end_of(second).await, Ok(0));
        assert_eq!(count(pool, ALL_MARKED).await, 0);
    })
    .await;
}

#[tokio::test]
async fn an_attempt_that_is_rolled_back_leaves_its_marks() {
    in_database(async |pool| {
        let events = done(pool).await;
        mark(pool, "email").await;
        let opened = transaction::open(pool, "email", &events, &Mode::Deliver).await.unwrap();
        opened.transaction.rollback().await.unwrap();
        assert_eq!(count(pool, ALL_MARKED).await, 1);
        let again = mark(pool, "email").await;
        assert_eq!((again.events, again.open_before), (0, 1), "{again:?}");
        assert_eq!(
            again.first_day,
            Some(days_ago(1)),
            "the group goes back to it all the same"
        );
        assert_eq!(work(pool, "email", &events, &Mode::Deliver).await, Ok(1));
    })
    .await;
}

#[tokio::test]
async fn a_handler_that_was_renamed_does_again_what_it_did_under_its_old_name() {
    in_database(async |pool| {
        let events = done(pool).await;
        exec(
            pool,
            "UPDATE afterwrite.handlers SET name = 'mails', ledger_name = 'email'",
        )
        .await;
        assert_eq!(mark(pool, "mails").await.events, 1);
        let mut connection = pool.acquire().await.unwrap();
        let key = afterwrite::ledger::LedgerKey::of(&events[1]).unwrap();
        let turned = redo::turn(&mut connection, "mails", &[key]).await.unwrap();
        assert_eq!(turned.len(), 1);
        assert_eq!(count(pool, ALL_MARKED).await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_group_that_was_moved_holds_the_whole_ledger_until_it_says_where_it_is() {
    in_database(async |pool| {
        started(pool, days_ago(1)).await;
        work(pool, "email", &[event(days_ago(20), 1)], &Mode::Deliver)
            .await
            .unwrap();
        let moves = [Move {
            topic: partition().topic.to_string(),
            partition: 3,
            from: Some(9),
            to: 0,
            again: 9,
            passed_over: 0,
        }];
        let account = Account {
            group: GROUP,
            by: "ann",
            reason: None,
            moves: &moves,
            redo: None,
        };
        account.begin(&mut pool.acquire().await.unwrap()).await.unwrap();
        let kept = drop_days(pool).await;
        assert!(kept.dropped.is_empty() && kept.held_by.is_some(), "{kept:?}");
    })
    .await;
}
