//! What Postgres knows of a graduation, and what each step writes. Each statement can be repeated.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::postgres::{PgConnection, PgPool};

use super::{ConnectorSlot, Facts, Graduation, Lsn, Member};
use crate::ledger::slots::printed;

/// Requests to replay a letter go where their letter goes.
const REQUESTS_FOLLOW: &str = "UPDATE afterwrite.replay_requests request
     SET source_topic = letter.source_topic, source_partition = letter.source_partition, state = 'requested', epoch = NULL
     FROM afterwrite.letters letter
     WHERE letter.letter_id = request.letter_id AND request.state IN ('requested', 'taken')
       AND request.source_topic <> letter.source_topic";

/// What is there.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn facts(pool: &PgPool) -> Result<Facts, sqlx::Error> {
    let begun = begun(pool).await?;
    let slot = match &begun {
        Some(begun) => connector_slot(pool, &begun.slot).await?,
        None => ConnectorSlot::Absent,
    };
    Ok(Facts {
        members: members(pool).await?,
        begun,
        slot,
    })
}

async fn begun(pool: &PgPool) -> Result<Option<Graduation>, sqlx::Error> {
    type Row = (i64, String, String, Option<i64>, bool, bool, Option<i64>, bool);
    let row: Option<Row> = sqlx::query_as(
        "SELECT id, connector, slot_name::text, (cut_lsn - '0/0')::bigint, beginnings_at IS NOT NULL,
                connector_at IS NOT NULL, (marker_lsn - '0/0')::bigint, going_back
         FROM afterwrite.graduations WHERE ended_at IS NULL",
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.map(
        |(id, connector, slot, cut, has_beginnings, has_connector, marker, going_back)| Graduation {
            id,
            connector,
            slot,
            cut: cut.map(i64::cast_unsigned),
            has_beginnings,
            has_connector,
            marker: marker.map(i64::cast_unsigned),
            going_back,
        },
    ))
}

/// A graduation that has begun and not ended, for whoever looks after groups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, sqlx::FromRow)]
pub struct UnderWay {
    /// The connector that takes over.
    pub connector: String,
    /// Since when.
    pub begun_at: DateTime<Utc>,
    /// Log that the server keeps at most for one of the groups' slots, which are there until the end.
    pub kept_bytes: i64,
}

/// Whether a graduation is under way.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn under_way(pool: &PgPool) -> Result<Option<UnderWay>, sqlx::Error> {
    sqlx::query_as(
        "SELECT connector, begun_at,
                coalesce((SELECT max(pg_current_wal_lsn() - here.restart_lsn)::bigint FROM afterwrite.slots
                          JOIN pg_replication_slots here USING (slot_name)), 0) AS kept_bytes
         FROM afterwrite.graduations WHERE ended_at IS NULL",
    )
    .fetch_optional(pool)
    .await
}

async fn members(pool: &PgPool) -> Result<Vec<Member>, sqlx::Error> {
    type Row = (String, String, bool, bool, bool, i64, bool, bool, i64);
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT kept.group_name, kept.slot_name::text, coalesce(source.source, 'wal') = 'wal',
                coalesce(source.leaving, false), source.read_at IS NOT NULL, (kept.confirmed_lsn - '0/0')::bigint,
                here.active_pid IS NOT NULL,
                here.slot_name IS NOT NULL AND here.wal_status IS DISTINCT FROM 'lost',
                (SELECT count(*) FROM afterwrite.parked_lanes lane
                 WHERE lane.group_name = kept.group_name AND lane.topic = kept.slot_name::text)
         FROM afterwrite.slots kept
         LEFT JOIN afterwrite.sources source USING (group_name)
         LEFT JOIN pg_replication_slots here USING (slot_name)
         ORDER BY 1, 2",
    )
    .fetch_all(pool)
    .await?;
    let member = |(group, slot, is_in_log, leaving, is_read, settled, is_active, is_whole, parked): Row| Member {
        group,
        slot,
        is_in_log,
        leaving,
        is_read,
        settled: settled.cast_unsigned(),
        is_active,
        is_whole,
        parked,
    };
    Ok(rows.into_iter().map(member).collect())
}

/// Begins a graduation. False: another one has begun.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn begin(pool: &PgPool, connector: &str, slot: &str) -> Result<bool, sqlx::Error> {
    let begun = sqlx::query(
        "INSERT INTO afterwrite.graduations (connector, slot_name) VALUES ($1, $2::name) ON CONFLICT DO NOTHING",
    )
    .bind(connector)
    .bind(slot)
    .execute(pool)
    .await?;
    Ok(begun.rows_affected() > 0)
}

/// Looks at the connector's slot.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn connector_slot(pool: &PgPool, slot: &str) -> Result<ConnectorSlot, sqlx::Error> {
    let row: Option<(bool, bool, Option<i64>)> = sqlx::query_as(
        "SELECT plugin = 'pgoutput' AND database = current_database(), coalesce(wal_status = 'lost', false),
                (confirmed_flush_lsn - '0/0')::bigint
         FROM pg_replication_slots WHERE slot_name = $1::name",
    )
    .bind(slot)
    .fetch_optional(pool)
    .await?;
    Ok(match row {
        None => ConnectorSlot::Absent,
        Some((false, ..)) => ConnectorSlot::Foreign,
        Some((true, true, _)) => ConnectorSlot::Lost,
        Some((true, false, Some(lsn))) => ConnectorSlot::At(lsn.cast_unsigned()),
        Some((true, false, None)) => ConnectorSlot::InTheMaking,
    })
}

/// Makes the connector's slot, which takes until all transactions have ended that are open now. The role needs `REPLICATION`.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn make_slot(pool: &PgPool, slot: &str) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_create_logical_replication_slot($1::name, 'pgoutput')")
        .bind(slot)
        .execute(pool)
        .await
        .map(|_| ())
}

/// Writes down where the connector's slot was made.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn cut(pool: &PgPool, graduation: i64, lsn: Lsn) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE afterwrite.graduations SET cut_lsn = coalesce(cut_lsn, $2::pg_lsn) WHERE id = $1")
        .bind(graduation)
        .bind(printed(lsn))
        .execute(pool)
        .await
        .map(|_| ())
}

/// Writes down that the groups' beginnings in Kafka are written.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn has_beginnings(pool: &PgPool, graduation: i64) -> Result<(), sqlx::Error> {
    let statement = "UPDATE afterwrite.graduations SET beginnings_at = coalesce(beginnings_at, now()) WHERE id = $1";
    note(pool, graduation, statement).await
}

/// Writes down that the connector runs.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn has_connector(pool: &PgPool, graduation: i64) -> Result<(), sqlx::Error> {
    let statement = "UPDATE afterwrite.graduations SET connector_at = coalesce(connector_at, now()) WHERE id = $1";
    note(pool, graduation, statement).await
}

/// Writes down the end of the log as it is now: the groups have to have read that much in Kafka.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn mark(pool: &PgPool, graduation: i64) -> Result<(), sqlx::Error> {
    let statement = "UPDATE afterwrite.graduations SET marker_lsn = coalesce(marker_lsn, pg_current_wal_insert_lsn()) WHERE id = $1";
    note(pool, graduation, statement).await
}

/// Ends a graduation whose groups are in Kafka.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn done(pool: &PgPool, graduation: i64) -> Result<(), sqlx::Error> {
    let statement =
        "UPDATE afterwrite.graduations SET ended_at = now(), outcome = 'done' WHERE id = $1 AND ended_at IS NULL";
    note(pool, graduation, statement).await
}

/// Ends a graduation that was taken back.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn taken_back(pool: &PgPool, graduation: i64) -> Result<(), sqlx::Error> {
    let statement =
        "UPDATE afterwrite.graduations SET ended_at = now(), outcome = 'back' WHERE id = $1 AND ended_at IS NULL";
    note(pool, graduation, statement).await
}

async fn note(pool: &PgPool, graduation: i64, statement: &'static str) -> Result<(), sqlx::Error> {
    sqlx::query(statement).bind(graduation).execute(pool).await.map(|_| ())
}

/// Tells all groups that read the log to leave it, or to read on.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn tell_to_leave(pool: &PgPool, leave: bool) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO afterwrite.sources (group_name, source, leaving)
         SELECT DISTINCT group_name, 'wal', $1 FROM afterwrite.slots
         ON CONFLICT (group_name) DO UPDATE SET leaving = $1 WHERE sources.source = 'wal'",
    )
    .bind(leave)
    .execute(pool)
    .await
    .map(|_| ())
}

/// Lets all groups that left the log read Kafka from now on, in one transaction. Who still tries to keep something in their name
/// is shut out by the epoch first, so what is looked at then is their last word. Letters that are open, and requests to replay
/// them, go to the first partition of their table's topic, whose owner replays them. False: a group has not left or holds
/// followers back, and nothing was changed.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn switch(pool: &PgPool, source_name: &str) -> Result<bool, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let connection: &mut PgConnection = &mut transaction;
    for statement in [
        "SELECT FROM afterwrite.sources WHERE source = 'wal' FOR UPDATE",
        "UPDATE afterwrite.claims claim SET epoch = claim.epoch + 1
         FROM afterwrite.slots kept JOIN afterwrite.sources source USING (group_name)
         WHERE claim.group_name = kept.group_name AND claim.topic = kept.slot_name::text AND source.source = 'wal'",
    ] {
        sqlx::query(statement).execute(&mut *connection).await?;
    }
    let have_left: bool = sqlx::query_scalar(
        "SELECT coalesce(bool_and(source.leaving AND here.active_pid IS NULL AND NOT EXISTS (
                    SELECT FROM afterwrite.parked_lanes lane
                    WHERE lane.group_name = kept.group_name AND lane.topic = kept.slot_name::text)), false)
         FROM afterwrite.sources source
         JOIN afterwrite.slots kept USING (group_name)
         LEFT JOIN pg_replication_slots here USING (slot_name)
         WHERE source.source = 'wal'",
    )
    .fetch_one(&mut *connection)
    .await?;
    if !have_left {
        // Whoever still reads goes on under its claim.
        transaction.rollback().await?;
        return Ok(false);
    }
    sqlx::query(
        "UPDATE afterwrite.letters letter SET source_topic = $1 || '.' || letter.table_name, source_partition = 0
         FROM afterwrite.slots kept JOIN afterwrite.sources source USING (group_name)
         WHERE letter.group_name = kept.group_name AND letter.source_topic = kept.slot_name::text
           AND letter.table_name IS NOT NULL AND letter.state IN ('open', 'replaying') AND source.source = 'wal'",
    )
    .bind(source_name)
    .execute(&mut *connection)
    .await?;
    for statement in [
        REQUESTS_FOLLOW,
        "UPDATE afterwrite.sources
         SET source = 'kafka', epoch = epoch + 1, leaving = false, changed_at = now(), read_at = NULL
         WHERE source = 'wal' AND group_name IN (SELECT group_name FROM afterwrite.slots)",
    ] {
        sqlx::query(statement).execute(&mut *connection).await?;
    }
    transaction.commit().await?;
    Ok(true)
}

/// Lets all groups read the log again, and writes down that the graduation is being taken back; unless one of them has begun to
/// read Kafka: false then, and nothing was changed.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn switch_back(pool: &PgPool, graduation: i64) -> Result<bool, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let may: bool = sqlx::query_scalar(
        "SELECT NOT coalesce(bool_or(source = 'kafka' AND read_at IS NOT NULL), false)
         FROM (SELECT source, read_at FROM afterwrite.sources
               WHERE group_name IN (SELECT group_name FROM afterwrite.slots) FOR UPDATE) source",
    )
    .fetch_one(&mut *transaction)
    .await?;
    if !may {
        return Ok(false);
    }
    for statement in [
        "UPDATE afterwrite.letters letter SET source_topic = kept.slot_name::text, source_partition = 0
         FROM afterwrite.slots kept JOIN afterwrite.sources source USING (group_name)
         WHERE letter.group_name = kept.group_name AND letter.source_topic <> kept.slot_name::text
           AND letter.state IN ('open', 'replaying') AND source.source = 'kafka'",
        REQUESTS_FOLLOW,
        "UPDATE afterwrite.sources
         SET source = 'wal', leaving = false, read_at = coalesce(read_at, now()), changed_at = now(),
             epoch = epoch + CASE source WHEN 'kafka' THEN 1 ELSE 0 END
         WHERE (source = 'kafka' OR leaving) AND group_name IN (SELECT group_name FROM afterwrite.slots)",
    ] {
        sqlx::query(statement).execute(&mut *transaction).await?;
    }
    sqlx::query("UPDATE afterwrite.graduations SET going_back = true WHERE id = $1")
        .bind(graduation)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(true)
}

/// Forgets what is left of a group in the log once its slot is dropped: its place, its claim, and what is about positions in
/// it.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn forget(pool: &PgPool, member: &Member) -> Result<(), sqlx::Error> {
    let mut transaction = pool.begin().await?;
    for statement in [
        "DELETE FROM afterwrite.marks WHERE group_name = $1 AND topic = $2",
        "DELETE FROM afterwrite.attempts WHERE group_name = $1 AND topic = $2",
        "DELETE FROM afterwrite.claims WHERE group_name = $1 AND topic = $2",
        "DELETE FROM afterwrite.slots WHERE group_name = $1 AND slot_name = $2::name",
    ] {
        sqlx::query(statement)
            .bind(&member.group)
            .bind(&member.slot)
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await
}
