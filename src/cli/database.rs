//! Connecting commands to Postgres, with the exit code that fits when it fails.

use std::time::Duration;

use sqlx::Connection;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};

use crate::app;
use crate::app::connections::place_of;
use crate::causes::chain;
use crate::cli::Failure;
use crate::config::Config;
use crate::config::value::Secret;
use crate::hindrance::{Hindered, POSTGRES, Settings, WAL};

/// Connections of one command.
const CONNECTIONS_MAX: u32 = 4;

/// Postgres could not be used.
#[derive(Debug, thiserror::Error)]
enum DatabaseError {
    #[error("{} is not an address such as postgres://user:password@host:5432/database", .0.name)]
    Address(Setting),
    #[error("postgres at {place} could not be reached; is it running, and is {setting} right?")]
    Unreachable {
        place: String,
        setting: Setting,
        source: sqlx::Error,
    },
    #[error("postgres at {place} did not answer within {timeout_ms} ms; is {setting} right?")]
    Silent {
        place: String,
        setting: Setting,
        timeout_ms: u64,
    },
    #[error("postgres at {place} refused the connection; are user, password and database in {} right?", .setting.name)]
    Refused {
        place: String,
        setting: Setting,
        source: sqlx::Error,
    },
}

/// The setting that has the address.
#[derive(Debug, Clone, Copy)]
struct Setting {
    name: &'static str,
    variable: Option<&'static str>,
    words: &'static Settings,
}

impl std::fmt::Display for Setting {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(self.name)?;
        self.variable.map_or(Ok(()), |variable| write!(out, " ({variable})"))
    }
}

/// Opens a pool whose first connection has been tried.
///
/// # Errors
/// Exit code 3 when Postgres does not answer, 2 when it answers but refuses who we are, or is not who it should be.
pub async fn connect(config: &Config) -> Result<PgPool, Failure> {
    let setting = Setting {
        name: "postgres.url",
        variable: Some("DATABASE_URL"),
        words: &POSTGRES,
    };
    connect_to(config, &config.postgres.url, setting).await
}

/// The same as the role that may replicate, which only needs to differ from the other one where `wal.url` is set.
///
/// # Errors
/// As those of [`connect`].
pub async fn connect_to_replicate(config: &Config) -> Result<PgPool, Failure> {
    let setting = Setting {
        name: "wal.url",
        variable: None,
        words: &WAL,
    };
    match &config.wal.url {
        Some(address) => connect_to(config, address, setting).await,
        None => connect(config).await,
    }
}

async fn connect_to(config: &Config, address: &Secret, setting: Setting) -> Result<PgPool, Failure> {
    let options: PgConnectOptions = address
        .expose()
        .parse()
        .map_err(|_| Failure::usage(DatabaseError::Address(setting)))?;
    let options = app::waitlist::seeing_names(config, options.application_name("afterwrite"));
    let place = place_of(&options);
    let timeout_ms = config.postgres.connect_timeout_ms;
    let timeout = Duration::from_millis(timeout_ms);
    // A pool tries again and again until its time is up; one plain try says at once what is wrong.
    let tried = tokio::time::timeout(timeout, PgConnection::connect_with(&options)).await;
    match tried {
        Err(_) => {
            return Err(Failure::unreachable(DatabaseError::Silent {
                place,
                setting,
                timeout_ms,
            }));
        }
        Ok(Err(source)) if let Some(hindered) = hindered(&source, &place, setting) => {
            return Err(Failure::usage(hindered));
        }
        Ok(Err(source)) if is_refusal(&source) => {
            return Err(Failure::usage(DatabaseError::Refused { place, setting, source }));
        }
        Ok(Err(source)) => {
            return Err(Failure::unreachable(DatabaseError::Unreachable {
                place,
                setting,
                source,
            }));
        }
        Ok(Ok(connection)) => connection.close().await.map_err(Failure::failed)?,
    }
    Ok(PgPoolOptions::new()
        .max_connections(CONNECTIONS_MAX)
        .acquire_timeout(timeout)
        .connect_lazy_with(options))
}

/// A certificate, a host name or a login that is wrong.
fn hindered(error: &sqlx::Error, place: &str, setting: Setting) -> Option<Hindered> {
    Hindered::read(&chain(error), place, setting.words)
}

/// Wrong user, password or database (SQLSTATE classes 28 and 3D) as opposed to a server that is starting or stopping.
fn is_refusal(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|database| database.code());
    code.is_some_and(|code| code.starts_with("28") || code.starts_with("3D"))
}
