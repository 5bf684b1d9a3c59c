//! The waitlist worker, its clock, and what a process tells of itself.

use super::{Described, Section};

pub(super) const SECTIONS: [Section; 11] = [
    Section {
        name: "smtp",
        about: "The mail server: a submission relay.",
        settings: &[
            Described {
                key: "transport",
                about: "smtp, or file for development: then each mail is a file in smtp.directory and nobody gets \
                        it, and there is no host.",
                example: None,
            },
            Described {
                key: "directory",
                about: "The folder of mails that become files.",
                example: Some(r#""./mails""#),
            },
            Described {
                key: "host",
                about: "This machine when not set.",
                example: Some(r#""localhost""#),
            },
            Described {
                key: "port",
                about: "465 for implicit TLS, 587 for submission, 25 between servers.",
                example: None,
            },
            Described {
                key: "tls",
                about: "auto (implicit on port 465, none on this machine, starttls elsewhere), none, \
                        opportunistic (starttls where the server offers it, which whoever is in between can \
                        prevent; the password is sent only then), starttls, implicit.",
                example: None,
            },
            Described {
                key: "ca_pem",
                about: "Authorities that may sign the server's certificate, instead of those that the system \
                        trusts.",
                example: Some(r#""${file:/etc/afterwrite/smtp-ca.pem}""#),
            },
            Described {
                key: "user",
                about: "User name, where the relay asks for one.",
                example: Some(r#""waitlist""#),
            },
            Described {
                key: "password",
                about: "Its password.",
                example: Some(r#""${file:/run/secrets/smtp_password}""#),
            },
            Described {
                key: "from_address",
                about: "Sender of mails whose campaign names none.",
                example: None,
            },
            Described {
                key: "from_name",
                about: "Name of that sender.",
                example: Some(r#""Waitlist""#),
            },
            Described {
                key: "hello_name",
                about: "The name this client greets with; the machine's own when not set.",
                example: Some(r#""worker.example.com""#),
            },
            Described {
                key: "step_timeout_ms",
                about: "How long one step of the dialogue may take.",
                example: None,
            },
            Described {
                key: "connections_max",
                about: "Connections kept open.",
                example: None,
            },
            Described {
                key: "mails_per_second_max",
                about: "Mails that one process hands over within a second, over all its lanes; without it, as \
                        many as the server takes. Who waits for it has no attempt counted.",
                example: Some("50"),
            },
        ],
    },
    Section {
        name: "webhook",
        about: "Calls of the application's webhooks.",
        settings: &[
            Described {
                key: "timeout_ms",
                about: "How long one call may take.",
                example: None,
            },
            Described {
                key: "allowed_networks",
                about: "Networks that may be called although they are not public.",
                example: None,
            },
        ],
    },
    Section {
        name: "waitlist",
        about: "The application whose rows wake the handlers.",
        settings: &[
            Described {
                key: "secret",
                about: "Key of every link, code and hidden address: at least 16 random characters, the same in \
                        every process and for ever. May be left out only where Postgres is on this machine; then \
                        a key is used that everybody knows.",
                example: Some(r#""${env:WAITLIST_SECRET}""#),
            },
            Described {
                key: "verification_url",
                about: "{token} stands for the token.",
                example: None,
            },
            Described {
                key: "referral_url",
                about: "{code} stands for the friend's code, {campaign} for the campaign's slug.",
                example: None,
            },
            Described {
                key: "public_url",
                about: "Where a worker with [admin] listen is reached from everywhere: links to unsubscribe are \
                        this and /unsubscribe/…, which may be all that is let through. Without it mails about \
                        places and milestones are skipped. https, but for this machine.",
                example: Some(r#""https://mail.example.com""#),
            },
            Described {
                key: "reward_hold",
                about: "How long an earned reward waits for late fraud evidence.",
                example: None,
            },
        ],
    },
    Section {
        name: "waitlist.tables.waitlist_users",
        about: "What the application calls a table of the reference schema (infra/postgres/waitlist.sql), and its \
                columns, where it is not that. An empty name stands for what it does not have. `afterwrite \
                migrate` makes views of it.",
        settings: &[
            Described {
                key: "name",
                about: "schema.table, or table in public.",
                example: Some(r#""public.waitlist_users""#),
            },
            Described {
                key: "columns",
                about: "Column of the reference schema → column of the application.",
                example: Some(r#"{ first_name = "first_name" }"#),
            },
        ],
    },
    Section {
        name: "fraud",
        about: "The fraud checks.",
        settings: &[Described {
            key: "hold_confidence",
            about: "From this confidence on the credit of a referral is held.",
            example: None,
        }],
    },
    Section {
        name: "fraud.checks.velocity",
        about: "What one check has instead of its defaults. Checks: self_referral_device, self_referral_ip, \
                velocity, disposable_email, bot, duplicate_ip, duplicate_device.",
        settings: &[
            Described {
                key: "enabled",
                about: "Whether the check runs.",
                example: Some("true"),
            },
            Described {
                key: "confidence",
                about: "How sure a hit is, from 0 to 1.",
                example: Some("0.8"),
            },
            Described {
                key: "count_max",
                about: "More than this many is a hit; only velocity, duplicate_ip (3) and duplicate_device (2) \
                        count.",
                example: Some("10"),
            },
        ],
    },
    Section {
        name: "schedule",
        about: "What runs by the clock. Each tick is run by one of the processes that have it switched on.",
        settings: &[
            Described {
                key: "enabled",
                about: "Whether this process runs scheduled work; each tick is run by one of those that do.",
                example: None,
            },
            Described {
                key: "zone",
                about: "The zone of times of day, by its name in the IANA database.",
                example: None,
            },
            Described {
                key: "analytics_interval",
                about: "How often the analytics of active campaigns are computed; less than 1h: the open hour \
                        too. (ANALYTICS_INTERVAL)",
                example: None,
            },
            Described {
                key: "fraud_scan_interval",
                about: "How often users who came within the last two intervals are checked for fraud. \
                        (FRAUD_DETECTION_INTERVAL)",
                example: None,
            },
        ],
    },
    Section {
        name: "schedule.jobs.cleanup",
        about: "What one scheduled job has instead. Jobs: analytics, fraud_scan, webhook_retries, \
                position_notices, reward_windows, cleanup, and your own.",
        settings: &[
            Described {
                key: "enabled",
                about: "Whether it runs.",
                example: Some("true"),
            },
            Described {
                key: "schedule",
                about: "every 15m, five fields of cron, or @hourly, @daily, @weekly, @monthly, @yearly.",
                example: Some(r#""17 3 * * *""#),
            },
            Described {
                key: "zone",
                about: "The zone of its times of day, instead of the section's.",
                example: Some(r#""Europe/Berlin""#),
            },
        ],
    },
    Section {
        name: "log",
        about: "What is logged, and in which shape; to standard error.",
        settings: &[
            Described {
                key: "format",
                about: "human or json.",
                example: None,
            },
            Described {
                key: "filter",
                about: "What is logged: a level, and levels by the names of modules. Without it it is \
                       warn,afterwrite=info,pgwire_replication=off,sqlx::query=error. It is read again at SIGHUP.",
                example: Some(r#""warn,afterwrite=debug""#),
            },
        ],
    },
    Section {
        name: "admin",
        about: "Health and metrics over HTTP: /healthz, /readyz, /metrics; and with waitlist.public_url \
                /unsubscribe/TOKEN. Nobody is asked for a password, and nothing can be changed but a \
                subscription, by who got a mail.",
        settings: &[Described {
            key: "listen",
            about: "host:port; without it nothing is listened on.",
            example: Some(r#""localhost:9464""#),
        }],
    },
    Section {
        name: "traces",
        about: "A span of each attempt, sent by OTLP over HTTP (protobuf); it goes on with the trace that the record's \
                traceparent header names. Off without an endpoint. A span holds names, numbers and the event's id, and no \
                cell, key or error text. OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_BSP_* and \
                OTEL_EXPORTER_OTLP_HEADERS are read by the library that sends them.",
        settings: &[
            Described {
                key: "endpoint",
                about: "Base address of the receiver; /v1/traces is added.",
                example: Some(r#""http://localhost:4318""#),
            },
            Described {
                key: "headers",
                about: "Headers of each request, name=value separated by commas, for receivers that ask for a key.",
                example: Some(r#""x-api-key=${file:/run/secrets/traces_key}""#),
            },
            Described {
                key: "timeout_ms",
                about: "How long one request may take. What cannot be sent is dropped, and nothing waits for it.",
                example: None,
            },
            Described {
                key: "sampled",
                about: "The share of traces that begin here and are exported. Of a trace that the record brings it was \
                        decided where that began.",
                example: None,
            },
        ],
    },
];
