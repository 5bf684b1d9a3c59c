//! Parked lanes: the followers of a head that is in the dead letters, kept in order until the head is settled.
//!
//! A lane is parked by the transaction that records its head's letter. From then on its events are appended behind the head.
//! When the letter was replayed or discarded the lane drains: its events are worked on in order, and what arrives meanwhile
//! is still appended. It is live again in the transaction that sees its list empty.
//!
//! Who appends locks the lane's row against its deletion, so nothing is appended to a lane that is live. Locks are taken
//! in one order: claim, then lane.

use bytes::Bytes;
use chrono::{DateTime, NaiveDate, Utc};
use serde_json::Value;
use sqlx::postgres::{PgArguments, PgPool};
use sqlx::{Arguments, PgConnection};

use crate::event::delivery::{Position, RawRecord, SourcePartition};
use crate::ledger::patience::{ask, transact};
use crate::ledger::{LedgerKey, headers};

/// Who asks for the replay of a letter that was parked because of lag: nobody did, so it leaves nothing when it has ended.
pub const RELEASED_BY: &str = "afterwrite, by itself";

/// Which lane of a group.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lane {
    /// The partition its events come from.
    pub partition: SourcePartition,
    /// The handler's name.
    pub handler: String,
    /// Hash of the ordering key.
    pub key: u64,
}

/// What became of an event that should be appended to a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parked {
    /// It is in the lane's list, perhaps since an earlier try.
    Stored,
    /// The lane holds nothing back any more: the event has to be worked on.
    LaneIsLive,
    /// The epoch is over: the event is the next owner's.
    Fenced,
}

/// An event that is appended to a lane.
#[derive(Debug, Clone, Copy)]
pub struct Appended<'a> {
    /// Its place in the source partition.
    pub position: Position,
    /// Its place in the ledger; `None` for events without identity.
    pub key: Option<LedgerKey>,
    /// Its record.
    pub raw: &'a RawRecord,
}

/// An event in the list of a lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedEvent {
    /// Where it stands in its partition.
    pub position: Position,
    /// Its bytes, as they came.
    pub raw: RawRecord,
}

/// The parked lanes of one group.
#[derive(Debug, Clone)]
pub struct Parking {
    pool: PgPool,
    group: String,
}

impl Parking {
    /// The lanes of `group`.
    pub fn new(pool: PgPool, group: impl Into<String>) -> Self {
        Self {
            pool,
            group: group.into(),
        }
    }

    /// The database.
    pub(crate) fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// The group.
    pub(crate) fn group(&self) -> &str {
        &self.group
    }

    /// Parks a lane behind the letter of its head, in the transaction that records the letter. A head that was in the
    /// lane's list itself is taken out of it. False: the epoch is over, and the transaction must not commit.
    ///
    /// # Errors
    /// Whatever Postgres answered.
    pub async fn park_lane(
        &self,
        connection: &mut PgConnection,
        epoch: u64,
        lane: &Lane,
        head: Position,
        head_letter: &str,
    ) -> Result<bool, sqlx::Error> {
        sqlx::query_scalar_with(
            "WITH claim AS MATERIALIZED (
                 SELECT FROM afterwrite.claims
                 WHERE group_name = $1 AND topic = $2 AND partition = $3 AND epoch = $6 FOR SHARE),
             lane AS (
                 INSERT INTO afterwrite.parked_lanes (group_name, topic, partition, handler, lane_key, head_letter)
                 SELECT $1, $2, $3, $4, $5, $7 FROM claim
                 ON CONFLICT (group_name, topic, partition, handler, lane_key) DO UPDATE
                     SET state = 'parked', head_letter = excluded.head_letter),
             taken_out AS (
                 DELETE FROM afterwrite.parked
                 WHERE group_name = $1 AND topic = $2 AND partition = $3 AND handler = $4 AND lane_key = $5
                   AND source_offset = $8 AND EXISTS (SELECT FROM claim))
             SELECT EXISTS (SELECT FROM claim)",
            self.arguments(lane),
        )
        .bind(epoch.cast_signed())
        .bind(head_letter)
        .bind(head.0)
        .fetch_one(connection)
        .await
    }

    /// Appends events to a lane that is parked or draining, all or none. Appending them again changes nothing.
    ///
    /// # Errors
    /// Whatever Postgres answered.
    pub async fn park(&self, epoch: u64, lane: &Lane, events: &[Appended<'_>]) -> Result<Parked, sqlx::Error> {
        let offsets = events.iter().map(|event| event.position.0);
        let ids = events.iter().map(|event| event.key.map(|key| key.event_id.0.to_vec()));
        let days = events.iter().map(|event| event.key.map(|key| key.commit_day));
        let keys = events.iter().map(|event| event.raw.key.as_deref());
        let values = events.iter().map(|event| event.raw.value.as_deref());
        let all_headers = events.iter().map(|event| headers::to_json(&event.raw.headers));
        let timestamps = events.iter().map(|event| event.raw.timestamp_ms);
        let query = sqlx::query_as_with(
            "WITH claim AS MATERIALIZED (
                 SELECT FROM afterwrite.claims
                 WHERE group_name = $1 AND topic = $2 AND partition = $3 AND epoch = $6 FOR SHARE),
             lane AS MATERIALIZED (
                 SELECT FROM afterwrite.parked_lanes
                 WHERE group_name = $1 AND topic = $2 AND partition = $3 AND handler = $4 AND lane_key = $5
                   AND EXISTS (SELECT FROM claim)
                 FOR KEY SHARE),
             appended AS (
                 INSERT INTO afterwrite.parked (group_name, topic, partition, handler, lane_key, source_offset, event_id,
                                                commit_day, key, value, headers, timestamp_ms)
                 SELECT $1, $2, $3, $4, $5, event.*
                 FROM lane, unnest($7::bigint[], $8::bytea[], $9::date[], $10::bytea[], $11::bytea[], $12::jsonb[],
                                   $13::bigint[]) AS event
                 ON CONFLICT DO NOTHING)
             SELECT EXISTS (SELECT FROM claim), EXISTS (SELECT FROM lane)",
            self.arguments(lane),
        )
        .bind(epoch.cast_signed())
        .bind(offsets.collect::<Vec<i64>>())
        .bind(ids.collect::<Vec<Option<Vec<u8>>>>())
        .bind(days.collect::<Vec<Option<NaiveDate>>>())
        .bind(keys.collect::<Vec<Option<&[u8]>>>())
        .bind(values.collect::<Vec<Option<&[u8]>>>())
        .bind(all_headers.collect::<Vec<Value>>())
        .bind(timestamps.collect::<Vec<Option<i64>>>());
        let (is_owner, is_parked): (bool, bool) =
            ask(&self.pool, "parking events", async |connection: &mut PgConnection| {
                query.fetch_one(connection).await
            })
            .await?;
        Ok(match (is_owner, is_parked) {
            (false, _) => Parked::Fenced,
            (true, false) => Parked::LaneIsLive,
            (true, true) => Parked::Stored,
        })
    }

    /// Lets a parked lane drain. False: the epoch is over, or the lane is live.
    ///
    /// # Errors
    /// Whatever Postgres answered.
    pub async fn drain(&self, epoch: u64, lane: &Lane) -> Result<bool, sqlx::Error> {
        let query = sqlx::query_with(
            "WITH claim AS MATERIALIZED (
                 SELECT FROM afterwrite.claims
                 WHERE group_name = $1 AND topic = $2 AND partition = $3 AND epoch = $6 FOR SHARE)
             UPDATE afterwrite.parked_lanes SET state = 'draining'
             WHERE group_name = $1 AND topic = $2 AND partition = $3 AND handler = $4 AND lane_key = $5
               AND EXISTS (SELECT FROM claim)",
            self.arguments(lane),
        )
        .bind(epoch.cast_signed());
        let drained = ask(
            &self.pool,
            "letting a lane drain",
            async |connection: &mut PgConnection| query.execute(connection).await,
        )
        .await?;
        Ok(drained.rows_affected() > 0)
    }

    /// The events of a lane behind `after` (all, for `None`), in order, at most `limit`.
    ///
    /// # Errors
    /// Whatever Postgres answered.
    pub async fn next(
        &self,
        lane: &Lane,
        after: Option<Position>,
        limit: u32,
    ) -> Result<Vec<ParkedEvent>, sqlx::Error> {
        let query = sqlx::query_as_with(
            "SELECT source_offset, key, value, headers, timestamp_ms FROM afterwrite.parked
             WHERE group_name = $1 AND topic = $2 AND partition = $3 AND handler = $4 AND lane_key = $5
               AND source_offset > $6
             ORDER BY source_offset LIMIT $7",
            self.arguments(lane),
        )
        .bind(after.map_or(i64::MIN, |position| position.0))
        .bind(i64::from(limit));
        let rows: Vec<EventRow> = ask(
            &self.pool,
            "reading parked events",
            async |connection: &mut PgConnection| query.fetch_all(connection).await,
        )
        .await?;
        Ok(rows.into_iter().map(ParkedEvent::from).collect())
    }

    /// Takes settled events out of a lane's list. False: the epoch is over, and nothing was taken out.
    ///
    /// # Errors
    /// Whatever Postgres answered.
    pub async fn done(&self, epoch: u64, lane: &Lane, settled: &[Position]) -> Result<bool, sqlx::Error> {
        let offsets: Vec<i64> = settled.iter().map(|position| position.0).collect();
        let query = sqlx::query_scalar_with(
            "WITH claim AS MATERIALIZED (
                 SELECT FROM afterwrite.claims
                 WHERE group_name = $1 AND topic = $2 AND partition = $3 AND epoch = $6 FOR SHARE),
             taken_out AS (
                 DELETE FROM afterwrite.parked
                 WHERE group_name = $1 AND topic = $2 AND partition = $3 AND handler = $4 AND lane_key = $5
                   AND source_offset = ANY ($7) AND EXISTS (SELECT FROM claim))
             SELECT EXISTS (SELECT FROM claim)",
            self.arguments(lane),
        )
        .bind(epoch.cast_signed())
        .bind(offsets);
        ask(
            &self.pool,
            "taking events out of a lane",
            async |connection: &mut PgConnection| query.fetch_one(connection).await,
        )
        .await
    }

    /// Makes a draining lane live again when its list is empty. False: it is not, or the epoch is over, or the lane was parked
    /// again. True also when it is live already: an answer may have got lost.
    ///
    /// # Errors
    /// Whatever Postgres answered.
    pub async fn go_live(&self, epoch: u64, lane: &Lane) -> Result<bool, sqlx::Error> {
        let going_live = async |connection: &mut PgConnection| {
            // Waits for who appends now, and keeps out who comes later. Whether the list is empty is asked by a statement of
            // its own, which sees what the ones waited for have appended.
            let (is_owner, state): (bool, Option<String>) = sqlx::query_as_with(
                "WITH claim AS MATERIALIZED (
                 SELECT FROM afterwrite.claims
                 WHERE group_name = $1 AND topic = $2 AND partition = $3 AND epoch = $6 FOR SHARE),
             lane AS MATERIALIZED (
                 SELECT state FROM afterwrite.parked_lanes
                 WHERE group_name = $1 AND topic = $2 AND partition = $3 AND handler = $4 AND lane_key = $5
                   AND EXISTS (SELECT FROM claim)
                 FOR UPDATE)
             SELECT EXISTS (SELECT FROM claim), (SELECT state FROM lane)",
                self.arguments(lane),
            )
            .bind(epoch.cast_signed())
            .fetch_one(&mut *connection)
            .await?;
            match (is_owner, state.as_deref()) {
                (true, None) => return Ok(true),
                (true, Some("draining")) => {}
                _ => return Ok(false),
            }
            let head: Option<String> = sqlx::query_scalar_with(
                "DELETE FROM afterwrite.parked_lanes AS lane
             WHERE group_name = $1 AND topic = $2 AND partition = $3 AND handler = $4 AND lane_key = $5
               AND NOT EXISTS (
                   SELECT FROM afterwrite.parked AS event
                   WHERE event.group_name = $1 AND event.topic = $2 AND event.partition = $3 AND event.handler = $4
                     AND event.lane_key = $5)
             RETURNING head_letter",
                self.arguments(lane),
            )
            .fetch_optional(&mut *connection)
            .await?;
            match head {
                Some(head) => forget_released(connection, &head).await.map(|()| true),
                None => Ok(false),
            }
        };
        transact(&self.pool, "making a lane live", going_live).await
    }

    /// Parked lanes of the owned partitions whose head was replayed or discarded: they have to drain. At most `limit`. Asked
    /// once a second; whoever finds a letter discarded need not tell the owner.
    ///
    /// # Errors
    /// Whatever Postgres answered.
    pub async fn to_drain(&self, owned: &[(SourcePartition, u64)], limit: u32) -> Result<Vec<Lane>, sqlx::Error> {
        let topics: Vec<&str> = owned.iter().map(|(partition, _)| &*partition.topic).collect();
        let partitions: Vec<i32> = owned.iter().map(|(partition, _)| partition.partition).collect();
        let query = sqlx::query_as(
            "SELECT lane.topic, lane.partition, lane.handler, lane.lane_key
             FROM afterwrite.parked_lanes lane JOIN afterwrite.letters letter ON letter.letter_id = lane.head_letter
             WHERE lane.group_name = $1 AND lane.state = 'parked' AND letter.state IN ('replayed', 'discarded')
               AND (lane.topic, lane.partition) IN (SELECT * FROM unnest($2::text[], $3::int[]))
             ORDER BY lane.parked_at LIMIT $4",
        )
        .bind(&self.group)
        .bind(topics)
        .bind(partitions)
        .bind(i64::from(limit));
        let rows: Vec<LaneRow> = ask(
            &self.pool,
            "looking for lanes to drain",
            async |connection: &mut PgConnection| query.fetch_all(connection).await,
        )
        .await?;
        Ok(rows.into_iter().map(Lane::from).collect())
    }

    /// What names a lane in a statement: $1 to $5.
    fn arguments(&self, lane: &Lane) -> PgArguments {
        let mut arguments = PgArguments::default();
        let added = arguments
            .add(&self.group)
            .and_then(|()| arguments.add(&*lane.partition.topic))
            .and_then(|()| arguments.add(lane.partition.partition))
            .and_then(|()| arguments.add(&lane.handler))
            .and_then(|()| arguments.add(lane.key.cast_signed()));
        added.expect("texts and integers can be encoded");
        arguments
    }
}

/// Deletes the letter of a lane that was parked because of lag, when it was released by itself: its job was not dead, and if it
/// failed for good since then it has another letter. Deletes nothing of other letters.
async fn forget_released(connection: &mut PgConnection, head_letter: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "WITH released AS MATERIALIZED (
             SELECT letter_id FROM afterwrite.letters
             WHERE letter_id = $1 AND class = 'parked' AND state = 'replayed' AND state_by = $2),
         requests AS (
             DELETE FROM afterwrite.replay_requests WHERE letter_id IN (SELECT letter_id FROM released)),
         history AS (
             DELETE FROM afterwrite.letter_history WHERE letter_id IN (SELECT letter_id FROM released))
         DELETE FROM afterwrite.letters WHERE letter_id IN (SELECT letter_id FROM released)",
    )
    .bind(head_letter)
    .bind(RELEASED_BY)
    .execute(connection)
    .await
    .map(|_| ())
}

/// How the lanes of a handler stand, for people.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, sqlx::FromRow)]
pub struct ParkedLanes {
    /// The handler.
    pub handler: String,
    /// Lanes whose head waits in the dead letters.
    pub parked: i64,
    /// Lanes whose events are being worked on.
    pub draining: i64,
    /// Events in the lists of both.
    pub events: i64,
    /// Since when the oldest of these lanes is parked.
    pub oldest_parked_at: DateTime<Utc>,
}

/// How the lanes of a group stand, by handler; handlers without parked lanes are left out.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn summary(pool: &PgPool, group: &str) -> Result<Vec<ParkedLanes>, sqlx::Error> {
    let query = sqlx::query_as(
        "SELECT handler, count(*) FILTER (WHERE state = 'parked') AS parked,
             count(*) FILTER (WHERE state = 'draining') AS draining,
             (SELECT count(*) FROM afterwrite.parked event
              WHERE event.group_name = $1 AND event.handler = lane.handler) AS events,
             min(parked_at) AS oldest_parked_at
         FROM afterwrite.parked_lanes lane WHERE group_name = $1 GROUP BY handler ORDER BY handler",
    )
    .bind(group);
    ask(pool, "counting parked lanes", async |connection: &mut PgConnection| {
        query.fetch_all(connection).await
    })
    .await
}

/// The lane that this letter's event heads, when it is parked.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn headed_by(pool: &PgPool, letter_id: &str) -> Result<Option<Lane>, sqlx::Error> {
    let query = sqlx::query_as(
        "SELECT topic, partition, handler, lane_key FROM afterwrite.parked_lanes
         WHERE head_letter = $1 AND state = 'parked'",
    )
    .bind(letter_id);
    let row: Option<LaneRow> = ask(
        pool,
        "looking for the lane of a letter",
        async |connection: &mut PgConnection| query.fetch_optional(connection).await,
    )
    .await?;
    Ok(row.map(Lane::from))
}

#[derive(sqlx::FromRow)]
struct LaneRow {
    topic: String,
    partition: i32,
    handler: String,
    lane_key: i64,
}

impl From<LaneRow> for Lane {
    fn from(row: LaneRow) -> Self {
        Self {
            partition: SourcePartition {
                topic: row.topic.into(),
                partition: row.partition,
            },
            handler: row.handler,
            key: row.lane_key.cast_unsigned(),
        }
    }
}

#[derive(sqlx::FromRow)]
struct EventRow {
    source_offset: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Value,
    timestamp_ms: Option<i64>,
}

impl From<EventRow> for ParkedEvent {
    fn from(row: EventRow) -> Self {
        Self {
            position: Position(row.source_offset),
            raw: RawRecord {
                key: row.key.map(Bytes::from),
                value: row.value.map(Bytes::from),
                headers: headers::from_json(&row.headers),
                timestamp_ms: row.timestamp_ms,
            },
        }
    }
}
