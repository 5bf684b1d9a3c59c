//! Facts for the checks, and the rows that keep what they found.

use sqlx::PgConnection;
use uuid::Uuid;

use crate::handlers::fraud::duplicates;
use crate::handlers::fraud::rules::{self, Detection, FraudSettings, ReferralFacts, UserFacts};
use crate::handlers::secret::Secret;

/// Campaigns whose referrals and users are checked: everything but drafts and what was deleted.
const CHECKED_CAMPAIGN: &str = "c.deleted_at IS NULL AND c.status <> 'draft'";

/// Checks these referrals with their friends and these users, and writes what was not known yet. Answers how many rows
/// are new. Runs the same in the fraud handler and, before a reward is granted, in the transaction of the grant.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn check(
    connection: &mut PgConnection,
    referrals: &[Uuid],
    users: &[Uuid],
    settings: &FraudSettings,
    secret: &Secret,
) -> Result<u64, sqlx::Error> {
    let mut found: Vec<Detection> = Vec::new();
    let mut concerned: Vec<Uuid> = users.to_vec();
    for facts in referral_facts(connection, referrals, users, settings).await? {
        concerned.push(facts.referred_id);
        found.extend(rules::check_referral(&facts, settings, secret));
    }
    let users = user_facts(connection, &concerned).await?;
    let shared = duplicates::count(connection, &users, settings).await?;
    for (facts, shared) in users.iter().zip(shared) {
        found.extend(rules::check_user(facts, shared, settings, secret));
    }
    record(connection, found).await
}

/// Facts as of each referral's own row: of the referrer's others only those made before it count.
async fn referral_facts(
    connection: &mut PgConnection,
    referrals: &[Uuid],
    friends: &[Uuid],
    settings: &FraudSettings,
) -> Result<Vec<ReferralFacts>, sqlx::Error> {
    let window_secs = settings.velocity.as_ref().map_or(0, |check| check.window_secs);
    sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "SELECT r.id AS referral_id, r.campaign_id, r.referrer_id, r.referred_id, r.created_at,
                friend.email AS friend_email, host(coalesce(friend.ip_address, r.ip_address)) AS friend_ip,
                friend.device_fingerprint AS friend_device,
                referrer.email AS referrer_email, host(referrer.ip_address) AS referrer_ip,
                referrer.device_fingerprint AS referrer_device,
                EXISTS (SELECT FROM ip_safelist safe WHERE safe.campaign_id = r.campaign_id
                        AND safe.range >>= coalesce(friend.ip_address, r.ip_address)) AS ip_is_safe,
                (SELECT count(*) FROM referrals other
                 WHERE other.referrer_id = r.referrer_id AND (other.created_at, other.id) < (r.created_at, r.id)
                   AND other.created_at > r.created_at - $3::integer * interval '1 second') AS earlier_in_window
         FROM referrals r
         JOIN campaigns c ON c.id = r.campaign_id
         JOIN waitlist_users friend ON friend.id = r.referred_id
         JOIN waitlist_users referrer ON referrer.id = r.referrer_id
         WHERE (r.id = ANY($1) OR r.referred_id = ANY($2)) AND r.status <> 'invalid' AND {CHECKED_CAMPAIGN}"
    )))
    .bind(referrals)
    .bind(friends)
    .bind(i32::try_from(window_secs).unwrap_or(i32::MAX))
    .fetch_all(connection)
    .await
}

async fn user_facts(connection: &mut PgConnection, users: &[Uuid]) -> Result<Vec<UserFacts>, sqlx::Error> {
    sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "SELECT u.id AS user_id, u.campaign_id, u.email, host(u.ip_address) AS ip, u.device_fingerprint AS device,
                u.user_agent AS agent, u.created_at,
                EXISTS (SELECT FROM ip_safelist safe
                        WHERE safe.campaign_id = u.campaign_id AND safe.range >>= u.ip_address) AS ip_is_safe
         FROM waitlist_users u JOIN campaigns c ON c.id = u.campaign_id
         WHERE u.id = ANY($1) AND u.deleted_at IS NULL AND {CHECKED_CAMPAIGN}"
    )))
    .bind(users)
    .fetch_all(connection)
    .await
}

/// Writes detections that are not known yet. A known one stays as it is: what a person dismissed never opens again.
async fn record(connection: &mut PgConnection, mut found: Vec<Detection>) -> Result<u64, sqlx::Error> {
    if found.is_empty() {
        return Ok(0);
    }
    // One order for everybody: two transactions that write the same rows then never wait for each other in a circle.
    found.sort_by(|a, b| (a.user_id, a.kind, &a.evidence_key).cmp(&(b.user_id, b.kind, &b.evidence_key)));
    let campaigns: Vec<Uuid> = found.iter().map(|detection| detection.campaign_id).collect();
    let users: Vec<Uuid> = found.iter().map(|detection| detection.user_id).collect();
    let referrals: Vec<Option<Uuid>> = found.iter().map(|detection| detection.referral_id).collect();
    let kinds: Vec<&str> = found.iter().map(|detection| detection.kind).collect();
    let keys: Vec<&str> = found.iter().map(|detection| detection.evidence_key.as_str()).collect();
    let confidences: Vec<i32> = found.iter().map(|detection| i32::from(detection.confidence)).collect();
    let evidence: Vec<&serde_json::Value> = found.iter().map(|detection| &detection.evidence).collect();
    let written = sqlx::query(
        "INSERT INTO fraud_detections (campaign_id, user_id, referral_id, type, evidence_key, confidence, evidence)
         SELECT campaign, usr, referral, kind, key, percent / 100.0, evidence
         FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::integer[], $7::jsonb[])
              AS found(campaign, usr, referral, kind, key, percent, evidence)
         ON CONFLICT (user_id, type, evidence_key) DO NOTHING",
    )
    .bind(campaigns)
    .bind(users)
    .bind(referrals)
    .bind(kinds)
    .bind(keys)
    .bind(confidences)
    .bind(evidence)
    .execute(connection)
    .await?;
    Ok(written.rows_affected())
}
