//! Runs of replays: which letters go back, and how far that came.
//!
//! A run acts on the letters that were listed when it began; it can be interrupted at any moment and gone on with. Who works
//! on one holds an advisory lock of its session and does everything on that same connection, so a dead process frees the
//! lock, and one that lost its connection can do nothing more.

use chrono::{DateTime, Utc};
use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{Connection, PgTransaction};

use crate::dead_letter::filter::{CONDITION, Filter};
use crate::dead_letter::requests;
use crate::dead_letter::state::{COLUMNS, LetterRow};
use crate::event::delivery::RawRecord;

/// Letters of a run that are looked up at once.
const LETTERS_AT_ONCE: i64 = 100;

/// For how long runs and requests are kept after their end.
const DAYS_KEPT: i32 = 90;

/// Which letters go back.
#[derive(Debug, Clone)]
pub enum Chosen {
    /// These, in this order.
    Ids(Vec<String>),
    /// Those that a filter chooses now, by default the open ones, the oldest first: letters of one key go back in the order in which
    /// they were written. Letters replayed so often or more are left out.
    Filter {
        /// The filter.
        filter: Filter,
        /// The loop guard.
        replays_max: i32,
    },
}

/// A run that is not finished.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Unfinished {
    /// Number of the run.
    pub id: i64,
    /// Who works on it, or did.
    pub run_by: String,
    /// Since when.
    pub run_since: DateTime<Utc>,
    /// Letters in all.
    pub letters: i64,
    /// Letters that it still has to ask for.
    pub left: i64,
}

/// Whether a run may begin.
pub enum Begun {
    /// It has begun.
    Run(Box<Run>),
    /// Another process works on one of this group. It may not have written its run yet.
    GoingOn(Option<Unfinished>),
    /// An earlier one of this group was interrupted.
    Interrupted(Unfinished),
    /// There is none to go on with.
    Nothing,
}

/// A run that this process works on.
pub struct Run {
    /// Number of the run.
    pub id: i64,
    /// The group.
    pub group: String,
    /// Letters a second.
    pub rate: u32,
    /// Letters in all.
    pub letters: u64,
    by: String,
    connection: PgConnection,
}

/// Begins a run: stores the letters it acts on. `takes_over` gives up an interrupted one of the group first.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn begin(
    pool: &PgPool,
    group: &str,
    chosen: &Chosen,
    rate: u32,
    by: &str,
    takes_over: bool,
) -> Result<Begun, sqlx::Error> {
    let Some(mut connection) = locked(pool, group).await? else {
        return Ok(Begun::GoingOn(unfinished(&mut *pool.acquire().await?, group).await?));
    };
    let mut transaction = connection.begin().await?;
    if let Some(interrupted) = unfinished(&mut transaction, group).await? {
        if !takes_over {
            drop(transaction);
            release(connection).await?;
            return Ok(Begun::Interrupted(interrupted));
        }
        end(&mut transaction, interrupted.id, "given_up").await?;
    }
    let id = sqlx::query_scalar(
        "INSERT INTO afterwrite.replay_runs (group_name, rate, run_by) VALUES ($1, $2, $3) RETURNING id",
    )
    .bind(group)
    .bind(i32::try_from(rate).unwrap_or(i32::MAX))
    .bind(by)
    .fetch_one(&mut *transaction)
    .await?;
    let letters = list(&mut transaction, id, group, chosen).await?;
    forget(&mut transaction).await?;
    transaction.commit().await?;
    Ok(Begun::Run(Box::new(Run {
        id,
        group: group.to_owned(),
        rate,
        letters,
        by: by.to_owned(),
        connection,
    })))
}

/// Goes on with the interrupted run of a group, at its own rate unless another is given.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn resume(pool: &PgPool, group: &str, rate: Option<u32>, by: &str) -> Result<Begun, sqlx::Error> {
    let Some(mut connection) = locked(pool, group).await? else {
        return Ok(Begun::GoingOn(unfinished(&mut *pool.acquire().await?, group).await?));
    };
    let Some(interrupted) = unfinished(&mut connection, group).await? else {
        release(connection).await?;
        return Ok(Begun::Nothing);
    };
    let rate: i32 = sqlx::query_scalar(
        "UPDATE afterwrite.replay_runs SET run_by = $2, run_since = now(), rate = coalesce($3, rate) WHERE id = $1
         RETURNING rate",
    )
    .bind(interrupted.id)
    .bind(by)
    .bind(rate.map(|rate| i32::try_from(rate).unwrap_or(i32::MAX)))
    .fetch_one(&mut connection)
    .await?;
    Ok(Begun::Run(Box::new(Run {
        id: interrupted.id,
        group: group.to_owned(),
        rate: rate.unsigned_abs(),
        letters: interrupted.letters.unsigned_abs(),
        by: by.to_owned(),
        connection,
    })))
}

/// A connection of its own that holds the group's lock; `None` when another session does.
async fn locked(pool: &PgPool, group: &str) -> Result<Option<PgConnection>, sqlx::Error> {
    let mut connection = pool.acquire().await?.detach();
    let locked: bool =
        sqlx::query_scalar("SELECT pg_try_advisory_lock(hashtextextended('afterwrite.replay_runs.' || $1, 0))")
            .bind(group)
            .fetch_one(&mut connection)
            .await?;
    Ok(locked.then_some(connection))
}

/// Frees the lock at once: a session that is only closed holds it a little longer, and the next command would be refused.
async fn release(mut connection: PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_advisory_unlock_all()")
        .execute(&mut connection)
        .await?;
    connection.close().await
}

async fn unfinished(connection: &mut PgConnection, group: &str) -> Result<Option<Unfinished>, sqlx::Error> {
    sqlx::query_as(
        "SELECT run.id, run.run_by, run.run_since, count(letter.*) AS letters,
             count(letter.*) FILTER (WHERE letter.request_id IS NULL AND letter.left_out IS NULL) AS left
         FROM afterwrite.replay_runs run LEFT JOIN afterwrite.replay_run_letters letter ON letter.run_id = run.id
         WHERE run.group_name = $1 AND run.state = 'running' GROUP BY run.id",
    )
    .bind(group)
    .fetch_optional(connection)
    .await
}

async fn list(transaction: &mut PgTransaction<'_>, run: i64, group: &str, chosen: &Chosen) -> Result<u64, sqlx::Error> {
    let inserted = match chosen {
        Chosen::Ids(ids) => sqlx::query(
            "INSERT INTO afterwrite.replay_run_letters (run_id, ordinal, letter_id)
             SELECT $1, ordinal, id FROM unnest($2::text[]) WITH ORDINALITY AS given(id, ordinal)",
        )
        .bind(run)
        .bind(ids)
        .execute(&mut **transaction)
        .await?
        .rows_affected(),
        Chosen::Filter { filter, replays_max } => {
            let filter = Filter {
                group: Some(group.to_owned()),
                ..filter.acted_on()
            };
            let sql = format!(
                "WITH listed AS (
                     INSERT INTO afterwrite.replay_run_letters (run_id, ordinal, letter_id)
                     SELECT $9, row_number() OVER (ORDER BY failed_at, letter_id), letter_id FROM afterwrite.letters
                     WHERE {CONDITION} AND replays < $10 RETURNING 1)
                 SELECT count(*) FROM listed"
            );
            let query = filter.bind(sqlx::query_as::<_, (i64,)>(sqlx::AssertSqlSafe(sql)));
            let (count,) = query.bind(run).bind(replays_max).fetch_one(&mut **transaction).await?;
            count.unsigned_abs()
        }
    };
    Ok(inserted)
}

async fn end(connection: &mut PgConnection, run: i64, state: &str) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE afterwrite.replay_runs SET state = $2, finished_at = now() WHERE id = $1")
        .bind(run)
        .bind(state)
        .execute(connection)
        .await?;
    Ok(())
}

/// Deletes what ended so long ago that nobody asks for it any more; what became of a letter stays in its history.
async fn forget(transaction: &mut PgTransaction<'_>) -> Result<(), sqlx::Error> {
    for ended in [
        "DELETE FROM afterwrite.replay_runs WHERE state <> 'running' AND finished_at < now() - make_interval(days => $1)",
        "DELETE FROM afterwrite.replay_requests WHERE state IN ('done', 'failed')
             AND finished_at < now() - make_interval(days => $1)",
    ] {
        sqlx::query(ended).bind(DAYS_KEPT).execute(&mut **transaction).await?;
    }
    Ok(())
}

/// Why a letter of a run did not go back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeftOut {
    /// It was not open any more.
    NotOpen,
    /// Nothing keeps its bytes any more.
    Unreadable,
}

impl LeftOut {
    fn as_str(self) -> &'static str {
        match self {
            Self::NotOpen => "not_open",
            Self::Unreadable => "unreadable",
        }
    }
}

impl Run {
    /// The next letters that were neither asked for nor left out; empty when there is none.
    ///
    /// # Errors
    /// Whatever Postgres answered.
    pub async fn next(&mut self) -> Result<Vec<LetterRow>, sqlx::Error> {
        let sql = format!(
            "SELECT {COLUMNS} FROM afterwrite.letters JOIN (
                 SELECT ordinal, letter_id AS listed_id FROM afterwrite.replay_run_letters
                 WHERE run_id = $1 AND request_id IS NULL AND left_out IS NULL ORDER BY ordinal LIMIT $2) AS listed
               ON letter_id = listed_id
             ORDER BY ordinal"
        );
        sqlx::query_as(sqlx::AssertSqlSafe(sql))
            .bind(self.id)
            .bind(LETTERS_AT_ONCE)
            .fetch_all(&mut self.connection)
            .await
    }

    /// Asks for the replay of a letter; answers false when it was not open any more. The request and the run's note of it
    /// are one transaction.
    ///
    /// # Errors
    /// Whatever Postgres answered.
    pub async fn ask(&mut self, letter: &LetterRow, record: &RawRecord) -> Result<bool, sqlx::Error> {
        let mut transaction = self.connection.begin().await?;
        let request = requests::ask_within(&mut transaction, letter, record, &self.by).await?;
        let left_out = request.is_none().then_some(LeftOut::NotOpen);
        note(&mut transaction, self.id, letter, request, left_out).await?;
        transaction.commit().await?;
        Ok(request.is_some())
    }

    /// Notes that a letter cannot go back.
    ///
    /// # Errors
    /// Whatever Postgres answered.
    pub async fn leave_out(&mut self, letter: &LetterRow, why: LeftOut) -> Result<(), sqlx::Error> {
        note(&mut self.connection, self.id, letter, None, Some(why)).await
    }

    /// Ends the run: every letter was asked for or left out.
    ///
    /// # Errors
    /// Whatever Postgres answered.
    pub async fn finish(mut self) -> Result<(), sqlx::Error> {
        end(&mut self.connection, self.id, "finished").await?;
        release(self.connection).await
    }

    /// Gives the run up: nobody needs to go on with it.
    ///
    /// # Errors
    /// Whatever Postgres answered.
    pub async fn give_up(mut self) -> Result<(), sqlx::Error> {
        end(&mut self.connection, self.id, "given_up").await?;
        release(self.connection).await
    }
}

async fn note(
    connection: &mut PgConnection,
    run: i64,
    letter: &LetterRow,
    request: Option<i64>,
    left_out: Option<LeftOut>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE afterwrite.replay_run_letters SET request_id = $3, left_out = $4 WHERE run_id = $1 AND letter_id = $2",
    )
    .bind(run)
    .bind(&letter.letter_id)
    .bind(request)
    .bind(left_out.map(LeftOut::as_str))
    .execute(connection)
    .await?;
    Ok(())
}

/// What became of a letter of a run.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Fate {
    /// The letter.
    pub letter_id: String,
    /// `done` and `failed` of its request, `requested` and `taken` while it waits, `not_open` and `unreadable` when it was
    /// left out, `left` when the run did not get to it.
    pub fate: String,
    /// Letters that the failed replay left.
    pub new_letters: Vec<String>,
}

/// What became of the letters of a run, in its order.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn fates(pool: &PgPool, run: i64) -> Result<Vec<Fate>, sqlx::Error> {
    sqlx::query_as(
        "SELECT listed.letter_id, coalesce(listed.left_out, request.state, 'left') AS fate,
             CASE request.state WHEN 'failed' THEN ARRAY(
                 SELECT again.letter_id FROM afterwrite.letters again
                 WHERE again.group_name = letter.group_name AND again.source_topic = letter.source_topic
                   AND again.source_partition = letter.source_partition AND again.source_offset = letter.source_offset
                   AND again.replays = letter.replays + 1 AND (letter.handler = '*' OR again.handler = letter.handler)
                 ORDER BY again.letter_id)
             ELSE '{}' END AS new_letters
         FROM afterwrite.replay_run_letters listed
         LEFT JOIN afterwrite.replay_requests request ON request.id = listed.request_id
         LEFT JOIN afterwrite.letters letter ON letter.letter_id = listed.letter_id
         WHERE listed.run_id = $1 ORDER BY listed.ordinal",
    )
    .bind(run)
    .fetch_all(pool)
    .await
}

/// How many requests of a run have not ended.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn waiting(pool: &PgPool, run: i64) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT count(*) FROM afterwrite.replay_run_letters listed
         JOIN afterwrite.replay_requests request ON request.id = listed.request_id
         WHERE listed.run_id = $1 AND request.state IN ('requested', 'taken')",
    )
    .bind(run)
    .fetch_one(pool)
    .await
}
