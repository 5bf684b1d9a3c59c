//! Previews: whose template, whose values, and why a mail would not be sent; nothing is sent or written.

use afterwrite::handlers::address::suppression_key;
use afterwrite::handlers::email::preview::{Origin, PreviewError, Previewer, campaigns_called};
use afterwrite::handlers::email::rules::Kind;
use uuid::Uuid;

use crate::world::{World, in_world, settings};

fn previewer() -> Previewer {
    Previewer {
        settings: settings().email,
        secret: settings().secret,
        hold_at: 80,
    }
}

#[tokio::test]
async fn the_campaigns_template_comes_before_the_customers_and_that_before_the_built_in_one() {
    in_world(async |world: &mut World| {
        let mut connection = world.pool.acquire().await.unwrap();
        for (template, origin, text) in [
            ("SELECT 1".to_owned(), Origin::BuiltIn, "Hello Ann,"),
            (
                "INSERT INTO email_templates (type, subject, html_body) VALUES ('welcome', 's', '<p>All {{ campaign_name }}</p>')".to_owned(),
                Origin::Default,
                "All Launch",
            ),
            (
                format!(
                    "INSERT INTO email_templates (campaign_id, type, subject, html_body)
                     VALUES ('{}', 'welcome', 's', '<p>Own {{{{ first_name }}}}</p>')",
                    world.campaign
                ),
                Origin::Campaign,
                "Own Ann",
            ),
        ] {
            world.exec(&template).await;
            let preview = previewer().of_campaign(&mut connection, Kind::Welcome, world.campaign).await.unwrap();
            assert_eq!(preview.origin, origin);
            assert!(preview.content.text.starts_with(text), "{}", preview.content.text);
        }
        world.exec("UPDATE email_templates SET enabled = false").await;
        let disabled = previewer().of_campaign(&mut connection, Kind::Welcome, world.campaign).await.unwrap();
        assert_eq!(disabled.skipped, Some("template_disabled"));
        world.exec("UPDATE email_templates SET html_body = '{{ frist_name }}'").await;
        let error = previewer().of_campaign(&mut connection, Kind::Welcome, world.campaign).await.unwrap_err();
        assert!(error.to_string().contains("unknown variable frist_name"), "{error}");
        assert_eq!(campaigns_called(&mut connection, "launch").await.unwrap(), [world.campaign]);
        assert_eq!(campaigns_called(&mut connection, &world.campaign.to_string()).await.unwrap(), [world.campaign]);
        assert!(campaigns_called(&mut connection, "x").await.unwrap().is_empty());
        let nobody = previewer().of_campaign(&mut connection, Kind::Welcome, Uuid::new_v4()).await;
        assert!(matches!(nobody, Err(PreviewError::NoCampaign(_))));
    })
    .await;
}

#[tokio::test]
async fn a_users_mail_is_shown_as_it_would_be_and_its_links_lead_nowhere() {
    in_world(async |world: &mut World| {
        let ann = world.join("ann").await;
        world.pump().await;
        let written = world.count("email_log").await;
        let mut connection = world.pool.acquire().await.unwrap();
        let mut preview = async |kind: Kind| {
            let (campaign, preview) = previewer().of_user(&mut connection, kind, ann).await.unwrap();
            assert_eq!(campaign, world.campaign);
            preview
        };
        let verification = preview(Kind::Verification).await;
        assert_eq!(verification.skipped, None);
        assert!(
            verification.content.text.contains("token=preview") && !verification.content.text.contains("token-ann")
        );
        assert!(
            String::from_utf8(verification.message)
                .unwrap()
                .contains(&world.address("ann"))
        );
        assert_eq!(preview(Kind::Milestone).await.skipped, Some("not_in_standing"));
        world.verify(ann).await;
        assert_eq!(preview(Kind::Verification).await.skipped, Some("already_verified"));
        assert_eq!(preview(Kind::Milestone).await.skipped, Some("no_marketing_consent"));
        world.agree(ann).await;
        world
            .exec(&format!(
                "INSERT INTO campaign_milestones (campaign_id, milestone) VALUES ('{campaign}', 7);
                 INSERT INTO position_changes (campaign_id, user_id, old_position, new_position, cause)
                 VALUES ('{campaign}', '{ann}', 9, 4, 'improved')",
                campaign = world.campaign
            ))
            .await;
        let milestone = preview(Kind::Milestone).await;
        assert_eq!(
            (milestone.skipped, milestone.content.subject.as_str()),
            (None, "Launch has passed 7 people")
        );
        let real =
            afterwrite::handlers::email::unsubscribe::token(&settings().secret, world.campaign, &world.address("ann"));
        assert!(
            !milestone.content.text.contains(&real)
                && milestone.content.text.contains("https://lists.example/unsubscribe/")
        );
        let moved = preview(Kind::PositionUpdate).await;
        assert!(
            moved.content.text.contains("you are number 4 now, and were number 9"),
            "{}",
            moved.content.text
        );
        let key = suppression_key(&settings().secret, &world.address("ann"));
        world
            .exec(&format!(
                "INSERT INTO suppressions (email, reason, campaign_id) VALUES ('{key}', 'unsubscribed', '{}')",
                world.campaign
            ))
            .await;
        assert_eq!(preview(Kind::Milestone).await.skipped, Some("unsubscribed"));
        assert_eq!(preview(Kind::Welcome).await.skipped, None);
        assert_eq!(world.count("email_log").await, written);
        let nobody = previewer()
            .of_user(&mut world.pool.acquire().await.unwrap(), Kind::Welcome, Uuid::new_v4())
            .await;
        assert!(matches!(nobody, Err(PreviewError::NoUser(_))));
    })
    .await;
}
