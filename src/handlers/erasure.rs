//! Forgets what the worker keeps of a person: when the application deletes the row, and when somebody asks for it.
//!
//! What stays holds nobody's data: that a mail was sent, with its type, time and Message-ID; hashes of suppressed addresses
//! and of fraud evidence, because a person who wants no mail must not get one after the erasure either; places and grants by
//! id. What is in topics stays there until their retention ends.

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

/// Erases one person, in the caller's transaction. `table` is the application's `schema.table` of users.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn erase(connection: &mut PgConnection, user: Uuid, table: &str, by: &str) -> Result<Erased, sqlx::Error> {
    // First the bytes: whoever sends them holds a lease, and finishes before they can be taken away.
    let (effects, in_flight): (i64, i64) = sqlx::query_as(
        "WITH keys AS (
             SELECT effect_key FROM email_log WHERE user_id = $1
             UNION ALL SELECT effect_key FROM webhook_deliveries WHERE user_id = $1
         ), kept AS MATERIALIZED (
             SELECT e.effect_key, e.state = 'sending' AND e.lease_until > now() AS is_sent_now
             FROM afterwrite.effects e JOIN keys USING (effect_key)
             WHERE octet_length(e.rendered) > 0 OR e.reply IS NOT NULL
             ORDER BY e.effect_key FOR UPDATE OF e
         ), emptied AS (
             UPDATE afterwrite.effects e
             SET rendered = '', reply = NULL, updated_at = now(),
                 state = CASE WHEN e.state = 'sent' THEN 'sent' ELSE 'skipped' END
             FROM kept WHERE e.effect_key = kept.effect_key AND NOT kept.is_sent_now
             RETURNING 1
         )
         SELECT (SELECT count(*) FROM emptied), (SELECT count(*) FROM kept WHERE is_sent_now)",
    )
    .bind(user)
    .fetch_one(&mut *connection)
    .await?;
    let mails = sqlx::query(
        "UPDATE email_log
         SET recipient = NULL, subject = NULL, variables = NULL, smtp_reply = NULL, updated_at = now(),
             status = CASE WHEN status IN ('queued', 'sending') THEN 'skipped' ELSE status END,
             reason = CASE WHEN status IN ('queued', 'sending') THEN $2 ELSE reason END
         WHERE user_id = $1
           AND (num_nonnulls(recipient, subject, variables, smtp_reply) > 0 OR status IN ('queued', 'sending'))",
    )
    .bind(user)
    .bind(ERASED)
    .execute(&mut *connection)
    .await?;
    let calls = sqlx::query(
        "UPDATE webhook_deliveries
         SET response_excerpt = NULL, error = NULL, updated_at = now(), next_attempt_at = NULL,
             status = CASE WHEN status = 'retrying' THEN 'skipped' ELSE status END
         WHERE user_id = $1 AND (num_nonnulls(response_excerpt, error) > 0 OR status = 'retrying')",
    )
    .bind(user)
    .execute(&mut *connection)
    .await?;
    let OfRow {
        discarded, replaying, ..
    } = discard::letters_of_row(connection, table, &user.to_string(), by, ERASED).await?;
    Ok(Erased {
        mails: mails.rows_affected(),
        calls: calls.rows_affected(),
        effects: effects.unsigned_abs(),
        in_flight,
        letters: discarded,
        replaying,
    })
}
