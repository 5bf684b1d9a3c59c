//! Many mails through a worker that reads the log: past a mail server that refuses and breaks off, within a limit a second,
//! and to all who agreed.

use std::path::PathBuf;
use std::time::Duration;

use mail_parser::MessageParser;
use tokio::time::Instant;

use crate::mails::check_copies;
use crate::stack::{self, until};
use crate::wal::{SETTINGS, remove};
use crate::worker::Worker;
use crate::world::World;

/// As many as `FLAKY_MAILS` says, or these.
const FLAKY: i64 = 300;
const PACED: i64 = 40;
const PER_SECOND_MAX: u64 = 4;
const READERS: i64 = 700;

/// Others are switched off: what is told of the time is about mails.
pub(crate) const ALONE: [(&str, &str); 5] = [
    ("AFTERWRITE__WAL__PUBLICATION", "afterwrite_waitlist"),
    ("AFTERWRITE__HANDLERS__POSITION__ENABLED", "false"),
    ("AFTERWRITE__HANDLERS__REWARD__ENABLED", "false"),
    ("AFTERWRITE__HANDLERS__FRAUD__ENABLED", "false"),
    ("AFTERWRITE__ENGINE__WAIT_FIRST_MS", "100"),
];

pub(crate) async fn reading(world: &World, groups: usize, more: &[(&str, &str)]) -> Worker {
    let settings = [&SETTINGS[..], more].concat();
    let worker = Worker::waitlist(world, "worker", &settings);
    until("the slots", Duration::from_secs(60), async || {
        (worker.said().matches("reading the write-ahead log").count() == groups).then_some(())
    })
    .await;
    worker
}

/// Signs people up whose addresses begin so, and tell the mail server what to do.
pub(crate) async fn sign_up(world: &World, people: i64, address: &str) {
    sqlx::query(
        "WITH launch AS (
             INSERT INTO campaigns (account_id, name, slug, status, verification_required, milestones)
             VALUES (gen_random_uuid(), 'Launch', 'launch', 'active', false, '{600}') RETURNING id)
         INSERT INTO waitlist_users (campaign_id, email, referral_code, marketing_consent)
         SELECT id, $3 || n || '@' || $2 || '.example', $3 || n, true FROM launch, generate_series(1, $1) n",
    )
    .bind(people)
    .bind(world.name.replace('_', "-"))
    .bind(address)
    .execute(&world.pool)
    .await
    .unwrap();
}

pub(crate) async fn until_sent(world: &World, mails: i64) {
    until("every mail", Duration::from_secs(180), async || {
        let sent = world.count("SELECT count(*) FROM email_log WHERE status = 'sent'");
        (sent.await == mails).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mails_past_a_server_that_refuses_and_breaks_off_arrive_and_are_equal() {
    let _stack = stack::shared().await;
    let mails = std::env::var("FLAKY_MAILS").map_or(FLAKY, |mails| mails.parse().unwrap());
    let world = World::waitlist_alone("flaky").await;
    // With five attempts, eight of a hundred thousand mails would be given up: that is not what is looked at here.
    let attempts = [("AFTERWRITE__ENGINE__ATTEMPTS_MAX", "20")];
    let worker = reading(&world, 1, &[&ALONE[..], &attempts].concat()).await;
    let began = Instant::now();
    // Of 100 tries, 10 are refused with 4xx and 5 cut after DATA, half of these when the mail was kept already.
    sign_up(&world, mails, "flaky-10-5+user").await;
    until_sent(&world, mails).await;
    println!(
        "{}: {mails} mails in {:.1} s, {} tries",
        world.name,
        began.elapsed().as_secs_f64(),
        world.count("SELECT sum(calls)::bigint FROM afterwrite.effects").await
    );
    assert_eq!(world.count("SELECT count(*) FROM afterwrite.letters").await, 0);
    let repeated = "SELECT sum(calls - 1)::bigint FROM afterwrite.effects";
    assert!(world.count(repeated).await > mails / 10, "the server was not flaky");
    assert!(!worker.said().contains("handler suspended"), "a tenth is no outage");
    worker.stop().await;
    check_copies(&world, mails).await;
    remove(world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_mails_a_second_than_are_allowed_and_waiting_is_no_failure() {
    let _stack = stack::shared().await;
    let world = World::waitlist_alone("paced").await;
    let rate = PER_SECOND_MAX.to_string();
    let paced = [
        ("AFTERWRITE__SMTP__MAILS_PER_SECOND_MAX", rate.as_str()),
        // More lanes than get their turn while they can wait for it.
        ("AFTERWRITE__ENGINE__LANES_MAX", "20"),
        ("AFTERWRITE__ENGINE__ATTEMPTS_MAX", "1"),
    ];
    let worker = reading(&world, 1, &[&ALONE[..], &paced].concat()).await;
    sign_up(&world, PACED, "paced").await;
    until_sent(&world, PACED).await;
    let times = kept_at_ms(&world);
    assert_eq!(times.len() as i64, PACED);
    let window = usize::try_from(PER_SECOND_MAX).unwrap();
    for (first, after) in times.iter().zip(&times[window..]) {
        // Turns are exact; what follows a turn takes its time.
        assert!(
            after - first > 700,
            "{window} mails within {} ms: {times:?}",
            after - first
        );
    }
    let took = times.last().unwrap() - times[0];
    println!(
        "{}: {PACED} mails, at most {PER_SECOND_MAX} a second, in {took} ms",
        world.name
    );
    assert!((9_000..20_000).contains(&took), "{took} ms");
    assert_eq!(
        world
            .count("SELECT count(*) FROM afterwrite.effects WHERE calls > 1")
            .await,
        0
    );
    assert_eq!(world.count("SELECT count(*) FROM afterwrite.letters").await, 0);
    let said = worker.said();
    assert!(
        !said.contains("attempt failed") && !said.contains("suspended"),
        "{said}"
    );
    worker.stop().await;
    remove(world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_milestone_is_mailed_to_all_who_agreed_page_by_page() {
    let _stack = stack::shared().await;
    let world = World::waitlist_alone("milestone").await;
    let settings = [
        ALONE[0],
        ("AFTERWRITE__WAITLIST__PUBLIC_URL", "https://mail.example.com"),
    ];
    let worker = reading(&world, 4, &settings).await;
    let began = Instant::now();
    sign_up(&world, READERS, "reader").await;
    until_sent(&world, 2 * READERS).await;
    let account = "SELECT count(*) FROM campaign_milestones
                   WHERE milestone = 600 AND mail_pages = 2 AND mails_queued = 700 AND mails_ended_at IS NOT NULL";
    assert_eq!(world.count(account).await, 1);
    println!(
        "{}: {READERS} sign-ups, welcomed and told of a milestone, in {:.1} s",
        world.name,
        began.elapsed().as_secs_f64()
    );
    worker.stop().await;
    let told = mails_of(&world).filter(|(_, mail)| mail.contains("List-Unsubscribe-Post: List-Unsubscribe=One-Click"));
    assert_eq!(told.count() as i64, READERS);
    remove(world).await;
}

/// Mails of this world's sign-ups, with the names of their files.
fn mails_of(world: &World) -> impl Iterator<Item = (String, String)> {
    let domain = format!("@{}.example", world.name.replace('_', "-"));
    let files = std::fs::read_dir(PathBuf::from(stack::address("MAILBOX_DIR"))).unwrap();
    files.filter_map(move |file| {
        let path = file.unwrap().path();
        let text = std::fs::read_to_string(&path)
            .ok()
            .filter(|_| path.extension().is_some_and(|end| end == "eml"))?;
        let to = MessageParser::default()
            .parse(text.as_bytes())?
            .to()?
            .first()?
            .address()?
            .to_owned();
        let name = path.file_name()?.to_str()?.to_owned();
        to.ends_with(&domain).then_some((name, text))
    })
}

/// When the mail server kept each mail: its files are called after that.
fn kept_at_ms(world: &World) -> Vec<u64> {
    let times = mails_of(world).map(|(name, _)| name.split('-').next().unwrap().parse().unwrap());
    let mut times: Vec<u64> = times.collect();
    times.sort_unstable();
    times
}
