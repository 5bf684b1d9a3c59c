//! What an installation should be, from its configuration and its handlers.

use std::time::Duration;

use crate::clients::brokers::Access;
use crate::clients::mailer::SmtpSettings;
use crate::dead_letter::topic;
use crate::decode::options::Options as Decoding;
use crate::decode::registry::client::RegistrySettings;
use crate::handlers::names::Names;

/// The table whose rows make the slot of a connector move on, and which the probe writes.
pub(super) const HEARTBEAT: (&str, &str) = ("afterwrite", "heartbeat");

/// What should be there.
#[derive(Debug, Clone)]
pub struct Expected {
    /// The source's name: the connector's `topic.prefix`.
    pub source: String,
    /// The brokers; none where the write-ahead log is read without them.
    pub brokers: Option<Access>,
    /// The groups, one a handler.
    pub groups: Vec<Group>,
    /// The tables that wake handlers, each once.
    pub tables: Vec<Table>,
    /// The publication, where the connector does not name another one.
    pub publication: String,
    /// Migrations of this version, by number and name.
    pub migrations: Vec<(i64, String)>,
    /// The script that grants what each role needs.
    pub grants: String,
    /// The roles that the script names: of the worker, and of the connector.
    pub roles: [String; 2],
    /// The names of the waitlist's tables; none in a program of other handlers.
    pub names: Option<Names>,
    /// Columns that are kept out of events, as `schema.table.column`.
    pub hidden_columns: Vec<String>,
    /// Columns that the worker itself leaves out of what it reads from the log, as `schema.table.column`.
    pub left_out: Vec<String>,
    /// How dead-letter topics should be.
    pub letters: Option<topic::Options>,
    /// How records are decoded.
    pub decoding: Decoding,
    /// Where schemas are.
    pub registry: RegistrySettings,
    /// The mail server, where a handler of the waitlist needs it.
    pub mail_server: Option<SmtpSettings>,
    /// How the names of groups' slots begin.
    pub slots_begin: String,
    /// A connector that is named instead of found by its prefix.
    pub connector: Option<String>,
    /// How long one question may take.
    pub patience: Duration,
}

/// A group.
#[derive(Debug, Clone)]
pub struct Group {
    /// Its full name.
    pub name: String,
    /// The name that commands take.
    pub short: String,
    /// The topics it reads: names, and patterns from `^` to `$`.
    pub topics: Vec<String>,
    /// Its slot, where it reads the log itself.
    pub slot: String,
}

/// A table that wakes handlers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Whether a handler refuses it without a primary key.
    pub needs_key: bool,
}

impl Expected {
    /// The tables that have to be published: those of handlers, and the one of the probe.
    pub(super) fn published(&self) -> Vec<(String, String)> {
        let routed = self
            .tables
            .iter()
            .map(|table| (table.schema.clone(), table.name.clone()));
        let heartbeat = std::iter::once((HEARTBEAT.0.to_owned(), HEARTBEAT.1.to_owned()));
        routed.chain(heartbeat).collect()
    }
}
