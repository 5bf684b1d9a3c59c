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
use crate::ledger::slots::{Known, OnServer, Slots, Standing, open_transactions};
use crate::source::wal::session::{ANSWER_MAX, within};

/// A slot that takes longer to make waits for somebody, who is named then.
const NAMED_AFTER: Duration = Duration::from_secs(2);

/// How often they are named again.
const NAMED_EVERY: Duration = Duration::from_secs(10);

/// The log cannot be read, and waiting does not mend it.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The server writes too little into its log.
    #[error("wal_level is {found}: set it to logical and restart Postgres")]
    Level {
        /// What it is set to.
        found: String,
    },
    /// Two addresses name two databases.
    #[error("the log is read in database {wal}, and postgres.url names {state}: let wal.url name the same database")]
    OtherDatabase {
        /// Where the log is read.
        wal: String,
        /// Where the state is kept, and the application's tables are.
        state: String,
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

/// Checks that the log of this database has what is wanted, and that the publication sends it.
///
/// # Errors
/// When it does not, or that could not be found out.
pub(super) async fn check_publication(
    pool: &PgPool,
    database: &str,
    publication: &str,
    wanted: &Tables,
) -> Result<(), Error> {
    let query = sqlx::query_as(
        "SELECT current_database()::text, current_setting('wal_level'), (SELECT puballtables FROM pg_publication WHERE pubname = $1::name)",
    )
    .bind(publication);
    let (state, level, found): (String, String, Option<bool>) = ask(
        pool,
        "looking at a publication",
        async |connection: &mut PgConnection| query.fetch_one(connection).await,
    )
    .await?;
    if state != database {
        let wal = database.to_owned();
        return Err(Refused::OtherDatabase { wal, state }.into());
    }
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
    let system = within(ANSWER_MAX, "identifying the server", session.identify_system()).await?;
    let known = slots.known().await?;
    let found = slots.on_server().await?;
    let asked = Asked {
        slot: slots.name(),
        group,
        system_id: &system.system_id,
        database: system.dbname.as_deref().unwrap_or_default(),
    };
    let lsn = match verdict(&asked, known.as_ref(), found.as_ref())? {
        Verdict::GoOn(standing) => return Ok(standing),
        Verdict::Adopt(lsn) => {
            tracing::info!(
                slot = asked.slot,
                lsn = %Lsn::from(lsn),
                "a replication slot of this name is there and is used from where it stands"
            );
            lsn
        }
        Verdict::Make => make(session, slots).await?,
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

/// Whose slot is looked at, and where.
#[derive(Debug, Clone, Copy)]
struct Asked<'a> {
    slot: &'a str,
    group: &'a str,
    system_id: &'a str,
    database: &'a str,
}

/// What follows from what is known and what the server has.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// The group goes on where it stood.
    GoOn(Standing),
    /// Nothing is known, and the slot is there: it is used from this place on.
    Adopt(u64),
    /// Nothing is known, and there is no slot.
    Make,
}

fn verdict(asked: &Asked<'_>, known: Option<&Known>, found: Option<&OnServer>) -> Result<Verdict, Error> {
    let slot = asked.slot.to_owned();
    if let Some(known) = known {
        check_known(known, asked)?;
    }
    if let Some(found) = found {
        usable(found, asked)?;
    }
    let confirmed = found.and_then(|found| found.confirmed_lsn);
    let Some(Known { standing, .. }) = known else {
        return Ok(match found {
            Some(_) => Verdict::Adopt(confirmed.unwrap_or_default()),
            None => Verdict::Make,
        });
    };
    let lsn = standing.confirmed_lsn.into();
    let is_lost = found.is_some_and(|found| found.wal_status.as_deref() == Some("lost"));
    match (found, confirmed) {
        (None, _) => Err(Refused::Gone { slot, lsn }.into()),
        _ if is_lost => Err(Refused::Lost { slot, lsn }.into()),
        (_, Some(confirmed)) if confirmed > standing.confirmed_lsn => {
            let found = confirmed.into();
            Err(Refused::Moved { slot, found, lsn }.into())
        }
        _ => Ok(Verdict::GoOn(*standing)),
    }
}

/// The number of the first change after a place where nothing was numbered yet. A change takes more bytes of the log than
/// numbers, so numbers that begin at the place are larger than all that were given before it: a slot that is made again under
/// its name gives none twice.
fn first_position(lsn: u64) -> Position {
    Position(i64::try_from(lsn).unwrap_or(i64::MAX))
}

fn check_known(known: &Known, asked: &Asked<'_>) -> Result<(), Refused> {
    let slot = asked.slot.to_owned();
    if known.group != asked.group {
        let group = known.group.clone();
        return Err(Refused::Taken { slot, group });
    }
    if known.system_id != asked.system_id {
        return Err(Refused::OtherCluster {
            slot,
            known: known.system_id.clone(),
            found: asked.system_id.to_owned(),
        });
    }
    Ok(())
}

fn usable(found: &OnServer, asked: &Asked<'_>) -> Result<(), Error> {
    if found.plugin.as_deref() != Some("pgoutput") || found.database.as_deref() != Some(asked.database) {
        return Err(Refused::Foreign {
            slot: asked.slot.to_owned(),
            database: asked.database.to_owned(),
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
            // A server that is away by now says so here, and nothing on the session that waits.
            _ = naming.tick() => name_those_waited_for(slots).await?,
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
async fn name_those_waited_for(slots: &Slots) -> Result<(), sqlx::Error> {
    for open in open_transactions(slots.pool()).await? {
        tracing::warn!(
            slot = slots.name(),
            pid = open.pid,
            application = open.application,
            open_s = open.open_s,
            "making a replication slot waits for an open transaction"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: Asked<'_> = Asked {
        slot: "afterwrite_email",
        group: "afterwrite.email",
        system_id: "77",
        database: "waitlist",
    };

    fn known() -> Known {
        Known {
            system_id: "77".to_owned(),
            group: "afterwrite.email".to_owned(),
            standing: Standing {
                confirmed_lsn: 100,
                position: Position(90),
                settled_to: Position(95),
            },
        }
    }

    fn found() -> OnServer {
        OnServer {
            plugin: Some("pgoutput".to_owned()),
            database: Some("waitlist".to_owned()),
            active_pid: None,
            wal_status: Some("reserved".to_owned()),
            confirmed_lsn: Some(100),
        }
    }

    fn confirmed(lsn: u64) -> OnServer {
        OnServer {
            confirmed_lsn: Some(lsn),
            ..found()
        }
    }

    #[test]
    fn a_group_goes_on_where_it_stood_and_a_slot_is_made_for_one_that_never_did() {
        let verdict =
            |known: Option<Known>, found: Option<OnServer>| verdict(&ASKED, known.as_ref(), found.as_ref()).unwrap();
        assert_eq!(verdict(None, None), Verdict::Make);
        assert_eq!(verdict(None, Some(confirmed(40))), Verdict::Adopt(40));
        let stood = known().standing;
        // The server writes down later what it was told: after a crash it is behind.
        for lsn in [40, 100] {
            assert_eq!(verdict(Some(known()), Some(confirmed(lsn))), Verdict::GoOn(stood));
        }
    }

    #[test]
    fn what_would_miss_changes_or_mix_groups_is_refused() {
        let elsewhere = Known {
            system_id: "78".to_owned(),
            ..known()
        };
        let anothers = Known {
            group: "afterwrite.fraud".to_owned(),
            ..known()
        };
        let lost = OnServer {
            wal_status: Some("lost".to_owned()),
            ..found()
        };
        let of_another_plugin = OnServer {
            plugin: Some("test_decoding".to_owned()),
            ..found()
        };
        let of_another_database = OnServer {
            database: Some("postgres".to_owned()),
            ..found()
        };
        let read = OnServer {
            active_pid: Some(7),
            ..found()
        };
        for (known, found, reason) in [
            (Some(known()), None, "is gone: changes after 0/64 were missed"),
            (
                Some(known()),
                Some(lost),
                "is lost: the server removed the log after 0/64",
            ),
            (Some(known()), Some(confirmed(101)), "was moved to 0/65, past 0/64"),
            (
                Some(elsewhere),
                Some(found()),
                "another cluster (system identifier 77) than the one whose log this group read (78)",
            ),
            (Some(anothers), Some(found()), "is the one of group afterwrite.fraud"),
            (
                None,
                Some(of_another_plugin),
                "is not one of pgoutput in database waitlist",
            ),
            (
                None,
                Some(of_another_database),
                "is not one of pgoutput in database waitlist",
            ),
            (Some(known()), Some(read), "process 7 of Postgres reads the slot"),
        ] {
            let refused = verdict(&ASKED, known.as_ref(), found.as_ref()).unwrap_err();
            assert!(refused.to_string().contains(reason), "{refused}");
        }
    }
}
