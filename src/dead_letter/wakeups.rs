//! Wake-ups: one connection per process that hears of new replay requests and tells the group they are for.
//!
//! They only save waiting for the next look, so a connection that breaks is no failure: it is made anew.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgListener, PgPool};
use tokio::sync::broadcast;

use crate::dead_letter::requests::CHANNEL;

/// Wake-ups that a group may lag behind; one that misses some looks by itself within a second.
const LAG_MAX: usize = 64;

/// Pause before a connection that broke is made anew.
const PAUSE: Duration = Duration::from_secs(2);

/// Names of groups that have new requests.
#[derive(Debug, Clone)]
pub struct Wakeups {
    groups: broadcast::Sender<Arc<str>>,
}

impl Wakeups {
    /// Nobody is listening yet.
    pub fn new() -> Self {
        Self {
            groups: broadcast::Sender::new(LAG_MAX),
        }
    }

    /// Hears wake-ups from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<str>> {
        self.groups.subscribe()
    }

    /// Listens for ever, on one connection of `pool`.
    pub async fn listen(self, pool: PgPool) {
        loop {
            if let Err(error) = self.listen_once(&pool).await {
                tracing::debug!(error = %error, "wake-ups of replays are not heard for a moment");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn listen_once(&self, pool: &PgPool) -> Result<(), sqlx::Error> {
        let mut listener = PgListener::connect_with(pool).await?;
        listener.listen(CHANNEL).await?;
        loop {
            let notification = listener.recv().await?;
            // Nobody subscribed: every group has stopped.
            if self.groups.send(notification.payload().into()).is_err() {
                return Ok(());
            }
        }
    }
}

impl Default for Wakeups {
    fn default() -> Self {
        Self::new()
    }
}
