//! The settings of a connector that is deployed: those that lose, corrupt or hide changes.
//!
//! Each rule is about one setting; what the connector does without it is part of the rule. A value that only Kafka Connect resolves is
//! passed over. Why each is so is in docs/DEBEZIUM.md.

use std::str::FromStr;

use super::codes;
use super::connector::{Deployed, is_reference};
use super::expected::Expected;
use super::finding::{Code, Finding, Remedy};
use super::lint_codes;
use super::quoting::{identifier, shell_word, table_sql};
use super::tables::Tables;
use crate::clients::connect::ConnectorConfig;
use crate::decode::options::{BinaryMode, DecimalMode, IntervalMode, TimePrecision};

/// Converters by the end of their names.
const JSON: &str = "JsonConverter";
const AVRO: &str = "AvroConverter";

/// A setting, what it has to be, and what follows otherwise.
struct Rule {
    code: &'static Code,
    key: &'static str,
    /// `None` is a setting that is not there.
    is_wrong: fn(Option<&str>) -> bool,
    /// `None`: it has to be taken away.
    wanted: Option<&'static str>,
}

const RULES: [Rule; 15] = [
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
        |found| found != Some("no_data"),
        Some("no_data"),
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
        wanted,
    }
}

fn skips_rows(found: Option<&str>) -> bool {
    found.is_some_and(|skipped| skipped.split(',').any(|kind| matches!(kind.trim(), "c" | "u" | "d")))
}

/// A setting that is wrong.
struct Wrong {
    code: &'static Code,
    key: String,
    found: Option<String>,
    wanted: Option<String>,
}

/// What is wrong with the settings of a connector.
pub(super) fn findings(deployed: &Deployed<'_>, tables: Option<&Tables>, expected: &Expected) -> Vec<Finding> {
    let config = &deployed.connector.config;
    let simple = RULES.iter().filter_map(|rule| {
        let found = config.get(rule.key).map(String::as_str);
        let applies = !found.is_some_and(is_reference) && (rule.is_wrong)(found);
        applies.then(|| Wrong {
            code: rule.code,
            key: rule.key.to_owned(),
            found: found.map(str::to_owned),
            wanted: rule.wanted.map(str::to_owned),
        })
    });
    let mut wrong: Vec<Wrong> = simple.collect();
    wrong.extend(of_converters(config));
    wrong.extend(of_lists(config, expected));
    wrong.extend(of_modes(config, expected));
    wrong.extend(of_transforms(config));
    let mut found = by_code(deployed, wrong);
    found.extend(of_defaults(config, tables));
    found
}

/// One finding a kind, with one request that mends it.
fn by_code(deployed: &Deployed<'_>, wrong: Vec<Wrong>) -> Vec<Finding> {
    let mut kinds: Vec<&'static Code> = Vec::new();
    for one in &wrong {
        if !kinds.contains(&one.code) {
            kinds.push(one.code);
        }
    }
    let finding = |code: &'static Code| {
        let ours = wrong.iter().filter(|one| one.code == code);
        let what = ours.clone().map(|one| match &one.found {
            Some(found) => format!("{} is {found}", one.key),
            None => format!("{} is not set", one.key),
        });
        let what: Vec<String> = what.collect();
        let settings: serde_json::Map<String, serde_json::Value> =
            ours.map(|one| (one.key.clone(), one.wanted.clone().into())).collect();
        let body = shell_word(&serde_json::Value::Object(settings).to_string());
        code.found(
            format!("connector {}: {}", deployed.name, what.join(", ")),
            Remedy::shell(format!(
                "{} -H 'content-type: application/json' --data {body} # and in its file, or the next connector apply takes it back",
                deployed.request("PATCH", "/config")
            )),
        )
    };
    kinds.into_iter().map(finding).collect()
}

fn converter<'a>(config: &'a ConnectorConfig, side: &str) -> &'a str {
    config.get(&format!("{side}.converter")).map_or("", String::as_str)
}

/// Whether records come in Avro, and so with a registry.
pub(super) fn is_avro(config: &ConnectorConfig) -> bool {
    ["key", "value"]
        .iter()
        .any(|side| converter(config, side).ends_with(AVRO))
}

fn of_converters(config: &ConnectorConfig) -> Vec<Wrong> {
    let mut wrong = Vec::new();
    for side in ["key", "value"] {
        let name = converter(config, side);
        let mut want = |code, key: &str, wanted: &str| {
            let key = format!("{side}.converter.{key}");
            let found = config.get(&key);
            if found.is_some_and(|found| found == wanted || is_reference(found)) {
                return;
            }
            wrong.push(Wrong {
                code,
                key,
                found: found.cloned(),
                wanted: Some(wanted.to_owned()),
            });
        };
        if name.ends_with(JSON) {
            want(lint_codes::LINT_NULLS, "replace.null.with.default", "false");
        }
        if name.starts_with("io.apicurio.") {
            want(lint_codes::LINT_LATEST, "apicurio.registry.find-latest", "false");
            want(
                lint_codes::LINT_REFERENCES,
                "apicurio.registry.dereference-schema",
                "true",
            );
            want(lint_codes::LINT_WIRE, "apicurio.registry.headers.enabled", "false");
        }
        if name.starts_with("io.confluent.") {
            want(lint_codes::LINT_NULLS, "ignore.default.for.nullables", "true");
        }
    }
    if is_avro(config) {
        for key in ["schema.name.adjustment.mode", "field.name.adjustment.mode"] {
            if !config
                .get(key)
                .is_some_and(|found| found.starts_with("avro") || is_reference(found))
            {
                let found = config.get(key).cloned();
                wrong.push(Wrong {
                    code: lint_codes::LINT_NAMES,
                    key: key.to_owned(),
                    found,
                    wanted: Some("avro".to_owned()),
                });
            }
        }
    }
    wrong
}

/// Tables that handlers wait for and the connector does not capture; columns that it captures and must not.
fn of_lists(config: &ConnectorConfig, expected: &Expected) -> Vec<Wrong> {
    let mut wrong = Vec::new();
    let list = |key: &str| config.get(key).filter(|list| !is_reference(list)).cloned();
    let missed: Vec<String> = expected
        .published()
        .iter()
        .map(|(schema, table)| format!("{schema}.{table}"))
        .filter(|table| !captures(config, table))
        .map(|table| table.replace('.', "\\."))
        .collect();
    if !missed.is_empty() {
        let included = list("table.include.list");
        let (key, wanted) = match &included {
            Some(included) => ("table.include.list", Some(format!("{included},{}", missed.join(",")))),
            None => ("table.exclude.list", None),
        };
        wrong.push(Wrong {
            code: lint_codes::LINT_TABLES,
            key: key.to_owned(),
            found: list(key),
            wanted,
        });
    }
    let excluded = list("column.exclude.list");
    let hidden = patterns(excluded.as_deref().unwrap_or_default());
    let open: Vec<String> = expected
        .hidden_columns
        .iter()
        .filter(|column| !hidden.iter().any(|pattern| pattern.is_match(column)))
        .map(|column| column.replace('.', "\\."))
        .collect();
    let is_known = config.get("column.exclude.list").is_none_or(|list| !is_reference(list));
    if !open.is_empty() && is_known && !config.contains_key("column.include.list") {
        let all = excluded.iter().cloned().chain(open).collect::<Vec<_>>().join(",");
        wrong.push(Wrong {
            code: lint_codes::LINT_COLUMNS,
            key: "column.exclude.list".to_owned(),
            found: excluded,
            wanted: Some(all),
        });
    }
    wrong
}

/// Whether the connector's lists let a table through; a list that only Connect resolves does.
pub(crate) fn captures(config: &ConnectorConfig, table: &str) -> bool {
    let list = |key: &str| config.get(key).map(String::as_str);
    match (list("table.include.list"), list("table.exclude.list")) {
        (Some(list), _) | (None, Some(list)) if is_reference(list) => true,
        (Some(included), _) => patterns(included).iter().any(|pattern| pattern.is_match(table)),
        (None, Some(excluded)) => !patterns(excluded).iter().any(|pattern| pattern.is_match(table)),
        (None, None) => true,
    }
}

/// The patterns of a list, each for a whole name, as Debezium reads them. One that only Java can read matches nothing here.
pub(crate) fn patterns(list: &str) -> Vec<regex_lite::Regex> {
    let whole = |pattern: &str| regex_lite::Regex::new(&format!("^(?i:{})$", pattern.trim())).ok();
    list.split(',').filter_map(whole).collect()
}

/// Modes that JSON without schema does not tell, and that the worker has to be told the same.
fn of_modes(config: &ConnectorConfig, expected: &Expected) -> Vec<Wrong> {
    let bare = converter(config, "value").ends_with(JSON)
        && config
            .get("value.converter.schemas.enable")
            .is_some_and(|enabled| enabled == "false");
    let ours = &expected.decoding;
    let mut wrong = Vec::new();
    let mut compare = |key: &str, default: &str, is_same: &dyn Fn(&str) -> bool, applies: bool| {
        let found = config.get(key);
        if applies && !found.is_some_and(|found| is_reference(found)) && !is_same(found.map_or(default, String::as_str))
        {
            wrong.push(Wrong {
                code: lint_codes::LINT_MODES,
                key: key.to_owned(),
                found: found.cloned(),
                wanted: None,
            });
        }
    };
    fn same<T: FromStr + PartialEq>(ours: &T) -> impl Fn(&str) -> bool {
        |theirs| theirs.parse::<T>().is_ok_and(|theirs| theirs == *ours)
    }
    compare(
        "decimal.handling.mode",
        "precise",
        &same::<DecimalMode>(&ours.decimal),
        bare,
    );
    compare(
        "time.precision.mode",
        "adaptive",
        &same::<TimePrecision>(&ours.time_precision),
        bare,
    );
    compare(
        "interval.handling.mode",
        "numeric",
        &same::<IntervalMode>(&ours.interval),
        bare,
    );
    // Bytes are printed as base64.
    let binary = |theirs: &str| match theirs {
        "bytes" => ours.binary == BinaryMode::Base64,
        other => same(&ours.binary)(other),
    };
    compare("binary.handling.mode", "bytes", &binary, bare);
    let placeholder = |theirs: &str| theirs == ours.unavailable_placeholder;
    compare(
        "unavailable.value.placeholder",
        crate::decode::options::UNAVAILABLE_PLACEHOLDER,
        &placeholder,
        true,
    );
    wrong
}

fn of_transforms(config: &ConnectorConfig) -> Vec<Wrong> {
    let names = config
        .get("transforms")
        .map_or("", String::as_str)
        .split(',')
        .map(str::trim);
    let mut wrong = Vec::new();
    for name in names.filter(|name| !name.is_empty()) {
        let key = format!("transforms.{name}.type");
        let class = config.get(&key).map_or("", String::as_str);
        if class.ends_with("ExtractNewRecordState") {
            let others = config["transforms"]
                .split(',')
                .map(str::trim)
                .filter(|other| *other != name);
            let others: Vec<&str> = others.collect();
            wrong.push(Wrong {
                code: lint_codes::LINT_UNWRAPPED,
                key: "transforms".to_owned(),
                found: Some(config["transforms"].clone()),
                wanted: (!others.is_empty()).then(|| others.join(",")),
            });
        }
        let tombstones = config.get("tombstones.on.delete").map_or("true", String::as_str);
        if class.ends_with("PartitionRouting") && tombstones == "true" {
            wrong.push(Wrong {
                code: lint_codes::LINT_TOMBSTONES,
                key: "tombstones.on.delete".to_owned(),
                found: config.get("tombstones.on.delete").cloned(),
                wanted: Some("false".to_owned()),
            });
        }
    }
    wrong
}

/// Apicurio's converter writes a column's default where the row has null, and there is no setting against it.
fn of_defaults(config: &ConnectorConfig, tables: Option<&Tables>) -> Option<Finding> {
    if !converter(config, "value").starts_with("io.apicurio.") {
        return None;
    }
    let columns: Vec<(String, &str)> = tables?
        .tables
        .iter()
        .flat_map(|table| {
            table
                .nullable_defaults
                .iter()
                .map(|column| (table_sql(&table.schema, &table.name), column.as_str()))
        })
        .collect();
    let listed: Vec<String> = columns
        .iter()
        .map(|(table, column)| format!("{table}.{column}"))
        .collect();
    let sql: Vec<String> = columns
        .iter()
        .map(|(table, column)| format!("ALTER TABLE {table} ALTER COLUMN {} DROP DEFAULT;", identifier(column)))
        .collect();
    (!columns.is_empty()).then(|| {
        codes::NULLABLE_DEFAULTS.found(
            format!("nullable columns with a default: {}", listed.join(", ")),
            Remedy::sql(sql.join(" ")),
        )
    })
}

#[cfg(test)]
#[path = "lints_tests.rs"]
mod tests;
