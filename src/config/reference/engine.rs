//! How jobs are worked on, and what is kept of them.

use super::{Described, Section};

pub(super) const SECTIONS: [Section; 5] = [
    Section {
        name: "engine",
        about: "What every group has unless [groups.NAME] says otherwise.",
        settings: &[
            Described {
                key: "attempts_max",
                about: "A job that may heal is tried this often, after growing waits with full jitter.",
                example: None,
            },
            Described {
                key: "wait_first_ms",
                about: "Wait after the first failed attempt.",
                example: None,
            },
            Described {
                key: "wait_factor",
                about: "Each further wait is longer by this factor.",
                example: None,
            },
            Described {
                key: "wait_ms_max",
                about: "Longest wait between two attempts.",
                example: None,
            },
            Described {
                key: "asked_wait_ms_max",
                about: "Longest wait a handler may ask for (Retry-After), a round.",
                example: None,
            },
            Described {
                key: "outage_wait_ms_max",
                about: "Longest wait for something that does not answer, and for a dead letter that could not be \
                        written.",
                example: None,
            },
            Described {
                key: "crash_deaths_max",
                about: "A job during which so many processes died, while nothing else that had run at a death was \
                        running, becomes a dead letter of class crashed. A kill -9 from outside cannot be told \
                        apart. 0 switches it off.",
                example: None,
            },
            Described {
                key: "exhausted_alone_after_ms",
                about: "A job whose attempts are used up, while no other lane of its handler worked since it \
                        failed, may be the victim of an outage: it is tried on, for so long at most.",
                example: None,
            },
            Described {
                key: "suspend_attempts_min",
                about: "A handler is suspended, and nothing of it becomes a dead letter, when half of at least so \
                        many attempts within a window fail and may heal, when several of its lanes fail and \
                        nothing works for so long, or when half of at least so many jobs within a window fail for \
                        good. 0 switches a rule off.",
                example: None,
            },
            Described {
                key: "suspend_attempts_window_ms",
                about: "The window of these attempts.",
                example: None,
            },
            Described {
                key: "suspend_silence_ms",
                about: "A handler of which several lanes fail, and nothing works for so long, is suspended; 0 \
                        switches that off.",
                example: None,
            },
            Described {
                key: "suspend_jobs_min",
                about: "A handler is suspended when half of at least so many jobs within a window fail for good; \
                        0 switches that off.",
                example: None,
            },
            Described {
                key: "suspend_jobs_window_ms",
                about: "The window of these jobs.",
                example: None,
            },
            Described {
                key: "attempt_timeout_ms",
                about: "Of handlers that ask for no other (position has 300000, reward 120000).",
                example: None,
            },
            Described {
                key: "lanes_max",
                about: "Lanes of one group that run at once.",
                example: None,
            },
            Described {
                key: "connections_max",
                about: "Database connections of one group; two more than its lanes when not set.",
                example: Some("12"),
            },
            Described {
                key: "buffered_events_max",
                about: "Unsettled events of one group, shared by its partitions.",
                example: None,
            },
            Described {
                key: "buffered_bytes_max",
                about: "Bytes of unsettled events of one group, shared by its partitions.",
                example: None,
            },
            Described {
                key: "on_undecodable",
                about: "What becomes of a record that can never decode: bury (a dead letter of class \
                        undecodable), halt (the group ends before it, and the process with an error).",
                example: None,
            },
            Described {
                key: "commit_interval_ms",
                about: "How often settled positions are committed.",
                example: None,
            },
            Described {
                key: "shutdown_grace_ms",
                about: "How long what runs may take to end after SIGTERM.",
                example: None,
            },
            Described {
                key: "revoke_grace_ms",
                about: "How long what runs may take to end when its partition is taken away.",
                example: None,
            },
            Described {
                key: "effect_lease_ms",
                about: "How long a mail or call belongs to the process that makes it; longer than any attempt.",
                example: None,
            },
        ],
    },
    Section {
        name: "groups.email",
        about: "What one group has instead of [engine]; the section is called after the group.",
        settings: &[
            Described {
                key: "topics",
                about: "Instead of kafka.topics.",
                example: Some(r#"['^waitlist\.tenant_[0-9]+\.users$']"#),
            },
            Described {
                key: "attempts_max",
                about: "Instead of engine.attempts_max.",
                example: Some("5"),
            },
            Described {
                key: "wait_first_ms",
                about: "Instead of engine.wait_first_ms.",
                example: Some("1000"),
            },
            Described {
                key: "wait_factor",
                about: "Instead of engine.wait_factor.",
                example: Some("2"),
            },
            Described {
                key: "wait_ms_max",
                about: "Instead of engine.wait_ms_max.",
                example: Some("300000"),
            },
            Described {
                key: "attempt_timeout_ms",
                about: "Set here, it also beats what the group's handler asks for.",
                example: Some("30000"),
            },
            Described {
                key: "lanes_max",
                about: "Instead of engine.lanes_max.",
                example: Some("10"),
            },
            Described {
                key: "connections_max",
                about: "Instead of engine.connections_max.",
                example: Some("12"),
            },
            Described {
                key: "buffered_events_max",
                about: "Instead of engine.buffered_events_max.",
                example: Some("10000"),
            },
            Described {
                key: "buffered_bytes_max",
                about: "Instead of engine.buffered_bytes_max.",
                example: Some("67108864"),
            },
            Described {
                key: "on_undecodable",
                about: "Instead of engine.on_undecodable.",
                example: Some(r#""bury""#),
            },
        ],
    },
    Section {
        name: "handlers.email",
        about: "What one handler has instead of its own defaults; the section is called after the handler.",
        settings: &[
            Described {
                key: "enabled",
                about: "A handler that is switched off is not run, and its group reads nothing when no other \
                        handler shares it.",
                example: Some("true"),
            },
            Described {
                key: "attempt_timeout_ms",
                about: "It beats the group's and what the handler itself asks for.",
                example: Some("30000"),
            },
            Described {
                key: "coalesce_max",
                about: "Events of one ordering key that one call may take.",
                example: Some("1"),
            },
            Described {
                key: "attempts_max",
                about: "Instead of the group's.",
                example: Some("5"),
            },
            Described {
                key: "wait_first_ms",
                about: "Instead of the group's.",
                example: Some("1000"),
            },
            Described {
                key: "wait_factor",
                about: "Instead of the group's.",
                example: Some("2"),
            },
            Described {
                key: "wait_ms_max",
                about: "Instead of the group's.",
                example: Some("300000"),
            },
            Described {
                key: "lanes_max",
                about: "Lanes of this handler that run at once, where that is fewer than the group's.",
                example: Some("10"),
            },
            Described {
                key: "on_bury",
                about: "What becomes of later events of a key whose event is in the dead letters: continue (they \
                        are worked on), park (they are kept behind it, in order, until it is replayed or \
                        discarded).",
                example: Some(r#""continue""#),
            },
            Described {
                key: "critical",
                about: "Whether alerts about the handler and its group wake somebody; false makes them tickets. It is a label of their metrics.",
                example: Some("true"),
            },
            Described {
                key: "starts_per_second_max",
                about: "Calls that may start within a second; without it, as many as there is work for.",
                example: Some("50"),
            },
            Described {
                key: "was",
                about: "The name it had before, for the first start under the new one: what it did under that \
                        name stays done.",
                example: Some(r#""mails""#),
            },
            Described {
                key: "settings",
                about: "What a handler of your own is told: keys of its own, as it reads them. In the environment \
                        and after --set a value is one of TOML where it looks like one, else text: \"7\" in \
                        quotes is text.",
                example: Some(r#"{ api_url = "https://api.example.com", api_key = "${env:WAITLIST_SECRET}" }"#),
            },
        ],
    },
    Section {
        name: "ledger",
        about: "What was done with which event.",
        settings: &[Described {
            key: "retention_days",
            about: "Days of the ledger that are kept at least, by the day on which an event was committed. \
                        Older ones are dropped when no group has an event of them left to settle, and no dead \
                        letter or parked event is of them. An event of a dropped day that comes once more is not \
                        run: it becomes a dead letter.",
            example: None,
        }],
    },
    Section {
        name: "dead_letters",
        about: "The topics of dead letters: made by the worker, and checked where they exist already. With \
                source.kind = \"wal\" letters are kept in Postgres: only error_bytes_max, replay_rate_max and \
                replays_max mean anything then.",
        settings: &[
            Described {
                key: "partitions",
                about: "Partitions of a topic that is made.",
                example: None,
            },
            Described {
                key: "replication_factor",
                about: "The broker's default.replication.factor when not set.",
                example: Some("3"),
            },
            Described {
                key: "retention_ms",
                about: "A topic that keeps letters for less is warned about.",
                example: None,
            },
            Described {
                key: "message_bytes_max",
                about: "The largest record of the source and 64 KiB of headers; a topic that takes less is \
                        refused.",
                example: None,
            },
            Described {
                key: "error_bytes_max",
                about: "Longer error texts are cut.",
                example: None,
            },
            Described {
                key: "write_timeout_ms",
                about: "A letter that is not acknowledged within this time is written again.",
                example: None,
            },
            Described {
                key: "replay_rate_max",
                about: "Letters a second that `dlq replay` sends back, unless --rate says otherwise.",
                example: None,
            },
            Described {
                key: "replays_max",
                about: "A letter whose event was replayed this often is left out, so that nothing is sent round \
                        for ever; given by its id with --force it goes back all the same.",
                example: None,
            },
        ],
    },
];
