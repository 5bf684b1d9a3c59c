//! Connecting commands to Postgres, with the exit code that fits when it fails.

use std::time::Duration;

use sqlx::Connection;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};

use crate::cli::Failure;
use crate::config::Config;

/// Connections of one command.
const CONNECTIONS_MAX: u32 = 4;

/// Postgres could not be used.
#[derive(Debug, thiserror::Error)]
enum DatabaseError {
    #[error("postgres.url is not an address such as postgres://user:password@host:5432/database")]
    Address,
    #[error("postgres at {place} could not be reached; is it running, and is postgres.url (DATABASE_URL) right?")]
    Unreachable { place: String, source: sqlx::Error },
    #[error("postgres at {place} did not answer within {timeout_ms} ms; is postgres.url (DATABASE_URL) right?")]
    Silent { place: String, timeout_ms: u64 },
    #[error("postgres at {place} refused the connection; are user, password and database in postgres.url right?")]
    Refused { place: String, source: sqlx::Error },
}

/// Opens a pool whose first connection has been tried.
///
/// # Errors
/// Exit code 3 when Postgres does not answer, 2 when it answers but refuses who we are.
pub async fn connect(config: &Config) -> Result<PgPool, Failure> {
    let options: PgConnectOptions = config
        .postgres
        .url
        .expose()
        .parse()
        .map_err(|_| Failure::usage(DatabaseError::Address))?;
    let options = options.application_name("afterwrite");
    let place = place_of(&options);
    let timeout_ms = config.postgres.connect_timeout_ms;
    let timeout = Duration::from_millis(timeout_ms);
    // A pool tries again and again until its time is up; one plain try says at once what is wrong.
    let tried = tokio::time::timeout(timeout, PgConnection::connect_with(&options)).await;
    match tried {
        Err(_) => return Err(Failure::unreachable(DatabaseError::Silent { place, timeout_ms })),
        Ok(Err(source)) if is_refusal(&source) => return Err(Failure::usage(DatabaseError::Refused { place, source })),
        Ok(Err(source)) => return Err(Failure::unreachable(DatabaseError::Unreachable { place, source })),
        Ok(Ok(connection)) => connection.close().await.map_err(Failure::failed)?,
    }
    Ok(PgPoolOptions::new()
        .max_connections(CONNECTIONS_MAX)
        .acquire_timeout(timeout)
        .connect_lazy_with(options))
}

/// Host, port and database: what may be printed of the address.
fn place_of(options: &PgConnectOptions) -> String {
    let database = options.get_database().unwrap_or_else(|| options.get_username());
    format!("{}:{}/{database}", options.get_host(), options.get_port())
}

/// Wrong user, password or database (SQLSTATE classes 28 and 3D) as opposed to a server that is starting or stopping.
fn is_refusal(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|database| database.code());
    code.is_some_and(|code| code.starts_with("28") || code.starts_with("3D"))
}
