//! Databases of tests, one each.

use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use uuid::Uuid;

use crate::world::env;

/// Makes an empty database, and takes it away again, whatever came.
pub(crate) async fn in_database(test: impl AsyncFnOnce(String, PgConnectOptions)) {
    let name = format!("handlers_{}", Uuid::new_v4().simple());
    let options: PgConnectOptions = env("DATABASE_URL").parse().expect("DATABASE_URL is a Postgres URL");
    let admin = PgPoolOptions::new()
        .max_connections(1)
        .connect_with(options.clone())
        .await
        .unwrap();
    // Roles belong to the whole cluster, and tests run side by side.
    let roles = include_str!("../../infra/postgres/roles.sql");
    run(
        &admin,
        &format!("BEGIN; SELECT pg_advisory_xact_lock(7); {roles}; COMMIT"),
    )
    .await;
    run(&admin, &format!("CREATE DATABASE {name}")).await;
    let ended = AssertUnwindSafe(test(name.clone(), options.database(&name)))
        .catch_unwind()
        .await;
    run(&admin, &format!("DROP DATABASE {name} WITH (FORCE)")).await;
    if let Err(panic) = ended {
        std::panic::resume_unwind(panic);
    }
}

pub(crate) async fn run(pool: &PgPool, sql: &str) {
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned()))
        .execute(pool)
        .await
        .unwrap();
}
