//! Effects: mails and calls that the database cannot roll back, made recognisable instead.
//!
//! An effect is claimed before it is made: its key, its rendered bytes and a lease are committed, then the call is made
//! with no transaction open, then one transaction records that it was sent together with the ledger row and the
//! handler's SQL. Whoever repeats a call whose outcome is unknown repeats it with the same key and the same bytes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::postgres::PgPool;
use sqlx::{PgConnection, Postgres, Transaction};
use uuid::Uuid;

use crate::event::id::EventId;
use crate::ledger::would_call::WouldCall;
use crate::tally::Counter;

/// What asking for effects was answered with. Labels are names of handlers: an effect's key is what a handler makes it.
pub static CLAIMS: Counter = Counter::new(
    "effect_claims",
    "Mails and calls that were claimed, by what may be done about them",
    &["handler", "answer"],
);

/// The store of effects, shared by all handlers of a process.
#[derive(Debug, Clone)]
pub struct Effects {
    pool: PgPool,
    owner: Uuid,
    lease: Duration,
    /// Calls the other side accepted, whose last transaction has not committed yet: they are never made again.
    accepted: Arc<Mutex<HashMap<String, String>>>,
    /// Set in a shadow.
    would_call: Option<WouldCall>,
}

/// What may be done about an effect now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// Make the call with exactly these bytes; they may be older than the ones offered.
    Call {
        /// The bytes committed when the effect was first claimed.
        rendered: Vec<u8>,
    },
    /// The other side accepted the call, as this process knows or another has written down; only the last transaction is
    /// missing.
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

impl Claim {
    fn counted(self, handler: &str) -> Self {
        let answer = match &self {
            Self::Call { .. } => "call",
            Self::Accepted { .. } => "accepted",
            Self::Finished { .. } => "finished",
            Self::Failed { .. } => "failed",
            Self::Leased { .. } => "leased",
        };
        CLAIMS.add(&[handler, answer], 1);
        self
    }
}

/// How an effect stands, for who does not want it made any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Nobody makes it: it was never claimed, has ended, or whoever claimed it is gone. In the last case it may have been made.
    Idle,
    /// Another process may be making it at this moment.
    Leased {
        /// When the lease ends, from now.
        remaining: Duration,
    },
    /// It was made; only its last transaction is missing.
    Accepted(Accepted),
}

/// An effect that has no end, as it is in the database.
#[derive(sqlx::FromRow)]
struct Open {
    reply: Option<String>,
    rendered: Vec<u8>,
    at: DateTime<Utc>,
    is_ours: bool,
    lease_ms: i64,
}

/// A call that the other side accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// What the other side answered.
    pub reply: String,
    /// The bytes it was made with.
    pub rendered: Vec<u8>,
    /// When that was written down; where it was not, when it was claimed.
    pub at: DateTime<Utc>,
}

impl Effects {
    /// A store whose leases last `lease`, which must be longer than any call takes.
    pub fn new(pool: PgPool, owner: Uuid, lease: Duration) -> Self {
        Self {
            pool,
            owner,
            lease,
            accepted: Arc::default(),
            would_call: None,
        }
    }

    /// A store for a shadow, whose rows are rolled back: what was claimed is remembered there, and not claimed again.
    #[must_use]
    pub fn in_a_shadow(self, would_call: WouldCall) -> Self {
        Self {
            would_call: Some(would_call),
            ..self
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
        if let Some(claim) = self.ended(key) {
            return Ok(claim.counted(handler));
        }
        let mut connection = self.pool.acquire().await?;
        let taken = self.take(&mut connection, key, handler, event, rendered, reopen);
        let claim = match taken.await? {
            Some(rendered) => Claim::Call { rendered },
            None => known(&mut connection, key).await?,
        };
        Ok(claim.counted(handler))
    }

    /// Claims as [`Effects::claim`] does, as the last statement of this transaction, and commits it: what has to be there
    /// before the call is there with the claim. Where there is no call to make, the transaction is rolled back.
    ///
    /// # Errors
    /// Whatever Postgres answered.
    pub async fn claim_in(
        &self,
        mut transaction: Transaction<'_, Postgres>,
        key: &str,
        handler: &str,
        event: Option<EventId>,
        rendered: &[u8],
        reopen: bool,
    ) -> Result<Claim, sqlx::Error> {
        if let Some(claim) = self.ended(key) {
            return Ok(claim.counted(handler));
        }
        let taken = self
            .take(&mut transaction, key, handler, event, rendered, reopen)
            .await?;
        if let Some(rendered) = taken {
            transaction.commit().await?;
            return Ok(Claim::Call { rendered }.counted(handler));
        }
        let found = known(&mut transaction, key).await?;
        transaction.rollback().await?;
        Ok(found.counted(handler))
    }

    /// Takes the effect for this process, where it may be made. Answers the bytes to make it with.
    async fn take(
        &self,
        connection: &mut PgConnection,
        key: &str,
        handler: &str,
        event: Option<EventId>,
        rendered: &[u8],
        reopen: bool,
    ) -> Result<Option<Vec<u8>>, sqlx::Error> {
        let taken = sqlx::query_scalar(
            "INSERT INTO afterwrite.effects AS known (effect_key, handler, state, rendered, owner, lease_until, event_id)
             VALUES ($1, $2, 'sending', $3, $4, now() + $5 * interval '1 millisecond', $7)
             ON CONFLICT (effect_key) DO UPDATE
                 SET state = 'sending', owner = excluded.owner, lease_until = excluded.lease_until,
                     calls = known.calls + 1, updated_at = now(), accepted_at = NULL,
                     rendered = CASE known.state WHEN 'reopened' THEN excluded.rendered ELSE known.rendered END
                 WHERE known.state = 'sending' AND known.accepted_at IS NULL
                       AND (known.lease_until < now() OR known.owner = excluded.owner)
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
        .fetch_optional(connection)
        .await?;
        if let (Some(_), Some(would_call)) = (&taken, &self.would_call) {
            would_call.note(key);
        }
        Ok(taken)
    }

    /// What this process knows of an effect, whatever Postgres says.
    fn ended(&self, key: &str) -> Option<Claim> {
        if let Some(reply) = self.remembered(key) {
            return Some(Claim::Accepted { reply });
        }
        let is_made = self.would_call.as_ref().is_some_and(|shadow| shadow.is_made(key));
        is_made.then(|| Claim::Finished {
            state: "sent".to_owned(),
        })
    }

    fn remembered(&self, key: &str) -> Option<String> {
        self.accepted.lock().expect("no panic while held").get(key).cloned()
    }

    /// How an effect stands, for who found that it is not to be made, or not any more.
    ///
    /// # Errors
    /// Whatever Postgres answered.
    pub async fn standing(&self, key: &str) -> Result<Standing, sqlx::Error> {
        let open: Option<Open> = sqlx::query_as(
            "SELECT CASE WHEN accepted_at IS NOT NULL THEN coalesce(reply, '') END AS reply, rendered,
                    coalesce(accepted_at, updated_at) AS at, owner = $2 AS is_ours,
                    (extract(epoch FROM lease_until - now()) * 1000)::bigint AS lease_ms
             FROM afterwrite.effects WHERE effect_key = $1 AND state = 'sending'",
        )
        .bind(key)
        .bind(self.owner)
        .fetch_optional(&self.pool)
        .await?;
        let Some(open) = open else {
            return Ok(Standing::Idle);
        };
        let Open { rendered, at, .. } = open;
        if let Some(reply) = self.remembered(key).or(open.reply) {
            return Ok(Standing::Accepted(Accepted { reply, rendered, at }));
        }
        match u64::try_from(open.lease_ms) {
            Ok(ms) if ms > 0 && !open.is_ours => Ok(Standing::Leased {
                remaining: Duration::from_millis(ms),
            }),
            _ => Ok(Standing::Idle),
        }
    }

    /// Remembers that the other side accepted the call, so that a failing last transaction never repeats it.
    pub fn accepted(&self, key: &str, reply: &str) {
        self.accepted
            .lock()
            .expect("no panic while held")
            .insert(key.to_owned(), reply.to_owned());
    }

    /// Writes down that the other side accepted the call, before its last transaction says so: should this process die in
    /// between, the next one only does what is missing. That leaves
    /// one statement in which a death repeats the call.
    ///
    /// # Errors
    /// Whatever Postgres answered. The process remembers the acceptance all the same.
    pub async fn note_accepted(&self, key: &str, reply: &str) -> Result<(), sqlx::Error> {
        sqlx::query(
            "UPDATE afterwrite.effects SET reply = $2, accepted_at = now(), updated_at = now()
             WHERE effect_key = $1 AND state = 'sending'",
        )
        .bind(key)
        .bind(reply)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Forgets an accepted call: its last transaction has committed.
    pub fn settled(&self, key: &str) {
        self.accepted.lock().expect("no panic while held").remove(key);
    }
}

/// What is known about an effect that could not be claimed.
async fn known(connection: &mut PgConnection, key: &str) -> Result<Claim, sqlx::Error> {
    let (state, reply, remaining_ms, failed_by): (String, Option<String>, i64, Option<Vec<u8>>) = sqlx::query_as(
        "SELECT state, CASE WHEN accepted_at IS NOT NULL THEN coalesce(reply, '') END,
                greatest(0, extract(epoch FROM lease_until - now()) * 1000)::bigint, failed_by
         FROM afterwrite.effects WHERE effect_key = $1",
    )
    .bind(key)
    .fetch_one(connection)
    .await?;
    Ok(match (state.as_str(), reply) {
        ("sending", Some(reply)) => Claim::Accepted { reply },
        ("sending", None) => Claim::Leased {
            remaining: Duration::from_millis(remaining_ms.unsigned_abs()),
        },
        ("failed", _) => Claim::Failed {
            by: failed_by.and_then(|id| id.try_into().ok()).map(EventId),
        },
        _ => Claim::Finished { state },
    })
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
