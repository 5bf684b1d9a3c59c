//! Events that are to be done again: rows of the ledger that an operator marked `redo` while their group was stopped.
//!
//! The ledger knows the day of an event's commit and the moment when it was settled, so events are chosen by that moment.
//! A delivery that meets a marked row runs the handler and turns the row to done in the same transaction; nothing else
//! about a delivery changes.

use std::collections::BTreeSet;

use chrono::{DateTime, Days, NaiveDate, Utc};
use sqlx::PgConnection;
use sqlx::postgres::PgPool;

use crate::ledger::LedgerKey;

/// Which events of a handler are to be done again: those it settled within this time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// The handler.
    pub handler: String,
    /// From this moment on.
    pub from: DateTime<Utc>,
    /// Before this moment.
    pub until: DateTime<Utc>,
    /// Whether the effects that were first claimed for these events are made again.
    pub repeat_effects: bool,
}

/// What was marked, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Marked {
    /// Events.
    pub events: i64,
    /// Effects that are made again.
    pub effects: i64,
    /// Events within the time that are left out, because they were dead letters once: they go back by a replay of their
    /// letter, and a new failure would find that letter's id taken.
    pub were_letters: i64,
    /// Events that were marked earlier and not met since; they are done again too.
    pub open_before: i64,
    /// The first day of commit of all of them.
    pub first_day: Option<NaiveDate>,
    /// The days of commit of what is marked now.
    pub days: Vec<NaiveDate>,
}

/// Done rows within the time. The ledger may know the handler under an older name. `$1` handler, `$2` from, `$3` until, `$4` the last day on which such an event can have been
/// committed: later partitions are not read.
const WITHIN: &str = "known.handler = coalesce((SELECT ledger_name FROM afterwrite.handlers WHERE name = $1), $1)
    AND known.state = 'done' AND known.settled_at >= $2 AND known.settled_at < $3
    AND known.commit_day <= $4";

const WAS_LETTER: &str = "EXISTS (SELECT FROM afterwrite.letters WHERE letters.handler IN ($1, known.handler) AND letters.event_id = known.event_id)";

const REOPENED: &str = "handler IN ($1, coalesce((SELECT ledger_name FROM afterwrite.handlers WHERE name = $1), $1))
    AND state IN ('sent', 'skipped', 'failed') AND event_id IN (SELECT event_id FROM marked)";

/// Counts what [`mark`] would mark.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn count(connection: &mut PgConnection, chosen: &Chosen) -> Result<Marked, sqlx::Error> {
    let marked =
        format!("SELECT commit_day, event_id FROM afterwrite.ledger AS known WHERE {WITHIN} AND NOT {WAS_LETTER}");
    let effects = format!("SELECT 1 FROM afterwrite.effects WHERE $5 AND {REOPENED}");
    run(connection, chosen, &marked, &effects).await
}

/// Marks the events, and opens their effects again where that was asked for. Only in a transaction, and only while the
/// group is stopped.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn mark(connection: &mut PgConnection, chosen: &Chosen) -> Result<Marked, sqlx::Error> {
    let marked = format!(
        "UPDATE afterwrite.ledger AS known SET state = 'redo' WHERE {WITHIN} AND NOT {WAS_LETTER}
         RETURNING commit_day, event_id"
    );
    let effects = format!(
        "UPDATE afterwrite.effects SET state = 'reopened', updated_at = now() WHERE $5 AND {REOPENED} RETURNING 1"
    );
    run(connection, chosen, &marked, &effects).await
}

async fn run(
    connection: &mut PgConnection,
    chosen: &Chosen,
    marked: &str,
    effects: &str,
) -> Result<Marked, sqlx::Error> {
    // All parts see the ledger as it was before: what is marked now is not counted as open before.
    let sql = format!(
        "WITH marked AS ({marked}),
              opened AS ({effects}),
              open_before AS (
                  SELECT commit_day FROM afterwrite.ledger
                  WHERE handler = coalesce((SELECT ledger_name FROM afterwrite.handlers WHERE name = $1), $1)
                    AND state = 'redo')
         SELECT (SELECT count(*) FROM marked), (SELECT count(*) FROM opened),
                (SELECT count(*) FROM afterwrite.ledger AS known WHERE {WITHIN} AND {WAS_LETTER}),
                (SELECT count(*) FROM open_before),
                (SELECT min(commit_day) FROM (SELECT commit_day FROM marked UNION ALL TABLE open_before) AS met),
                ARRAY(SELECT DISTINCT commit_day FROM marked ORDER BY 1)"
    );
    let last_day = chosen.until.date_naive() + Days::new(1);
    let (events, effects, were_letters, open_before, first_day, days) = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(&chosen.handler)
        .bind(chosen.from)
        .bind(chosen.until)
        .bind(last_day)
        .bind(chosen.repeat_effects)
        .fetch_one(connection)
        .await?;
    Ok(Marked {
        events,
        effects,
        were_letters,
        open_before,
        first_day,
        days,
    })
}

/// Days of commit on which events of this handler were ever marked. Marks are made only while the group is stopped, so what
/// holds at its start holds while it runs.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn days(pool: &PgPool, handler: &str) -> Result<BTreeSet<NaiveDate>, sqlx::Error> {
    let days: Vec<NaiveDate> = sqlx::query_scalar(
        "SELECT DISTINCT unnest(redo_days) FROM afterwrite.group_moves
         WHERE redo_handler IN ($1, (SELECT ledger_name FROM afterwrite.handlers WHERE name = $1))",
    )
    .bind(handler)
    .fetch_all(pool)
    .await?;
    Ok(days.into_iter().collect())
}

/// Turns marked rows among these to done and answers which they were. A rival that does the same waits, and then finds
/// nothing to turn.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn turn(
    connection: &mut PgConnection,
    handler: &str,
    keys: &[LedgerKey],
) -> Result<Vec<(NaiveDate, Vec<u8>)>, sqlx::Error> {
    let days: Vec<NaiveDate> = keys.iter().map(|key| key.commit_day).collect();
    let ids: Vec<Vec<u8>> = keys.iter().map(|key| key.event_id.0.to_vec()).collect();
    // Locked in one order, so that two transactions never wait for each other in a circle.
    sqlx::query_as(
        "WITH met AS (
             SELECT commit_day, handler, event_id FROM afterwrite.ledger
             WHERE handler = coalesce((SELECT ledger_name FROM afterwrite.handlers WHERE name = $2), $2)
               AND state = 'redo'
               AND (commit_day, event_id) IN (SELECT * FROM unnest($1::date[], $3::bytea[]))
             ORDER BY commit_day, event_id FOR UPDATE)
         UPDATE afterwrite.ledger AS known SET state = 'done', settled_at = now() FROM met
         WHERE known.handler = met.handler AND known.commit_day = met.commit_day AND known.event_id = met.event_id
         RETURNING known.commit_day, known.event_id",
    )
    .bind(&days)
    .bind(handler)
    .bind(&ids)
    .fetch_all(connection)
    .await
}
