//! `afterwrite migrate` by several processes at once: one works, the others wait and find nothing to do.

use futures::future::join_all;
use serde_json::Value;
use sqlx::postgres::PgPool;

use crate::database::{in_database, run};

const AT_ONCE: usize = 4;

#[tokio::test]
async fn processes_that_migrate_at_once_apply_everything_once() {
    in_database(async |_, options| {
        let pool = PgPool::connect_with(options.clone()).await.unwrap();
        run(&pool, include_str!("../../infra/postgres/waitlist.sql")).await;
        let url = sqlx::ConnectOptions::to_url_lossy(&options);
        let migrate = async || -> Value {
            let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_afterwrite"));
            let command = command.args(["migrate", "--publication", "require", "--output", "json"]);
            let output = command.env("DATABASE_URL", url.as_str()).output().await.unwrap();
            assert!(output.status.success(), "{output:?}");
            serde_json::from_slice(&output.stdout).unwrap()
        };
        let reports = join_all((0..AT_ONCE).map(|_| migrate())).await;
        let applied: i64 = sqlx::query_scalar("SELECT count(*) FROM afterwrite.migrations WHERE success")
            .fetch_one(&pool)
            .await
            .unwrap();
        let by_each = reports.iter().map(|report| report["applied"].as_array().unwrap().len());
        assert!(
            applied > 0 && by_each.max() == usize::try_from(applied).ok(),
            "{reports:?}"
        );
        for report in &reports {
            assert_eq!(report["publication"]["state"], "applied", "{report}");
        }
        let again = migrate().await;
        assert_eq!(
            (again["applied"].as_array().unwrap().len(), &again["present"]),
            (0, &applied.into())
        );
        pool.close().await;
    })
    .await;
}
