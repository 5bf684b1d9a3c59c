//! Ranks everybody: for changed rules, for repair, and as what the ranking of single users is compared with.

use sqlx::PgConnection;
use uuid::Uuid;

use super::sql;
use crate::handlers::credit;

/// Memory of one sort or hash in this transaction: a million users then need few passes over the disk.
const MEMORY: &str = "SELECT set_config('work_mem', greatest(pg_size_bytes(current_setting('work_mem')), 67108864) / 1024 || 'kB', true)";

/// Referrals that count, by referrer. `$1` is the threshold of suspicion, `$2` the campaign.
const CREDIT: &str = "SELECT referrer_id, count(*)::integer AS verified
    FROM {credited} AS credited WHERE campaign_id = $2 GROUP BY referrer_id";

/// The order of each ranking, over facts with these names.
const ORDER: &str = "CASE WHEN ranking = 'score' THEN score END, CASE WHEN ranking <> 'signup' THEN -verified END,
    created_at, user_id";

/// Rows of `position_changes` for whoever of `moved` came across one of the thresholds `$3`, or stands within one by
/// other facts than before: a reward may have waited for that.
const CROSSED: &str = "INSERT INTO position_changes (campaign_id, user_id, old_position, new_position, cause)
    SELECT $2, user_id, old_position, new_position, 'threshold'
    FROM moved
    WHERE new_position <= (SELECT max(goal) FROM unnest($3::integer[]) AS goal)
      AND EXISTS (SELECT FROM unnest($3::integer[]) AS goal
                  WHERE new_position <= goal AND (old_position IS NULL OR old_position > goal OR other_facts))
    ORDER BY new_position";

/// Ranks a campaign from the facts and writes the rows that differ; answers how many places changed.
///
/// This is the full ranking: its reading grows with the campaign and its writing with the change. `hold_at` is the
/// suspicion in percent from which a referral does not count. Wants the campaign's lock.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn rank(connection: &mut PgConnection, campaign: Uuid, hold_at: u8) -> Result<u64, sqlx::Error> {
    sqlx::query(MEMORY).execute(&mut *connection).await?;
    let is_first: bool =
        sqlx::query_scalar("SELECT NOT EXISTS (SELECT FROM waitlist_positions WHERE campaign_id = $1)")
            .bind(campaign)
            .fetch_one(&mut *connection)
            .await?;
    let thresholds = sql::thresholds(connection, campaign).await?;
    let changed = if is_first {
        enter_all(connection, campaign, hold_at, &thresholds).await?
    } else {
        give_entry_numbers(connection, campaign).await?;
        let changed = write_places(connection, campaign, hold_at, &thresholds).await?;
        drop_strangers(connection, campaign).await?;
        changed
    };
    let in_standing = remember(connection, campaign, hold_at).await?;
    sql::tell(connection, campaign).await?;
    sql::pass_milestones(connection, campaign, in_standing).await?;
    Ok(changed)
}

/// The first ranking: every row is written once, in the order of the places, so that those who move together later lie
/// together.
async fn enter_all(
    connection: &mut PgConnection,
    campaign: Uuid,
    hold_at: u8,
    thresholds: &[i32],
) -> Result<u64, sqlx::Error> {
    let text = "WITH credit AS ({credit}), facts AS (
             SELECT u.id AS user_id, u.created_at, {holds_a_place} AS ranked, {in_standing} AS in_standing,
                    coalesce(credit.verified, 0) AS verified, c.ranking, c.points_per_referral, u.original_position,
                    row_number() OVER (ORDER BY u.created_at, u.id)::integer AS entry_no
             FROM waitlist_users u
             JOIN campaigns c ON c.id = u.campaign_id
             LEFT JOIN credit ON credit.referrer_id = u.id
             WHERE u.campaign_id = $2
         ), scored AS (
             SELECT facts.*, coalesce(original_position, entry_no)::bigint
                        - verified::bigint * points_per_referral AS score
             FROM facts
         ), places AS (
             SELECT scored.*, CASE WHEN ranked THEN row_number() OVER (
                 PARTITION BY NOT ranked ORDER BY {order})::integer END AS place
             FROM scored
         ), moved AS (
             INSERT INTO waitlist_positions (campaign_id, user_id, entry_no, position, score, verified_referrals,
                                             signed_up_at, in_standing, told_position)
             SELECT $2, user_id, entry_no, place, score, verified, created_at, in_standing, place FROM places
             RETURNING user_id, NULL::integer AS old_position, position AS new_position, true AS other_facts
         ), crossed AS ({crossed})
         SELECT count(new_position) FROM moved";
    places(connection, text, campaign, hold_at, thresholds).await
}

/// Newcomers beside users who have places already; theirs are given with everybody's.
async fn give_entry_numbers(connection: &mut PgConnection, campaign: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO waitlist_positions (campaign_id, user_id, entry_no, score, signed_up_at)
         SELECT $1, u.id, number, coalesce(u.original_position, number), u.created_at
         FROM (
             SELECT newcomer.*,
                    (last.entry_no + row_number() OVER (ORDER BY newcomer.created_at, newcomer.id))::integer AS number
             FROM waitlist_users newcomer
             CROSS JOIN (SELECT coalesce(max(entry_no), 0) AS entry_no FROM waitlist_positions WHERE campaign_id = $1)
                 AS last
             WHERE newcomer.campaign_id = $1
               AND NOT EXISTS (SELECT FROM waitlist_positions known
                               WHERE known.campaign_id = $1 AND known.user_id = newcomer.id)
         ) AS u",
    )
    .bind(campaign)
    .execute(connection)
    .await?;
    Ok(())
}

/// Places, scores and counts of all rows there are. Who is erased or belongs to another campaign has no place.
async fn write_places(
    connection: &mut PgConnection,
    campaign: Uuid,
    hold_at: u8,
    thresholds: &[i32],
) -> Result<u64, sqlx::Error> {
    let text = "WITH credit AS ({credit}), facts AS (
             SELECT p.user_id, p.position AS old_position, p.score AS old_score, p.verified_referrals AS old_verified,
                    p.signed_up_at AS old_created_at, p.in_standing AS old_in_standing,
                    coalesce(u.created_at, p.signed_up_at) AS created_at,
                    coalesce({holds_a_place}, false) AS ranked, coalesce({in_standing}, false) AS in_standing,
                    coalesce(credit.verified, 0) AS verified, c.ranking,
                    coalesce(u.original_position, p.entry_no)::bigint
                        - coalesce(credit.verified, 0)::bigint * c.points_per_referral AS score
             FROM waitlist_positions p
             JOIN campaigns c ON c.id = p.campaign_id
             LEFT JOIN waitlist_users u ON u.id = p.user_id AND u.campaign_id = p.campaign_id
             LEFT JOIN credit ON credit.referrer_id = p.user_id
             WHERE p.campaign_id = $2
         ), places AS (
             SELECT facts.*, CASE WHEN ranked THEN row_number() OVER (
                 PARTITION BY NOT ranked ORDER BY {order})::integer END AS place
             FROM facts
         ), differing AS (
             SELECT * FROM places
             WHERE (old_position, old_score, old_verified, old_created_at, old_in_standing)
                   IS DISTINCT FROM (place, score, verified, created_at, in_standing)
         ), moved AS (
             UPDATE waitlist_positions p
             SET position = place, score = differing.score, verified_referrals = verified, signed_up_at = created_at,
                 in_standing = differing.in_standing, told_position = coalesce(p.told_position, place),
                 updated_at = now()
             FROM differing
             WHERE p.campaign_id = $2 AND p.user_id = differing.user_id
             RETURNING p.user_id, old_position, p.position AS new_position, old_verified <> verified AS other_facts
         ), crossed AS ({crossed})
         SELECT count(*) FROM moved WHERE new_position IS DISTINCT FROM old_position";
    places(connection, text, campaign, hold_at, thresholds).await
}

/// Rows that [`write_places`] found to be nobody's. One that was left behind since stays until its own event.
async fn drop_strangers(connection: &mut PgConnection, campaign: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query(
        "DELETE FROM waitlist_positions p
         WHERE p.campaign_id = $1 AND p.position IS NULL
           AND NOT EXISTS (SELECT FROM waitlist_users u WHERE u.id = p.user_id AND u.campaign_id = $1)",
    )
    .bind(campaign)
    .execute(connection)
    .await?;
    Ok(())
}

async fn places(
    connection: &mut PgConnection,
    text: &str,
    campaign: Uuid,
    hold_at: u8,
    thresholds: &[i32],
) -> Result<u64, sqlx::Error> {
    let text = text
        .replace("{credit}", CREDIT)
        .replace("{order}", ORDER)
        .replace("{crossed}", CROSSED);
    let changed: i64 = sqlx::query_scalar(credit::statement(&text))
        .bind(i32::from(hold_at))
        .bind(campaign)
        .bind(thresholds)
        .fetch_one(connection)
        .await?;
    Ok(changed.unsigned_abs())
}

/// Notes by which rules everybody is ranked now, and what single users are added to later. Answers how many are in good
/// standing.
async fn remember(connection: &mut PgConnection, campaign: Uuid, hold_at: u8) -> Result<i64, sqlx::Error> {
    sqlx::query(
        "INSERT INTO ranked_campaigns AS known (campaign_id, ranking, points_per_referral, verification_required,
                                                hold_at, in_standing, last_signed_up_at, last_user_id)
         SELECT c.id, c.ranking, c.points_per_referral, c.verification_required, $2,
                (SELECT count(*) FROM waitlist_positions p WHERE p.campaign_id = c.id AND p.in_standing),
                last.signed_up_at, last.user_id
         FROM campaigns c
         LEFT JOIN LATERAL (SELECT p.signed_up_at, p.user_id FROM waitlist_positions p WHERE p.campaign_id = c.id
                            ORDER BY p.signed_up_at DESC, p.user_id DESC LIMIT 1) AS last ON true
         WHERE c.id = $1
         ON CONFLICT (campaign_id) DO UPDATE
             SET ranking = excluded.ranking, points_per_referral = excluded.points_per_referral,
                 verification_required = excluded.verification_required, hold_at = excluded.hold_at,
                 in_standing = excluded.in_standing, last_signed_up_at = excluded.last_signed_up_at,
                 last_user_id = excluded.last_user_id, updated_at = now()
             WHERE (known.ranking, known.points_per_referral, known.verification_required, known.hold_at,
                    known.in_standing, known.last_signed_up_at, known.last_user_id)
                   IS DISTINCT FROM (excluded.ranking, excluded.points_per_referral, excluded.verification_required,
                    excluded.hold_at, excluded.in_standing, excluded.last_signed_up_at, excluded.last_user_id)",
    )
    .bind(campaign)
    .bind(i32::from(hold_at))
    .execute(&mut *connection)
    .await?;
    let in_standing: Option<i64> =
        sqlx::query_scalar("SELECT in_standing FROM ranked_campaigns WHERE campaign_id = $1")
            .bind(campaign)
            .fetch_optional(connection)
            .await?;
    Ok(in_standing.unwrap_or(0))
}
