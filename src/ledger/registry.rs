//! The registry of handlers: a name belongs to one group and one ordering key.
//!
//! The ledger knows events by handler name, so two groups under one name would each see the other's work as done, and a
//! changed ordering key would let jobs that wait overtake each other.
//!
//! A handler that is renamed keeps the name under which the ledger knows it. Its letters and parked lanes go with it.

use sqlx::postgres::{PgConnection, PgPool};

use crate::ledger::patience::transact;

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
        "handler {name} was registered with ordering key {known}, and now names {wanted}: jobs that wait could overtake each \
         other; let the group settle everything (its lag is 0{}), stop it, then run: psql -c \"UPDATE \
         afterwrite.handlers SET ordering_key = '{wanted}' WHERE name = '{name}'\"",
        parked_text(*.parked)
    )]
    OtherOrdering {
        /// The handler.
        name: String,
        /// What is registered.
        known: String,
        /// What was asked for.
        wanted: String,
        /// Its lanes that hold events back.
        parked: i64,
    },
    /// The name was given up.
    #[error(
        "handler {name} was renamed to {now}, and the ledger knows what {now} did as done by {name}: give the handler another \
         name"
    )]
    Renamed {
        /// The handler.
        name: String,
        /// What it is called now.
        now: String,
    },
    /// It cannot be what it is said to have been.
    #[error(
        "handlers.{name}.was names {was}, which was never registered here: correct it, or take it out where {name} is a new \
         handler or was renamed before"
    )]
    NeverRegistered {
        /// The handler.
        name: String,
        /// What it is said to have been called.
        was: String,
    },
    /// Both names have done something.
    #[error(
        "handlers.{name}.was names {was}, but {name} ran here without it and has a place in the ledger of its own: take it out; \
         what {was} did may have been done again"
    )]
    BothRegistered {
        /// The handler.
        name: String,
        /// What it is said to have been called.
        was: String,
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

fn parked_text(lanes: i64) -> String {
    match lanes {
        0 => String::new(),
        lanes => format!("; {lanes} lanes are parked: replay or discard the dead letters of their heads"),
    }
}

/// What a handler is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name<'a> {
    /// Its name.
    pub name: &'a str,
    /// The name it had before, where that is said.
    pub was: Option<&'a str>,
}

/// Registers a handler, or checks that it is registered just so. One that had another name takes everything over that is
/// known under it.
///
/// # Errors
/// When the name belongs to another group, has another ordering key or was given up, when the name it had before cannot be
/// right, or Postgres failed.
pub async fn register(pool: &PgPool, named: Name<'_>, group: &str, ordering: &str) -> Result<(), Error> {
    let Name { name, was } = named;
    if let Some(was) = was {
        rename(pool, was, name, group).await?;
    }
    sqlx::query(
        "INSERT INTO afterwrite.handlers (name, group_name, ordering_key, id_version) VALUES ($1, $2, $3, $4)
         ON CONFLICT DO NOTHING",
    )
    .bind(name)
    .bind(group)
    .bind(ordering)
    .bind(ID_VERSION)
    .execute(pool)
    .await?;
    // Without a row of this name there is one that the ledger knows by it.
    let (now, owner, known, parked): (String, String, String, i64) = sqlx::query_as(
        "SELECT name, group_name, ordering_key,
             (SELECT count(*) FROM afterwrite.parked_lanes lane
              WHERE lane.group_name = handlers.group_name AND lane.handler = handlers.name)
         FROM afterwrite.handlers WHERE name = $1 OR coalesce(ledger_name, name) = $1 ORDER BY name <> $1 LIMIT 1",
    )
    .bind(name)
    .fetch_one(pool)
    .await?;
    let name = name.to_owned();
    if now != name {
        return Err(Error::Renamed { name, now });
    }
    if owner != group {
        return Err(Error::OtherGroup {
            name,
            owner,
            group: group.to_owned(),
        });
    }
    if known == ordering {
        return Ok(());
    }
    if !only_adds(&known, ordering) {
        return Err(Error::OtherOrdering {
            name,
            known,
            wanted: ordering.to_owned(),
            parked,
        });
    }
    sqlx::query("UPDATE afterwrite.handlers SET ordering_key = $2 WHERE name = $1 AND ordering_key = $3")
        .bind(name)
        .bind(ordering)
        .bind(known)
        .execute(pool)
        .await?;
    Ok(())
}

/// Whether a handler is woken by further tables, and by all it knew in the order it knew: of a table that is new nothing
/// waits, so nothing can be overtaken.
fn only_adds(known: &str, wanted: &str) -> bool {
    let routes =
        |text: &str| -> Vec<String> { text.split_inclusive(')').map(|route| route.trim().to_owned()).collect() };
    let wanted = routes(wanted);
    routes(known).iter().all(|route| wanted.contains(route))
}

/// What is to be done about a name that a handler had before.
enum Rename {
    Moved,
    Refused(Error),
}

/// Gives a handler a new name and group, once; a handler that has it already is left alone.
async fn rename(pool: &PgPool, was: &str, name: &str, group: &str) -> Result<(), Error> {
    let renamed = transact(pool, "renaming a handler", async |connection: &mut PgConnection| {
        // Held against another process that renames at the same time.
        let known: Vec<(String, String, String)> = sqlx::query_as(
            "SELECT name, group_name, coalesce(ledger_name, name) FROM afterwrite.handlers WHERE name IN ($1, $2)
             ORDER BY name FOR UPDATE",
        )
        .bind(was)
        .bind(name)
        .fetch_all(&mut *connection)
        .await?;
        let of = |wanted: &str| known.iter().find(|(known, _, _)| known == wanted);
        let names = (name.to_owned(), was.to_owned());
        Ok(match (of(was), of(name)) {
            (Some((_, old_group, ledger_name)), None) => {
                move_rows(connection, (was, old_group), (name, group), ledger_name).await?;
                tracing::info!(
                    handler = name,
                    was,
                    "handler renamed: what it did under its old name stays done"
                );
                Rename::Moved
            }
            (None, Some(_)) => Rename::Moved,
            (None, None) => Rename::Refused(Error::NeverRegistered {
                name: names.0,
                was: names.1,
            }),
            (Some(_), Some(_)) => Rename::Refused(Error::BothRegistered {
                name: names.0,
                was: names.1,
            }),
        })
    })
    .await?;
    match renamed {
        Rename::Moved => Ok(()),
        Rename::Refused(error) => Err(error),
    }
}

/// Marks and attempts are not moved: they are about positions of a group, and the new one starts at others.
async fn move_rows(
    connection: &mut PgConnection,
    (was, old_group): (&str, &str),
    (name, group): (&str, &str),
    ledger_name: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE afterwrite.handlers SET name = $2, group_name = $3, ledger_name = $4 WHERE name = $1")
        .bind(was)
        .bind(name)
        .bind(group)
        .bind(ledger_name)
        .execute(&mut *connection)
        .await?;
    for statement in [
        "UPDATE afterwrite.letters SET handler = $3, group_name = $4 WHERE group_name = $2 AND handler = $1",
        "UPDATE afterwrite.replay_requests SET handler = $3, group_name = $4 WHERE group_name = $2 AND handler = $1",
        "UPDATE afterwrite.parked_lanes SET handler = $3, group_name = $4 WHERE group_name = $2 AND handler = $1",
        "UPDATE afterwrite.parked SET handler = $3, group_name = $4 WHERE group_name = $2 AND handler = $1",
    ] {
        sqlx::query(statement)
            .bind(was)
            .bind(old_group)
            .bind(name)
            .bind(group)
            .execute(&mut *connection)
            .await?;
    }
    sqlx::query("UPDATE afterwrite.group_moves SET redo_handler = $2 WHERE redo_handler = $1")
        .bind(was)
        .bind(name)
        .execute(&mut *connection)
        .await?;
    // Letters of records that did not decode, runs of replays, and a slot are the group's, and go when its last handler does.
    for statement in [
        "UPDATE afterwrite.letters SET group_name = $2 WHERE group_name = $1 AND handler = '*'
           AND NOT EXISTS (SELECT FROM afterwrite.handlers WHERE group_name = $1)",
        "UPDATE afterwrite.replay_requests SET group_name = $2 WHERE group_name = $1 AND handler = '*'
           AND NOT EXISTS (SELECT FROM afterwrite.handlers WHERE group_name = $1)",
        "UPDATE afterwrite.replay_runs SET group_name = $2 WHERE group_name = $1
           AND NOT EXISTS (SELECT FROM afterwrite.handlers WHERE group_name = $1)",
        // A slot keeps its name, which letters and lanes know, and reads on where it stood.
        "UPDATE afterwrite.slots SET group_name = $2 WHERE group_name = $1
           AND NOT EXISTS (SELECT FROM afterwrite.handlers WHERE group_name = $1)",
        "UPDATE afterwrite.sources SET group_name = $2 WHERE group_name = $1
           AND NOT EXISTS (SELECT FROM afterwrite.handlers WHERE group_name = $1)
           AND NOT EXISTS (SELECT FROM afterwrite.sources WHERE group_name = $2)",
    ] {
        sqlx::query(statement)
            .bind(old_group)
            .bind(group)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::only_adds;

    #[test]
    fn a_table_that_is_new_changes_no_order() {
        let known = "public.a(primary key) public.b(x,y)";
        for (wanted, expected) in [
            ("public.a(primary key) public.b(x,y) public.c(primary key)", true),
            ("public.0(z) public.a(primary key) public.b(x,y)", true),
            ("public.a(primary key)", false),
            ("public.a(primary key) public.b(x)", false),
            ("public.a(x) public.b(x,y) public.c(primary key)", false),
        ] {
            assert_eq!(only_adds(known, wanted), expected, "{wanted}");
        }
    }
}
