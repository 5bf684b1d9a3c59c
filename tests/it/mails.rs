//! Mails: each signup has exactly one, whatever is killed; copies are recognisable and equal.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use mail_parser::MessageParser;

use crate::stack::{self, until};
use crate::worker::Worker;
use crate::world::World;

pub(crate) const SIGNUPS: i64 = 300;
const KILLS: u32 = 4;

/// One copy of a mail, as the mail server accepted it.
pub(crate) struct Mail {
    to: String,
    pub(crate) id: String,
    bytes: Vec<u8>,
}

/// Every copy of the mails of this world's signups.
pub(crate) fn caught(world: &World) -> Vec<Mail> {
    let folder = PathBuf::from(stack::address("MAILBOX_DIR"));
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mails = files.filter(|path| path.extension().is_some_and(|ending| ending == "eml"));
    let domain = format!("@{}.example", world.name.replace('_', "-"));
    mails
        .filter_map(|path| {
            let bytes = std::fs::read(path).unwrap();
            // Parsing is what takes time, and most mails are of other tests.
            String::from_utf8_lossy(&bytes).contains(&domain).then_some(())?;
            let mail = MessageParser::default().parse(&bytes)?;
            let to = mail.to()?.first()?.address()?.to_owned();
            let id = mail
                .message_id()
                .unwrap_or_else(|| panic!("a mail without Message-ID"))
                .to_owned();
            to.ends_with(&domain).then(|| Mail {
                to,
                id,
                bytes: bytes.clone(),
            })
        })
        .collect()
}

/// Signs everybody up, ten at a time.
pub(crate) async fn sign_up(world: &World) {
    let domain = world.name.replace('_', "-");
    let mut pace = tokio::time::interval(Duration::from_millis(150));
    for batch in 0..SIGNUPS / 10 {
        pace.tick().await;
        sqlx::query(
            "INSERT INTO waitlist_users (campaign_id, email, first_name, referral_code, verification_token, status)
             SELECT c.id, 'user' || n || '@' || $2 || '.example', 'Ada', 'code-' || n, 'token-' || n, 'pending'
             FROM campaigns c, generate_series($1 * 10 + 1, $1 * 10 + 10) n",
        )
        .bind(batch)
        .bind(&domain)
        .execute(&world.pool)
        .await
        .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_signup_gets_one_message_id() {
    let _stack = stack::shared().await;
    let world = World::waitlist("mails").await;
    world.launch().await;
    let kills = async {
        let mut worker = Worker::waitlist(&world, "w0", &[]);
        for kill in 1..=KILLS {
            let already = caught(&world).len();
            until("more mails", Duration::from_secs(120), async || {
                let copies = caught(&world).len();
                (copies > already + 10 || copies >= usize::try_from(SIGNUPS).unwrap()).then_some(())
            })
            .await;
            worker.kill();
            worker = Worker::waitlist(&world, &format!("w{kill}"), &[]);
        }
        worker
    };
    let ((), worker) = tokio::join!(sign_up(&world), kills);
    until(
        "every signup's mail to be accounted for",
        Duration::from_secs(120),
        async || {
            (world
                .count("SELECT count(*) FROM email_log WHERE status = 'sent'")
                .await
                == SIGNUPS)
                .then_some(())
        },
    )
    .await;
    worker.stop().await;

    check_copies(&world, SIGNUPS).await;
    world.remove().await;
}

/// Each signup has one `Message-ID`; copies are equal, and no more than calls whose outcome a kill left unknown.
pub(crate) async fn check_copies(world: &World, signups: i64) {
    let copies = caught(world);
    let mut by_id: HashMap<&str, Vec<&Mail>> = HashMap::new();
    let mut ids: HashMap<&str, &str> = HashMap::new();
    for copy in &copies {
        by_id.entry(&copy.id).or_default().push(copy);
        let known = ids.insert(&copy.to, &copy.id);
        assert!(
            known.is_none_or(|id| id == copy.id),
            "one signup has mails with two Message-IDs"
        );
    }
    let unknown = world
        .count("SELECT coalesce(sum(calls - 1), 0)::bigint FROM afterwrite.effects")
        .await;
    let repeated = i64::try_from(copies.len() - by_id.len()).unwrap();
    println!(
        "{}: {signups} signups: {} raw copies, {} distinct Message-IDs, {repeated} repeated, {unknown} calls \
         of unknown outcome",
        world.name,
        copies.len(),
        by_id.len()
    );
    assert_eq!(i64::try_from(by_id.len()).unwrap(), signups);
    assert_eq!(i64::try_from(ids.len()).unwrap(), signups);
    assert!(
        repeated <= unknown,
        "mails were repeated although their outcome was known"
    );
    for copies in by_id.values() {
        assert!(
            copies.iter().all(|copy| copy.bytes == copies[0].bytes),
            "copies of one mail differ"
        );
    }
}
