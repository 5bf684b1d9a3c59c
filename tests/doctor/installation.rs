//! One installation of the waitlist: a database, its roles, the connector, a worker; and the doctor that looks at it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Map, Value, json};
use sqlx::postgres::{PgConnection, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection};

use crate::own_server::OwnServer;
use crate::patience::until;
use crate::removal;

/// An address from `infra/native/stack env`.
pub(crate) fn address(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: start the stack and export what `infra/native/stack env` prints")
    })
}

/// What the doctor said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) report: Value,
}

impl Said {
    /// The codes of what was found.
    pub(crate) fn codes(&self) -> Vec<&str> {
        self.findings()
            .map(|finding| finding["code"].as_str().unwrap())
            .collect()
    }

    pub(crate) fn findings(&self) -> impl Iterator<Item = &Value> {
        self.report["findings"].as_array().unwrap().iter()
    }

    pub(crate) fn is_silent(&self) -> bool {
        self.code == 0 && self.codes().is_empty() && self.report["unchecked"] == json!([])
    }
}

/// An installation, and the process that runs its groups.
pub(crate) struct Installation {
    /// Its name: that of the database, the connector, the source and the groups.
    pub(crate) name: String,
    /// The database, as its owner.
    pub(crate) owner: PgPool,
    owner_url: String,
    worker_url: String,
    file: PathBuf,
    settings: Vec<(&'static str, String)>,
    worker: Option<Child>,
    /// Sessions in which a transaction is open.
    open: Vec<PgConnection>,
    /// Sessions that may read the log.
    senders: Vec<Child>,
    /// The server, where it is nobody else's. Dropped last.
    server: Option<OwnServer>,
}

impl Installation {
    /// Tables, roles, publication.
    pub(crate) async fn new(kind: &str, server: Option<OwnServer>) -> Self {
        let name = format!("doctor_{}", &uuid::Uuid::new_v4().simple().to_string()[..8]);
        let server_url = server.as_ref().map_or_else(|| address("DATABASE_URL"), OwnServer::url);
        let admin = connect(&server_url).await;
        execute(&admin, &format!("CREATE DATABASE {name}")).await;
        admin.close().await;
        let owner_url = with_database(&server_url, &name);
        let this = Self {
            owner: connect(&owner_url).await,
            worker_url: as_role(&owner_url, "afterwrite_worker"),
            file: std::env::temp_dir().join(format!("{name}.json")),
            settings: vec![
                ("AFTERWRITE__SOURCE__KIND", kind.to_owned()),
                ("AFTERWRITE__WAL__URL", as_role(&owner_url, "debezium")),
            ],
            worker: None,
            open: Vec::new(),
            senders: Vec::new(),
            server,
            owner_url,
            name,
        };
        for file in ["infra/postgres/roles.sql", "infra/postgres/waitlist.sql"] {
            let sql = std::fs::read_to_string(in_repository(file)).unwrap();
            execute(&this.owner, &sql).await;
        }
        this.shell("afterwrite migrate --publication require").await;
        this
    }

    /// Deploys a connector of this repository under the name of the installation.
    pub(crate) async fn deploy(&self, file: &str) {
        let file = std::fs::read_to_string(in_repository(file)).unwrap();
        let mut config: Map<String, Value> = serde_json::from_str(&file).unwrap();
        let prefix = config["topic.prefix"].as_str().unwrap().to_owned();
        let pattern = config["predicates.ofACampaign.pattern"]
            .as_str()
            .unwrap()
            .replacen(&prefix, &self.name, 1);
        for (key, value) in [
            ("name", self.name.as_str()),
            ("topic.prefix", &self.name),
            ("slot.name", &self.name),
            ("database.dbname", &self.name),
            ("database.user", "debezium"),
            // Nothing but what is written here is to be read meanwhile.
            ("heartbeat.interval.ms", "300000"),
            ("predicates.ofACampaign.pattern", &pattern),
        ] {
            config.insert(key.to_owned(), json!(value));
        }
        std::fs::write(&self.file, serde_json::to_vec(&config).unwrap()).unwrap();
        self.apply().await;
    }

    /// `afterwrite connector apply`, with the file of this installation.
    pub(crate) async fn apply(&self) {
        self.shell(&format!(
            "afterwrite connector apply {} --wait-s 60",
            self.file.display()
        ))
        .await;
    }

    /// Signs somebody up, so that every topic of the way is there.
    pub(crate) async fn sign_up(&self) {
        execute(
            &self.owner,
            "WITH campaign AS (
                 INSERT INTO campaigns (account_id, name, slug, status, verification_required)
                 VALUES (gen_random_uuid(), 'Launch', 'launch', 'active', false) RETURNING id)
             INSERT INTO waitlist_users (campaign_id, email, referral_code)
             SELECT id, 'ann@example.com', 'ANN1' FROM campaign",
        )
        .await;
        until("the mail", Duration::from_secs(60), async || {
            let sent = "SELECT count(*) FROM email_log WHERE status = 'sent'";
            let sent: i64 = sqlx::query_scalar(sent).fetch_one(&self.owner).await.unwrap();
            (sent == 1).then_some(())
        })
        .await;
    }

    /// Begins a transaction with this statement, in a session that stays until somebody ends it; answers which process that is.
    pub(crate) async fn open(&mut self, sql: &str) -> i32 {
        let mut session = PgConnection::connect(&self.owner_url).await.unwrap();
        let begin = format!("BEGIN; {sql}");
        sqlx::raw_sql(AssertSqlSafe(begin)).execute(&mut session).await.unwrap();
        let pid = sqlx::query_scalar("SELECT pg_backend_pid()")
            .fetch_one(&mut session)
            .await;
        self.open.push(session);
        pid.unwrap()
    }

    /// Opens sessions that may read the log, as many as there may still be.
    pub(crate) async fn open_senders(&mut self) {
        let left = "SELECT current_setting('max_wal_senders')::bigint - (SELECT count(*) FROM pg_stat_replication)";
        let left: i64 = sqlx::query_scalar(left).fetch_one(&self.owner).await.unwrap();
        for _ in 0..left {
            let mut session = Command::new("psql");
            session
                .arg(format!("{}?replication=database", self.owner_url))
                .stdin(Stdio::piped());
            self.senders
                .push(session.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        }
    }

    pub(crate) fn close_senders(&mut self) {
        for mut session in self.senders.drain(..) {
            session.kill().unwrap();
            session.wait().unwrap();
        }
    }

    /// Changes settings of the installation's own server, and restarts it.
    pub(crate) async fn restart_server(&self, sql: &str) {
        if !sql.is_empty() {
            execute(&self.owner, sql).await;
        }
        let server = self.server.as_ref().expect("a server that others use is not restarted");
        tokio::task::block_in_place(|| server.restart());
    }

    /// The address of the database as its owner, in sessions with this search_path.
    pub(crate) fn owner_url_through(&self, search_path: &str) -> String {
        let mut url: url::Url = self.owner_url.parse().unwrap();
        url.query_pairs_mut()
            .append_pair("options", &format!("-c search_path={search_path}"));
        url.into()
    }

    /// The address of another database of the server, as the worker.
    pub(crate) fn worker_url_of(&self, database: &str) -> String {
        with_database(&self.worker_url, database)
    }

    /// Starts the worker, when it does not run.
    pub(crate) fn start(&mut self) {
        if self.worker.is_some() {
            return;
        }
        let log = std::fs::File::create(std::env::temp_dir().join(format!("{}.log", self.name))).unwrap();
        let mut command = self.command(&self.worker_url);
        command
            .arg("run")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        self.worker = Some(command.spawn().unwrap());
    }

    /// Stops the worker in an orderly way.
    pub(crate) async fn stop(&mut self) {
        let mut worker = self.worker.take().unwrap();
        let pid = worker.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        until("the worker to stop", Duration::from_secs(40), async || {
            worker.try_wait().unwrap()
        })
        .await;
    }

    /// Asks the doctor, with these words and these variables on top.
    pub(crate) async fn doctor(&self, words: &[&str], settings: &[(&str, String)]) -> Said {
        let mut command = self.command(&self.worker_url);
        command
            .args(["doctor", "--output", "json"])
            .args(words)
            .envs(settings.iter().cloned());
        let output = tokio::task::spawn_blocking(move || command.output().unwrap())
            .await
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"));
        Said {
            code: output.status.code().unwrap(),
            report,
        }
    }

    /// Runs a command of a remedy, as the owner of the database. While Kafka Connect rebalances, because connectors of others come
    /// and go, it refuses; then it is run again, as whoever types it would.
    pub(crate) async fn shell(&self, text: &str) {
        until(text, Duration::from_secs(60), async || self.shell_once(text).await).await;
    }

    async fn shell_once(&self, text: &str) -> Option<()> {
        let binary = Path::new(env!("CARGO_BIN_EXE_afterwrite")).parent().unwrap();
        let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("sh");
        self.settle(&mut command, &self.owner_url);
        command.args(["-c", text]).env("PATH", path);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap())
            .await
            .unwrap();
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        let is_done = output.status.success();
        assert!(is_done || said.contains("409"), "{text}: {said}");
        is_done.then_some(())
    }

    fn command(&self, url: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_afterwrite"));
        self.settle(&mut command, url);
        command
    }

    fn settle(&self, command: &mut Command, url: &str) {
        command
            .env("DATABASE_URL", url)
            .env("KAFKA_BROKERS", address("KAFKA_BROKERS"))
            .env("CONNECT_URL", address("CONNECT_URL"))
            .env("AFTERWRITE__KAFKA__GROUP_PREFIX", &self.name)
            .env("AFTERWRITE__SOURCE__NAME", &self.name)
            .env("AFTERWRITE__KAFKA__SESSION_TIMEOUT_MS", "6000")
            .env("AFTERWRITE__KAFKA__HEARTBEAT_INTERVAL_MS", "1000")
            .env("AFTERWRITE__DEAD_LETTERS__REPLICATION_FACTOR", "1")
            .envs(self.settings.iter().cloned());
    }

    /// Where a request about the connector goes.
    pub(crate) fn connector_url(&self, path: &str) -> String {
        format!("{}/connectors/{}{path}", address("CONNECT_URL"), self.name)
    }

    /// Removes everything; an installation whose test failed stays for whoever looks into it.
    pub(crate) async fn remove(mut self) {
        if self.worker.is_some() {
            self.stop().await;
        }
        if self.file.exists() {
            self.shell(&format!("afterwrite connector delete {}", self.name)).await;
            std::fs::remove_file(&self.file).unwrap();
        }
        if self.server.is_some() {
            return;
        }
        removal::of_topics(&address("KAFKA_BROKERS"), &self.name).await;
        self.drop_slots().await;
        self.owner.close().await;
        let admin = connect(&address("DATABASE_URL")).await;
        execute(&admin, &format!("DROP DATABASE {} WITH (FORCE)", self.name)).await;
    }
}

impl Installation {
    /// Waits until a group reads a slot of its own: a process is known before it has made any.
    pub(crate) async fn has_slots(&self) {
        let read = "SELECT count(*) FROM afterwrite.slots
            JOIN pg_replication_slots USING (slot_name) WHERE database = current_database() AND active";
        until("a group to read its slot", Duration::from_secs(60), async || {
            let read: i64 = sqlx::query_scalar(read).fetch_one(&self.owner).await.unwrap();
            (read > 0).then_some(())
        })
        .await;
    }

    /// Drops the slots of this database, as soon as nobody reads them.
    pub(crate) async fn drop_slots(&self) {
        let drop =
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database()";
        until("the slots to be free", Duration::from_secs(60), async || {
            sqlx::raw_sql(drop).execute(&self.owner).await.ok().map(|_| ())
        })
        .await;
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        self.close_senders();
        if let Some(mut worker) = self.worker.take() {
            worker.kill().unwrap();
            worker.wait().unwrap();
        }
    }
}

/// Runs statements as psql does where they are typed into it: those that want no transaction one by one.
pub(crate) async fn execute(pool: &PgPool, sql: &str) {
    let statements: Vec<&str> = match sql.starts_with("ALTER SYSTEM") {
        true => sql.split_inclusive(';').collect(),
        false => vec![sql],
    };
    for statement in statements {
        let done = sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(pool).await;
        done.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
}

async fn connect(url: &str) -> PgPool {
    PgPoolOptions::new().max_connections(2).connect(url).await.unwrap()
}

fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn with_database(url: &str, database: &str) -> String {
    let mut url: url::Url = url.parse().unwrap();
    url.set_path(database);
    url.into()
}

fn as_role(url: &str, role: &str) -> String {
    let mut url: url::Url = url.parse().unwrap();
    url.set_username(role).unwrap();
    url.set_password(None).unwrap();
    url.into()
}
