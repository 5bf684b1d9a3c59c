//! Forgets what the worker keeps of a person: when the application deletes the row, and when somebody asks for it.
//!
//! What stays holds nobody's data: that a mail was sent, with its type, time and Message-ID; hashes of suppressed addresses
//! and of fraud evidence, because a person who wants no mail must not get one after the erasure either; places and grants by
//! id. What is in topics stays there until their retention ends.
//!
//! Mails and calls are found by their accounts, which are there with the claim. Whoever claims one reads the facts again under
//! [`hold_off`], so that nothing is claimed after an erasure from facts that were read before it.

use serde::Serialize;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::ledger::discard::{self, OfRow};

/// Why letters are discarded and mails are skipped.
const ERASED: &str = "erased";

/// What was forgotten of one person.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Erased {
    /// Mails of the account whose recipient, subject and variables are gone.
    pub mails: u64,
    /// Calls whose answer and error are gone.
    pub calls: u64,
    /// Mails and calls whose bytes were kept for another try, and are not any more. They are never sent.
    pub effects: u64,
    /// Mails and calls that are being sent at this moment, and were left.
    pub in_flight: i64,
    /// Dead letters that were discarded.
    pub letters: usize,
    /// Dead letters that are being replayed at this moment, and were left.
    pub replaying: usize,
}

impl Erased {
    /// Whether something was left because it is being worked on: another call a little later finds it.
    pub fn is_whole(&self) -> bool {
        self.in_flight == 0 && self.replaying == 0
    }
}

fn lock_key(user: Uuid) -> String {
    format!("person:{user}")
}

/// Holds the erasure of this person off until the transaction ends. Facts that are read after this are those that an erasure
/// left, and what is claimed in the same transaction the next one finds.
///
/// # Errors
/// Whatever Postgres answered.
pub(crate) async fn hold_off(connection: &mut PgConnection, user: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_advisory_xact_lock_shared(hashtextextended($1, 0))")
        .bind(lock_key(user))
        .execute(connection)
        .await?;
    Ok(())
}

/// Erases one person, in the caller's transaction. `table` is the application's `schema.table` of users.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn erase(connection: &mut PgConnection, user: Uuid, table: &str, by: &str) -> Result<Erased, sqlx::Error> {
    // Who reads this person's facts under the lock claims before this, and is found, or looks after it and finds nothing.
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))")
        .bind(lock_key(user))
        .execute(&mut *connection)
        .await?;
    let (effects, in_flight) = empty_effects(connection, user).await?;
    let mails = empty_mails(connection, user).await?;
    let calls = empty_calls(connection, user).await?;
    let OfRow {
        discarded, replaying, ..
    } = discard::letters_of_row(connection, table, &user.to_string(), by, ERASED).await?;
    Ok(Erased {
        mails,
        calls,
        effects: effects.unsigned_abs(),
        in_flight,
        letters: discarded,
        replaying,
    })
}

/// First the bytes: whoever sends them holds a lease, and finishes before they can be taken away. What was accepted was sent,
/// also where the process died before it could say so.
async fn empty_effects(connection: &mut PgConnection, user: Uuid) -> Result<(i64, i64), sqlx::Error> {
    sqlx::query_as(
        "WITH keys AS (
             SELECT effect_key FROM email_log WHERE user_id = $1
             UNION ALL SELECT effect_key FROM webhook_deliveries WHERE user_id = $1
         ), kept AS MATERIALIZED (
             SELECT e.effect_key, e.state = 'sending' AND e.lease_until > now() AS is_sent_now,
                    e.state = 'sending' AND e.accepted_at IS NOT NULL AS is_accepted
             FROM afterwrite.effects e JOIN keys USING (effect_key)
             WHERE octet_length(e.rendered) > 0 OR e.reply IS NOT NULL
             ORDER BY e.effect_key FOR UPDATE OF e
         ), emptied AS (
             UPDATE afterwrite.effects e
             SET rendered = '', reply = NULL,
                 state = CASE WHEN e.state = 'sent' OR kept.is_accepted THEN 'sent' ELSE 'skipped' END,
                 updated_at = now()
             FROM kept WHERE e.effect_key = kept.effect_key AND NOT kept.is_sent_now
             RETURNING 1
         )
         SELECT (SELECT count(*) FROM emptied), (SELECT count(*) FROM kept WHERE is_sent_now)",
    )
    .bind(user)
    .fetch_one(connection)
    .await
}

/// The account of mails. What is being sent is left: whoever sends it writes its account, and the next erasure empties that.
async fn empty_mails(connection: &mut PgConnection, user: Uuid) -> Result<u64, sqlx::Error> {
    let emptied = sqlx::query(
        "UPDATE email_log log
         SET recipient = NULL, subject = NULL, variables = NULL, smtp_reply = NULL, updated_at = now(),
             status = CASE WHEN NOT known.is_open THEN log.status WHEN known.effect = 'sent' THEN 'sent' ELSE 'skipped' END,
             sent_at = CASE WHEN known.is_open AND known.effect = 'sent' THEN known.ended_at ELSE log.sent_at END,
             reason = CASE WHEN known.is_open THEN $2 ELSE log.reason END
         FROM (SELECT l.id, l.status IN ('queued', 'sending') AS is_open, e.state AS effect, coalesce(e.accepted_at, e.updated_at) AS ended_at
               FROM email_log l LEFT JOIN afterwrite.effects e USING (effect_key)
               WHERE l.user_id = $1 AND e.state IS DISTINCT FROM 'sending') AS known
         WHERE log.id = known.id
           AND (num_nonnulls(log.recipient, log.subject, log.variables, log.smtp_reply) > 0 OR known.is_open)",
    )
    .bind(user)
    .bind(ERASED)
    .execute(connection)
    .await?;
    Ok(emptied.rows_affected())
}

/// The account of calls, likewise.
async fn empty_calls(connection: &mut PgConnection, user: Uuid) -> Result<u64, sqlx::Error> {
    let emptied = sqlx::query(
        "UPDATE webhook_deliveries call
         SET response_excerpt = NULL, error = CASE WHEN known.is_open AND known.effect IS DISTINCT FROM 'sent' THEN $2 END, next_attempt_at = NULL,
             status = CASE WHEN NOT known.is_open THEN call.status WHEN known.effect = 'sent' THEN 'delivered' ELSE 'skipped' END,
             delivered_at = CASE WHEN known.is_open AND known.effect = 'sent' THEN known.ended_at ELSE call.delivered_at END,
             updated_at = now()
         FROM (SELECT w.id, w.status IN ('sending', 'retrying') AS is_open, e.state AS effect, coalesce(e.accepted_at, e.updated_at) AS ended_at
               FROM webhook_deliveries w LEFT JOIN afterwrite.effects e USING (effect_key)
               WHERE w.user_id = $1 AND e.state IS DISTINCT FROM 'sending') AS known
         WHERE call.id = known.id
           AND (call.response_excerpt IS NOT NULL OR call.error IS DISTINCT FROM $2 AND call.error IS NOT NULL
                OR known.is_open)",
    )
    .bind(user)
    .bind(ERASED)
    .execute(connection)
    .await?;
    Ok(emptied.rows_affected())
}
