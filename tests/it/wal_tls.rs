//! The session that reads the log, over TLS and with a password: what it takes for the server, and what it refuses.
//!
//! The stack's Postgres gets a certificate and rules for roles of this test, by SQL and without a restart. Clients that do not
//! ask for TLS go on as before, so tests beside this one are not disturbed.

use std::fmt::Write;
use std::time::Duration;

use sqlx::AssertSqlSafe;
use sqlx::postgres::{PgConnectOptions, PgPool};
use tokio::time::Instant;

use crate::authority::Authority;
use crate::security::{self, TOLD_WITHIN, settings};
use crate::stack::{self, until};
use crate::wal::{SETTINGS, insert, remove, until_effects, until_it_reads};
use crate::world::World;

const PASSWORD: &str = "s3cret:päss/word";

/// The same in an address.
const PASSWORD_IN_ADDRESS: &str = "s3cret%3Ap%C3%A4ss%2Fword";

async fn run(server: &PgPool, sql: &str) {
    let ran = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(server).await;
    ran.unwrap();
}

/// Writes a file into the server's data directory, for nobody else to read. It is the server that writes.
async fn write_there(server: &PgPool, name: &str, text: &str) {
    let lines: Vec<&str> = text.lines().collect();
    let lines = lines.join("\n").replace('\'', "''");
    let sql = format!(
        "COPY (SELECT line FROM string_to_table('{lines}', E'\\n') AS line) TO PROGRAM 'umask 077; rm -f {name}; cat > {name}'"
    );
    run(server, &sql).await;
}

async fn reloaded(server: &PgPool, name: &str, value: &str) {
    run(server, "SELECT pg_reload_conf()").await;
    until("the setting", Duration::from_secs(30), async || {
        let query = sqlx::query_scalar::<_, String>("SELECT current_setting($1)").bind(name);
        (query.fetch_one(server).await.unwrap() == value).then_some(())
    })
    .await;
}

/// What this test changes in the server.
struct Changed {
    rules: String,
    roles: [String; 3],
}

impl Changed {
    /// Makes a role that has to give its password, one that has to show a certificate, and one that keeps its password in the
    /// old way; each may read the database of the test.
    async fn begin(world: &World) -> Self {
        let server = &world.pool;
        let rules: String = sqlx::query_scalar("SELECT pg_read_file(current_setting('hba_file'))")
            .fetch_one(server)
            .await
            .unwrap();
        let letters = &uuid::Uuid::new_v4().simple().to_string()[..8];
        let roles = ["scram", "certificate", "old"].map(|kind| format!("wal_{kind}_{letters}"));
        let [scram, certificate, old] = &roles;
        for role in &roles {
            run(server, &format!("CREATE ROLE {role} LOGIN REPLICATION")).await;
        }
        run(server, &format!("ALTER ROLE {scram} PASSWORD '{PASSWORD}'")).await;
        let in_the_old_way =
            format!("SET password_encryption = md5; ALTER ROLE {old} PASSWORD '{PASSWORD}'; RESET ALL");
        run(server, &in_the_old_way).await;
        let mut ours = String::new();
        writeln!(
            ours,
            "hostssl all {scram} samehost scram-sha-256\nhost all {scram} samehost reject"
        )
        .unwrap();
        writeln!(
            ours,
            "hostssl all {certificate} samehost cert\nhost all {old} samehost md5"
        )
        .unwrap();
        write_there(server, "pg_hba.conf", &(ours + &rules)).await;
        run(server, "SELECT pg_reload_conf()").await;
        Self { rules, roles }
    }

    async fn end(self, world: &World) {
        let server = &world.pool;
        write_there(server, "pg_hba.conf", &self.rules).await;
        for name in ["ssl", "ssl_cert_file", "ssl_key_file", "ssl_ca_file"] {
            run(server, &format!("ALTER SYSTEM RESET {name}")).await;
        }
        reloaded(server, "ssl", "off").await;
        run(
            server,
            "COPY (SELECT 1) TO PROGRAM 'cat > /dev/null; rm -f it.crt it.key it-ca.crt'",
        )
        .await;
        for role in self.roles {
            run(server, &format!("DROP ROLE {role}")).await;
        }
    }
}

/// Lets the server speak TLS with the certificate of this name.
async fn speak_tls(server: &PgPool, authority: &Authority, name: &str) {
    write_there(server, "it.crt", &authority.text(&format!("{name}.pem"))).await;
    write_there(server, "it.key", &authority.text(&format!("{name}.key"))).await;
    write_there(server, "it-ca.crt", &authority.text("ca.pem")).await;
    for (name, value) in [
        ("ssl_cert_file", "it.crt"),
        ("ssl_key_file", "it.key"),
        ("ssl_ca_file", "it-ca.crt"),
        ("ssl", "on"),
    ] {
        run(server, &format!("ALTER SYSTEM SET {name} = '{value}'")).await;
    }
    reloaded(server, "ssl", "on").await;
}

/// Reads over this address, which has to be safe.
async fn reads(world: &World, name: &str, url: &str, expected: i64) {
    let settings = [&SETTINGS[..], &[("AFTERWRITE__WAL__URL", url)]].concat();
    let worker = world.worker(name, &settings);
    until_it_reads(&worker).await;
    let key = i32::try_from(expected).unwrap();
    insert(world, key..=key, "ok").await;
    until_effects(world, expected).await;
    let safe = "SELECT count(*) FROM pg_replication_slots s JOIN pg_stat_ssl t ON t.pid = s.active_pid
        WHERE s.database = current_database() AND t.ssl AND t.version = 'TLSv1.3'";
    assert_eq!(world.count(safe).await, 1, "{name}");
    assert_silent(&worker.said());
    worker.stop().await;
}

/// The worker ends with an error that says what to do, and with no secret.
async fn is_refused(world: &World, name: &str, url: &str, reason: &str) {
    let settings = [&SETTINGS[..], &[("AFTERWRITE__WAL__URL", url)]].concat();
    let began = Instant::now();
    let mut worker = world.worker(name, &settings);
    let status = until("the worker to refuse", Duration::from_secs(60), async || worker.ended()).await;
    let (said, took) = (worker.said(), began.elapsed());
    assert!(!status.success() && said.contains(reason), "{name}: {status}: {said}");
    assert!(took < TOLD_WITHIN, "{name}: {took:?}");
    // What the library says by itself has no remedy.
    assert!(!said.contains("pgwire_replication"), "{name}: {said}");
    assert_silent(&said);
}

/// A command that asks the database over this address says the same of it.
async fn is_told(world: &World, name: &str, url: &str, says: &[&str]) -> Result<(), String> {
    let words = ["slot", "list"];
    let ran = security::run(world, &words, &settings(&[("DATABASE_URL", url)])).await;
    let is_told = ran.code == Some(2) && ran.took < TOLD_WITHIN && says.iter().all(|words| ran.text.contains(words));
    match is_told {
        true => Ok(()),
        false => Err(format!("{name}: {:?} after {:?}: {}", ran.code, ran.took, ran.text)),
    }
}

/// What is wrong with the address of the database, and what is said of it by whoever asks it.
async fn are_told(world: &World, changed: &Changed, to: &Addresses<'_>, login: &str) {
    let [scram, certificate, _] = &changed.roles;
    let (right, stranger) = (to.verified(&to.authority), to.verified(&to.stranger));
    let wrong = format!("{scram}:not-the-s3cret");
    let unknown = to.shown(certificate, &to.stranger);
    let own = "asks for a client certificate, and got none or none that it takes";
    for (name, login, query, what, remedy) in [
        (
            "password",
            wrong.as_str(),
            right.as_str(),
            "refused the user or the password",
            "user and password of postgres.url",
        ),
        (
            "authority",
            login,
            &stranger,
            "no authority trusted here has signed",
            "sslrootcert of postgres.url",
        ),
        (
            "clear text",
            login,
            "sslmode=disable",
            "takes no connection without TLS",
            "sslmode of postgres.url",
        ),
        (
            "not shown",
            certificate,
            &right,
            own,
            "sslcert and sslkey of postgres.url",
        ),
        (
            "unknown",
            certificate,
            &unknown,
            own,
            "sslcert and sslkey of postgres.url",
        ),
    ] {
        let told = is_told(
            world,
            name,
            &to.of(login, "localhost", query),
            &["postgres at localhost:", what, remedy],
        )
        .await;
        told.unwrap();
    }
}

/// The same of a server that shows another certificate than its own.
async fn other_certificates_are_told(world: &World, to: &Addresses<'_>, login: &str) {
    let right = to.verified(&to.authority);
    to.authority.sign("elsewhere.example");
    to.authority.sign_expired("localhost");
    for (shown, what, remedy) in [
        (
            "elsewhere.example",
            "shows the certificate of another host name",
            "write in postgres.url a name",
        ),
        ("localhost", "has expired, or is not valid yet", "renew the certificate"),
    ] {
        speak_tls(&world.pool, &to.authority, shown).await;
        let url = to.of(login, "localhost", &right);
        // The server has another certificate as soon as it has read its files again.
        until(what, TOLD_WITHIN, async || {
            is_told(world, shown, &url, &["postgres at localhost:", what, remedy])
                .await
                .ok()
        })
        .await;
    }
}

fn assert_silent(said: &str) {
    for secret in ["s3cret", PASSWORD_IN_ADDRESS] {
        assert!(!said.contains(secret), "{said}");
    }
}

/// Addresses of the test's database, and the certificates that they name.
struct Addresses<'a> {
    port: u16,
    database: &'a str,
    authority: Authority,
    stranger: Authority,
}

impl<'a> Addresses<'a> {
    fn new(world: &'a World, certificate: &str) -> Self {
        let options: PgConnectOptions = world.url().parse().unwrap();
        let (authority, stranger) = (Authority::new(), Authority::new());
        authority.sign_for("server", "DNS:localhost,IP:127.0.0.1");
        authority.sign(certificate);
        stranger.sign(certificate);
        Self {
            port: options.get_port(),
            database: &world.name,
            authority,
            stranger,
        }
    }

    fn of(&self, login: &str, host: &str, query: &str) -> String {
        format!("postgres://{login}@{host}:{}/{}?{query}", self.port, self.database)
    }

    /// The mode of production, with this authority.
    fn verified(&self, by: &Authority) -> String {
        format!("sslmode=verify-full&sslrootcert={}", by.path("ca.pem").display())
    }

    /// With the certificate of this name that `by` has signed.
    fn shown(&self, name: &str, by: &Authority) -> String {
        let file = |ending: &str| by.path(&format!("{name}.{ending}")).display().to_string();
        let verified = self.verified(&self.authority);
        format!("{verified}&sslcert={}&sslkey={}", file("pem"), file("key"))
    }
}

/// Each of these ends a worker, once the server speaks TLS.
async fn refuses(world: &World, changed: &Changed, to: &Addresses<'_>, login: &str) {
    let [scram, certificate, old] = &changed.roles;
    let verified = to.verified(&to.authority);
    let (wrong, old) = (format!("{scram}:s3cret"), format!("{old}:{PASSWORD_IN_ADDRESS}"));
    let (stranger, elsewhere) = (to.verified(&to.stranger), format!("hostaddr=127.0.0.1&{verified}"));
    let authority_only = elsewhere.replace("verify-full", "verify-ca");
    let (no_file, unknown) = (
        "sslmode=verify-full&sslrootcert=/nowhere.pem",
        to.shown(certificate, &to.stranger),
    );
    for (name, login, host, query, reason) in [
        (
            "wrong_password",
            wrong.as_str(),
            "localhost",
            verified.as_str(),
            "see the password in wal.url",
        ),
        ("md5", &old, "localhost", &verified, "let it be kept as scram-sha-256"),
        (
            "wrong_ca",
            login,
            "localhost",
            &stranger,
            "names the file of the authority",
        ),
        (
            "wrong_name",
            login,
            "db.example",
            &elsewhere,
            "certificate is another host's",
        ),
        (
            "verify_ca",
            login,
            "db.example",
            &authority_only,
            "certificate is another host's",
        ),
        (
            "no_file",
            login,
            "localhost",
            no_file,
            "sslrootcert names a file that cannot be read",
        ),
        (
            "not_shown",
            certificate,
            "localhost",
            &verified,
            "a valid client certificate",
        ),
        (
            "unknown",
            certificate,
            "localhost",
            &unknown,
            "does not take our certificate",
        ),
    ] {
        is_refused(world, name, &to.of(login, host, query), reason).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_read_over_tls_and_who_cannot_be_made_sure_of_is_refused_with_what_to_do() {
    let _stack = stack::shared().await;
    let world = World::bare("wal_tls").await;
    let changed = Changed::begin(&world).await;
    let [scram, certificate, _] = &changed.roles;
    let to = Addresses::new(&world, certificate);
    let login = format!("{scram}:{PASSWORD_IN_ADDRESS}");

    let plain = to.of(&login, "localhost", "sslmode=disable");
    is_refused(&world, "plain", &plain, "no encryption").await;
    let required = to.of(&login, "localhost", "sslmode=require");
    is_refused(&world, "no_tls", &required, "turn it on there (ssl = on)").await;
    let says = ["postgres at localhost:", "speaks no TLS", "sslmode of postgres.url"];
    is_told(&world, "no_tls", &required, &says).await.unwrap();

    speak_tls(&world.pool, &to.authority, "server").await;
    let verified = to.verified(&to.authority);
    reads(&world, "by_name", &to.of(&login, "localhost", &verified), 1).await;
    reads(&world, "by_address", &to.of(&login, "127.0.0.1", &verified), 2).await;
    let shown = to.shown(certificate, &to.authority);
    reads(&world, "shown", &to.of(certificate, "localhost", &shown), 3).await;

    refuses(&world, &changed, &to, &login).await;
    are_told(&world, &changed, &to, &login).await;
    other_certificates_are_told(&world, &to, &login).await;
    changed.end(&world).await;
    remove(world).await;
}
