//! An installation to judge by, and that the list of codes holds what it says.

use std::collections::BTreeSet;
use std::time::Duration;

use super::all_codes::ALL;
use super::doors;
use super::expected::{Expected, Group, Table};
use super::finding::Code;
use crate::decode::registry::client::RegistrySettings;

/// One group over one table.
pub(super) fn expected() -> Expected {
    Expected {
        source: "aw".to_owned(),
        brokers: Some(crate::clients::brokers::Access {
            brokers: String::new(),
            properties: Vec::new(),
        }),
        groups: vec![Group {
            name: "aw.email".to_owned(),
            short: "email".to_owned(),
            topics: vec!["aw.public.orders".to_owned()],
            slot: "aw_email".to_owned(),
        }],
        tables: vec![Table {
            schema: "public".to_owned(),
            name: "orders".to_owned(),
            needs_key: true,
        }],
        publication: "aw".to_owned(),
        migrations: vec![(1, "one".to_owned()), (2, "two".to_owned())],
        grants: String::new(),
        roles: ["worker".to_owned(), "reader".to_owned()],
        names: None,
        hidden_columns: Vec::new(),
        left_out: Vec::new(),
        letters: None,
        decoding: crate::decode::options::Options::default(),
        registry: RegistrySettings {
            url: String::new(),
            timeout: Duration::from_secs(1),
            basic_auth: None,
            authorities: None,
            identity: None,
            remembered_max: 1,
            unknown_asks_max: 1,
            unknown_pause: Duration::from_secs(1),
        },
        mail_server: None,
        slots_begin: "aw_".to_owned(),
        connector: None,
        patience: Duration::from_secs(1),
    }
}

#[test]
fn each_code_has_a_name_of_its_own_and_is_in_the_document() {
    let document = include_str!("../../docs/DOCTOR.md");
    let all: Vec<&Code> = ALL.iter().copied().chain(doors::ALL).collect();
    let names: BTreeSet<&str> = all.iter().map(|code| code.name).collect();
    assert_eq!(names.len(), all.len(), "two codes share a name");
    let lines: Vec<String> = all
        .iter()
        .map(|code| {
            format!(
                "| `{}` | {} | {} | {} |",
                code.name,
                code.severity.name(),
                code.leg.name(),
                code.why
            )
        })
        .collect();
    let listed: Vec<&str> = document.lines().filter(|line| line.starts_with("| `")).collect();
    assert_eq!(
        listed,
        lines,
        "docs/DOCTOR.md lists other codes; it should have:\n{}",
        lines.join("\n")
    );
}
