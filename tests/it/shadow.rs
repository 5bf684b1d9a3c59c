//! `afterwrite run --shadow`: decides as the worker does, and leaves no trace.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use afterwrite::shadow::session::{Rows, Session};
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgPool};

use crate::mails::caught;
use crate::producer;
use crate::stack::{self, until};
use crate::worker::Worker;
use crate::world::World;

/// Every row of every table, as one text for each table.
async fn everything(pool: &PgPool) -> BTreeMap<String, Option<String>> {
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
         WHERE schemaname NOT IN ('pg_catalog', 'information_schema') AND tablename <> 'heartbeat'",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let mut rows = BTreeMap::new();
    for table in tables {
        let all = format!("SELECT md5(string_agg(t::text, ',' ORDER BY t::text)) FROM {table} t");
        let all = sqlx::query_scalar(AssertSqlSafe(all)).fetch_one(pool).await.unwrap();
        rows.insert(table, all);
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_decides_as_the_worker_does_and_leaves_no_trace() {
    let _stack = stack::shared().await;
    let world = World::waitlist("shadow").await;
    world.launch().await;
    world.sign_up_five().await;
    let before = everything(&world.pool).await;
    let words = "run --shadow --from-beginning --only email --limit 5 --output json";
    let words: Vec<&str> = words.split(' ').collect();
    let (code, lines, said) = world.said(&words, ("AFTERWRITE__SMTP__PORT", "1")).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("in the shadow: email decide about"), "{said}");
    let decisions: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let would_call: BTreeSet<String> = decisions
        .iter()
        .flat_map(|decision| decision["calls"].as_array().unwrap())
        .map(|call| call.as_str().unwrap().to_owned())
        .collect();
    assert_eq!(would_call.len(), 5, "{lines}");
    for decision in &decisions {
        assert_eq!(
            (&decision["decision"], &decision["table"]),
            (&"done".into(), &"waitlist_users".into()),
            "{lines}"
        );
        assert!(
            decision["event_id"].is_string() && decision["key"]["id"].is_string(),
            "{decision}"
        );
        assert_eq!(
            decision["rows"],
            serde_json::json!([{"table": "public.email_log", "inserted": 1, "updated": 1, "deleted": 0}])
        );
    }
    assert_eq!(everything(&world.pool).await, before, "the shadow wrote");
    assert!(caught(&world).is_empty(), "the shadow sent");
    assert!(
        !producer::exists(&format!("{}.dlq", world.group_of("email"))),
        "the shadow made a topic"
    );
    assert_eq!(
        producer::committed(
            &world.group_of("email"),
            &format!("{}.public.waitlist_users", world.name)
        ),
        None
    );

    let worker = Worker::waitlist(&world, "w", &[]);
    until("the mails of the worker", Duration::from_secs(60), async || {
        let sent = "SELECT count(*) FROM email_log WHERE status = 'sent'";
        (world.count(sent).await == 5).then_some(())
    })
    .await;
    worker.stop().await;
    let called: Vec<String> = sqlx::query_scalar("SELECT effect_key FROM afterwrite.effects WHERE handler = 'email'")
        .fetch_all(&world.pool)
        .await
        .unwrap();
    assert_eq!(would_call, called.into_iter().collect());

    // What the worker has done needs no decision any more.
    let (_, lines, _) = world.said(&words, ("AFTERWRITE__SMTP__PORT", "1")).await;
    let nothing_left = r#""decision":"done","calls":[],"rows":[]"#;
    assert_eq!(lines.matches(nothing_left).count(), 5, "{lines}");
    println!("{}: 5 mails decided, none sent; the worker sent the same 5", world.name);
    world.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_stays_of_a_session_whatever_becomes_of_it() {
    let _stack = stack::shared().await;
    let world = World::bare("session").await;
    let session = Session::new(&world.url().parse().unwrap(), Duration::from_secs(10));
    let write = "INSERT INTO mended SELECT count(*) FROM mended";
    for _ in 0..2 {
        let before = session.begin().await.unwrap();
        sqlx::query(write).execute(session.pool()).await.unwrap();
        let mut committed = session.pool().begin().await.unwrap();
        sqlx::query(write).execute(&mut *committed).await.unwrap();
        committed.commit().await.unwrap();
        let seen: i64 = sqlx::query_scalar("SELECT count(*) FROM mended")
            .fetch_one(session.pool())
            .await
            .unwrap();
        assert_eq!(seen, 2, "an attempt sees what it wrote, and nothing of those before it");
        let rows = Rows {
            table: "public.mended".to_owned(),
            inserted: 2,
            updated: 0,
            deleted: 0,
        };
        assert_eq!(session.written(&before).await.unwrap(), [rows]);
        session.take_back().await.unwrap();
    }

    session.begin().await.unwrap();
    let its_own: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
        .fetch_one(session.pool())
        .await
        .unwrap();
    sqlx::query("SELECT pg_terminate_backend($1)")
        .bind(its_own)
        .execute(&world.pool)
        .await
        .unwrap();
    let refused = until(
        "another connection",
        Duration::from_secs(10),
        async || match sqlx::query(write).execute(session.pool()).await {
            Ok(_) => panic!("a connection made in the middle of an attempt writes"),
            Err(sqlx::Error::Database(error)) => {
                error.code().filter(|code| code == "25006").map(|code| code.to_string())
            }
            Err(_) => None,
        },
    )
    .await;
    assert_eq!(refused, "25006");
    assert!(
        session.pool().begin().await.is_err(),
        "there is nothing to make a savepoint in"
    );
    session.begin().await.unwrap();
    sqlx::query(write).execute(session.pool()).await.unwrap();
    session.take_back().await.unwrap();
    assert_eq!(world.count("SELECT count(*) FROM mended").await, 0);
    println!("{}: 3 attempts, one of them cut off, no row", world.name);
    session.pool().close().await;
    world.remove().await;
}
