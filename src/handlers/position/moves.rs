//! Ranks the users whose facts may have changed, and moves the others by what follows from that.
//!
//! Facts of the named users are read together; a place is found by halving the places there are, which the keys stored with
//! them are ordered by; everybody between an old and a new place moves in one statement. Users who signed up since the
//! last ranking are entered with them, named or not: entry numbers follow the signups, in whatever order events come.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::full;
use super::rules::{self, Changed, Due, Key, Plan, Ranking};
use super::sql::{self, Whom};
use crate::handlers::credit;

/// So many users are always ranked one by one.
const FEW: usize = 64;

/// One user of so many costs as much as ranking everybody: where it is in docs/decisions/performance.md.
const FULL_COSTS: usize = 25;

/// Everything that changes, in one statement. A row is written by one part of it: a second change of a row in a statement is
/// lost without a word.
const WRITE: &str = "WITH stretch AS (
     SELECT * FROM unnest($2::integer[], $3::integer[], $4::integer[]) AS stretch(first, last, by)
 ), row AS (
     SELECT * FROM unnest($5::uuid[], $6::integer[], $7::integer[], $8::integer[], $9::bigint[], $10::integer[],
                          $11::timestamptz[], $12::boolean[], $13::boolean[])
          AS row(user_id, entry_no, old_position, place, score, referrals, signed_up_at, in_standing, is_known)
 ), shifted AS (
     UPDATE waitlist_positions p
     SET position = p.position + stretch.by, updated_at = now()
     FROM stretch
     WHERE p.campaign_id = $1 AND p.position BETWEEN stretch.first AND stretch.last
     RETURNING p.user_id, p.position AS place, stretch.by
 ), placed AS (
     UPDATE waitlist_positions p
     SET position = row.place, score = row.score, verified_referrals = row.referrals,
         signed_up_at = row.signed_up_at, in_standing = row.in_standing,
         told_position = coalesce(p.told_position, row.place), updated_at = now()
     FROM row
     WHERE p.campaign_id = $1 AND p.user_id = row.user_id AND row.is_known
 ), entered AS (
     INSERT INTO waitlist_positions (campaign_id, user_id, entry_no, position, score, verified_referrals,
                                     signed_up_at, in_standing, told_position)
     SELECT $1, user_id, entry_no, place, score, referrals, signed_up_at, in_standing, place
     FROM row WHERE NOT is_known
 ), dropped AS (
     DELETE FROM waitlist_positions p WHERE p.campaign_id = $1 AND p.user_id = ANY($14::uuid[])
 ), crossed AS (
     INSERT INTO position_changes (campaign_id, user_id, old_position, new_position, cause)
     SELECT DISTINCT ON (place) $1, user_id, old_position, place, 'threshold'
     FROM unnest($15::integer[]) AS goal
     JOIN (SELECT user_id, place - by AS old_position, place, false AS other_facts FROM shifted WHERE by < 0
           UNION ALL
           SELECT user_id, old_position, place, true FROM row) AS moved
       ON place <= goal AND (old_position > goal OR other_facts)
     ORDER BY place
 )
 SELECT (SELECT count(*) FROM shifted)
        + (SELECT count(*) FROM row WHERE old_position IS DISTINCT FROM place) + $16::bigint";

/// What a campaign is ranked by, and how it was left.
#[derive(sqlx::FromRow)]
struct Standing {
    ranking: String,
    points_per_referral: i32,
    same_rules: bool,
    in_standing: i64,
    last_signed_up_at: Option<DateTime<Utc>>,
    last_user_id: Option<Uuid>,
    last_place: i32,
    last_entry_no: i32,
}

/// What is known of a user, and the facts of now.
#[derive(Debug, Clone, sqlx::FromRow)]
struct Facts {
    user_id: Uuid,
    entry_no: Option<i32>,
    old_position: Option<i32>,
    old_score: Option<i64>,
    old_referrals: Option<i32>,
    old_signed_up_at: Option<DateTime<Utc>>,
    was_in_standing: bool,
    original_position: Option<i32>,
    /// `None`: erased, or of another campaign now.
    created_at: Option<DateTime<Utc>>,
    ranked: bool,
    in_standing: bool,
    referrals: i32,
}

/// A row of `waitlist_positions` as it should be.
struct Row {
    facts: Facts,
    entry_no: i32,
    key: Key,
}

/// Ranks these users of a campaign, and whoever signed up since it was ranked last; answers how many places changed. Ends
/// where [`full::rank`] would, if nothing else changed. Wants the campaign's lock.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn rank_users(
    connection: &mut PgConnection,
    campaign: Uuid,
    users: &[Uuid],
    hold_at: u8,
) -> Result<u64, sqlx::Error> {
    let Some(standing) = standing(connection, campaign, hold_at).await? else {
        return Ok(0);
    };
    let places = usize::try_from(standing.last_place).unwrap_or(0);
    let single_max = FEW.max(places / FULL_COSTS);
    let ranking = Ranking::of(&standing.ranking).filter(|_| standing.same_rules && users.len() <= single_max);
    let Some(ranking) = ranking else {
        return full::rank(connection, campaign, hold_at).await;
    };
    let found = facts(connection, campaign, users, &standing, hold_at, single_max).await?;
    // All newcomers or none: a named one that is entered before others who signed up earlier would get their numbers.
    if found.iter().filter(|facts| facts.entry_no.is_none()).count() > single_max {
        return full::rank(connection, campaign, hold_at).await;
    }
    let (rows, gone) = differing(found, &standing);
    if rows.is_empty() && gone.is_empty() {
        return Ok(0);
    }
    let Some(changed) = due_places(connection, campaign, ranking, &standing, &rows, &gone).await? else {
        // The places there are have a hole: only ranking everybody mends that.
        return full::rank(connection, campaign, hold_at).await;
    };
    let plan = rules::plan(ranking, standing.last_place, &changed);
    let moved = write(connection, campaign, &rows, &gone, &plan).await?;
    tell(connection, campaign, &plan).await?;
    note(connection, campaign, &standing, &rows, &gone).await?;
    Ok(moved)
}

async fn standing(connection: &mut PgConnection, campaign: Uuid, hold_at: u8) -> Result<Option<Standing>, sqlx::Error> {
    sqlx::query_as(
        // Compiling the statements that follow would take longer than they take.
        "SELECT set_config('jit', 'off', true), c.ranking, c.points_per_referral,
                (k.ranking, k.points_per_referral, k.verification_required, k.hold_at)
                    IS NOT DISTINCT FROM (c.ranking, c.points_per_referral, c.verification_required, $2) AS same_rules,
                coalesce(k.in_standing, 0) AS in_standing, k.last_signed_up_at, k.last_user_id,
                coalesce((SELECT max(position) FROM waitlist_positions WHERE campaign_id = $1), 0) AS last_place,
                coalesce((SELECT max(entry_no) FROM waitlist_positions WHERE campaign_id = $1), 0) AS last_entry_no
         FROM campaigns c LEFT JOIN ranked_campaigns k ON k.campaign_id = c.id
         WHERE c.id = $1",
    )
    .bind(campaign)
    .bind(i32::from(hold_at))
    .fetch_optional(connection)
    .await
}

/// Facts of the named users that the campaign knows or knew, and of newcomers, of these one more than `newcomers_max` at
/// most.
async fn facts(
    connection: &mut PgConnection,
    campaign: Uuid,
    users: &[Uuid],
    standing: &Standing,
    hold_at: u8,
    newcomers_max: usize,
) -> Result<Vec<Facts>, sqlx::Error> {
    sqlx::query_as(credit::statement(
        "WITH wanted AS (
             SELECT unnest($3::uuid[]) AS id
             UNION
             (SELECT u.id FROM waitlist_users u
              WHERE u.campaign_id = $2 AND (u.created_at, u.id) > (coalesce($4, '-infinity'::timestamptz), $5::uuid)
              ORDER BY u.created_at, u.id LIMIT $6)
         )
         SELECT wanted.id AS user_id, p.entry_no, p.position AS old_position, p.score AS old_score,
                p.verified_referrals AS old_referrals, p.signed_up_at AS old_signed_up_at,
                coalesce(p.in_standing, false) AS was_in_standing, u.original_position, u.created_at,
                coalesce({holds_a_place}, false) AS ranked, coalesce({in_standing}, false) AS in_standing,
                (SELECT count(*) FROM {credited} AS credited
                 WHERE credited.referrer_id = wanted.id AND credited.campaign_id = $2)::integer AS referrals
         FROM wanted
         JOIN campaigns c ON c.id = $2
         LEFT JOIN LATERAL (SELECT * FROM waitlist_users u WHERE u.id = wanted.id AND u.campaign_id = $2 LIMIT 1) AS u
              ON true
         LEFT JOIN LATERAL (SELECT * FROM waitlist_positions p WHERE p.campaign_id = $2 AND p.user_id = wanted.id LIMIT 1)
              AS p ON true
         WHERE u.id IS NOT NULL OR p.user_id IS NOT NULL
         ORDER BY u.created_at, wanted.id",
    ))
    .bind(i32::from(hold_at))
    .bind(campaign)
    .bind(users)
    .bind(standing.last_signed_up_at)
    .bind(standing.last_user_id.unwrap_or(Uuid::nil()))
    .bind(i64::try_from(newcomers_max).unwrap_or(i64::MAX).saturating_add(1))
    .fetch_all(connection)
    .await
}

/// Rows that are not as the facts are, with entry numbers for newcomers, and those that are nobody's any more.
fn differing(found: Vec<Facts>, standing: &Standing) -> (Vec<Row>, Vec<Facts>) {
    let (mut rows, mut gone) = (Vec::new(), Vec::new());
    let mut last_entry_no = standing.last_entry_no;
    for facts in found {
        let Some(signed_up_at) = facts.created_at else {
            gone.push(facts);
            continue;
        };
        let entry_no = facts.entry_no.unwrap_or_else(|| {
            last_entry_no += 1;
            last_entry_no
        });
        let points = i64::from(facts.referrals) * i64::from(standing.points_per_referral);
        let key = Key {
            score: i64::from(facts.original_position.unwrap_or(entry_no)) - points,
            referrals: facts.referrals,
            signed_up_at,
            user: facts.user_id,
        };
        let row = Row { facts, entry_no, key };
        if row.differs() {
            rows.push(row);
        }
    }
    (rows, gone)
}

impl Row {
    fn differs(&self) -> bool {
        let facts = &self.facts;
        let known = (
            facts.old_score,
            facts.old_referrals,
            facts.old_signed_up_at,
            facts.old_position.is_some(),
            facts.was_in_standing,
        );
        let key = &self.key;
        let now = (
            Some(key.score),
            Some(key.referrals),
            Some(key.signed_up_at),
            facts.ranked,
            facts.in_standing,
        );
        known != now
    }
}

/// Where all these belong, also who may stay: a row is written either for itself or with its stretch. `None`: the places there are have a hole.
async fn due_places(
    connection: &mut PgConnection,
    campaign: Uuid,
    ranking: Ranking,
    standing: &Standing,
    rows: &[Row],
    gone: &[Facts],
) -> Result<Option<Vec<Changed>>, sqlx::Error> {
    let ranked: Vec<Key> = rows.iter().filter(|row| row.facts.ranked).map(|row| row.key).collect();
    let before = halve(connection, campaign, ranking, standing.last_place, &ranked).await?;
    let Some(before) = before else {
        return Ok(None);
    };
    let mut due = ranked.iter().zip(before).map(|(key, before)| Due { key: *key, before });
    let leaving = gone.iter().map(|facts| Changed {
        user: facts.user_id,
        old: facts.old_position,
        new: None,
    });
    let placed = rows.iter().map(|row| Changed {
        user: row.facts.user_id,
        old: row.facts.old_position,
        new: if row.facts.ranked { due.next() } else { None },
    });
    Ok(Some(placed.chain(leaving).collect()))
}

/// For each key the place of the first user behind it. All are searched for at once; a search ends after as many steps as
/// the number of places has binary digits. LIMIT 1 keeps each step a look-up: without it Postgres may read all places once a
/// step.
async fn halve(
    connection: &mut PgConnection,
    campaign: Uuid,
    ranking: Ranking,
    last_place: i32,
    keys: &[Key],
) -> Result<Option<Vec<i32>>, sqlx::Error> {
    let parts: Vec<_> = keys.iter().map(|key| key.parts(ranking)).collect();
    let text = "WITH RECURSIVE search AS (
             SELECT key.*, 0 AS below, $2::integer + 1 AS above
             FROM unnest($3::bigint[], $4::integer[], $5::timestamptz[], $6::uuid[])
                  WITH ORDINALITY AS key(score, referrals, signed_up_at, user_id, number)
             UNION ALL
             SELECT s.score, s.referrals, s.signed_up_at, s.user_id, s.number,
                    CASE WHEN half.is_before THEN half.place ELSE s.below END,
                    CASE WHEN half.is_before THEN s.above ELSE half.place END
             FROM search s
             CROSS JOIN LATERAL (
                 SELECT p.position AS place,
                        ({columns}) < (s.score, s.referrals, s.signed_up_at, s.user_id) AS is_before
                 FROM waitlist_positions p
                 WHERE p.campaign_id = $1 AND p.position = (s.below + s.above) / 2
                 LIMIT 1
             ) AS half
             WHERE s.above - s.below > 1
         )
         SELECT above FROM search WHERE above - below = 1 ORDER BY number";
    let text = text.replace("{columns}", ranking.columns());
    let found: Vec<i32> = sqlx::query_scalar(sqlx::AssertSqlSafe(text))
        .bind(campaign)
        .bind(last_place)
        .bind(parts.iter().map(|part| part.0).collect::<Vec<i64>>())
        .bind(parts.iter().map(|part| part.1).collect::<Vec<i32>>())
        .bind(parts.iter().map(|part| part.2).collect::<Vec<DateTime<Utc>>>())
        .bind(parts.iter().map(|part| part.3).collect::<Vec<Uuid>>())
        .fetch_all(connection)
        .await?;
    Ok((found.len() == keys.len()).then_some(found))
}

/// Everything that changes, in one statement; and a row of `position_changes` for whoever comes across the threshold of a
/// reward, or stands within one by other facts than before: a reward may have waited for that.
async fn write(
    connection: &mut PgConnection,
    campaign: Uuid,
    rows: &[Row],
    gone: &[Facts],
    plan: &Plan,
) -> Result<u64, sqlx::Error> {
    let thresholds = sql::thresholds(connection, campaign).await?;
    let planned: HashMap<Uuid, Option<i32>> = plan.places.iter().copied().collect();
    let place_of = |row: &Row| planned.get(&row.facts.user_id).copied().flatten();
    let moved: i64 = sqlx::query_scalar(WRITE)
        .bind(campaign)
        .bind(plan.shifts.iter().map(|shift| shift.first).collect::<Vec<i32>>())
        .bind(plan.shifts.iter().map(|shift| shift.last).collect::<Vec<i32>>())
        .bind(plan.shifts.iter().map(|shift| shift.by).collect::<Vec<i32>>())
        .bind(rows.iter().map(|row| row.facts.user_id).collect::<Vec<Uuid>>())
        .bind(rows.iter().map(|row| row.entry_no).collect::<Vec<i32>>())
        .bind(
            rows.iter()
                .map(|row| row.facts.old_position)
                .collect::<Vec<Option<i32>>>(),
        )
        .bind(rows.iter().map(place_of).collect::<Vec<Option<i32>>>())
        .bind(rows.iter().map(|row| row.key.score).collect::<Vec<i64>>())
        .bind(rows.iter().map(|row| row.key.referrals).collect::<Vec<i32>>())
        .bind(
            rows.iter()
                .map(|row| row.key.signed_up_at)
                .collect::<Vec<DateTime<Utc>>>(),
        )
        .bind(rows.iter().map(|row| row.facts.in_standing).collect::<Vec<bool>>())
        .bind(
            rows.iter()
                .map(|row| row.facts.entry_no.is_some())
                .collect::<Vec<bool>>(),
        )
        .bind(gone.iter().map(|facts| facts.user_id).collect::<Vec<Uuid>>())
        .bind(thresholds)
        .bind(i64::try_from(gone.iter().filter(|facts| facts.old_position.is_some()).count()).unwrap_or(0))
        .fetch_one(connection)
        .await?;
    Ok(moved.unsigned_abs())
}

/// Tells those whose place became better by this; whom the interval holds back is found by the schedule.
async fn tell(connection: &mut PgConnection, campaign: Uuid, plan: &Plan) -> Result<(), sqlx::Error> {
    let users: Vec<Uuid> = plan.places.iter().map(|(user, _)| *user).collect();
    let better = plan.shifts.iter().filter(|shift| shift.by < 0);
    let places: Vec<(i32, i32)> = better
        .map(|shift| (shift.first + shift.by, shift.last + shift.by))
        .collect();
    let whom = Whom::Some {
        users: &users,
        places: &places,
    };
    sql::tell_whom(connection, campaign, whom).await?;
    Ok(())
}

/// Keeps the number of users in good standing, and the last signup, with the rows they are of; and passes milestones.
async fn note(
    connection: &mut PgConnection,
    campaign: Uuid,
    standing: &Standing,
    rows: &[Row],
    gone: &[Facts],
) -> Result<(), sqlx::Error> {
    let came = rows
        .iter()
        .map(|row| i64::from(row.facts.in_standing) - i64::from(row.facts.was_in_standing));
    let left = gone.iter().map(|facts| -i64::from(facts.was_in_standing));
    let more: i64 = came.chain(left).sum();
    let newcomers = rows.iter().filter(|row| row.facts.entry_no.is_none());
    let last = newcomers.map(|row| (row.key.signed_up_at, row.facts.user_id)).max();
    let known = standing.last_signed_up_at.zip(standing.last_user_id);
    let last = last.filter(|last| known.is_none_or(|known| *last > known));
    if more == 0 && last.is_none() {
        return Ok(());
    }
    sqlx::query(
        "UPDATE ranked_campaigns
         SET in_standing = in_standing + $2, last_signed_up_at = coalesce($3, last_signed_up_at),
             last_user_id = coalesce($4, last_user_id), updated_at = now()
         WHERE campaign_id = $1",
    )
    .bind(campaign)
    .bind(more)
    .bind(last.map(|last| last.0))
    .bind(last.map(|last| last.1))
    .execute(&mut *connection)
    .await?;
    if more > 0 {
        sql::pass_milestones(connection, campaign, standing.in_standing + more).await?;
    }
    Ok(())
}
