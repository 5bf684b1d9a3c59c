//! The application and the people: statements at random.

use std::collections::{BTreeMap, BTreeSet};

use afterwrite::handlers::address::suppression_key;
use uuid::Uuid;

use super::Dice;
use crate::world::{World, settings};

/// Where users come from: two of them from one house, `-` is unknown.
const ADDRESSES: [&str; 4] = ["93.184.216.34", "93.184.216.35", "8.8.8.8", "-"];

const DEVICES: [&str; 6] = ["phone", "laptop", "tablet", "-", "-", "-"];

/// What was done, where the tables do not say it any more.
pub(super) struct Application {
    pub(super) other_campaign: Uuid,
    /// Whether the campaign is completed at the end.
    pub(super) completes: bool,
    /// What a person said last about a detection.
    pub(super) reviews: BTreeMap<Uuid, String>,
    /// Users who were in more than one campaign.
    pub(super) moved: BTreeSet<Uuid>,
    users: Vec<Uuid>,
    joined: u32,
}

impl Application {
    pub(super) async fn start(world: &World, dice: &mut Dice) -> Self {
        let other_campaign = Uuid::from_u128(1);
        let ranking = ["score", "referrals", "signup"][dice.roll(3)];
        let required = dice.chance(70);
        let interval = ["0", "24 hours"][dice.roll(2)];
        world
            .exec(&format!(
                "UPDATE campaigns SET milestones = '{{3,8}}', ranking = '{ranking}', verification_required = {required},
                     notify_interval = '{interval}';
                 INSERT INTO campaigns (id, account_id, name, slug, status)
                 VALUES ('{other_campaign}', gen_random_uuid(), 'Other', 'other', 'active');"
            ))
            .await;
        for (trigger, threshold, more) in [
            ("referral_count", 2, "user_limit = 2"),
            ("referral_count", 1, "total_available = 3"),
            ("position", 4, "evaluate = 'crossing'"),
            ("position", 5, "evaluate = 'completion', total_available = 4"),
            ("milestone", 3, "user_limit = 1"),
        ] {
            let method = ["'manual'", "'email'"][dice.roll(2)];
            let id = world.reward(threshold, &[("delivery_method", method)]).await;
            world
                .exec(&format!(
                    "UPDATE rewards SET trigger_type = '{trigger}', {more} WHERE id = '{id}'"
                ))
                .await;
        }
        Self {
            other_campaign,
            completes: dice.chance(35),
            reviews: BTreeMap::new(),
            moved: BTreeSet::new(),
            users: Vec::new(),
            joined: 0,
        }
    }

    /// One statement, or a few in one transaction.
    pub(super) async fn act(&mut self, world: &World, dice: &mut Dice) {
        let Some(user) = dice.pick(&self.users).copied() else {
            return self.join(world, dice).await;
        };
        let set = |change: &str| format!("UPDATE waitlist_users SET {change} WHERE id = '{user}'");
        match dice.roll(108) {
            0..30 => self.join(world, dice).await,
            30..48 => verify(world, user).await,
            48..58 => self.refer(world, dice, user).await,
            58..64 => {
                let status = ["pending", "verified", "converted", "invalid"][dice.roll(4)];
                let change = format!("UPDATE referrals SET status = '{status}' WHERE referrer_id = '{user}'");
                world.exec(&change).await;
            }
            64..68 => world.exec(&set("status = 'blocked'")).await,
            68..71 => world.exec(&set("status = 'verified', deleted_at = NULL")).await,
            71..73 => {
                world
                    .exec(&set(["status = 'removed'", "status = 'converted'"][dice.roll(2)]))
                    .await
            }
            73..75 => world.exec(&set("deleted_at = now()")).await,
            75..77 => {
                let place = 1 + dice.roll(12);
                world.exec(&set(&format!("original_position = {place}"))).await;
            }
            77..79 => self.erase(world, user).await,
            79..81 => {
                let campaign = if dice.chance(50) {
                    self.other_campaign
                } else {
                    world.campaign
                };
                self.moved.insert(user);
                world.exec(&set(&format!("campaign_id = '{campaign}'"))).await;
            }
            81..87 => self.review_one(world, dice).await,
            87..92 => hand_over(world, dice).await,
            92..94 => {
                world
                    .exec(&format!("DELETE FROM referrals WHERE referred_id = '{user}'"))
                    .await
            }
            94..97 => change_rules(world, dice).await,
            97..100 => change_rewards(world, dice).await,
            _ => self.correspond(world, dice, user).await,
        }
    }

    /// What mails depend on beside the standing: address, token, consent, and whether mail is wanted at all.
    async fn correspond(&mut self, world: &World, dice: &mut Dice, user: Uuid) {
        let set = |change: &str| format!("UPDATE waitlist_users SET {change} WHERE id = '{user}'");
        self.joined += 1;
        let change = match dice.roll(5) {
            0 => set(&format!("verification_token = 'again{}'", self.joined)),
            1 => set(&format!("email = 'x{}.' || email", self.joined)),
            2 => set("marketing_consent = NOT marketing_consent"),
            number => {
                let sql = format!("SELECT email FROM waitlist_users WHERE id = '{user}'");
                let key = suppression_key(&settings().secret, &world.text(&sql).await);
                let (reason, where_to) = match number {
                    3 => ("unsubscribed", format!("'{}'", world.campaign)),
                    _ => ("complained", "NULL".to_owned()),
                };
                format!(
                    "INSERT INTO suppressions (email, reason, campaign_id) VALUES ('{key}', '{reason}', {where_to})
                     ON CONFLICT DO NOTHING"
                )
            }
        };
        world.exec(&change).await;
    }

    /// Nothing is paused any more, or the campaign completes.
    pub(super) async fn end(&mut self, world: &World, _dice: &mut Dice) {
        let status = if self.completes { "completed" } else { "active" };
        world
            .exec(&format!(
                "UPDATE rewards SET status = 'active';
                 UPDATE campaigns SET status = '{status}' WHERE id = '{}'",
                world.campaign
            ))
            .await;
    }

    /// One user, or two at the very same time; with or without somebody who referred them.
    async fn join(&mut self, world: &World, dice: &mut Dice) {
        for _ in 0..=usize::from(dice.chance(15)) {
            self.joined += 1;
            let name = format!("user{}", self.joined);
            let mail = if dice.chance(8) {
                format!("{name}@mailinator.com")
            } else {
                world.address(&name)
            };
            let or_null = |text: &str| {
                if text == "-" {
                    "NULL".to_owned()
                } else {
                    format!("'{text}'")
                }
            };
            let address = or_null(ADDRESSES[dice.roll(ADDRESSES.len())]);
            let device = or_null(DEVICES[dice.roll(DEVICES.len())]);
            let token = or_null(if dice.chance(95) { &name } else { "-" });
            let consents = dice.chance(70);
            let id = Uuid::from_u128(0xA000_0000 + u128::from(self.joined) * 7919 % 1_000_003);
            world
                .exec(&format!(
                    "INSERT INTO waitlist_users (id, campaign_id, email, first_name, referral_code, ip_address, device_fingerprint,
                                                 verification_token, marketing_consent)
                     VALUES ('{id}', '{}', '{mail}', '{name}', '{mail}', {address}, {device}, {token}, {consents})",
                    world.campaign
                ))
                .await;
            let referrer = dice.pick(&self.users).copied();
            self.users.push(id);
            if let Some(referrer) = referrer.filter(|_| dice.chance(60)) {
                refer(world, referrer, id, "pending").await;
            }
        }
    }

    async fn refer(&self, world: &World, dice: &mut Dice, referrer: Uuid) {
        let friend = dice.pick(&self.users).copied().filter(|friend| *friend != referrer);
        if let Some(friend) = friend {
            refer(world, referrer, friend, ["pending", "verified"][dice.roll(2)]).await;
        }
    }

    async fn erase(&mut self, world: &World, user: Uuid) {
        self.users.retain(|known| *known != user);
        world
            .exec(&format!("DELETE FROM waitlist_users WHERE id = '{user}'"))
            .await;
    }

    async fn review_one(&mut self, world: &World, dice: &mut Dice) {
        let found = detections(world).await;
        if let Some(id) = dice.pick(&found).copied() {
            self.review(world, dice, id).await;
        }
    }

    pub(super) async fn review_all(&mut self, world: &World, dice: &mut Dice) {
        for id in detections(world).await {
            self.review(world, dice, id).await;
        }
    }

    async fn review(&mut self, world: &World, dice: &mut Dice, id: Uuid) {
        let status = ["confirmed", "false_positive", "resolved"][dice.roll(3)];
        world
            .exec(&format!(
                "UPDATE fraud_detections SET status = '{status}', reviewed_at = now() WHERE id = '{id}'"
            ))
            .await;
        self.reviews.insert(id, status.to_owned());
    }
}

async fn detections(world: &World) -> Vec<Uuid> {
    sqlx::query_scalar("SELECT id FROM fraud_detections ORDER BY user_id, type, evidence_key")
        .fetch_all(&world.pool)
        .await
        .unwrap()
}

/// The application verifies the user's referrals with the user, in one transaction.
async fn verify(world: &World, user: Uuid) {
    world
        .exec(&format!(
            "UPDATE waitlist_users SET email_verified = true, verified_at = now(),
                    status = CASE WHEN status = 'pending' THEN 'verified' ELSE status END WHERE id = '{user}';
             UPDATE referrals SET status = 'verified', verified_at = now() WHERE referred_id = '{user}' AND status = 'pending';"
        ))
        .await;
}

async fn refer(world: &World, referrer: Uuid, friend: Uuid, status: &str) {
    world
        .exec(&format!(
            "INSERT INTO referrals (campaign_id, referrer_id, referred_id, status)
             SELECT campaign_id, '{referrer}', '{friend}', '{status}' FROM waitlist_users WHERE id = '{referrer}'
             ON CONFLICT DO NOTHING"
        ))
        .await;
}

/// A person hands a reward over, or the user redeems it.
async fn hand_over(world: &World, dice: &mut Dice) {
    let (from, to) = [
        ("earned", "delivered"),
        ("earned", "delivered"),
        ("delivered", "redeemed"),
    ][dice.roll(3)];
    world
        .exec(&format!(
            "UPDATE user_rewards SET status = '{to}', delivered_at = coalesce(delivered_at, now())
             WHERE id = (SELECT id FROM user_rewards WHERE status = '{from}' ORDER BY reward_id, user_id LIMIT 1)"
        ))
        .await;
}

async fn change_rules(world: &World, dice: &mut Dice) {
    let change = match dice.roll(6) {
        0 => "ranking = 'score'",
        1 => "ranking = 'referrals'",
        2 => "points_per_referral = 1 + (points_per_referral + 1) % 3",
        3 => "verification_required = NOT verification_required",
        4 => "status = 'paused'",
        _ => "status = 'active'",
    };
    world
        .exec(&format!(
            "UPDATE campaigns SET {change} WHERE id = '{}'",
            world.campaign
        ))
        .await;
}

async fn change_rewards(world: &World, dice: &mut Dice) {
    let change = match dice.roll(4) {
        0 => "UPDATE rewards SET status = 'paused' WHERE trigger_threshold = 2".to_owned(),
        1 => "UPDATE rewards SET status = 'active'".to_owned(),
        2 => "UPDATE rewards SET total_available = total_available + 1 WHERE total_available IS NOT NULL".to_owned(),
        _ => format!(
            "UPDATE rewards SET trigger_threshold = {} WHERE evaluate = 'crossing'",
            3 + dice.roll(4)
        ),
    };
    world.exec(&change).await;
}
