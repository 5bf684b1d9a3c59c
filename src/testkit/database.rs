//! A database of its own for each test, in the server of `DATABASE_URL`: tests run side by side and see nothing of each other.
//!
//! It has what `afterwrite migrate` makes, and the tables that the test brings. It is gone when the value is dropped, also when the
//! test panics; one that a killed test left behind is called `kit_…` and may be dropped by hand.
//!
//! ```no_run
//! # async fn example() {
//! use afterwrite::testkit::database::Database;
//!
//! let database = Database::new("CREATE TABLE orders (id int PRIMARY KEY, status text NOT NULL)").await;
//! database.run("INSERT INTO orders VALUES (1, 'paid')").await;
//! assert_eq!(database.count("orders WHERE status = 'paid'").await, 1);
//! assert_eq!(database.text("SELECT status FROM orders").await.as_deref(), Some("paid"));
//! # }
//! ```

use std::thread;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
use uuid::Uuid;

use crate::cli::migrate;

/// Sessions of the test itself; the handler has its own.
const CONNECTIONS_MAX: u32 = 4;

/// One database.
#[derive(Debug)]
pub struct Database {
    name: String,
    server: PgConnectOptions,
    pool: PgPool,
}

impl Database {
    /// Makes a database, migrates it, and runs `sql` in it.
    ///
    /// # Panics
    /// When `DATABASE_URL` is not set, its role may not make databases, or `sql` fails.
    pub async fn new(sql: &str) -> Self {
        let url = std::env::var("DATABASE_URL").expect(
            "set DATABASE_URL to a Postgres in which databases may be made, such as postgres://localhost/postgres",
        );
        let server: PgConnectOptions = url.parse().expect("DATABASE_URL is the address of a Postgres");
        let name = format!("kit_{}", Uuid::new_v4().simple());
        let mut session = server.connect().await.expect("the Postgres of DATABASE_URL answers");
        execute(&mut session, &format!("CREATE DATABASE {name}")).await;
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS_MAX)
            .connect_lazy_with(server.clone().database(&name));
        let database = Self { name, server, pool };
        migrate::coordination(database.pool())
            .await
            .expect("a new database can be migrated");
        database.run(sql).await;
        database
    }

    /// Sessions of the owner.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// The address that other sessions are opened with.
    pub fn options(&self) -> PgConnectOptions {
        self.server.clone().database(&self.name)
    }

    /// Runs SQL, any number of statements.
    ///
    /// # Panics
    /// When it fails.
    pub async fn run(&self, sql: &str) {
        let run = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&self.pool).await;
        run.unwrap_or_else(|error| panic!("{sql}\n{error}"));
    }

    /// How many rows there are: `count("orders WHERE status = 'paid'")`.
    ///
    /// # Panics
    /// When it fails.
    pub async fn count(&self, from: &str) -> i64 {
        let sql = format!("SELECT count(*) FROM {from}");
        let counted = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&self.pool).await;
        counted.unwrap_or_else(|error| panic!("{from}\n{error}"))
    }

    /// One value as text, of the first row that a query answers; `None` where there is no row, or a null.
    ///
    /// # Panics
    /// When it fails.
    pub async fn text(&self, query: &str) -> Option<String> {
        let sql = format!("SELECT ({query} LIMIT 1)::text");
        let found: Result<Option<String>, sqlx::Error> =
            sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&self.pool).await;
        found.unwrap_or_else(|error| panic!("{query}\n{error}"))
    }
}

async fn execute(session: &mut PgConnection, sql: &str) {
    let executed = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(session).await;
    executed.unwrap_or_else(|error| panic!("{sql}\n{error}"));
}

impl Drop for Database {
    /// A destructor cannot wait for the test's own runtime, which may be the only thread there is.
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        let dropping = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let mut session = server.connect().await.map_err(std::io::Error::other)?;
                let drop = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
                let dropped = sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut session).await;
                dropped.map_err(std::io::Error::other)?;
                session.close().await.map_err(std::io::Error::other)
            })
        });
        match dropping.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, database = self.name, "the database of a test was not dropped"),
            Err(_) => tracing::warn!(database = self.name, "the database of a test was not dropped"),
        }
    }
}
