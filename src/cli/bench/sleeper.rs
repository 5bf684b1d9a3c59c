//! The handler of the measurement: waits, and tells what it saw.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::cli::bench::progress::Progress;
use crate::cli::bench::waits::Waits;
use crate::event::change::ChangeEvent;
use crate::handler::{Context, Handler, HandlerError, Outcome, Spec};

/// Waits for each event as long as work would take.
pub(super) struct Sleeper {
    /// Its name in the ledger.
    pub(super) name: String,
    pub(super) work: Duration,
    pub(super) waits: Waits,
    /// Whether each call opens the transaction with the ledger's row, as handlers that write to the database do.
    pub(super) with_ledger: bool,
    /// One event of so many fails for good, always the same ones.
    pub(super) fail_every: Option<u32>,
    pub(super) progress: Arc<Progress>,
}

#[async_trait]
impl Handler for Sleeper {
    /// No routes: the router of the measurement wakes it by every table.
    fn spec(&self) -> Spec {
        Spec {
            name: self.name.clone(),
            routes: Vec::new(),
            coalesce_max: 1,
            attempt_timeout: None,
        }
    }

    async fn handle(&self, context: &mut Context, events: &[Arc<ChangeEvent>]) -> Result<Outcome, HandlerError> {
        let began = Instant::now();
        for event in events {
            self.progress.begins(event);
        }
        if events.iter().any(|event| self.fails(event)) {
            events.iter().for_each(|event| self.progress.fails(event));
            return Err(HandlerError::permanent("it is one of those that fail for good"));
        }
        let opened = match self.with_ledger {
            // Boxed, so that a call without it does not carry room for it.
            true => Box::pin(context.once()).await.map(|_| ()),
            false => Ok(()),
        };
        if opened.is_ok() && !self.work.is_zero() {
            self.waits.end_of(self.work).await;
        }
        let worked = opened.is_ok().then(|| began.elapsed());
        for event in events {
            self.progress.ends(event, worked);
        }
        opened.map(|()| Outcome::Done)
    }
}

impl Sleeper {
    /// An event's id is a hash: every n-th of them is any of the events.
    fn fails(&self, event: &ChangeEvent) -> bool {
        let (Some(every), Some(id)) = (self.fail_every, event.id()) else {
            return false;
        };
        let [first, second, third, fourth, ..] = id.0;
        u32::from_be_bytes([first, second, third, fourth]).is_multiple_of(every)
    }
}
