//! What is kept of a person goes when the person goes, and what must stay stays.

use std::sync::Arc;
use std::time::Duration;

use afterwrite::clients::mailer::Mailer;
use afterwrite::event::change::ChangeEvent;
use afterwrite::handlers::erasure::{self, Erased};
use serde_json::Value;
use uuid::Uuid;

use crate::deaths::{end_leases, sessions_wait};
use crate::review::command;
use crate::servers::{Gate, Receiver};
use crate::webhook::earned;
use crate::world::{World, in_world, in_world_with, mail_server, settings, smtp_mailer};

const TABLE: &str = "public.waitlist_users";

async fn erase(world: &World, user: Uuid) -> Erased {
    let mut worker = world.worker_pool().acquire().await.unwrap();
    erasure::erase(&mut worker, user, TABLE, "test").await.unwrap()
}

/// Everything that the worker's tables hold, as text.
async fn kept(world: &World) -> String {
    let mut text = String::new();
    for table in [
        "email_log",
        "webhook_deliveries",
        "waitlist_positions",
        "position_changes",
        "fraud_detections",
        "suppressions",
    ] {
        text.push_str(
            &world
                .text(&format!("SELECT string_agg(t::text, ' ') FROM {table} t"))
                .await,
        );
    }
    let bytes = "SELECT string_agg(encode(rendered, 'escape') || coalesce(reply, ''), ' ') FROM afterwrite.effects";
    text.push_str(&world.text(bytes).await);
    text.push_str(
        &world
            .text("SELECT string_agg(encode(value, 'escape'), ' ') FROM afterwrite.dead_letters")
            .await,
    );
    text
}

/// A dead letter about a user, with its bytes.
async fn letter(world: &World, user: Uuid, state: &str) {
    let id = format!("letter-{user}-{state}");
    world
        .exec(&format!(
            "INSERT INTO afterwrite.letters (letter_id, group_name, handler, table_name, event_key, class, error, attempts,
                 first_failed_at, failed_at, source_topic, source_partition, source_offset, state)
             VALUES ('{id}', 'afterwrite.email', 'email', '{TABLE}', '{{\"id\": \"{user}\"}}', 'permanent', 'failed', 1,
                 now(), now(), 't', 0, 1, '{state}');
             INSERT INTO afterwrite.dead_letters (letter_id, value, headers) VALUES ('{id}', 'ann@somewhere', '[]')"
        ))
        .await;
}

#[tokio::test]
async fn nothing_of_an_erased_person_is_kept_and_others_stay() {
    in_world(async |world: &mut World| {
        let receiver = Receiver::start(&["200 Thanks\r\ncontent-length: 13\r\n\r\nann is served"]).await;
        world
            .exec(&format!(
                "INSERT INTO webhooks (campaign_id, url, secret) VALUES ('{}', '{}', 'whsec_QUJDREVGR0hJSktMTU5PUA==')",
                world.campaign, receiver.url
            ))
            .await;
        let hook = [
            ("delivery_method", "'webhook'"),
            ("webhook_id", "(SELECT id FROM webhooks)"),
        ];
        world.reward(1, &hook).await;
        let ann = world.member("ann").await;
        let bob = world.member("bob").await;
        world.friend(ann, "friend").await;
        world.pump().await;
        letter(world, ann, "open").await;
        letter(world, ann, "replayed").await;
        letter(world, bob, "open").await;
        world
            .exec(&format!(
                "INSERT INTO suppressions (email, reason) VALUES ('a hash', 'bounced');
                 UPDATE waitlist_users SET deleted_at = now() WHERE id = '{ann}'"
            ))
            .await;
        let address = world.address("ann");
        assert!(kept(world).await.contains(&address), "there is something to erase");

        let erased = erase(world, ann).await;
        assert!(
            erased.mails > 0 && erased.calls == 1 && erased.effects > 0,
            "{erased:?}"
        );
        assert_eq!((erased.letters, erased.is_whole()), (1, true));
        let kept = kept(world).await;
        for gone in [&address, "ann is served"] {
            assert!(!kept.contains(gone), "{gone} is in {kept}");
        }
        assert!(kept.contains(&world.address("bob")), "others stay");
        assert_eq!(kept.matches("ann@somewhere").count(), 1, "the letter of bob: {kept}");
        assert_eq!(world.count("suppressions").await, 1);
        // That a mail was sent is known for good, so that it is not sent again.
        let sent = format!("email_log WHERE user_id = '{ann}' AND status = 'sent' AND message_id IS NOT NULL");
        assert!(world.count(&sent).await > 0);
        assert_eq!(
            world
                .text("SELECT state FROM afterwrite.letters WHERE letter_id LIKE '%-open' ORDER BY state LIMIT 1")
                .await,
            "discarded"
        );
        let again = erase(world, ann).await;
        assert_eq!(again, Erased::default(), "nothing is left");
    })
    .await;
}

#[tokio::test]
async fn what_is_being_sent_is_left_and_said_and_what_waits_is_never_sent() {
    in_world(async |world: &mut World| {
        let ann = world.join("ann").await;
        world.pump().await;
        let set = async |sql: &str| world.exec(&format!("UPDATE afterwrite.effects SET {sql}")).await;
        set("state = 'sending', accepted_at = NULL, lease_until = now() + interval '1 minute'").await;
        let erased = erase(world, ann).await;
        assert_eq!((erased.effects, erased.in_flight, erased.is_whole()), (0, 1, false));
        set("lease_until = now() - interval '1 second'").await;
        let erased = erase(world, ann).await;
        assert_eq!((erased.effects, erased.in_flight), (1, 0));
        let state = "SELECT state || octet_length(rendered) FROM afterwrite.effects";
        assert_eq!(world.text(state).await, "skipped0");
    })
    .await;
}

#[tokio::test]
async fn whom_the_application_deletes_the_worker_forgets() {
    in_world(async |world: &mut World| {
        let ann = world.member("ann").await;
        world.pump().await;
        letter(world, ann, "open").await;
        let address = world.address("ann");
        assert!(kept(world).await.contains(&address));
        world
            .exec(&format!("DELETE FROM waitlist_users WHERE id = '{ann}'"))
            .await;
        world.pump().await;
        let kept = kept(world).await;
        assert!(!kept.contains(&address) && !kept.contains("ann@somewhere"), "{kept}");
        let letter = "SELECT state || ' ' || state_by FROM afterwrite.letters";
        assert_eq!(
            world.text(letter).await,
            "discarded afterwrite, because the row was deleted"
        );
    })
    .await;
}

#[tokio::test]
async fn the_command_says_what_is_there_and_takes_it() {
    in_world(async |world: &mut World| {
        let ann = world.member("ann").await;
        world.pump().await;
        let user = ann.to_string();
        let report = async |words: &[&str]| -> Value {
            let output = command(
                world,
                &[&["erase", "--user", &user, "--output", "json"], words].concat(),
            )
            .await;
            assert!(output.status.success(), "{output:?}");
            serde_json::from_slice(&output.stdout).unwrap()
        };
        let dry = report(&["--dry-run"]).await;
        assert_eq!((&dry["mails"], &dry["row_exists"]), (&1.into(), &true.into()), "{dry}");
        assert_eq!(report(&[]).await["mails"], 1, "the dry run changed nothing");
        assert_eq!(report(&[]).await["mails"], 0);
    })
    .await;
}

#[tokio::test]
async fn a_mail_over_which_the_process_died_is_not_kept_of_a_person_who_is_deleted() {
    in_world(async |world: &mut World| {
        let ann = world.join("ann").await;
        let event = world.last_for("email").await;
        world.die_before_commit("email", &event).await;
        world
            .exec(&format!("DELETE FROM waitlist_users WHERE id = '{ann}'"))
            .await;
        // The lease ends before another process comes.
        end_leases(world).await;
        world.second_time("email", &event).await.unwrap();
        world.pump().await;
        let kept = kept(world).await;
        assert!(!kept.contains("ann@"), "{kept}");
        assert_eq!(
            world.text("SELECT status || ' ' || reason FROM email_log").await,
            "sent erased"
        );
        assert_eq!(world.text("SELECT state FROM afterwrite.effects").await, "sent");
    })
    .await;
}

#[tokio::test]
async fn a_call_over_which_the_process_died_is_not_kept_of_a_person_who_is_deleted() {
    in_world(async |world: &mut World| {
        let receiver = Receiver::start(&[]).await;
        let event = earned(world, &receiver.url).await;
        world.die_before_commit("reward", &event).await;
        assert!(
            receiver.requests()[0].body.contains("\"code\":\"VIP-"),
            "there is something to keep"
        );
        world.exec("DELETE FROM waitlist_users WHERE first_name = 'ann'").await;
        end_leases(world).await;
        world.second_time("reward", &event).await.unwrap();
        world.pump().await;
        let kept = kept(world).await;
        assert!(!kept.contains("VIP-"), "{kept}");
        let calls =
            "SELECT string_agg(state || octet_length(rendered), ' ') FROM afterwrite.effects WHERE handler = 'reward'";
        assert_eq!(world.text(calls).await, "sent0");
        assert_eq!(world.text("SELECT status FROM webhook_deliveries").await, "delivered");
        assert_eq!(receiver.requests().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_call_that_may_have_been_made_is_not_kept_either() {
    in_world(async |world: &mut World| {
        let receiver = Receiver::start(&["500 Oops"]).await;
        let event = earned(world, &receiver.url).await;
        world.first_time("reward", &event).await.unwrap_err();
        world.exec("DELETE FROM waitlist_users WHERE first_name = 'ann'").await;
        end_leases(world).await;
        world.pump().await;
        let calls =
            "SELECT string_agg(state || octet_length(rendered), ' ') FROM afterwrite.effects WHERE handler = 'reward'";
        assert_eq!(world.text(calls).await, "skipped0");
        let account = "SELECT status || ' ' || error FROM webhook_deliveries";
        assert_eq!(world.text(account).await, "skipped erased");
    })
    .await;
}

/// A mail is rendered, then `ann` is erased, then the mail may go on.
async fn mail_crossed_by(erasing: impl AsyncFnOnce(&World, Uuid)) {
    let gate = Gate::before(smtp_mailer(mail_server()));
    let mailer = Arc::clone(&gate) as Arc<dyn Mailer>;
    in_world_with(mailer, settings(), async |world: &mut World| {
        world.reward(1, &[]).await;
        let ann = world.member("ann").await;
        world.friend(ann, "friend").await;
        world.deliver_to("reward").await.unwrap();
        world.deliver_to("reward").await.unwrap();
        let queued = world.last_for("email").await;
        let before = world.mails_to("ann").len();
        gate.close();
        let (mailed, ()) = tokio::join!(world.first_time("email", &queued), async {
            gate.came.notified().await;
            erasing(world, ann).await;
            gate.opened.notify_one();
        });
        let mailed = mailed.unwrap();
        assert_eq!(
            world.mails_to("ann").len(),
            before,
            "mailed to who was erased: {mailed:?}"
        );
        world.first_time("email", &queued).await.unwrap();
        assert_eq!(world.mails_to("ann").len(), before, "mailed to who was erased");
        let kept = kept(world).await;
        assert!(!kept.contains(&world.address("ann")), "{kept}");
    })
    .await;
}

#[tokio::test]
async fn a_mail_from_facts_of_before_an_erasure_is_not_sent_after_it() {
    mail_crossed_by(async |world: &World, ann| {
        world
            .exec(&format!("DELETE FROM waitlist_users WHERE id = '{ann}'"))
            .await;
        world.pump().await;
    })
    .await;
    mail_crossed_by(async |world: &World, ann| assert!(erase(world, ann).await.is_whole())).await;
}

/// Somebody else's claim of this effect, which is not committed: whoever claims it waits for the end of that.
async fn in_the_way<'a>(world: &World, key: &str) -> sqlx::Transaction<'a, sqlx::Postgres> {
    let mut transaction = world.pool.begin().await.unwrap();
    sqlx::query(
        "INSERT INTO afterwrite.effects (effect_key, handler, state, rendered, owner, lease_until)
         VALUES ($1, 'nobody', 'sending', '', gen_random_uuid(), now())",
    )
    .bind(key)
    .execute(&mut *transaction)
    .await
    .unwrap();
    transaction
}

/// A claim of `key` is under way, its facts are read, and the person is erased: the erasure waits for the claim and finds it.
async fn claim_crossed(world: &World, handler: &str, event: &Arc<ChangeEvent>, key: &str, user: Uuid) {
    let obstacle = in_the_way(world, key).await;
    let erasing = async {
        sessions_wait(world, 1).await;
        erase(world, user).await
    };
    let letting = async {
        // Of the claim and the erasure that waits for it.
        sessions_wait(world, 2).await;
        obstacle.rollback().await.unwrap();
    };
    let both = async { tokio::join!(world.first_time(handler, event), erasing, letting) };
    let waited = tokio::time::timeout(Duration::from_secs(20), both).await;
    let (made, erased, ()) = waited.expect("the erasure waits for the claim");
    made.unwrap();
    let erased = [erased, erase(world, user).await];
    let in_flight = erased[0].in_flight;
    assert!(
        in_flight == 1 || erased[0].effects > 0,
        "the claim is found: {erased:?}"
    );
    let bytes = format!("afterwrite.effects WHERE effect_key = '{key}' AND rendered <> ''");
    assert_eq!(world.count(&bytes).await, 0);
}

#[tokio::test]
async fn an_erasure_waits_for_a_claim_that_has_read_its_facts() {
    in_world(async |world: &mut World| {
        world.exec("UPDATE campaigns SET verification_required = false").await;
        let ann = world.join("ann").await;
        let event = world.last_for("email").await;
        claim_crossed(world, "email", &event, &format!("welcome:{ann}"), ann).await;
        let kept = kept(world).await;
        assert!(!kept.contains(&world.address("ann")), "{kept}");
    })
    .await;
    in_world(async |world: &mut World| {
        let receiver = Receiver::start(&[]).await;
        let event = earned(world, &receiver.url).await;
        let id = world.text("SELECT id FROM user_rewards").await;
        let ann = world.text("SELECT user_id FROM user_rewards").await.parse().unwrap();
        claim_crossed(world, "reward", &event, &format!("reward_webhook:{id}:0"), ann).await;
    })
    .await;
}

#[tokio::test]
async fn no_call_is_made_from_facts_of_before_an_erasure() {
    in_world(async |world: &mut World| {
        let receiver = Receiver::start(&[]).await;
        let event = earned(world, &receiver.url).await;
        let ann = world.text("SELECT user_id FROM user_rewards").await.parse().unwrap();
        let mut erasing = world.worker_pool().begin().await.unwrap();
        erasure::erase(&mut erasing, ann, TABLE, "test").await.unwrap();
        let deleting = async {
            // The facts of the call are read; what is claimed from them waits for the erasure.
            sessions_wait(world, 1).await;
            world
                .exec(&format!("DELETE FROM waitlist_users WHERE id = '{ann}'"))
                .await;
            erasing.commit().await.unwrap();
        };
        let both = async { tokio::join!(world.first_time("reward", &event), deleting) };
        let waited = tokio::time::timeout(Duration::from_secs(20), both).await;
        waited.expect("the call waits for the erasure").0.unwrap();
        world.first_time("reward", &event).await.unwrap();
        assert_eq!(receiver.requests().len(), 0);
        assert_eq!(world.count("afterwrite.effects WHERE handler = 'reward'").await, 0);
        assert_eq!(world.count("webhook_deliveries").await, 0);
    })
    .await;
}
