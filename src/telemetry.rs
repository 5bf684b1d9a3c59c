//! Logs: what is written, how, and where to.
//!
//! Logs go to standard error; standard output belongs to what a command prints. `log.filter` decides what is logged.

use std::io::IsTerminal;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

/// What is logged when nobody says anything: our state changes, and of the libraries only what is unexpected. The
/// replication session says each end of it as an ERROR, every second while Postgres is away; the source says it once, with
/// what to do. A slow statement is Postgres' to log (`log_min_duration_statement`): here it would be forty lines of SQL.
const DEFAULT_FILTER: &str = "warn,afterwrite=info,pgwire_replication=off,sqlx::query=error";

/// The most that is logged of libraries, whatever anybody asks for: below it they say what passes through them, which is
/// passwords, addresses of persons and cells. Those that move bytes say it earlier than the others.
const CAPS: [(&str, LevelFilter); 12] = [
    ("axum", LevelFilter::DEBUG),
    ("h2", LevelFilter::INFO),
    ("hyper", LevelFilter::INFO),
    ("hyper_util", LevelFilter::DEBUG),
    ("lettre", LevelFilter::INFO),
    ("opentelemetry", LevelFilter::INFO),
    ("opentelemetry_sdk", LevelFilter::INFO),
    ("pgwire_replication", LevelFilter::INFO),
    ("rdkafka", LevelFilter::DEBUG),
    ("reqwest", LevelFilter::DEBUG),
    ("rustls", LevelFilter::DEBUG),
    ("sqlx", LevelFilter::DEBUG),
];

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

/// Changes what is logged while the process runs.
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// What is logged could not be changed.
#[derive(Debug, thiserror::Error)]
#[error("what is logged could not be changed")]
pub struct FilterError(#[source] reload::Error);

/// Why a text says nothing about what is logged, or `None`. The text is not quoted.
pub fn filter_refusal(text: &str) -> Option<&'static str> {
    let refused = EnvFilter::builder().parse(text).is_err();
    refused.then_some("this is no filter of log lines")
}

/// Starts logging for the whole process: what `filter` says, or else `RUST_LOG`. A second call changes nothing.
pub fn start(format: Format, filter: Option<&str>) {
    let (filter, handle) = reload::Layer::new(filter_of(filter));
    let caps = Targets::new().with_default(LevelFilter::TRACE).with_targets(CAPS);
    let registry = tracing_subscriber::registry().with(filter).with(caps);
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
    match started {
        Ok(()) => drop(FILTER.set(handle)),
        Err(error) => tracing::debug!(%error, "logging was started already"),
    }
}

/// Changes what is logged from now on, as [`start`] would have it. Without a start it changes nothing.
///
/// # Errors
/// When the subscriber is gone.
pub fn filter_by(filter: Option<&str>) -> Result<(), FilterError> {
    match FILTER.get() {
        Some(handle) => handle.reload(filter_of(filter)).map_err(FilterError),
        None => Ok(()),
    }
}

fn filter_of(text: Option<&str>) -> EnvFilter {
    let variable = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    let chosen = text.map(str::to_owned).or(variable);
    let parsed = chosen.and_then(|text| EnvFilter::builder().parse(text).ok());
    parsed.unwrap_or_else(|| EnvFilter::new(DEFAULT_FILTER))
}
