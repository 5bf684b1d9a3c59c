//! Effects: mails and calls that the database cannot roll back, made recognisable instead.
//!
//! An effect is claimed before it is made: its key, its rendered bytes and a lease are committed, then the call is made
//! with no transaction open, then one transaction records that it was sent together with the ledger row and the
//! handler's SQL. Whoever repeats a call whose outcome is unknown repeats it with the same key and the same bytes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sqlx::PgConnection;
use sqlx::postgres::PgPool;
use uuid::Uuid;

use crate::event::id::EventId;

/// The store of effects, shared by all handlers of a process.
#[derive(Debug, Clone)]
pub struct Effects {
    pool: PgPool,
    owner: Uuid,
    lease: Duration,
    /// Calls the other side accepted, whose last transaction has not committed yet: they are never made again.
    accepted: Arc<Mutex<HashMap<String, String>>>,
}

/// What may be done about an effect now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// Make the call with exactly these bytes; they may be older than the ones offered.
    Call {
        /// The bytes committed when the effect was first claimed.
        rendered: Vec<u8>,
    },
    /// This process made the call and the other side accepted it; only the last transaction is missing.
    Accepted {
        /// What the other side answered.
        reply: String,
    },
    /// It is finished: sent or skipped earlier.
    Finished {
        /// `sent` or `skipped`.
        state: String,
    },
    /// It failed for good earlier; only the replay of its dead letter opens it again.
    Failed {
        /// The event that was worked on then, whose dead letter may not be written yet.
        by: Option<EventId>,
    },
    /// Another process holds the lease: come back later.
    Leased {
        /// When the lease ends, from now.
        remaining: Duration,
    },
}

impl Effects {
    /// A store whose leases last `lease`, which must be longer than any call takes.
    pub fn new(pool: PgPool, owner: Uuid, lease: Duration) -> Self {
        Self {
            pool,
            owner,
            lease,
            accepted: Arc::default(),
        }
    }

    /// Claims an effect for an event. The first claim commits `rendered`; later ones get those first bytes back, but for an
    /// effect that an operator opened again: it is made anew, with the bytes of now and under the same key.
    ///
    /// `reopen` lets the replay of a dead letter claim an effect that had failed.
    ///
    /// # Errors
    /// Whatever Postgres answered.
    pub async fn claim(
        &self,
        key: &str,
        handler: &str,
        event: Option<EventId>,
        rendered: &[u8],
        reopen: bool,
    ) -> Result<Claim, sqlx::Error> {
        if let Some(reply) = self.accepted.lock().expect("no panic while held").get(key) {
            return Ok(Claim::Accepted { reply: reply.clone() });
        }
        let taken: Option<(Vec<u8>,)> = sqlx::query_as(
            "INSERT INTO afterwrite.effects AS known (effect_key, handler, state, rendered, owner, lease_until, event_id)
             VALUES ($1, $2, 'sending', $3, $4, now() + $5 * interval '1 millisecond', $7)
             ON CONFLICT (effect_key) DO UPDATE
                 SET state = 'sending', owner = excluded.owner, lease_until = excluded.lease_until,
                     calls = known.calls + 1, updated_at = now(),
                     rendered = CASE known.state WHEN 'reopened' THEN excluded.rendered ELSE known.rendered END
                 WHERE known.state = 'sending' AND (known.lease_until < now() OR known.owner = excluded.owner)
                    OR known.state = 'failed' AND $6
                    OR known.state = 'reopened'
             RETURNING rendered",
        )
        .bind(key)
        .bind(handler)
        .bind(rendered)
        .bind(self.owner)
        .bind(i64::try_from(self.lease.as_millis()).unwrap_or(i64::MAX))
        .bind(reopen)
        .bind(event.map(|event| event.0.to_vec()))
        .fetch_optional(&self.pool)
        .await?;
        if let Some((rendered,)) = taken {
            return Ok(Claim::Call { rendered });
        }
        let (state, remaining_ms, failed_by): (String, i64, Option<Vec<u8>>) = sqlx::query_as(
            "SELECT state, greatest(0, extract(epoch FROM lease_until - now()) * 1000)::bigint, failed_by
             FROM afterwrite.effects WHERE effect_key = $1",
        )
        .bind(key)
        .fetch_one(&self.pool)
        .await?;
        if state == "sending" {
            return Ok(Claim::Leased {
                remaining: Duration::from_millis(remaining_ms.unsigned_abs()),
            });
        }
        if state == "failed" {
            let by = failed_by.and_then(|id| id.try_into().ok()).map(EventId);
            return Ok(Claim::Failed { by });
        }
        Ok(Claim::Finished { state })
    }

    /// Remembers that the other side accepted the call, so that a failing last transaction never repeats it.
    pub fn accepted(&self, key: &str, reply: &str) {
        self.accepted
            .lock()
            .expect("no panic while held")
            .insert(key.to_owned(), reply.to_owned());
    }

    /// Forgets an accepted call: its last transaction has committed.
    pub fn settled(&self, key: &str) {
        self.accepted.lock().expect("no panic while held").remove(key);
    }
}

/// Records that an effect failed for good while this event was worked on. Its dead letter is still to be written: until the
/// event is in the ledger, it has to fail again.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn fail(
    connection: &mut PgConnection,
    key: &str,
    handler: &str,
    event: Option<EventId>,
    reply: &str,
) -> Result<(), sqlx::Error> {
    finish(connection, key, handler, "failed", reply).await?;
    sqlx::query("UPDATE afterwrite.effects SET failed_by = $2 WHERE effect_key = $1 AND state = 'failed'")
        .bind(key)
        .bind(event.map(|event| event.0.to_vec()))
        .execute(connection)
        .await?;
    Ok(())
}

/// Records the end of an effect, in the transaction that also holds the ledger row. `state` is `sent`, `skipped` or
/// `failed` (for which [`fail`] is there). An effect that was never claimed (skipped before it was rendered) gets its row here. Answers whether this
/// was the end: what was sent stays sent, whatever a later look at the facts would say.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn finish(
    connection: &mut PgConnection,
    key: &str,
    handler: &str,
    state: &str,
    reply: &str,
) -> Result<bool, sqlx::Error> {
    let written = sqlx::query(
        "INSERT INTO afterwrite.effects AS known (effect_key, handler, state, rendered, owner, lease_until, calls, reply)
         VALUES ($1, $2, $3, '', gen_random_uuid(), now(), 0, $4)
         ON CONFLICT (effect_key) DO UPDATE SET state = excluded.state, reply = excluded.reply, updated_at = now()
             WHERE known.state <> 'sent'",
    )
    .bind(key)
    .bind(handler)
    .bind(state)
    .bind(reply)
    .execute(connection)
    .await?;
    Ok(written.rows_affected() > 0)
}
