//! Every setting, its default and its limits.
//!
//! Defaults are overridden by `afterwrite.toml`, that by the environment (`AFTERWRITE__KAFKA__BROKERS`, and the names of
//! older deployments, which `AFTERWRITE__*` beats), and that by `--set kafka.brokers=…`. Whatever nobody reads or cannot
//! be true is refused at start, with its place, the reason and the remedy; [`load::load`] reports all mistakes at once. Secrets are
//! [`Secret`]s, which never print.

pub mod kafka;

pub mod wal;

pub mod engine;

pub mod waitlist;

pub mod schedule;

pub mod smtp;

pub mod value;

pub mod load;

mod file;

mod setting;

mod interpolation;

pub mod refusal;

pub mod wording;

mod ranges;

mod check;

mod files;

pub mod warning;

mod masking;

pub mod shown;

pub mod reference;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use self::engine::{Engine, Group, HandlerSettings};
use self::kafka::{DeadLetters, Kafka};
use self::schedule::Schedule;
use self::smtp::Smtp;
use self::value::{Endpoint, Secret};
use self::waitlist::{Fraud, Waitlist, Webhook};
use self::wal::Wal;
use crate::decode::options::{
    BinaryMode, DecimalMode, Format, HEARTBEAT_PREFIX, IntervalMode, SIGNAL_TABLES, TimePrecision,
    UNAVAILABLE_PLACEHOLDER,
};
use crate::telemetry;

/// All settings.
#[derive(Debug, Clone, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `[source]`: where changes come from and how they are encoded.
    pub source: Source,
    /// `[postgres]`: the database of the application and of the coordination state.
    pub postgres: Postgres,
    /// `[wal]`: the write-ahead log, where it is read without Kafka.
    pub wal: Wal,
    /// `[kafka]`: the brokers and the consumer groups.
    pub kafka: Kafka,
    /// `[registry]`: the schema registry of Avro encodings.
    pub registry: Registry,
    /// `[connect]`: Kafka Connect, where the connector runs.
    pub connect: Connect,
    /// `[engine]`: retries, time-outs, parallel work, windows; what every group has unless it says otherwise.
    pub engine: Engine,
    /// `[groups.NAME]`: what one group has instead.
    pub groups: BTreeMap<String, Group>,
    /// `[handlers.NAME]`: what one handler has instead.
    pub handlers: BTreeMap<String, HandlerSettings>,
    /// `[ledger]`: what was done with which event.
    pub ledger: Ledger,
    /// `[dead_letters]`: the topics of dead letters.
    pub dead_letters: DeadLetters,
    /// `[smtp]`: the mail server.
    pub smtp: Smtp,
    /// `[webhook]`: calls of webhooks.
    pub webhook: Webhook,
    /// `[waitlist]`: the application.
    pub waitlist: Waitlist,
    /// `[fraud]`: the fraud checks.
    pub fraud: Fraud,
    /// `[schedule]`: what runs by the clock.
    pub schedule: Schedule,
    /// `[log]`: what is logged, and the shape of log lines.
    pub log: Log,
    /// `[admin]`: health and metrics.
    pub admin: Admin,
    /// `[traces]`: spans of attempts.
    pub traces: Traces,
}

/// The names of all sections.
fn section_names() -> Vec<String> {
    let table = toml::Table::try_from(Config::default()).expect("defaults can be written in TOML");
    table.into_iter().map(|(name, _)| name).collect()
}

/// Where changes come from and how they are encoded.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Source {
    /// What kind of source.
    pub kind: SourceKind,
    /// Logical name of the source: the connector's `topic.prefix`, and the first part of every topic.
    pub name: String,
    /// How records are encoded.
    pub format: Format,
    /// How keys are encoded, where that is another way.
    pub key_format: Option<Format>,
    /// Tables whose rows only steer the connector: `schema.table`, `*` for any text.
    pub signal_tables: Vec<String>,
    /// Tables whose old rows are whole: `schema.table`, `*` for any text. Without it the database is asked at start.
    pub full_identity: Option<Vec<String>>,
    /// The connector's `unavailable.value.placeholder`.
    pub unavailable_placeholder: String,
    /// The connector's `topic.heartbeat.prefix`.
    pub heartbeat_prefix: String,
    /// The connector's `topic.heartbeat.name`, where it has one.
    pub heartbeat_topic: Option<String>,
    /// The connector's `decimal.handling.mode`.
    pub decimal: DecimalMode,
    /// The connector's `time.precision.mode`.
    pub time_precision: TimePrecision,
    /// The connector's `interval.handling.mode`.
    pub interval: IntervalMode,
    /// The connector's `binary.handling.mode`.
    pub binary: BinaryMode,
}

impl Default for Source {
    fn default() -> Self {
        Self {
            kind: SourceKind::Kafka,
            name: "waitlist".to_owned(),
            format: Format::Auto,
            key_format: None,
            signal_tables: SIGNAL_TABLES.map(str::to_owned).to_vec(),
            full_identity: None,
            unavailable_placeholder: UNAVAILABLE_PLACEHOLDER.to_owned(),
            heartbeat_prefix: HEARTBEAT_PREFIX.to_owned(),
            heartbeat_topic: None,
            decimal: DecimalMode::String,
            time_precision: TimePrecision::IsoString,
            interval: IntervalMode::String,
            binary: BinaryMode::Base64,
        }
    }
}

/// What kind of source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceKind {
    /// Topics that Debezium writes.
    Kafka,
    /// The write-ahead log of Postgres itself, without Kafka.
    Wal,
}

impl SourceKind {
    /// Whether there are brokers. Without them nothing may ask for one, and letters are kept in Postgres.
    pub fn has_brokers(self) -> bool {
        match self {
            Self::Kafka => true,
            Self::Wal => false,
        }
    }
}

/// The database of the application and of the coordination state.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Postgres {
    /// `postgres://user:password@host:port/database?sslmode=…`.
    pub url: Secret,
    /// How long opening a connection may take.
    pub connect_timeout_ms: u64,
}

impl Default for Postgres {
    fn default() -> Self {
        Self {
            url: Secret::new("postgres://localhost:5432/waitlist"),
            connect_timeout_ms: 10_000,
        }
    }
}

/// The schema registry of Avro encodings.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Registry {
    /// Base address of the Confluent-compatible API; user and password may be part of it.
    pub url: Endpoint,
    /// User name, where the registry asks for one.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
    /// Certificates of the authorities that may have signed the registry's, in PEM; absent: those the system trusts.
    pub ca_pem: Option<Secret>,
    /// Our own certificate with its chain, in PEM, where the registry asks for one.
    pub client_certificate_pem: Option<Secret>,
    /// The key of that certificate, in PEM.
    pub client_key_pem: Option<Secret>,
    /// How long one request may take.
    pub timeout_ms: u64,
    /// Schemas that are kept in memory; the one that was not used for longest makes room.
    pub schemas_max: usize,
    /// How often a schema that the registry does not know is asked for before that is believed.
    pub unknown_asks_max: u32,
    /// Pause between such questions.
    pub unknown_pause_ms: u64,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            url: Endpoint::local(8081),
            user: None,
            password: None,
            ca_pem: None,
            client_certificate_pem: None,
            client_key_pem: None,
            timeout_ms: 5_000,
            schemas_max: 4_096,
            unknown_asks_max: 5,
            unknown_pause_ms: 400,
        }
    }
}

/// Kafka Connect, where the connector runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Connect {
    /// Base address of the REST API; user and password may be part of it.
    pub url: Endpoint,
    /// Certificates of the authorities that may have signed Connect's, in PEM; absent: those the system trusts.
    pub ca_pem: Option<Secret>,
    /// How long one request may take. Connect itself gives up on a request after 90 s.
    pub timeout_ms: u64,
}

impl Default for Connect {
    fn default() -> Self {
        Self {
            url: Endpoint::local(8083),
            ca_pem: None,
            timeout_ms: 15_000,
        }
    }
}

/// What was done with which event.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ledger {
    /// How many days of it are kept at least.
    pub retention_days: u32,
}

impl Default for Ledger {
    fn default() -> Self {
        Self { retention_days: 14 }
    }
}

/// What is logged, and the shape of log lines.
#[derive(Debug, Clone, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `human` or `json`.
    pub format: telemetry::Format,
    /// What is logged: levels by the names of modules (`RUST_LOG`). It is read again at SIGHUP.
    pub filter: Option<String>,
}

/// Health and metrics over HTTP.
#[derive(Debug, Clone, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// `host:port` that is listened on; absent: none.
    pub listen: Option<String>,
}

/// Spans of attempts, by OTLP over HTTP.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Traces {
    /// Base address of the receiver; absent: nothing is traced.
    pub endpoint: Option<Endpoint>,
    /// Headers of each request: `name=value`, separated by commas.
    pub headers: Option<Secret>,
    /// How long one request may take.
    pub timeout_ms: u64,
    /// The share of traces that begin here and are exported.
    pub sampled: f64,
}

impl Default for Traces {
    fn default() -> Self {
        Self {
            endpoint: None,
            headers: None,
            timeout_ms: 5_000,
            sampled: 1.0,
        }
    }
}

impl Traces {
    /// The headers, one by one; `None` when the text is no list of them.
    pub fn header_list(&self) -> Option<Vec<(String, String)>> {
        let text = self.headers.as_ref().map(Secret::expose).unwrap_or_default();
        let pairs = text.split(',').filter(|pair| !pair.trim().is_empty());
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=')?;
            let (name, value) = (name.trim(), value.trim());
            let is_name = reqwest::header::HeaderName::from_bytes(name.as_bytes()).is_ok();
            let is_value = reqwest::header::HeaderValue::from_str(value).is_ok();
            (is_name && is_value).then(|| (name.to_owned(), value.to_owned()))
        };
        pairs.map(pair).collect()
    }
}
