//! `afterwrite demo --database-url`: played in a server that is somebody's, and gone from it however it ends.

use std::process::Stdio;
use std::time::Duration;

use sqlx::AssertSqlSafe;
use sqlx::postgres::{PgConnectOptions, PgPool};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::stack;
use crate::world;

/// What a demo makes in a server: databases and slots, both called like the demo.
async fn left(server: &PgPool) -> Vec<String> {
    let query = "SELECT datname::text FROM pg_database WHERE datname LIKE 'afterwrite\\_demo\\_%'
        UNION ALL SELECT slot_name::text FROM pg_replication_slots WHERE slot_name LIKE 'afterwrite\\_demo\\_%'";
    sqlx::query_scalar(query).fetch_all(server).await.unwrap()
}

/// What everybody in the server shares, and what is in somebody's database.
async fn belongings(server: &PgPool) -> Vec<String> {
    // Tests beside this one make roles and databases of their own.
    let query = "SELECT 'role ' || rolname FROM pg_roles WHERE rolname ~ 'afterwrite|demo|debezium'
        UNION ALL SELECT 'setting ' || setconfig::text FROM pg_db_role_setting WHERE setdatabase = 0
        UNION ALL SELECT 'table ' || oid::regclass || ' ' || pg_relation_size(oid) FROM pg_class
            WHERE relnamespace NOT IN ('pg_catalog'::regnamespace, 'pg_toast'::regnamespace)
        UNION ALL SELECT 'publication ' || pubname FROM pg_publication ORDER BY 1";
    sqlx::query_scalar(query).fetch_all(server).await.unwrap()
}

fn demo(url: &str, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_afterwrite"));
    command
        .args(["demo", "--database-url"])
        .args(words)
        .env("DATABASE_URL", url)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

async fn said(command: &mut Command) -> (Option<i32>, String) {
    let output = command.output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout) + &text(output.stderr))
}

/// Starts a demo and waits until it has shown this line.
async fn until_it_shows(url: &str, what: &str) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut child = demo(url, &[]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let showing = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains(what) {
                return;
            }
        }
        panic!("the demo ended before it showed {what:?}");
    };
    tokio::time::timeout(Duration::from_secs(60), showing).await.unwrap();
    (child, lines)
}

/// One test and not several: a clone has one demo at a time.
#[tokio::test(flavor = "multi_thread")]
async fn in_somebodys_server_the_demo_touches_nothing_and_leaves_nothing_however_it_ends() {
    let _stack = stack::shared().await;
    let home = world::World::bare("demo").await;
    let (server, url) = (&home.pool, home.url());
    let before = belongings(server).await;

    let (code, told) = said(&mut demo(url, &["--output", "json"])).await;
    assert_eq!(code, Some(0), "{told}");
    for part in [
        "a database of the demo's own, afterwrite_demo_",
        "\"mails\":12",
        "dropped, with its replication slots",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert_eq!(left(server).await, Vec::<String>::new());

    // Ctrl-C in the middle.
    let (mut child, mut lines) = until_it_shows(url, "4/6").await;
    assert!(left(server).await.len() > 4);
    signal(&child, "-INT").await;
    while lines.next_line().await.unwrap().is_some() {}
    assert_eq!(child.wait().await.unwrap().code(), Some(1));
    assert_eq!(left(server).await, Vec::<String>::new());

    // Killed it can drop nothing; the next one of the clone does.
    let (mut child, _lines) = until_it_shows(url, "4/6").await;
    child.kill().await.unwrap();
    let name = left(server).await.into_iter().min().unwrap();
    let (code, told) = said(&mut demo(url, &[])).await;
    assert_eq!(code, Some(0), "{told}");
    assert!(
        told.contains(&format!("left the database {name} behind: dropped")),
        "{told}"
    );
    assert_eq!(left(server).await, Vec::<String>::new());

    a_role_without_rights_is_told_what_it_needs(server, url).await;
    assert_eq!(belongings(server).await, before);
    home.remove().await;
}

async fn a_role_without_rights_is_told_what_it_needs(server: &PgPool, url: &str) {
    let role = format!("weak_{}", &uuid::Uuid::new_v4().simple().to_string()[..8]);
    run(server, &format!("CREATE ROLE {role} LOGIN PASSWORD 's3cret'")).await;
    let options: PgConnectOptions = url.parse().unwrap();
    let place = format!(
        "{}:{}/{}",
        options.get_host(),
        options.get_port(),
        options.get_database().unwrap()
    );
    let (code, told) = said(&mut demo(&format!("postgres://{role}:s3cret@{place}"), &[])).await;
    assert_eq!(code, Some(1), "{told}");
    for part in [
        format!("ALTER ROLE {role} CREATEDB"),
        format!("ALTER ROLE {role} REPLICATION"),
    ] {
        assert!(told.contains(&part), "{part}: {told}");
    }
    assert!(!told.contains("s3cret"), "{told}");
    assert_eq!(left(server).await, Vec::<String>::new());
    run(server, &format!("DROP ROLE {role}")).await;
}

async fn run(server: &PgPool, sql: &str) {
    let ran = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(server).await;
    ran.unwrap();
}

async fn signal(child: &Child, word: &str) {
    let pid = child.id().unwrap().to_string();
    assert!(
        Command::new("kill")
            .args([word, &pid])
            .status()
            .await
            .unwrap()
            .success()
    );
}
