//! Old days of the ledger: when they go, what holds them, and what becomes of their events afterwards.

use std::sync::Arc;

use afterwrite::event::change::{Change, ChangeEvent, Origin};
use afterwrite::handler::{Fault, HandlerError};
use afterwrite::ledger::claims::Claims;
use afterwrite::ledger::registry::{self, Name};
use afterwrite::ledger::retention::{self, Retention};
use afterwrite::ledger::transaction::{self, Mode};
use afterwrite::ledger::{LedgerKey, days};
use chrono::{Days, NaiveDate, Utc};
use sqlx::postgres::PgPool;

use crate::database::{GROUP, count, end_of, exec, in_database, partition, sessions_wait, take};

const RETENTION_DAYS: u32 = 14;

pub(crate) fn days_ago(days: u64) -> NaiveDate {
    Utc::now().date_naive() - Days::new(days)
}

/// An event that was committed on this day; another `lsn` makes another event.
pub(crate) fn event(day: NaiveDate, lsn: i64) -> Arc<ChangeEvent> {
    let noon = day.and_hms_opt(12, 0, 0).unwrap().and_utc();
    let origin = Origin {
        name: "waitlist".into(),
        db: "waitlist".into(),
        schema: "".into(),
        table: "".into(),
        tx: None,
        lsn: Some(lsn),
        commit_ts_ms: Some(noon.timestamp_millis()),
    };
    let message = Change::Message {
        prefix: "test".to_owned(),
        content: String::new(),
    };
    Arc::new(ChangeEvent::new(origin, None, message))
}

/// How many of the events are still to be done. They are done when this has answered.
pub(crate) async fn work(
    pool: &PgPool,
    handler: &str,
    events: &[Arc<ChangeEvent>],
    mode: &Mode,
) -> Result<usize, Fault> {
    let opened = transaction::open(pool, handler, events, mode).await;
    let opened = opened.map_err(|error| HandlerError::from(error).fault)?;
    opened.transaction.commit().await.unwrap();
    Ok(opened.pending.len())
}

pub(crate) async fn drop_days(pool: &PgPool) -> Retention {
    retention::drop_days(pool, RETENTION_DAYS).await.unwrap()
}

pub(crate) async fn register(pool: &PgPool, handler: &str, group: &str) {
    let name = Name {
        name: handler,
        was: None,
    };
    registry::register(pool, name, group, "public.waitlist_users(primary key)")
        .await
        .unwrap();
}

/// A group that has started, and has settled everything before `frontier`.
pub(crate) async fn started(pool: &PgPool, frontier: NaiveDate) -> Claims {
    register(pool, "email", GROUP).await;
    let (owner, claim) = take(pool).await;
    owner.started(&partition().topic, 3, 0).await.unwrap();
    owner.frontiers(&[(partition(), claim.epoch, frontier)]).await.unwrap();
    owner
}

/// A dead letter of the event, as it is recorded.
async fn bury(pool: &PgPool, event: &Arc<ChangeEvent>, letter: &str) {
    let key = LedgerKey::of(event).unwrap();
    days::make(pool, key.commit_day).await.unwrap();
    exec(
        pool,
        &format!(
            "INSERT INTO afterwrite.ledger VALUES ('{day}', 'email', '\\x{id}', 'buried');
             INSERT INTO afterwrite.letters (letter_id, group_name, handler, commit_day, class, error, attempts, first_failed_at,
                 failed_at, source_topic, source_partition, source_offset, dlq_topic, dlq_partition, dlq_offset)
             VALUES ('{letter}', '{GROUP}', 'email', '{day}', 'permanent', 'e', 1, now(), now(), 't', 3, 1, 'dlq', 0, 0)",
            day = key.commit_day,
            id = key.event_id
        ),
    )
    .await;
}

async fn tables(pool: &PgPool, day: NaiveDate) -> i64 {
    let name = format!("pg_class WHERE relname = 'ledger_{}'", day.format("%Y%m%d"));
    count(pool, &name).await
}

#[tokio::test]
async fn an_old_day_goes_when_nothing_needs_it() {
    in_database(async |pool| {
        let old = days_ago(20);
        let owner = started(pool, days_ago(15)).await;
        let events = [event(old, 1), event(days_ago(14), 1)];
        assert_eq!(work(pool, "email", &events, &Mode::Deliver).await, Ok(2));
        let held_from = |day: Option<NaiveDate>, by: &str, retention: &Retention| {
            let held = retention.held_by.as_ref().unwrap_or_else(|| panic!("{by} holds it"));
            assert_eq!((held.day, held.what.contains(by)), (day, true), "{held:?}");
            assert!(retention.dropped.is_empty());
        };
        exec(pool, "UPDATE afterwrite.claims SET frontier_day = NULL").await;
        held_from(None, "group afterwrite.email at", &drop_days(pool).await);
        owner.frontiers(&[(partition(), 1, old)]).await.unwrap();
        held_from(Some(old), "group afterwrite.email at", &drop_days(pool).await);
        owner.frontiers(&[(partition(), 1, days_ago(0))]).await.unwrap();

        bury(pool, &event(old, 2), "letter").await;
        for state in ["open", "replaying"] {
            exec(pool, &format!("UPDATE afterwrite.letters SET state = '{state}'")).await;
            held_from(Some(old), "dead letter letter", &drop_days(pool).await);
        }
        exec(pool, "UPDATE afterwrite.letters SET state = 'replayed'").await;
        let parked = format!(
            "INSERT INTO afterwrite.parked (group_name, topic, partition, handler, lane_key, source_offset, commit_day, headers)
             VALUES ('{GROUP}', 't', 0, 'email', 1, 1, '{old}', '[]')"
        );
        exec(pool, &parked).await;
        held_from(Some(old), "a parked event", &drop_days(pool).await);
        exec(pool, "DELETE FROM afterwrite.parked").await;

        let retention = drop_days(pool).await;
        assert_eq!((retention.dropped, retention.held_by), (vec![old], None));
        assert_eq!((tables(pool, old).await, tables(pool, days_ago(14)).await), (0, 1));
        assert_eq!(drop_days(pool).await, Retention::default());
    })
    .await;
}

#[tokio::test]
async fn a_group_whose_handlers_are_gone_holds_nothing() {
    in_database(async |pool| {
        started(pool, days_ago(30)).await;
        days::make(pool, days_ago(20)).await.unwrap();
        assert!(drop_days(pool).await.dropped.is_empty());
        exec(pool, "DELETE FROM afterwrite.handlers").await;
        assert_eq!(drop_days(pool).await.dropped, [days_ago(20)]);
    })
    .await;
}

#[tokio::test]
async fn an_event_of_a_dropped_day_runs_by_a_replay_only() {
    in_database(async |pool| {
        started(pool, days_ago(0)).await;
        // A group that has not started has done nothing of that day, so there is nothing to be forgotten.
        register(pool, "fresh", "afterwrite.fresh").await;
        let (done, other) = ([event(days_ago(20), 1)], [event(days_ago(20), 2)]);
        assert_eq!(work(pool, "email", &done, &Mode::Deliver).await, Ok(1));
        assert_eq!(drop_days(pool).await.dropped, [days_ago(20)]);

        assert_eq!(work(pool, "email", &done, &Mode::Deliver).await, Err(Fault::Expired));
        let refused = transaction::unsettled(pool, "email", &done, &Mode::Deliver)
            .await
            .unwrap_err();
        assert!(
            matches!(refused, transaction::Error::Expired { day, .. } if day == days_ago(20)),
            "{refused}"
        );
        assert_eq!(tables(pool, days_ago(20)).await, 0, "it makes no day anew");
        assert_eq!(work(pool, "fresh", &other, &Mode::Deliver).await, Ok(1));
        // The day has a table again, which must not make anything look new.
        assert_eq!(work(pool, "email", &other, &Mode::Deliver).await, Err(Fault::Expired));
        let mixed = [event(days_ago(3), 1), event(days_ago(20), 2)];
        assert_eq!(work(pool, "email", &mixed, &Mode::Deliver).await, Err(Fault::Expired));
        assert_eq!(
            work(pool, "email", &mixed[..1], &Mode::Deliver).await,
            Ok(1),
            "it was rolled back"
        );

        bury(pool, &done[0], "letter").await;
        assert_eq!(
            work(pool, "email", &done, &Mode::Deliver).await,
            Ok(0),
            "its letter is written"
        );
        let replay = Mode::Replay {
            letter_id: "letter".to_owned(),
        };
        let left = async |mode: &Mode| transaction::unsettled(pool, "email", &done, mode).await.unwrap().len();
        assert_eq!((left(&Mode::Deliver).await, left(&replay).await), (0, 1));
        assert_eq!(work(pool, "email", &done, &replay).await, Ok(1));
        // Its owner may die before it has said so: the next one gets the letter once more, and calls for nothing.
        assert_eq!((left(&Mode::Deliver).await, left(&replay).await), (0, 0));
        assert_eq!(work(pool, "email", &done, &replay).await, Ok(0));
        assert_eq!(
            work(pool, "email", &other, &replay).await,
            Ok(1),
            "also one that was never buried"
        );
    })
    .await;
}

#[tokio::test]
async fn groups_go_on_while_a_day_is_detached() {
    in_database(async |pool| {
        started(pool, days_ago(0)).await;
        days::make(pool, days_ago(20)).await.unwrap();
        let running = transaction::open(pool, "email", &[event(days_ago(0), 1)], &Mode::Deliver).await;
        let running = running.unwrap().transaction;
        let dropper = pool.clone();
        let dropping = tokio::spawn(async move { drop_days(&dropper).await });
        sessions_wait(pool, 1).await;
        assert_eq!(
            work(pool, "email", &[event(days_ago(0), 2)], &Mode::Deliver).await,
            Ok(1)
        );
        assert_eq!(drop_days(pool).await, Retention::default(), "another process is at it");
        running.commit().await.unwrap();
        assert_eq!(end_of(dropping).await.dropped, [days_ago(20)]);
    })
    .await;
}

#[tokio::test]
async fn a_detachment_that_was_interrupted_is_finished() {
    in_database(async |pool| {
        started(pool, days_ago(0)).await;
        let (first, second) = (days_ago(21), days_ago(20));
        for day in [first, second] {
            days::make(pool, day).await.unwrap();
        }
        let running = transaction::open(pool, "email", &[event(days_ago(0), 1)], &Mode::Deliver).await;
        let detach = format!(
            "ALTER TABLE afterwrite.ledger DETACH PARTITION afterwrite.ledger_{} CONCURRENTLY",
            second.format("%Y%m%d")
        );
        let mut impatient = pool.acquire().await.unwrap();
        for (statement, succeeds) in [("SET statement_timeout = 200", true), (&*detach, false)] {
            let statement = sqlx::AssertSqlSafe(statement.to_owned());
            let ended = sqlx::raw_sql(statement).execute(&mut *impatient).await;
            assert_eq!(ended.is_ok(), succeeds);
        }
        drop(impatient.detach());
        drop(running);
        let refused = days::make(pool, second).await.unwrap_err();
        assert!(refused.to_string().contains("is being dropped"), "{refused}");
        assert_eq!(drop_days(pool).await.dropped, [second, first]);
        days::make(pool, second).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_day_that_was_detached_and_not_dropped_is_a_day_again_when_it_is_needed() {
    in_database(async |pool| {
        let old = [event(days_ago(20), 1)];
        assert_eq!(work(pool, "email", &old, &Mode::Deliver).await, Ok(1));
        let table = format!("afterwrite.ledger_{}", days_ago(20).format("%Y%m%d"));
        exec(pool, &format!("ALTER TABLE afterwrite.ledger DETACH PARTITION {table}")).await;
        assert_eq!(work(pool, "email", &old, &Mode::Deliver).await, Ok(0));
        exec(pool, &format!("ALTER TABLE afterwrite.ledger DETACH PARTITION {table}")).await;
        assert_eq!(drop_days(pool).await.dropped, [days_ago(20)]);
        assert_eq!(tables(pool, days_ago(20)).await, 0);
    })
    .await;
}

#[tokio::test]
async fn whoever_asks_for_a_day_waits_until_every_session_can_know_of_it() {
    in_database(async |pool| {
        days::make(pool, days_ago(20)).await.unwrap();
        // As whoever attached it holds it: the day can be seen, and the lock is not free yet.
        let mut making = pool.begin().await.unwrap();
        sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('afterwrite.ledger.days', 0))")
            .execute(&mut *making)
            .await
            .unwrap();
        let asking = pool.clone();
        let asked = tokio::spawn(async move { days::make(&asking, days_ago(20)).await });
        sessions_wait(pool, 1).await;
        making.commit().await.unwrap();
        end_of(asked).await.unwrap();
    })
    .await;
}
