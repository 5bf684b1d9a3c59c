//! The ranking, set by set. All of it runs under the campaign's lock, in one transaction.
//!
//! [`rank`] ranks everybody and is the reference; [`rank_users`] ends where it would, at the cost of the change. Facts are
//! read once, by one statement, and places are written from what it answered: what the application changes meanwhile is
//! an event of its own.

use sqlx::PgConnection;
use uuid::Uuid;

use crate::handlers::credit;

pub use super::full::rank;
pub use super::moves::rank_users;

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

/// The key of a campaign's lock.
pub fn lock_key(campaign: Uuid) -> String {
    format!("position:{campaign}")
}

/// Waits for the campaign's lock; [`crate::handler::Context::once`] takes the same for the event's own campaign.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn lock(connection: &mut PgConnection, campaign: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))")
        .bind(lock_key(campaign))
        .execute(connection)
        .await?;
    Ok(())
}

/// Ranks a campaign for the last time, under its lock, unless the change that completed it was answered before: by the
/// position handler, or by the reward handler, which gives nothing for places that are not the last ones. Answers how many
/// places changed; `None`: it was answered before.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn rank_for_the_last_time(
    connection: &mut PgConnection,
    campaign: Uuid,
    completed_by: [u8; 16],
    hold_at: u8,
) -> Result<Option<u64>, sqlx::Error> {
    let done: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM ranked_campaigns WHERE campaign_id = $1 AND completed_by = $2)")
            .bind(campaign)
            .bind(&completed_by[..])
            .fetch_one(&mut *connection)
            .await?;
    if done {
        return Ok(None);
    }
    let changed = rank(connection, campaign, hold_at).await?;
    sqlx::query("UPDATE ranked_campaigns SET completed_by = $2, updated_at = now() WHERE campaign_id = $1")
        .bind(campaign)
        .bind(&completed_by[..])
        .execute(connection)
        .await?;
    Ok(Some(changed))
}

/// Thresholds of rewards that are given to whoever comes across them.
pub(super) async fn thresholds(connection: &mut PgConnection, campaign: Uuid) -> Result<Vec<i32>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT DISTINCT trigger_threshold FROM rewards
         WHERE campaign_id = $1 AND trigger_type = 'position' AND evaluate = 'crossing' AND status = 'active'
         ORDER BY 1",
    )
    .bind(campaign)
    .fetch_all(connection)
    .await
}

/// Who may have to be told.
pub(super) enum Whom<'a> {
    /// Anybody of the campaign.
    All,
    /// These users, and whoever stands in these places.
    Some {
        users: &'a [Uuid],
        places: &'a [(i32, i32)],
    },
}

/// Tells users in good standing of a place that is better, by enough and after long enough, than the one they know. The
/// first place counts as known, but not as a notice: the first improvement waits for no interval. Also finds what the
/// interval held back before.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn tell(connection: &mut PgConnection, campaign: Uuid) -> Result<u64, sqlx::Error> {
    tell_whom(connection, campaign, Whom::All).await
}

pub(super) async fn tell_whom(
    connection: &mut PgConnection,
    campaign: Uuid,
    whom: Whom<'_>,
) -> Result<u64, sqlx::Error> {
    let (candidates, users, places) = match whom {
        Whom::All => (
            "(SELECT * FROM waitlist_positions WHERE campaign_id = $1 AND position < told_position
                  AND $2::uuid[] IS NOT NULL AND $3::integer[] IS NOT NULL AND $4::integer[] IS NOT NULL)",
            [].as_slice(),
            [].as_slice(),
        ),
        Whom::Some { users, places } => (
            "(SELECT * FROM waitlist_positions
              WHERE campaign_id = $1 AND user_id = ANY($2) AND position < told_position
              UNION
              SELECT p.* FROM unnest($3::integer[], $4::integer[]) AS stretch(first, last)
              JOIN waitlist_positions p ON p.campaign_id = $1 AND p.position BETWEEN stretch.first AND stretch.last
              WHERE p.position < p.told_position)",
            users,
            places,
        ),
    };
    let (first, last): (Vec<i32>, Vec<i32>) = places.iter().copied().unzip();
    let told = sqlx::query(credit::statement(
        &"WITH told AS (
             UPDATE waitlist_positions p
             SET told_position = p.position, told_at = now(), updated_at = now()
             FROM {candidates} AS known
             JOIN waitlist_users u ON u.id = known.user_id
             JOIN campaigns c ON c.id = known.campaign_id
             WHERE known.told_position - known.position >= c.notify_improvement_min
               AND (known.told_at IS NULL OR known.told_at + c.notify_interval <= now())
               AND c.status = 'active' AND {in_standing}
               AND p.campaign_id = known.campaign_id AND p.user_id = known.user_id
             RETURNING p.user_id, known.told_position AS old_position, p.position AS new_position
         )
         INSERT INTO position_changes (campaign_id, user_id, old_position, new_position, cause)
         SELECT $1, user_id, old_position, new_position, 'improved' FROM told ORDER BY new_position"
            .replace("{candidates}", candidates),
    ))
    .bind(campaign)
    .bind(users)
    .bind(first)
    .bind(last)
    .execute(connection)
    .await?;
    Ok(told.rows_affected())
}

/// One row for each milestone that this number of users in good standing has reached.
pub(super) async fn pass_milestones(
    connection: &mut PgConnection,
    campaign: Uuid,
    in_standing: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO campaign_milestones (campaign_id, milestone)
         SELECT DISTINCT c.id, goal
         FROM campaigns c CROSS JOIN unnest(c.milestones) AS goal
         WHERE c.id = $1 AND c.status = 'active' AND goal <= $2
           AND NOT EXISTS (SELECT FROM campaign_milestones m WHERE m.campaign_id = c.id AND m.milestone = goal)
         ORDER BY goal
         ON CONFLICT DO NOTHING",
    )
    .bind(campaign)
    .bind(in_standing)
    .execute(connection)
    .await?;
    Ok(())
}
