//! One scripted history of a database, and connectors that capture it: for the files of `tests/fixtures`, and for the
//! comparison of all encodings.
//!
//! `setup.sql` is what a snapshot reads, `stream.sql` what is streamed. Both run in order, and wait for conditions only.

pub(crate) mod connectors;

mod registry;

use std::collections::BTreeMap;
use std::time::Duration;

use afterwrite::clients::connect::ConnectClient;
use afterwrite::event::delivery::RawRecord;
use futures::stream::{self, StreamExt};
use sqlx::AssertSqlSafe;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool};

use self::connectors::{Connector, SOURCE, slot};
use crate::captures::{Capture, Captured};
use crate::producer;
use crate::removal;
use crate::stack::{address, until};
use crate::wal_reader::Reader;
use crate::world::{connect, with_database};

const SETUP: &str = include_str!("setup.sql");
const STREAM: &str = include_str!("stream.sql");

/// Topics of which the first records say all there is to say, by what their name holds, and how many are kept.
const CUT: [(&str, usize); 3] = [("heartbeat", 4), (".transaction", 12), (".dbz.signal_", 4)];

/// The publication of all tables.
const PUBLICATION: &str = "capture";

/// How long a connector may take to start or to catch up; all of them share two cores.
const PATIENCE: Duration = Duration::from_secs(180);

/// How many topics are read at once: reading a short topic is mostly waiting for the broker.
const READ_AT_ONCE: usize = 8;

/// A database with its connectors.
pub(crate) struct Scenario {
    pub(crate) pool: PgPool,
    database: String,
    /// What every topic and every connector of this run begins with.
    prefix: String,
    connectors: Vec<Connector>,
    connect: ConnectClient,
}

impl Scenario {
    /// Makes the database, runs the setup and what comes with it, and waits until every connector streams.
    pub(crate) async fn begin(database: &str, prefix: &str, connectors: &[Connector], more_setup: &str) -> Self {
        let admin = connect(&address("DATABASE_URL")).await;
        run(&admin, &format!("CREATE DATABASE {database}")).await;
        let url = with_database(&address("DATABASE_URL"), database);
        let connect_url = address("CONNECT_URL").parse().unwrap();
        let scenario = Self {
            pool: connect(&url).await,
            database: database.to_owned(),
            prefix: prefix.to_owned(),
            connectors: connectors.to_vec(),
            connect: ConnectClient::new(connect_url, Duration::from_secs(30)).unwrap(),
        };
        let tables: String = connectors.iter().map(Connector::tables).collect();
        let publication = format!("CREATE PUBLICATION {PUBLICATION} FOR ALL TABLES;");
        for part in [SETUP, more_setup, &tables, &publication] {
            run(&scenario.pool, part).await;
        }
        let user = url.parse::<PgConnectOptions>().unwrap().get_username().to_owned();
        for connector in connectors {
            let name = scenario.topics(connector);
            let config = connector.config(database, &user, &name);
            until("Connect to take a connector", PATIENCE, async || {
                scenario.connect.put_config(&name, &config).await.ok()
            })
            .await;
        }
        scenario.wait("every connector to stream", "active").await;
        scenario
    }

    /// Runs what is streamed.
    pub(crate) async fn stream(&self) {
        let mut connection = self.pool.acquire().await.unwrap();
        for (number, step) in STREAM.split("\n-- WAIT\n").enumerate() {
            if number > 0 {
                self.catch_up().await;
            }
            run_step(&mut connection, step).await;
        }
        self.catch_up().await;
    }

    /// Asks each connector to read two tables again, in windows between what is streamed, and waits until it has.
    pub(crate) async fn snapshot_incrementally(&self) {
        for connector in &self.connectors {
            let signal = r#"{"data-collections": ["public.campaigns", "public.users"], "type": "incremental"}"#;
            let insert = format!(
                "INSERT INTO dbz.signal_{} VALUES ('again', 'execute-snapshot', $1)",
                connector.name
            );
            let insert = sqlx::query(AssertSqlSafe(insert)).bind(signal);
            insert.execute(&self.pool).await.unwrap();
        }
        for connector in &self.connectors {
            let topic = format!("{}.notifications", self.topics(connector));
            until("the incremental snapshot", PATIENCE, async || {
                self.check().await;
                let records = producer::read_all(&topic).await;
                let is_end = |record: &producer::Record| {
                    let text = String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned();
                    text.contains("Incremental Snapshot") && text.replace("SCAN_COMPLETED", "").contains("COMPLETED")
                };
                records.iter().any(is_end).then_some(())
            })
            .await;
        }
        self.finish().await;
    }

    /// Marks the end of the history.
    pub(crate) async fn finish(&self) {
        run(&self.pool, "INSERT INTO finished VALUES (1)").await;
        self.catch_up().await;
    }

    fn log_slot(&self) -> String {
        format!("{}_wal", self.database)
    }

    /// Reads the log beside the connectors, without Kafka.
    pub(crate) async fn read_log(&self, source: &str) -> Reader {
        let url = with_database(&address("DATABASE_URL"), &self.database);
        let migrated = tokio::process::Command::new(env!("CARGO_BIN_EXE_afterwrite"))
            .args(["migrate", "--publication", "skip"])
            .env("DATABASE_URL", &url)
            .status();
        assert!(migrated.await.unwrap().success());
        Reader::begin(&self.pool, &url, source, PUBLICATION, &self.log_slot()).await
    }

    /// Waits until every connector has delivered, and noted down that it has, all that is written now.
    pub(crate) async fn catch_up(&self) {
        let now: String = sqlx::query_scalar("SELECT pg_current_wal_insert_lsn()::text")
            .fetch_one(&self.pool)
            .await
            .unwrap();
        let behind = format!("confirmed_flush_lsn >= '{now}'");
        self.wait("every connector to catch up", &behind).await;
    }

    /// Waits until something is true of every connector's slot.
    async fn wait(&self, what: &str, condition: &str) {
        let all = self.connectors.len();
        let sql = format!(
            "SELECT count(*) FROM pg_replication_slots
             WHERE database = current_database() AND slot_name <> '{}' AND {condition}",
            self.log_slot()
        );
        until(what, PATIENCE, async || {
            self.check().await;
            let count: i64 = sqlx::query_scalar(AssertSqlSafe(sql.clone()))
                .fetch_one(&self.pool)
                .await
                .unwrap();
            (usize::try_from(count) == Ok(all)).then_some(())
        })
        .await;
    }

    /// Fails when a connector has.
    async fn check(&self) {
        for connector in &self.connectors {
            // Connect may be away for a moment: a test may have killed it.
            let Ok(Some(status)) = self.connect.status(&self.topics(connector)).await else {
                continue;
            };
            if let Some(part) = status.failed() {
                panic!(
                    "{} failed: {}",
                    connector.name,
                    part.trace.as_deref().unwrap_or_default()
                );
            }
        }
    }

    /// The name of a connector, which its topics begin with.
    fn topics(&self, connector: &Connector) -> String {
        format!("{}{}", self.prefix, connector.name)
    }

    /// The topics of a table, one of each connector.
    pub(crate) fn topics_of(&self, table: &str) -> Vec<String> {
        let name = |connector| format!("{}.{SOURCE}.public.{table}", self.topics(connector));
        self.connectors.iter().map(name).collect()
    }

    /// Everything that the connectors have written, by the names of their captures; topics lose the prefix of this run.
    pub(crate) async fn captures(&self) -> BTreeMap<&'static str, Capture> {
        let mut captures = BTreeMap::new();
        for connector in &self.connectors {
            let topics = producer::topics(&format!("{}.", self.topics(connector)));
            let reading = topics.into_iter().map(|topic| async move {
                let records = producer::read_beside(&topic).await;
                records
                    .into_iter()
                    .map(|record| self.captured(&topic, record))
                    .collect::<Vec<_>>()
            });
            let read: Vec<Vec<Captured>> = stream::iter(reading).buffered(READ_AT_ONCE).collect().await;
            let mut records = read.concat();
            records.sort_by(|one, other| {
                (&one.topic, one.partition, one.offset).cmp(&(&other.topic, other.partition, other.offset))
            });
            let schemas = registry::schemas(&records).await;
            captures.insert(connector.name, Capture { records, schemas });
        }
        captures
    }

    fn captured(&self, topic: &str, record: producer::Record) -> Captured {
        let headers = record.headers.into_iter();
        Captured {
            topic: topic[self.prefix.len()..].to_owned(),
            partition: record.partition,
            offset: record.offset,
            raw: RawRecord {
                key: record.key.map(Into::into),
                value: record.value.map(Into::into),
                headers: headers.map(|(name, value)| (name, value.map(Into::into))).collect(),
                timestamp_ms: record.timestamp_ms,
            },
        }
    }

    /// Removes the connectors, their slots, the topics and the database.
    pub(crate) async fn remove(self) {
        for connector in &self.connectors {
            let name = self.topics(connector);
            until("Connect to delete a connector", PATIENCE, async || {
                self.connect.delete(&name).await.ok()
            })
            .await;
        }
        for connector in &self.connectors {
            until("the slot to be free", PATIENCE, async || {
                let dropped = sqlx::query("SELECT pg_drop_replication_slot($1)");
                let dropped = dropped.bind(slot(&self.database, connector.name));
                dropped.execute(&self.pool).await.ok()
            })
            .await;
        }
        sqlx::query(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database()",
        )
        .execute(&self.pool)
        .await
        .unwrap();
        self.pool.close().await;
        for connector in &self.connectors {
            removal::of_topics(&address("KAFKA_BROKERS"), &self.topics(connector)).await;
        }
        let admin = connect(&address("DATABASE_URL")).await;
        run(&admin, &format!("DROP DATABASE {} WITH (FORCE)", self.database)).await;
    }
}

/// Leaves the first records of each topic that says the same again and again.
pub(crate) fn cut(capture: &mut Capture) {
    let mut kept: BTreeMap<String, usize> = BTreeMap::new();
    capture.records.retain(|record| {
        let Some((_, most)) = CUT.iter().find(|(part, _)| record.topic.contains(part)) else {
            return true;
        };
        let count = kept.entry(record.topic.clone()).or_default();
        *count += 1;
        *count <= *most
    });
}

/// Runs statements as one text.
async fn run(pool: &PgPool, sql: &str) {
    let ran = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(pool).await;
    ran.unwrap();
}

/// Runs statements; `COPY … FROM STDIN;` is followed by its rows and a line `\.`, as for psql.
pub(crate) async fn run_step(connection: &mut PgConnection, step: &str) {
    let mut rest = step;
    while let Some(start) = rest.find("\nCOPY ") {
        let (before, copy) = rest.split_at(start + 1);
        execute(connection, before).await;
        let (statement, rows) = copy.split_once(";\n").unwrap();
        let (rows, after) = rows.split_once("\\.").unwrap();
        let mut copying = connection.copy_in_raw(statement).await.unwrap();
        copying.send(rows.as_bytes()).await.unwrap();
        copying.finish().await.unwrap();
        rest = after;
    }
    execute(connection, rest).await;
}

/// Statement after statement: what stands in one text would be one transaction.
async fn execute(connection: &mut PgConnection, sql: &str) {
    for statement in statements(sql) {
        let ran = sqlx::raw_sql(AssertSqlSafe(statement.clone()))
            .execute(&mut *connection)
            .await;
        ran.unwrap_or_else(|error| panic!("{error}: {statement}"));
    }
}

/// The statements of a script; each ends with a semicolon at the end of a line.
fn statements(sql: &str) -> Vec<String> {
    let lines = sql.lines().filter(|line| !line.starts_with("--"));
    let code: Vec<&str> = lines.collect();
    let statements = code.join("\n");
    let parts = statements.split(";\n").map(|statement| statement.trim().to_owned());
    parts.filter(|statement| !statement.is_empty()).collect()
}
