//! Connections of the worker with its database.

use std::time::Duration;

use anyhow::Context as _;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};

use super::waitlist;
use crate::config::Config;

/// How long Postgres keeps the session of a process that acknowledges nothing it is sent.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(30);

/// How to reach the database of the configuration.
pub(super) fn connect_options(config: &Config) -> anyhow::Result<PgConnectOptions> {
    let connect: PgConnectOptions = config
        .postgres
        .url
        .expose()
        .parse()
        .context("postgres.url is not an address of a database")?;
    Ok(waitlist::seeing_names(config, connect.application_name("afterwrite")))
}

/// How long a connection is waited for.
pub(super) fn connect_timeout(config: &Config) -> Duration {
    Duration::from_millis(config.postgres.connect_timeout_ms)
}

/// A pool that connects when it is first used.
pub(super) fn pool(options: &PgConnectOptions, connections: u32, timeout: Duration) -> PgPool {
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(timeout)
        .connect_lazy_with(options.clone())
}

/// Options of connections on which nothing outlasts `longest`: a process that is frozen or cut off in the middle of a
/// transaction holds its ledger rows, and whoever took its partitions over waits for them. Postgres ends such sessions.
pub(super) fn bounded(options: &PgConnectOptions, longest: Duration) -> PgConnectOptions {
    let within = longest.as_millis().to_string();
    options.clone().options([
        ("statement_timeout", within.as_str()),
        ("idle_in_transaction_session_timeout", within.as_str()),
        ("tcp_user_timeout", UNACKNOWLEDGED_MAX.as_millis().to_string().as_str()),
    ])
}
