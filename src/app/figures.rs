//! Reads the application's figures for `/metrics`: on a clock of its own and never because somebody scrapes, and by one
//! process of all, which holds a lock for as long as it does.

use std::time::Duration;

use sqlx::Connection as _;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::handlers::figures::{self, Figures};

/// How often they are read. A person decides by them, and no machine.
const EVERY: Duration = Duration::from_secs(30);

/// A statement that takes longer is given up: the figures are not worth it.
pub(super) const STATEMENT_MAX: Duration = Duration::from_secs(5);

/// Reads them until the task is aborted. `None` is told where another process reads them, and while Postgres does not answer.
pub(super) async fn keep(connect: PgConnectOptions, told: watch::Sender<Option<Figures>>) {
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut session = None;
    loop {
        every.tick().await;
        let read = match turn(&connect, &mut session).await {
            Ok(read) => read,
            Err(error) => {
                tracing::debug!(%error, "the application's figures could not be read yet");
                session = None;
                None
            }
        };
        told.send_replace(read);
    }
}

async fn turn(connect: &PgConnectOptions, held: &mut Option<PgConnection>) -> Result<Option<Figures>, sqlx::Error> {
    if held.is_none() {
        let mut session = PgConnection::connect_with(connect).await?;
        if !figures::are_there(&mut session).await? || !figures::take(&mut session).await? {
            session.close().await?;
            return Ok(None);
        }
        *held = Some(session);
    }
    match held {
        Some(session) => figures::read(session).await.map(Some),
        None => Ok(None),
    }
}
