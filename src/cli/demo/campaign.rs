//! The application of the demo: it writes rows and does nothing else. Every function is one transaction.

use serde_json::json;
use sqlx::postgres::{PgConnection, PgPool};
use uuid::Uuid;

/// The campaign's name and its slug.
pub(super) const NAME: &str = "Moonbase";
const SLUG: &str = "moonbase";

/// Handed over by a webhook, for the first friend.
pub(super) const CALL_REWARD: &str = "Mission patch";

/// Handed over by a mail, for two friends.
pub(super) const MAIL_REWARD: &str = "Early access";

/// Templates of the dead letter: what is wrong with the first one, and the second.
const BROKEN_SUBJECT: &str = "{{ nickname }}, please confirm";
const MENDED_SUBJECT: &str = "{{ first_name }}, please confirm";
const TEMPLATE_BODY: &str = "<p><a href=\"{{ verification_link }}\">Confirm my address</a></p>";

/// Somebody who signs up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Person {
    pub(super) name: &'static str,
    pub(super) email: &'static str,
    pub(super) device: Option<&'static str>,
    /// By whose code.
    pub(super) friend_of: Option<&'static str>,
    /// Whether the address counts as verified from the start.
    pub(super) verified: bool,
}

/// A campaign in the database.
#[derive(Debug, Clone)]
pub(super) struct Campaign {
    pool: PgPool,
    /// Its id.
    pub(super) id: Uuid,
}

impl Campaign {
    /// Opens a campaign with a reward by mail and one by webhook; answers it and the rows written.
    pub(super) async fn open(pool: &PgPool, url: &str, secret: &str) -> Result<(Self, u64), sqlx::Error> {
        let mut transaction = pool.begin().await?;
        let id = insert_campaign(&mut transaction, NAME, SLUG).await?;
        let webhook: Uuid = sqlx::query_scalar(
            "INSERT INTO public.webhooks (campaign_id, url, secret) VALUES ($1, $2, $3) RETURNING id",
        )
        .bind(id)
        .bind(url)
        .bind(secret)
        .fetch_one(&mut *transaction)
        .await?;
        let rewards = sqlx::query(
            "INSERT INTO public.rewards (campaign_id, name, type, config, trigger_type, trigger_threshold,
                 delivery_method, webhook_id)
             VALUES ($1, $2, 'merchandise', $3, 'referral_count', 1, 'webhook', $4),
                    ($1, $5, 'early_access', $6, 'referral_count', 2, 'email', NULL)",
        )
        .bind(id)
        .bind(CALL_REWARD)
        .bind(json!({"code_template": "PATCH-{random}"}))
        .bind(webhook)
        .bind(MAIL_REWARD)
        .bind(json!({"code_template": "MOON-{random}", "instructions": "Show the code at the airlock."}))
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        let pool = pool.clone();
        Ok((Self { pool, id }, 2 + rewards.rows_affected()))
    }

    /// Somebody signs up, perhaps by a friend's code.
    pub(super) async fn sign_up(&self, person: &Person) -> Result<u64, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        let id = insert_user(&mut transaction, self.id, person).await?;
        let mut written = 1;
        if let Some(referrer) = person.friend_of {
            written += insert_referral(&mut transaction, self.id, referrer, id, person).await?;
        }
        transaction.commit().await?;
        Ok(written)
    }

    /// Somebody followed the link of the verification mail. The application also calls the referral verified.
    pub(super) async fn verify(&self, person: &Person) -> Result<u64, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        let id: Uuid = sqlx::query_scalar(
            "UPDATE public.waitlist_users
             SET email_verified = true, status = 'verified', verified_at = now(), updated_at = now()
             WHERE campaign_id = $1 AND email = $2 RETURNING id",
        )
        .bind(self.id)
        .bind(person.email)
        .fetch_one(&mut *transaction)
        .await?;
        let referrals = sqlx::query(
            "UPDATE public.referrals SET status = 'verified', verified_at = now(), updated_at = now()
             WHERE referred_id = $1",
        )
        .bind(id)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(1 + referrals.rows_affected())
    }

    /// The customer writes a template of its own, with a mistake in it.
    pub(super) async fn break_template(&self) -> Result<u64, sqlx::Error> {
        let written = sqlx::query(
            "INSERT INTO public.email_templates (campaign_id, type, subject, html_body)
             VALUES ($1, 'verification', $2, $3)",
        )
        .bind(self.id)
        .bind(BROKEN_SUBJECT)
        .bind(TEMPLATE_BODY)
        .execute(&self.pool)
        .await?;
        Ok(written.rows_affected())
    }

    /// The customer corrects it.
    pub(super) async fn mend_template(&self) -> Result<u64, sqlx::Error> {
        let written = sqlx::query(
            "UPDATE public.email_templates SET subject = $2, updated_at = now()
             WHERE campaign_id = $1 AND type = 'verification'",
        )
        .bind(self.id)
        .bind(MENDED_SUBJECT)
        .execute(&self.pool)
        .await?;
        Ok(written.rows_affected())
    }
}

/// Two people of a campaign of their own, by whom the demo finds out whether everything works before the play begins:
/// one row at least in every captured table that wakes a handler, so that its topic is made.
pub(super) async fn rehearse(pool: &PgPool) -> Result<Uuid, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let campaign = insert_campaign(&mut transaction, "Rehearsal", "rehearsal").await?;
    let person = |name, email, verified| Person {
        name,
        email,
        device: None,
        friend_of: None,
        verified,
    };
    let known = insert_user(
        &mut transaction,
        campaign,
        &person("tess", "tess@rehearsal.example", true),
    )
    .await?;
    let newcomer = person("theo", "theo@mailinator.com", false);
    let user = insert_user(&mut transaction, campaign, &newcomer).await?;
    insert_referral(&mut transaction, campaign, "tess", user, &newcomer).await?;
    let reward: Uuid = sqlx::query_scalar(
        "INSERT INTO public.rewards (campaign_id, name, type, trigger_type) VALUES ($1, 'Applause', 'custom', 'manual')
         RETURNING id",
    )
    .bind(campaign)
    .fetch_one(&mut *transaction)
    .await?;
    sqlx::query("INSERT INTO public.user_rewards (campaign_id, reward_id, user_id) VALUES ($1, $2, $3)")
        .bind(campaign)
        .bind(reward)
        .bind(known)
        .execute(&mut *transaction)
        .await?;
    // Tables that only the worker writes: their topics are made ahead of its first row.
    sqlx::query(
        "INSERT INTO public.email_log (effect_key, campaign_id, user_id, type, status, reason)
         VALUES ('rehearsal:' || $1::text, $1, $2, 'custom', 'skipped', 'rehearsal')",
    )
    .bind(campaign)
    .bind(known)
    .execute(&mut *transaction)
    .await?;
    sqlx::query(
        "INSERT INTO public.fraud_detections (campaign_id, user_id, type, evidence_key, confidence, status)
         VALUES ($1, $2, 'bot', 'rehearsal', 0.10, 'false_positive')",
    )
    .bind(campaign)
    .bind(known)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(campaign)
}

async fn insert_campaign(connection: &mut PgConnection, name: &str, slug: &str) -> Result<Uuid, sqlx::Error> {
    sqlx::query_scalar(
        "INSERT INTO public.campaigns (account_id, name, slug, status, from_name, from_address)
         VALUES (gen_random_uuid(), $1, $2, 'active', $1, 'hello@' || $2 || '.example') RETURNING id",
    )
    .bind(name)
    .bind(slug)
    .fetch_one(connection)
    .await
}

async fn insert_user(connection: &mut PgConnection, campaign: Uuid, person: &Person) -> Result<Uuid, sqlx::Error> {
    sqlx::query_scalar(
        "INSERT INTO public.waitlist_users (campaign_id, email, first_name, referral_code, email_verified, status,
             verified_at, verification_token, device_fingerprint, referred_by_id, source)
         VALUES ($1, $2, $3, upper($3) || '-' || left($1::text, 8), $4, CASE WHEN $4 THEN 'verified' ELSE 'pending' END,
             CASE WHEN $4 THEN now() END, CASE WHEN NOT $4 THEN gen_random_uuid()::text END, $5,
             (SELECT id FROM public.waitlist_users WHERE campaign_id = $1 AND first_name = $6),
             CASE WHEN $6::text IS NULL THEN 'direct' ELSE 'referral' END)
         RETURNING id",
    )
    .bind(campaign)
    .bind(person.email)
    .bind(person.name)
    .bind(person.verified)
    .bind(person.device)
    .bind(person.friend_of)
    .fetch_one(connection)
    .await
}

async fn insert_referral(
    connection: &mut PgConnection,
    campaign: Uuid,
    referrer: &str,
    referred: Uuid,
    person: &Person,
) -> Result<u64, sqlx::Error> {
    let written = sqlx::query(
        "INSERT INTO public.referrals (campaign_id, referrer_id, referred_id, status)
         SELECT $1, id, $3, CASE WHEN $4 THEN 'verified' ELSE 'pending' END
         FROM public.waitlist_users WHERE campaign_id = $1 AND first_name = $2",
    )
    .bind(campaign)
    .bind(referrer)
    .bind(referred)
    .bind(person.verified)
    .execute(connection)
    .await?;
    Ok(written.rows_affected())
}
