//! The write-ahead log of Postgres, where it is read without Kafka.

use serde::{Deserialize, Serialize};

use super::value::Secret;

/// Longest name of a replication slot (`NAMEDATALEN - 1`).
pub const SLOT_BYTES_MAX: usize = 63;

/// The write-ahead log, where `source.kind` is `wal`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Wal {
    /// Address of the same database for a role that may replicate; `postgres.url` when absent.
    pub url: Option<Secret>,
    /// The publication that says which tables' changes are sent.
    pub publication: String,
    /// Columns that are left out of events, as `schema.table.column`: what the connector's `column.exclude.list` names.
    pub excluded_columns: Vec<String>,
    /// While the log that is written and not confirmed by a group is more than this, its jobs that wait are parked as letters,
    /// so that the server need not keep the log for them; 0 switches that off.
    pub slot_lag_bytes_max: u64,
}

/// A gibibyte: an outage of minutes parks nothing, and the disk of a database has room for as much of each group.
const SLOT_LAG_BYTES_MAX: u64 = 1 << 30;

impl Default for Wal {
    fn default() -> Self {
        let excluded = [
            "public.waitlist_users.verification_token",
            "public.email_log.recipient",
            "public.email_log.subject",
            "public.email_log.variables",
        ];
        Self {
            url: None,
            publication: "afterwrite_waitlist".to_owned(),
            excluded_columns: excluded.map(str::to_owned).to_vec(),
            slot_lag_bytes_max: SLOT_LAG_BYTES_MAX,
        }
    }
}

/// The slot of a group: its name, in the letters that a slot can have.
pub fn slot_of(group: &str) -> String {
    let letter = |letter: char| match letter.to_ascii_lowercase() {
        letter @ ('a'..='z' | '0'..='9' | '_') => letter,
        _ => '_',
    };
    group.chars().map(letter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_called_as_its_group_is() {
        assert_eq!(slot_of("afterwrite.email"), "afterwrite_email");
        assert_eq!(slot_of("Team-1.Näh"), "team_1_n_h");
    }
}
