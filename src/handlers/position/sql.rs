//! The ranking, set by set. All of it runs under the campaign's lock, in one transaction.

use sqlx::PgConnection;
use uuid::Uuid;

use crate::handlers::credit;

/// What decides whether and how a campaign is ranked.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(super) struct Campaign {
    pub(super) status: String,
    pub(super) deleted: bool,
}

/// Reads a campaign; `None` when it is gone.
pub(super) async fn campaign(connection: &mut PgConnection, id: Uuid) -> Result<Option<Campaign>, sqlx::Error> {
    sqlx::query_as("SELECT status, deleted_at IS NOT NULL AS deleted FROM campaigns WHERE id = $1")
        .bind(id)
        .fetch_optional(connection)
        .await
}

/// Waits for the campaign's lock; [`crate::handler::Context::once`] takes the same for the event's own campaign.
pub(super) async fn lock(connection: &mut PgConnection, key: &str) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))")
        .bind(key)
        .execute(connection)
        .await?;
    Ok(())
}

/// Ranks a campaign from the facts and writes the rows that differ; answers how many places changed.
///
/// This is the full ranking: one set-based statement whose reading grows with the campaign and whose writing grows with
/// the change. `hold_at` is the suspicion in percent from which a referral does not count.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn rank(connection: &mut PgConnection, campaign: Uuid, hold_at: u8) -> Result<u64, sqlx::Error> {
    drop_strangers(connection, campaign).await?;
    give_entry_numbers(connection, campaign).await?;
    let changed = write_places(connection, campaign, hold_at).await?;
    tell(connection, campaign).await?;
    pass_milestones(connection, campaign).await?;
    Ok(changed)
}

/// Rows of users who are erased or belong to another campaign now.
async fn drop_strangers(connection: &mut PgConnection, campaign: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query(
        "DELETE FROM waitlist_positions p
         WHERE p.campaign_id = $1
           AND NOT EXISTS (SELECT FROM waitlist_users u WHERE u.id = p.user_id AND u.campaign_id = $1)",
    )
    .bind(campaign)
    .execute(connection)
    .await?;
    Ok(())
}

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

/// Places, scores and counts; and a row of `position_changes` for whoever came across the threshold of a reward that is
/// given at the crossing.
async fn write_places(connection: &mut PgConnection, campaign: Uuid, hold_at: u8) -> Result<u64, sqlx::Error> {
    let changed: i64 = sqlx::query_scalar(credit::statement(
        "WITH credit AS (
             SELECT referrer_id, count(*)::integer AS verified
             FROM {credited} AS credited WHERE campaign_id = $2 GROUP BY referrer_id
         ), facts AS (
             SELECT p.user_id, p.position AS old_position, u.created_at, {holds_a_place} AS ranked,
                    coalesce(credit.verified, 0) AS verified, c.ranking,
                    coalesce(u.original_position, p.entry_no)::bigint
                        - coalesce(credit.verified, 0)::bigint * c.points_per_referral AS score
             FROM waitlist_positions p
             JOIN waitlist_users u ON u.id = p.user_id
             JOIN campaigns c ON c.id = p.campaign_id
             LEFT JOIN credit ON credit.referrer_id = p.user_id
             WHERE p.campaign_id = $2
         ), places AS (
             SELECT facts.*, CASE WHEN ranked THEN row_number() OVER (
                 PARTITION BY ranked
                 ORDER BY CASE WHEN ranking = 'score' THEN score END,
                          CASE WHEN ranking <> 'signup' THEN -verified END,
                          created_at, user_id)::integer END AS place
             FROM facts
         ), changed AS (
             UPDATE waitlist_positions p
             SET position = places.place, score = places.score, verified_referrals = places.verified,
                 signed_up_at = places.created_at, told_position = coalesce(p.told_position, places.place),
                 updated_at = now()
             FROM places
             WHERE p.campaign_id = $2 AND p.user_id = places.user_id
               AND (p.position, p.score, p.verified_referrals, p.signed_up_at)
                   IS DISTINCT FROM (places.place, places.score, places.verified, places.created_at)
             RETURNING p.user_id, places.old_position, p.position AS new_position
         ), crossed AS (
             INSERT INTO position_changes (campaign_id, user_id, old_position, new_position, cause)
             SELECT $2, user_id, old_position, new_position, 'threshold'
             FROM changed
             WHERE EXISTS (SELECT FROM rewards w
                           WHERE w.campaign_id = $2 AND w.trigger_type = 'position' AND w.evaluate = 'crossing'
                             AND w.status = 'active' AND new_position <= w.trigger_threshold
                             AND (old_position IS NULL OR old_position > w.trigger_threshold))
             ORDER BY new_position
         )
         SELECT count(*) FROM changed WHERE new_position IS DISTINCT FROM old_position",
    ))
    .bind(i32::from(hold_at))
    .bind(campaign)
    .fetch_one(connection)
    .await?;
    Ok(changed.unsigned_abs())
}

/// Tells users in good standing of a place that is better, by enough and after long enough, than the one they know. The
/// first place counts as known, but not as a notice: the first improvement waits for no interval. Also finds what the
/// interval held back before.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn tell(connection: &mut PgConnection, campaign: Uuid) -> Result<u64, sqlx::Error> {
    let told = sqlx::query(credit::statement(
        "WITH told AS (
             UPDATE waitlist_positions p
             SET told_position = p.position, told_at = now(), updated_at = now()
             FROM waitlist_positions known
             JOIN waitlist_users u ON u.id = known.user_id
             JOIN campaigns c ON c.id = known.campaign_id
             WHERE known.campaign_id = $1 AND known.position < known.told_position
               AND known.told_position - known.position >= c.notify_improvement_min
               AND (known.told_at IS NULL OR known.told_at + c.notify_interval <= now())
               AND c.status = 'active' AND {in_standing}
               AND p.campaign_id = known.campaign_id AND p.user_id = known.user_id
             RETURNING p.user_id, known.told_position AS old_position, p.position AS new_position
         )
         INSERT INTO position_changes (campaign_id, user_id, old_position, new_position, cause)
         SELECT $1, user_id, old_position, new_position, 'improved' FROM told ORDER BY new_position",
    ))
    .bind(campaign)
    .execute(connection)
    .await?;
    Ok(told.rows_affected())
}

/// One row for each milestone that the number of users in good standing has reached.
async fn pass_milestones(connection: &mut PgConnection, campaign: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query(credit::statement(
        "INSERT INTO campaign_milestones (campaign_id, milestone)
         SELECT DISTINCT c.id, goal
         FROM campaigns c CROSS JOIN unnest(c.milestones) AS goal
         WHERE c.id = $1 AND c.status = 'active'
           AND NOT EXISTS (SELECT FROM campaign_milestones m WHERE m.campaign_id = c.id AND m.milestone = goal)
           AND goal <= (SELECT count(*) FROM waitlist_users u WHERE u.campaign_id = c.id AND {in_standing})
         ORDER BY goal
         ON CONFLICT DO NOTHING",
    ))
    .bind(campaign)
    .execute(connection)
    .await?;
    Ok(())
}
