//! Rules about one setting of a connector each.

use super::finding::Code;
use super::lint_codes;

/// A setting, what it has to be, and what follows otherwise.
pub(super) struct Rule {
    pub(super) code: &'static Code,
    pub(super) key: &'static str,
    /// `None` is a setting that is not there.
    pub(super) is_wrong: fn(Option<&str>) -> bool,
    pub(super) mend: Mend,
}

/// What mends a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mend {
    /// This value; `None`: it has to be taken away.
    Set(Option<&'static str>),
    /// What no value does.
    Words(&'static str),
}

/// Modes of snapshots that Debezium had once.
const GONE_MODES: [&str; 5] = [
    "never",
    "exported",
    "schema_only",
    "schema_only_recovery",
    "initial_schema_only",
];

/// Each about one setting.
pub(super) const RULES: &[Rule] = &[
    rule(
        lint_codes::LINT_PLUGIN,
        "plugin.name",
        |found| found != Some("pgoutput"),
        Some("pgoutput"),
    ),
    rule(
        lint_codes::LINT_AUTOCREATE,
        "publication.autocreate.mode",
        |found| found != Some("disabled"),
        Some("disabled"),
    ),
    rule(
        lint_codes::LINT_SLOT_DROP,
        "slot.drop.on.stop",
        |found| found == Some("true"),
        Some("false"),
    ),
    rule(
        lint_codes::LINT_SNAPSHOT,
        "snapshot.mode",
        |found| !found.is_some_and(|mode| mode == "no_data" || mode == "initial_only" || GONE_MODES.contains(&mode)),
        Some("no_data"),
    ),
    rule(
        lint_codes::LINT_SNAPSHOT_GONE,
        "snapshot.mode",
        |found| found.is_some_and(|mode| GONE_MODES.contains(&mode)),
        Some("no_data"),
    ),
    rule(
        lint_codes::LINT_SNAPSHOT_ONLY,
        "snapshot.mode",
        |found| found == Some("initial_only"),
        Some("no_data"),
    ),
    rule(
        lint_codes::LINT_FLUSH,
        "lsn.flush.mode",
        |found| found == Some("manual"),
        Some("connector"),
    ),
    rule(
        lint_codes::LINT_FLUSH,
        "flush.lsn.source",
        |found| found == Some("false"),
        None,
    ),
    rule(
        lint_codes::LINT_DRIVER_FLUSH,
        "lsn.flush.mode",
        |found| found == Some("connector_and_driver"),
        Some("connector"),
    ),
    by_hand(
        lint_codes::LINT_POOLER,
        "database.hostname",
        |found| {
            found.is_some_and(|host| {
                ["pgbouncer", "pooler", "pgcat", "odyssey"]
                    .iter()
                    .any(|name| host.contains(name))
            })
        },
        "name the host of the server itself in database.hostname",
    ),
    by_hand(
        lint_codes::LINT_POOLER,
        "database.port",
        |found| found == Some("6432"),
        "name the port of the server itself in database.port, which is 5432 where nobody changed it",
    ),
    rule(lint_codes::LINT_SKIPPED, "skipped.operations", skips_rows, Some("none")),
    rule(
        lint_codes::LINT_TRUNCATES,
        "skipped.operations",
        |found| matches!(found, None | Some("t")),
        Some("none"),
    ),
    rule(
        lint_codes::LINT_CONVERTING,
        "event.converting.failure.handling.mode",
        |found| found != Some("fail"),
        Some("fail"),
    ),
    rule(
        lint_codes::LINT_PROCESSING,
        "event.processing.failure.handling.mode",
        |found| !matches!(found, None | Some("fail")),
        Some("fail"),
    ),
    rule(
        lint_codes::LINT_TOLERANCE,
        "errors.tolerance",
        |found| found == Some("all"),
        Some("none"),
    ),
    rule(
        lint_codes::LINT_HEARTBEAT,
        "heartbeat.interval.ms",
        |found| matches!(found, None | Some("0")),
        Some("10000"),
    ),
    rule(
        lint_codes::LINT_HEARTBEAT_QUERY,
        "heartbeat.action.query",
        |found| found.is_none(),
        Some(HEARTBEAT_QUERY),
    ),
    rule(
        lint_codes::LINT_MISMATCH,
        "offset.mismatch.strategy",
        |found| found != Some("trust_offset"),
        Some("trust_offset"),
    ),
    rule(
        lint_codes::LINT_ESCAPES,
        "field.name.adjustment.mode",
        |found| found == Some("avro_unicode"),
        Some("avro"),
    ),
    rule(
        lint_codes::LINT_KEYS,
        "message.key.columns",
        |found| found.is_some(),
        None,
    ),
    rule(
        lint_codes::LINT_COMPACT,
        "topic.creation.default.cleanup.policy",
        |found| found.is_some_and(|policy| policy.contains("compact")),
        Some("delete"),
    ),
    rule(
        lint_codes::LINT_ACKS,
        "producer.override.acks",
        |found| !matches!(found, None | Some("all" | "-1")),
        Some("all"),
    ),
];

/// What makes the slot of an idle database move on.
const HEARTBEAT_QUERY: &str =
    "INSERT INTO afterwrite.heartbeat (id, ts) VALUES (1, now()) ON CONFLICT (id) DO UPDATE SET ts = excluded.ts";

const fn rule(
    code: &'static Code,
    key: &'static str,
    is_wrong: fn(Option<&str>) -> bool,
    wanted: Option<&'static str>,
) -> Rule {
    Rule {
        code,
        key,
        is_wrong,
        mend: Mend::Set(wanted),
    }
}

const fn by_hand(
    code: &'static Code,
    key: &'static str,
    is_wrong: fn(Option<&str>) -> bool,
    words: &'static str,
) -> Rule {
    Rule {
        code,
        key,
        is_wrong,
        mend: Mend::Words(words),
    }
}

/// What only a file is judged by: once a connector captures, changing these loses what its slot holds, or it can be seen
/// whether they are right.
pub(super) const RULES_OF_FILES: &[Rule] = &[
    rule(
        lint_codes::LINT_SLOT_NAME,
        "slot.name",
        |found| matches!(found, None | Some("debezium")),
        Some("a_name_of_its_own"),
    ),
    by_hand(
        lint_codes::LINT_PUBLICATION_NAME,
        "publication.name",
        |found| matches!(found, None | Some("dbz_publication")),
        "name the publication that migrate makes, or another one that was made for this connector, in publication.name",
    ),
    by_hand(
        lint_codes::LINT_FAILOVER,
        "slot.failover",
        |found| found == Some("true"),
        "Postgres 17 or newer; on the standby sync_replication_slots = on, hot_standby_feedback = on, primary_slot_name and a \
         primary_conninfo with dbname; on the primary synchronized_standby_slots with the names of the standbys' physical slots, \
         not of this one",
    ),
    by_hand(
        lint_codes::LINT_STATEMENTS,
        "database.initial.statements",
        |found| found.is_some(),
        "what is to hold for the session that reads the log too is set for the role: ALTER ROLE … SET",
    ),
];

fn skips_rows(found: Option<&str>) -> bool {
    found.is_some_and(|skipped| skipped.split(',').any(|kind| matches!(kind.trim(), "c" | "u" | "d")))
}
