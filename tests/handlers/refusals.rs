//! What the real catcher refuses, step by step and code by code: which mail fails, which address is barred, and what is an
//! outage.

use std::sync::Arc;

use afterwrite::clients::mail_folder::FolderMailer;
use afterwrite::handler::{Fault, Outcome};

use crate::world::{World, in_world, in_world_with, settings};

#[tokio::test]
async fn codes_of_the_server_decide_about_mail_address_and_outage() {
    in_world(async |world: &mut World| {
        let transient = Fault::Transient { after: None };
        let outage = Fault::Unreachable { what: "smtp" };
        for (user, expected, suppressed) in [
            ("refuse-550-5.1.1+a", Ok("bounced"), 1),
            ("refuse-553-5.1.3+a", Ok("bounced"), 1),
            ("refuse-550-5.1.10+a", Ok("bounced"), 1),
            ("refuse-550-5.2.1+a", Err(Fault::Permanent), 0),
            ("refuse-552-5.2.2+a", Err(Fault::Permanent), 0),
            ("reject-552-5.2.3+a", Err(Fault::Permanent), 0),
            ("refuse-550-5.7.1+a", Err(outage.clone()), 0),
            ("reject-554-5.7.1+a", Err(outage.clone()), 0),
            ("refuse-530-5.7.0+a", Err(outage.clone()), 0),
            ("refuse-535-5.7.8+a", Err(outage), 0),
            ("refuse-450-4.2.0+a", Err(transient.clone()), 0),
            ("refuse-451-4.7.1+a", Err(transient.clone()), 0),
            ("reject-452-4.3.1+a", Err(transient), 0),
        ] {
            world.exec("DELETE FROM suppressions").await;
            world.recorder.drain().await.unwrap();
            world.join(user).await;
            let ended = world.deliver_to("email").await.map_err(|error| error.fault);
            assert_eq!(ended, expected.map(Outcome::Skipped), "{user}");
            let barred = "suppressions WHERE reason = 'bounced' AND campaign_id IS NULL";
            assert_eq!(world.count(barred).await, suppressed, "{user}");
            assert_eq!(world.mails_to(user).len(), 0, "{user}");
        }
    })
    .await;
}

#[tokio::test]
async fn in_a_folder_a_repeated_mail_takes_the_place_of_the_first() {
    let folder = std::env::temp_dir().join(format!("afterwrite-{}", uuid::Uuid::new_v4()));
    let mailer = Arc::new(FolderMailer::new(&folder).unwrap());
    in_world_with(mailer, settings(), async |world: &mut World| {
        world.join("ann").await;
        let event = world.last_for("email").await;
        // The process dies when the mail is written and nothing is recorded yet; the lease is another worker's then.
        world.die_before_commit("email", &event).await;
        world
            .exec("UPDATE afterwrite.effects SET lease_until = now() - interval '1 s', accepted_at = NULL")
            .await;
        assert_eq!(world.second_time("email", &event).await.unwrap(), Outcome::Done);
        assert_eq!(
            world
                .count("afterwrite.effects WHERE state = 'sent' AND calls = 2")
                .await,
            1
        );
        let files: Vec<_> = std::fs::read_dir(&folder)
            .unwrap()
            .map(|file| file.unwrap().path())
            .collect();
        assert_eq!(files.len(), 1, "{files:?}");
        let mail = std::fs::read_to_string(&files[0]).unwrap();
        let id = world.text("SELECT message_id FROM email_log").await;
        assert!(mail.contains(&format!("Message-ID: {id}")));
        assert_eq!(
            files[0].file_name().unwrap().to_str().unwrap(),
            format!("{}.eml", id.trim_matches(['<', '>']))
        );
    })
    .await;
    std::fs::remove_dir_all(&folder).unwrap();
}
