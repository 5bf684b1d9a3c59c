//! What there should be, computed from the facts by the plainest means.

use std::collections::{BTreeMap, BTreeSet};

use afterwrite::handlers::fraud::rules::combine;
use afterwrite::handlers::position::sql::rank;
use serde_json::Value;
use uuid::Uuid;

use super::application::Application;
use crate::world::World;

#[derive(Debug, Clone, sqlx::FromRow)]
struct User {
    id: Uuid,
    campaign_id: Uuid,
    email: String,
    status: String,
    deleted: bool,
    email_verified: bool,
    original_position: Option<i32>,
    created_us: i64,
    ip: Option<String>,
    device: Option<String>,
}

#[derive(Debug, Clone, sqlx::FromRow)]
struct Referral {
    id: Uuid,
    campaign_id: Uuid,
    referrer_id: Uuid,
    referred_id: Uuid,
    status: String,
}

#[derive(Debug, Clone, sqlx::FromRow)]
struct Detection {
    id: Uuid,
    user_id: Uuid,
    referral_id: Option<Uuid>,
    kind: String,
    evidence_key: String,
    percent: i32,
    family: String,
    status: String,
}

#[derive(Debug, Clone, sqlx::FromRow)]
struct Campaign {
    id: Uuid,
    status: String,
    ranking: String,
    points: i32,
    required: bool,
}

#[derive(Debug, Clone, sqlx::FromRow)]
struct Placed {
    user_id: Uuid,
    entry_no: i32,
    position: Option<i32>,
    referrals: i32,
}

#[derive(Debug, Clone, sqlx::FromRow)]
struct Reward {
    id: Uuid,
    trigger_type: String,
    evaluate: String,
    threshold: i32,
    user_limit: i32,
    total: Option<i32>,
    passed_us: Option<i64>,
}

#[derive(Debug, Clone, sqlx::FromRow)]
struct Given {
    reward_id: Uuid,
    user_id: Uuid,
    ordinal: i32,
    status: String,
    cause: Option<String>,
    snapshot: Value,
}

struct Facts {
    users: BTreeMap<Uuid, User>,
    referrals: Vec<Referral>,
    detections: Vec<Detection>,
}

pub(super) async fn all<T: for<'r> sqlx::FromRow<'r, sqlx::postgres::PgRow> + Send + Unpin>(
    world: &World,
    sql: &str,
) -> Vec<T> {
    sqlx::query_as(sqlx::AssertSqlSafe(sql.to_owned()))
        .fetch_all(&world.pool)
        .await
        .unwrap()
}

async fn facts(world: &World) -> Facts {
    let users: Vec<User> = all(
        world,
        "SELECT id, campaign_id, email, status, deleted_at IS NOT NULL AS deleted, email_verified, original_position,
                (extract(epoch FROM created_at) * 1000000)::bigint AS created_us, host(ip_address) AS ip,
                device_fingerprint AS device FROM waitlist_users",
    )
    .await;
    Facts {
        users: users.into_iter().map(|user| (user.id, user)).collect(),
        referrals: all(
            world,
            "SELECT id, campaign_id, referrer_id, referred_id, status FROM referrals",
        )
        .await,
        detections: all(
            world,
            "SELECT id, user_id, referral_id, type AS kind, evidence_key, (confidence * 100)::integer AS percent,
                    coalesce(evidence ->> 'family', type) AS family, status FROM fraud_detections",
        )
        .await,
    }
}

impl Facts {
    fn in_standing(&self, user: &User, campaign: &Campaign) -> bool {
        user.campaign_id == campaign.id && holds_a_place(user) && (user.email_verified || !campaign.required)
    }

    fn is_held(&self, referral: &Referral) -> bool {
        let about = self.detections.iter().filter(|found| {
            let open = matches!(found.status.as_str(), "pending" | "confirmed");
            open && found.user_id == referral.referred_id && found.referral_id.is_none_or(|id| id == referral.id)
        });
        combine(about.map(|found| (found.family.as_str(), u8::try_from(found.percent).unwrap()))) >= 8_000
    }

    fn credited(&self, user: Uuid, campaign: &Campaign) -> BTreeSet<Uuid> {
        let counts = |referral: &&Referral| {
            referral.referrer_id == user
                && referral.campaign_id == campaign.id
                && matches!(referral.status.as_str(), "verified" | "converted")
                && self.in_standing(&self.users[&referral.referred_id], campaign)
                && !self.is_held(referral)
        };
        let counted = self.referrals.iter().filter(counts);
        counted.map(|referral| referral.id).collect()
    }
}

fn holds_a_place(user: &User) -> bool {
    !user.deleted && !matches!(user.status.as_str(), "removed" | "blocked")
}

/// After every step: places are 1, 2, 3 … without a tie or a hole.
pub(super) async fn places_are_dense(world: &World) {
    let wrong = world
        .text(
            "SELECT string_agg(campaign_id::text, ' ') FROM (
                 SELECT campaign_id FROM waitlist_positions WHERE position IS NOT NULL
                 GROUP BY campaign_id HAVING max(position) <> count(*) OR count(DISTINCT position) <> count(*)) AS wrong",
        )
        .await;
    assert_eq!(wrong, "-", "places with ties or holes");
    let miscounted = world
        .text(
            "SELECT string_agg(k.campaign_id || ' ' || k.in_standing || ' ' || counted.number, ', ')
             FROM ranked_campaigns k
             CROSS JOIN LATERAL (SELECT count(*) AS number FROM waitlist_positions p
                                 WHERE p.campaign_id = k.campaign_id AND p.in_standing) AS counted
             WHERE k.in_standing <> counted.number",
        )
        .await;
    assert_eq!(miscounted, "-", "users in good standing");
}

/// Everything has come to rest: compares all there is with what the facts say.
pub(super) async fn judge(world: &World, application: &Application) {
    let facts = facts(world).await;
    detections(&facts, application);
    assert_eq!(
        world.count("reward_rounds WHERE ended_at IS NULL").await,
        0,
        "a round that does not end"
    );
    let campaigns: Vec<Campaign> = all(
        world,
        "SELECT id, status, ranking, points_per_referral AS points, verification_required AS required FROM campaigns",
    )
    .await;
    for campaign in &campaigns {
        if campaign.status == "active" {
            places(world, &facts, campaign, application).await;
        }
        rewards(world, &facts, campaign).await;
    }
}

/// A referral that counts, or might, was looked at; what a person said stays said.
fn detections(facts: &Facts, application: &Application) {
    let found: BTreeSet<(Uuid, &str, &str)> = facts
        .detections
        .iter()
        .map(|found| (found.user_id, found.kind.as_str(), found.evidence_key.as_str()))
        .collect();
    for referral in &facts.referrals {
        if !matches!(referral.status.as_str(), "verified" | "converted") {
            continue;
        }
        let (friend, referrer) = (&facts.users[&referral.referred_id], &facts.users[&referral.referrer_id]);
        for (name, same) in [
            ("device", friend.device.is_some() && friend.device == referrer.device),
            ("ip", friend.ip.is_some() && friend.ip == referrer.ip),
        ] {
            let key = format!("{}:{name}", referral.id);
            let is_found = found.contains(&(friend.id, "self_referral", key.as_str()));
            assert_eq!(is_found, same, "{name} of {referral:?}");
        }
    }
    for user in facts.users.values().filter(|user| !user.deleted) {
        let is_found = found.contains(&(user.id, "disposable_email", "mailinator.com"));
        assert_eq!(is_found, user.email.ends_with("@mailinator.com"), "{user:?}");
    }
    for detection in &facts.detections {
        let said = application.reviews.get(&detection.id).map_or("pending", String::as_str);
        assert_eq!(detection.status, said, "{detection:?}");
    }
}

async fn places(world: &World, facts: &Facts, campaign: &Campaign, application: &Application) {
    let placed: Vec<Placed> = all(
        world,
        &format!(
            "SELECT user_id, entry_no, position, verified_referrals AS referrals FROM waitlist_positions
             WHERE campaign_id = '{}' ORDER BY entry_no",
            campaign.id
        ),
    )
    .await;
    let here: BTreeSet<Uuid> = facts
        .users
        .values()
        .filter(|user| user.campaign_id == campaign.id)
        .map(|user| user.id)
        .collect();
    assert_eq!(
        placed.iter().map(|row| row.user_id).collect::<BTreeSet<_>>(),
        here,
        "who has a row"
    );
    let signups: Vec<(i64, Uuid)> = placed
        .iter()
        .filter(|row| !application.moved.contains(&row.user_id))
        .map(|row| (facts.users[&row.user_id].created_us, row.user_id))
        .collect();
    assert!(
        signups.is_sorted(),
        "entry numbers do not follow the signups: {signups:?}"
    );
    let expected = in_order(&placed, facts, campaign);
    let mut ranked: Vec<(i32, Uuid)> = placed
        .iter()
        .filter_map(|row| Some((row.position?, row.user_id)))
        .collect();
    ranked.sort_unstable();
    assert_eq!(
        ranked.into_iter().map(|row| row.1).collect::<Vec<_>>(),
        expected,
        "places of {campaign:?}"
    );
    let standing = facts
        .users
        .values()
        .filter(|user| facts.in_standing(user, campaign))
        .count();
    let standing = i64::try_from(standing).unwrap();
    milestones(world, campaign, standing).await;
    let mut connection = world.pool.acquire().await.unwrap();
    assert_eq!(
        rank(&mut connection, campaign.id, 80).await.unwrap(),
        0,
        "the full ranking differs"
    );
}

/// Who holds a place, best first, by the rules of the campaign.
fn in_order(placed: &[Placed], facts: &Facts, campaign: &Campaign) -> Vec<Uuid> {
    let mut expected: Vec<_> = placed
        .iter()
        .filter(|row| holds_a_place(&facts.users[&row.user_id]))
        .map(|row| {
            let user = &facts.users[&row.user_id];
            let friends = i64::try_from(facts.credited(user.id, campaign).len()).unwrap();
            let number = i64::from(user.original_position.unwrap_or(row.entry_no));
            let (score, friends) = match campaign.ranking.as_str() {
                "score" => (number - friends * i64::from(campaign.points), friends),
                "referrals" => (0, friends),
                _ => (0, 0),
            };
            (score, -friends, user.created_us, user.id)
        })
        .collect();
    expected.sort_unstable();
    expected.into_iter().map(|key| key.3).collect()
}

async fn milestones(world: &World, campaign: &Campaign, standing: i64) {
    let of_campaign = format!("campaign_id = '{}'", campaign.id);
    let counted = world
        .text(&format!("SELECT in_standing FROM ranked_campaigns WHERE {of_campaign}"))
        .await;
    if counted != "-" || standing > 0 {
        assert_eq!(counted, standing.to_string(), "users in good standing");
    }
    let missed = format!(
        "campaigns c CROSS JOIN unnest(c.milestones) AS goal
         WHERE c.id = '{}' AND goal <= {standing}
           AND NOT EXISTS (SELECT FROM campaign_milestones m WHERE m.campaign_id = c.id AND m.milestone = goal)",
        campaign.id
    );
    assert_eq!(world.count(&missed).await, 0, "milestones");
}

/// One user as the rewards of a campaign see it.
struct Earner {
    user: User,
    in_standing: bool,
    credited: BTreeSet<Uuid>,
    place: Option<Placed>,
}

async fn rewards(world: &World, facts: &Facts, campaign: &Campaign) {
    let of_campaign = format!("campaign_id = '{}'", campaign.id);
    let offers: Vec<Reward> = all(
        world,
        &format!(
            "SELECT id, trigger_type, evaluate, trigger_threshold AS threshold, user_limit, total_available AS total,
                    (SELECT (extract(epoch FROM min(m.created_at)) * 1000000)::bigint FROM campaign_milestones m
                     WHERE m.campaign_id = w.campaign_id AND m.milestone >= w.trigger_threshold) AS passed_us
             FROM rewards w WHERE {of_campaign}"
        ),
    )
    .await;
    let given: Vec<Given> = all(
        world,
        &format!("SELECT reward_id, user_id, ordinal, status, cause, snapshot FROM user_rewards WHERE {of_campaign}"),
    )
    .await;
    let places: Vec<Placed> = all(
        world,
        &format!("SELECT user_id, entry_no, position, verified_referrals AS referrals FROM waitlist_positions WHERE {of_campaign}"),
    )
    .await;
    let places: BTreeMap<Uuid, Placed> = places.into_iter().map(|row| (row.user_id, row)).collect();
    for offer in &offers {
        let rows: Vec<&Given> = given.iter().filter(|row| row.reward_id == offer.id).collect();
        let taken = rows
            .iter()
            .filter(|row| !matches!(row.status.as_str(), "revoked" | "expired"))
            .count();
        let left = offer
            .total
            .map(|total| i64::from(total) - i64::try_from(taken).unwrap());
        assert!(left.is_none_or(|left| left >= 0), "oversold: {offer:?}");
        for user in facts.users.values() {
            let earner = Earner {
                in_standing: facts.in_standing(user, campaign),
                credited: facts.credited(user.id, campaign),
                place: places.get(&user.id).cloned().filter(|row| row.position.is_some()),
                user: user.clone(),
            };
            let mine: Vec<&&Given> = rows.iter().filter(|row| row.user_id == user.id).collect();
            for row in &mine {
                state_is_right(facts, offer, &earner, row, left);
            }
            let due = due(campaign, offer, &earner);
            let missing = (1..=due).find(|ordinal| mine.iter().all(|row| row.ordinal != *ordinal));
            // After the completion nothing new is given for what is taken back.
            let is_late = campaign.status == "completed" && rows.iter().any(|row| row.status == "revoked");
            let gone = left.is_some_and(|left| left <= 0 || is_late);
            assert!(
                missing.is_none() || gone,
                "{missing:?} of {offer:?} is missing to {user:?}"
            );
        }
    }
}

/// How many rows somebody must have, if there is stock.
fn due(campaign: &Campaign, offer: &Reward, earner: &Earner) -> i32 {
    if campaign.status != "active" && offer.evaluate != "completion" || !earner.in_standing {
        return 0;
    }
    let within = earner
        .place
        .as_ref()
        .is_some_and(|row| row.position.unwrap() <= offer.threshold);
    match offer.trigger_type.as_str() {
        "referral_count" if campaign.status == "active" => {
            (i32::try_from(earner.credited.len()).unwrap() / offer.threshold).min(offer.user_limit)
        }
        "position" => i32::from(within && (offer.evaluate == "crossing") == (campaign.status == "active")),
        "milestone" => i32::from(offer.passed_us.is_some_and(|passed| earner.user.created_us <= passed)),
        _ => 0,
    }
}

/// A row is carried by the facts, or taken back, or it is out of stock.
fn state_is_right(facts: &Facts, offer: &Reward, earner: &Earner, row: &Given, left: Option<i64>) {
    let number = |name: &str| row.snapshot[name].as_i64();
    let counted = row.snapshot["referrals"].as_array().cloned().unwrap_or_default();
    let vanished = counted.iter().filter(|id| {
        let referral = facts
            .referrals
            .iter()
            .find(|referral| Some(referral.id.to_string().as_str()) == id.as_str());
        referral.is_none_or(|referral| facts.users[&referral.referred_id].deleted)
    });
    let vanished = i64::try_from(vanished.count()).unwrap();
    let credited = i64::try_from(earner.credited.len()).unwrap();
    let threshold = i64::from(offer.threshold);
    let promised = number("trigger_threshold").unwrap_or(threshold);
    let still_there = earner.place.as_ref().is_some_and(|place| {
        i64::from(place.position.unwrap()) <= promised.max(threshold) && i64::from(place.referrals) == credited
    });
    let carried_by = |referrals: i64| match offer.trigger_type.as_str() {
        "referral_count" => referrals >= i64::from(row.ordinal) * promised.min(threshold),
        "position" => still_there || number("place_referrals").is_none_or(|counted| referrals >= counted),
        _ => true,
    };
    let due = earner.in_standing && carried_by(credited);
    let context = || {
        format!(
            "{row:?} of {offer:?}, {credited} credited, standing {}",
            earner.in_standing
        )
    };
    match row.status.as_str() {
        "held" | "earned" => assert!(due, "{}", context()),
        "delivered" => {
            assert!(earner.user.status != "blocked", "{}", context());
            assert!(!earner.in_standing || carried_by(credited + vanished), "{}", context());
        }
        "revoked" => {
            assert_eq!(row.cause.as_deref(), Some("credit_lost"), "{}", context());
            assert!(!due || left.is_some_and(|left| left <= 0), "{}", context());
        }
        _ => {}
    }
}
