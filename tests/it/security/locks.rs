//! Locks of the registry and of the mail server that are changed while a worker runs.

use crate::authority::Authority;
use crate::flaky_mails;
use crate::mail_tls::{Front, PASSWORD, Speaks, USER, acceptor};
use crate::mails::caught;
use crate::producer;
use crate::stack::{self, until};
use crate::undecodable::{avro_change, key, register, register_anew};
use crate::worker::Worker;
use crate::world::World;

use super::doors::Door;
use super::told::{WITHIN, is_told, is_up};
use super::{assert_silent, settings};

const LOGIN: &str = "reader:first-s3cret";

const LETTERS: &str = "SELECT count(*) FROM afterwrite.letters";

/// What each of the workers is told.
const OWN: [(&str, &str); 3] = [
    ("AFTERWRITE__ADMIN__LISTEN", "localhost:0"),
    ("AFTERWRITE__ENGINE__WAIT_FIRST_MS", "50"),
    ("AFTERWRITE__ENGINE__OUTAGE_WAIT_MS_MAX", "500"),
];

async fn until_count(world: &World, sql: &'static str, wanted: i64) {
    until(sql, WITHIN, async || (world.count(sql).await == wanted).then_some(())).await;
}

/// A certificate for `localhost`, and a reference to whom it is signed by, as a setting has it.
fn certified() -> (Authority, String) {
    let authority = Authority::new();
    authority.sign("localhost");
    let trusted = format!("${{file:{}}}", authority.path("ca.pem").display());
    (authority, trusted)
}

async fn end(world: World, worker: Worker) {
    assert_eq!(world.count(LETTERS).await, 0, "a lock buried something");
    assert_silent(&worker.said());
    worker.stop().await;
    world.remove().await;
}

/// The schema of a change cannot be asked for: the change waits.
pub(super) async fn a_password_of_the_registry_changes() {
    const DONE: &str = "SELECT count(*) FROM effects";
    let world = World::bare("registry_lock").await;
    producer::make_topic(&world.topic()).await;
    let (authority, trusted) = certified();
    let registry: reqwest::Url = stack::address("SCHEMA_REGISTRY_URL").parse().unwrap();
    let inside = format!("{}:{}", registry.host_str().unwrap(), registry.port().unwrap());
    let door = Door::open(acceptor(&authority, "localhost"), &inside, Some(LOGIN)).await;
    let place = format!("localhost:{}", door.port);
    let url = format!("https://{LOGIN}@{place}{}", registry.path());
    let own = settings(&[
        ("AFTERWRITE__REGISTRY__URL", &url),
        ("AFTERWRITE__REGISTRY__CA_PEM", &trusted),
    ]);
    let mut pairs: Vec<(&str, &str)> = own.iter().map(|(name, value)| (&**name, &**value)).collect();
    pairs.extend(OWN);
    let worker = world.worker("w", &pairs);
    let known = register(&world.name).await;
    producer::write(&world.topic(), &key(1), &avro_change(known, 1)).await;
    until_count(&world, DONE, 1).await;

    door.change_login("reader:another-s3cret");
    let anew = register_anew(&world.name).await;
    assert_ne!(anew, known);
    producer::write(&world.topic(), &key(2), &avro_change(anew, 2)).await;
    let what = format!(
        "the schema registry at https://{place}{} refused the user or the password",
        registry.path()
    );
    is_told(&worker, "registry", &[&what, "registry.user and registry.password"]).await;
    assert_eq!(world.count(DONE).await, 1);

    door.change_login(LOGIN);
    until_count(&world, DONE, 2).await;
    is_up(&worker, "registry").await;
    end(world, worker).await;
}

/// No mail can be sent: each waits, and is sent once.
pub(super) async fn a_password_of_the_mail_server_changes() {
    const SENT: &str = "SELECT count(*) FROM email_log WHERE status = 'sent'";
    let world = World::waitlist_alone("mail_lock").await;
    let (authority, trusted) = certified();
    let front = Front::start(Speaks::AfterStartTls, acceptor(&authority, "localhost"), true).await;
    let port = front.port.to_string();
    let own = [
        ("SMTP_HOST", "localhost"),
        ("SMTP_PORT", &port),
        ("SMTP_USER", USER),
        ("SMTP_PASSWORD", PASSWORD),
        ("AFTERWRITE__SMTP__TLS", "starttls"),
        ("AFTERWRITE__SMTP__CA_PEM", &trusted),
    ];
    let worker = flaky_mails::reading(&world, 1, &[&flaky_mails::ALONE[..], &OWN, &own].concat()).await;
    world.launch().await;
    world.sign_up_five().await;
    until_count(&world, SENT, 5).await;

    front.change_password("another-s3cret");
    flaky_mails::sign_up(&world, 5, "later").await;
    let what = format!("the mail server at localhost:{port} refused the user or the password");
    is_told(&worker, "smtp", &[&what, "smtp.user and smtp.password"]).await;
    assert_eq!(world.count(SENT).await, 5);

    front.change_password(PASSWORD);
    until_count(&world, SENT, 10).await;
    is_up(&worker, "smtp").await;
    assert_eq!(world.count(LETTERS).await, 0, "a lock buried something");
    assert_silent(&worker.said());
    worker.stop().await;
    assert_eq!(caught(&world).len(), 10, "mails in all");
    crate::wal::remove(world).await;
}
