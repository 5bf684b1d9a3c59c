//! The connectors, the publication and the tables must speak of the same things: what is captured, what is published, what
//! has a campaign. These tests read the files and start nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::reading::{CONNECTORS, between, json, names, read, text};

/// `schema.table` names of the publication.
fn published_tables() -> BTreeSet<String> {
    let sql = read("infra/postgres/publication.sql");
    between(&sql, "ALTER PUBLICATION afterwrite_waitlist SET TABLE", ";")
        .split(',')
        .map(|table| table.trim().to_owned())
        .collect()
}

#[test]
fn a_connector_captures_what_the_publication_publishes() {
    for path in CONNECTORS {
        let connector = json(path);
        let captured: BTreeSet<String> = text(&connector["table.include.list"])
            .split(',')
            .map(|table| table.replace("\\.", "."))
            .collect();
        assert_eq!(captured, published_tables(), "{path}");
        assert_eq!(text(&connector["publication.name"]), "afterwrite_waitlist", "{path}");
    }
    let never = [
        "public.webhooks",
        "public.suppressions",
        "public.email_templates",
        "public.ip_safelist",
    ];
    assert!(never.iter().all(|table| !published_tables().contains(*table)));
}

/// A handler that is routed to a table which is not published would never be woken.
#[test]
fn every_table_that_wakes_a_handler_is_published_and_captured() {
    let code = read("src/handlers/mod.rs");
    let table = between(&code, "const ROUTING: &[Wakes] = &[", "\n];");
    let routed: BTreeSet<String> = table
        .split("table: \"")
        .skip(1)
        .map(|line| format!("public.{}", line.split('"').next().expect("a name")))
        .collect();
    assert_eq!(
        routed.len(),
        table.lines().filter(|line| line.contains("Wakes {")).count()
    );
    assert!(routed.len() > 5, "{routed:?}");
    let published = published_tables();
    let missing: Vec<&String> = routed.difference(&published).collect();
    assert!(missing.is_empty(), "{missing:?}");
    for path in CONNECTORS {
        let captured = text(&json(path)["table.include.list"]).replace("\\.", ".");
        let missing: Vec<&String> = routed
            .iter()
            .filter(|table| !captured.split(',').any(|known| known == *table))
            .collect();
        assert!(missing.is_empty(), "{path}: {missing:?}");
    }
}

/// The SQL that makes tables of `public`.
fn tables_sql() -> String {
    let files = [
        "waitlist.sql",
        "migrations/0002_waitlist_worker.sql",
        "migrations/0014_ranking.sql",
    ];
    files
        .iter()
        .map(|file| read(&format!("infra/postgres/{file}")))
        .collect()
}

/// The definition of a table in the SQL of the application or of the worker.
fn table_definition(table: &str) -> String {
    let sql = tables_sql();
    let short = table.strip_prefix("public.").unwrap_or(table);
    let start = [
        format!("CREATE TABLE {short} ("),
        format!("CREATE TABLE public.{short} ("),
    ]
    .into_iter()
    .find(|start| sql.contains(start.as_str()))
    .unwrap_or_else(|| panic!("no table {table}"));
    // Where the columns end, storage parameters may follow.
    between(&sql, &start, "\n)").to_owned()
}

#[test]
fn every_published_table_has_a_primary_key_and_full_identity() {
    let sql = tables_sql();
    for table in published_tables() {
        assert!(table_definition(&table).contains("PRIMARY KEY"), "{table}");
        let short = table.strip_prefix("public.").unwrap_or(&table);
        let identity = [short, table.as_str()].map(|name| format!("ALTER TABLE {name} REPLICA IDENTITY FULL;"));
        assert!(identity.iter().any(|statement| sql.contains(statement)), "{table}");
    }
}

#[test]
fn exactly_the_captured_tables_with_a_campaign_are_routed_by_campaign() {
    let with_campaign: BTreeSet<String> = published_tables()
        .into_iter()
        .filter(|table| {
            table_definition(table)
                .lines()
                .any(|line| line.trim().starts_with("campaign_id "))
        })
        .collect();
    for path in CONNECTORS {
        let connector = json(path);
        let pattern = text(&connector["predicates.ofACampaign.pattern"]);
        let start = format!("{}\\.public\\.(", text(&connector["topic.prefix"]));
        let routed: BTreeSet<String> = between(pattern, &start, ")")
            .split('|')
            .map(|table| format!("public.{table}"))
            .collect();
        assert!(
            pattern.starts_with(&start) && pattern.ends_with(')'),
            "{path}: {pattern}"
        );
        assert_eq!(routed, with_campaign, "{path}");
        assert_eq!(
            connector["transforms.route.partition.topic.num"],
            connector["topic.creation.default.partitions"]
        );
    }
}

#[test]
fn no_secret_column_is_captured_and_no_secret_is_written_into_a_connector() {
    let excluded = names(&[
        "public.waitlist_users.verification_token",
        "public.email_log.recipient",
        "public.email_log.subject",
        "public.email_log.variables",
    ]);
    for path in CONNECTORS {
        let connector = json(path);
        let columns: BTreeSet<String> = text(&connector["column.exclude.list"])
            .split(',')
            .map(|column| column.replace("\\.", "."))
            .collect();
        assert_eq!(columns, excluded, "{path}");
        for (name, value) in connector.as_object().expect("a connector") {
            let secret = ["user", "password", "hostname", "url"]
                .iter()
                .any(|word| name.ends_with(word));
            assert!(!secret || text(value).starts_with("${env:DEBEZIUM_"), "{path}: {name}");
        }
    }
    for column in &excluded {
        let (table, name) = column.rsplit_once('.').expect("a column");
        assert!(
            table_definition(table)
                .lines()
                .any(|line| line.trim().starts_with(&format!("{name} "))),
            "{column}"
        );
    }
}

#[test]
fn the_avro_connector_differs_in_its_converters_and_names_only() {
    let [plain, avro] = CONNECTORS.map(json);
    let differs = |name: &str| {
        name.starts_with("key.converter")
            || name.starts_with("value.converter")
            || ["topic.prefix", "slot.name", "predicates.ofACampaign.pattern"].contains(&name)
            || ["schema.name.adjustment.mode", "field.name.adjustment.mode"].contains(&name)
    };
    let common = |connector: &Value| -> BTreeMap<String, Value> {
        let entries = connector.as_object().expect("a connector").iter();
        entries
            .filter(|(name, _)| !differs(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    };
    assert_eq!(common(&plain), common(&avro));
    assert_ne!(plain["slot.name"], avro["slot.name"], "one slot feeds one connector");
    assert_ne!(plain["topic.prefix"], avro["topic.prefix"]);
    for side in ["key", "value"] {
        assert_eq!(
            text(&plain[format!("{side}.converter.replace.null.with.default")]),
            "false"
        );
    }
}
