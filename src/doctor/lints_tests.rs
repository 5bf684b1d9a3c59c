//! Each trap alone, over the connectors of this repository.

use super::*;
use crate::clients::connect::Connector;
use crate::doctor::connector::tests::status;
use crate::doctor::tests::expected;

fn shipped(file: &str) -> ConnectorConfig {
    serde_json::from_str(file).unwrap()
}

fn expected_of_waitlist() -> Expected {
    Expected {
        tables: Vec::new(),
        hidden_columns: vec!["public.waitlist_users.verification_token".to_owned()],
        ..expected()
    }
}

fn lint(config: ConnectorConfig) -> Vec<(&'static str, String)> {
    let connector = Connector {
        config,
        status: Some(status("RUNNING", &["RUNNING"])),
    };
    let deployed = Deployed {
        name: "c",
        connector: &connector,
        endpoint: "http://connect:8083",
    };
    let found = findings(&deployed, None, &expected_of_waitlist());
    found
        .into_iter()
        .map(|finding| (finding.code.name, finding.remedy.parts().1.to_owned()))
        .collect()
}

#[test]
fn the_connectors_of_this_repository_are_without_fault() {
    assert_eq!(lint(shipped(include_str!("../../connectors/waitlist.json"))), []);
    assert_eq!(lint(shipped(include_str!("../../connectors/waitlist-avro.json"))), []);
}

/// A setting, a value or none, the code, and what the remedy holds.
const TRAPS: [(&str, Option<&str>, &str, &str); 23] = [
    ("plugin.name", None, "lint-plugin", r#"{"plugin.name":"pgoutput"}"#),
    (
        "publication.autocreate.mode",
        Some("filtered"),
        "lint-autocreate",
        "disabled",
    ),
    ("slot.drop.on.stop", Some("true"), "lint-slot-drop", "false"),
    ("snapshot.mode", Some("initial"), "lint-snapshot", "no_data"),
    ("skipped.operations", Some("u, d"), "lint-skipped", "none"),
    ("skipped.operations", None, "lint-truncates", "none"),
    (
        "event.converting.failure.handling.mode",
        None,
        "lint-converting",
        "fail",
    ),
    (
        "event.processing.failure.handling.mode",
        Some("skip"),
        "lint-processing",
        "fail",
    ),
    ("errors.tolerance", Some("all"), "lint-tolerance", "none"),
    ("heartbeat.interval.ms", Some("0"), "lint-heartbeat", "10000"),
    (
        "heartbeat.action.query",
        None,
        "lint-heartbeat-query",
        "afterwrite.heartbeat",
    ),
    ("offset.mismatch.strategy", None, "lint-mismatch", "trust_offset"),
    (
        "message.key.columns",
        Some("public.t:x"),
        "lint-keys",
        r#"{"message.key.columns":null}"#,
    ),
    (
        "topic.creation.default.cleanup.policy",
        Some("compact"),
        "lint-compact",
        "delete",
    ),
    ("producer.override.acks", Some("1"), "lint-acks", "all"),
    (
        "key.converter.replace.null.with.default",
        None,
        "lint-nulls",
        r#"{"key.converter.replace.null.with.default":"false"}"#,
    ),
    (
        "value.converter.replace.null.with.default",
        Some("true"),
        "lint-nulls",
        "false",
    ),
    (
        "table.include.list",
        Some("public\\.other"),
        "lint-tables",
        r"public\\.other,afterwrite\\.heartbeat",
    ),
    ("column.exclude.list", None, "lint-columns", "verification_token"),
    (
        "decimal.handling.mode",
        Some("double"),
        "lint-modes",
        "decimal.handling.mode",
    ),
    (
        "binary.handling.mode",
        Some("hex"),
        "lint-modes",
        "binary.handling.mode",
    ),
    ("tombstones.on.delete", None, "lint-tombstones", "false"),
    (
        "transforms.route.type",
        Some("io.debezium.transforms.ExtractNewRecordState"),
        "lint-unwrapped",
        r#"{"transforms":null}"#,
    ),
];

#[test]
fn each_trap_is_told_alone_with_the_setting_that_mends_it() {
    for (key, value, code, mends) in TRAPS {
        let mut config = shipped(include_str!("../../connectors/waitlist.json"));
        match value {
            Some(value) => config.insert(key.to_owned(), value.to_owned()),
            None => config.remove(key),
        };
        let found = lint(config);
        assert_eq!(found.len(), 1, "{key}: {found:?}");
        assert_eq!(found[0].0, code);
        assert!(found[0].1.contains(mends), "{}", found[0].1);
    }
}

#[test]
fn traps_of_avro_are_told_and_what_only_connect_knows_is_passed_over() {
    for (key, value, code) in [
        ("value.converter.apicurio.registry.find-latest", "true", "lint-latest"),
        (
            "key.converter.apicurio.registry.dereference-schema",
            "false",
            "lint-references",
        ),
        ("value.converter.apicurio.registry.headers.enabled", "true", "lint-wire"),
        ("schema.name.adjustment.mode", "none", "lint-names"),
    ] {
        let mut config = shipped(include_str!("../../connectors/waitlist-avro.json"));
        config.insert(key.to_owned(), value.to_owned());
        let found = lint(config);
        assert_eq!(found.iter().map(|found| found.0).collect::<Vec<_>>(), [code]);
    }
    let mut config = shipped(include_str!("../../connectors/waitlist.json"));
    for key in [
        "plugin.name",
        "snapshot.mode",
        "table.include.list",
        "column.exclude.list",
        "decimal.handling.mode",
    ] {
        config.insert(key.to_owned(), "${env:DEBEZIUM_X}".to_owned());
    }
    assert_eq!(lint(config), []);
}
