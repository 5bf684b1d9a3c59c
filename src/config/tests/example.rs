//! The example names every setting.

use std::collections::BTreeSet;

use super::{CERTIFICATE, EXAMPLE, KEY, as_setting, fields_of, loaded};
use crate::config::Config;
use crate::config::schedule::{Schedule, ScheduledJob};
use crate::config::waitlist::{FraudCheckSettings, TableNames};

/// Files of secrets that the example refers to, and what is in them.
const FILES: [(&str, &str); 7] = [
    ("/run/secrets/smtp_password", "x"),
    ("/run/secrets/wal_password", "x"),
    ("/run/secrets/registry_password", "x"),
    ("/etc/afterwrite/smtp-ca.pem", CERTIFICATE),
    ("/etc/afterwrite/registry-ca.pem", CERTIFICATE),
    ("/etc/afterwrite/registry-client.pem", CERTIFICATE),
    ("/run/secrets/registry-client-key.pem", KEY),
];

#[test]
fn the_example_names_every_setting() {
    // All settings at once: certificates ask for https, an assignor for a protocol that has it, and files of secrets are not
    // there.
    let mut example = EXAMPLE
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
        example = example.replace(&format!("${{file:{file}}}"), content);
    }
    let uncommented: Vec<&str> = example
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
