//! What people see of detections, and what they decide about them.
//!
//! A decision is a row that changes: position and reward react to that change as to any other, and nobody is told in a
//! second way. What was dismissed stays dismissed, because the checks never write a row that is there already.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::postgres::PgPool;
use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

use crate::handlers::credit;

/// The states of a detection.
pub const STATES: [&str; 4] = ["pending", "confirmed", "false_positive", "resolved"];

/// The types of detections, as the checks call them.
pub const TYPES: [&str; 6] = [
    "self_referral",
    "velocity",
    "disposable_email",
    "bot",
    "duplicate_ip",
    "duplicate_device",
];

/// Which detections are looked at; each narrows the choice.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of this campaign.
    pub campaign: Option<Uuid>,
    /// About this user.
    pub user: Option<Uuid>,
    /// Of these types; all when empty.
    pub types: Vec<String>,
    /// In these states; all when empty.
    pub states: Vec<String>,
}

/// A detection as it is listed.
#[derive(Debug, Clone, Serialize, sqlx::FromRow)]
pub struct Listed {
    /// Its id.
    pub id: Uuid,
    /// Its campaign.
    pub campaign_id: Uuid,
    /// Name of the campaign in addresses; `None` when the campaign is gone.
    pub campaign_slug: Option<String>,
    /// The user it is about: of a referral, the friend.
    pub user_id: Uuid,
    /// The referral whose credit is in question, where there is one.
    pub referral_id: Option<Uuid>,
    /// What was found.
    #[serde(rename = "type")]
    #[sqlx(rename = "type")]
    pub kind: String,
    /// How sure it is by itself, in percent.
    pub confidence_percent: i32,
    /// `pending`, `confirmed`, `false_positive` or `resolved`.
    pub status: String,
    /// Who decided.
    pub reviewed_by: Option<String>,
    /// When.
    pub reviewed_at: Option<DateTime<Utc>>,
    /// When it was found.
    pub created_at: DateTime<Utc>,
}

/// A detection with all that helps to decide.
#[derive(Debug, Clone, Serialize)]
pub struct Detail {
    /// What is listed.
    #[serde(flatten)]
    pub listed: Listed,
    /// Makes it the same row on every check.
    pub evidence_key: String,
    /// What was seen: hashes, numbers and words, and nobody's data.
    pub evidence: serde_json::Value,
    /// What whoever decided had to say.
    pub notes: Option<String>,
    /// Referrals in which the user is the friend: what is at stake.
    pub referrals: Vec<AtStake>,
    /// Other detections about the same user.
    pub others: Vec<Listed>,
}

/// A referral whose credit depends on detections.
#[derive(Debug, Clone, Serialize, sqlx::FromRow)]
pub struct AtStake {
    /// The referral.
    pub referral_id: Uuid,
    /// Whose credit it is.
    pub referrer_id: Uuid,
    /// What the application says of it.
    pub status: String,
    /// All open detections about it taken together, in percent.
    pub suspicion_percent: i32,
    /// Whether that is enough to hold the credit.
    pub is_held: bool,
}

/// What somebody decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is fraud: the credit stays held.
    Confirmed,
    /// It is none: the credit is released, and the same evidence is never held against this user again.
    FalsePositive,
}

impl Verdict {
    /// The state it brings.
    pub fn state(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::FalsePositive => "false_positive",
        }
    }
}

/// What became of a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decided {
    /// These were changed; the others were in that state already.
    Changed(Vec<Uuid>),
    /// Nothing was changed, because these are unknown.
    Unknown(Vec<Uuid>),
}

const LISTED: &str = "d.id, d.campaign_id, c.slug AS campaign_slug, d.user_id, d.referral_id, d.type,
    round(100 * d.confidence)::integer AS confidence_percent, d.status, d.reviewed_by, d.reviewed_at, d.created_at
    FROM fraud_detections d LEFT JOIN campaigns c ON c.id = d.campaign_id";

const CHOSEN: &str = "($1::uuid IS NULL OR d.campaign_id = $1) AND ($2::uuid IS NULL OR d.user_id = $2)
    AND (cardinality($3::text[]) = 0 OR d.type = ANY ($3)) AND (cardinality($4::text[]) = 0 OR d.status = ANY ($4))";

/// The newest detections that a filter chooses, at most `limit`, and how many it chooses in all.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn list(pool: &PgPool, filter: &Filter, limit: i64) -> Result<(Vec<Listed>, i64), sqlx::Error> {
    let sql = format!("SELECT {LISTED} WHERE {CHOSEN} ORDER BY d.created_at DESC, d.id LIMIT $5");
    let listed = sqlx::query_as(AssertSqlSafe(sql))
        .bind(filter.campaign)
        .bind(filter.user)
        .bind(&filter.types)
        .bind(&filter.states)
        .bind(limit)
        .fetch_all(pool)
        .await?;
    let sql = format!("SELECT count(*) FROM fraud_detections d WHERE {CHOSEN}");
    let all = sqlx::query_scalar(AssertSqlSafe(sql))
        .bind(filter.campaign)
        .bind(filter.user)
        .bind(&filter.types)
        .bind(&filter.states)
        .fetch_one(pool)
        .await?;
    Ok((listed, all))
}

/// One detection; `None` when there is none of that id. From a suspicion of `hold_at` percent on a credit is held.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn show(pool: &PgPool, id: Uuid, hold_at: u8) -> Result<Option<Detail>, sqlx::Error> {
    let sql = format!("SELECT {LISTED} WHERE d.id = $1");
    let found: Option<Listed> = sqlx::query_as(AssertSqlSafe(sql)).bind(id).fetch_optional(pool).await?;
    let Some(listed) = found else { return Ok(None) };
    let (evidence_key, evidence, notes) =
        sqlx::query_as("SELECT evidence_key, evidence, notes FROM fraud_detections WHERE id = $1")
            .bind(id)
            .fetch_one(pool)
            .await?;
    let sql = format!(
        "SELECT referral_id, referrer_id, status, round(100 * suspicion)::integer AS suspicion_percent,
                100 * suspicion >= $2::integer AS is_held
         FROM (SELECT r.id AS referral_id, r.referrer_id, r.status, {} AS suspicion, r.created_at
               FROM referrals r WHERE r.referred_id = $1) AS referral
         ORDER BY created_at, referral_id",
        credit::SUSPICION
    );
    let referrals = sqlx::query_as(AssertSqlSafe(sql))
        .bind(listed.user_id)
        .bind(i32::from(hold_at))
        .fetch_all(pool)
        .await?;
    let sql = format!("SELECT {LISTED} WHERE d.user_id = $1 AND d.id <> $2 ORDER BY d.created_at, d.id");
    let others = sqlx::query_as(AssertSqlSafe(sql))
        .bind(listed.user_id)
        .bind(id)
        .fetch_all(pool)
        .await?;
    Ok(Some(Detail {
        listed,
        evidence_key,
        evidence,
        notes,
        referrals,
        others,
    }))
}

/// Writes a decision about all of these, or about none when one is unknown. Somebody may think better of it: each state
/// leads to each other one.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn decide(
    connection: &mut PgConnection,
    ids: &[Uuid],
    verdict: Verdict,
    by: &str,
    notes: Option<&str>,
) -> Result<Decided, sqlx::Error> {
    // In one statement, so that nobody needs a transaction; a row that vanishes meanwhile was unknown.
    let rows: Vec<(Uuid, bool)> = sqlx::query_as(
        "WITH known AS MATERIALIZED (
             SELECT id, status FROM fraud_detections WHERE id = ANY ($1) ORDER BY id FOR UPDATE
         ), changed AS (
             UPDATE fraud_detections d
             SET status = $2, reviewed_by = $3, reviewed_at = now(), notes = coalesce($4, d.notes), updated_at = now()
             FROM known
             WHERE d.id = known.id AND known.status <> $2
               AND (SELECT count(*) FROM known) = (SELECT count(DISTINCT id) FROM unnest($1) AS given(id))
             RETURNING d.id
         )
         SELECT known.id, changed.id IS NOT NULL FROM known LEFT JOIN changed USING (id)",
    )
    .bind(ids)
    .bind(verdict.state())
    .bind(by)
    .bind(notes)
    .fetch_all(connection)
    .await?;
    let unknown: Vec<Uuid> = ids
        .iter()
        .filter(|id| !rows.iter().any(|(known, _)| known == *id))
        .copied()
        .collect();
    Ok(match unknown.is_empty() {
        true => Decided::Changed(
            rows.into_iter()
                .filter(|(_, changed)| *changed)
                .map(|(id, _)| id)
                .collect(),
        ),
        false => Decided::Unknown(unknown),
    })
}

/// Resolves open detections that rest on an address which is in the campaign's safelist by now; answers how many. The
/// safelist is not published, so nothing wakes a handler when it grows.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn resolve_safelisted(connection: &mut PgConnection) -> Result<u64, sqlx::Error> {
    let resolved = sqlx::query(
        "UPDATE fraud_detections d
         SET status = 'resolved', reviewed_by = 'afterwrite, by the safelist', reviewed_at = now(), updated_at = now()
         FROM waitlist_users u
         WHERE d.status IN ('pending', 'confirmed') AND d.evidence ->> 'family' = 'ip' AND u.id = d.user_id
           AND EXISTS (SELECT FROM ip_safelist safe
                       WHERE safe.campaign_id = d.campaign_id
                         AND safe.range >>= coalesce(
                             u.ip_address, (SELECT r.ip_address FROM referrals r WHERE r.id = d.referral_id)))",
    )
    .execute(connection)
    .await?;
    Ok(resolved.rows_affected())
}
