//! Where changes come from and where the services are.

use super::{Described, Section};

pub(super) const SECTIONS: [Section; 7] = [
    Section {
        name: "source",
        about: "Where changes come from and how they are encoded.",
        settings: &[
            Described {
                key: "kind",
                about: "What kind of source: kafka, wal. A group that has read one does not start with the other: \
                        `afterwrite graduate` moves groups from the log to Kafka.",
                example: None,
            },
            Described {
                key: "name",
                about: "The connector's topic.prefix: the first part of every topic.",
                example: None,
            },
            Described {
                key: "format",
                about: "How records are encoded: auto (seen from the bytes of each key and value), json, \
                        json_schema, avro.",
                example: None,
            },
            Described {
                key: "key_format",
                about: "How keys are encoded, where that is another way.",
                example: Some(r#""json""#),
            },
            Described {
                key: "signal_tables",
                about: "Tables whose rows only steer the connector; * stands for any text.",
                example: None,
            },
            Described {
                key: "full_identity",
                about: "Tables with REPLICA IDENTITY FULL, whose old rows are whole; * stands for any text. \
                        Without it the database is asked at start: set it only where events are still to be read \
                        from before a table's identity was changed.",
                example: Some(r#"["public.*"]"#),
            },
            Described {
                key: "unavailable_placeholder",
                about: "The connector's unavailable.value.placeholder.",
                example: None,
            },
            Described {
                key: "heartbeat_prefix",
                about: "The connector's topic.heartbeat.prefix.",
                example: None,
            },
            Described {
                key: "heartbeat_topic",
                about: "The connector's topic.heartbeat.name, where it has one.",
                example: Some(r#""heartbeats""#),
            },
            Described {
                key: "decimal",
                about: "The connector's modes, needed where the encoding carries no types (JSON without schema). \
                        decimal.handling.mode: precise, double, string.",
                example: None,
            },
            Described {
                key: "time_precision",
                about: "time.precision.mode: adaptive, adaptive_time_microseconds, connect, isostring, \
                        microseconds, nanoseconds, structured.",
                example: None,
            },
            Described {
                key: "interval",
                about: "interval.handling.mode: numeric, string.",
                example: None,
            },
            Described {
                key: "binary",
                about: "binary.handling.mode: bytes, base64, base64-url-safe, hex.",
                example: None,
            },
        ],
    },
    Section {
        name: "postgres",
        about: "The database of the application; the worker keeps its own state there too, in schema afterwrite.",
        settings: &[
            Described {
                key: "url",
                about: "postgres://user:password@host:port/database?sslmode=verify-full.",
                example: None,
            },
            Described {
                key: "connect_timeout_ms",
                about: "How long opening a connection may take.",
                example: None,
            },
        ],
    },
    Section {
        name: "wal",
        about: "The write-ahead log, where source.kind is wal: no Kafka and no connector. Each group reads it \
                through a replication slot of its own, called as the group is (afterwrite.email: \
                afterwrite_email).",
        settings: &[
            Described {
                key: "url",
                about: "The same database for a role that may replicate; postgres.url when not set.",
                example: Some(
                    r#""postgres://afterwrite_wal:${file:/run/secrets/wal_password}@localhost:5432/waitlist""#,
                ),
            },
            Described {
                key: "publication",
                about: "The publication that says which tables' changes are sent; it is checked, and never \
                        changed.",
                example: None,
            },
            Described {
                key: "excluded_columns",
                about: "Columns that are left out of events: what the connector's column.exclude.list names.",
                example: None,
            },
            Described {
                key: "slot_lag_bytes_max",
                about: "While more log than this is written and not confirmed by a group, its jobs that wait are \
                        parked as letters, so that an outage fills no disk; they are released by themselves. \
                        Below max_slot_wal_keep_size; 0 switches it off.",
                example: None,
            },
        ],
    },
    Section {
        name: "kafka",
        about: "The brokers and the consumer groups.",
        settings: &[
            Described {
                key: "brokers",
                about: "host:port, several separated by commas.",
                example: None,
            },
            Described {
                key: "group_prefix",
                about: "A consumer group is called <group_prefix>.<group>, its dead-letter topic \
                        <group_prefix>.<group>.dlq.",
                example: None,
            },
            Described {
                key: "start",
                about: "Where a group starts that has never run: earliest, latest.",
                example: None,
            },
            Described {
                key: "group_protocol",
                about: "How the members of a group agree on who has which partition: cooperative-sticky, eager \
                        (everything stops and is shared out anew), consumer (KIP-848: the brokers share out; \
                        Kafka 4.0 and later).",
                example: None,
            },
            Described {
                key: "assignor",
                about: "How partitions are shared out: range or roundrobin (eager), uniform or range (consumer); \
                        not set for the protocol's own.",
                example: Some(r#""range""#),
            },
            Described {
                key: "instance_id",
                about: "A name of this process that outlives it, another one for each process: its partitions \
                        wait for it while it restarts.",
                example: Some(r#""worker-1""#),
            },
            Described {
                key: "session_timeout_ms",
                about: "After how long without a heartbeat a member's partitions go to others, and how often it \
                        sends one: 30000 and 3000 when not set. Under \"consumer\" both are the brokers' affair, \
                        and are refused here.",
                example: Some("30000"),
            },
            Described {
                key: "heartbeat_interval_ms",
                about: "How often a member says that it lives: 3000 when not set. Under consumer it is the brokers' affair.",
                example: Some("3000"),
            },
            Described {
                key: "metadata_refresh_ms",
                about: "How often new topics and partitions are looked for; 5000 at most.",
                example: None,
            },
            Described {
                key: "topics",
                about: "The topics of every group, where they are not called <source.name>.<schema>.<table>: \
                        names, and patterns from ^ to $. Topics that appear later are found, and read from their \
                        beginning.",
                example: None,
            },
        ],
    },
    Section {
        name: "kafka.properties",
        about: "Further librdkafka properties by their own names; what may be a secret is never printed. In the \
                environment: AFTERWRITE__KAFKA__PROPERTIES__SECURITY_PROTOCOL=ssl.",
        settings: &[Described {
            key: "security.protocol",
            about: "How the brokers are talked to: plaintext, ssl, sasl_plaintext, sasl_ssl.",
            example: Some(r#""plaintext""#),
        }],
    },
    Section {
        name: "registry",
        about: "The schema registry, for Avro. User and password may also be part of the address.",
        settings: &[
            Described {
                key: "url",
                about: "Base address of the Confluent-compatible API; user and password may be part of it.",
                example: None,
            },
            Described {
                key: "user",
                about: "User name, where the registry asks for one.",
                example: Some(r#""afterwrite""#),
            },
            Described {
                key: "password",
                about: "Its password.",
                example: Some(r#""${file:/run/secrets/registry_password}""#),
            },
            Described {
                key: "ca_pem",
                about: "Certificates in PEM, for an address that begins with https://. The authorities that may \
                        have signed the registry's, in place of those that the system trusts.",
                example: Some(r#""${file:/etc/afterwrite/registry-ca.pem}""#),
            },
            Described {
                key: "client_certificate_pem",
                about: "Our own, with its chain and its key (not encrypted), where the registry asks for one.",
                example: Some(r#""${file:/etc/afterwrite/registry-client.pem}""#),
            },
            Described {
                key: "client_key_pem",
                about: "The key of that certificate, in PEM.",
                example: Some(r#""${file:/run/secrets/registry-client-key.pem}""#),
            },
            Described {
                key: "timeout_ms",
                about: "How long one request may take.",
                example: None,
            },
            Described {
                key: "schemas_max",
                about: "Schemas that are kept in memory; the one that was not used for longest makes room.",
                example: None,
            },
            Described {
                key: "unknown_asks_max",
                about: "A schema that the registry does not know is asked for this often, with this pause, before \
                        its records become dead letters: a registry may lag behind the producer that registered \
                        it.",
                example: None,
            },
            Described {
                key: "unknown_pause_ms",
                about: "Pause between such questions.",
                example: None,
            },
        ],
    },
    Section {
        name: "connect",
        about: "Kafka Connect, for the command `connector`.",
        settings: &[
            Described {
                key: "url",
                about: "Base address of the REST API; user and password may be part of it.",
                example: None,
            },
            Described {
                key: "ca_pem",
                about: "Certificates of the authorities that may have signed Connect's; those of the system when not set.",
                example: Some(r#""${file:/etc/afterwrite/connect-ca.pem}""#),
            },
            Described {
                key: "timeout_ms",
                about: "How long one request may take. Connect itself gives up on a request after 90 s.",
                example: None,
            },
        ],
    },
];
