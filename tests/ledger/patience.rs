//! A Postgres that vanishes: its connections stay open, and nothing comes any more.

use std::time::Duration;

use afterwrite::handler::{Fault, HandlerError};
use afterwrite::ledger::patience::ask_within;
use sqlx::postgres::{PgConnection, PgPool, PgPoolOptions};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::database::in_database;

/// A line to the real Postgres that can be cut so that neither side notices.
struct Line {
    pool: PgPool,
    cut: watch::Sender<bool>,
}

impl Line {
    async fn to(postgres: &PgPool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let options = postgres.connect_options();
        let inside = (options.get_host().to_owned(), options.get_port());
        let (cut, is_cut) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((outside, _)) = listener.accept().await {
                tokio::spawn(carry(outside, inside.clone(), is_cut.clone()));
            }
        });
        // Without the question whether the connection lives, which would be the one that is not answered.
        let pool = PgPoolOptions::new().max_connections(1).test_before_acquire(false);
        let options = (*options).clone().host("127.0.0.1").port(port);
        Self {
            pool: pool.connect_lazy_with(options),
            cut,
        }
    }

    async fn ask(&self) -> Result<i32, sqlx::Error> {
        let question = async |connection: &mut PgConnection| sqlx::query_scalar("SELECT 7").fetch_one(connection).await;
        ask_within(Duration::from_millis(500), &self.pool, "asking in a test", question).await
    }
}

async fn carry(mut outside: TcpStream, inside: (String, u16), mut is_cut: watch::Receiver<bool>) {
    let mut inside = TcpStream::connect(inside).await.unwrap();
    let cut = async { is_cut.wait_for(|is_cut| *is_cut).await.is_ok() };
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut outside, &mut inside) => {}
        _ = cut => std::future::pending().await,
    }
}

#[tokio::test]
async fn a_host_that_vanishes_is_not_waited_for_and_its_connection_is_not_used_again() {
    in_database(async |pool| {
        let line = Line::to(pool).await;
        assert_eq!(line.ask().await.unwrap(), 7);
        // The pool asks each connection that it gets back whether it lives.
        while line.pool.num_idle() == 0 {
            tokio::task::yield_now().await;
        }
        line.cut.send_replace(true);
        let error = line.ask().await.unwrap_err();
        let said = error.to_string();
        assert!(
            said.ends_with("postgres did not answer within 500 ms: asking in a test"),
            "{said}"
        );
        assert_eq!(HandlerError::from(error).fault, Fault::Unreachable { what: "postgres" });
        line.cut.send_replace(false);
        assert_eq!(line.ask().await.unwrap(), 7, "over a connection that was opened anew");
    })
    .await;
}
