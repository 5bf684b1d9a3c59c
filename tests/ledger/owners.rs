//! What the next owner of a partition inherits: reserved positions, running marks and attempts; and what an owner can no
//! longer do when there is a next one.

use afterwrite::event::delivery::{EarlierAttempts, Inherited, LeftMark, Position};
use afterwrite::ledger::attempts::FailedAttempts;
use afterwrite::ledger::claims::{Claims, OwnedJob};
use chrono::{DateTime, NaiveDate, Utc};
use sqlx::postgres::PgPool;

use crate::database::{claims, count, end_of, exec, in_database, partition, sessions_wait, take};

fn job(epoch: u64, offset: i64) -> OwnedJob {
    OwnedJob {
        partition: partition(),
        epoch,
        position: Position(offset),
        handler: "email".to_owned(),
    }
}

fn left(offset: i64, deaths: u32) -> LeftMark {
    LeftMark {
        position: Position(offset),
        handler: "email".to_owned(),
        deaths,
    }
}

async fn mark(claims: &Claims, epoch: u64, offset: i64, alone: bool) -> bool {
    claims
        .mark(&partition(), epoch, Position(offset), "email", alone)
        .await
        .unwrap()
}

fn at(milliseconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(milliseconds).unwrap()
}

#[tokio::test]
async fn after_a_clean_release_nobody_died_and_what_was_cut_off_is_known() {
    in_database(async |pool| {
        let (owner, first) = take(pool).await;
        assert_eq!((first.epoch, &first.inherited), (1, &Inherited::default()));
        assert!(owner.reserve(&partition(), 1, Position(1_000)).await.unwrap());
        assert!(mark(&owner, 1, 7, true).await);
        assert!(owner.released(&partition(), 1).await.unwrap());
        assert!(!mark(&owner, 1, 8, true).await, "it was released");
        assert!(!owner.reserve(&partition(), 1, Position(2_000)).await.unwrap());
        assert!(
            owner.released(&partition(), 1).await.unwrap(),
            "the answer may get lost"
        );

        let (_, second) = take(pool).await;
        let cut_off = Inherited {
            left: vec![left(7, 0)],
            ..Inherited::default()
        };
        assert_eq!((second.epoch, second.inherited), (2, cut_off));
    })
    .await;
}

#[tokio::test]
async fn a_death_makes_suspect_what_was_reserved_and_counts_once_for_what_ran_alone() {
    in_database(async |pool| {
        let (owner, _) = take(pool).await;
        for to in [1_000, 500] {
            assert!(owner.reserve(&partition(), 1, Position(to)).await.unwrap());
        }
        for (offset, alone) in [(7, true), (8, false), (9, true)] {
            assert!(mark(&owner, 1, offset, alone).await);
        }
        owner.unmark(&[job(1, 9), job(1, 10)]).await.unwrap();

        let (second, claim) = take(pool).await;
        assert_eq!(claim.inherited.suspect_to, Some(Position(1_000)));
        assert_eq!(claim.inherited.left, [left(7, 1), left(8, 0)]);
        // It dies before it ran anything: nobody is to blame for that.
        let (third, claim) = take(pool).await;
        assert_eq!(claim.inherited.suspect_to, Some(Position(1_000)));
        assert_eq!(claim.inherited.left, [left(7, 1), left(8, 0)]);

        assert!(mark(&third, 3, 7, true).await, "a mark that was left is marked anew");
        let (fourth, claim) = take(pool).await;
        assert_eq!(claim.inherited.left, [left(7, 2), left(8, 0)]);
        // A release says only that nobody died: whoever released may not have met all that was suspect.
        assert!(mark(&fourth, 4, 8, true).await);
        assert!(fourth.released(&partition(), 4).await.unwrap());
        assert!(!second.released(&partition(), 2).await.unwrap());
        let (fifth, claim) = take(pool).await;
        assert_eq!(claim.inherited.suspect_to, Some(Position(1_000)));
        assert_eq!(claim.inherited.left, [left(7, 2), left(8, 0)]);
        // What ran alone and rests is known, and a death does not count against it.
        assert!(fifth.reserve(&partition(), 5, Position(1_000)).await.unwrap());
        assert!(mark(&fifth, 5, 7, true).await);
        fifth.rest(&[job(5, 7)]).await.unwrap();
        assert_eq!(take(pool).await.1.inherited.left, [left(7, 2), left(8, 0)]);
    })
    .await;
}

#[tokio::test]
async fn a_death_is_counted_also_when_the_next_owner_dies_before_it_has_read_what_was_left() {
    in_database(async |pool| {
        let (owner, _) = take(pool).await;
        assert!(owner.reserve(&partition(), 1, Position(1_000)).await.unwrap());
        assert!(mark(&owner, 1, 7, true).await);
        // All that the second owner did.
        exec(
            pool,
            "UPDATE afterwrite.claims SET epoch = 2, suspect_to = handed_out_to",
        )
        .await;
        let (_, third) = take(pool).await;
        assert_eq!(third.inherited.left, [left(7, 1)]);
        let (fourth, claim) = take(pool).await;
        assert_eq!(claim.inherited.left, [left(7, 1)], "once");
        // A release leaves nothing that such a death could be taken for.
        assert!(mark(&fourth, 4, 7, true).await);
        assert!(fourth.released(&partition(), 4).await.unwrap());
        exec(
            pool,
            "UPDATE afterwrite.claims SET epoch = 5, released_clean = false, handed_out_to = NULL",
        )
        .await;
        assert_eq!(take(pool).await.1.inherited.left, [left(7, 1)]);
    })
    .await;
}

#[tokio::test]
async fn a_death_counts_also_when_nothing_was_reserved() {
    in_database(async |pool| {
        let (owner, _) = take(pool).await;
        assert!(owner.reserve(&partition(), 1, Position(1_000)).await.unwrap());
        assert!(owner.released(&partition(), 1).await.unwrap());
        // A stored event runs alone; nothing new arrives, so nothing is reserved.
        let (second, _) = take(pool).await;
        assert!(mark(&second, 2, 7, true).await);
        let (third, claim) = take(pool).await;
        assert_eq!(claim.inherited.left, [left(7, 1)]);
        assert_eq!(claim.inherited.suspect_to, None, "no event was handed out");
        assert!(mark(&third, 3, 7, true).await);
        let (_, claim) = take(pool).await;
        assert_eq!(claim.inherited.left, [left(7, 2)]);
        assert_eq!(claim.inherited.suspect_to, None);
    })
    .await;
}

#[tokio::test]
async fn attempts_outlive_their_owner_until_they_are_forgotten() {
    in_database(async |pool| {
        let (owner, _) = take(pool).await;
        let noted = |epoch, offset, attempts| FailedAttempts {
            job: job(epoch, offset),
            attempts,
            first_failed_at: at(1_000),
        };
        owner
            .note_attempts(&[noted(1, 3, 1), noted(1, 5, 3), noted(1, 6, 4)])
            .await
            .unwrap();
        owner.note_attempts(&[noted(1, 5, 4)]).await.unwrap();
        owner.forget_attempts(&[job(1, 6)]).await.unwrap();
        assert!(mark(&owner, 1, 3, false).await);
        assert!(owner.released(&partition(), 1).await.unwrap());

        let (second, claim) = take(pool).await;
        let earlier = |offset, attempts| EarlierAttempts {
            position: Position(offset),
            handler: "email".to_owned(),
            attempts,
            first_failed_at: at(1_000),
        };
        assert_eq!(claim.inherited.attempts, [earlier(3, 1), earlier(5, 4)]);
        // What it noted and forgets is the next owner's now.
        owner.note_attempts(&[noted(1, 5, 9), noted(1, 8, 9)]).await.unwrap();
        owner.forget_attempts(&[job(1, 5)]).await.unwrap();
        assert!(!owner.forget_before(&partition(), 1, Position(100)).await.unwrap());
        assert_eq!(count(pool, "afterwrite.attempts").await, 2);

        assert!(mark(&second, 2, 3, true).await);
        assert!(second.forget_before(&partition(), 2, Position(5)).await.unwrap());
        assert_eq!(count(pool, "afterwrite.marks").await, 0);
        assert_eq!(take(pool).await.1.inherited.attempts, [earlier(5, 4)]);
    })
    .await;
}

#[tokio::test]
async fn nothing_is_changed_under_an_epoch_that_ends_at_that_moment() {
    in_database(async |pool| {
        let (owner, _) = take(pool).await;
        assert!(mark(&owner, 1, 7, false).await);
        let day = NaiveDate::from_ymd_opt(2026, 7, 1).unwrap();
        let mut next = pool.begin().await.unwrap();
        sqlx::query("UPDATE afterwrite.claims SET epoch = epoch + 1")
            .execute(&mut *next)
            .await
            .unwrap();
        let noted = FailedAttempts {
            job: job(1, 7),
            attempts: 1,
            first_failed_at: at(0),
        };
        let late = [
            owner.clone(),
            owner.clone(),
            owner.clone(),
            owner.clone(),
            owner.clone(),
            owner.clone(),
        ];
        let [reserving, marking, releasing, unmarking, noting, telling] = late;
        let reserving = tokio::spawn(async move { reserving.reserve(&partition(), 1, Position(9)).await.unwrap() });
        let marking = tokio::spawn(async move { mark(&marking, 1, 8, true).await });
        let releasing = tokio::spawn(async move { releasing.released(&partition(), 1).await.unwrap() });
        let unmarking = tokio::spawn(async move { unmarking.unmark(&[job(1, 7)]).await.unwrap() });
        let noting = tokio::spawn(async move { noting.note_attempts(&[noted]).await.unwrap() });
        let telling = tokio::spawn(async move { telling.frontiers(&[(partition(), 1, day)]).await.unwrap() });
        sessions_wait(pool, 6).await;
        next.commit().await.unwrap();
        assert!(!end_of(reserving).await);
        assert!(!end_of(marking).await);
        assert!(!end_of(releasing).await);
        end_of(unmarking).await;
        end_of(noting).await;
        end_of(telling).await;
        assert_eq!(count(pool, "afterwrite.marks WHERE source_offset = 7").await, 1);
        assert_eq!(count(pool, "afterwrite.marks").await, 1);
        assert_eq!(count(pool, "afterwrite.attempts").await, 0);
        let untouched = "afterwrite.claims WHERE handed_out_to IS NULL AND NOT released_clean AND frontier_day IS NULL";
        assert_eq!(count(pool, untouched).await, 1);
    })
    .await;
}

/// The last mark of an owner is committed while the next one takes the partition: it must be seen.
#[tokio::test]
async fn the_next_owner_sees_the_mark_that_was_on_its_way() {
    in_database(async |pool| {
        let (owner, _) = take(pool).await;
        assert!(owner.reserve(&partition(), 1, Position(1_000)).await.unwrap());
        let mut in_the_way = pool.begin().await.unwrap();
        sqlx::query("INSERT INTO afterwrite.marks SELECT group_name, topic, partition, 7, 'email', 1, false FROM afterwrite.claims")
            .execute(&mut *in_the_way)
            .await
            .unwrap();
        let marking = tokio::spawn(async move { mark(&owner, 1, 7, true).await });
        sessions_wait(pool, 1).await;
        let next = claims(pool);
        let taking = tokio::spawn(async move { next.take(&partition().topic, 3).await.unwrap() });
        sessions_wait(pool, 2).await;
        in_the_way.rollback().await.unwrap();
        assert!(end_of(marking).await);
        assert_eq!(end_of(taking).await.inherited.left, [left(7, 1)]);
    })
    .await;
}

#[tokio::test]
async fn a_frontier_is_said_by_the_owner() {
    in_database(async |pool| {
        let (owner, _) = take(pool).await;
        let day = |day| NaiveDate::from_ymd_opt(2026, 7, day).unwrap();
        owner.frontiers(&[(partition(), 1, day(2))]).await.unwrap();
        owner.frontiers(&[(partition(), 0, day(9))]).await.unwrap();
        assert_eq!(said(pool).await, Some(day(2)));
        take(pool).await;
        assert_eq!(
            said(pool).await,
            Some(day(2)),
            "a new owner goes on where the last one was"
        );
        exec(pool, "DELETE FROM afterwrite.claims").await;
    })
    .await;
}

async fn said(pool: &PgPool) -> Option<NaiveDate> {
    sqlx::query_scalar("SELECT frontier_day FROM afterwrite.claims")
        .fetch_one(pool)
        .await
        .unwrap()
}
