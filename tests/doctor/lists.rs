//! What is broken.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::breaking::Do::{
    Apply, Ask, DeleteTopic, DropSlot, DropSlots, ForgetGroup, MakeTopic, Patch, Request, Sql, Start, Stop, Topic, Twin,
};
use crate::breaking::Mend::{AsPrinted, AsPrintedThen, AsPrintedTwice, AskedAgain, By, Followed};
use crate::breaking::{Line, break_and_mend, silence};
use crate::installation::{Installation, execute};

/// Roles and settings are the server's, so one installation at a time is broken.
static STACK: Mutex<()> = Mutex::const_new(());

const NO_PROBE: &[&str] = &["--no-probe"];

/// Nobody listens there.
const NOWHERE: &str = "127.0.0.1:1";

const USERS: &str = "{}.public.waitlist_users";

#[rustfmt::skip]
const IN_POSTGRES: &[Line] = &[
    ("publication-tables", Sql("ALTER PUBLICATION afterwrite_waitlist DROP TABLE public.referrals"), AsPrinted),
    ("publication-operations", Sql("ALTER PUBLICATION afterwrite_waitlist SET (publish = 'insert, update')"), AsPrinted),
    ("publication-filter", Sql("ALTER PUBLICATION afterwrite_waitlist DROP TABLE public.rewards;
        ALTER PUBLICATION afterwrite_waitlist ADD TABLE public.rewards WHERE (status = 'active')"), AsPrinted),
    ("identity-part", Sql("ALTER TABLE public.referrals REPLICA IDENTITY DEFAULT"), AsPrinted),
    ("identity-none", Sql("ALTER TABLE public.rewards REPLICA IDENTITY NOTHING"), AsPrinted),
    ("names", Sql("ALTER TABLE public.email_templates RENAME COLUMN enabled TO is_on"),
        By(Sql("ALTER TABLE public.email_templates RENAME COLUMN is_on TO enabled"))),
    ("names", Sql("ALTER TABLE public.ip_safelist RENAME TO office_networks"),
        By(Sql("ALTER TABLE public.office_networks RENAME TO ip_safelist"))),
    ("connector-grants", Sql("REVOKE SELECT ON public.waitlist_users FROM debezium"), AsPrinted),
    ("connector-grants", Sql("REVOKE INSERT, UPDATE ON afterwrite.heartbeat FROM debezium"), AsPrinted),
    ("connector-grants", Sql("REVOKE USAGE ON SCHEMA afterwrite FROM debezium"), AsPrinted),
    ("worker-grants", Sql("REVOKE INSERT ON public.user_rewards FROM afterwrite_worker"), AsPrinted),
    ("worker-grants", Sql("REVOKE UPDATE (status) ON public.webhooks FROM afterwrite_worker"), AsPrinted),
    ("worker-grants", Sql("REVOKE SELECT ON public.campaigns FROM afterwrite_worker"), AsPrinted),
    ("worker-grants", Sql("REVOKE USAGE ON SCHEMA afterwrite FROM afterwrite_worker"), AsPrinted),
    ("reader-attributes", Sql("ALTER ROLE debezium NOREPLICATION"), AsPrinted),
    ("ledger-owner", Sql("ALTER TABLE afterwrite.ledger OWNER TO CURRENT_USER"), AsPrinted),
    ("heartbeat-missing", Sql("DROP TABLE afterwrite.heartbeat"), AsPrinted),
    ("migrations", Sql("UPDATE afterwrite.migrations SET success = false WHERE version = 15"),
        By(Sql("UPDATE afterwrite.migrations SET success = true WHERE version = 15"))),
    ("migrations-newer", Sql("INSERT INTO afterwrite.migrations SELECT 9999, description, installed_on, success, checksum, execution_time
        FROM afterwrite.migrations WHERE version = 1"), By(Sql("DELETE FROM afterwrite.migrations WHERE version = 9999"))),
    ("ledger-tomorrow", Sql("DO $$ BEGIN EXECUTE 'DROP TABLE afterwrite.ledger_'
        || to_char((now() AT TIME ZONE 'UTC')::date + 1, 'YYYYMMDD'); END $$"), AsPrinted),
    ("keep-unlimited", Sql("ALTER SYSTEM SET max_slot_wal_keep_size = -1; SELECT pg_reload_conf()"), AsPrinted),
    ("source-differs", Sql("UPDATE afterwrite.sources SET source = 'wal' WHERE group_name = '{}.fraud'"),
        By(Sql("UPDATE afterwrite.sources SET source = 'kafka' WHERE group_name = '{}.fraud'"))),
    ("letters-open", Sql("INSERT INTO afterwrite.letters (letter_id, group_name, handler, class, error, attempts, first_failed_at, failed_at,
        source_topic, source_partition, source_offset) VALUES ('l', '{}.email', 'email', 'permanent', 'no', 1, now(), now(), 't', 0, 0)"),
        By(Sql("DELETE FROM afterwrite.letters"))),
    // What processes tell, of another machine; this one's own goes on beside it.
    ("process-gone", Sql("INSERT INTO afterwrite.workers (owner, group_name, host, pid, version, seen_at, standing)
        VALUES (gen_random_uuid(), '{}.email', 'elsewhere', 1, '0', now() - interval '2 minutes', '{ }')"),
        By(Sql("DELETE FROM afterwrite.workers WHERE host = 'elsewhere'"))),
    ("handler-suspended", Sql(r#"INSERT INTO afterwrite.workers (owner, group_name, host, pid, version, standing)
        SELECT owner, group_name, 'elsewhere', pid, version, jsonb_set(standing, '{suspended}',
            '[{"handler": "email", "since": "2026-01-01T00:00:00Z", "why": "outage"}]')
        FROM (SELECT gen_random_uuid() AS owner, group_name, pid, version, standing FROM afterwrite.workers
              WHERE group_name LIKE '%.email' LIMIT 1) AS worker"#),
        By(Sql("DELETE FROM afterwrite.workers WHERE host = 'elsewhere'"))),
];

#[rustfmt::skip]
const IN_CONNECT: &[Line] = &[
    ("connector-paused", Request("PUT", "/pause"), AsPrinted),
    ("connector-stopped", Request("PUT", "/stop"), AsPrinted),
    ("connector-failed", Patch(r#"{"topic.creation.default.replication.factor": "${env:DEBEZIUM_NOBODY_SETS_THIS}"}"#),
        By(Patch(r#"{"topic.creation.default.replication.factor": "1"}"#))),
    ("connector-twice", Twin, AsPrinted),
    ("lint-snapshot", Patch(r#"{"snapshot.mode": "when_needed"}"#), AsPrinted),
    ("lint-skipped", Patch(r#"{"skipped.operations": "d"}"#), AsPrinted),
    ("lint-converting", Patch(r#"{"event.converting.failure.handling.mode": "warn"}"#), AsPrinted),
    ("lint-nulls", Patch(r#"{"value.converter.replace.null.with.default": "true"}"#), AsPrinted),
    ("lint-heartbeat", Patch(r#"{"heartbeat.interval.ms": "0"}"#), AsPrintedThen(Patch(r#"{"heartbeat.interval.ms": "300000"}"#))),
    ("lint-columns", Patch(r#"{"column.exclude.list": "public\\.email_log\\.recipient"}"#), AsPrinted),
    ("lint-tables", Patch(r#"{"table.include.list": "public\\.waitlist_users,afterwrite\\.heartbeat"}"#), AsPrinted),
    ("lint-tombstones", Patch(r#"{"tombstones.on.delete": "true"}"#), AsPrinted),
    ("lint-slot-drop", Patch(r#"{"slot.drop.on.stop": "true"}"#), AsPrintedTwice("slot-missing")),
    ("connector-database", Patch(r#"{"database.dbname": "postgres"}"#), By(Patch(r#"{"database.dbname": "{}"}"#))),
    ("connector-missing", Request("DELETE", ""), By(Apply)),
    ("slot-missing", DropSlot, AsPrinted),
];

#[rustfmt::skip]
const IN_KAFKA: &[Line] = &[
    ("topic-compacted", Topic(USERS, "cleanup.policy", "compact"), AsPrinted),
    ("topic-retention", Topic(USERS, "retention.ms", "3600000"), AsPrinted),
    ("topic-small", Topic(USERS, "max.message.bytes", "1000000"), AsPrinted),
    ("topic-insync", Topic(USERS, "min.insync.replicas", "2"), AsPrinted),
    ("topic-partitions", MakeTopic("{}.public.reward_rounds"), AsPrinted),
    ("letters-topic-missing", DeleteTopic("{}.fraud.dlq"), AsPrinted),
    ("letters-topic-unfit", Topic("{}.email.dlq", "cleanup.policy", "compact"), AsPrinted),
    ("letters-topic-unfit", Topic("{}.email.dlq", "max.message.bytes", "1000000"), AsPrinted),
    ("letters-retention", Topic("{}.email.dlq", "retention.ms", "86400000"), AsPrinted),
    ("group-idle", Stop, By(Start)),
    ("group-position", ForgetGroup("{}.fraud"), AsPrintedThen(Start)),
];

/// What is away, or otherwise than the doctor is told.
#[rustfmt::skip]
const AWAY: &[Line] = &[
    ("postgres-unreachable", Ask(&[("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none")]), AskedAgain),
    ("connect-unreachable", Ask(&[("CONNECT_URL", "http://127.0.0.1:1")]), AskedAgain),
    ("kafka-unreachable", Ask(&[("KAFKA_BROKERS", NOWHERE)]), AskedAgain),
    ("mail-server-unreachable", Ask(&[("AFTERWRITE__SMTP__PORT", "1"), ("SMTP_PORT", "1")]), AskedAgain),
    ("registry-unreachable", Ask(&[("AFTERWRITE__SOURCE__FORMAT", "avro"), ("AFTERWRITE__REGISTRY__URL", "http://127.0.0.1:1")]), AskedAgain),
    ("prefix-differs", Ask(&[("AFTERWRITE__SOURCE__NAME", "another")]), AskedAgain),
    ("lint-modes", Ask(&[("AFTERWRITE__SOURCE__DECIMAL", "double")]), AskedAgain),
];

/// What only a row that is sent all the way shows.
#[rustfmt::skip]
const PROBED: &[Line] = &[
    ("probe-lost", Patch(r#"{"table.include.list": "public\\.waitlist_users"}"#), By(Apply)),
    ("probe-unwritable", Sql("REVOKE INSERT, UPDATE ON afterwrite.heartbeat FROM afterwrite_worker"),
        By(Sql("GRANT INSERT, UPDATE ON afterwrite.heartbeat TO afterwrite_worker"))),
    ("probe-undecodable", Ask(&[("AFTERWRITE__SOURCE__FORMAT", "avro")]), AskedAgain),
];

/// What is written while there is no publication cannot be decoded when there is one again, so one remedy leads to the next.
#[rustfmt::skip]
const AT_LAST: &[Line] = &[
    ("publication-missing", Sql("DROP PUBLICATION afterwrite_waitlist; INSERT INTO ip_safelist (campaign_id, range)
        SELECT id, '10.0.0.0/8' FROM campaigns"), Followed),
];

#[tokio::test(flavor = "multi_thread")]
async fn each_cause_is_named_and_its_remedy_mends_it() {
    let _stack = STACK.lock().await;
    let mut installation = Installation::new("kafka").await;
    installation.deploy().await;
    installation.start();
    installation.sign_up().await;
    let healthy = silence(&installation, "a healthy installation", &[]).await;
    let trip = &healthy.report["probe"];
    assert!(
        trip["total_ms"].as_u64().unwrap() > 0 && trip["legs"].as_array().unwrap().len() == 3,
        "{trip}"
    );
    println!(
        "{}: a healthy installation is silent; the probe: {trip}",
        installation.name
    );

    let began = Instant::now();
    let mut count = 0;
    let lists = [
        (IN_POSTGRES, NO_PROBE),
        (IN_CONNECT, NO_PROBE),
        (IN_KAFKA, NO_PROBE),
        (AWAY, NO_PROBE),
        (PROBED, &[]),
        (AT_LAST, NO_PROBE),
    ];
    for (list, words) in lists {
        for line in list {
            let began = Instant::now();
            break_and_mend(&mut installation, *line, words).await;
            println!(
                "{}: {} named and mended in {} ms",
                installation.name,
                line.0,
                began.elapsed().as_millis()
            );
            count += 1;
        }
    }
    println!(
        "{}: {count} things broken, named and mended in {} s",
        installation.name,
        began.elapsed().as_secs()
    );
    assert!(count >= 30);
    // After all of that the way is whole.
    let mended = silence(&installation, "the end", &[]).await;
    assert!(mended.report["probe"].is_object(), "{}", mended.report);
    restore(&installation).await;
    installation.remove().await;
}

/// What belongs to the stack, and not to the installation.
async fn restore(installation: &Installation) {
    let reset = "ALTER SYSTEM RESET max_slot_wal_keep_size; SELECT pg_reload_conf()";
    execute(&installation.owner, reset).await;
}

#[rustfmt::skip]
const WITHOUT_KAFKA: &[Line] = &[
    ("publication-tables", Sql("ALTER PUBLICATION afterwrite_waitlist DROP TABLE public.referrals"), AsPrinted),
    ("reader-attributes", Sql("ALTER ROLE debezium NOREPLICATION"), AsPrinted),
    ("worker-grants", Sql("REVOKE SELECT ON public.campaigns FROM afterwrite_worker"), AsPrinted),
    ("group-idle", Stop, By(Start)),
    ("group-slot-gone", DropSlots, AsPrintedThen(Start)),
    ("source-differs", Ask(&[("AFTERWRITE__SOURCE__KIND", "kafka")]), AskedAgain),
];

#[tokio::test(flavor = "multi_thread")]
async fn where_the_log_is_read_without_kafka_only_its_legs_are_looked_at() {
    let _stack = STACK.lock().await;
    let mut installation = Installation::new("wal").await;
    installation.start();
    silence(&installation, "the groups to run", NO_PROBE).await;
    installation.sign_up().await;
    let healthy = silence(&installation, "a healthy installation", &[]).await;
    let trip = &healthy.report["probe"];
    assert_eq!(trip["legs"].as_array().unwrap().len(), 2, "{}", healthy.report);
    println!("{}: the probe: {trip}", installation.name);
    for line in WITHOUT_KAFKA {
        break_and_mend(&mut installation, *line, NO_PROBE).await;
    }
    installation.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_answers_the_doctor_says_so_within_half_a_minute() {
    let _stack = STACK.lock().await;
    let installation = Installation::new("kafka").await;
    let began = Instant::now();
    // Packets to this address are answered by nobody (RFC 5737).
    let silent = [
        ("DATABASE_URL", "postgres://nobody@192.0.2.1:5432/none"),
        ("CONNECT_URL", "http://192.0.2.1:8083"),
        ("KAFKA_BROKERS", "192.0.2.1:9092"),
        ("AFTERWRITE__SMTP__HOST", "192.0.2.1"),
        ("SMTP_HOST", "192.0.2.1"),
        (
            "AFTERWRITE__WAITLIST__SECRET",
            "a secret for a database that is elsewhere",
        ),
    ];
    let said = installation.doctor(&[], &silent).await;
    let took = began.elapsed();
    println!("nothing answers: {took:?}");
    assert_eq!(said.code, 3);
    assert_eq!(
        said.codes(),
        [
            "postgres-unreachable",
            "connect-unreachable",
            "kafka-unreachable",
            "mail-server-unreachable"
        ]
    );
    assert!(took < Duration::from_secs(30), "{took:?}");
    assert!(
        said.report["unchecked"].as_array().unwrap().len() >= 3,
        "{}",
        said.report
    );
    installation.remove().await;
}
