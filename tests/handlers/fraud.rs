//! Fraud checks: the same rows whatever is delivered again, and what follows from them.

use afterwrite::handlers::credit;
use afterwrite::handlers::fraud::rules::combine;
use uuid::Uuid;

use crate::world::{World, in_world};

async fn same_device(world: &World, users: &[Uuid]) {
    for user in users {
        world
            .exec(&format!(
                "UPDATE waitlist_users SET device_fingerprint = 'one' WHERE id = '{user}'"
            ))
            .await;
    }
}

#[tokio::test]
async fn a_self_referral_counts_for_nothing_until_a_person_says_otherwise() {
    in_world(async |world: &mut World| {
        world.reward(1, &[]).await;
        world.member("ann").await;
        let bob = world.member("bob").await;
        let (clone, _) = world.friend(bob, "clone").await;
        same_device(world, &[bob, clone]).await;
        world.pump().await;
        assert_eq!(
            world
                .count("fraud_detections WHERE type = 'self_referral' AND confidence = 0.95")
                .await,
            1
        );
        assert_eq!(world.ranking().await, "ann bob clone");
        assert_eq!(world.count("user_rewards WHERE status <> 'revoked'").await, 0);
        assert_eq!(
            world
                .mails_to("bob")
                .iter()
                .filter(|mail| mail.contains("Early access"))
                .count(),
            0
        );
        world
            .exec("UPDATE fraud_detections SET status = 'false_positive'")
            .await;
        world.pump().await;
        assert_eq!(world.ranking().await, "bob ann clone");
        assert_eq!(world.count("user_rewards WHERE status = 'delivered'").await, 1);
        // Seen again, it stays dismissed.
        world
            .exec(&format!(
                "UPDATE waitlist_users SET user_agent = 'other' WHERE id = '{clone}'"
            ))
            .await;
        world.pump().await;
        assert_eq!(world.count("fraud_detections").await, 1);
        assert_eq!(world.count("fraud_detections WHERE status = 'false_positive'").await, 1);
    })
    .await;
}

#[tokio::test]
async fn what_is_found_after_the_delivery_takes_back_place_and_reward() {
    in_world(async |world: &mut World| {
        world.reward(1, &[]).await;
        world.member("ann").await;
        let bob = world.member("bob").await;
        let (clone, _) = world.friend(bob, "clone").await;
        world.pump().await;
        let state = "SELECT status FROM user_rewards";
        assert_eq!(world.text(state).await, "delivered");
        assert_eq!(world.ranking().await, "bob ann clone");
        same_device(world, &[bob, clone]).await;
        world.pump().await;
        assert_eq!(world.text(state).await, "revoked");
        assert_eq!(world.ranking().await, "ann bob clone");
        world.exec("UPDATE fraud_detections SET status = 'confirmed'").await;
        world.pump().await;
        assert_eq!(world.text(state).await, "revoked");
        world.exec("UPDATE fraud_detections SET status = 'resolved'").await;
        world.pump().await;
        assert_eq!(world.text(state).await, "delivered");
        assert_eq!(world.ranking().await, "bob ann clone");
    })
    .await;
}

#[tokio::test]
async fn one_address_alone_locks_no_household_out() {
    in_world(async |world: &mut World| {
        world.reward(1, &[]).await;
        let ann = world.member("ann").await;
        let (friend, _) = world.friend(ann, "friend").await;
        world
            .exec(&format!(
                "UPDATE waitlist_users SET ip_address = '93.184.216.34' WHERE id IN ('{ann}', '{friend}')"
            ))
            .await;
        world.pump().await;
        assert_eq!(
            world
                .count("fraud_detections WHERE confidence = 0.60 AND status = 'pending'")
                .await,
            1
        );
        assert_eq!(world.count("user_rewards WHERE status = 'delivered'").await, 1);
    })
    .await;
}

#[tokio::test]
async fn safe_and_private_addresses_are_no_evidence() {
    in_world(async |world: &mut World| {
        let ann = world.member("ann").await;
        let (friend, _) = world.friend(ann, "friend").await;
        world
            .exec(&format!(
                "INSERT INTO ip_safelist (campaign_id, range) VALUES ('{}', '93.184.0.0/16')",
                world.campaign
            ))
            .await;
        for address in ["93.184.216.34", "192.168.0.9"] {
            world
                .exec(&format!(
                    "UPDATE waitlist_users SET ip_address = '{address}' WHERE id IN ('{ann}', '{friend}')"
                ))
                .await;
            world.pump().await;
        }
        assert_eq!(world.count("fraud_detections").await, 0);
    })
    .await;
}

#[tokio::test]
async fn the_eleventh_referral_of_an_hour_is_held_and_the_ten_before_count() {
    in_world(async |world: &mut World| {
        world.reward(10, &[]).await;
        world.reward(11, &[]).await;
        let ann = world.member("ann").await;
        for number in 0..12 {
            world.friend(ann, &format!("friend{number}")).await;
        }
        world.pump().await;
        assert_eq!(world.count("fraud_detections WHERE type = 'velocity'").await, 2);
        assert_eq!(
            world
                .text("SELECT max(verified_referrals) FROM waitlist_positions")
                .await,
            "10"
        );
        assert_eq!(world.count("user_rewards WHERE status = 'delivered'").await, 1);
    })
    .await;
}

#[tokio::test]
async fn a_disposable_address_is_found_and_drafts_are_not_looked_at() {
    in_world(async |world: &mut World| {
        let ann = world.join("ann").await;
        world
            .exec(&format!(
                "UPDATE waitlist_users SET email = 'ann@x.mailinator.com' WHERE id = '{ann}'"
            ))
            .await;
        let event = world.last_for("fraud").await;
        world.exec("UPDATE campaigns SET status = 'draft'").await;
        world.first_time("fraud", &event).await.unwrap();
        assert_eq!(world.count("fraud_detections").await, 0);
        world.exec("UPDATE campaigns SET status = 'active'").await;
        world
            .exec(&format!(
                "UPDATE waitlist_users SET email = 'ann@y.mailinator.com' WHERE id = '{ann}'"
            ))
            .await;
        let again = world.last_for("fraud").await;
        let (one, two) = tokio::join!(world.first_time("fraud", &again), world.second_time("fraud", &again));
        for outcome in [one, two] {
            outcome.unwrap();
        }
        assert_eq!(
            world
                .count("fraud_detections WHERE type = 'disposable_email' AND confidence = 0.85")
                .await,
            1
        );
    })
    .await;
}

#[tokio::test]
async fn a_crowd_behind_one_address_or_device_is_found_as_of_each_row_and_never_anew() {
    in_world(async |world: &mut World| {
        let mut users = Vec::new();
        for number in 0..5 {
            users.push(world.join(&format!("user{number}")).await);
        }
        // The same house: one address of IPv4 in two spellings. And the same device.
        world
            .exec(
                "UPDATE waitlist_users SET device_fingerprint = 'tablet',
                     ip_address = CASE first_name WHEN 'user1' THEN '::ffff:93.184.216.34' ELSE '93.184.216.34' END::inet",
            )
            .await;
        world.pump().await;
        let found = async |kind: &str| {
            world
                .text(&format!(
                    "SELECT string_agg(u.first_name || ' ' || d.confidence, ', ' ORDER BY u.first_name)
                     FROM fraud_detections d JOIN waitlist_users u ON u.id = d.user_id WHERE d.type = '{kind}'"
                ))
                .await
        };
        assert_eq!(found("duplicate_ip").await, "user3 0.60, user4 0.60");
        assert_eq!(found("duplicate_device").await, "user2 0.85, user3 0.85, user4 0.85");
        // Looked at again in another order, after a later user came and one was dismissed, nothing of it changes.
        world.exec("UPDATE fraud_detections SET status = 'false_positive'").await;
        world.join("late").await;
        world.exec("UPDATE waitlist_users SET user_agent = 'other' WHERE first_name <> 'late'").await;
        world.pump().await;
        assert_eq!(world.count("fraud_detections").await, 5);
        assert_eq!(world.count("fraud_detections WHERE status = 'pending'").await, 0);
        let evidence = world.text("SELECT string_agg(evidence || evidence_key, ' ') FROM fraud_detections").await;
        for private in ["93.184.216.34", "tablet", "user"] {
            assert!(!evidence.replace("users_more_than", "").contains(private), "{evidence}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_crowd_is_no_evidence_where_the_address_is_private_safe_or_of_another_house() {
    in_world(async |world: &mut World| {
        world
            .exec(&format!(
                "INSERT INTO ip_safelist (campaign_id, range) VALUES ('{}', '93.184.0.0/16')",
                world.campaign
            ))
            .await;
        for number in 0..5 {
            world.join(&format!("user{number}")).await;
        }
        let addresses = [
            "'93.184.216.34'",
            "'10.1.2.3'",
            // One /64 each.
            "'2a00:1450:4001:' || ascii(right(first_name, 1)) || '::1'",
        ];
        for address in addresses {
            world
                .exec(&format!("UPDATE waitlist_users SET ip_address = ({address})::inet"))
                .await;
            world.pump().await;
        }
        assert_eq!(world.count("fraud_detections").await, 0);
        // One /64 for all of them.
        world
            .exec("UPDATE waitlist_users SET ip_address = ('2a00:1450:4001:7::' || ascii(right(first_name, 1)))::inet")
            .await;
        world.pump().await;
        assert_eq!(world.count("fraud_detections WHERE type = 'duplicate_ip'").await, 2);
    })
    .await;
}

#[tokio::test]
async fn a_script_is_found_by_its_agent_and_blank_devices_are_nobodys() {
    in_world(async |world: &mut World| {
        for number in 0..4 {
            world.join(&format!("user{number}")).await;
        }
        world
            .exec("UPDATE waitlist_users SET device_fingerprint = '  ', user_agent = 'Mozilla/5.0 (CUBOT P80)'")
            .await;
        world.pump().await;
        assert_eq!(world.count("fraud_detections").await, 0);
        world
            .exec("UPDATE waitlist_users SET user_agent = 'curl/8.5.0' WHERE first_name = 'user1'")
            .await;
        world.pump().await;
        assert_eq!(
            world
                .count("fraud_detections WHERE type = 'bot' AND confidence = 0.90 AND evidence_key = 'curl'")
                .await,
            1
        );
    })
    .await;
}

#[tokio::test]
async fn every_type_of_the_checks_is_one_that_the_table_takes() {
    in_world(async |world: &mut World| {
        let ann = world.join("ann").await;
        for kind in afterwrite::handlers::fraud::review::TYPES {
            world
                .exec(&format!(
                    "INSERT INTO fraud_detections (campaign_id, user_id, type, evidence_key, confidence)
                     VALUES ('{}', '{ann}', '{kind}', 'key', 0.5)",
                    world.campaign
                ))
                .await;
        }
        // One user who is everything at once: each check writes what it finds.
        world.exec("DELETE FROM fraud_detections").await;
        for number in 0..12 {
            world.friend(ann, &format!("friend{number}")).await;
        }
        world
            .exec(
                "UPDATE waitlist_users SET ip_address = '93.184.216.34', device_fingerprint = 'one', user_agent = 'curl/8',
                     email = first_name || '@mailinator.com'",
            )
            .await;
        world.pump().await;
        let found = world
            .text("SELECT string_agg(DISTINCT type, ' ' ORDER BY type) FROM fraud_detections")
            .await;
        let mut types = afterwrite::handlers::fraud::review::TYPES;
        types.sort_unstable();
        assert_eq!(found, types.join(" "));
    })
    .await;
}

#[tokio::test]
async fn the_suspicion_in_sql_is_the_one_in_the_rules() {
    in_world(async |world: &mut World| {
        let ann = world.join("ann").await;
        let bob = world.join("bob").await;
        let referral = world.refer(ann, bob).await;
        let families = ["ip", "agent", "mail", "rate", "device"];
        for pattern in 1..=60_u32 {
            world.exec("DELETE FROM fraud_detections").await;
            let mut detections = Vec::new();
            for (index, family) in families.iter().enumerate().filter(|(index, _)| pattern >> index & 1 == 1) {
                for repeat in 0..=(pattern + u32::try_from(index).unwrap()) % 2 {
                    let percent = u8::try_from((pattern * 7 + repeat * 31 + u32::try_from(index).unwrap() * 13) % 101).unwrap();
                    detections.push((*family, percent));
                    world
                        .exec(&format!(
                            "INSERT INTO fraud_detections (campaign_id, user_id, referral_id, type, evidence_key, confidence, evidence)
                             VALUES ('{}', '{bob}', '{referral}', 'bot', '{family}{repeat}', {percent} / 100.0, '{{\"family\": \"{family}\"}}')",
                            world.campaign
                        ))
                        .await;
                }
            }
            let in_sql: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
                "SELECT (10000 * {})::bigint FROM referrals r",
                credit::SUSPICION
            )))
            .fetch_one(&world.pool)
            .await
            .unwrap();
            assert_eq!(in_sql, i64::from(combine(detections.clone())), "{detections:?}");
        }
    })
    .await;
}
