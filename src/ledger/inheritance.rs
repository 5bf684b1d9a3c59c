//! What a new owner of a partition finds: marks of jobs that ran when an owner died, attempts, and parked lanes.

use chrono::{DateTime, Utc};
use sqlx::postgres::{PgConnection, PgPool};

use crate::event::delivery::{EarlierAttempts, Inherited, LeftMark, ParkedLane, ParkedLetters, Position};
use crate::ledger::patience::ask;

/// Reads what the last owner of a partition (group, topic, number) left, after its claim was taken under `epoch`. When
/// that one `died`, a death is counted at each job that is marked as running alone, once: no mark says so any more afterwards.
/// Whoever died between taking the claim and reading this left the counting to the next.
///
/// # Errors
/// Whatever Postgres answered.
pub(super) async fn load(
    pool: &PgPool,
    place: (&str, &str, i32),
    epoch: i64,
    died: bool,
    suspect_to: Option<Position>,
) -> Result<Inherited, sqlx::Error> {
    let (group, topic, partition) = place;
    // What is read is how it was before this statement counts, so the death is added here as well.
    let query = sqlx::query_as(
        "WITH claim AS MATERIALIZED (
             SELECT FROM afterwrite.claims
             WHERE group_name = $1 AND topic = $2 AND partition = $3 AND epoch = $4 FOR SHARE),
         counted AS (
             UPDATE afterwrite.marks SET deaths = deaths + $5::int, alone = false
             WHERE group_name = $1 AND topic = $2 AND partition = $3 AND alone AND epoch < $4
               AND EXISTS (SELECT FROM claim))
         SELECT 'mark' AS kind, handler, source_offset AS at,
             deaths + ($5 AND alone AND epoch < $4)::int AS number,
             NULL::timestamptz AS first_failed_at, false AS draining
         FROM afterwrite.marks WHERE group_name = $1 AND topic = $2 AND partition = $3
         UNION ALL
         SELECT 'attempts', handler, source_offset, attempts, first_failed_at, false
         FROM afterwrite.attempts WHERE group_name = $1 AND topic = $2 AND partition = $3
         UNION ALL
         SELECT 'lane', handler, lane_key, 0, NULL, state = 'draining'
         FROM afterwrite.parked_lanes WHERE group_name = $1 AND topic = $2 AND partition = $3
         UNION ALL
         SELECT 'letters', handler, 0, count(*) FILTER (WHERE state = 'replaying')::int, NULL, false
         FROM afterwrite.letters
         WHERE group_name = $1 AND source_topic = $2 AND source_partition = $3
           AND class = 'parked' AND state IN ('parked', 'replaying')
         GROUP BY handler
         ORDER BY kind, at, handler",
    )
    .bind(group)
    .bind(topic)
    .bind(partition)
    .bind(epoch)
    .bind(died);
    let rows: Vec<Left> = ask(
        pool,
        "reading what the last owner left",
        async |connection: &mut PgConnection| query.fetch_all(connection).await,
    )
    .await?;
    let mut inherited = Inherited {
        suspect_to,
        ..Inherited::default()
    };
    for row in rows {
        row.add_to(&mut inherited);
    }
    Ok(inherited)
}

/// One row of any of the four kinds.
#[derive(sqlx::FromRow)]
struct Left {
    kind: String,
    handler: String,
    /// An offset, or the key of a lane.
    at: i64,
    /// Deaths, attempts or letters.
    number: i32,
    first_failed_at: Option<DateTime<Utc>>,
    draining: bool,
}

impl Left {
    fn add_to(self, inherited: &mut Inherited) {
        match (&*self.kind, self.first_failed_at) {
            ("mark", _) => inherited.left.push(LeftMark {
                position: Position(self.at),
                handler: self.handler,
                deaths: self.number.unsigned_abs(),
            }),
            ("attempts", Some(first_failed_at)) => inherited.attempts.push(EarlierAttempts {
                position: Position(self.at),
                handler: self.handler,
                attempts: self.number.unsigned_abs(),
                first_failed_at,
            }),
            ("letters", _) => inherited.letters.push(ParkedLetters {
                handler: self.handler,
                recalled: usize::try_from(self.number).unwrap_or(0),
            }),
            _ => inherited.parked.push(ParkedLane {
                handler: self.handler,
                key: self.at.cast_unsigned(),
                draining: self.draining,
            }),
        }
    }
}
