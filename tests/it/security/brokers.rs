//! The brokers: TLS, mutual TLS, and the four ways to log in.

use std::time::Duration;

use tokio::net::TcpListener;

use super::doors::Door;
use super::tokens::{CLIENT, SECRET, Tokens};
use super::{Case, DOCTOR, Variables, assert_silent, check, run, settings};
use crate::authority::Authority;
use crate::mail_tls::acceptor;
use crate::producer;
use crate::stack::{self, until};
use crate::worker::Worker;
use crate::world::World;

/// Partitions of the topic; the members of a group share them.
const PARTITIONS: i32 = 10;

const REFUSED: &str = "refused the user or the password";

const UNTRUSTED: &str = "no authority trusted here has signed";

const OWN: &str = "asks for a client certificate, and got none or none that it takes";

/// What may be an outage too: a worker waits for its end.
const PASSING: [&str; 4] = [NO_TLS, ONLY_TLS, NO_LOGIN, TOKEN];

const NOBODY_YET: &str = "brokers let nobody in yet";

const NO_TLS: &str = "speaks no TLS";

const ONLY_TLS: &str = "takes no connection without TLS";

const NO_LOGIN: &str = "asks for a login, and none is set";

const TOKEN: &str = "waits for a token, and whoever gives them out gave none";

fn file(name: &str) -> String {
    format!("{}/{name}", stack::address("KAFKA_TLS_DIR"))
}

/// Brokers at this address, with these properties; `localhost` may be an address of version 6, where nobody listens.
fn at(brokers: &str, properties: &[(&str, &str)]) -> Variables {
    let mut all = settings(&[
        ("KAFKA_BROKERS", brokers),
        ("AFTERWRITE__KAFKA__PROPERTIES__BROKER_ADDRESS_FAMILY", "v4"),
    ]);
    all.extend(properties.iter().map(|(name, value)| {
        let name = name.to_uppercase().replace('.', "_");
        (format!("AFTERWRITE__KAFKA__PROPERTIES__{name}"), (*value).to_owned())
    }));
    all
}

/// TLS, trusting this authority, with these properties besides.
fn tls(brokers: &str, authority: &str, more: &[(&str, &str)]) -> Variables {
    let own = [("security.protocol", "ssl"), ("ssl.ca.location", authority)];
    at(brokers, &[&own[..], more].concat())
}

/// The listener that asks for a certificate, shown this one.
fn mutual(certificate: &str, key: &str) -> Variables {
    let shown = [("ssl.certificate.location", certificate), ("ssl.key.location", key)];
    tls(&stack::address("KAFKA_TLS_BROKERS"), &file("ca.pem"), &shown)
}

/// The listener that asks for a login over TLS.
fn login(mechanism: &str, user: &str, password: &str) -> Variables {
    let login = [
        ("security.protocol", "sasl_ssl"),
        ("sasl.mechanism", mechanism),
        ("sasl.username", user),
        ("sasl.password", password),
    ];
    tls(&stack::address("KAFKA_SASL_BROKERS"), &file("ca.pem"), &login)
}

/// The same, with a token from an endpoint that shows a certificate of this authority, at this host and port.
fn safe_token(authority: &Authority, at: &str) -> Variables {
    let mut variables = token(&format!("https://{at}/token"), SECRET);
    variables.push((
        "AFTERWRITE__KAFKA__PROPERTIES__HTTPS_CA_LOCATION".to_owned(),
        authority.path("ca.pem").display().to_string(),
    ));
    variables
}

/// The same, with a token from this endpoint.
pub(super) fn token(endpoint: &str, secret: &str) -> Variables {
    let login = [
        ("security.protocol", "sasl_ssl"),
        ("sasl.mechanism", "OAUTHBEARER"),
        ("sasl.oauthbearer.method", "oidc"),
        ("sasl.oauthbearer.client.id", CLIENT),
        ("sasl.oauthbearer.client.secret", secret),
        ("sasl.oauthbearer.scope", "records"),
        ("sasl.oauthbearer.token.endpoint.url", endpoint),
    ];
    tls(&stack::address("KAFKA_SASL_BROKERS"), &file("ca.pem"), &login)
}

/// The listener that asks for a login without TLS, told this one.
pub(super) fn scram(user: &str, password: &str) -> Variables {
    let login = [
        ("security.protocol", "sasl_plaintext"),
        ("sasl.mechanism", "SCRAM-SHA-256"),
        ("sasl.username", user),
        ("sasl.password", password),
    ];
    at(&stack::address("KAFKA_SCRAM_BROKERS"), &login)
}

/// The user of the stack's listeners.
fn user() -> (String, String) {
    (stack::address("KAFKA_TLS_USER"), stack::address("KAFKA_TLS_PASSWORD"))
}

/// Every way in.
fn ways(authority: &Authority, tokens_at: &str) -> Vec<(&'static str, Variables)> {
    let (name, password) = user();
    let certificate = mutual(&file("client.pem"), &file("client.key"));
    vec![
        ("certificate", certificate),
        ("plain", login("PLAIN", &name, &password)),
        ("scram_256", login("SCRAM-SHA-256", &name, &password)),
        ("scram_512", login("SCRAM-SHA-512", &name, &password)),
        ("token", safe_token(authority, tokens_at)),
    ]
}

/// The consumer, the producer of letters and the client that makes their topic of each member come in by its own way.
#[tokio::test(flavor = "multi_thread")]
async fn members_that_come_in_by_five_ways_share_one_group() {
    let _stack = stack::shared().await;
    let world = World::bare("five_ways").await;
    let topic = world.topic();
    producer::make_topic_of(&topic, PARTITIONS).await;
    let tokens = Tokens::serve("kafka").await;
    let authority = Authority::new();
    authority.sign("localhost");
    let door = Door::open(acceptor(&authority, "localhost"), &tokens.at, None).await;
    let ways = ways(&authority, &format!("localhost:{}", door.port));
    let workers: Vec<Worker> = ways.iter().map(|(name, way)| member(&world, name, way)).collect();
    let mut key = 0;
    until(
        "each member to do something, and to bury something",
        Duration::from_secs(60),
        async || {
            for partition in 0..PARTITIONS {
                for behaviour in ["ok", "permanent"] {
                    key += 1;
                    producer::write_change_to(&topic, partition, key, behaviour).await;
                }
            }
            let done = "SELECT count(DISTINCT worker) FROM effects";
            let letters = "SELECT count(DISTINCT source_partition) FROM afterwrite.letters";
            let all = i64::try_from(ways.len()).unwrap();
            let is_done = world.count(done).await == all && world.count(letters).await == i64::from(PARTITIONS);
            is_done.then_some(())
        },
    )
    .await;
    for worker in &workers {
        assert_silent(&worker.said());
    }
    // Its letters are in topics that begin with the same name.
    let of_world = format!("\"topic\":\"{}.", world.name);
    for (name, way) in &ways {
        let words = ["tail", "--from-beginning", "--limit", "1", "--output", "json"];
        let said = run(&world, &words, way).await;
        assert!(
            said.code == Some(0) && said.text.contains(&of_world),
            "{name}: {}",
            said.text
        );
    }
    let (_, scram) = &ways[2];
    for words in [
        &["status", "--output", "json"][..],
        &["dlq", "tail", "--group", "recorder", "--from-beginning", "--limit", "1"],
    ] {
        let said = run(&world, words, scram).await;
        assert_eq!(said.code, Some(0), "{words:?}: {}", said.text);
    }
    futures::future::join_all(workers.into_iter().map(Worker::stop)).await;
    println!("{}: five ways into one group, {key} records", world.name);
    world.remove().await;
}

fn member(world: &World, name: &str, way: &Variables) -> Worker {
    let way: Vec<(&str, &str)> = way
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    world.worker(name, &way)
}

/// What is wrong, and the code under which the doctor has it, where it is one of those that are looked at.
type Wrong = (
    &'static str,
    Variables,
    &'static str,
    &'static str,
    Option<&'static str>,
);

/// Everything that is wrong with TLS.
fn wrong_tls(stranger: &Authority, expired: u16) -> Vec<Wrong> {
    let (name, password) = user();
    let path = |file: &str| stranger.path(file).display().to_string();
    let sasl = |brokers: &str, authority: &str| {
        let login = [
            ("security.protocol", "sasl_ssl"),
            ("sasl.mechanism", "PLAIN"),
            ("sasl.username", &*name),
            ("sasl.password", &*password),
        ];
        tls(brokers, authority, &login)
    };
    let brokers = stack::address("KAFKA_SASL_BROKERS");
    let by_address = brokers.replace("localhost", "127.0.0.1");
    let old = format!("localhost:{expired}");
    let mutual_brokers = stack::address("KAFKA_TLS_BROKERS");
    let plain = stack::address("KAFKA_BROKERS");
    vec![
        (
            "an authority that is not trusted",
            sasl(&brokers, &path("ca.pem")),
            UNTRUSTED,
            "ssl.ca.location",
            Some("kafka-certificate"),
        ),
        (
            "another host's certificate",
            sasl(&by_address, &file("ca.pem")),
            "shows the certificate of another host name",
            "kafka.brokers",
            Some("kafka-host-name"),
        ),
        (
            "a certificate that has expired",
            sasl(&old, &path("ca.pem")),
            "has expired, or is not valid yet",
            "renew the certificate",
            None,
        ),
        (
            "TLS to who speaks none",
            tls(&plain, &file("ca.pem"), &[]),
            NO_TLS,
            "security.protocol",
            Some("kafka-tls"),
        ),
        (
            "clear text to who speaks TLS",
            at(&mutual_brokers, &[]),
            ONLY_TLS,
            "security.protocol",
            None,
        ),
        (
            "no certificate where one is asked for",
            tls(&mutual_brokers, &file("ca.pem"), &[]),
            OWN,
            "ssl.certificate.location",
            None,
        ),
        (
            "a stranger's certificate",
            mutual(&path("client.pem"), &path("client.key")),
            OWN,
            "ssl.certificate.location",
            None,
        ),
    ]
}

/// An endpoint of tokens that cannot be made sure of.
fn wrong_endpoints(authority: &Authority, stranger: &Authority, endpoint: u16) -> Vec<Wrong> {
    vec![
        (
            "an endpoint of tokens that is not trusted",
            safe_token(stranger, &format!("localhost:{endpoint}")),
            UNTRUSTED,
            "https.ca.location of kafka.properties",
            Some("kafka-certificate"),
        ),
        (
            "an endpoint of tokens with another host's certificate",
            safe_token(authority, &format!("127.0.0.1:{endpoint}")),
            "shows the certificate of another host name",
            "sasl.oauthbearer.token.endpoint.url of kafka.properties",
            None,
        ),
    ]
}

/// Everything that is wrong with a login.
fn wrong_logins(tokens: &Tokens, foreign: &Tokens) -> Vec<Wrong> {
    let (name, password) = user();
    let other = [
        ("security.protocol", "sasl_plaintext"),
        ("sasl.mechanism", "PLAIN"),
        ("sasl.username", &*name),
        ("sasl.password", &*password),
    ];
    let scram = stack::address("KAFKA_SCRAM_BROKERS");
    let nowhere = "http://127.0.0.1:1/token";
    let users = "sasl.username and sasl.password";
    vec![
        ("PLAIN", login("PLAIN", &name, "not-the-s3cret"), REFUSED, users, None),
        (
            "SCRAM-SHA-256",
            login("SCRAM-SHA-256", &name, "not-the-s3cret"),
            REFUSED,
            users,
            Some("kafka-login"),
        ),
        (
            "a stranger",
            login("SCRAM-SHA-512", "stranger", &password),
            REFUSED,
            users,
            None,
        ),
        (
            "another way to log in",
            at(&scram, &other),
            "does not know this way to log in",
            "sasl.mechanism",
            None,
        ),
        (
            "no login where one is asked for",
            at(&scram, &[]),
            NO_LOGIN,
            users,
            None,
        ),
        (
            "a client that gets no token",
            token(&tokens.url, "not-the-s3cret"),
            TOKEN,
            "sasl.oauthbearer",
            None,
        ),
        (
            "nobody who gives out tokens",
            token(nowhere, SECRET),
            TOKEN,
            "sasl.oauthbearer",
            None,
        ),
        (
            "a token for somebody else",
            token(&foreign.url, SECRET),
            "refused the token",
            "sasl",
            None,
        ),
    ]
}

/// How what is said of it begins.
fn where_of(name: &str) -> &'static str {
    match name.starts_with("an endpoint of tokens") {
        true => "the endpoint of tokens at ",
        false => "kafka at ",
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_cannot_be_made_sure_of_or_let_nobody_in_are_told_apart() {
    let _stack = stack::shared().await;
    let world = World::waitlist_alone("brokers").await;
    let stranger = Authority::new();
    stranger.sign("client");
    stranger.sign_expired("localhost");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let expired = listener.local_addr().unwrap().port();
    let door = acceptor(&stranger, "localhost");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // Nobody goes on after the certificate.
            tokio::spawn(door.accept(stream));
        }
    });
    let (tokens, foreign) = (Tokens::serve("kafka").await, Tokens::serve("others").await);
    let authority = Authority::new();
    authority.sign("localhost");
    let endpoint = Door::open(acceptor(&authority, "localhost"), &tokens.at, None)
        .await
        .port;
    let wrong = [
        wrong_tls(&stranger, expired),
        wrong_logins(&tokens, &foreign),
        wrong_endpoints(&authority, &stranger, endpoint),
    ]
    .concat();
    let mut cases = Vec::new();
    for (name, settings, what, remedy, code) in wrong {
        let case = |words, code, more: Option<&str>| Case {
            name,
            words,
            settings: settings.clone(),
            code,
            says: [Some(where_of(name)), Some(what), Some(remedy), more]
                .into_iter()
                .flatten()
                .map(str::to_owned)
                .collect(),
        };
        let waits = PASSING.contains(&what);
        let (ends, more) = if waits {
            (None, Some(NOBODY_YET))
        } else {
            (Some(2), None)
        };
        cases.push(case(&["run"], ends, more));
        cases.push(case(&["tail", "--limit", "1"], Some(2), None));
        if let Some(code) = code {
            cases.push(case(&DOCTOR, Some(3), Some(code)));
        }
    }
    check(&world, cases).await;
    world.remove().await;
}
