//! Logs: what is written, how, and where to.
//!
//! Logs go to standard error; standard output belongs to what a command prints. `RUST_LOG` decides what is logged.

use std::io::IsTerminal;

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// What is logged when `RUST_LOG` says nothing: our state changes, and of the libraries only what is unexpected. The
/// replication session says each end of it as an ERROR, every second while Postgres is away; the source says it once, with
/// what to do. A slow statement is Postgres' to log (`log_min_duration_statement`): here it would be forty lines of SQL.
const DEFAULT_FILTER: &str = "warn,afterwrite=info,pgwire_replication=off,sqlx::query=error";

/// The shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One line for people, in colour on a terminal.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// Starts logging for the whole process. A second call changes nothing.
pub fn start(format: Format) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let registry = tracing_subscriber::registry().with(filter);
    let started = match format {
        Format::Human => registry
            .with(
                layer()
                    .with_writer(std::io::stderr)
                    .with_ansi(std::io::stderr().is_terminal()),
            )
            .try_init(),
        Format::Json => registry
            .with(layer().with_writer(std::io::stderr).json().flatten_event(true))
            .try_init(),
    };
    if let Err(error) = started {
        tracing::debug!(%error, "logging was started already");
    }
}
