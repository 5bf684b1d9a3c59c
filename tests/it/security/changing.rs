//! Logins that end while a worker runs: it says which, where, and what mends it, loses nothing and does nothing twice.

use std::time::Duration;

use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnectOptions;
use tokio::time::Instant;

use super::brokers::{scram, token};
use super::locks::{a_password_of_the_mail_server_changes, a_password_of_the_registry_changes};
use super::tokens::{SECRET, Tokens};
use super::told::{WITHIN, is_down, is_logged, is_told, is_up};
use super::wire::{Right, give, set_password};
use super::{Variables, assert_silent};
use crate::producer;
use crate::stack::{self, until};
use crate::worker::Worker;
use crate::world::World;

const PASSWORD: &str = "first-s3cret";

/// How long a token is good. The client asks for another when four fifths of it are over, and shows it when nine tenths are:
/// what is left has to be enough on a busy machine.
const LIFETIME_S: u64 = 8;

/// Changes of one round.
const ROUND: i64 = 20;

/// A worker that reads what is written, and what was written.
struct Running {
    world: World,
    worker: Worker,
    written: i64,
}

impl Running {
    async fn start(world: World, variables: &Variables) -> Self {
        producer::make_topic(&world.topic()).await;
        let pairs = variables.iter().map(|(name, value)| (&**name, &**value));
        let own = [
            ("AFTERWRITE__ADMIN__LISTEN", "localhost:0"),
            ("AFTERWRITE__ENGINE__WAIT_FIRST_MS", "50"),
            ("AFTERWRITE__ENGINE__OUTAGE_WAIT_MS_MAX", "500"),
        ];
        let settings: Vec<(&str, &str)> = pairs.chain(own).collect();
        let worker = world.worker("w", &settings);
        let mut running = Self {
            world,
            worker,
            written: 0,
        };
        running.write().await;
        running.all_done().await;
        running
    }

    async fn write(&mut self) {
        for _ in 0..ROUND {
            self.written += 1;
            producer::write_change(&self.world.topic(), self.written, "ok").await;
        }
    }

    /// Everything was done, once, and nothing buried.
    async fn all_done(&self) {
        until(&format!("{} effects", self.written), WITHIN, async || {
            (self.world.count("SELECT count(*) FROM effects").await >= self.written).then_some(())
        })
        .await;
        let once = "SELECT count(*) - count(DISTINCT (k, seq)) FROM effects";
        assert_eq!(self.world.count(once).await, 0, "something was done twice");
        assert_eq!(self.world.count("SELECT count(*) FROM afterwrite.letters").await, 0);
    }

    async fn end(self) {
        assert_silent(&self.worker.said());
        self.worker.stop().await;
        self.world.remove().await;
    }
}

/// All at once: most of the time each of them waits.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_ends_under_a_worker_is_told_and_nothing_is_lost_or_done_twice() {
    let _stack = stack::shared().await;
    let began = Instant::now();
    futures::join!(
        Box::pin(a_password_of_postgres_changes()),
        Box::pin(a_password_of_kafka_changes()),
        Box::pin(tokens_are_renewed_until_there_are_none()),
        Box::pin(a_password_of_the_registry_changes()),
        Box::pin(a_password_of_the_mail_server_changes()),
    );
    println!("five logins that end, in {:?}", began.elapsed());
}

async fn a_password_of_postgres_changes() {
    let world = World::bare("pg_password").await;
    let role = format!("{}_login", world.name);
    let exec = async |sql: String| {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&world.pool).await.unwrap();
    };
    exec(format!("CREATE ROLE {role} LOGIN SUPERUSER PASSWORD '{PASSWORD}'")).await;
    // Roles that were granted this have to give their password.
    exec(format!("GRANT asked_for_a_password TO {role}")).await;
    let owner = world.url().parse::<PgConnectOptions>().unwrap();
    let place = format!("{}:{}/{}", owner.get_host(), owner.get_port(), world.name);
    let url = format!("postgres://{role}:{PASSWORD}@{place}");
    let pool = world.pool.clone();
    let mut running = Running::start(world, &super::settings(&[("DATABASE_URL", &url)])).await;
    let exec = async |sql: String| {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&pool).await.unwrap();
    };
    let cut = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'");
    exec(format!("ALTER ROLE {role} PASSWORD 'another-s3cret'; {cut}")).await;
    running.write().await;
    let what = format!("postgres at {place} refused the user or the password");
    let says = [&*what, "correct user and password of postgres.url"];
    is_told(&running.worker, "postgres", &says).await;
    exec(format!("ALTER ROLE {role} PASSWORD '{PASSWORD}'")).await;
    running.all_done().await;
    is_up(&running.worker, "postgres").await;
    running.end().await;
    exec_elsewhere(format!("DROP ROLE {role}")).await;
}

/// In a database that outlives the test's.
async fn exec_elsewhere(sql: String) {
    let pool = crate::world::connect(&stack::address("DATABASE_URL")).await;
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&pool).await.unwrap();
}

/// The broker asks again for the password of whoever is connected, as a managed one does.
async fn a_password_of_kafka_changes() {
    let world = World::bare("kafka_password").await;
    let user = format!("{}-user", world.name);
    set_password(&user, PASSWORD).await;
    let (principal, begins) = (format!("User:{user}"), format!("{}.", world.name));
    let rights = ["--topic", "--group"].map(|resource| Right::of_worker(&principal, resource, &begins));
    give(&rights).await;
    let mut running = Running::start(world, &scram(&user, PASSWORD)).await;
    set_password(&user, "another-s3cret").await;
    let brokers = stack::address("KAFKA_SCRAM_BROKERS");
    let what = format!("kafka at {brokers} refused the user or the password");
    let says = [&*what, "correct sasl.username and sasl.password of kafka.properties"];
    is_told(&running.worker, "kafka", &says).await;
    running.write().await;
    set_password(&user, PASSWORD).await;
    running.all_done().await;
    is_up(&running.worker, "kafka").await;
    running.end().await;
}

/// A broker cuts off whose token has expired: a connection that outlives its token has shown another one.
async fn tokens_are_renewed_until_there_are_none() {
    let world = World::bare("tokens").await;
    let tokens = Tokens::serve_for("kafka", LIFETIME_S).await;
    let mut running = Running::start(world, &token(&tokens.url, SECRET)).await;
    let brokers = stack::address("KAFKA_SASL_BROKERS");
    let port: u16 = brokers.rsplit_once(':').unwrap().1.parse().unwrap();
    let (began, before, given) = (Instant::now(), running.worker.connections(port), tokens.given());
    until("every token to expire, and others to be given", WITHIN, async || {
        let is_over = began.elapsed() > Duration::from_secs(LIFETIME_S + 1);
        (is_over && tokens.given() > given).then_some(())
    })
    .await;
    let after = running.worker.connections(port);
    let lasting: Vec<&u16> = before.intersection(&after).collect();
    assert!(!lasting.is_empty(), "{before:?} were cut off, and are {after:?}");
    running.write().await;
    running.all_done().await;
    assert!(!running.worker.said().contains("lets the group's consumer not in"));

    tokens.shut(true);
    let place = format!("kafka at {brokers}");
    is_logged(&running.worker, &[&place, "refused the token", "sasl.oauthbearer"]).await;
    // Or that it waits for one, which comes next.
    is_down(&running.worker, "kafka", &[&place, "token", "sasl.oauthbearer"]).await;
    assert!(
        running.worker.connections(port).is_disjoint(&before),
        "the broker lets in whose token is old"
    );
    running.write().await;
    tokens.shut(false);
    running.all_done().await;
    is_up(&running.worker, "kafka").await;
    running.end().await;
}
