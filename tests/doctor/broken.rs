//! What is broken, and what mends it: one list for each installation and way of asking.

use crate::breaking::Do::{
    Apply, Capture, DeleteTopic, DropSlot, DropSlots, Each, ForgetGroup, Level, MakeTopic, NoSenders, Open, Patch,
    Released, Request, Restart, Send, Senders, Settled, Smuggle, Sql, Start, Stop, StopConnector, Topic, Twin, Write,
};
use crate::breaking::Mend::{AsPrinted, AsPrintedThen, AsPrintedTwice, By, Followed};
use crate::breaking::{Id, Line, Together};

const USERS: &str = "{}.public.waitlist_users";

/// Of the application's database, where the log is read without Kafka, on a server of its own.
#[rustfmt::skip]
pub(crate) const IN_POSTGRES: &[Line] = &[
    ("publication-tables", Sql("ALTER PUBLICATION afterwrite_waitlist DROP TABLE public.referrals"), AsPrinted),
    ("publication-operations", Sql("ALTER PUBLICATION afterwrite_waitlist SET (publish = 'insert, update')"), AsPrinted),
    ("publication-filter", Sql("ALTER PUBLICATION afterwrite_waitlist DROP TABLE public.rewards;
        ALTER PUBLICATION afterwrite_waitlist ADD TABLE public.rewards WHERE (status = 'active')"), AsPrinted),
    ("publication-filter", Sql("ALTER PUBLICATION afterwrite_waitlist DROP TABLE public.rewards;
        ALTER PUBLICATION afterwrite_waitlist ADD TABLE public.rewards (id, campaign_id)"), AsPrinted),
    ("identity-part", Sql("ALTER TABLE public.referrals REPLICA IDENTITY DEFAULT"), AsPrinted),
    ("identity-none", Sql("ALTER TABLE public.rewards REPLICA IDENTITY NOTHING"), AsPrinted),
    ("names", Sql("ALTER TABLE public.email_templates RENAME COLUMN enabled TO is_on"),
        By(Sql("ALTER TABLE public.email_templates RENAME COLUMN is_on TO enabled"))),
    ("names", Sql("ALTER TABLE public.ip_safelist RENAME TO office_networks"),
        By(Sql("ALTER TABLE public.office_networks RENAME TO ip_safelist"))),
    ("columns-alike", Sql("ALTER TABLE public.referrals ADD COLUMN \"Status\" text"),
        By(Sql("ALTER TABLE public.referrals DROP COLUMN \"Status\""))),
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
    // A group that runs ends when it notices.
    ("source-differs", Each(&[Stop, Sql("UPDATE afterwrite.sources SET source = 'kafka' WHERE group_name = '{}.fraud'")]),
        By(Each(&[Sql("UPDATE afterwrite.sources SET source = 'wal' WHERE group_name = '{}.fraud'"), Start]))),
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

/// Of the whole server. A slot of a group stands still while its worker is stopped.
#[rustfmt::skip]
pub(crate) const OF_THE_SERVER: &[Line] = &[
    ("keep-unlimited", Sql("ALTER SYSTEM SET max_slot_wal_keep_size = -1; SELECT pg_reload_conf()"), AsPrinted),
    ("slots-full", Sql("SELECT pg_create_physical_replication_slot('full_' || number) FROM generate_series(
        (SELECT count(*) FROM pg_replication_slots) + 1, current_setting('max_replication_slots')::int) AS number"),
        By(Sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name LIKE 'full_%'"))),
    ("senders-full", Senders, By(NoSenders)),
    ("standby", Each(&[Stop, Sql("DO $$ BEGIN EXECUTE format('COPY (SELECT) TO %L',
        current_setting('data_directory') || '/standby.signal'); END $$"), Restart("")]), By(Each(&[Sql("SELECT pg_promote()"), Start]))),
    ("group-idle", Stop, By(Start)),
    // All that may be kept is kept but for the rest of one segment of 16 MB.
    ("slot-danger", Each(&[Stop, Restart("ALTER SYSTEM SET max_slot_wal_keep_size = '160MB'"), Sql(TEN_SEGMENTS)]), AsPrintedThen(Start)),
    ("slot-lost", Each(&[Stop, Restart("ALTER SYSTEM SET max_slot_wal_keep_size = '16MB'"), Sql(TEN_SEGMENTS), Sql("CHECKPOINT")]),
        AsPrintedThen(Each(&[Restart("ALTER SYSTEM RESET max_slot_wal_keep_size"), Start]))),
];

#[rustfmt::skip]
pub(crate) const OF_THE_SERVER_TOGETHER: &[Together] = &[
    // With that level the server does not start as long as there are slots.
    (Each(&[DropSlots, Restart("ALTER SYSTEM SET wal_level = 'replica'")]), &[
        ("wal-level", By(Restart("ALTER SYSTEM RESET wal_level"))),
        ("group-slot-gone", AsPrintedThen(Start)),
    ]),
    // More than a gigabyte of log, most of which is never written: the rest of a segment is left empty.
    (Each(&[Sql("SELECT pg_create_logical_replication_slot('hoards', 'pgoutput')"), Open("CREATE TABLE public.held (i int)"),
        Sql(GIGABYTE), Sql("CHECKPOINT")]), &[
        ("slot-hoards", AsPrinted),
        ("slot-held", AsPrintedThen(Released)),
    ]),
];

const TEN_SEGMENTS: &str = "DO $$ BEGIN FOR number IN 1..10 LOOP
    PERFORM pg_logical_emit_message(false, '', ''); PERFORM pg_switch_wal(); END LOOP; END $$";

const GIGABYTE: &str = "SET wal_init_zero = off; DO $$ BEGIN FOR number IN 1..66 LOOP
    PERFORM pg_logical_emit_message(false, '', ''); PERFORM pg_switch_wal(); END LOOP; END $$";

/// What one change of the connector breaks while it is stopped, so that one start mends all of it.
#[rustfmt::skip]
pub(crate) const IN_CONNECT_TOGETHER: &[Together] = &[
    (Each(&[StopConnector, Twin, Patch(r#"{"snapshot.mode": "when_needed", "skipped.operations": "d",
        "event.converting.failure.handling.mode": "warn", "value.converter.replace.null.with.default": "true",
        "heartbeat.interval.ms": "0", "column.exclude.list": "public\\.email_log\\.recipient",
        "table.include.list": "public\\.waitlist_users,afterwrite\\.heartbeat", "tombstones.on.delete": "true",
        "field.name.adjustment.mode": "avro_unicode"}"#)]), &[
        ("connector-twice", AsPrinted),
        ("lint-snapshot", AsPrinted),
        ("lint-skipped", AsPrinted),
        ("lint-converting", AsPrinted),
        ("lint-nulls", AsPrinted),
        ("lint-heartbeat", AsPrintedThen(Patch(r#"{"heartbeat.interval.ms": "300000"}"#))),
        ("lint-columns", AsPrinted),
        ("lint-tables", AsPrinted),
        ("lint-tombstones", AsPrinted),
        ("lint-escapes", AsPrinted),
        ("connector-stopped", AsPrinted),
    ]),
    (Each(&[StopConnector, Patch(r#"{"database.dbname": "postgres"}"#)]), &[
        ("connector-database", By(Patch(r#"{"database.dbname": "{}"}"#))),
        ("connector-stopped", AsPrinted),
    ]),
    // A slot that somebody made in its place, with an option that Debezium does not know.
    (Each(&[Capture, DropSlot, Sql("SELECT pg_create_logical_replication_slot('{}', 'pgoutput', false, true)")]), &[
        ("offset-gap", AsPrinted),
        ("slot-two-phase", AsPrinted),
    ]),
];

#[rustfmt::skip]
pub(crate) const IN_CONNECT: &[Line] = &[
    // Without a note it would begin with a new slot, as if nothing had been there.
    ("lint-slot-drop", Each(&[Capture, Patch(r#"{"slot.drop.on.stop": "true"}"#)]), AsPrintedTwice("slot-missing")),
    ("connector-paused", Request("PUT", "/pause"), AsPrinted),
    ("connector-failed", Patch(r#"{"topic.creation.default.replication.factor": "${env:DEBEZIUM_NOBODY_SETS_THIS}"}"#),
        By(Patch(r#"{"topic.creation.default.replication.factor": "1"}"#))),
    ("prefix-differs", Each(&[StopConnector, Patch(r#"{"topic.prefix": "{}_other"}"#)]),
        By(Each(&[Patch(r#"{"topic.prefix": "{}"}"#), Request("PUT", "/resume")]))),
    // As it is after the database was set back to what it was.
    ("offset-ahead", Each(&[StopConnector, Send("PATCH", "/offsets",
        r#"{"offsets": [{"partition": {"server": "{}"}, "offset": {"lsn": 1099511627776, "txId": 1, "ts_usec": 1}}]}"#)]), AsPrinted),
    ("exactly-once-off", Smuggle("exactly.once.support", "required"), By(Patch(r#"{"exactly.once.support": null}"#))),
    ("slot-missing", DropSlot, AsPrinted),
];

/// Which connector it is has to be said: another one that is the only one left would be taken for it.
pub(crate) const CONNECTOR_GONE: &[Line] = &[("connector-missing", Request("DELETE", ""), By(Apply))];

#[rustfmt::skip]
pub(crate) const IN_KAFKA_TOGETHER: &[Together] = &[
    (Each(&[Topic(USERS, "cleanup.policy", "compact"), Topic(USERS, "retention.ms", "3600000"),
        Topic(USERS, "max.message.bytes", "1000000"), Topic(USERS, "min.insync.replicas", "2"),
        MakeTopic("{}.public.reward_rounds"), DeleteTopic("{}.fraud.dlq"),
        Topic("{}.email.dlq", "retention.ms", "86400000"), Topic("{}.email.dlq", "cleanup.policy", "compact")]), &[
        ("topic-compacted", AsPrinted),
        ("topic-retention", AsPrinted),
        ("topic-small", AsPrinted),
        ("topic-insync", AsPrinted),
        ("topic-partitions", AsPrinted),
        ("letters-topic-missing", AsPrinted),
        ("letters-topic-unfit", AsPrinted),
        ("letters-retention", AsPrinted),
    ]),
];

#[rustfmt::skip]
pub(crate) const IN_KAFKA: &[Line] = &[
    ("letters-topic-unfit", Topic("{}.email.dlq", "max.message.bytes", "1000000"), AsPrinted),
    ("group-idle", Stop, By(Start)),
    ("group-position", ForgetGroup("{}.fraud"), AsPrintedThen(Start)),
    ("connector-grants", Sql("REVOKE SELECT ON public.waitlist_users FROM debezium"), AsPrinted),
    ("connector-grants", Sql("REVOKE INSERT, UPDATE ON afterwrite.heartbeat FROM debezium"), AsPrinted),
    ("connector-grants", Sql("REVOKE USAGE ON SCHEMA afterwrite FROM debezium"), AsPrinted),
    // What is written while there is no publication cannot be decoded when there is one again, so one remedy leads to the next.
    ("publication-missing", Sql("DROP PUBLICATION afterwrite_waitlist; INSERT INTO ip_safelist (campaign_id, range)
        SELECT id, '10.0.0.0/8' FROM campaigns"), Followed),
];

/// With Apicurio's Avro converter.
#[rustfmt::skip]
pub(crate) const IN_AVRO: &[Together] = &[
    (Each(&[StopConnector, Patch(r#"{"decimal.handling.mode": "precise", "value.converter.apicurio.registry.find-latest": "true",
        "value.converter.apicurio.registry.dereference-schema": "false", "value.converter.apicurio.registry.headers.enabled": "true"}"#),
        Sql(r#"ALTER TABLE public.campaigns DROP COLUMN name;
            ALTER TABLE public.campaigns ADD COLUMN name text GENERATED ALWAYS AS (upper(slug)) STORED;
            ALTER TABLE public.referrals ADD COLUMN "a-b" text, ADD COLUMN "a b" text;
            ALTER TABLE public.rewards ADD COLUMN price numeric, ADD COLUMN marks bit(3)[], ADD COLUMN note text DEFAULT 'none'"#),
        Level("{}.public.waitlist_users-value", "FULL")]), &[
        ("columns-absent", AsPrinted),
        ("columns-collide", By(Sql(r#"ALTER TABLE public.referrals DROP COLUMN "a-b", DROP COLUMN "a b""#))),
        ("values-unfit", AsPrinted),
        ("nullable-defaults", AsPrinted),
        ("lint-latest", AsPrinted),
        ("lint-references", AsPrinted),
        ("lint-wire", AsPrinted),
        ("registry-compatibility", AsPrinted),
        ("connector-stopped", AsPrinted),
    ]),
];

/// Records that are not written as the converter writes them. Each group that reads them has a letter of it; then the converter's
/// own are newer.
#[rustfmt::skip]
pub(crate) const SAMPLED: &[Together] = &[
    (Each(&[Write("{}.public.email_log", Id::Nobodys), Write("{}.public.campaigns", Id::Of("{}.public.email_log-value")),
        Write(USERS, Id::InHeaders)]), &[
        ("schema-unknown", By(Each(&[Settled(7), Sql("UPDATE campaigns SET name = name; UPDATE waitlist_users SET first_name = first_name;
            UPDATE email_log SET status = status")]))),
        ("schema-foreign", AsPrinted),
        ("schema-id-unread", AsPrinted),
    ]),
];

/// A column that handlers read, when they are told that it is called so, and that events have under another name.
pub(crate) const ODD_COLUMN: &str = r#"ALTER TABLE public.waitlist_users ADD COLUMN "given-name" text"#;

/// What is away, or otherwise than the doctor is told.
#[rustfmt::skip]
pub(crate) const OTHERWISE: &[(&str, &[(&str, &str)])] = &[
    ("postgres-unreachable", &[("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none")]),
    ("connect-unreachable", &[("CONNECT_URL", "http://127.0.0.1:1")]),
    ("kafka-unreachable", &[("KAFKA_BROKERS", "127.0.0.1:1")]),
    ("mail-server-unreachable", &[("AFTERWRITE__SMTP__PORT", "1"), ("SMTP_PORT", "1")]),
    ("registry-unreachable", &[("AFTERWRITE__REGISTRY__URL", "http://127.0.0.1:1")]),
    ("source-differs", &[("AFTERWRITE__SOURCE__KIND", "wal")]),
    ("columns-renamed", &[("AFTERWRITE__WAITLIST__TABLES__WAITLIST_USERS__COLUMNS__FIRST_NAME", "given-name")]),
];

/// The same, of a connector that writes JSON.
#[rustfmt::skip]
pub(crate) const OTHERWISE_IN_JSON: &[(&str, &[(&str, &str)])] = &[
    ("lint-modes", &[("AFTERWRITE__SOURCE__DECIMAL", "double")]),
    ("registry-unreachable", &[("AFTERWRITE__SOURCE__FORMAT", "avro"), ("AFTERWRITE__REGISTRY__URL", "http://127.0.0.1:1")]),
];

/// What only a row that is sent all the way shows.
#[rustfmt::skip]
pub(crate) const PROBED: &[Line] = &[
    ("probe-unwritable", Sql("REVOKE INSERT, UPDATE ON afterwrite.heartbeat FROM afterwrite_worker"),
        By(Sql("GRANT INSERT, UPDATE ON afterwrite.heartbeat TO afterwrite_worker"))),
    ("probe-lost", Patch(r#"{"table.include.list": "public\\.waitlist_users"}"#), By(Apply)),
];

/// A row that arrives in another encoding than it is read in.
pub(crate) const PROBED_OTHERWISE: &[(&str, &[(&str, &str)])] =
    &[("probe-undecodable", &[("AFTERWRITE__SOURCE__FORMAT", "avro")])];
