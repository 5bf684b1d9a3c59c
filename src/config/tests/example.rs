//! The example names every setting, and is what the code says.

use std::collections::BTreeSet;

use super::{CERTIFICATE, KEY, as_setting, example, fields_of, loaded};
use crate::config::schedule::{Schedule, ScheduledJob};
use crate::config::waitlist::{FraudCheckSettings, TableNames};
use crate::config::{Config, reference};

/// Files of secrets that the example refers to, and what is in them.
const FILES: [(&str, &str); 9] = [
    ("/run/secrets/smtp_password", "x"),
    ("/run/secrets/traces_key", "x"),
    ("/run/secrets/wal_password", "x"),
    ("/run/secrets/registry_password", "x"),
    ("/etc/afterwrite/smtp-ca.pem", CERTIFICATE),
    ("/etc/afterwrite/registry-ca.pem", CERTIFICATE),
    ("/etc/afterwrite/connect-ca.pem", CERTIFICATE),
    ("/etc/afterwrite/registry-client.pem", CERTIFICATE),
    ("/run/secrets/registry-client-key.pem", KEY),
];

/// `UPDATE_EXAMPLE=1` writes it anew.
#[test]
fn the_example_is_what_config_reference_prints() {
    let made = reference::file();
    if std::env::var_os("UPDATE_EXAMPLE").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/afterwrite.example.toml");
        std::fs::write(path, &made).unwrap();
        return;
    }
    assert!(
        made == example(),
        "write it anew: UPDATE_EXAMPLE=1 cargo test --features testkit --lib the_example_is"
    );
}

#[test]
fn each_entry_of_the_reference_says_what_it_is_for_and_what_it_takes() {
    for entry in reference::entries() {
        assert!(!entry.about.is_empty() && !entry.takes.is_empty(), "{entry:?}");
        assert!(entry.default.is_some() != entry.example.is_some(), "{entry:?}");
    }
    let takes = |setting: &str| {
        let entry = reference::entries().into_iter().find(|entry| entry.setting == setting);
        entry.map(|entry| entry.takes).unwrap_or_default()
    };
    for (setting, expected) in [
        ("source.kind", "one of kafka, wal"),
        ("source.binary", "one of base64, bytes, base64-url-safe, hex"),
        (
            "registry.unknown_pause_ms",
            "a whole number of milliseconds, 1 to 60000",
        ),
        ("groups.email.lanes_max", "a whole number, 1 to 10000"),
        ("engine.shutdown_grace_ms", "a whole number of milliseconds, 0 or more"),
        ("fraud.checks.velocity.confidence", "a number, 0 to 1"),
        ("smtp.password", "a text, which is never printed"),
        ("kafka.topics", "a list such as [\"a\", \"b\"]"),
        ("schedule.enabled", "true or false"),
    ] {
        assert_eq!(takes(setting), expected, "{setting}");
    }
}

#[test]
fn the_example_names_every_setting() {
    // All settings at once: certificates ask for https, an assignor for a protocol that has it, and files of secrets are not
    // there.
    let mut text = example()
        .replacen(
            "#url = \"http://localhost:8083\"",
            "#url = \"https://localhost:8083\"",
            1,
        )
        .replacen(
            "#url = \"http://localhost:8081\"",
            "#url = \"https://localhost:8081\"",
            1,
        )
        .replacen(
            "#group_protocol = \"cooperative-sticky\"",
            "#group_protocol = \"eager\"",
            1,
        );
    for (file, content) in FILES {
        text = text.replace(&format!("${{file:{file}}}"), content);
    }
    let uncommented: Vec<&str> = text
        .lines()
        .filter_map(|line| as_setting(line).or(Some(line)))
        .collect();
    let environment = [("WAITLIST_SECRET", "0123456789abcdef")];
    // Mails go to a server or to a folder.
    let fitting: Vec<&str> = uncommented
        .iter()
        .filter(|line| !line.starts_with("directory = "))
        .copied()
        .collect();
    loaded(&fitting.join("\n"), &environment, &[]).expect("the example is right");

    let table: toml::Table = uncommented.join("\n").parse().expect("it was just read");
    let shown = |path: &str| -> BTreeSet<String> {
        let section = path.split('.').filter(|part| !part.is_empty());
        let found = section.fold(&table, |table, part| table[part].as_table().expect("it is a section"));
        found.keys().cloned().collect()
    };
    let sections = [
        ("", fields_of::<Config>()),
        ("source", fields_of::<crate::config::Source>()),
        ("postgres", fields_of::<crate::config::Postgres>()),
        ("wal", fields_of::<crate::config::wal::Wal>()),
        ("kafka", fields_of::<crate::config::kafka::Kafka>()),
        ("registry", fields_of::<crate::config::Registry>()),
        ("connect", fields_of::<crate::config::Connect>()),
        ("engine", fields_of::<crate::config::engine::Engine>()),
        ("groups.email", fields_of::<crate::config::engine::Group>()),
        ("handlers.email", fields_of::<crate::config::engine::HandlerSettings>()),
        ("ledger", fields_of::<crate::config::Ledger>()),
        ("dead_letters", fields_of::<crate::config::kafka::DeadLetters>()),
        ("smtp", fields_of::<crate::config::smtp::Smtp>()),
        ("webhook", fields_of::<crate::config::waitlist::Webhook>()),
        ("waitlist", fields_of::<crate::config::waitlist::Waitlist>()),
        ("waitlist.tables.waitlist_users", fields_of::<TableNames>()),
        ("fraud", fields_of::<crate::config::waitlist::Fraud>()),
        ("fraud.checks.velocity", fields_of::<FraudCheckSettings>()),
        ("schedule", fields_of::<Schedule>()),
        ("schedule.jobs.cleanup", fields_of::<ScheduledJob>()),
        ("log", fields_of::<crate::config::Log>()),
        ("admin", fields_of::<crate::config::Admin>()),
        ("traces", fields_of::<crate::config::Traces>()),
    ];
    for section in fields_of::<Config>() {
        let covered = sections
            .iter()
            .any(|(path, _)| path.split('.').next() == Some(section.as_str()));
        assert!(covered, "[{section}] is not compared with the example");
    }
    for (path, fields) in sections {
        assert_eq!(shown(path), fields, "[{path}]");
    }
}
