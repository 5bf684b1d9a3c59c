//! Tables without a primary key: a worker that is routed to one does not start, unless the route says that it may.

use std::sync::Arc;

use afterwrite::app::{self, keyless};
use afterwrite::config::load::{Inputs, load};
use afterwrite::event::change::ChangeEvent;
use afterwrite::handler::{Context, Handler, HandlerError, Keyless, Ordering, Outcome, Route, Spec};
use async_trait::async_trait;
use sqlx::postgres::PgPool;
use tokio::sync::watch;

use crate::database::{count, exec, in_database};

/// Is routed to a table with a primary key and to one without.
struct Counting(Keyless);

#[async_trait]
impl Handler for Counting {
    fn spec(&self) -> Spec {
        let route = |table: &str, keyless| Route {
            schema: "public".to_owned(),
            table: table.to_owned(),
            ordering: Ordering::PrimaryKey,
            keyless,
        };
        Spec {
            name: "counting".to_owned(),
            routes: vec![
                route("campaigns", Keyless::Refused),
                route("not_made_yet", Keyless::Refused),
                route("Visits", self.0),
            ],
            coalesce_max: 1,
            attempt_timeout: None,
        }
    }

    async fn handle(&self, _: &mut Context, _: &[Arc<ChangeEvent>]) -> Result<Outcome, HandlerError> {
        Ok(Outcome::Skipped("counted"))
    }
}

/// Starts a worker that was told to stop already: it gets as far as registering its handler.
async fn start(pool: &PgPool, keyless: Keyless) -> Result<(), keyless::Error> {
    let url = std::env::var("DATABASE_URL").unwrap();
    let (server, _) = url.rsplit_once('/').unwrap();
    let database = pool.connect_options();
    let inputs = Inputs {
        set: vec![format!("postgres.url={server}/{}", database.get_database().unwrap())],
        ..Inputs::default()
    };
    let (_stop, stopping) = watch::channel(true);
    let served = app::serve(&load(&inputs).unwrap(), vec![Arc::new(Counting(keyless))], stopping).await;
    served.map(|_| ()).map_err(|error| error.downcast().unwrap())
}

#[tokio::test]
async fn a_worker_does_not_start_on_a_table_without_a_primary_key_unless_its_handler_tolerates_repetition() {
    in_database(async |pool| {
        exec(
            pool,
            "SET ROLE NONE; CREATE TABLE \"Visits\" (at timestamptz NOT NULL UNIQUE); SET ROLE afterwrite_worker",
        )
        .await;
        let refused = start(pool, Keyless::Refused).await.unwrap_err();
        let said = refused.to_string();
        assert!(said.contains("ALTER TABLE public.\"Visits\" ADD PRIMARY KEY"), "{said}");
        assert_eq!(count(pool, "afterwrite.handlers").await, 0);
        start(pool, Keyless::AtLeastOnce).await.unwrap();
        assert_eq!(count(pool, "afterwrite.handlers").await, 1);
        exec(
            pool,
            "SET ROLE NONE; ALTER TABLE \"Visits\" ADD PRIMARY KEY (at); SET ROLE afterwrite_worker",
        )
        .await;
        start(pool, Keyless::Refused).await.unwrap();
    })
    .await;
}
