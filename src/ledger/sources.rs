//! Which source a group reads: one row each, so that no group ever reads two at once.
//!
//! A group changes its source only by a graduation (`src/groups/graduation/`): it is told to leave the one, and whoever reads
//! it stops; then the row names the other one.

use std::fmt;

use chrono::{DateTime, Utc};
use sqlx::postgres::{PgConnection, PgPool};

use crate::ledger::patience::{ask, transact};

/// What a group can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The write-ahead log.
    Wal,
    /// Topics of Kafka.
    Kafka,
}

impl Kind {
    /// As it is called in settings and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Wal => "wal",
            Self::Kafka => "kafka",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

/// The group may not read this source now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It has a place in the log, which is worth nothing in Kafka.
    #[error(
        "group {group} reads the write-ahead log, and source.kind is kafka: `afterwrite graduate` moves it to Kafka without losing \
         or repeating anything. Until then let source.kind be wal"
    )]
    ReadsLog {
        /// The group.
        group: String,
    },
    /// It has a place in Kafka, and a slot that is made now would begin now.
    #[error(
        "group {group} reads Kafka since {since}, and source.kind is wal: let source.kind be kafka. There is no way back into the \
         write-ahead log, which keeps nothing for this group"
    )]
    ReadsKafka {
        /// The group.
        group: String,
        /// Since when.
        since: DateTime<Utc>,
    },
    /// It has no place in the log, and where it would begin in Kafka was not written down with the others.
    #[error(
        "group {group} never read the write-ahead log, and the others are on their way to Kafka: start it with source.kind = \"kafka\" \
         when `afterwrite graduate` asks for the others"
    )]
    TooLate {
        /// The group.
        group: String,
    },
    /// A graduation has told it to leave.
    #[error(
        "group {group} is on its way to Kafka and takes nothing more from the write-ahead log: `afterwrite graduate` brings it \
         there, `afterwrite graduate --back` leaves it where it was"
    )]
    Leaves {
        /// The group.
        group: String,
    },
}

/// A group was refused, or could not be asked about.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It may not read this source.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Postgres did not answer, or refused.
    #[error("which source group {group} reads could not be asked for: was `afterwrite migrate` run after the update?")]
    Asked {
        /// The group.
        group: String,
        /// What Postgres said.
        #[source]
        source: sqlx::Error,
    },
}

/// What a group that reads the log is asked for by a graduation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wish {
    /// To end what runs, and to stop.
    pub leaves: bool,
    /// To keep as soon as all before this place in the log is settled, however little is written meanwhile.
    pub kept_at: Option<u64>,
}

/// What is known of a group's source.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    source: Kind,
    leaving: bool,
    /// It has a slot, and with it a place in the log.
    has_slot: bool,
    /// The groups that have one are on their way to Kafka.
    graduating: bool,
    changed_at: DateTime<Utc>,
}

/// The source of one group.
#[derive(Debug, Clone)]
pub struct Sources {
    group: String,
    pool: PgPool,
}

impl Sources {
    /// Of this group.
    pub fn new(pool: PgPool, group: impl Into<String>) -> Self {
        Self {
            group: group.into(),
            pool,
        }
    }

    /// Whether a process may read a source for the group; says so when it is about to start, so that nothing starts in vain.
    ///
    /// # Errors
    /// When the group reads the other one, or is about to; or Postgres failed.
    pub async fn may_read(&self, wanted: Kind) -> Result<(), Error> {
        self.enter(wanted, false).await
    }

    /// The same, and writes down that the group reads it from now on: there is no way back then.
    ///
    /// # Errors
    /// As those of [`may_read`](Self::may_read).
    pub async fn reads(&self, wanted: Kind) -> Result<(), Error> {
        self.enter(wanted, true).await
    }

    async fn enter(&self, wanted: Kind, begins: bool) -> Result<(), Error> {
        let entered = transact(
            &self.pool,
            "asking which source a group reads",
            async |connection: &mut PgConnection| self.enter_within(connection, wanted, begins).await,
        );
        match entered.await {
            Ok(refused) => refused.map_or(Ok(()), |refused| Err(refused.into())),
            Err(source) => Err(Error::Asked {
                group: self.group.clone(),
                source,
            }),
        }
    }

    async fn enter_within(
        &self,
        connection: &mut PgConnection,
        wanted: Kind,
        begins: bool,
    ) -> Result<Option<Refused>, sqlx::Error> {
        sqlx::query(
            "INSERT INTO afterwrite.sources (group_name, source)
             SELECT $1, CASE WHEN EXISTS (SELECT FROM afterwrite.slots WHERE group_name = $1) THEN 'wal' ELSE $2 END
             ON CONFLICT DO NOTHING",
        )
        .bind(&self.group)
        .bind(wanted.as_str())
        .execute(&mut *connection)
        .await?;
        type Row = (String, bool, DateTime<Utc>, bool, bool);
        let (source, leaving, changed_at, has_slot, graduating): Row = sqlx::query_as(
            "SELECT source, leaving, changed_at, EXISTS (SELECT FROM afterwrite.slots WHERE group_name = $1),
                    EXISTS (SELECT FROM afterwrite.graduations WHERE ended_at IS NULL AND NOT going_back)
             FROM afterwrite.sources WHERE group_name = $1 FOR UPDATE",
        )
        .bind(&self.group)
        .fetch_one(&mut *connection)
        .await?;
        let known = Known {
            source: if source == "wal" { Kind::Wal } else { Kind::Kafka },
            leaving,
            has_slot,
            graduating,
            changed_at,
        };
        if let Some(refused) = refusal(&self.group, &known, wanted) {
            return Ok(Some(refused));
        }
        if !begins {
            return Ok(None);
        }
        sqlx::query(
            "UPDATE afterwrite.sources SET source = $2, read_at = coalesce(read_at, now()),
                 epoch = epoch + CASE WHEN source = $2 THEN 0 ELSE 1 END
             WHERE group_name = $1 AND (source <> $2 OR read_at IS NULL)",
        )
        .bind(&self.group)
        .bind(wanted.as_str())
        .execute(&mut *connection)
        .await?;
        Ok(None)
    }

    /// What a graduation asks of the group, which reads the log.
    ///
    /// # Errors
    /// Whatever Postgres answered.
    pub async fn wish(&self) -> Result<Wish, sqlx::Error> {
        let query = sqlx::query_as(
            "SELECT coalesce(bool_or(leaving OR source <> 'wal'), false),
                    (SELECT (cut_lsn - '0/0')::bigint FROM afterwrite.graduations WHERE ended_at IS NULL)
             FROM afterwrite.sources WHERE group_name = $1",
        )
        .bind(&self.group);
        let (leaves, cut_lsn): (bool, Option<i64>) = ask(
            &self.pool,
            "asking whether a group leaves the log",
            async |connection: &mut PgConnection| query.fetch_one(connection).await,
        )
        .await?;
        Ok(Wish {
            leaves,
            kept_at: cut_lsn.map(i64::cast_unsigned),
        })
    }
}

fn refusal(group: &str, known: &Known, wanted: Kind) -> Option<Refused> {
    let group = group.to_owned();
    match (wanted, known.source) {
        (Kind::Wal, Kind::Wal) if known.leaving => Some(Refused::Leaves { group }),
        (Kind::Wal, Kind::Wal) if known.graduating && !known.has_slot => Some(Refused::TooLate { group }),
        (Kind::Wal, Kind::Kafka) => Some(Refused::ReadsKafka {
            group,
            since: known.changed_at,
        }),
        // One that was to read the log and never did has no place in it to lose.
        (Kind::Kafka, Kind::Wal) if known.has_slot => Some(Refused::ReadsLog { group }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_reads_the_source_it_has_a_place_in() {
        for (source, leaving, has_slot, graduating, wanted, word) in [
            (Kind::Wal, false, true, false, Kind::Wal, None),
            (Kind::Wal, false, false, false, Kind::Wal, None),
            (Kind::Wal, false, true, true, Kind::Wal, None),
            (Kind::Wal, false, false, true, Kind::Wal, Some("never read")),
            (Kind::Wal, true, true, true, Kind::Wal, Some("--back")),
            (Kind::Wal, false, true, false, Kind::Kafka, Some("afterwrite graduate")),
            (Kind::Wal, true, true, true, Kind::Kafka, Some("afterwrite graduate")),
            (Kind::Wal, false, false, false, Kind::Kafka, None),
            (Kind::Kafka, false, false, false, Kind::Wal, Some("no way back")),
            (Kind::Kafka, false, true, true, Kind::Kafka, None),
        ] {
            let known = Known {
                source,
                leaving,
                has_slot,
                graduating,
                changed_at: DateTime::UNIX_EPOCH,
            };
            let said = refusal("a.b", &known, wanted).map(|refused| refused.to_string());
            let as_expected = match (&said, word) {
                (None, None) => true,
                (Some(said), Some(word)) => said.contains(word) && said.contains("group a.b"),
                _ => false,
            };
            assert!(as_expected, "{known:?} {wanted:?}: {said:?}");
        }
    }
}
