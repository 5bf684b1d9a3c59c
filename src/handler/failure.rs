//! Why a handler failed, and what follows from it: whether it may heal is said by the error itself.

use std::fmt;
use std::time::Duration;

use crate::causes::chain;
use crate::ledger::transaction;

/// Why a handler failed.
#[derive(Debug)]
pub struct HandlerError {
    /// What follows from it.
    pub fault: Fault,
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// What follows from an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// May heal: counts an attempt and is tried again, not before `after` where the other side asked for that.
    Transient {
        /// The other side's own delay, such as `Retry-After`.
        after: Option<Duration>,
    },
    /// Will not heal by itself: dead letter.
    Permanent,
    /// The event is older than the ledger, so nobody knows whether it was done: dead letter, and only its replay runs it.
    Expired,
    /// Something every job needs does not answer (Postgres, the mail server): no attempt is counted, the lane waits.
    Unreachable {
        /// What does not answer, for people.
        what: &'static str,
    },
}

impl HandlerError {
    /// An error that may heal.
    pub fn transient(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self {
            fault: Fault::Transient { after: None },
            source: source.into(),
        }
    }

    /// An error that may heal, not before `after`.
    pub fn retry_after(after: Duration, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self {
            fault: Fault::Transient { after: Some(after) },
            source: source.into(),
        }
    }

    /// An error that trying again cannot mend.
    pub fn permanent(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self {
            fault: Fault::Permanent,
            source: source.into(),
        }
    }

    /// An outage of something every job needs.
    pub fn unreachable(what: &'static str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self {
            fault: Fault::Unreachable { what },
            source: source.into(),
        }
    }

    /// The whole chain of causes in one line.
    pub fn chain(&self) -> String {
        chain(&*self.source)
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.fault {
            Fault::Transient { .. } => out.write_str("the handler failed and may succeed later"),
            Fault::Permanent => out.write_str("the handler failed for good"),
            Fault::Expired => out.write_str("the event is too old to be run again by itself"),
            Fault::Unreachable { what } => write!(out, "{what} did not answer"),
        }
    }
}

impl std::error::Error for HandlerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.source)
    }
}

/// SQLSTATE: a foreign key leads nowhere.
const REFERRED_ROW_GONE: &str = "23503";

/// Beginnings of SQLSTATEs that say something of Postgres and nothing of the job: connection, authorisation, database
/// missing, read-only (a failover), resources, shutdown, system.
const AWAY: [&str; 7] = ["08", "28", "3D000", "25006", "53", "57P", "58"];

impl From<sqlx::Error> for HandlerError {
    /// Data that Postgres refuses (SQLSTATE classes 22 and 23) is permanent, but for a row that is referred to and was deleted
    /// meanwhile (23503). A Postgres that cannot be reached, lets nobody in, is shutting down or takes no writes counts no
    /// attempt. Everything else may heal and is bounded by the attempts.
    fn from(error: sqlx::Error) -> Self {
        let code = error
            .as_database_error()
            .and_then(|database| database.code().map(|code| code.into_owned()));
        match (&error, code.as_deref()) {
            (_, Some(REFERRED_ROW_GONE)) => Self::transient(error),
            (_, Some(code)) if code.starts_with("22") || code.starts_with("23") => Self::permanent(error),
            (_, Some(code)) if AWAY.iter().any(|away| code.starts_with(away)) => Self::unreachable("postgres", error),
            (_, Some(_)) => Self::transient(error),
            (
                sqlx::Error::Io(_)
                | sqlx::Error::Tls(_)
                | sqlx::Error::PoolTimedOut
                | sqlx::Error::PoolClosed
                | sqlx::Error::WorkerCrashed,
                None,
            ) => Self::unreachable("postgres", error),
            _ => Self::transient(error),
        }
    }
}

impl From<transaction::Error> for HandlerError {
    fn from(error: transaction::Error) -> Self {
        match error {
            transaction::Error::Postgres(error) => error.into(),
            error @ transaction::Error::DayMissing(_) => Self::unreachable("the ledger's day", error),
            error @ transaction::Error::BehindParked { .. } => Self::unreachable("the partition's claim", error),
            transaction::Error::Expired { .. } => Self {
                fault: Fault::Expired,
                source: error.into(),
            },
        }
    }
}
