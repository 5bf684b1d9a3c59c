//! Mails: sent once per key, skipped with a reason, refused and taken up again.

use afterwrite::handler::{Fault, Outcome};

use crate::reading::{Part, part_of};
use crate::servers::{MailServer, Smtp};
use crate::world::{World, in_world, in_world_with, settings, smtp, smtp_mailer};

async fn in_world_of(script: &[Smtp], test: impl AsyncFnOnce(&mut World, &MailServer)) {
    let server = MailServer::start(script).await;
    let mailer = smtp_mailer(smtp("127.0.0.1", server.address.port()));
    in_world_with(mailer, settings(), async |world: &mut World| test(world, &server).await).await;
}

fn message_id(mail: &str) -> String {
    mail.lines()
        .find(|line| line.starts_with("Message-ID:"))
        .unwrap()
        .to_owned()
}

#[tokio::test]
async fn a_signup_is_asked_to_verify_once_and_greeted_once() {
    in_world(async |world: &mut World| {
        let ann = world.join("ann").await;
        world.pump().await;
        let asked = world.mails_to("ann");
        assert_eq!(asked.len(), 1);
        assert!(
            asked[0].contains("token-ann") || asked[0].contains("token=3Dtoken-ann"),
            "{}",
            asked[0]
        );
        assert!(asked[0].contains("Auto-Submitted: auto-generated"));
        world.verify(ann).await;
        world.pump().await;
        assert_eq!(world.mails_to("ann").len(), 2);
        assert_eq!(world.count("email_log WHERE status = 'sent'").await, 2);
        assert_eq!(
            world
                .count("afterwrite.effects WHERE state = 'sent' AND calls = 1")
                .await,
            2
        );
    })
    .await;
}

#[tokio::test]
async fn a_new_token_is_mailed_although_its_column_is_not_captured() {
    in_world(async |world: &mut World| {
        let ann = world.join("ann").await;
        world.pump().await;
        world
            .exec(&format!(
                "UPDATE waitlist_users SET verification_token = 'second' WHERE id = '{ann}'"
            ))
            .await;
        world.pump().await;
        assert_eq!(world.mails_to("ann").len(), 2);
        // The same again: the key is known.
        world
            .exec(&format!(
                "UPDATE waitlist_users SET verification_token = 'second' WHERE id = '{ann}'"
            ))
            .await;
        world
            .exec(&format!(
                "UPDATE waitlist_users SET first_name = 'Anna' WHERE id = '{ann}'"
            ))
            .await;
        world.pump().await;
        assert_eq!(world.mails_to("ann").len(), 2);
    })
    .await;
}

#[tokio::test]
async fn a_user_without_a_place_yet_is_told_the_place_that_comes() {
    in_world(async |world: &mut World| {
        world.exec("UPDATE campaigns SET verification_required = false").await;
        for name in ["ann", "bob", "cleo"] {
            world.join(name).await;
        }
        // The e-mail handler alone: nobody is ranked.
        world.deliver_to("email").await.unwrap();
        for (name, place) in [("cleo", "3"), ("ann", "1")] {
            let mail = &world.mails_to(name)[0];
            let text = part_of(mail, Part::Text);
            assert!(
                text.contains(&format!("You are number {place} on the waitlist.")),
                "{text}"
            );
            assert!(part_of(mail, Part::Html).contains(&format!(">{place}</p>")), "{mail}");
        }
    })
    .await;
}

#[tokio::test]
async fn two_workers_at_once_send_one_mail() {
    in_world(async |world: &mut World| {
        world.join("ann").await;
        let event = world.last_for("email").await;
        let (first, second) = tokio::join!(world.first_time("email", &event), world.second_time("email", &event));
        for outcome in [first.unwrap(), second.unwrap()] {
            assert!(!matches!(outcome, Outcome::Snooze(wait) if wait.is_zero()));
        }
        world.second_time("email", &event).await.unwrap();
        assert_eq!(world.mails_to("ann").len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_mail_whose_last_transaction_failed_is_recorded_and_not_sent_again() {
    in_world(async |world: &mut World| {
        world.join("ann").await;
        let event = world.last_for("email").await;
        world.die_before_commit("email", &event).await;
        assert_eq!(world.count("email_log WHERE status = 'sending'").await, 1);
        assert_eq!(world.first_time("email", &event).await.unwrap(), Outcome::Done);
        assert_eq!(world.mails_to("ann").len(), 1);
        assert_eq!(world.count("email_log WHERE status = 'sent'").await, 1);
    })
    .await;
}

#[tokio::test]
async fn what_changed_before_the_mail_is_sent_skips_it_with_the_reason() {
    in_world(async |world: &mut World| {
        let ann = world.join("ann").await;
        let event = world.last_for("email").await;
        world.verify(ann).await;
        assert_eq!(
            world.first_time("email", &event).await.unwrap(),
            Outcome::Skipped("already_verified")
        );
        assert_eq!(world.text("SELECT reason FROM email_log").await, "already_verified");
        assert_eq!(world.mails_to("ann").len(), 0);
    })
    .await;
}

#[tokio::test]
async fn a_customers_template_is_used_and_its_mistakes_are_named() {
    in_world(async |world: &mut World| {
        world
            .exec(&format!(
                "INSERT INTO email_templates (campaign_id, type, subject, html_body)
                 VALUES ('{}', 'verification', 'Hi {{{{ first_name }}}}', '<p>Own {{{{ frist_name }}}}</p>')",
                world.campaign
            ))
            .await;
        world.join("ann").await;
        let event = world.last_for("email").await;
        let error = world.first_time("email", &event).await.unwrap_err();
        assert_eq!(error.fault, Fault::Permanent);
        assert!(error.chain().contains("frist_name"), "{}", error.chain());
        world
            .exec("UPDATE email_templates SET html_body = '<p>Own {{ first_name }}</p>'")
            .await;
        world.first_time("email", &event).await.unwrap();
        assert!(world.mails_to("ann")[0].contains("<p>Own ann</p>"));
        world.exec("UPDATE email_templates SET enabled = false").await;
        world.join("bob").await;
        assert_eq!(
            world.deliver_to("email").await.unwrap(),
            Outcome::Skipped("template_disabled")
        );
    })
    .await;
}

#[tokio::test]
async fn an_unknown_recipient_is_skipped_and_gets_no_mail_any_more() {
    let script = [Smtp::RefuseRecipient("550 5.1.1 <ann@secret.example> no such user")];
    in_world_of(&script, async |world: &mut World, server: &MailServer| {
        let ann = world.join("ann").await;
        assert_eq!(world.deliver_to("email").await.unwrap(), Outcome::Skipped("bounced"));
        assert_eq!(
            world
                .count("suppressions WHERE reason = 'bounced' AND email NOT LIKE '%@%'")
                .await,
            1
        );
        assert_eq!(
            world
                .count("email_log WHERE status = 'skipped' AND smtp_reply = 'recipient 550 5.1.1'")
                .await,
            1
        );
        world.verify(ann).await;
        assert_eq!(world.deliver_to("email").await.unwrap(), Outcome::Skipped("suppressed"));
        assert_eq!(server.mails().len(), 0);
    })
    .await;
}

#[tokio::test]
async fn a_full_mailbox_fails_this_mail_and_a_replay_sends_the_same_bytes() {
    let script = [Smtp::RefuseContent("552 5.2.2 mailbox full")];
    in_world_of(&script, async |world: &mut World, server: &MailServer| {
        world.join("ann").await;
        let event = world.last_for("email").await;
        let error = world.first_time("email", &event).await.unwrap_err();
        assert_eq!(error.fault, Fault::Permanent);
        assert!(!error.chain().contains('@'), "{}", error.chain());
        assert_eq!(world.count("email_log WHERE status = 'failed'").await, 1);
        // The process dies before the dead letter is written: met again, the event fails again, and nothing is sent.
        let again = world.first_time("email", &event).await.unwrap_err();
        assert_eq!(again.fault, Fault::Permanent);
        assert_eq!(server.mails().len(), 1);
        // Met once more behind its dead letter it is settled.
        world.bury("email", &event).await;
        assert_eq!(world.first_time("email", &event).await.unwrap(), Outcome::Done);
        assert_eq!(server.mails().len(), 1);
        assert_eq!(world.replay("email", &event).await.unwrap(), Outcome::Done);
        let mails = server.mails();
        assert_eq!(mails.len(), 2);
        assert_eq!(mails[0], mails[1]);
        assert_eq!(world.count("email_log WHERE status = 'sent'").await, 1);
    })
    .await;
}

#[tokio::test]
async fn a_lost_reply_repeats_the_mail_with_the_same_message_id() {
    in_world_of(&[Smtp::LoseReply], async |world: &mut World, server: &MailServer| {
        let ann = world.join("ann").await;
        let event = world.last_for("email").await;
        let error = world.first_time("email", &event).await.unwrap_err();
        assert_eq!(error.fault, Fault::Transient { after: None });
        // Facts that change meanwhile do not change what was claimed.
        world
            .exec(&format!(
                "UPDATE waitlist_users SET first_name = 'Other' WHERE id = '{ann}'"
            ))
            .await;
        world.first_time("email", &event).await.unwrap();
        let mails = server.mails();
        assert_eq!(mails.len(), 2);
        assert_eq!(mails[0], mails[1]);
        assert!(!message_id(&mails[0]).is_empty());
    })
    .await;
}

#[tokio::test]
async fn refusals_for_now_and_outages_are_told_apart() {
    let script = [
        Smtp::RefuseRecipient("450 4.2.0 greylisted"),
        Smtp::RefuseContent("554 5.7.1 not from you"),
        Smtp::Accept,
    ];
    in_world_of(&script, async |world: &mut World, _server: &MailServer| {
        world.join("ann").await;
        let event = world.last_for("email").await;
        let faults = [
            world.first_time("email", &event).await.unwrap_err().fault,
            world.first_time("email", &event).await.unwrap_err().fault,
        ];
        assert_eq!(
            faults,
            [Fault::Transient { after: None }, Fault::Unreachable { what: "smtp" }]
        );
        assert_eq!(world.first_time("email", &event).await.unwrap(), Outcome::Done);
    })
    .await;
    // Nobody listens on this port.
    in_world_with(
        smtp_mailer(smtp("127.0.0.1", 1)),
        settings(),
        async |world: &mut World| {
            world.join("ann").await;
            let error = world.deliver_to("email").await.unwrap_err();
            assert_eq!(error.fault, Fault::Unreachable { what: "smtp" });
        },
    )
    .await;
}

#[tokio::test]
async fn drafts_and_deleted_campaigns_mail_nobody_and_paused_ones_do() {
    in_world(async |world: &mut World| {
        for (user, change, mails) in [
            ("ann", "status = 'draft'", 0),
            ("bob", "status = 'paused'", 1),
            ("cleo", "deleted_at = now()", 0),
        ] {
            world.exec(&format!("UPDATE campaigns SET {change}")).await;
            world.join(user).await;
            world.pump().await;
            assert_eq!(world.mails_to(user).len(), mails, "{change}");
        }
    })
    .await;
}
