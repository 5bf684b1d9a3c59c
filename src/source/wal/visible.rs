//! Whether others can see what a transaction wrote: the log has its end before they do.
//!
//! A commit is written to the log, and may be sent from there, before the transaction leaves the list of those that run; with
//! synchronous replication long before. A handler that reads rows in between finds none, and would skip what it was woken
//! for. So a transaction is handed over only when a snapshot that was taken after it was received contains it. Snapshots
//! taken later contain it too. One question answers for all transactions that were committed before it.

use std::time::Duration;

use sqlx::postgres::{PgConnection, PgPool};
use tokio::time::{Instant, sleep};

use crate::ledger::patience::ask;

/// First and longest pause before it is asked again: a commit needs microseconds, unless it waits for a standby.
const AGAIN_AFTER: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(50)];

/// After that it is said that it takes long.
const TOLD_AFTER: Duration = Duration::from_secs(1);

/// After that the log is read again from what was settled, so that orders to the source do not wait for ever.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// It cannot be said that a transaction can be seen.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unseen {
    /// It takes too long.
    #[error(
        "transaction {xid} is committed in the log and cannot be seen yet: its commit waits for a standby \
         (synchronous_standby_names)"
    )]
    Waiting {
        /// The transaction.
        xid: u32,
    },
    /// Postgres did not answer.
    #[error("which transactions can be seen could not be asked")]
    Asked(#[from] sqlx::Error),
}

/// What can be seen, as far as is known.
#[derive(Debug, Default)]
pub(super) struct Visible {
    known: Option<Snapshot>,
}

impl Visible {
    /// Waits until others can see what this transaction wrote.
    pub(super) async fn wait_for(&mut self, pool: &PgPool, xid: u32) -> Result<(), Unseen> {
        if self.known.as_ref().is_some_and(|known| known.contains(xid)) {
            return Ok(());
        }
        let began = Instant::now();
        let [mut pause, pause_max] = AGAIN_AFTER;
        let mut is_told = false;
        loop {
            let snapshot = snapshot(pool).await?;
            let is_seen = snapshot.contains(xid);
            self.known = Some(snapshot);
            if is_seen {
                return Ok(());
            }
            let waited = began.elapsed();
            if waited >= WAIT_MAX {
                return Err(Unseen::Waiting { xid });
            }
            if waited >= TOLD_AFTER && !is_told {
                is_told = true;
                tracing::warn!(
                    xid,
                    "a transaction is committed in the log and cannot be seen yet: waiting; does its commit wait for a standby \
                     (synchronous_standby_names)?"
                );
            }
            sleep(pause).await;
            pause = (pause * 2).min(pause_max);
        }
    }
}

async fn snapshot(pool: &PgPool) -> Result<Snapshot, sqlx::Error> {
    let text: String = ask(
        pool,
        "asking which transactions can be seen",
        async |connection: &mut PgConnection| {
            let query = sqlx::query_scalar("SELECT pg_current_snapshot()::text");
            query.fetch_one(connection).await
        },
    )
    .await?;
    Snapshot::parse(&text).ok_or_else(|| sqlx::Error::Protocol(format!("{text} is no snapshot")))
}

/// The transactions that a query sees.
#[derive(Debug, PartialEq, Eq)]
struct Snapshot {
    /// All before it have ended.
    min: u64,
    /// This one and those after it had not.
    max: u64,
    /// Those between that had not.
    running: Vec<u64>,
}

impl Snapshot {
    /// Reads `10:20:10,14,15`.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let (min, max, running) = (parts.next()?, parts.next()?, parts.next()?);
        let running = running.split(',').filter(|xid| !xid.is_empty());
        Some(Self {
            min: min.parse().ok()?,
            max: max.parse().ok()?,
            running: running.map(|xid| xid.parse().ok()).collect::<Option<Vec<u64>>>()?,
        })
    }

    /// Whether it contains what a committed transaction wrote. The log has the lower half of its number, which is taken for the
    /// one that is nearest.
    fn contains(&self, xid: u32) -> bool {
        let low = u32::try_from(self.max & u64::from(u32::MAX)).unwrap_or_default();
        // Half of all numbers are before one, as Postgres counts.
        let ahead = i64::from(xid.wrapping_sub(low).cast_signed());
        let Some(full) = self.max.checked_add_signed(ahead) else {
            return true;
        };
        full < self.min || (full < self.max && !self.running.contains(&full))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Snapshot {
        Snapshot::parse(text).unwrap()
    }

    #[test]
    fn what_has_ended_can_be_seen_and_what_runs_cannot() {
        let snapshot = of("10:20:10,14,15");
        for (xid, seen) in [
            (3, true),
            (9, true),
            (10, false),
            (13, true),
            (14, false),
            (19, true),
            (20, false),
            (21, false),
        ] {
            assert_eq!(snapshot.contains(xid), seen, "{xid}");
        }
        assert!(of("20:20:").contains(19));
    }

    #[test]
    fn the_number_of_a_transaction_begins_anew_after_four_thousand_million() {
        let wrap = 1_u64 << 32;
        let snapshot = of(&format!("{}:{}:{}", wrap - 2, wrap + 3, wrap - 2));
        for (xid, seen) in [
            (u32::MAX - 2, true),
            (u32::MAX - 1, false),
            (u32::MAX, true),
            (2, true),
            (3, false),
        ] {
            assert_eq!(snapshot.contains(xid), seen, "{xid}");
        }
        assert!(
            of("5:5:").contains(u32::MAX),
            "of before the server was made: nothing can be waited for"
        );
    }

    #[test]
    fn what_is_no_snapshot_is_not_read() {
        for text in ["", "1", "1:2", "a:2:", "1:2:x", "1:2:3,,x"] {
            assert_eq!(Snapshot::parse(text), None, "{text}");
        }
    }
}
