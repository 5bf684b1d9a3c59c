//! A world of one test's own: a database with one table, the connector that captures it, and workers.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value, json};
use sqlx::AssertSqlSafe;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};

use crate::removal;
use crate::stack::{self, until};
use crate::worker::Worker;

/// What a test's database holds.
const SCHEMA: &str = "
    CREATE TABLE public.work (
        k int PRIMARY KEY, seq int NOT NULL, behaviour text NOT NULL DEFAULT 'ok', note text);
    ALTER TABLE public.work REPLICA IDENTITY FULL;
    CREATE TABLE public.effects (
        n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, k int NOT NULL, seq int NOT NULL, worker text NOT NULL,
        attempt int NOT NULL, replayed boolean NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp());
    CREATE TABLE public.attempts (k int NOT NULL, seq int NOT NULL, attempt int NOT NULL, at timestamptz NOT NULL
        DEFAULT clock_timestamp());
    CREATE TABLE public.mended (k int PRIMARY KEY);
    CREATE PUBLICATION it FOR TABLE public.work, afterwrite.heartbeat;";

/// A database, a connector, a group, and the workers of one test.
pub(crate) struct World {
    /// Unique name; also the connector's, its topic prefix and the database's.
    pub(crate) name: String,
    /// The test's database.
    pub(crate) pool: PgPool,
    url: String,
}

impl World {
    /// Makes a database with the table `work`. No connector yet.
    pub(crate) async fn bare(test: &str) -> Self {
        let world = Self::database(test).await;
        world.migrate("skip").await;
        sqlx::raw_sql(SCHEMA).execute(&world.pool).await.unwrap();
        world
    }

    /// Makes a database with the table `work` and starts capturing it.
    pub(crate) async fn captured(test: &str) -> Self {
        Self::captured_by(test, "waitlist", &[]).await
    }

    /// The same by another connector of this repository, with settings of its own.
    pub(crate) async fn captured_by(test: &str, connector: &str, settings: &[(&str, &str)]) -> Self {
        let world = Self::bare(test).await;
        world.capture(connector, settings).await;
        world
    }

    /// Starts capturing the table `work`, or changes the settings of what captures it.
    pub(crate) async fn capture(&self, connector: &str, settings: &[(&str, &str)]) {
        let (code, said) = self.deploy_connector(Self::of_work(connector, settings)).await;
        assert_eq!(code, 0, "the connector did not start: {said}");
    }

    /// A connector of this repository that captures the table `work`.
    pub(crate) fn of_work(connector: &str, settings: &[(&str, &str)]) -> Map<String, Value> {
        let mut config = connector_config(connector);
        config.retain(|key, _| {
            !["transforms", "predicates", "column.exclude", "signal"]
                .iter()
                .any(|prefix| key.starts_with(prefix))
        });
        let ours = [
            ("publication.name", "it"),
            ("table.include.list", "public\\.work,afterwrite\\.heartbeat"),
        ];
        config.extend(
            ours.iter()
                .chain(settings)
                .map(|(key, value)| ((*key).to_owned(), json!(value))),
        );
        config
    }

    /// Makes a database with the waitlist's tables and starts capturing them as in production.
    pub(crate) async fn waitlist(test: &str) -> Self {
        let world = Self::waitlist_alone(test).await;
        let (code, said) = world.deploy_connector(world.of_waitlist()).await;
        assert_eq!(code, 0, "the connector did not start: {said}");
        world
    }

    /// Makes a database with the waitlist's tables. No connector yet.
    pub(crate) async fn waitlist_alone(test: &str) -> Self {
        let world = Self::database(test).await;
        let tables = std::fs::read_to_string(in_repository("infra/postgres/waitlist.sql")).unwrap();
        sqlx::raw_sql(AssertSqlSafe(tables)).execute(&world.pool).await.unwrap();
        world.migrate("require").await;
        world
    }

    /// The connector of this repository, as in production.
    pub(crate) fn of_waitlist(&self) -> Map<String, Value> {
        let mut config = connector_config("waitlist");
        let pattern = &mut config["predicates.ofACampaign.pattern"];
        *pattern = json!(pattern.as_str().unwrap().replacen("waitlist", &self.name, 1));
        config
    }

    async fn database(test: &str) -> Self {
        let name = format!("it_{test}_{}", &uuid::Uuid::new_v4().simple().to_string()[..8]);
        let admin = connect(&stack::address("DATABASE_URL")).await;
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}")))
            .execute(&admin)
            .await
            .unwrap();
        let url = with_database(&stack::address("DATABASE_URL"), &name);
        Self {
            pool: connect(&url).await,
            name,
            url,
        }
    }

    async fn migrate(&self, publication: &str) {
        let (code, said) = self.afterwrite(&["migrate", "--publication", publication]).await;
        assert_eq!(code, 0, "migrate failed: {said}");
    }

    /// Where the database is.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The topic of the table.
    pub(crate) fn topic(&self) -> String {
        format!("{}.public.work", self.name)
    }

    /// The name of the group.
    pub(crate) fn group(&self) -> String {
        self.group_of("recorder")
    }

    /// The name of a handler's group.
    pub(crate) fn group_of(&self, handler: &str) -> String {
        format!("{}.{handler}", self.name)
    }

    /// Points a connector's configuration at this world and applies it; answers as `afterwrite connector apply` does.
    pub(crate) async fn deploy_connector(&self, config: Map<String, Value>) -> (i32, String) {
        let file = self.connector_file(config);
        self.afterwrite(&["connector", "apply", file.to_str().unwrap(), "--wait-s", "60"])
            .await
    }

    /// Points a connector's configuration at this world; answers the file that holds it.
    pub(crate) fn connector_file(&self, mut config: Map<String, Value>) -> PathBuf {
        let options: PgConnectOptions = self.url.parse().unwrap();
        for (key, value) in [
            ("name", self.name.as_str()),
            ("topic.prefix", &self.name),
            ("slot.name", &self.name),
            ("database.dbname", &self.name),
            ("database.user", options.get_username()),
            ("heartbeat.interval.ms", "1000"),
        ] {
            config.insert(key.to_owned(), json!(value));
        }
        let file = std::env::temp_dir().join(format!("{}.json", self.name));
        std::fs::write(&file, serde_json::to_vec(&config).unwrap()).unwrap();
        file
    }

    /// Starts a worker with the recording handler.
    pub(crate) fn worker(&self, name: &str, settings: &[(&str, &str)]) -> Worker {
        Worker::recording(self, name, settings)
    }

    /// A campaign that one can sign up for.
    pub(crate) async fn launch(&self) {
        sqlx::query(
            "INSERT INTO campaigns (account_id, name, slug, status, verification_required)
             VALUES (gen_random_uuid(), 'Launch', 'launch', 'active', true)",
        )
        .execute(&self.pool)
        .await
        .unwrap();
    }

    /// Five who sign up for the campaign.
    pub(crate) async fn sign_up_five(&self) {
        sqlx::query(
            "INSERT INTO waitlist_users (campaign_id, email, first_name, referral_code, verification_token, status)
             SELECT c.id, 'user' || n || '@' || $1 || '.example', 'Ada', 'code-' || n, 'token-' || n, 'pending'
             FROM campaigns c, generate_series(1, 5) n",
        )
        .bind(self.name.replace('_', "-"))
        .execute(&self.pool)
        .await
        .unwrap();
    }

    /// Counts rows.
    pub(crate) async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap()
    }

    /// Runs `afterwrite` against this world; answers its exit code and its standard output.
    pub(crate) async fn afterwrite(&self, arguments: &[&str]) -> (i32, String) {
        let output = self
            .command(env!("CARGO_BIN_EXE_afterwrite"))
            .args(arguments)
            .output()
            .await
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let code = output
            .status
            .code()
            .unwrap_or_else(|| panic!("afterwrite {arguments:?} was killed: {said}"));
        assert!(code < 2, "afterwrite {arguments:?} could not do its work: {said}");
        // Shown when the test fails.
        print!("{said}");
        (code, String::from_utf8(output.stdout).unwrap())
    }

    /// Runs `afterwrite` with one setting more; answers its exit code, its standard output and its standard error.
    pub(crate) async fn said(&self, arguments: &[&str], setting: (&str, &str)) -> (Option<i32>, String, String) {
        let mut command = self.command(env!("CARGO_BIN_EXE_afterwrite"));
        let output = command
            .args(arguments)
            .env(setting.0, setting.1)
            .output()
            .await
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    /// A command with the settings that point a process at this world.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(program);
        command
            .env("DATABASE_URL", &self.url)
            .env("KAFKA_BROKERS", stack::address("KAFKA_BROKERS"))
            .env("CONNECT_URL", stack::address("CONNECT_URL"))
            .env("AFTERWRITE__KAFKA__GROUP_PREFIX", &self.name)
            .env("AFTERWRITE__SOURCE__NAME", &self.name)
            .env("AFTERWRITE__KAFKA__SESSION_TIMEOUT_MS", "3000")
            .env("AFTERWRITE__KAFKA__HEARTBEAT_INTERVAL_MS", "500")
            .env("AFTERWRITE__ENGINE__COMMIT_INTERVAL_MS", "200")
            .env("AFTERWRITE__ENGINE__EFFECT_LEASE_MS", "35000")
            .env("AFTERWRITE__DEAD_LETTERS__REPLICATION_FACTOR", "1");
        command
    }

    /// Removes the connector, its slot, the topics and the database. A test that failed leaves them for whoever looks into it.
    pub(crate) async fn remove(self) {
        self.remove_connector().await;
        removal::of_topics(&stack::address("KAFKA_BROKERS"), &self.name).await;
        self.remove_database().await;
    }

    async fn remove_connector(&self) {
        let slot = "SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1)";
        let deployed: bool = sqlx::query_scalar(slot)
            .bind(&self.name)
            .fetch_one(&self.pool)
            .await
            .unwrap();
        if deployed {
            let (code, said) = self.afterwrite(&["connector", "delete", &self.name]).await;
            assert_eq!(code, 0, "the connector could not be deleted: {said}");
        }
        until("the slot to be free", Duration::from_secs(60), async || {
            let dropped = sqlx::query(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1",
            );
            dropped.bind(&self.name).execute(&self.pool).await.ok().map(|_| ())
        })
        .await;
    }

    /// Removes the database, of a world that has nothing in Kafka.
    pub(crate) async fn remove_database(self) {
        self.pool.close().await;
        let admin = connect(&stack::address("DATABASE_URL")).await;
        let drop = format!("DROP DATABASE {} WITH (FORCE)", self.name);
        sqlx::query(AssertSqlSafe(drop)).execute(&admin).await.unwrap();
    }
}

fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The configuration of one of this repository's connectors.
pub(crate) fn connector_config(name: &str) -> Map<String, Value> {
    let file = in_repository(&format!("connectors/{name}.json"));
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

pub(crate) async fn connect(url: &str) -> PgPool {
    PgPoolOptions::new().max_connections(4).connect(url).await.unwrap()
}

pub(crate) fn with_database(url: &str, database: &str) -> String {
    let (before, rest) = url.rsplit_once('/').unwrap();
    let query = rest
        .split_once('?')
        .map(|(_, query)| format!("?{query}"))
        .unwrap_or_default();
    format!("{before}/{database}{query}")
}
