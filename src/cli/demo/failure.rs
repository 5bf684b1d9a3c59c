//! Why a demo ended early, and what to do about it.

use std::path::PathBuf;
use std::process::ExitStatus;

use crate::cli::Failure;
use crate::config::load::ConfigError;
use crate::dead_letter::kept;

/// Why the demo ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum DemoFailure {
    #[error(
        "there is no infra/native/stack in this directory or above; run the demo in a clone of the repository, or set \
         CARGO_MANIFEST_DIR to one"
    )]
    NoClone,
    #[error("another demo of this clone is running; wait for it, or stop it with Ctrl-C")]
    Twice,
    #[error("the lock {} could not be taken", path.display())]
    Lock { path: PathBuf, source: std::io::Error },
    #[error("no port could be had on this machine")]
    Ports(#[source] std::io::Error),
    #[error("this program could not be started once more")]
    OwnProgram(#[source] std::io::Error),
    #[error("{} could not be started", path.display())]
    Script { path: PathBuf, source: std::io::Error },
    #[error("{what} failed with {status}{}", quoted(.said))]
    Command {
        what: String,
        status: ExitStatus,
        said: String,
    },
    #[error("{what} did not end within {seconds} s")]
    Slow { what: String, seconds: u64 },
    #[error("waited {seconds} s in vain for: {what}; see {}", log.display())]
    Late { what: String, seconds: u64, log: PathBuf },
    #[error("the worker ended ({how}); see {}", log.display())]
    WorkerEnded { how: String, log: PathBuf },
    #[error("{} could not be written or read", path.display())]
    Log { path: PathBuf, source: std::io::Error },
    #[error("the addresses of the stack are no configuration")]
    Settings(#[source] ConfigError),
    #[error("{}", .0.chain())]
    Database(Failure),
    #[error("--database-url has no address, and DATABASE_URL is not set")]
    NoAddress,
    #[error("--database-url is not an address such as postgres://user:password@host:5432/database")]
    Address,
    #[error("the Postgres server at {at} could not be reached")]
    Unreachable { at: String, source: sqlx::Error },
    #[error("the Postgres server at {at} did not answer within {seconds} s")]
    Silent { at: String, seconds: u64 },
    #[error("the Postgres server at {at} cannot be used for the demo: {why}")]
    Unfit { at: String, why: String },
    #[error("the server could not be asked whether it can be used")]
    Asked(#[source] sqlx::Error),
    #[error("the database {name} could not be made")]
    NotMade { name: String, source: sqlx::Error },
    #[error(
        "the database {name} at {at} could not be dropped; drop its replication slots (pg_drop_replication_slot), then \
         DROP DATABASE {name} WITH (FORCE)"
    )]
    NotDropped {
        at: String,
        name: String,
        source: Option<sqlx::Error>,
    },
    #[error("the application's rows could not be written")]
    Write(#[source] sqlx::Error),
    #[error("what the worker does could not be looked at in the database")]
    Watch(#[source] sqlx::Error),
    #[error("the mailbox {} could not be looked at", path.display())]
    Mailbox { path: PathBuf, source: std::io::Error },
    #[error("the dead letter could not be read")]
    Letter(#[source] kept::Error),
    #[error("{0}")]
    Wrong(&'static str),
    #[error("stopped by a signal")]
    Interrupted,
}

impl DemoFailure {
    /// The log that says more.
    pub(super) fn log(&self) -> Option<&PathBuf> {
        match self {
            Self::Late { log, .. } | Self::WorkerEnded { log, .. } => Some(log),
            _ => None,
        }
    }

    /// With the exit code that fits.
    pub(super) fn into_failure(self) -> Failure {
        match self {
            Self::NoClone | Self::NoAddress | Self::Address => Failure::usage(self),
            Self::Unreachable { .. } | Self::Silent { .. } => Failure::unreachable(self),
            _ => Failure::failed(self),
        }
    }
}

fn quoted(said: &str) -> String {
    if said.is_empty() {
        String::new()
    } else {
        format!(":\n{said}")
    }
}
