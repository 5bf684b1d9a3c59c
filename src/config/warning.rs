//! What is legal and probably not meant: said, and not refused.

use std::fmt;

use serde::Serialize;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use super::load::{Inputs, OLDER_NAMES, Reading};
use super::refusal::{Place, Wrong};
use super::smtp::{MailTransport, SmtpTls};
use super::value::Secret;
use super::waitlist::is_local_host;
use super::{Config, SourceKind};

/// Something that is probably not meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// Where the setting was made.
    pub place: Place,
    /// What about it, and what to do.
    #[serde(flatten)]
    pub what: Wrong,
}

impl fmt::Display for Warning {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.place, self.what)
    }
}

/// Sections that only one kind of source reads.
const OF_KAFKA: [&str; 2] = ["kafka", "registry"];
const OF_WAL: [&str; 1] = ["wal"];

/// Settings of `[source]` that the log has no use for: it needs no connector.
const OF_CONNECTORS: [&str; 8] = [
    "source.format",
    "source.key_format",
    "source.heartbeat_prefix",
    "source.heartbeat_topic",
    "source.decimal",
    "source.time_precision",
    "source.interval",
    "source.binary",
];

/// What is probably not meant, whatever handlers there are; each once.
pub(super) fn warnings(reading: &Reading, inputs: &Inputs) -> Vec<Warning> {
    let mut found: Vec<Wrong> = Vec::new();
    of_the_other_source(reading, &mut found);
    of_the_network(&reading.config, &mut found);
    of_processes(reading, &mut found);
    let mut warnings = placed(reading, found);
    warnings.extend(variables_of_nothing(inputs));
    warnings
}

/// What is probably not meant of a configuration of the waitlist worker.
pub fn of_waitlist(reading: &Reading) -> Vec<Warning> {
    let mut found = Vec::new();
    of_mails(&reading.config, &mut found);
    placed(reading, found)
}

fn placed(reading: &Reading, found: Vec<Wrong>) -> Vec<Warning> {
    let placed = found.into_iter().map(|what| Warning {
        place: reading.place_of(&what.setting),
        what,
    });
    placed.collect()
}

/// Settings that this kind of source never reads. Those that come by the names of older deployments are left out: they are
/// set for other programs too.
fn of_the_other_source(reading: &Reading, found: &mut Vec<Wrong>) {
    let sections: &[&str] = match reading.config.source.kind {
        SourceKind::Kafka => &OF_WAL,
        SourceKind::Wal => &OF_KAFKA,
    };
    let is_older = |place: &Place| match place {
        Place::Environment { variable } => OLDER_NAMES.iter().any(|(name, _)| name == variable),
        _ => false,
    };
    for (setting, place) in reading.made() {
        let section = setting.split('.').next().unwrap_or_default();
        let is_connectors = reading.config.source.kind == SourceKind::Wal && OF_CONNECTORS.contains(&setting);
        let is_of_other = sections.contains(&section) && setting != "kafka.group_prefix";
        if is_older(place) || !(is_of_other || is_connectors) {
            continue;
        }
        let (reason, remedy) = match reading.config.source.kind {
            SourceKind::Kafka => ("source.kind is kafka, and only wal reads this", "leave it out"),
            SourceKind::Wal => (
                "source.kind is wal, and only kafka reads this",
                "leave it out, unless `afterwrite graduate` is to come",
            ),
        };
        found.push(Wrong::new(setting, reason, remedy));
    }
}

fn of_mails(config: &Config, found: &mut Vec<Wrong>) {
    let (smtp, waitlist) = (&config.smtp, &config.waitlist);
    let mut warn = |holds: bool, setting: &str, reason: &str, remedy: &str| {
        if !holds {
            found.push(Wrong::new(setting, reason, remedy));
        }
    };
    warn(
        waitlist.secret.is_some() || !config.postgres_is_local(),
        "waitlist.secret",
        "it is not set: a key is used that everybody knows, which is fine for trying out only",
        "set it to at least 16 random characters, the same in every process and for ever",
    );
    warn(
        waitlist.public_url.is_some(),
        "waitlist.public_url",
        "it is not set: mails about places and milestones are skipped, because nobody could unsubscribe",
        "set it to where a worker with admin.listen is reached from everywhere",
    );
    warn(
        waitlist.public_url.is_none() || config.admin.listen.is_some(),
        "admin.listen",
        "it is not set: links to unsubscribe lead to waitlist.public_url, which another process has to answer",
        "set it, unless another process does",
    );
    warn(
        smtp.effective_tls() != SmtpTls::Opportunistic,
        "smtp.tls",
        "whoever is between can prevent TLS, and mails cross the network in clear text then",
        "write starttls where the server has it",
    );
    if config.postgres_is_local() {
        return;
    }
    warn(
        smtp.transport == MailTransport::File || smtp.host.is_some(),
        "smtp.host",
        "it is not set: mails go to this machine, and Postgres is on another",
        "name the mail server",
    );
    warn(
        smtp.transport == MailTransport::Smtp,
        "smtp.transport",
        "mails become files and nobody gets them, and Postgres is on another machine",
        "write smtp where mails are to arrive",
    );
    warn(
        !smtp.from_address.ends_with("@localhost"),
        "smtp.from_address",
        "mails come from localhost, which most servers refuse, and Postgres is on another machine",
        "write an address of a domain that may send mails",
    );
    for (setting, url) in [
        ("waitlist.verification_url", &waitlist.verification_url),
        ("waitlist.referral_url", &waitlist.referral_url),
    ] {
        let host = url
            .parse::<url::Url>()
            .ok()
            .and_then(|url| url.host_str().map(str::to_owned));
        warn(
            !host.is_some_and(|host| is_local_host(&host)),
            setting,
            "links of mails lead to the reader's own machine, and Postgres is on another than this",
            "write the application's address",
        );
    }
}

fn of_the_network(config: &Config, found: &mut Vec<Wrong>) {
    let mut databases = vec![("postgres.url", config.postgres.url.expose())];
    databases.extend(config.wal.url.iter().map(|url| ("wal.url", url.expose())));
    for (setting, url) in databases {
        let Ok(options) = url.parse::<PgConnectOptions>() else {
            continue;
        };
        let is_local = options.get_socket().is_some() || is_local_host(options.get_host());
        if !is_local && matches!(options.get_ssl_mode(), PgSslMode::Disable) {
            found.push(Wrong::new(
                setting,
                "the password and all rows cross the network in clear text",
                "write sslmode=verify-full, or require",
            ));
        }
    }
    if config.source.kind == SourceKind::Wal {
        return;
    }
    of_the_brokers(config, found);
    let brokers = config.kafka.brokers.split(',').count();
    if brokers > 1 && config.dead_letters.replication_factor == Some(1) {
        found.push(Wrong::new(
            "dead_letters.replication_factor",
            "there are several brokers, and letters would be lost with one of them",
            "write 3, or leave it out for the brokers' own default",
        ));
    }
}

/// What properties of librdkafka say about TLS and logins, and nobody acts on, or everybody may see.
fn of_the_brokers(config: &Config, found: &mut Vec<Wrong>) {
    let properties = &config.kafka.properties.0;
    let property = |name: &str| properties.get(name).map(Secret::expose).unwrap_or_default();
    let protocol = property("security.protocol").to_ascii_lowercase();
    let mut warn = |name: &str, reason: &str, remedy: &str| {
        found.push(Wrong::new(format!("kafka.properties.{name}"), reason, remedy));
    };
    let begins = |beginning: &str| properties.keys().find(|name| name.starts_with(beginning));
    if let Some(name) = begins("sasl.").filter(|_| !protocol.starts_with("sasl")) {
        warn(
            name,
            "nobody logs in: security.protocol says so",
            "write security.protocol sasl_ssl, or leave this out",
        );
    }
    if let Some(name) = begins("ssl.").filter(|_| !protocol.ends_with("ssl")) {
        warn(
            name,
            "nobody speaks TLS: security.protocol says so",
            "write security.protocol ssl or sasl_ssl, or leave this out",
        );
    }
    let hosts = config
        .kafka
        .brokers
        .split(',')
        .filter_map(|broker| broker.trim().rsplit_once(':'));
    let is_local = hosts.into_iter().all(|(host, _)| is_local_host(host));
    if protocol == "sasl_plaintext" && !is_local {
        warn(
            "security.protocol",
            "all records, and with PLAIN the password, cross the network in clear text",
            "write sasl_ssl",
        );
    }
    let checks_none = property("enable.ssl.certificate.verification") == "false";
    if checks_none || property("ssl.endpoint.identification.algorithm") == "none" {
        let name = match checks_none {
            true => "enable.ssl.certificate.verification",
            false => "ssl.endpoint.identification.algorithm",
        };
        warn(
            name,
            "whoever is between can pass for the brokers, and read the password",
            "leave it out, and write the authority's certificate in ssl.ca.location",
        );
    }
}

fn of_processes(reading: &Reading, found: &mut Vec<Wrong>) {
    let config = &reading.config;
    let is_in_file = matches!(reading.place_of("kafka.instance_id"), Place::File { .. });
    if config.kafka.instance_id.is_some() && is_in_file && reading.reference("kafka.instance_id").is_none() {
        found.push(Wrong::new(
            "kafka.instance_id",
            "every process that reads this file has this name, and a second one would end the first",
            "write ${env:HOSTNAME}, or set it in the environment of each process",
        ));
    }
    for (name, handler) in &config.handlers {
        let of_group = config.engine_of(name).lanes_max;
        if handler.lanes_max.is_some_and(|own| own > of_group) {
            found.push(Wrong::new(
                format!("handlers.{name}.lanes_max"),
                format!("the group has lanes_max {of_group}, so no more than that run"),
                format!("raise groups.{name}.lanes_max, or lower this"),
            ));
        }
    }
}

/// Variables that look like settings and are none: one underscore where two belong.
fn variables_of_nothing(inputs: &Inputs) -> Vec<Warning> {
    let sections: Vec<String> = super::section_names()
        .iter()
        .map(|name| name.to_ascii_uppercase())
        .collect();
    let mut found = Vec::new();
    for name in inputs.environment.keys() {
        let Some(rest) = name.strip_prefix("AFTERWRITE_").filter(|rest| !rest.starts_with('_')) else {
            continue;
        };
        let section = sections.iter().find(|section| rest.starts_with(&format!("{section}_")));
        if let Some(section) = section {
            let key = rest[section.len()..].trim_start_matches('_');
            found.push(Warning {
                place: Place::Environment { variable: name.clone() },
                what: Wrong::new(
                    "",
                    "this variable sets nothing",
                    format!("write two underscores between the parts: AFTERWRITE__{section}__{key}"),
                ),
            });
        }
    }
    found
}
