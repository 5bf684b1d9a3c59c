//! The registry of handlers: who may have a name, and what a renamed handler takes along.

use afterwrite::dead_letter::filter::{self, Filter};
use afterwrite::event::delivery::Position;
use afterwrite::ledger::registry::{Error, Name, register};
use afterwrite::ledger::slots::{Slots, Standing};
use afterwrite::ledger::transaction::Mode;
use afterwrite::ledger::{parked, redo};
use chrono::Utc;
use sqlx::postgres::PgPool;

use crate::database::{GROUP, count, exec, in_database};
use crate::retention::{event, work};

const ORDERING: &str = "public.waitlist_users(primary key)";
const NEW_GROUP: &str = "afterwrite.mails";

async fn start(pool: &PgPool, name: &str, was: Option<&str>) -> Result<(), Error> {
    register(pool, Name { name, was }, &format!("afterwrite.{name}"), ORDERING).await
}

/// A letter and a parked lane of the handler `email`, and a letter of its group.
async fn leave_work(pool: &PgPool) {
    let script = format!(
        "INSERT INTO afterwrite.letters (letter_id, group_name, handler, class, error, attempts, first_failed_at, failed_at,
             source_topic, source_partition, source_offset, dlq_topic, dlq_partition, dlq_offset)
         SELECT letter, '{GROUP}', handler, 'permanent', 'e', 1, now(), now(), 't', 3, 1, 'dlq', 0, 0
         FROM (VALUES ('own', 'email'), ('undecodable', '*'), ('other', 'position')) AS made (letter, handler);
         INSERT INTO afterwrite.replay_requests (letter_id, group_name, handler, source_topic, source_partition, source_offset,
             headers, replays, requested_by)
         VALUES ('own', '{GROUP}', 'email', 't', 3, 1, '[]', 0, 'test');
         INSERT INTO afterwrite.parked_lanes (group_name, topic, partition, handler, lane_key, head_letter)
         VALUES ('{GROUP}', 't', 3, 'email', 1, 'own');
         INSERT INTO afterwrite.parked (group_name, topic, partition, handler, lane_key, source_offset, headers)
         VALUES ('{GROUP}', 't', 3, 'email', 1, 2, '[]');
         INSERT INTO afterwrite.replay_runs (group_name, rate, run_by) VALUES ('{GROUP}', 1, 'test')"
    );
    exec(pool, &script).await;
}

#[tokio::test]
async fn a_handler_may_be_woken_by_further_tables_and_in_no_other_order() {
    in_database(async |pool| {
        let wanted = async |ordering: &str| {
            let name = Name {
                name: "email",
                was: None,
            };
            register(pool, name, GROUP, ordering).await
        };
        wanted(ORDERING).await.unwrap();
        let more = format!("public.position_changes(primary key) {ORDERING}");
        wanted(&more).await.unwrap();
        assert!(matches!(wanted(ORDERING).await, Err(Error::OtherOrdering { .. })));
        let other = more.replace("waitlist_users(primary key)", "waitlist_users(campaign_id)");
        assert!(matches!(wanted(&other).await, Err(Error::OtherOrdering { .. })));
    })
    .await;
}

#[tokio::test]
async fn a_renamed_handler_finds_what_it_did_and_takes_its_letters_and_lanes_along() {
    in_database(async |pool| {
        start(pool, "email", None).await.unwrap();
        let today = Utc::now().date_naive();
        let (done, fresh) = ([event(today, 1)], [event(today, 2)]);
        assert_eq!(work(pool, "email", &done, &Mode::Deliver).await, Ok(1));
        leave_work(pool).await;

        let stood = Standing {
            confirmed_lsn: 7,
            position: Position(4),
            settled_to: Position(5),
        };
        let slot = Slots::of_group(pool.clone(), GROUP, "afterwrite_email").await.unwrap();
        slot.began("1", stood).await.unwrap();

        start(pool, "mails", Some("email")).await.unwrap();
        start(pool, "mails", Some("email")).await.unwrap();
        start(pool, "mails", None).await.unwrap();
        let slot = Slots::of_group(pool.clone(), NEW_GROUP, "afterwrite_mails")
            .await
            .unwrap();
        let known = slot.known().await.unwrap().map(|known| (known.group, known.standing));
        assert_eq!(
            (slot.name(), known),
            ("afterwrite_email", Some((NEW_GROUP.to_owned(), stood)))
        );
        assert_eq!(work(pool, "mails", &done, &Mode::Deliver).await, Ok(0));
        assert_eq!(work(pool, "mails", &fresh, &Mode::Deliver).await, Ok(1));
        // A process that was not restarted yet meets what the others do.
        assert_eq!(work(pool, "email", &fresh, &Mode::Deliver).await, Ok(0));

        let of_new = Filter {
            group: Some(NEW_GROUP.to_owned()),
            ..Filter::default()
        };
        let moved = filter::newest(pool, &of_new, 10).await.unwrap();
        let mut moved: Vec<(&str, &str)> = moved
            .iter()
            .map(|letter| (&*letter.letter_id, &*letter.handler))
            .collect();
        moved.sort_unstable();
        assert_eq!(moved, [("own", "mails"), ("undecodable", "*")]);
        let of_new = format!("WHERE group_name = '{NEW_GROUP}' AND handler = 'mails'");
        for table in ["replay_requests", "parked_lanes", "parked"] {
            assert_eq!(count(pool, &format!("afterwrite.{table} {of_new}")).await, 1, "{table}");
        }
        assert_eq!(parked::summary(pool, NEW_GROUP).await.unwrap()[0].events, 1);
        let runs = format!("afterwrite.replay_runs WHERE group_name = '{NEW_GROUP}'");
        assert_eq!(
            count(pool, &runs).await,
            1,
            "an interrupted run of replays is resumed under the new name"
        );
    })
    .await;
}

#[tokio::test]
async fn a_handler_may_be_renamed_again_but_its_names_are_nobody_elses() {
    in_database(async |pool| {
        for (name, was) in [("email", None), ("mails", Some("email")), ("letters", Some("mails"))] {
            start(pool, name, was).await.unwrap();
        }
        let today = Utc::now().date_naive();
        assert_eq!(work(pool, "email", &[event(today, 1)], &Mode::Deliver).await, Ok(1));
        assert_eq!(work(pool, "letters", &[event(today, 1)], &Mode::Deliver).await, Ok(0));
        let refused = start(pool, "email", None).await.unwrap_err();
        assert!(
            matches!(&refused, Error::Renamed { now, .. } if now == "letters"),
            "{refused}"
        );
        let marked = "INSERT INTO afterwrite.group_moves (group_name, moved_by, positions, redo_handler, redo_days)
                      VALUES ('afterwrite.letters', 'test', '{}', 'letters', '{2026-07-01}')";
        exec(pool, marked).await;
        // Back to the first one, after a third.
        start(pool, "notes", Some("letters")).await.unwrap();
        assert_eq!(
            redo::days(pool, "notes").await.unwrap().len(),
            1,
            "what is marked is still done again"
        );
        start(pool, "email", Some("notes")).await.unwrap();
        assert_eq!(work(pool, "email", &[event(today, 1)], &Mode::Deliver).await, Ok(0));
    })
    .await;
}

#[tokio::test]
async fn a_name_that_a_handler_never_had_is_refused() {
    in_database(async |pool| {
        let refused = start(pool, "mails", Some("emial")).await.unwrap_err();
        assert!(matches!(refused, Error::NeverRegistered { .. }), "{refused}");
        assert_eq!(count(pool, "afterwrite.handlers").await, 0);
        for name in ["email", "mails"] {
            start(pool, name, None).await.unwrap();
        }
        let refused = start(pool, "mails", Some("email")).await.unwrap_err();
        assert!(matches!(refused, Error::BothRegistered { .. }), "{refused}");
        assert_eq!(count(pool, "afterwrite.handlers").await, 2);
    })
    .await;
}

#[tokio::test]
async fn another_ordering_key_is_refused_with_the_command_that_allows_it() {
    in_database(async |pool| {
        start(pool, "email", None).await.unwrap();
        leave_work(pool).await;
        let name = Name {
            name: "email",
            was: None,
        };
        let wanted = "public.waitlist_users(campaign_id)";
        let refused = register(pool, name, GROUP, wanted).await.unwrap_err().to_string();
        assert!(refused.contains("1 lanes are parked"), "{refused}");
        let (_, command) = refused.split_once("psql -c \"").unwrap();
        exec(pool, command.trim_end_matches('"')).await;
        register(pool, name, GROUP, wanted).await.unwrap();
    })
    .await;
}
