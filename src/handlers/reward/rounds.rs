//! Rounds through a campaign that give many users what they wait for, a page at a time.
//!
//! A round is a row of `reward_rounds`. Its insertion, and each change that says how far it came, is a change like any
//! other: it comes back as the job of the next page. Each page is a transaction with its ledger row, so it is done once; a
//! round only moves forward and ends, so nothing wakes itself for ever.
//!
//! Where stock is limited or places count, users are met in the order of their places first, for whom there is enough. Places
//! move while pages are done, so that alone might miss somebody: then all are met in the order of their signups, which
//! stays.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::handlers::credit;
use crate::handlers::position;
use crate::handlers::reward::facts;
use crate::handlers::reward::grant::Granting;

/// Users that one page reconciles.
const PAGE: i64 = 500;

/// Users that one page looks at to find them.
const LOOK: i64 = 10_000;

/// How long the account of a round that ended is kept.
const KEPT: &str = "30 days";

/// How users are met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Walk {
    Position,
    Signup,
}

/// How far a round came.
#[derive(sqlx::FromRow)]
struct Round {
    campaign_id: Uuid,
    reward_id: Option<Uuid>,
    closing: bool,
    walk: String,
    after_position: i32,
    after_created_at: Option<DateTime<Utc>>,
    after_user_id: Option<Uuid>,
    pages: i32,
    /// Whether there is anything to give now.
    gives: bool,
}

/// Somebody a page found, in order. `is_due`: may get something; the last one looked at is found in any case.
#[derive(sqlx::FromRow)]
struct Met {
    user_id: Uuid,
    position: Option<i32>,
    created_at: DateTime<Utc>,
    is_due: bool,
}

/// Begins a round: for one reward, or for all of a campaign, which also looks at all who have any. `closing`: what the
/// completion brings may be given. One that waits for its first page already serves as well.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn begin(
    connection: &mut PgConnection,
    campaign: Uuid,
    reward: Option<Uuid>,
    closing: bool,
) -> Result<(), sqlx::Error> {
    // Locked, so that its first page cannot be looking already at what was before this transaction.
    let waiting: Option<(i64,)> = sqlx::query_as(
        "SELECT id FROM reward_rounds
         WHERE campaign_id = $1 AND reward_id IS NOT DISTINCT FROM $2 AND closing = $3 AND pages = 0 AND ended_at IS NULL
         ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED",
    )
    .bind(campaign)
    .bind(reward)
    .bind(closing)
    .fetch_optional(&mut *connection)
    .await?;
    if waiting.is_some() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO reward_rounds (campaign_id, reward_id, closing, walk)
         SELECT campaign_id, $2, $3,
                CASE WHEN bool_or(total_available IS NOT NULL OR trigger_type = 'position')
                     THEN 'position' ELSE 'signup' END
         FROM rewards
         WHERE campaign_id = $1 AND ($2::uuid IS NULL OR id = $2) AND trigger_type <> 'manual'
         GROUP BY campaign_id",
    )
    .bind(campaign)
    .bind(reward)
    .bind(closing)
    .execute(&mut *connection)
    .await?;
    sqlx::query("DELETE FROM reward_rounds WHERE campaign_id = $1 AND ended_at < now() - $2::text::interval")
        .bind(campaign)
        .bind(KEPT)
        .execute(connection)
        .await?;
    Ok(())
}

/// Begins the rounds of all rewards that are given for a milestone which the campaign has passed.
pub(super) async fn begin_for_milestones(connection: &mut PgConnection, campaign: Uuid) -> Result<(), sqlx::Error> {
    let reached: Vec<Uuid> = sqlx::query_scalar(
        "SELECT id FROM rewards
         WHERE campaign_id = $1 AND trigger_type = 'milestone'
           AND trigger_threshold <= (SELECT max(milestone) FROM campaign_milestones WHERE campaign_id = $1)
         ORDER BY id",
    )
    .bind(campaign)
    .fetch_all(&mut *connection)
    .await?;
    for reward in reached {
        begin(connection, campaign, Some(reward), false).await?;
    }
    Ok(())
}

/// Does the next page of a round and writes how far it came; nothing when it has ended.
pub(super) async fn page(connection: &mut PgConnection, granting: &Granting, id: i64) -> Result<(), sqlx::Error> {
    let Some(round) = read(connection, id).await? else {
        return Ok(());
    };
    if round.pages == 0 {
        // A ranking that is under way may not have seen the thresholds of now, and tells nobody who came across them.
        position::sql::lock(connection, round.campaign_id).await?;
    }
    if !round.gives {
        return write(connection, id, &round, &Progress::ended(0)).await;
    }
    let walk = if round.walk == "position" {
        Walk::Position
    } else {
        Walk::Signup
    };
    let met = meet(connection, &round, walk, granting.fraud.hold_at).await?;
    let due: Vec<Uuid> = met.iter().filter(|met| met.is_due).map(|met| met.user_id).collect();
    let written = granting.reconcile(connection, &due, round.closing).await?;
    let progress = match (met.last(), walk) {
        (Some(last), _) => Progress {
            written,
            walk,
            last: Some(last),
            ended: false,
        },
        (None, Walk::Position) => Progress {
            written,
            walk: Walk::Signup,
            last: None,
            ended: false,
        },
        (None, Walk::Signup) => Progress::ended(written),
    };
    write(connection, id, &round, &progress).await
}

struct Progress<'a> {
    written: u64,
    walk: Walk,
    last: Option<&'a Met>,
    ended: bool,
}

impl Progress<'_> {
    fn ended(written: u64) -> Self {
        Self {
            written,
            walk: Walk::Signup,
            last: None,
            ended: true,
        }
    }
}

/// The round, with its row locked; `None` when it has ended or its campaign is gone.
async fn read(connection: &mut PgConnection, id: i64) -> Result<Option<Round>, sqlx::Error> {
    sqlx::query_as(
        "SELECT r.campaign_id, r.reward_id, r.closing, r.walk, r.after_position, r.after_created_at, r.after_user_id,
                r.pages, set_config('jit', 'off', true), c.deleted_at IS NULL AND (r.reward_id IS NULL OR EXISTS (
                    SELECT FROM rewards w
                    WHERE w.id = r.reward_id AND w.status = 'active'
                      AND (c.status = 'active' OR c.status = 'completed' AND r.closing)
                      AND (w.total_available IS NULL OR w.total_available > (
                               SELECT count(*) FROM user_rewards o
                               WHERE o.reward_id = w.id AND o.status NOT IN ('revoked', 'expired'))))) AS gives
         FROM reward_rounds r JOIN campaigns c ON c.id = r.campaign_id
         WHERE r.id = $1 AND r.ended_at IS NULL
         FOR UPDATE OF r",
    )
    .bind(id)
    .fetch_optional(connection)
    .await
}

/// The next users of a round who may get something, and the last one looked at.
async fn meet(connection: &mut PgConnection, round: &Round, walk: Walk, hold_at: u8) -> Result<Vec<Met>, sqlx::Error> {
    let next = match walk {
        Walk::Position => {
            "SELECT p.user_id, p.position, u.created_at
             FROM waitlist_positions p JOIN waitlist_users u ON u.id = p.user_id AND u.campaign_id = p.campaign_id
             WHERE p.campaign_id = $2 AND p.position > $3 AND $4::timestamptz IS NULL AND $5::uuid IS NULL
             ORDER BY p.position LIMIT $6"
        }
        Walk::Signup => {
            "SELECT u.id AS user_id, NULL::integer AS position, u.created_at
             FROM waitlist_users u
             WHERE u.campaign_id = $2 AND $3::integer IS NOT NULL
               AND (u.created_at, u.id) > (coalesce($4, '-infinity'::timestamptz),
                                           coalesce($5, '00000000-0000-0000-0000-000000000000'::uuid))
             ORDER BY u.created_at, u.id LIMIT $6"
        }
    };
    let text = "WITH looked_at AS MATERIALIZED (
             SELECT next.*, row_number() OVER (ORDER BY position, created_at, user_id) AS number,
                    count(*) OVER () AS all_of_them
             FROM ({next}) AS next
         ), found AS (
             SELECT looked_at.*
             FROM looked_at
             JOIN waitlist_users u ON u.id = looked_at.user_id
             JOIN campaigns c ON c.id = $2
             WHERE EXISTS (SELECT FROM rewards w
                           WHERE w.campaign_id = $2 AND ($7::uuid IS NULL OR w.id = $7) AND {is_due})
                OR $7::uuid IS NULL AND EXISTS (SELECT FROM user_rewards o
                                                WHERE o.user_id = u.id AND o.campaign_id = $2)
             ORDER BY number LIMIT $9
         )
         SELECT user_id, position, created_at, true AS is_due, number FROM found
         UNION ALL
         SELECT user_id, position, created_at, false, number FROM looked_at
         WHERE number = all_of_them AND (SELECT count(*) FROM found) < $9
         ORDER BY number, is_due DESC";
    let text = text
        .replace("{next}", next)
        .replace("{is_due}", facts::IS_DUE)
        .replace("{closing}", "$8::boolean");
    sqlx::query_as(credit::statement(&text))
        .bind(i32::from(hold_at))
        .bind(round.campaign_id)
        .bind(round.after_position)
        .bind(round.after_created_at)
        .bind(round.after_user_id)
        .bind(LOOK)
        .bind(round.reward_id)
        .bind(round.closing)
        .bind(PAGE)
        .fetch_all(connection)
        .await
}

async fn write(
    connection: &mut PgConnection,
    id: i64,
    round: &Round,
    progress: &Progress<'_>,
) -> Result<(), sqlx::Error> {
    let by_signup = progress.last.filter(|_| progress.walk == Walk::Signup);
    sqlx::query(
        "UPDATE reward_rounds
         SET pages = pages + 1, written = written + $2, walk = $3, after_position = $4, after_created_at = $5,
             after_user_id = $6, ended_at = CASE WHEN $7 THEN now() END
         WHERE id = $1",
    )
    .bind(id)
    .bind(i64::try_from(progress.written).unwrap_or(i64::MAX))
    .bind(match progress.walk {
        Walk::Position => "position",
        Walk::Signup => "signup",
    })
    .bind(
        progress
            .last
            .and_then(|last| last.position)
            .unwrap_or(round.after_position),
    )
    .bind(by_signup.map(|last| last.created_at))
    .bind(by_signup.map(|last| last.user_id))
    .bind(progress.ended)
    .execute(connection)
    .await?;
    Ok(())
}
