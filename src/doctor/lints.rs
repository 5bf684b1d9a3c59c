//! The settings of a connector that is deployed, or in a file: those that lose, corrupt or hide changes.
//!
//! Rules about one setting are in `lint_rules.rs`; what the connector does without it is part of the rule. A value that only Kafka Connect resolves is
//! passed over. Why each is so is in docs/DEBEZIUM.md.

use std::str::FromStr;

use super::codes;
use super::connector::{Deployed, is_reference};
use super::expected::Expected;
use super::finding::{Code, Finding, Remedy};
use super::lint_codes;
use super::lint_rules::{Mend, RULES, RULES_OF_FILES, Rule};
use super::quoting::{identifier, shell_word, table_sql};
use super::tables::Tables;
use crate::clients::connect::ConnectorConfig;
use crate::decode::options::{BinaryMode, DecimalMode, IntervalMode, Options as Decoding, TimePrecision};

/// Converters by the end of their names.
const JSON: &str = "JsonConverter";
const AVRO: &str = "AvroConverter";

/// A setting that is wrong.
struct Wrong {
    code: &'static Code,
    key: String,
    found: Option<String>,
    wanted: Option<String>,
}

/// What is wrong with the settings of a connector that is deployed.
pub(super) fn findings(deployed: &Deployed<'_>, tables: Option<&Tables>, expected: &Expected) -> Vec<Finding> {
    let config = &deployed.connector.config;
    let mut wrong = of_rules(RULES, config);
    wrong.extend(of_settings(config, &expected.decoding));
    wrong.extend(of_lists(config, expected));
    let request = |settings: &[&Wrong]| {
        let settings = settings.iter().map(|one| (one.key.clone(), one.wanted.clone().into()));
        let body = serde_json::Value::Object(settings.collect()).to_string();
        Remedy::shell(format!(
            "{} -H 'content-type: application/json' --data {} # and in its file, or the next connector apply takes it back",
            deployed.request("PATCH", "/config"),
            shell_word(&body)
        ))
    };
    let mut found = by_code(deployed.name, wrong, request);
    found.extend(by_hand(RULES, deployed.name, config));
    found.extend(of_defaults(config, tables));
    found
}

/// What is wrong with the settings in a file; nothing is asked for. What handlers wait for counts where the file is one of this
/// source; any other is compared with the modes that need no setting of the worker.
pub(crate) fn of_file(name: &str, config: &ConnectorConfig, expected: &Expected) -> Vec<Finding> {
    let mut wrong = of_rules(RULES, config);
    wrong.extend(of_rules(RULES_OF_FILES, config));
    if is_of_source(config, expected) {
        wrong.extend(of_settings(config, &expected.decoding));
        wrong.extend(of_lists(config, expected));
    } else {
        wrong.extend(of_settings(config, &Decoding::default()));
    }
    let in_file = |settings: &[&Wrong]| {
        let lines = settings.iter().map(|one| match &one.wanted {
            Some(wanted) => format!("set {:?}: {wanted:?}", one.key),
            None => format!("take {:?} out", one.key),
        });
        Remedy::words(format!("in the file: {}", lines.collect::<Vec<_>>().join(", ")))
    };
    let mut found = by_code(name, wrong, in_file);
    found.extend(by_hand(RULES, name, config));
    found.extend(by_hand(RULES_OF_FILES, name, config));
    found
}

/// Whether a connector writes the topics of this source, as far as its file says.
pub(crate) fn is_of_source(config: &ConnectorConfig, expected: &Expected) -> bool {
    config
        .get("topic.prefix")
        .is_some_and(|prefix| *prefix == expected.source || is_reference(prefix))
}

/// The rules that a configuration breaks, each with what it has there.
fn broken<'r>(
    rules: &'r [Rule],
    config: &'r ConnectorConfig,
) -> impl Iterator<Item = (&'r Rule, Option<&'r str>)> + 'r {
    rules.iter().filter_map(|rule| {
        let found = config.get(rule.key).map(String::as_str);
        let applies = !found.is_some_and(is_reference) && (rule.is_wrong)(found);
        applies.then_some((rule, found))
    })
}

fn of_rules(rules: &[Rule], config: &ConnectorConfig) -> Vec<Wrong> {
    let wrong = broken(rules, config).filter_map(|(rule, found)| match rule.mend {
        Mend::Set(wanted) => Some(Wrong {
            code: rule.code,
            key: rule.key.to_owned(),
            found: found.map(str::to_owned),
            wanted: wanted.map(str::to_owned),
        }),
        Mend::Words(_) => None,
    });
    wrong.collect()
}

fn by_hand(rules: &[Rule], name: &str, config: &ConnectorConfig) -> Vec<Finding> {
    let found = broken(rules, config).filter_map(|(rule, found)| {
        let Mend::Words(words) = rule.mend else { return None };
        let what = match found {
            // Statements may hold anything.
            Some(_) if rule.key.ends_with("statements") => format!("{} is set", rule.key),
            Some(found) => format!("{} is {found}", rule.key),
            None => format!("{} is not set", rule.key),
        };
        Some(
            rule.code
                .found(format!("connector {name}: {what}"), Remedy::words(words)),
        )
    });
    found.collect()
}

/// What takes more than one setting to see.
fn of_settings(config: &ConnectorConfig, decoding: &Decoding) -> Vec<Wrong> {
    let mut wrong = of_converters(config);
    wrong.extend(of_modes(config, decoding));
    wrong.extend(of_transforms(config));
    wrong.extend(of_sizes(config));
    wrong.extend(of_threads(config));
    wrong
}

/// One finding a kind, with one remedy.
fn by_code(name: &str, wrong: Vec<Wrong>, remedy: impl Fn(&[&Wrong]) -> Remedy) -> Vec<Finding> {
    let mut kinds: Vec<&'static Code> = Vec::new();
    for one in &wrong {
        if !kinds.contains(&one.code) {
            kinds.push(one.code);
        }
    }
    let finding = |code: &'static Code| {
        let ours: Vec<&Wrong> = wrong.iter().filter(|one| one.code == code).collect();
        let what = ours.iter().map(|one| match &one.found {
            Some(found) => format!("{} is {found}", one.key),
            None => format!("{} is not set", one.key),
        });
        let what: Vec<String> = what.collect();
        code.found(format!("connector {name}: {}", what.join(", ")), remedy(&ours))
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
    let schema = table.split('.').next().unwrap_or_default();
    passes(config, "schema", schema) && passes(config, "table", table)
}

fn passes(config: &ConnectorConfig, kind: &str, name: &str) -> bool {
    let list = |which: &str| config.get(&format!("{kind}.{which}.list")).map(String::as_str);
    match (list("include"), list("exclude")) {
        (Some(list), _) | (None, Some(list)) if is_reference(list) => true,
        (Some(included), _) => patterns(included).iter().any(|pattern| pattern.is_match(name)),
        (None, Some(excluded)) => !patterns(excluded).iter().any(|pattern| pattern.is_match(name)),
        (None, None) => true,
    }
}

/// The patterns of a list, each for a whole name, as Debezium reads them. One that only Java can read matches nothing here.
pub(crate) fn patterns(list: &str) -> Vec<regex_lite::Regex> {
    let whole = |pattern: &str| regex_lite::Regex::new(&format!("^(?i:{})$", pattern.trim())).ok();
    list.split(',').filter_map(whole).collect()
}

/// Whether one of the patterns names it.
pub(super) fn is_named(patterns: &[regex_lite::Regex], name: &str) -> bool {
    patterns.iter().any(|pattern| pattern.is_match(name))
}

/// Modes that JSON without schema does not tell, and that the worker has to be told the same.
fn of_modes(config: &ConnectorConfig, ours: &Decoding) -> Vec<Wrong> {
    let bare = converter(config, "value").ends_with(JSON)
        && config
            .get("value.converter.schemas.enable")
            .is_some_and(|enabled| enabled == "false");
    let mut wrong = Vec::new();
    let mut compare = |key: &str, default: &str, is_same: &dyn Fn(&str) -> bool, wanted: String, applies: bool| {
        let found = config.get(key);
        if applies && !found.is_some_and(|found| is_reference(found)) && !is_same(found.map_or(default, String::as_str))
        {
            wrong.push(Wrong {
                code: lint_codes::LINT_MODES,
                key: key.to_owned(),
                found: found.cloned(),
                wanted: Some(wanted),
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
        name(ours.decimal),
        bare,
    );
    compare(
        "time.precision.mode",
        "adaptive",
        &same::<TimePrecision>(&ours.time_precision),
        name(ours.time_precision),
        bare,
    );
    compare(
        "interval.handling.mode",
        "numeric",
        &same::<IntervalMode>(&ours.interval),
        name(ours.interval),
        bare,
    );
    // Bytes are printed as base64.
    let binary = |theirs: &str| match theirs {
        "bytes" => ours.binary == BinaryMode::Base64,
        other => same(&ours.binary)(other),
    };
    let wanted = match ours.binary {
        BinaryMode::Base64 => "bytes".to_owned(),
        other => name(other),
    };
    compare("binary.handling.mode", "bytes", &binary, wanted, bare);
    let placeholder = |theirs: &str| theirs == ours.unavailable_placeholder;
    compare(
        "unavailable.value.placeholder",
        crate::decode::options::UNAVAILABLE_PLACEHOLDER,
        &placeholder,
        ours.unavailable_placeholder.clone(),
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

/// A mode as the connector's settings have it.
fn name(mode: impl serde::Serialize) -> String {
    let text = serde_json::to_value(mode).ok();
    text.and_then(|text| Some(text.as_str()?.to_owned()))
        .unwrap_or_default()
}

/// What a producer sends, and what topics take that are made for it, without any setting.
const BYTES_DEFAULT: i64 = 1_048_576;

fn of_sizes(config: &ConnectorConfig) -> Vec<Wrong> {
    let (sends, takes) = (
        "producer.override.max.request.size",
        "topic.creation.default.max.message.bytes",
    );
    let found = |key: &str| config.get(key).cloned();
    let wrong = |key: &str, wanted: String| Wrong {
        code: lint_codes::LINT_SIZE,
        key: key.to_owned(),
        found: found(key),
        wanted: Some(wanted),
    };
    let Some(largest) = found(sends) else {
        return vec![wrong(
            sends,
            found(takes).unwrap_or_else(|| (10 * BYTES_DEFAULT).to_string()),
        )];
    };
    let is_made_here = config.contains_key("topic.creation.default.partitions");
    let number = |text: &str| text.parse::<i64>().ok();
    let taken = found(takes).map_or(Some(BYTES_DEFAULT), |taken| number(&taken));
    match (number(&largest), taken) {
        (Some(largest), Some(taken)) if is_made_here && taken < largest => vec![wrong(takes, largest.to_string())],
        _ => Vec::new(),
    }
}

fn of_threads(config: &ConnectorConfig) -> Option<Wrong> {
    let key = "snapshot.max.threads";
    let threads = config
        .get(key)
        .filter(|threads| !matches!(threads.as_str(), "1") && !is_reference(threads))?;
    let reads = config.get("snapshot.mode").is_none_or(|mode| mode != "no_data");
    reads.then(|| Wrong {
        code: lint_codes::LINT_THREADS,
        key: key.to_owned(),
        found: Some(threads.clone()),
        wanted: Some("1".to_owned()),
    })
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
