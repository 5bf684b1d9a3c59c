//! Mails about places and milestones: who gets one, what it carries, and that no job grows with the campaign.

use afterwrite::handler::Outcome;
use uuid::Uuid;

use crate::reading::{Part, part_of};
use crate::world::{World, in_world, in_world_with, mail_server, settings, smtp_mailer};

/// Somebody who is verified and agreed to news.
async fn reader(world: &World, name: &str) -> Uuid {
    let id = world.member(name).await;
    world.agree(id).await;
    id
}

/// A place that became better, as the position handler writes it.
async fn improved(world: &World, user: Uuid, old: i32, new: i32) {
    world
        .exec(&format!(
            "INSERT INTO waitlist_positions (campaign_id, user_id, entry_no, position, score, signed_up_at)
             VALUES ('{campaign}', '{user}', {new}, {new}, {new}, now())
             ON CONFLICT (campaign_id, user_id) DO UPDATE SET position = excluded.position;
             INSERT INTO position_changes (campaign_id, user_id, old_position, new_position, cause)
             VALUES ('{campaign}', '{user}', {old}, {new}, 'improved')",
            campaign = world.campaign
        ))
        .await;
}

fn header<'a>(mail: &'a str, name: &str) -> Option<&'a str> {
    let start = format!("{name}: ");
    mail.lines().find_map(|line| line.strip_prefix(&start))
}

/// What became of the last change, and the mails that ann has then.
async fn outcome(world: &World) -> (Outcome, Vec<String>) {
    let outcome = world.deliver_to("email").await.unwrap();
    (outcome, world.mails_to("ann"))
}

#[tokio::test]
async fn a_better_place_is_told_once_with_a_way_out() {
    in_world(async |world: &mut World| {
        let ann = reader(world, "ann").await;
        world.recorder.drain().await.unwrap();
        improved(world, ann, 9, 4).await;
        world.pump().await;
        let mails = world.mails_to("ann");
        assert_eq!(mails.len(), 1);
        let mail = &mails[0];
        assert_eq!(
            header(mail, "List-Unsubscribe-Post"),
            Some("List-Unsubscribe=One-Click")
        );
        let link = header(mail, "List-Unsubscribe").unwrap().trim_matches(['<', '>']);
        assert!(link.starts_with("https://lists.example/unsubscribe/"), "{link}");
        let text = part_of(mail, Part::Text);
        assert!(text.contains("you are number 4 now, and were number 9"), "{text}");
        assert!(text.contains(&format!("Unsubscribe: {link}")), "{text}");
        let html = part_of(mail, Part::Html);
        assert!(html.contains(&link.replace('/', "&#x2f;")), "{html}");
        assert_eq!(
            world
                .text("SELECT effect_key FROM email_log WHERE type = 'position_update'")
                .await,
            format!(
                "position_update:{}",
                world.text("SELECT id FROM position_changes").await
            )
        );
        let own = world.join("bob").await;
        world.pump().await;
        assert!(header(&world.mails_to("bob")[0], "List-Unsubscribe").is_none(), "{own}");
    })
    .await;
}

#[tokio::test]
async fn nobody_is_told_who_must_not_be() {
    in_world(async |world: &mut World| {
        let ann = reader(world, "ann").await;
        let cases = [
            ("UPDATE waitlist_users SET marketing_consent = false", "UPDATE waitlist_users SET marketing_consent = true", "no_marketing_consent"),
            ("UPDATE campaigns SET status = 'paused'", "UPDATE campaigns SET status = 'active'", "campaign_paused"),
            ("UPDATE waitlist_users SET status = 'blocked'", "UPDATE waitlist_users SET status = 'verified'", "not_in_standing"),
            ("UPDATE waitlist_positions SET position = 9", "SELECT 1", "not_improved"),
            ("DELETE FROM waitlist_positions", "SELECT 1", "not_improved"),
            ("INSERT INTO email_templates (type, subject, html_body, enabled) VALUES ('position_update', 's', 'h', false)",
             "DELETE FROM email_templates", "template_disabled"),
        ];
        for (change, back, reason) in cases {
            improved(world, ann, 9, 4).await;
            world.exec(change).await;
            let events = world.recorder.drain().await.unwrap();
            let event = events.iter().rfind(|event| &*event.origin().table == "position_changes").unwrap();
            assert_eq!(world.first_time("email", event).await.unwrap(), Outcome::Skipped(reason));
            let noted = format!("SELECT count(*) FROM email_log WHERE status = 'skipped' AND reason = '{reason}'");
            assert_ne!(world.text(&noted).await, "0", "{reason}");
            world.exec(back).await;
        }
        world.recorder.drain().await.unwrap();
        assert_eq!(world.mails_to("ann").len(), 0);
        world
            .exec(&format!(
                "INSERT INTO position_changes (campaign_id, user_id, old_position, new_position, cause)
                 VALUES ('{}', '{ann}', 9, 4, 'threshold')",
                world.campaign
            ))
            .await;
        assert_eq!(outcome(world).await.0, Outcome::Skipped("nothing_wanted"));
    })
    .await;
}

#[tokio::test]
async fn without_an_address_to_unsubscribe_at_no_marketing_is_sent() {
    let mut settings = settings();
    settings.email.links.public_url = None;
    in_world_with(smtp_mailer(mail_server()), settings, async |world: &mut World| {
        let ann = reader(world, "ann").await;
        world.recorder.drain().await.unwrap();
        improved(world, ann, 9, 4).await;
        assert_eq!(outcome(world).await, (Outcome::Skipped("no_public_url"), Vec::new()));
        pass(world, &[3]).await;
        assert_eq!(outcome(world).await, (Outcome::Skipped("no_public_url"), Vec::new()));
        assert_eq!(world.count("email_log WHERE status = 'queued'").await, 0);
        // Others need none.
        world.join("bob").await;
        world.pump().await;
        assert_eq!(world.mails_to("bob").len(), 1);
    })
    .await;
}

#[tokio::test]
async fn suppressions_bar_what_they_are_about() {
    in_world(async |world: &mut World| {
        let ann = reader(world, "ann").await;
        let elsewhere = Uuid::new_v4();
        world
            .exec(&format!(
                "INSERT INTO campaigns (id, account_id, name, slug) VALUES ('{elsewhere}', gen_random_uuid(), 'Other', 'other')"
            ))
            .await;
        let key = afterwrite::handlers::address::suppression_key(&settings().secret, &world.address("ann"));
        let here = format!("'{}'", world.campaign);
        let there = format!("'{elsewhere}'");
        for (reason, campaign, marketing, welcome) in [
            ("unsubscribed", here.as_str(), Some("unsubscribed"), None),
            ("unsubscribed", "NULL", Some("unsubscribed"), None),
            ("unsubscribed", there.as_str(), None, None),
            ("bounced", "NULL", Some("suppressed"), Some("suppressed")),
            ("complained", here.as_str(), Some("suppressed"), Some("suppressed")),
        ] {
            world
                .exec(&format!(
                    "DELETE FROM suppressions; DELETE FROM email_log; DELETE FROM afterwrite.effects;
                     INSERT INTO suppressions (email, reason, campaign_id) VALUES ('{key}', '{reason}', {campaign})"
                ))
                .await;
            world.recorder.drain().await.unwrap();
            improved(world, ann, 9, 4).await;
            let (told, _) = outcome(world).await;
            assert_eq!(told, marketing.map_or(Outcome::Done, Outcome::Skipped), "{reason} {campaign}");
            world
                .exec("UPDATE waitlist_users SET email_verified = false; UPDATE waitlist_users SET email_verified = true")
                .await;
            let (greeted, _) = outcome(world).await;
            assert_eq!(greeted, welcome.map_or(Outcome::Done, Outcome::Skipped), "{reason} {campaign}");
        }
    })
    .await;
}

/// Milestones that one ranking passed.
async fn pass(world: &World, milestones: &[i32]) {
    world
        .exec(&format!(
            "INSERT INTO campaign_milestones (campaign_id, milestone) SELECT '{}', unnest(ARRAY{milestones:?})",
            world.campaign
        ))
        .await;
}

#[tokio::test]
async fn only_the_highest_of_several_milestones_is_mailed_to_who_was_there_and_agreed() {
    in_world(async |world: &mut World| {
        let ann = reader(world, "ann").await;
        world.member("bob").await;
        let cleo = world.join("cleo").await;
        world.agree(cleo).await;
        world.recorder.drain().await.unwrap();
        pass(world, &[1, 2, 3]).await;
        // Whoever joins now was not there.
        world
            .exec(&format!(
                "INSERT INTO waitlist_users (campaign_id, email, referral_code, email_verified, marketing_consent, created_at)
                 VALUES ('{}', '{}', 'late', true, true, now() + interval '1 minute')",
                world.campaign,
                world.address("late")
            ))
            .await;
        world.pump().await;
        assert_eq!(
            world.text("SELECT string_agg(effect_key, ' ') FROM email_log WHERE type = 'milestone'").await,
            format!("milestone:{}:3:{ann}", world.campaign)
        );
        let mails = world.mails_to("ann");
        let milestone = mails.iter().find(|mail| mail.contains("has passed")).unwrap();
        assert_eq!(header(milestone, "Subject"), Some("Launch has passed 3 people"));
        assert!(header(milestone, "List-Unsubscribe").is_some());
        assert_eq!(
            world
                .text("SELECT string_agg(milestone || ':' || mails_queued, ' ' ORDER BY milestone) FROM campaign_milestones")
                .await,
            "1:0 2:0 3:1"
        );
    })
    .await;
}

#[tokio::test]
async fn a_large_campaign_is_mailed_in_pages_that_are_jobs_of_their_own() {
    in_world(async |world: &mut World| {
        world
            .exec(&format!(
                "INSERT INTO waitlist_users (campaign_id, email, referral_code, email_verified, marketing_consent, created_at)
                 SELECT '{}', 'u' || n || '@x.example', 'c' || n, true, n % 3 > 0, '2026-01-01'::timestamptz + n % 7 * interval '1 s'
                 FROM generate_series(1, 1203) n",
                world.campaign
            ))
            .await;
        world.recorder.drain().await.unwrap();
        pass(world, &[1000]).await;
        let mut pages = Vec::new();
        loop {
            let events = world.recorder.drain().await.unwrap();
            let Some(event) = events.iter().rfind(|event| {
                &*event.origin().table == "campaign_milestones" && !world.woken_by(event).is_empty()
            }) else {
                break;
            };
            let before = world.count("email_log").await;
            assert_eq!(world.first_time("email", event).await.unwrap(), Outcome::Done);
            // Another worker meets the same page, and a third one dies in the middle of the next.
            world.second_time("email", event).await.unwrap();
            pages.push(world.count("email_log").await - before);
            assert!(pages.len() < 10, "it does not come to an end");
        }
        assert_eq!(pages.len(), 3);
        assert!(pages.iter().all(|page| *page <= 500), "{pages:?}");
        assert_eq!(pages.iter().sum::<i64>(), 802);
        assert_eq!(world.count("email_log WHERE status = 'queued' AND type = 'milestone'").await, 802);
        assert_eq!(
            world.text("SELECT mail_pages || ' ' || mails_queued || ' ' || (mails_ended_at IS NOT NULL) FROM campaign_milestones").await,
            "3 802 true"
        );
    })
    .await;
}

#[tokio::test]
async fn a_page_that_was_not_committed_is_queued_again_and_not_twice() {
    in_world(async |world: &mut World| {
        for name in ["ann", "bob"] {
            reader(world, name).await;
        }
        world.recorder.drain().await.unwrap();
        pass(world, &[2]).await;
        let event = world.last_for("email").await;
        world.die_before_commit("email", &event).await;
        assert_eq!(world.count("email_log").await, 0);
        world.first_time("email", &event).await.unwrap();
        assert_eq!(world.count("email_log WHERE status = 'queued'").await, 2);
        // Done again by an operator: everybody was looked at.
        world.exec("DELETE FROM afterwrite.ledger").await;
        assert_eq!(
            world.first_time("email", &event).await.unwrap(),
            Outcome::Skipped("all_queued")
        );
        // A campaign that is paused meanwhile: what is queued is skipped, one by one.
        world.exec("UPDATE campaigns SET status = 'paused'").await;
        world.pump().await;
        assert_eq!(
            world
                .count("email_log WHERE status = 'skipped' AND reason = 'campaign_paused'")
                .await,
            2
        );
    })
    .await;
}

#[tokio::test]
async fn a_template_without_the_link_gets_one() {
    in_world(async |world: &mut World| {
        world
            .exec(
                "INSERT INTO email_templates (type, subject, html_body)
                 VALUES ('position_update', 'Up', '<body><p>Number {{ position }}</p></body>')",
            )
            .await;
        let ann = reader(world, "ann").await;
        world.recorder.drain().await.unwrap();
        improved(world, ann, 9, 4).await;
        world.pump().await;
        let mail = &world.mails_to("ann")[0];
        let link = header(mail, "List-Unsubscribe").unwrap().trim_matches(['<', '>']);
        assert!(part_of(mail, Part::Text).contains(&format!("Number 4\n\nUnsubscribe: {link}")));
        assert!(part_of(mail, Part::Html).contains("Unsubscribe</a></p></body>"));
    })
    .await;
}

#[tokio::test]
async fn a_custom_mail_that_somebody_queued_is_sent_by_the_customers_template() {
    in_world(async |world: &mut World| {
        let ann = world.member("ann").await;
        world.pump().await;
        let sent = world.mails_to("ann").len();
        let queue = |number: u8| {
            format!(
                "INSERT INTO email_log (effect_key, campaign_id, user_id, type, status)
                 VALUES ('mine:{number}', '{}', '{ann}', 'custom', 'queued')",
                world.campaign
            )
        };
        world.exec(&queue(1)).await;
        assert_eq!(outcome(world).await.0, Outcome::Skipped("no_template"));
        world
            .exec("INSERT INTO email_templates (type, subject, html_body) VALUES ('custom', 'Mine', '<p>{{ first_name }}</p>')")
            .await;
        world.exec(&queue(2)).await;
        let (outcome, mails) = outcome(world).await;
        assert_eq!((outcome, mails.len()), (Outcome::Done, sent + 1));
    })
    .await;
}
