//! What is kept of a person goes when the person goes, and what must stay stays.

use afterwrite::handlers::erasure::{self, Erased};
use serde_json::Value;
use uuid::Uuid;

use crate::review::command;
use crate::servers::Receiver;
use crate::world::{World, in_world};

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
        set("state = 'sending', lease_until = now() + interval '1 minute'").await;
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
        world
            .exec("UPDATE afterwrite.effects SET lease_until = now() - interval '1 second'")
            .await;
        world.second_time("email", &event).await.unwrap();
        world.pump().await;
        let kept = kept(world).await;
        assert!(!kept.contains("ann@"), "{kept}");
        assert_eq!(
            world.text("SELECT status || ' ' || reason FROM email_log").await,
            "skipped erased"
        );
        assert_eq!(world.text("SELECT state FROM afterwrite.effects").await, "skipped");
    })
    .await;
}
