//! Webhooks: signed, the same id on every try, to public addresses only.

use afterwrite::handler::{Fault, Outcome};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

use afterwrite::event::change::ChangeEvent;

use crate::servers::{Receiver, Request};
use crate::world::{World, in_world};

const SECRET: &str = "whsec_QUJDREVGR0hJSktMTU5PUA==";

/// A reward that is delivered to this URL, earned by ann; answers the event that asks for its delivery.
pub(crate) async fn earned(world: &World, url: &str) -> Arc<ChangeEvent> {
    let hook = Uuid::new_v4();
    world
        .exec(&format!(
            "INSERT INTO webhooks (id, campaign_id, url, secret) VALUES ('{hook}', '{}', '{url}', '{SECRET}')",
            world.campaign
        ))
        .await;
    let webhook = format!("'{hook}'");
    world
        .reward(1, &[("delivery_method", "'webhook'"), ("webhook_id", &webhook)])
        .await;
    let ann = world.member("ann").await;
    world.friend(ann, "friend").await;
    world.deliver_to("reward").await.unwrap();
    world.last_for("reward").await
}

fn is_signed(request: &Request) -> bool {
    let mut mac = Hmac::<Sha256>::new_from_slice(b"ABCDEFGHIJKLMNOP").unwrap();
    let (id, timestamp) = (request.header("webhook-id"), request.header("webhook-timestamp"));
    mac.update(format!("{id}.{timestamp}.{}", request.body).as_bytes());
    request.header("webhook-signature") == format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

async fn status(world: &World) -> String {
    world.text("SELECT status FROM user_rewards").await
}

#[tokio::test]
async fn a_reward_is_delivered_when_the_receiver_accepted_and_every_try_has_one_id() {
    in_world(async |world: &mut World| {
        let elsewhere = Receiver::start(&[]).await;
        let redirect = format!("307 Elsewhere\r\nlocation: {}", elsewhere.url);
        let receiver = Receiver::start(&["500 Oops", "503 Busy\r\nretry-after: 7", &redirect]).await;
        let event = earned(world, &receiver.url).await;
        let mut faults = Vec::new();
        for _ in 0..3 {
            faults.push(world.first_time("reward", &event).await.unwrap_err().fault);
            assert_eq!(status(world).await, "earned");
        }
        let after = |after| Fault::Transient { after };
        assert_eq!(faults, [after(None), after(Some(Duration::from_secs(7))), after(None)]);
        assert_eq!(world.first_time("reward", &event).await.unwrap(), Outcome::Done);
        // The ledger knows it: the other worker does not even look.
        assert_eq!(world.second_time("reward", &event).await.unwrap(), Outcome::Done);
        assert_eq!(status(world).await, "delivered");
        let requests = receiver.requests();
        assert_eq!(requests.len(), 4);
        assert_eq!(elsewhere.requests().len(), 0);
        for request in &requests {
            assert!(is_signed(request), "{request:?}");
            assert_eq!(request.header("webhook-id"), requests[0].header("webhook-id"));
            assert_eq!(request.body, requests[0].body);
        }
        assert!(
            requests[0].body.contains("\"type\":\"reward.earned\""),
            "{}",
            requests[0].body
        );
        assert_eq!(
            world
                .count("webhook_deliveries WHERE status = 'delivered' AND attempts = 4 AND last_code = 204")
                .await,
            1
        );
    })
    .await;
}

#[tokio::test]
async fn an_endpoint_that_stays_dead_is_left_to_the_schedule() {
    in_world(async |world: &mut World| {
        let event = earned(world, "http://127.0.0.1:1/").await;
        let error = world.attempt_no("reward", &event, 3).await.unwrap_err();
        assert_eq!(error.fault, Fault::Transient { after: None });
        assert!(!error.chain().contains("127.0.0.1:1/"), "{}", error.chain());
        assert_eq!(world.attempt_no("reward", &event, 4).await.unwrap(), Outcome::Done);
        assert_eq!(
            world
                .count("webhook_deliveries WHERE status = 'retrying' AND next_attempt_at > now()")
                .await,
            1
        );
        assert_eq!(status(world).await, "earned");
    })
    .await;
}

#[tokio::test]
async fn an_endpoint_that_is_gone_is_disabled() {
    in_world(async |world: &mut World| {
        let receiver = Receiver::start(&["410 Gone"]).await;
        let event = earned(world, &receiver.url).await;
        let error = world.first_time("reward", &event).await.unwrap_err();
        assert_eq!(error.fault, Fault::Permanent);
        assert_eq!(world.count("webhooks WHERE status = 'disabled'").await, 1);
        assert_eq!(
            world
                .text("SELECT status || ' ' || delivery_error FROM user_rewards")
                .await,
            "failed webhook_gone"
        );
        // The process dies before the dead letter is written: met again, the event fails again, and nobody is called.
        let again = world.second_time("reward", &event).await.unwrap_err();
        assert_eq!(again.fault, Fault::Permanent);
        assert_eq!(receiver.requests().len(), 1);
        // A person mends it and replays the letter.
        world.exec("UPDATE webhooks SET status = 'active'").await;
        assert_eq!(world.replay("reward", &event).await.unwrap(), Outcome::Done);
        assert_eq!(status(world).await, "delivered");
    })
    .await;
}

#[tokio::test]
async fn addresses_inside_the_house_are_never_called() {
    for url in [
        "http://169.254.169.254/",
        "http://[::1]:80/",
        "http://[::ffff:127.0.0.1]/",
        "http://10.0.0.1/",
        "http://localhost:1/",
    ] {
        in_world(async |world: &mut World| {
            let event = earned(world, url).await;
            let fault = world.first_time("reward", &event).await.unwrap_err().fault;
            // The name may resolve to the loopback address that these tests allow, and to ::1, which they do not.
            if url.contains("localhost") && fault != Fault::Permanent {
                return;
            }
            assert_eq!(fault, Fault::Permanent, "{url}");
            assert_eq!(status(world).await, "failed");
        })
        .await;
    }
}

#[tokio::test]
async fn a_reward_that_was_taken_back_during_the_call_stays_taken_back() {
    in_world(async |world: &mut World| {
        let receiver = Receiver::start(&[]).await;
        let event = earned(world, &receiver.url).await;
        world.die_before_commit("reward", &event).await;
        world.exec("UPDATE user_rewards SET status = 'revoked'").await;
        world.first_time("reward", &event).await.unwrap();
        assert_eq!(status(world).await, "revoked");
        assert_eq!(receiver.requests().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_call_whose_reward_is_taken_back_and_given_again_keeps_its_id() {
    in_world(async |world: &mut World| {
        let receiver = Receiver::start(&[]).await;
        let event = earned(world, &receiver.url).await;
        // The receiver has it; the transaction that would say so was lost.
        world.die_before_commit("reward", &event).await;
        for (referral, reward) in [("invalid", "revoked"), ("verified", "earned")] {
            world.exec(&format!("UPDATE referrals SET status = '{referral}'")).await;
            world.deliver_to("reward").await.unwrap();
            assert_eq!(status(world).await, reward);
        }
        world.deliver_to("reward").await.unwrap();
        assert_eq!(status(world).await, "delivered");
        let requests = receiver.requests();
        let ids: BTreeSet<String> = requests.iter().map(|request| request.header("webhook-id")).collect();
        assert_eq!(ids.len(), 1, "{ids:?}");
    })
    .await;
}
