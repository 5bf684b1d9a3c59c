//! A process dies over a mail or a call, and the facts change before the next one comes: the account says what is true.

use afterwrite::handler::{Fault, Outcome};

use crate::servers::{MailServer, Receiver, Smtp};
use crate::webhook::earned;
use crate::world::{World, in_world, in_world_with, settings, smtp, smtp_mailer};

/// The leases of processes that are gone end at some time.
pub(crate) async fn end_leases(world: &World) {
    let end = "UPDATE afterwrite.effects SET lease_until = now() - interval '1 second' WHERE state = 'sending'";
    world.exec(end).await;
}

/// Resolves when this many sessions of the database wait for a lock.
pub(crate) async fn sessions_wait(world: &World, number: i64) {
    let waiting = "(SELECT DISTINCT pid FROM pg_locks JOIN pg_stat_activity USING (pid)
                    WHERE NOT granted AND datname = current_database()) AS waiting";
    let mut looks = tokio::time::interval(std::time::Duration::from_millis(20));
    while world.count(waiting).await < number {
        looks.tick().await;
    }
}

async fn in_world_of(script: &[Smtp], test: impl AsyncFnOnce(&mut World, &MailServer)) {
    let server = MailServer::start(script).await;
    let mailer = smtp_mailer(smtp("127.0.0.1", server.address.port()));
    in_world_with(mailer, settings(), async |world: &mut World| test(world, &server).await).await;
}

/// The account of mails, in the order of their writing.
async fn mails(world: &World) -> String {
    let line = "concat_ws(' ', type, status, reason)";
    world
        .text(&format!(
            "SELECT string_agg({line}, ', ' ORDER BY created_at) FROM email_log"
        ))
        .await
}

const NEW_TOKEN: &str = "UPDATE waitlist_users SET verification_token = 'another'";

const NEW_ADDRESS: &str = "UPDATE waitlist_users SET email = 'new-' || email";

const NOT_REQUIRED: &str = "UPDATE campaigns SET verification_required = false";

const VERIFIED: &str = "UPDATE waitlist_users SET email_verified = true, status = 'verified'";

#[tokio::test]
async fn a_mail_that_was_accepted_was_sent_whatever_the_facts_say_since() {
    for (change, expected, arrive) in [
        (NEW_TOKEN, "verification sent, verification sent", 2),
        (NEW_ADDRESS, "verification sent, verification sent", 2),
        (NOT_REQUIRED, "verification sent, welcome sent", 2),
        (VERIFIED, "verification sent", 1),
    ] {
        in_world_of(&[], async |world: &mut World, server: &MailServer| {
            world.join("ann").await;
            let event = world.last_for("email").await;
            world.die_before_commit("email", &event).await;
            world.exec(change).await;
            assert_eq!(world.second_time("email", &event).await.unwrap(), Outcome::Done);
            assert_eq!(mails(world).await, expected, "{change}");
            assert_eq!(server.mails().len(), arrive, "{change}");
            // The account of the first one knows what is known of it.
            let first = format!(
                "email_log WHERE recipient = '{}' AND message_id IS NOT NULL AND smtp_reply LIKE '250 %'",
                world.address("ann")
            );
            assert!(world.count(&first).await > 0, "{change}");
            assert_eq!(
                world.count("afterwrite.effects WHERE state <> 'sent'").await,
                0,
                "{change}"
            );
        })
        .await;
    }
}

#[tokio::test]
async fn what_the_process_remembers_is_not_forgotten_over_new_facts() {
    in_world_of(&[], async |world: &mut World, server: &MailServer| {
        world.join("ann").await;
        let event = world.last_for("email").await;
        world.die_before_commit("email", &event).await;
        // As if Postgres had not taken what the mail server said.
        world.exec("UPDATE afterwrite.effects SET accepted_at = NULL").await;
        world.exec(VERIFIED).await;
        assert_eq!(world.first_time("email", &event).await.unwrap(), Outcome::Done);
        assert_eq!(mails(world).await, "verification sent");
        assert_eq!(server.mails().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_mail_of_which_nobody_knows_whether_it_was_sent_is_given_up_for_the_one_of_today() {
    for (change, expected) in [
        (NEW_TOKEN, "verification skipped superseded, verification sent"),
        (NEW_ADDRESS, "verification skipped superseded, verification sent"),
        (NOT_REQUIRED, "verification skipped superseded, welcome sent"),
        (VERIFIED, "verification skipped already_verified"),
    ] {
        in_world_of(&[Smtp::LoseReply], async |world: &mut World, _: &MailServer| {
            world.join("ann").await;
            let event = world.last_for("email").await;
            let lost = world.first_time("email", &event).await.unwrap_err();
            assert_eq!(lost.fault, Fault::Transient { after: None });
            world.exec(change).await;
            // It may be on its way as long as the lease lasts: until then nothing is said about it, and nothing sent.
            let waits = world.second_time("email", &event).await.unwrap();
            assert!(matches!(waits, Outcome::Snooze(_)), "{change}: {waits:?}");
            assert_eq!(mails(world).await, "verification sending", "{change}");
            end_leases(world).await;
            world.second_time("email", &event).await.unwrap();
            assert_eq!(mails(world).await, expected, "{change}");
        })
        .await;
    }
}

#[tokio::test]
async fn a_mail_that_was_given_up_is_sent_with_its_bytes_when_it_is_asked_for_again() {
    in_world_of(&[Smtp::LoseReply], async |world: &mut World, server: &MailServer| {
        world.join("ann").await;
        let event = world.last_for("email").await;
        world.first_time("email", &event).await.unwrap_err();
        world.exec(NEW_TOKEN).await;
        end_leases(world).await;
        world.second_time("email", &event).await.unwrap();
        world
            .exec("UPDATE waitlist_users SET verification_token = 'token-ann'")
            .await;
        world.pump().await;
        assert_eq!(mails(world).await, "verification sent, verification sent");
        let came = server.mails();
        assert_eq!((came.len(), came[0] == came[2]), (3, true), "{came:#?}");
    })
    .await;
}

#[tokio::test]
async fn a_reward_that_was_mailed_is_delivered_although_it_was_taken_back_before_the_process_could_say_so() {
    in_world_of(&[], async |world: &mut World, server: &MailServer| {
        world.reward(1, &[]).await;
        let ann = world.member("ann").await;
        world.friend(ann, "friend").await;
        for _ in 0..2 {
            world.deliver_to("reward").await.unwrap();
        }
        let queued = world.last_for("email").await;
        world.die_before_commit("email", &queued).await;
        world.exec("UPDATE user_rewards SET status = 'revoked'").await;
        assert_eq!(world.second_time("email", &queued).await.unwrap(), Outcome::Done);
        assert_eq!(mails(world).await, "reward_earned sent");
        let reward = "SELECT status || ' ' || (delivered_at IS NOT NULL) FROM user_rewards";
        assert_eq!(world.text(reward).await, "revoked true");
        assert_eq!(server.mails().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_call_that_was_accepted_was_made_whatever_the_facts_say_since() {
    for (change, reward) in [
        ("UPDATE user_rewards SET status = 'revoked'", "revoked"),
        ("UPDATE campaigns SET deleted_at = now()", "delivered"),
        ("UPDATE user_rewards SET resend_no = 1", "delivered"),
    ] {
        in_world(async |world: &mut World| {
            let receiver = Receiver::start(&[]).await;
            let event = earned(world, &receiver.url).await;
            world.die_before_commit("reward", &event).await;
            world.exec(change).await;
            world.second_time("reward", &event).await.unwrap();
            let first = "SELECT status || ' ' || (delivered_at IS NOT NULL) FROM webhook_deliveries WHERE effect_key LIKE '%:0'";
            assert_eq!(world.text(first).await, "delivered true", "{change}");
            assert_eq!(world.text("SELECT status FROM user_rewards").await, reward, "{change}");
            assert_eq!(world.count("webhook_deliveries WHERE status = 'sending'").await, 0, "{change}");
            // A person who asks for another sending gets one.
            let calls = 1 + usize::from(change.contains("resend_no"));
            assert_eq!(receiver.requests().len(), calls, "{change}");
        })
        .await;
    }
}

#[tokio::test]
async fn a_call_of_which_nobody_knows_whether_it_was_accepted_is_given_up_with_its_reward() {
    for (change, expected) in [
        ("UPDATE user_rewards SET status = 'revoked'", "skipped not_earned"),
        ("UPDATE campaigns SET deleted_at = now()", "skipped campaign_not_active"),
        ("UPDATE user_rewards SET resend_no = 1", "skipped superseded"),
    ] {
        in_world(async |world: &mut World| {
            let receiver = Receiver::start(&["500 Oops"]).await;
            let event = earned(world, &receiver.url).await;
            world.first_time("reward", &event).await.unwrap_err();
            world.exec(change).await;
            let waits = world.second_time("reward", &event).await.unwrap();
            assert!(matches!(waits, Outcome::Snooze(_)), "{change}: {waits:?}");
            end_leases(world).await;
            world.second_time("reward", &event).await.unwrap();
            let first = "SELECT status || ' ' || error FROM webhook_deliveries WHERE effect_key LIKE '%:0'";
            assert_eq!(world.text(first).await, expected, "{change}");
        })
        .await;
    }
}
