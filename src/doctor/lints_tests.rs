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
const TRAPS: [(&str, Option<&str>, &str, &str); 34] = [
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
        "field.name.adjustment.mode",
        Some("avro_unicode"),
        "lint-escapes",
        r#"{"field.name.adjustment.mode":"avro"}"#,
    ),
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
    ("snapshot.mode", Some("schema_only"), "lint-snapshot-gone", "no_data"),
    ("snapshot.mode", Some("initial_only"), "lint-snapshot-only", "no_data"),
    (
        "lsn.flush.mode",
        Some("manual"),
        "lint-flush",
        r#"{"lsn.flush.mode":"connector"}"#,
    ),
    (
        "flush.lsn.source",
        Some("false"),
        "lint-flush",
        r#"{"flush.lsn.source":null}"#,
    ),
    (
        "lsn.flush.mode",
        Some("connector_and_driver"),
        "lint-driver-flush",
        "connector",
    ),
    (
        "database.port",
        Some("6432"),
        "lint-pooler",
        "the port of the server itself",
    ),
    (
        "database.hostname",
        Some("db-pooler.example.org"),
        "lint-pooler",
        "the host of the server itself",
    ),
    (
        "producer.override.max.request.size",
        None,
        "lint-size",
        r#"{"producer.override.max.request.size":"10485760"}"#,
    ),
    (
        "topic.creation.default.max.message.bytes",
        Some("1000000"),
        "lint-size",
        r#"{"topic.creation.default.max.message.bytes":"10485760"}"#,
    ),
    (
        "time.precision.mode",
        Some("connect"),
        "lint-modes",
        r#"{"time.precision.mode":"isostring"}"#,
    ),
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

fn lint_file(file: &str, settings: &[(&str, Option<&str>)], source: &str) -> Vec<(&'static str, String)> {
    let mut config = shipped(file);
    for (key, value) in settings {
        match value {
            Some(value) => config.insert((*key).to_owned(), (*value).to_owned()),
            None => config.remove(*key),
        };
    }
    let expected = Expected {
        source: source.to_owned(),
        ..expected_of_waitlist()
    };
    let found = of_file("c", &config, &expected);
    found
        .into_iter()
        .map(|finding| (finding.code.name, finding.remedy.parts().1.to_owned()))
        .collect()
}

const WAITLIST: &str = include_str!("../../connectors/waitlist.json");

#[test]
fn a_file_is_linted_without_asking_anybody_and_mended_by_editing_it() {
    assert_eq!(lint_file(WAITLIST, &[], "waitlist"), []);
    let avro = include_str!("../../connectors/waitlist-avro.json");
    assert_eq!(lint_file(avro, &[], "waitlist_avro"), []);
    for (key, value, code, mends) in [
        ("plugin.name", None, "lint-plugin", r#"set "plugin.name": "pgoutput""#),
        (
            "message.key.columns",
            Some("t:a"),
            "lint-keys",
            r#"take "message.key.columns" out"#,
        ),
        ("slot.name", None, "lint-slot-name", r#"set "slot.name""#),
        ("slot.name", Some("debezium"), "lint-slot-name", r#"set "slot.name""#),
        ("publication.name", None, "lint-publication-name", "migrate"),
        (
            "slot.failover",
            Some("true"),
            "lint-failover",
            "synchronized_standby_slots",
        ),
        (
            "database.initial.statements",
            Some("SET x = 'secret'"),
            "lint-statements",
            "ALTER ROLE",
        ),
    ] {
        let found = lint_file(WAITLIST, &[(key, value)], "waitlist");
        assert_eq!(found.len(), 1, "{key}: {found:?}");
        assert!(found[0].0 == code && found[0].1.contains(mends), "{found:?}");
    }
    // Whoever is deployed may have good reasons, and what its slot holds would be lost.
    let mut config = shipped(WAITLIST);
    config.remove("slot.name");
    assert_eq!(lint(config), []);
}

#[test]
fn a_file_of_another_source_is_not_asked_for_our_tables_and_is_compared_with_modes_that_need_no_setting() {
    let lists = [
        ("table.include.list", Some(r"public\.other")),
        ("column.exclude.list", None),
    ];
    let codes = |source| -> Vec<&str> {
        lint_file(WAITLIST, &lists, source)
            .into_iter()
            .map(|found| found.0)
            .collect()
    };
    assert_eq!(codes("waitlist"), ["lint-tables", "lint-columns"]);
    assert_eq!(codes("elsewhere"), Vec::<&str>::new());
    let modes = [("decimal.handling.mode", Some("precise"))];
    let found = lint_file(WAITLIST, &modes, "elsewhere");
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].1.contains(r#""decimal.handling.mode": "string""#), "{found:?}");
}

#[test]
fn threads_of_a_snapshot_are_told_where_there_is_one() {
    let threads = ("snapshot.max.threads", Some("4"));
    assert_eq!(lint_file(WAITLIST, &[threads], "waitlist"), []);
    let found = lint_file(WAITLIST, &[threads, ("snapshot.mode", Some("initial"))], "waitlist");
    let codes: Vec<&str> = found.into_iter().map(|found| found.0).collect();
    assert_eq!(codes, ["lint-snapshot", "lint-threads"]);
}

#[test]
fn what_statements_hold_is_not_shown() {
    let mut config = shipped(WAITLIST);
    config.insert("database.initial.statements".to_owned(), "SET x = 'hunter2'".to_owned());
    let found = of_file("c", &config, &expected_of_waitlist());
    assert!(!format!("{found:?}").contains("hunter2"));
}
