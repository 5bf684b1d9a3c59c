//! The registry of handlers: a name belongs to one group and one ordering key.
//!
//! The ledger knows events by handler name, so two groups under one name would each see the other's work as done, and a
//! changed ordering key would let jobs that wait overtake each other.

use sqlx::postgres::PgPool;

/// Version of the event identity that ledger rows are written under.
pub const ID_VERSION: i32 = 1;

/// A handler could not be registered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name is taken.
    #[error(
        "handler {name} already belongs to group {owner}, so group {group} cannot use it: give the handler another name, \
         or stop that group for good and delete its row from afterwrite.handlers"
    )]
    OtherGroup {
        /// The handler.
        name: String,
        /// The group that has it.
        owner: String,
        /// The group that wanted it.
        group: String,
    },
    /// The ordering key changed.
    #[error(
        "handler {name} was registered with ordering key {known}, and now names {wanted}: let the group settle everything, \
         stop it, then update its row in afterwrite.handlers"
    )]
    OtherOrdering {
        /// The handler.
        name: String,
        /// What is registered.
        known: String,
        /// What was asked for.
        wanted: String,
    },
    /// The tables are missing.
    #[error("the tables of schema afterwrite do not exist: run `afterwrite migrate` first")]
    NotMigrated,
    /// Postgres failed.
    #[error("handlers could not be registered in postgres")]
    Registered(#[source] sqlx::Error),
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        let code = error
            .as_database_error()
            .and_then(|database| database.code().map(std::borrow::Cow::into_owned));
        match code.as_deref() {
            Some("42P01" | "3F000") => Self::NotMigrated,
            _ => Self::Registered(error),
        }
    }
}

/// Registers a handler, or checks that it is registered just so.
///
/// # Errors
/// When the name belongs to another group or has another ordering key, or Postgres failed.
pub async fn register(pool: &PgPool, name: &str, group: &str, ordering: &str) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO afterwrite.handlers (name, group_name, ordering_key, id_version) VALUES ($1, $2, $3, $4)
         ON CONFLICT (name) DO NOTHING",
    )
    .bind(name)
    .bind(group)
    .bind(ordering)
    .bind(ID_VERSION)
    .execute(pool)
    .await?;
    let (owner, known): (String, String) =
        sqlx::query_as("SELECT group_name, ordering_key FROM afterwrite.handlers WHERE name = $1")
            .bind(name)
            .fetch_one(pool)
            .await?;
    if owner != group {
        return Err(Error::OtherGroup {
            name: name.to_owned(),
            owner,
            group: group.to_owned(),
        });
    }
    if known != ordering {
        return Err(Error::OtherOrdering {
            name: name.to_owned(),
            known,
            wanted: ordering.to_owned(),
        });
    }
    Ok(())
}
