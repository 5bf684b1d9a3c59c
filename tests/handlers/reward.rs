//! Rewards: granted once, held, revoked and given back by the facts.

use afterwrite::handlers::fraud::rules::FraudSettings;
use afterwrite::handlers::reward::grant::Granting;
use afterwrite::handlers::secret::Secret;
use std::time::Duration;
use uuid::Uuid;

use crate::world::{World, in_world};

pub(crate) fn granting() -> Granting {
    Granting {
        fraud: FraudSettings::default(),
        secret: Secret::new("a secret for tests"),
        delay: Duration::ZERO,
    }
}

async fn reconcile(world: &World, user: Uuid) -> u64 {
    let mut transaction = world.pool.begin().await.unwrap();
    let written = granting().reconcile(&mut transaction, &[user], false).await.unwrap();
    transaction.commit().await.unwrap();
    written
}

#[tokio::test]
async fn a_reward_is_delivered_when_its_mail_was_accepted_and_once() {
    in_world(async |world: &mut World| {
        world.reward(2, &[("user_limit", "2")]).await;
        let ann = world.member("ann").await;
        for number in 0..4 {
            world.friend(ann, &format!("friend{number}")).await;
        }
        world.pump().await;
        assert_eq!(
            world
                .count("user_rewards WHERE status = 'delivered' AND delivered_at IS NOT NULL")
                .await,
            2
        );
        assert_eq!(
            world
                .count("user_rewards WHERE snapshot ->> 'name' = 'Early access' AND code LIKE 'VIP-%'")
                .await,
            2
        );
        let mails = world.mails_to("ann");
        let rewards: Vec<_> = mails.iter().filter(|mail| mail.contains("VIP-")).collect();
        assert_eq!(rewards.len(), 2);
        assert_eq!(
            world
                .count("email_log WHERE type = 'reward_earned' AND status = 'sent'")
                .await,
            2
        );
        assert_eq!(reconcile(world, ann).await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_grant_never_overtakes_its_check() {
    in_world(async |world: &mut World| {
        world.reward(1, &[]).await;
        let ann = world.member("ann").await;
        let (clone, _) = world.friend(ann, "clone").await;
        world
            .exec(&format!(
                "UPDATE waitlist_users SET device_fingerprint = 'x' WHERE id IN ('{ann}', '{clone}')"
            ))
            .await;
        // The reward handler alone; the fraud handler is far behind.
        world.deliver_to("reward").await.unwrap();
        assert_eq!(world.count("user_rewards").await, 0);
        assert_eq!(world.count("fraud_detections WHERE type = 'self_referral'").await, 1);
    })
    .await;
}

#[tokio::test]
async fn stock_is_not_oversold_by_two_at_once() {
    in_world(async |world: &mut World| {
        world.reward(1, &[("total_available", "3")]).await;
        let mut referrers = Vec::new();
        for number in 0..8 {
            let referrer = world.member(&format!("referrer{number}")).await;
            world.friend(referrer, &format!("friend{number}")).await;
            referrers.push(referrer);
        }
        let granted = futures::future::join_all(referrers.iter().map(|user| reconcile(world, *user))).await;
        assert_eq!(granted.iter().sum::<u64>(), 3);
        assert_eq!(world.count("user_rewards").await, 3);
    })
    .await;
}

#[tokio::test]
async fn a_lost_referral_takes_back_and_its_return_restores_the_same_row_and_code() {
    in_world(async |world: &mut World| {
        world.reward(1, &[("delivery_method", "'manual'")]).await;
        let ann = world.member("ann").await;
        let (_, referral) = world.friend(ann, "friend").await;
        world.pump().await;
        let row = "SELECT id || ' ' || code FROM user_rewards";
        let given = world.text(row).await;
        assert_eq!(world.text("SELECT status FROM user_rewards").await, "earned");
        world
            .exec(&format!(
                "UPDATE referrals SET status = 'invalid' WHERE id = '{referral}'"
            ))
            .await;
        world.pump().await;
        assert_eq!(world.text("SELECT status FROM user_rewards").await, "revoked");
        world
            .exec(&format!(
                "UPDATE referrals SET status = 'verified' WHERE id = '{referral}'"
            ))
            .await;
        world.pump().await;
        assert_eq!(world.text("SELECT status FROM user_rewards").await, "earned");
        assert_eq!(world.text(row).await, given);
    })
    .await;
}

#[tokio::test]
async fn a_paused_campaign_takes_back_and_gives_nothing_until_it_goes_on() {
    in_world(async |world: &mut World| {
        world.reward(1, &[("delivery_method", "'manual'")]).await;
        let ann = world.member("ann").await;
        let (_, referral) = world.friend(ann, "friend").await;
        world.pump().await;
        let state = "SELECT status FROM user_rewards";
        for (change, then) in [
            ("UPDATE campaigns SET status = 'paused'".to_owned(), "earned"),
            (
                format!("UPDATE referrals SET status = 'invalid' WHERE id = '{referral}'"),
                "revoked",
            ),
            (
                format!("UPDATE referrals SET status = 'verified' WHERE id = '{referral}'"),
                "revoked",
            ),
            ("UPDATE campaigns SET status = 'active'".to_owned(), "earned"),
        ] {
            world.exec(&change).await;
            world.pump().await;
            assert_eq!(world.text(state).await, then, "after {change}");
        }
    })
    .await;
}

#[tokio::test]
async fn what_was_delivered_survives_deletion_but_not_proof() {
    in_world(async |world: &mut World| {
        world.reward(2, &[]).await;
        let ann = world.member("ann").await;
        let (gone, _) = world.friend(ann, "gone").await;
        let (_, doubted) = world.friend(ann, "doubted").await;
        world.pump().await;
        let status = "SELECT status FROM user_rewards";
        assert_eq!(world.text(status).await, "delivered");
        world
            .exec(&format!("DELETE FROM waitlist_users WHERE id = '{gone}'"))
            .await;
        world.pump().await;
        assert_eq!(world.text(status).await, "delivered");
        world
            .exec(&format!(
                "UPDATE referrals SET status = 'invalid' WHERE id = '{doubted}'"
            ))
            .await;
        world.pump().await;
        assert_eq!(world.text(status).await, "revoked");
        // Its return needs no second mail.
        world
            .exec(&format!(
                "UPDATE referrals SET status = 'verified' WHERE id = '{doubted}'"
            ))
            .await;
        world.friend(ann, "another").await;
        world.pump().await;
        assert_eq!(world.text(status).await, "delivered");
        assert_eq!(
            world
                .mails_to("ann")
                .iter()
                .filter(|mail| mail.contains("VIP-"))
                .count(),
            1
        );
    })
    .await;
}

#[tokio::test]
async fn a_reward_taken_back_before_its_mail_is_not_mailed_and_stays_taken_back() {
    in_world(async |world: &mut World| {
        world.reward(1, &[]).await;
        let ann = world.member("ann").await;
        let (_, referral) = world.friend(ann, "friend").await;
        world.deliver_to("reward").await.unwrap();
        world.deliver_to("reward").await.unwrap();
        assert_eq!(world.count("email_log WHERE status = 'queued'").await, 1);
        world
            .exec(&format!(
                "UPDATE referrals SET status = 'invalid' WHERE id = '{referral}'"
            ))
            .await;
        let queued = world.recorder.drain().await.unwrap();
        for event in &queued {
            if &*event.origin().table == "referrals" {
                world.first_time("reward", event).await.unwrap();
            }
        }
        for event in &queued {
            if &*event.origin().table == "email_log" {
                world.first_time("email", event).await.unwrap();
            }
        }
        assert_eq!(world.text("SELECT status FROM user_rewards").await, "revoked");
        assert_eq!(
            world
                .count("email_log WHERE status = 'skipped' AND reason = 'reward_not_earned'")
                .await,
            1
        );
        // Given again, it is announced anew.
        world
            .exec(&format!(
                "UPDATE referrals SET status = 'verified' WHERE id = '{referral}'"
            ))
            .await;
        world.pump().await;
        assert_eq!(world.text("SELECT status FROM user_rewards").await, "delivered");
        assert_eq!(
            world
                .mails_to("ann")
                .iter()
                .filter(|mail| mail.contains("VIP-"))
                .count(),
            1
        );
    })
    .await;
}

#[tokio::test]
async fn a_mail_that_cannot_be_sent_fails_its_reward() {
    in_world(async |world: &mut World| {
        world.reward(1, &[]).await;
        world
            .exec(&format!(
                "INSERT INTO email_templates (campaign_id, type, subject, html_body, enabled)
                 VALUES ('{}', 'reward_earned', 'x', 'x', false)",
                world.campaign
            ))
            .await;
        let ann = world.member("ann").await;
        world.friend(ann, "friend").await;
        world.pump().await;
        assert_eq!(
            world
                .text("SELECT status || ' ' || delivery_error FROM user_rewards")
                .await,
            "failed template_disabled"
        );
        // A person mends it and asks again.
        world
            .exec("UPDATE email_templates SET enabled = true; UPDATE user_rewards SET status = 'earned'")
            .await;
        world.pump().await;
        assert_eq!(world.text("SELECT status FROM user_rewards").await, "delivered");
    })
    .await;
}

#[tokio::test]
async fn a_row_made_by_hand_gets_its_code_and_snapshot_and_is_left_alone() {
    in_world(async |world: &mut World| {
        let reward = world.reward(50, &[]).await;
        let ann = world.member("ann").await;
        world.pump().await;
        world
            .exec(&format!(
                "INSERT INTO user_rewards (campaign_id, reward_id, user_id) VALUES ('{}', '{reward}', '{ann}')",
                world.campaign
            ))
            .await;
        world.pump().await;
        assert_eq!(
            world
                .count("user_rewards WHERE status = 'delivered' AND code LIKE 'VIP-%' AND snapshot IS NOT NULL")
                .await,
            1
        );
        assert_eq!(reconcile(world, ann).await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_new_reward_and_a_campaign_that_goes_on_give_to_all_who_wait() {
    in_world(async |world: &mut World| {
        for number in 0..3 {
            let referrer = world.member(&format!("referrer{number}")).await;
            world.friend(referrer, &format!("friend{number}")).await;
        }
        world.pump().await;
        world.reward(1, &[("delivery_method", "'manual'")]).await;
        world.pump().await;
        assert_eq!(world.count("user_rewards WHERE status = 'earned'").await, 3);
        world.exec("UPDATE campaigns SET status = 'paused'").await;
        world.pump().await;
        let late = world.member("late").await;
        world.friend(late, "latefriend").await;
        world.pump().await;
        assert_eq!(world.count("user_rewards").await, 3);
        world.exec("UPDATE campaigns SET status = 'active'").await;
        world.pump().await;
        assert_eq!(world.count("user_rewards WHERE status = 'earned'").await, 4);
    })
    .await;
}

#[tokio::test]
async fn completion_gives_what_was_due_and_then_nothing_new() {
    in_world(async |world: &mut World| {
        world.reward(1, &[("delivery_method", "'manual'")]).await;
        let ann = world.member("ann").await;
        world.pump().await;
        // Both at once: the referral is handled when the campaign is already complete.
        world.friend(ann, "friend").await;
        world.exec("UPDATE campaigns SET status = 'completed'").await;
        world.pump().await;
        assert_eq!(world.count("user_rewards WHERE status = 'earned'").await, 1);
        let late = world.member("late").await;
        world.friend(late, "latefriend").await;
        world.pump().await;
        assert_eq!(world.count("user_rewards").await, 1);
    })
    .await;
}

#[tokio::test]
async fn an_expired_paused_or_future_reward_gives_nothing() {
    in_world(async |world: &mut World| {
        world.reward(1, &[("status", "'paused'")]).await;
        world.reward(1, &[("expires_at", "now() - interval '1 hour'")]).await;
        world.reward(1, &[("starts_at", "now() + interval '1 hour'")]).await;
        let ann = world.member("ann").await;
        world.friend(ann, "friend").await;
        world.pump().await;
        assert_eq!(world.count("user_rewards").await, 0);
        world
            .exec("UPDATE rewards SET status = 'active', starts_at = NULL, expires_at = NULL")
            .await;
        world.pump().await;
        assert_eq!(world.count("user_rewards WHERE status = 'delivered'").await, 3);
    })
    .await;
}
