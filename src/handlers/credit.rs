//! The one definition of a referral that counts, as SQL that every statement about credit is built on.
//!
//! A referral counts when the application calls it verified or converted, the friend is in good standing, and the open
//! detections about it do not hold it. The confidence of detections is combined here as `fraud::rules::combine` says;
//! a test holds the two together.

use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};
use uuid::Uuid;

/// Whether user `u` of campaign `c` is in good standing.
pub const IN_STANDING: &str = "(u.deleted_at IS NULL AND u.status NOT IN ('removed', 'blocked')
    AND (u.email_verified OR NOT c.verification_required))";

/// Whether user `u` holds a place: also without a verified address.
pub const HOLDS_A_PLACE: &str = "(u.deleted_at IS NULL AND u.status NOT IN ('removed', 'blocked'))";

/// Confidence that referral `r` is not genuine, 0 to 1: the strongest detection of each family, combined over families.
/// Where an address and an agent are all there is, 0.70 is the limit.
pub const SUSPICION: &str = "coalesce((
    SELECT CASE WHEN count(*) = 2 AND bool_and(family IN ('ip', 'agent'))
           THEN least(0.70, round(1 - exp(sum(ln(1 - strongest))), 4))
           ELSE round(1 - exp(sum(ln(1 - strongest))), 4) END
    FROM (
        SELECT coalesce(d.evidence ->> 'family', d.type) AS family, max(least(d.confidence, 0.9999)) AS strongest
        FROM fraud_detections d
        WHERE d.user_id = r.referred_id AND (d.referral_id IS NULL OR d.referral_id = r.id)
          AND d.status IN ('pending', 'confirmed')
        GROUP BY 1
    ) AS families), 0)";

/// A statement in which `{credited}` stands for the referrals that count (id, campaign_id, referrer_id, referred_id,
/// verified_at, created_at), `{in_standing}` and `{holds_a_place}` for the conditions above.
///
/// With `{credited}`, `$1` must be the threshold in percent at which a suspicion holds the credit.
pub fn statement(template: &str) -> SqlStr {
    let credited = format!(
        "(SELECT r.id, r.campaign_id, r.referrer_id, r.referred_id, r.verified_at, r.created_at
          FROM referrals r
          JOIN waitlist_users u ON u.id = r.referred_id AND u.campaign_id = r.campaign_id
          JOIN campaigns c ON c.id = r.campaign_id
          WHERE r.status IN ('verified', 'converted') AND {IN_STANDING}
            AND (NOT EXISTS (SELECT FROM fraud_detections d
                             WHERE d.user_id = r.referred_id AND d.status IN ('pending', 'confirmed'))
                 OR 100 * {SUSPICION} < $1::integer))"
    );
    let text = template
        .replace("{credited}", &credited)
        .replace("{in_standing}", IN_STANDING)
        .replace("{holds_a_place}", HOLDS_A_PLACE);
    AssertSqlSafe(text).into_sql_str()
}

/// Whose credit changes when something is found about this user, or about the user's standing: the referrers.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn referrers_of(connection: &mut sqlx::PgConnection, referred: &[Uuid]) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar("SELECT DISTINCT referrer_id FROM referrals WHERE referred_id = ANY($1) ORDER BY 1")
        .bind(referred)
        .fetch_all(connection)
        .await
}
