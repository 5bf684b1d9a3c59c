//! Whether the log can be read: the publication, and the slot with what is known of it.
//!
//! Nothing is mended in silence. A slot is made only for a group that never had one; a publication is never touched.

use std::time::Duration;

use pgwire_replication::{Lsn, PgWireError, ReplicationClient};
use sqlx::postgres::{PgConnection, PgPool};
use tokio::time::{Instant, interval_at};

use crate::decode::tables::Tables;
use crate::event::delivery::Position;
use crate::ledger::patience::ask;
use crate::ledger::slots::{Known, OnServer, Slots, Standing};

/// A slot that takes longer to make waits for somebody, who is named then.
const NAMED_AFTER: Duration = Duration::from_secs(2);

/// How often they are named again.
const NAMED_EVERY: Duration = Duration::from_secs(10);

/// Transactions that are named, oldest first: each of them has to end, and few are enough to know whose they are.
const NAMED_MAX: i64 = 5;

/// The log cannot be read, and waiting does not mend it.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The server writes too little into its log.
    #[error("wal_level is {found}: set it to logical and restart Postgres")]
    Level {
        /// What it is set to.
        found: String,
    },
    /// There is no such publication.
    #[error("there is no publication {publication}: CREATE PUBLICATION \"{publication}\" FOR TABLE {tables}")]
    NoPublication {
        /// Its name.
        publication: String,
        /// The tables that are wanted of it.
        tables: String,
    },
    /// Changes of some tables would never come.
    #[error(
        "publication {publication} lacks tables that handlers wait for: ALTER PUBLICATION \"{publication}\" ADD TABLE {tables}"
    )]
    NotPublished {
        /// Its name.
        publication: String,
        /// What it lacks.
        tables: String,
    },
    /// The slot is of no use.
    #[error("replication slot {slot} is not one of pgoutput in database {database}: drop it, or choose another name")]
    Foreign {
        /// Its name.
        slot: String,
        /// The database that is read.
        database: String,
    },
    /// The slot belongs to another group.
    #[error("replication slot {slot} is the one of group {group}: choose another name")]
    Taken {
        /// Its name.
        slot: String,
        /// The group.
        group: String,
    },
    /// The slot that was there is not there.
    #[error(
        "replication slot {slot} is gone: changes after {lsn} were missed by this group. Find out what they were, then: afterwrite \
         slot drop {slot}. The next start makes it anew, from then on"
    )]
    Gone {
        /// Its name.
        slot: String,
        /// Up to where the group read.
        lsn: Lsn,
    },
    /// The server has removed what the slot was to keep.
    #[error(
        "replication slot {slot} is lost: the server removed the log after {lsn} (max_slot_wal_keep_size), and changes since then \
         were missed by this group. Find out what they were, then: afterwrite slot drop {slot}. The next start makes it anew, from \
         then on"
    )]
    Lost {
        /// Its name.
        slot: String,
        /// Up to where the group read.
        lsn: Lsn,
    },
    /// Somebody else moved the slot.
    #[error(
        "replication slot {slot} was moved to {found}, past {lsn} where this group stands: changes between them would be missed. \
         Find out what they are, then: afterwrite slot drop {slot}. The next start makes it anew, from then on"
    )]
    Moved {
        /// Its name.
        slot: String,
        /// Where it stands.
        found: Lsn,
        /// Up to where the group read.
        lsn: Lsn,
    },
    /// The database is another one.
    #[error(
        "this is another cluster (system identifier {found}) than the one whose log this group read ({known}): places in its log \
         mean nothing here. If the change is meant: afterwrite slot drop {slot}. The next start makes it anew, from then on"
    )]
    OtherCluster {
        /// The slot's name.
        slot: String,
        /// Of the cluster that was read.
        known: String,
        /// Of this one.
        found: String,
    },
}

/// Looking failed, or what was seen cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody has to act.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Postgres did not answer.
    #[error("postgres could not be asked about the replication slot")]
    Asked(#[from] sqlx::Error),
    /// The replication session failed.
    #[error("the replication session failed")]
    Session(#[from] PgWireError),
    /// Another process has the slot.
    #[error("process {pid} of Postgres reads the slot for somebody else")]
    InUse {
        /// The server's process.
        pid: i32,
    },
}

/// Checks that the publication sends what is wanted.
///
/// # Errors
/// When it does not, or that could not be found out.
pub(super) async fn check_publication(pool: &PgPool, publication: &str, wanted: &Tables) -> Result<(), Error> {
    let query = sqlx::query_as(
        "SELECT current_setting('wal_level'), (SELECT puballtables FROM pg_publication WHERE pubname = $1::name)",
    )
    .bind(publication);
    let (level, found): (String, Option<bool>) = ask(
        pool,
        "looking at a publication",
        async |connection: &mut PgConnection| query.fetch_one(connection).await,
    )
    .await?;
    if level != "logical" {
        return Err(Refused::Level { found: level }.into());
    }
    let named = wanted.names();
    let quoted = |tables: &[(String, String)]| {
        let quoted = tables.iter().map(|(schema, table)| format!("\"{schema}\".\"{table}\""));
        quoted.collect::<Vec<_>>().join(", ")
    };
    if found.is_none() {
        let (publication, tables) = (publication.to_owned(), quoted(&named));
        return Err(Refused::NoPublication { publication, tables }.into());
    }
    let query = sqlx::query_as(
        "SELECT DISTINCT schemaname::text, tablename::text FROM pg_publication_tables WHERE pubname = $1::name",
    )
    .bind(publication);
    let published: Vec<(String, String)> = ask(
        pool,
        "looking at a publication",
        async |connection: &mut PgConnection| query.fetch_all(connection).await,
    )
    .await?;
    let lacking: Vec<(String, String)> = named.into_iter().filter(|table| !published.contains(table)).collect();
    if lacking.is_empty() {
        return Ok(());
    }
    let (publication, tables) = (publication.to_owned(), quoted(&lacking));
    Err(Refused::NotPublished { publication, tables }.into())
}

/// Finds out where the group stands, on a session that has not begun to read; makes the slot for a group that never had one.
///
/// # Errors
/// When the slot cannot be used now, or at all.
pub(super) async fn stand(session: &mut ReplicationClient, slots: &Slots, group: &str) -> Result<Standing, Error> {
    let system = session.identify_system().await?;
    let database = system.dbname.unwrap_or_default();
    let name = slots.name().to_owned();
    let known = slots.known().await?;
    let found = slots.on_server().await?;
    if let Some(known) = &known {
        check_known(known, &name, group, &system.system_id)?;
    }
    match (known, found) {
        (Some(known), None) => Err(Refused::Gone {
            slot: name,
            lsn: known.standing.confirmed_lsn.into(),
        }
        .into()),
        (Some(Known { standing, .. }), Some(found)) => {
            let is_gone = found.wal_status.as_deref() == Some("lost");
            let lsn = standing.confirmed_lsn.into();
            usable(&found, &name, &database)?;
            match found.confirmed_lsn {
                _ if is_gone => Err(Refused::Lost { slot: name, lsn }.into()),
                Some(confirmed) if confirmed > standing.confirmed_lsn => Err(Refused::Moved {
                    slot: name,
                    found: confirmed.into(),
                    lsn,
                }
                .into()),
                _ => Ok(standing),
            }
        }
        (None, found) => {
            let lsn = match found {
                Some(found) => {
                    usable(&found, &name, &database)?;
                    let lsn = found.confirmed_lsn.unwrap_or_default();
                    tracing::info!(slot = name, lsn = %Lsn::from(lsn), "a replication slot of this name is there and is used from where it stands");
                    lsn
                }
                None => make(session, slots).await?,
            };
            let first = first_position(lsn);
            let standing = Standing {
                confirmed_lsn: lsn,
                position: first,
                settled_to: first,
            };
            slots.began(&system.system_id, standing).await?;
            Ok(standing)
        }
    }
}

/// The number of the first change after a place where nothing was numbered yet. A change takes more bytes of the log than
/// numbers, so numbers that begin at the place are larger than all that were given before it: a slot that is made again under
/// its name gives none twice.
fn first_position(lsn: u64) -> Position {
    Position(i64::try_from(lsn).unwrap_or(i64::MAX))
}

fn check_known(known: &Known, slot: &str, group: &str, system_id: &str) -> Result<(), Refused> {
    let slot = slot.to_owned();
    if known.group != group {
        let group = known.group.clone();
        return Err(Refused::Taken { slot, group });
    }
    if known.system_id != system_id {
        return Err(Refused::OtherCluster {
            slot,
            known: known.system_id.clone(),
            found: system_id.to_owned(),
        });
    }
    Ok(())
}

fn usable(found: &OnServer, slot: &str, database: &str) -> Result<(), Error> {
    if found.plugin.as_deref() != Some("pgoutput") || found.database.as_deref() != Some(database) {
        return Err(Refused::Foreign {
            slot: slot.to_owned(),
            database: database.to_owned(),
        }
        .into());
    }
    match found.active_pid {
        Some(pid) => Err(Error::InUse { pid }),
        None => Ok(()),
    }
}

/// Makes the slot, which waits for the transactions that are open now; answers the place from which on it reads.
async fn make(session: &mut ReplicationClient, slots: &Slots) -> Result<u64, Error> {
    let name = slots.name();
    tracing::info!(
        slot = name,
        "making a replication slot: Postgres waits for the transactions that are open now"
    );
    let order = format!("CREATE_REPLICATION_SLOT \"{name}\" LOGICAL pgoutput NOEXPORT_SNAPSHOT");
    let making = session.simple_query(&order);
    tokio::pin!(making);
    let mut naming = interval_at(Instant::now() + NAMED_AFTER, NAMED_EVERY);
    let rows = loop {
        tokio::select! {
            rows = &mut making => break rows?,
            _ = naming.tick() => name_those_waited_for(slots).await,
        }
    };
    let place = rows.first().and_then(|row| row.get(1)).and_then(Option::as_ref);
    let place = place.and_then(|bytes| std::str::from_utf8(bytes).ok());
    let lsn = place.and_then(|text| Lsn::parse(text).ok());
    let lsn =
        lsn.ok_or_else(|| PgWireError::Protocol("CREATE_REPLICATION_SLOT answered no place in the log".to_owned()))?;
    tracing::info!(slot = name, %lsn, "replication slot made: the group begins with what is written from now on");
    Ok(lsn.as_u64())
}

/// Names the transactions for which the making of a slot waits: all that have written something and are open, also those of
/// other databases. What they do is not told, as it may hold values.
async fn name_those_waited_for(slots: &Slots) {
    let query = sqlx::query_as(
        "SELECT pid, application_name, extract(epoch FROM now() - xact_start)::bigint
         FROM pg_stat_activity WHERE backend_xid IS NOT NULL
         UNION ALL
         SELECT NULL, 'prepared', extract(epoch FROM now() - prepared)::bigint FROM pg_prepared_xacts
         ORDER BY 3 DESC NULLS LAST LIMIT $1",
    )
    .bind(NAMED_MAX);
    type Row = (Option<i32>, Option<String>, Option<i64>);
    let open: Result<Vec<Row>, sqlx::Error> = ask(
        slots.pool(),
        "looking for open transactions",
        async |connection: &mut PgConnection| query.fetch_all(connection).await,
    )
    .await;
    let slot = slots.name();
    match open {
        Ok(open) => {
            for (pid, application, open_s) in open {
                let application = application.unwrap_or_default();
                tracing::warn!(
                    slot,
                    pid,
                    application,
                    open_s,
                    "making a replication slot waits for an open transaction"
                );
            }
        }
        Err(error) => tracing::debug!(slot, %error, "open transactions could not be looked for"),
    }
}
