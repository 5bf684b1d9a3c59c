//! Once a day: forgets what nobody needs any more, and empties what must not be kept.
//!
//! Old days of the ledger are dropped by each worker every hour ([`crate::ledger::retention`]); this is the rest. All of it
//! goes through tables in pages of their own transactions, and can be done again at any time.

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::postgres::PgPool;
use uuid::Uuid;

use super::fraud_scan::Stopping;
use super::timing::{self, Schedule};
use super::{Context, Error, Job, Report};

/// In the small hours, at no full one.
const PATTERN: &str = "17 3 * * *";

/// How long a mail's recipient, subject, variables, bytes and answer are kept (mail servers like to repeat the recipient), and
/// the beginning of a webhook's answer.
const PERSONAL_DAYS: i64 = 30;

/// How long runs are kept that are done; those that failed for good three times as long.
const RUNS_DAYS: i64 = 30;

/// Rows that one statement reads.
const PAGE: i64 = 2_000;

/// The scheduled job.
#[derive(Debug)]
pub struct Cleanup {
    zone: String,
    effects_kept: TimeDelta,
}

impl Cleanup {
    /// Runs in the small hours of this zone. Effects that have ended are kept for `effects_kept`: never shorter than dead
    /// letters and the ledger, or a replay would make a call again that was made.
    pub fn new(zone: &str, effects_kept: TimeDelta) -> Self {
        Self {
            zone: zone.to_owned(),
            effects_kept,
        }
    }
}

#[async_trait]
impl Job for Cleanup {
    fn name(&self) -> &'static str {
        "cleanup"
    }

    fn schedule(&self) -> Result<Schedule, timing::Error> {
        Schedule::cron(PATTERN, &self.zone)
    }

    fn timeout(&self) -> std::time::Duration {
        std::time::Duration::from_secs(3_600)
    }

    async fn run(&self, context: &mut Context) -> Result<Report, Error> {
        let now = context.now();
        let personal = now - TimeDelta::days(PERSONAL_DAYS);
        let (forgotten, emptied) = effects(context, now - self.effects_kept, personal).await?;
        let mails = mails(context, personal).await?;
        let excerpts = excerpts(context, personal).await?;
        let runs = runs(context.pool(), now).await?;
        Ok(Report::from([
            ("effects_forgotten", forgotten),
            ("effects_emptied", emptied),
            ("mails_emptied", mails),
            ("excerpts_emptied", excerpts),
            ("runs_forgotten", runs),
        ]))
    }
}

fn go_on(context: &Context) -> Result<(), Stopping> {
    match context.is_stopping() {
        true => Err(Stopping),
        false => Ok(()),
    }
}

/// Walks over all effects in the order of their keys, because nothing else finds old ones. Forgets those that ended before
/// `forget` and that no letter may ask for, and empties what was sent before `empty`, and its answer: nobody sends it again.
/// Forgets also what was begun before `empty` and has no end, where its account says that it is not tried any more.
async fn effects(context: &Context, forget: DateTime<Utc>, empty: DateTime<Utc>) -> Result<(u64, u64), Error> {
    let (mut after, mut forgotten, mut emptied) = (String::new(), 0, 0);
    loop {
        go_on(context)?;
        let (end, deleted, cleared): (Option<String>, i64, i64) = sqlx::query_as(
            "WITH page AS (
                 SELECT effect_key FROM afterwrite.effects WHERE effect_key > $1 ORDER BY effect_key LIMIT $2
             ), old AS (
                 DELETE FROM afterwrite.effects gone USING page
                 WHERE gone.effect_key = page.effect_key
                   AND (gone.state IN ('sent', 'skipped', 'failed') AND gone.updated_at < $3
                        OR gone.state = 'sending' AND gone.lease_until < $4
                           AND EXISTS (SELECT FROM email_log l WHERE l.effect_key = gone.effect_key AND l.status = 'skipped'
                                       UNION ALL SELECT FROM webhook_deliveries w
                                                 WHERE w.effect_key = gone.effect_key AND w.status = 'skipped'))
                   AND NOT EXISTS (SELECT FROM afterwrite.letters
                                   WHERE letters.event_id IN (gone.event_id, gone.failed_by)
                                     AND letters.state IN ('open', 'parked', 'replaying'))
                 RETURNING 1
             ), cleared AS (
                 UPDATE afterwrite.effects known SET rendered = '', reply = NULL FROM page
                 WHERE known.effect_key = page.effect_key AND known.state IN ('sent', 'skipped')
                   AND known.updated_at < $4 AND known.updated_at >= $3 AND (known.rendered <> '' OR known.reply IS NOT NULL)
                 RETURNING 1
             )
             SELECT (SELECT max(effect_key) FROM page), (SELECT count(*) FROM old), (SELECT count(*) FROM cleared)",
        )
        .bind(&after)
        .bind(PAGE)
        .bind(forget)
        .bind(empty)
        .fetch_one(context.pool())
        .await?;
        forgotten += deleted.unsigned_abs();
        emptied += cleared.unsigned_abs();
        let Some(end) = end else {
            return Ok((forgotten, emptied));
        };
        after = end;
    }
}

/// Empties the account of mails: of those that were sent by when they were, of those that never will be by their last word.
async fn mails(context: &Context, before: DateTime<Utc>) -> Result<u64, Error> {
    let mut emptied = 0;
    for old in [
        "sent_at < $1 AND status = 'sent'",
        "sent_at IS NULL AND status IN ('skipped', 'failed') AND updated_at < $1",
    ] {
        loop {
            go_on(context)?;
            let statement = format!(
                "UPDATE email_log SET recipient = NULL, subject = NULL, variables = NULL, smtp_reply = NULL, updated_at = now()
                 WHERE id IN (SELECT id FROM email_log
                              WHERE {old} AND num_nonnulls(recipient, subject, variables, smtp_reply) > 0
                              LIMIT $2)"
            );
            let page = sqlx::query(sqlx::AssertSqlSafe(statement))
                .bind(before)
                .bind(PAGE)
                .execute(context.pool())
                .await?
                .rows_affected();
            emptied += page;
            if page == 0 {
                break;
            }
        }
    }
    Ok(emptied)
}

/// Empties what receivers answered, and why a call failed stays.
async fn excerpts(context: &Context, before: DateTime<Utc>) -> Result<u64, Error> {
    let (mut after, mut emptied) = (Uuid::nil(), 0);
    loop {
        go_on(context)?;
        let (end, cleared): (Option<Uuid>, i64) = sqlx::query_as(
            "WITH page AS (
                 SELECT id FROM webhook_deliveries WHERE id > $1 ORDER BY id LIMIT $2
             ), cleared AS (
                 UPDATE webhook_deliveries known SET response_excerpt = NULL FROM page
                 WHERE known.id = page.id AND known.status IN ('delivered', 'skipped', 'failed')
                   AND known.updated_at < $3 AND known.response_excerpt IS NOT NULL
                 RETURNING 1
             )
             SELECT (SELECT id FROM page ORDER BY id DESC LIMIT 1), (SELECT count(*) FROM cleared)",
        )
        .bind(after)
        .bind(PAGE)
        .bind(before)
        .fetch_one(context.pool())
        .await?;
        emptied += cleared.unsigned_abs();
        let Some(end) = end else {
            return Ok(emptied);
        };
        after = end;
    }
}

/// Forgets old runs, but for the newest of each job: by it one knows which ticks there were.
async fn runs(pool: &PgPool, now: DateTime<Utc>) -> Result<u64, sqlx::Error> {
    let forgotten = sqlx::query(
        "DELETE FROM afterwrite.schedule_runs run
         WHERE (status IN ('done', 'passed') AND tick < $1 OR status = 'failed' AND tick < $2)
           AND EXISTS (SELECT FROM afterwrite.schedule_runs newer
                       WHERE newer.job = run.job AND newer.tick > run.tick AND newer.status = 'done'
                         AND newer.requested_by IS NULL)",
    )
    .bind(now - TimeDelta::days(RUNS_DAYS))
    .bind(now - TimeDelta::days(3 * RUNS_DAYS))
    .execute(pool)
    .await?;
    Ok(forgotten.rows_affected())
}
