//! Four installations, each broken in its own ways, at once.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::breaking::{Line, Together, ask_otherwise, break_and_mend, break_together, silence};
use crate::broken::{
    CONNECTOR_GONE, IN_AVRO, IN_CONNECT, IN_CONNECT_TOGETHER, IN_KAFKA, IN_KAFKA_TOGETHER, IN_POSTGRES, ODD_COLUMN,
    OF_THE_SERVER, OF_THE_SERVER_TOGETHER, OTHERWISE, OTHERWISE_IN_JSON, PROBED, PROBED_OTHERWISE, SAMPLED,
};
use crate::hours::{another_encoding, what_takes_hours};
use crate::installation::{Installation, execute};
use crate::own_server::OwnServer;

const NO_PROBE: &[&str] = &["--no-probe"];

const JSON: &str = "connectors/waitlist.json";

#[tokio::test(flavor = "multi_thread")]
async fn each_cause_is_named_and_its_remedy_mends_it() {
    let began = Instant::now();
    let lists = [
        at_once(of_postgres),
        at_once(of_connect),
        at_once(of_kafka),
        at_once(of_avro),
    ];
    // Each goes on to its end, whatever became of the others.
    let ended = futures::future::join_all(lists).await;
    let count: usize = ended.into_iter().map(Result::unwrap).sum();
    println!(
        "{count} things broken, named and mended in {} s",
        began.elapsed().as_secs()
    );
    assert!(count >= 95, "{count}");
}

/// Each on a thread of its own: what they await is bound to it.
fn at_once<F: Future<Output = usize>>(list: impl FnOnce() -> F + Send + 'static) -> JoinHandle<usize> {
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || runtime.block_on(list()))
}

/// A server of its own, where the log is read without Kafka: whatever concerns a whole server.
async fn of_postgres() -> usize {
    let server = tokio::task::spawn_blocking(OwnServer::start).await.unwrap();
    let mut installation = Installation::new("wal", Some(server)).await;
    installation.start();
    silence(&installation, "the groups to run", NO_PROBE).await;
    installation.sign_up().await;
    let healthy = silence(&installation, "a healthy installation", &[]).await;
    let trip = &healthy.report["probe"];
    assert_eq!(trip["legs"].as_array().unwrap().len(), 2, "{}", healthy.report);
    println!("{}: without kafka; the probe: {trip}", installation.name);
    let mut count = one_by_one(&mut installation, IN_POSTGRES, NO_PROBE).await;
    count += another_encoding(&installation, NO_PROBE).await;
    count += what_takes_hours(&mut installation, NO_PROBE).await;
    count += one_by_one(&mut installation, OF_THE_SERVER, NO_PROBE).await;
    count += together(&mut installation, OF_THE_SERVER_TOGETHER, NO_PROBE).await;
    ended(installation).await;
    count
}

/// The connector: each line costs it a restart or more.
async fn of_connect() -> usize {
    let mut installation = with_connector(JSON).await;
    let mut count = together(&mut installation, IN_CONNECT_TOGETHER, NO_PROBE).await;
    count += one_by_one(&mut installation, IN_CONNECT, NO_PROBE).await;
    let name = installation.name.clone();
    let of_this_one = ["--no-probe", "--connector", &name];
    count += one_by_one(&mut installation, CONNECTOR_GONE, &of_this_one).await;
    ended(installation).await;
    count
}

/// Topics, groups, and what the connector may do.
async fn of_kafka() -> usize {
    let mut installation = with_connector(JSON).await;
    ask_otherwise(&installation, OTHERWISE_IN_JSON, NO_PROBE).await;
    ask_otherwise(&installation, PROBED_OTHERWISE, &[]).await;
    let mut count = OTHERWISE_IN_JSON.len() + PROBED_OTHERWISE.len();
    count += together(&mut installation, IN_KAFKA_TOGETHER, NO_PROBE).await;
    count += one_by_one(&mut installation, IN_KAFKA, NO_PROBE).await;
    ended(installation).await;
    count
}

/// Records with schemas; what is away; and rows that do not arrive.
async fn of_avro() -> usize {
    let mut installation = with_connector("connectors/waitlist-avro.json").await;
    execute(&installation.owner, ODD_COLUMN).await;
    tokio::join!(
        nothing_answers(&installation),
        ask_otherwise(&installation, OTHERWISE, NO_PROBE)
    );
    let mut count = OTHERWISE.len();
    count += together(&mut installation, SAMPLED, NO_PROBE).await;
    count += one_by_one(&mut installation, PROBED, &[]).await;
    count += together(&mut installation, IN_AVRO, NO_PROBE).await;
    ended(installation).await;
    count
}

/// One installation is set up at a time: so many topics and members at once are much for one broker on two cores.
static SET_UP: Mutex<()> = Mutex::const_new(());

/// An installation that works on the way by Kafka, after its first change was handled.
async fn with_connector(file: &str) -> Installation {
    let _alone = SET_UP.lock().await;
    let mut installation = Installation::new("kafka", None).await;
    installation.deploy(file).await;
    installation.start();
    installation.sign_up().await;
    let healthy = silence(&installation, "a healthy installation", &[]).await;
    let trip = &healthy.report["probe"];
    assert!(
        trip["total_ms"].as_u64().unwrap() > 0 && trip["legs"].as_array().unwrap().len() == 3,
        "{trip}"
    );
    println!("{}: {file}; the probe: {trip}", installation.name);
    installation
}

async fn one_by_one(installation: &mut Installation, list: &[Line], words: &[&str]) -> usize {
    for line in list {
        let began = Instant::now();
        break_and_mend(installation, *line, words).await;
        told(installation, line.0, began);
    }
    list.len()
}

async fn together(installation: &mut Installation, list: &[Together], words: &[&str]) -> usize {
    let mut count = 0;
    for group in list {
        let began = Instant::now();
        break_together(installation, *group, words).await;
        let codes: Vec<&str> = group.1.iter().map(|(code, _)| *code).collect();
        told(installation, &codes.join(" "), began);
        count += codes.len();
    }
    count
}

fn told(installation: &Installation, codes: &str, began: Instant) {
    let took = began.elapsed().as_millis();
    println!("{}: {codes} named and mended in {took} ms", installation.name);
}

/// After all of that the way is whole.
async fn ended(installation: Installation) {
    let mended = silence(&installation, "the end", &[]).await;
    assert!(mended.report["probe"].is_object(), "{}", mended.report);
    installation.remove().await;
}

/// Where nothing answers, the doctor says so within half a minute.
async fn nothing_answers(installation: &Installation) {
    let began = Instant::now();
    // Packets to this address are answered by nobody (RFC 5737).
    let silent = [
        ("DATABASE_URL", "postgres://nobody@192.0.2.1:5432/none"),
        ("CONNECT_URL", "http://192.0.2.1:8083"),
        ("KAFKA_BROKERS", "192.0.2.1:9092"),
        ("AFTERWRITE__SMTP__HOST", "192.0.2.1"),
        ("SMTP_HOST", "192.0.2.1"),
        (
            "AFTERWRITE__WAITLIST__SECRET",
            "a secret for a database that is elsewhere",
        ),
    ];
    let silent = silent.map(|(name, value)| (name, value.to_owned()));
    let said = installation.doctor(&[], &silent).await;
    let took = began.elapsed();
    println!("nothing answers: {took:?}");
    assert_eq!(said.code, 3);
    assert_eq!(
        said.codes(),
        [
            "postgres-unreachable",
            "connect-unreachable",
            "kafka-unreachable",
            "mail-server-unreachable"
        ]
    );
    assert!(took < Duration::from_secs(30), "{took:?}");
    assert!(
        said.report["unchecked"].as_array().unwrap().len() >= 3,
        "{}",
        said.report
    );
}
