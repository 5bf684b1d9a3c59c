//! Parked lanes: what is held back, in which order it comes out, and that nothing is appended to a lane that is live.

use afterwrite::event::delivery::{ParkedLane, Position, RawRecord};
use afterwrite::event::id::EventId;
use afterwrite::ledger::LedgerKey;
use afterwrite::ledger::parked::{self, Appended, Lane, Parked, Parking};
use bytes::Bytes;
use chrono::NaiveDate;
use sqlx::postgres::PgPool;

use crate::database::{GROUP, count, end_of, exec, in_database, partition, sessions_wait, take};

fn lane() -> Lane {
    Lane {
        partition: partition(),
        handler: "email".to_owned(),
        // Does not fit into a signed integer.
        key: u64::MAX - 5,
    }
}

fn raw(text: &str) -> RawRecord {
    RawRecord {
        key: None,
        value: Some(Bytes::from(text.to_owned())),
        headers: vec![
            ("twice".to_owned(), Some(Bytes::from_static(b"\xff"))),
            ("twice".to_owned(), None),
        ],
        timestamp_ms: Some(17),
    }
}

/// Parks the lane behind a letter whose event stands at `head`.
async fn park_lane(pool: &PgPool, epoch: u64, head: i64, letter: &str) -> bool {
    let mut transaction = pool.begin().await.unwrap();
    sqlx::query(
        "INSERT INTO afterwrite.letters (letter_id, group_name, handler, class, error, attempts, first_failed_at, failed_at,
             replays, source_topic, source_partition, source_offset, dlq_topic, dlq_partition, dlq_offset)
         VALUES ($1, $2, 'email', 'permanent', 'e', 1, now(), now(), 0, $3, 3, $4, 'dlq', 0, 0)",
    )
    .bind(letter)
    .bind(GROUP)
    .bind(&*partition().topic)
    .bind(head)
    .execute(&mut *transaction)
    .await
    .unwrap();
    let parked = parking(pool)
        .park_lane(&mut transaction, epoch, &lane(), Position(head), letter)
        .await
        .unwrap();
    if !parked {
        return false;
    }
    transaction.commit().await.unwrap();
    true
}

fn parking(pool: &PgPool) -> Parking {
    Parking::new(pool.clone(), GROUP)
}

async fn append(pool: &PgPool, epoch: u64, offset: i64) -> Parked {
    let event = LedgerKey {
        commit_day: NaiveDate::from_ymd_opt(2026, 7, 1).unwrap(),
        event_id: EventId([7; 16]),
    };
    let raw = raw(&offset.to_string());
    let appended = Appended {
        position: Position(offset),
        key: Some(event),
        raw: &raw,
    };
    let parked = parking(pool).park(epoch, &lane(), &[appended]).await;
    parked.unwrap()
}

async fn listed(pool: &PgPool, after: Option<i64>, limit: u32) -> Vec<i64> {
    let events = parking(pool).next(&lane(), after.map(Position), limit).await.unwrap();
    for event in &events {
        assert_eq!(event.raw, raw(&event.position.0.to_string()));
    }
    events.iter().map(|event| event.position.0).collect()
}

async fn set_letter(pool: &PgPool, letter: &str, state: &str) {
    exec(
        pool,
        &format!("UPDATE afterwrite.letters SET state = '{state}' WHERE letter_id = '{letter}'"),
    )
    .await;
}

#[tokio::test]
async fn a_parked_lane_keeps_its_events_in_order_and_is_live_when_its_list_is_empty() {
    in_database(async |pool| {
        take(pool).await;
        assert_eq!(append(pool, 1, 11).await, Parked::LaneIsLive);
        assert!(park_lane(pool, 1, 10, "head").await);
        for offset in [12, 11, 13, 12] {
            assert_eq!(append(pool, 1, offset).await, Parked::Stored);
        }
        assert_eq!(listed(pool, None, 10).await, [11, 12, 13]);
        assert_eq!(listed(pool, Some(11), 1).await, [12]);
        let parking = parking(pool);
        assert!(!parking.go_live(1, &lane()).await.unwrap(), "its head waits");

        assert!(parking.drain(1, &lane()).await.unwrap());
        assert!(!parking.go_live(1, &lane()).await.unwrap(), "its list is not empty");
        assert!(parking.done(1, &lane(), &[Position(11), Position(12)]).await.unwrap());
        assert_eq!(
            append(pool, 1, 14).await,
            Parked::Stored,
            "while it drains, what arrives is appended"
        );
        assert_eq!(listed(pool, None, 10).await, [13, 14]);
        assert!(parking.done(1, &lane(), &[Position(13), Position(14)]).await.unwrap());
        assert!(parking.go_live(1, &lane()).await.unwrap());
        assert!(parking.go_live(1, &lane()).await.unwrap(), "the answer may get lost");
        assert_eq!(append(pool, 1, 15).await, Parked::LaneIsLive);
        assert!(!parking.drain(1, &lane()).await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn an_empty_lane_whose_head_waits_stays_parked() {
    in_database(async |pool| {
        take(pool).await;
        assert!(park_lane(pool, 1, 10, "head").await);
        assert!(!parking(pool).go_live(1, &lane()).await.unwrap());
        assert_eq!(append(pool, 1, 11).await, Parked::Stored);
    })
    .await;
}

#[tokio::test]
async fn an_event_that_fails_while_its_lane_drains_becomes_the_head() {
    in_database(async |pool| {
        take(pool).await;
        assert!(park_lane(pool, 1, 10, "first").await);
        for offset in [11, 12] {
            append(pool, 1, offset).await;
        }
        assert!(parking(pool).drain(1, &lane()).await.unwrap());
        assert!(park_lane(pool, 1, 11, "second").await);
        assert_eq!(listed(pool, None, 10).await, [12]);
        assert_eq!(parked::headed_by(pool, "first").await.unwrap(), None);
        assert_eq!(parked::headed_by(pool, "second").await.unwrap(), Some(lane()));
        let found = take(pool).await.1.inherited.parked;
        let expected = ParkedLane {
            handler: "email".to_owned(),
            key: lane().key,
            draining: false,
        };
        assert_eq!(found, [expected]);
    })
    .await;
}

#[tokio::test]
async fn a_lane_drains_when_its_head_was_replayed_or_discarded() {
    in_database(async |pool| {
        take(pool).await;
        let owned = [(partition(), 1)];
        let parking = parking(pool);
        assert!(park_lane(pool, 1, 10, "head").await);
        for (state, is_to_drain) in [
            ("open", false),
            ("replaying", false),
            ("replayed", true),
            ("discarded", true),
        ] {
            set_letter(pool, "head", state).await;
            let found = parking.to_drain(&owned, 10).await.unwrap();
            assert_eq!(found == [lane()], is_to_drain, "{state}");
        }
        assert!(
            parking.to_drain(&[], 10).await.unwrap().is_empty(),
            "somebody else's partition"
        );
        append(pool, 1, 11).await;
        let summary = &parked::summary(pool, GROUP).await.unwrap()[0];
        assert_eq!((summary.parked, summary.draining, summary.events), (1, 0, 1));
        assert!(parking.drain(1, &lane()).await.unwrap());
        assert!(
            parking.to_drain(&owned, 10).await.unwrap().is_empty(),
            "it drains already"
        );
        let summary = &parked::summary(pool, GROUP).await.unwrap()[0];
        assert_eq!((&*summary.handler, summary.parked, summary.draining), ("email", 0, 1));
    })
    .await;
}

/// An append that has the lane's lock is on its way while the lane should go live.
#[tokio::test]
async fn a_lane_does_not_go_live_over_an_event_that_is_being_appended() {
    in_database(async |pool| {
        take(pool).await;
        assert!(park_lane(pool, 1, 10, "head").await);
        assert!(parking(pool).drain(1, &lane()).await.unwrap());
        let mut in_the_way = pool.begin().await.unwrap();
        sqlx::query(
            "INSERT INTO afterwrite.parked (group_name, topic, partition, handler, lane_key, source_offset, headers)
             SELECT group_name, topic, partition, handler, lane_key, 11, '[]' FROM afterwrite.parked_lanes",
        )
        .execute(&mut *in_the_way)
        .await
        .unwrap();
        let (appender, opener) = (pool.clone(), parking(pool));
        let appending = tokio::spawn(async move { append(&appender, 1, 11).await });
        sessions_wait(pool, 1).await;
        let going_live = tokio::spawn(async move { opener.go_live(1, &lane()).await.unwrap() });
        sessions_wait(pool, 2).await;
        in_the_way.rollback().await.unwrap();
        assert_eq!(end_of(appending).await, Parked::Stored);
        assert!(!end_of(going_live).await);
        assert_eq!(listed(pool, None, 10).await, [11]);
    })
    .await;
}

#[tokio::test]
async fn nothing_is_appended_to_a_lane_that_goes_live_at_that_moment() {
    in_database(async |pool| {
        take(pool).await;
        assert!(park_lane(pool, 1, 10, "head").await);
        let mut going_live = pool.begin().await.unwrap();
        sqlx::query("DELETE FROM afterwrite.parked_lanes")
            .execute(&mut *going_live)
            .await
            .unwrap();
        let appender = pool.clone();
        let appending = tokio::spawn(async move { append(&appender, 1, 11).await });
        sessions_wait(pool, 1).await;
        going_live.commit().await.unwrap();
        assert_eq!(end_of(appending).await, Parked::LaneIsLive);
        assert_eq!(count(pool, "afterwrite.parked").await, 0);
    })
    .await;
}

#[tokio::test]
async fn whoever_lost_the_partition_changes_no_lane() {
    in_database(async |pool| {
        take(pool).await;
        assert!(park_lane(pool, 1, 10, "head").await);
        append(pool, 1, 11).await;
        let mut next = pool.begin().await.unwrap();
        sqlx::query("UPDATE afterwrite.claims SET epoch = epoch + 1")
            .execute(&mut *next)
            .await
            .unwrap();
        let late = [pool.clone(), pool.clone(), pool.clone(), pool.clone(), pool.clone()];
        let [appender, drainer, taker, opener, burier] = late;
        let appending = tokio::spawn(async move { append(&appender, 1, 12).await });
        let draining = tokio::spawn(async move { parking(&drainer).drain(1, &lane()).await.unwrap() });
        let taking = tokio::spawn(async move { parking(&taker).done(1, &lane(), &[Position(11)]).await.unwrap() });
        let going_live = tokio::spawn(async move { parking(&opener).go_live(1, &lane()).await.unwrap() });
        let burying = tokio::spawn(async move { park_lane(&burier, 1, 11, "late").await });
        sessions_wait(pool, 5).await;
        next.commit().await.unwrap();
        assert_eq!(end_of(appending).await, Parked::Fenced);
        assert!(!end_of(draining).await);
        assert!(!end_of(taking).await);
        assert!(!end_of(going_live).await);
        assert!(!end_of(burying).await);
        assert_eq!(listed(pool, None, 10).await, [11]);
        assert_eq!(
            count(
                pool,
                "afterwrite.parked_lanes WHERE state = 'parked' AND head_letter = 'head'"
            )
            .await,
            1
        );
        // The next owner finds the lane and goes on with it.
        assert_eq!(append(pool, 2, 12).await, Parked::Stored);
        assert_eq!(take(pool).await.1.inherited.parked.len(), 1);
    })
    .await;
}
