//! Which changes of a connector's settings lose changes of the database, or bring them where nobody looks. Pure.
//!
//! What an update does is judged, and not whether a setting is good: that is what `connector lint` is for. Why each is so is in
//! docs/DEBEZIUM.md.

mod tables;

mod transforms;

use serde::Serialize;

use super::published::Published;
use crate::clients::connect::ConnectorConfig;

/// The slot's name where the connector's configuration has none.
pub(super) const SLOT: &str = "debezium";

/// The publication's name where the connector's configuration has none.
pub(super) const PUBLICATION: &str = "dbz_publication";

/// The connectors that have a slot and a publication.
pub(super) const POSTGRES: &str = "PostgresConnector";

/// Something that is lost by an update.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in crate::cli) struct Loss {
    /// What `--accept-loss` is given: a setting.
    pub(super) accept: String,
    /// What is lost.
    pub(super) what: String,
    /// How the same is reached without it, or when nothing is lost.
    pub(super) instead: String,
}

impl Loss {
    pub(super) fn new(accept: &str, what: impl Into<String>, instead: impl Into<String>) -> Self {
        Self {
            accept: accept.to_owned(),
            what: what.into(),
            instead: instead.into(),
        }
    }

    pub(super) fn in_words(&self) -> String {
        format!("{}: {}; {}", self.accept, self.what, self.instead)
    }
}

/// Changes that arrive out of order, not at all, only while some wait.
const WHEN_CAUGHT_UP: &str = "pause the connector, wait until `afterwrite status` shows no lag, and accept it then: nothing is out of \
                              order where nothing waits";

/// A setting whose change loses something.
struct Rule {
    key: &'static str,
    /// What the connector does without it.
    default: &'static str,
    loses: fn(&str, &str) -> bool,
    what: &'static str,
    instead: &'static str,
}

const RULES: [Rule; 17] = [
    Rule {
        key: "connector.class",
        default: "",
        loses: differs,
        what: "another connector knows nothing of the place where this one stands",
        instead: "give the other connector a name of its own",
    },
    Rule {
        key: "database.dbname",
        default: "",
        loses: differs,
        what: "changes of the database of before are captured by nobody from then on, and another database has no such slot",
        instead: "give each database a connector, a slot and a topic prefix of its own",
    },
    Rule {
        key: "database.hostname",
        default: "",
        loses: differs,
        what: "another server has no such slot, and the connector's position means nothing in its log",
        instead: "accept it where it is the same server under another name, or a standby that has kept the slot",
    },
    Rule {
        key: "database.port",
        default: "5432",
        loses: differs,
        what: "another server has no such slot, and the connector's position means nothing in its log",
        instead: "accept it where the same server is behind the port",
    },
    Rule {
        key: "topic.prefix",
        default: "",
        loses: differs,
        what: "changes go to topics that no group reads, the connector's position is kept under the prefix and so begins anew, and \
               the id of each event is another one: what was done would be done again",
        instead: "make a second connector, and move source.name with it only where no group has ever run",
    },
    Rule {
        key: "topic.delimiter",
        default: ".",
        loses: differs,
        what: "changes go to topics that no group reads",
        instead: "name the new topics in kafka.topics first, and keep the old ones until they are read to their ends",
    },
    Rule {
        key: "topic.naming.strategy",
        default: "",
        loses: differs,
        what: "changes go to topics that no group may be reading",
        instead: "name the new topics in kafka.topics first, and keep the old ones until they are read to their ends",
    },
    Rule {
        key: "slot.name",
        default: SLOT,
        loses: differs,
        what: "a new slot begins where the log is then: what was written since the old one was confirmed is captured by nobody, and \
               the old one keeps the log for ever",
        instead: "make the new slot out of the old one while the connector is paused, SELECT \
                  pg_copy_logical_replication_slot('OLD', 'NEW'), accept it then, and drop the old one",
    },
    Rule {
        key: "plugin.name",
        default: "decoderbufs",
        loses: differs,
        what: "a slot belongs to one plug-in: the connector fails until its slot is dropped, and what the slot held is lost with it",
        instead: "make a second connector with a slot of its own, and delete this one when the other captures",
    },
    Rule {
        key: "skipped.operations",
        default: "t",
        loses: skips_more,
        what: "changes of further kinds are left out, and nothing says so",
        instead: "let handlers pass over what they do not want",
    },
    Rule {
        key: "event.processing.failure.handling.mode",
        default: "fail",
        loses: |before, after| before == "fail" && after != "fail",
        what: "a change that cannot be processed is left out, and only the log of Connect says so",
        instead: "leave out the column that cannot be processed (column.exclude.list)",
    },
    Rule {
        key: "event.converting.failure.handling.mode",
        default: "warn",
        loses: |before, after| before == "fail" && after != "fail",
        what: "a value that cannot be converted arrives as null, and only the log of Connect says so",
        instead: "leave out the column that cannot be converted (column.exclude.list)",
    },
    Rule {
        key: "errors.tolerance",
        default: "none",
        loses: |_, after| after == "all",
        what: "a record that cannot be converted or transformed is left out, and nothing says so",
        instead: "mend what fails: the task's trace names it",
    },
    Rule {
        key: "offset.mismatch.strategy",
        default: "",
        loses: |before, after| before == "trust_offset" && after != before,
        what: "after its slot was made anew the connector goes on as if nothing were missing",
        instead: "leave it",
    },
    Rule {
        key: "producer.override.acks",
        default: "all",
        loses: |_, after| !matches!(after, "all" | "-1"),
        what: "a broker that fails takes acknowledged records with it",
        instead: "leave it",
    },
    Rule {
        key: "message.key.columns",
        default: "",
        loses: differs,
        what: "keys, and with them partitions and the ids of events, are others than before: order is lost, and rows that share a \
               key are taken for one",
        instead: "leave it",
    },
    Rule {
        key: "topic.creation.default.cleanup.policy",
        default: "delete",
        loses: |before, after| after.contains("compact") && !before.contains("compact"),
        what: "topics that are made from then on lose changes that a group has not read",
        instead: "leave it",
    },
];

fn differs(before: &str, after: &str) -> bool {
    before != after
}

fn skips_more(before: &str, after: &str) -> bool {
    let before: Vec<&str> = before.split(',').map(str::trim).collect();
    let mut after = after.split(',').map(str::trim);
    after.any(|kind| matches!(kind, "c" | "u" | "d" | "t") && !before.contains(&kind))
}

/// What a setting is, also where it is not written.
pub(super) fn value<'c>(config: &'c ConnectorConfig, key: &str, default: &'c str) -> &'c str {
    config.get(key).map_or(default, String::as_str)
}

/// Whether it is a connector of Debezium for Postgres.
pub(super) fn is_postgres(config: &ConnectorConfig) -> bool {
    value(config, "connector.class", "").ends_with(POSTGRES)
}

/// Whether a transform gives records other topics than those of their tables.
pub(in crate::cli) fn moves_topics(config: &ConnectorConfig) -> bool {
    transforms::moves_topics(config)
}

/// What an update of a connector loses; nothing where nothing changes.
pub(super) fn losses(before: &ConnectorConfig, after: &ConnectorConfig, published: &Published) -> Vec<Loss> {
    if before == after || !is_postgres(before) {
        return Vec::new();
    }
    let simple = RULES.iter().filter_map(|rule| {
        let (old, new) = (
            value(before, rule.key, rule.default),
            value(after, rule.key, rule.default),
        );
        let loses = old != new && (rule.loses)(old, new);
        loses.then(|| Loss::new(rule.key, rule.what, rule.instead))
    });
    let mut found: Vec<Loss> = simple.collect();
    found.extend(of_stop(before, after));
    found.extend(of_snapshot(before, after));
    found.extend(of_key_bytes(before, after));
    found.extend(tables::losses(before, after, published));
    found.extend(transforms::losses(before, after, published));
    found
}

/// An update stops the connector, under the settings of before.
fn of_stop(before: &ConnectorConfig, after: &ConnectorConfig) -> Option<Loss> {
    let drops = |config| value(config, "slot.drop.on.stop", "false") == "true";
    let slot = value(before, "slot.name", SLOT);
    let (what, instead) = match (drops(before), drops(after)) {
        (false, false) => return None,
        (true, _) => (
            "the connector is stopped for the update, which drops its slot: what is written until it runs again is captured by nobody"
                .to_owned(),
            format!(
                "keep the place under another name before, SELECT pg_copy_logical_replication_slot('{slot}', '{slot}_kept'), and \
                 accept it with slot.name = {slot}_kept"
            ),
        ),
        (false, true) => (
            "each stop of the connector drops its slot: what is written until it runs again is captured by nobody".to_owned(),
            "leave it; `connector delete` prints the statement that drops the slot".to_owned(),
        ),
    };
    Some(Loss::new("slot.drop.on.stop", what, instead))
}

fn of_snapshot(before: &ConnectorConfig, after: &ConnectorConfig) -> Option<Loss> {
    let key = "snapshot.mode";
    let (old, new) = (value(before, key, "initial"), value(after, key, "initial"));
    if old == new {
        return None;
    }
    let (what, instead) = match new {
        "initial" => return None,
        "initial_only" => (
            "tables are read once, and no change after that is captured",
            "take no_data, or initial",
        ),
        "always" => (
            "tables are read anew at each start, and changes that are made meanwhile arrive as reads, which wake nobody",
            "take no_data, or an incremental snapshot by a signal",
        ),
        "when_needed" => (
            "where its position is gone the connector reads tables anew instead of failing: changes in between wake nobody, and \
             nothing says so",
            "take no_data, which fails instead",
        ),
        _ => (
            "rows that a snapshot has not read yet are not read any more",
            "accept it when the first snapshot is over, or where nobody needs what it reads: afterwrite passes over it",
        ),
    };
    Some(Loss::new(key, what, instead))
}

/// Keys that are written otherwise go to other partitions.
fn of_key_bytes(before: &ConnectorConfig, after: &ConnectorConfig) -> Option<Loss> {
    // How a key's text is looked up does not change the text.
    let is_of_bytes = |key: &&String| *key == "key.converter" || *key == "key.converter.schemas.enable";
    let of_bytes = |config: &ConnectorConfig| -> Vec<(String, String)> {
        let keys = config.iter().filter(|(key, _)| is_of_bytes(key));
        keys.map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    (of_bytes(before) != of_bytes(after)).then(|| {
        Loss::new(
            "key.converter",
            "keys are written otherwise, and so go to other partitions than before: changes of one row that wait there may be \
             overtaken",
            WHEN_CAUGHT_UP,
        )
    })
}

#[cfg(test)]
#[path = "cases.rs"]
mod cases;
