//! The settings as they are in effect, and where each was made; without secrets.

use serde::Serialize;
use toml::{Table, Value};

use super::load::Reading;
use super::refusal::Place;
use super::smtp::MailTransport;
use super::value::Secret;
use super::{Config, masking, reference};

/// One setting as it is in effect.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shown {
    /// `section.key`.
    pub setting: String,
    /// Its value; none where it is not set. What is secret is masked, and what was fetched by a reference is shown as the
    /// reference.
    pub value: Option<Value>,
    /// Where it was made.
    pub origin: Place,
}

/// Where everything is that a worker works with, without secrets; nothing where it does without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// The database.
    pub postgres: String,
    /// The brokers.
    pub brokers: Option<String>,
    /// The registry.
    pub registry: Option<String>,
    /// The mail server, or the folder in its place.
    pub mail: Option<String>,
}

/// Where everything is.
pub fn addresses(config: &Config) -> Addresses {
    let has_brokers = config.source.kind.has_brokers();
    let smtp = &config.smtp;
    Addresses {
        postgres: masking::database(config.postgres.url.expose()),
        brokers: has_brokers.then(|| {
            let brokers = config.kafka.brokers.split(',').map(masking::address);
            brokers.collect::<Vec<_>>().join(",")
        }),
        registry: has_brokers.then(|| config.registry.url.to_string()),
        mail: match smtp.transport {
            MailTransport::Smtp => Some(format!("{}:{}", smtp.effective_host(), smtp.port)),
            MailTransport::File => smtp.directory.clone(),
        },
    }
}

/// Sections that are called after something: what is in them is known only where it is set.
const NAMED: [&str; 6] = [
    "groups.",
    "handlers.",
    "kafka.properties.",
    "fraud.checks.",
    "schedule.jobs.",
    "waitlist.tables.",
];

/// Every setting, sorted by its name.
pub fn shown(reading: &Reading) -> Vec<Shown> {
    let table = Table::try_from(&reading.config).expect("every setting came from TOML, so it can go back there");
    let mut values = Vec::new();
    leaves("", table, &mut values);
    let is_there = |setting: &str, values: &[(String, Option<Value>)]| values.iter().any(|(known, _)| known == setting);
    for entry in reference::entries() {
        let is_named = NAMED.iter().any(|section| entry.setting.starts_with(section));
        if !is_named && !is_there(&entry.setting, &values) {
            values.push((entry.setting, None));
        }
    }
    values.sort_by(|(one, _), (other, _)| one.cmp(other));
    let shown = values.into_iter().map(|(setting, value)| Shown {
        value: value.map(|value| printable(reading, &setting, value)),
        origin: reading.place_of(&setting),
        setting,
    });
    shown.collect()
}

fn leaves(path: &str, table: Table, into: &mut Vec<(String, Option<Value>)>) {
    for (key, value) in table {
        let path = match path {
            "" => key,
            path => format!("{path}.{key}"),
        };
        match value {
            Value::Table(inner) => leaves(&path, inner, into),
            value => into.push((path, Some(value))),
        }
    }
}

fn printable(reading: &Reading, setting: &str, value: Value) -> Value {
    let config = &reading.config;
    let database = |url: &Secret| Value::String(masking::database(url.expose()));
    match setting {
        "postgres.url" => database(&config.postgres.url),
        "wal.url" => config.wal.url.as_ref().map_or(value, database),
        _ => {
            let is_masked = value.as_str() == Some(masking::MASK);
            // References are for secrets, also where a setting is none by itself.
            let written = reading.reference(setting).filter(|_| !is_masked).cloned();
            masking::texts(written.unwrap_or(value))
        }
    }
}
