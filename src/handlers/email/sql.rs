//! Facts for a mail, read when it is sent, and the account of it in `email_log`.

use chrono::{DateTime, Utc};
use sqlx::postgres::PgPool;
use sqlx::{PgConnection, Postgres, Transaction};
use uuid::Uuid;

use crate::handlers::credit;
use crate::handlers::email::compose::Mail;
use crate::handlers::email::milestones::PAGE_USERS_MAX;
use crate::handlers::email::rules::{Facts, Milestone, Progress};
use crate::handlers::email::templates::Source;
use crate::handlers::erasure;

/// A row that another handler queued.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct Queued {
    pub(super) effect_key: String,
    pub(super) user_id: Option<Uuid>,
    pub(super) campaign_id: Uuid,
    #[sqlx(rename = "type")]
    pub(super) kind: String,
    pub(super) status: String,
}

/// A reward as it was promised.
#[derive(sqlx::FromRow)]
pub(super) struct RewardFacts {
    pub(super) status: String,
    pub(super) resend_no: i32,
    pub(super) code: Option<String>,
    pub(super) name: Option<String>,
    pub(super) description: Option<String>,
    pub(super) instructions: Option<String>,
}

/// Numbers that a template may show; each is read only when it does.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Wanted {
    pub(super) position: bool,
    pub(super) referrals: bool,
    pub(super) signups: bool,
}

/// The numbers.
#[derive(Debug, Default, sqlx::FromRow)]
pub(super) struct Figures {
    pub(super) position: Option<i64>,
    pub(super) referrals: Option<i64>,
    pub(super) signups: Option<i64>,
}

/// One line of account.
pub(super) struct Account<'a> {
    pub(super) effect_key: &'a str,
    pub(super) campaign_id: Uuid,
    pub(super) user_id: Option<Uuid>,
    pub(super) kind: &'a str,
    pub(super) status: &'a str,
    pub(super) reason: Option<&'a str>,
    pub(super) recipient: Option<&'a str>,
    pub(super) subject: Option<&'a str>,
    pub(super) variables: Option<&'a serde_json::Value>,
    pub(super) message_id: Option<&'a str>,
    pub(super) smtp_reply: Option<&'a str>,
    /// When the mail server accepted it, where that was not just now.
    pub(super) sent_at: Option<DateTime<Utc>>,
}

pub(super) async fn facts(connection: &mut PgConnection, user: Uuid) -> Result<Option<Facts>, sqlx::Error> {
    sqlx::query_as(credit::statement(
        "SELECT u.id AS user_id, u.campaign_id, u.email, u.first_name, u.last_name, u.email_verified,
                u.marketing_consent, u.verification_token, u.referral_code, {in_standing} AS in_standing,
                {holds_a_place} AS holds_a_place, c.status AS campaign_status,
                c.deleted_at IS NOT NULL AS campaign_deleted, c.verification_required, c.name AS campaign_name,
                c.slug AS campaign_slug, c.from_name, c.from_address, c.reply_to
         FROM waitlist_users u JOIN campaigns c ON c.id = u.campaign_id
         WHERE u.id = $1",
    ))
    .bind(user)
    .fetch_optional(connection)
    .await
}

pub(super) async fn queued(connection: &mut PgConnection, id: Uuid) -> Result<Option<Queued>, sqlx::Error> {
    sqlx::query_as("SELECT effect_key, user_id, campaign_id, type, status FROM email_log WHERE id = $1")
        .bind(id)
        .fetch_optional(connection)
        .await
}

/// A place that became better, and the place of now.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct Moved {
    pub(super) campaign_id: Uuid,
    pub(super) user_id: Uuid,
    pub(super) old_position: Option<i64>,
    pub(super) new_position: i64,
    pub(super) position_now: Option<i64>,
}

pub(super) async fn moved(connection: &mut PgConnection, id: i64) -> Result<Option<Moved>, sqlx::Error> {
    sqlx::query_as(
        "SELECT m.campaign_id, m.user_id, m.old_position::bigint, m.new_position::bigint,
                p.position::bigint AS position_now
         FROM position_changes m
         LEFT JOIN waitlist_positions p ON p.campaign_id = m.campaign_id AND p.user_id = m.user_id
         WHERE m.id = $1",
    )
    .bind(id)
    .fetch_optional(connection)
    .await
}

/// How far a milestone's mails are queued. Its row stays locked, so that two pages are never queued at once.
pub(super) async fn milestone(
    connection: &mut PgConnection,
    milestone: Milestone,
) -> Result<Option<Progress>, sqlx::Error> {
    sqlx::query_as(
        "SELECT m.mails_ended_at IS NOT NULL AS ended,
                -- All that one ranking passes bear the time of its transaction.
                EXISTS (SELECT FROM campaign_milestones higher
                        WHERE higher.campaign_id = m.campaign_id AND higher.milestone > m.milestone
                          AND higher.created_at = m.created_at) AS outdone,
                c.status AS campaign_status, c.deleted_at IS NOT NULL AS campaign_deleted, m.created_at AS passed_at,
                m.mailed_to_at, m.mailed_to_id
         FROM campaign_milestones m JOIN campaigns c ON c.id = m.campaign_id
         WHERE m.campaign_id = $1 AND m.milestone = $2
         FOR UPDATE OF m",
    )
    .bind(milestone.campaign)
    .bind(milestone.number)
    .fetch_optional(connection)
    .await
}

/// Queues the mails of the next users who were there when the milestone was passed, and writes how far that came. Users are
/// taken in the order of an index, wanted or not, so that no page has to look for long; answers how many mails it queued.
pub(super) async fn queue_page(
    connection: &mut PgConnection,
    milestone: Milestone,
    progress: &Progress,
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(credit::statement(
        "WITH page AS (
             SELECT u.id, u.created_at, {in_standing} AND u.marketing_consent AS is_told
             FROM waitlist_users u JOIN campaigns c ON c.id = u.campaign_id
             WHERE u.campaign_id = $1 AND u.created_at <= $3
               AND (u.created_at, u.id)
                   > (coalesce($4, '-infinity'::timestamptz), coalesce($5, '00000000-0000-0000-0000-000000000000'::uuid))
             ORDER BY u.created_at, u.id LIMIT $6
         ), queued AS (
             INSERT INTO email_log (effect_key, campaign_id, user_id, type, status)
             SELECT format('milestone:%s:%s:%s', $1, $2, id), $1, id, 'milestone', 'queued'
             FROM page WHERE is_told ORDER BY created_at, id
             ON CONFLICT (effect_key) DO NOTHING
             RETURNING user_id
         ), last AS (
             SELECT created_at, id FROM page ORDER BY created_at DESC, id DESC LIMIT 1
         )
         UPDATE campaign_milestones m
         SET mail_pages = m.mail_pages + 1, mails_queued = m.mails_queued + (SELECT count(*) FROM queued),
             mailed_to_at = coalesce((SELECT created_at FROM last), m.mailed_to_at),
             mailed_to_id = coalesce((SELECT id FROM last), m.mailed_to_id),
             mails_ended_at = CASE WHEN (SELECT count(*) FROM page) < $6 THEN now() END
         WHERE m.campaign_id = $1 AND m.milestone = $2
         RETURNING (SELECT count(*) FROM queued)",
    ))
    .bind(milestone.campaign)
    .bind(milestone.number)
    .bind(progress.passed_at)
    .bind(progress.mailed_to_at)
    .bind(progress.mailed_to_id)
    .bind(PAGE_USERS_MAX)
    .fetch_one(connection)
    .await
}

pub(super) async fn reward(connection: &mut PgConnection, id: Uuid) -> Result<Option<RewardFacts>, sqlx::Error> {
    sqlx::query_as(
        "SELECT o.status, o.resend_no, o.code, coalesce(o.snapshot ->> 'name', w.name) AS name,
                coalesce(o.snapshot ->> 'description', w.description) AS description,
                coalesce(o.snapshot #>> '{config,instructions}', w.config ->> 'instructions') AS instructions
         FROM user_rewards o JOIN rewards w ON w.id = o.reward_id
         WHERE o.id = $1",
    )
    .bind(id)
    .fetch_optional(connection)
    .await
}

/// A template that a customer wrote.
pub(super) struct Found {
    pub(super) source: Source,
    pub(super) enabled: bool,
    /// Of this campaign alone, not of all.
    pub(super) is_own: bool,
}

/// The campaign's own template, else the customer's default. `None`: use the built-in one.
pub(super) async fn template(
    connection: &mut PgConnection,
    campaign: Uuid,
    kind: &str,
) -> Result<Option<Found>, sqlx::Error> {
    let found: Option<(String, String, Option<String>, bool, bool)> = sqlx::query_as(
        "SELECT subject, html_body, text_body, enabled, campaign_id IS NOT NULL FROM email_templates
         WHERE type = $2 AND (campaign_id = $1 OR campaign_id IS NULL)
         ORDER BY campaign_id NULLS LAST LIMIT 1",
    )
    .bind(campaign)
    .bind(kind)
    .fetch_optional(connection)
    .await?;
    Ok(found.map(|(subject, html, text, enabled, is_own)| Found {
        source: Source { subject, html, text },
        enabled,
        is_own,
    }))
}

/// Why this may not be sent to the address, or `None`. Who bounced or complained gets nothing, who unsubscribed no marketing.
pub(super) async fn suppression(
    connection: &mut PgConnection,
    key: &str,
    campaign: Uuid,
    is_marketing: bool,
) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT reason FROM suppressions
         WHERE email = $1 AND (reason IN ('bounced', 'complained') OR $3 AND reason = 'unsubscribed')
           AND (campaign_id = $2 OR campaign_id IS NULL)
         ORDER BY reason LIMIT 1",
    )
    .bind(key)
    .bind(campaign)
    .bind(is_marketing)
    .fetch_optional(connection)
    .await
}

/// Ends the marketing of a campaign for an address. A campaign that is gone has none.
pub(super) async fn unsubscribe(connection: &mut PgConnection, key: &str, campaign: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO suppressions (email, reason, campaign_id)
         SELECT $1, 'unsubscribed', c.id FROM campaigns c WHERE c.id = $2
         ON CONFLICT DO NOTHING",
    )
    .bind(key)
    .bind(campaign)
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn suppress(connection: &mut PgConnection, key: &str, reason: &str) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO suppressions (email, reason) VALUES ($1, $2) ON CONFLICT DO NOTHING")
        .bind(key)
        .bind(reason)
        .execute(connection)
        .await?;
    Ok(())
}

/// Numbers for a template. A user without a place yet is ranked for the mail: as a newcomer without referrals, behind
/// everybody who has a better score, and behind those who wait for a place since before.
pub(super) async fn figures(
    connection: &mut PgConnection,
    user: Uuid,
    wanted: Wanted,
    hold_at: u8,
) -> Result<Figures, sqlx::Error> {
    let figures: Option<Figures> = sqlx::query_as(credit::statement(
        "SELECT CASE WHEN $3 THEN coalesce(
                    (SELECT p.position FROM waitlist_positions p
                     WHERE p.campaign_id = me.campaign_id AND p.user_id = me.id),
                    (SELECT 1 + unplaced.waiting + count(p.position) FILTER (
                         WHERE c.ranking <> 'score'
                            OR p.score <= coalesce(me.original_position, known.entry_no + unplaced.waiting + 1))
                     FROM (SELECT coalesce(max(e.entry_no), 0) AS entry_no FROM waitlist_positions e
                           WHERE e.campaign_id = me.campaign_id) AS known
                     CROSS JOIN (SELECT count(*) AS waiting FROM waitlist_users u
                                 WHERE u.campaign_id = me.campaign_id AND {holds_a_place}
                                   AND (u.created_at, u.id) < (me.created_at, me.id)
                                   AND NOT EXISTS (SELECT FROM waitlist_positions e
                                                   WHERE e.campaign_id = u.campaign_id AND e.user_id = u.id)) AS unplaced
                     LEFT JOIN waitlist_positions p ON p.campaign_id = me.campaign_id
                     GROUP BY unplaced.waiting)) END AS position,
                CASE WHEN $4 THEN (SELECT count(*) FROM {credited} AS credited WHERE credited.referrer_id = me.id)
                     END AS referrals,
                CASE WHEN $5 THEN (SELECT count(*) FROM waitlist_users u
                                   WHERE u.campaign_id = me.campaign_id AND {holds_a_place}) END AS signups
         FROM waitlist_users me JOIN campaigns c ON c.id = me.campaign_id
         WHERE me.id = $2",
    ))
    .bind(i32::from(hold_at))
    .bind(user)
    .bind(wanted.position)
    .bind(wanted.referrals)
    .bind(wanted.signups)
    .fetch_optional(connection)
    .await?;
    Ok(figures.unwrap_or_default())
}

/// Opens the transaction in which a mail is claimed, with the account by which a person who is to be forgotten is found in
/// the mail, and nothing of its content. `None`: the facts are others than those that were rendered, or the mail does not wait
/// any more.
pub(super) async fn begin(pool: &PgPool, mail: &Mail) -> Result<Option<Transaction<'static, Postgres>>, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let user = mail.facts.user_id;
    erasure::hold_off(&mut transaction, user).await?;
    if facts(&mut transaction, user).await?.as_ref() != Some(&mail.facts) {
        return Ok(None);
    }
    let Some(waits_as) = &mail.waits_as else {
        sqlx::query(
            "INSERT INTO email_log (effect_key, campaign_id, user_id, type, status) VALUES ($1, $2, $3, $4, 'sending')
             ON CONFLICT (effect_key) DO NOTHING",
        )
        .bind(&mail.effect_key)
        .bind(mail.facts.campaign_id)
        .bind(user)
        .bind(mail.kind.word())
        .execute(&mut *transaction)
        .await?;
        return Ok(Some(transaction));
    };
    let waits: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM email_log WHERE effect_key = $1 AND status = $2)")
        .bind(&mail.effect_key)
        .bind(waits_as)
        .fetch_one(&mut *transaction)
        .await?;
    Ok(waits.then_some(transaction))
}

/// A mail whose account says that it is being sent.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct Begun {
    pub(super) effect_key: String,
    pub(super) campaign_id: Uuid,
    #[sqlx(rename = "type")]
    pub(super) kind: String,
}

/// First mails and greetings of a user that were begun and not ended, but for the one of this key.
pub(super) async fn begun(pool: &PgPool, user: Uuid, but_for: &str) -> Result<Vec<Begun>, sqlx::Error> {
    sqlx::query_as(
        "SELECT effect_key, campaign_id, type FROM email_log
         WHERE user_id = $1 AND status = 'sending' AND type IN ('verification', 'welcome') AND effect_key <> $2
         ORDER BY effect_key",
    )
    .bind(user)
    .bind(but_for)
    .fetch_all(pool)
    .await
}

/// Ends the account of a mail that was begun, and of which nobody knows whether it was sent.
pub(super) async fn supersede(pool: &PgPool, effect_key: &str, reason: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE email_log SET status = 'skipped', reason = $2, updated_at = now()
         WHERE effect_key = $1 AND status = 'sending'",
    )
    .bind(effect_key)
    .bind(reason)
    .execute(pool)
    .await?;
    Ok(())
}

/// Writes the account of a mail. What was sent stays sent. Answers whether the account changed.
pub(super) async fn account(connection: &mut PgConnection, line: &Account<'_>) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "INSERT INTO email_log AS known
             (effect_key, campaign_id, user_id, type, status, reason, recipient, subject, variables, message_id,
              smtp_reply, sent_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11,
                 CASE WHEN $5 = 'sent' THEN coalesce($12, now()) END)
         ON CONFLICT (effect_key) DO UPDATE
             SET status = excluded.status, reason = excluded.reason, recipient = excluded.recipient,
                 subject = excluded.subject, variables = excluded.variables, message_id = excluded.message_id,
                 smtp_reply = excluded.smtp_reply, sent_at = excluded.sent_at, updated_at = now()
             WHERE known.status <> 'sent'",
    )
    .bind(line.effect_key)
    .bind(line.campaign_id)
    .bind(line.user_id)
    .bind(line.kind)
    .bind(line.status)
    .bind(line.reason)
    .bind(line.recipient)
    .bind(line.subject)
    .bind(line.variables)
    .bind(line.message_id)
    .bind(line.smtp_reply)
    .bind(line.sent_at)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// What a template shows of a campaign.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct CampaignFacts {
    pub(super) name: String,
    pub(super) slug: String,
    pub(super) status: String,
    pub(super) from_name: Option<String>,
    pub(super) from_address: Option<String>,
    pub(super) reply_to: Option<String>,
}

pub(super) async fn campaign(connection: &mut PgConnection, id: Uuid) -> Result<Option<CampaignFacts>, sqlx::Error> {
    sqlx::query_as("SELECT name, slug, status, from_name, from_address, reply_to FROM campaigns WHERE id = $1")
        .bind(id)
        .fetch_optional(connection)
        .await
}

pub(super) async fn campaigns_called(
    connection: &mut PgConnection,
    id_or_slug: &str,
) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar("SELECT id FROM campaigns WHERE id::text = lower($1) OR slug = $1 ORDER BY id")
        .bind(id_or_slug)
        .fetch_all(connection)
        .await
}

pub(super) async fn last_improvement(connection: &mut PgConnection, user: Uuid) -> Result<Option<Moved>, sqlx::Error> {
    let last: Option<i64> =
        sqlx::query_scalar("SELECT max(id) FROM position_changes WHERE user_id = $1 AND cause = 'improved'")
            .bind(user)
            .fetch_one(&mut *connection)
            .await?;
    match last {
        Some(id) => moved(connection, id).await,
        None => Ok(None),
    }
}

pub(super) async fn last_reward(connection: &mut PgConnection, user: Uuid) -> Result<Option<RewardFacts>, sqlx::Error> {
    let last: Option<Uuid> =
        sqlx::query_scalar("SELECT id FROM user_rewards WHERE user_id = $1 ORDER BY created_at DESC, id LIMIT 1")
            .bind(user)
            .fetch_optional(&mut *connection)
            .await?;
    match last {
        Some(id) => reward(connection, id).await,
        None => Ok(None),
    }
}

pub(super) async fn last_milestone(connection: &mut PgConnection, campaign: Uuid) -> Result<Option<i32>, sqlx::Error> {
    sqlx::query_scalar("SELECT max(milestone) FROM campaign_milestones WHERE campaign_id = $1")
        .bind(campaign)
        .fetch_one(connection)
        .await
}
