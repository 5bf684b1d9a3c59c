//! Connections of the worker with its database.

use std::time::Duration;

use anyhow::Context as _;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use tokio::time::{Instant, MissedTickBehavior};

use super::waitlist;
use crate::causes::chain;
use crate::config::Config;
use crate::hindrance::{Hindered, POSTGRES};
use crate::tally::reach;

/// How long Postgres keeps the session of a process that acknowledges nothing it is sent.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(30);

/// How often Postgres is asked whether it is there. An idle group asks it nothing for minutes.
const MET_EVERY: Duration = Duration::from_secs(5);

/// How often it is said that Postgres lets the worker not in.
const COMPLAIN_EVERY: Duration = Duration::from_secs(30);

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

/// Host, port and database: what may be printed of an address.
pub(crate) fn place_of(options: &PgConnectOptions) -> String {
    let database = options.get_database().unwrap_or_else(|| options.get_username());
    format!("{}:{}/{database}", options.get_host(), options.get_port())
}

/// Asks Postgres every now and then whether it is there, over a connection of the coordination, and says when it is and does not
/// let us in: whoever needs it waits without a word, as in an outage.
pub(super) async fn meet(pool: PgPool, place: String) {
    let mut every = tokio::time::interval(MET_EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut quiet_until = None;
    loop {
        every.tick().await;
        let asked = sqlx::raw_sql("SELECT 1").execute(&pool);
        let error = match tokio::time::timeout(MET_EVERY, asked).await {
            Ok(Ok(_)) => {
                reach::POSTGRES.answered();
                continue;
            }
            Ok(Err(error)) => error,
            Err(_) => {
                reach::POSTGRES.missed(&format!("it did not answer within {} s", MET_EVERY.as_secs()));
                continue;
            }
        };
        let Some(hindered) = Hindered::read(&chain(&error), &place, &POSTGRES) else {
            reach::POSTGRES.missed(&error.to_string());
            continue;
        };
        reach::POSTGRES.missed(&hindered.to_string());
        if quiet_until.is_none_or(|until| Instant::now() > until) {
            tracing::warn!(error = %hindered, "postgres lets the worker not in; it is tried again");
            quiet_until = Some(Instant::now() + COMPLAIN_EVERY);
        }
    }
}
