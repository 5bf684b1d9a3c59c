//! Taking replay requests for the partitions this process owns, and recording how they ended.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgPool;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::MissedTickBehavior;

use crate::dead_letter::requests::{self, Request};
use crate::decode::Decoder;
use crate::decode::registry::Registry;
use crate::decode::resolve;
use crate::engine::core::messages::RequestId;
use crate::engine::driver::{Owned, Replay, ReplayEnd};
use crate::event::delivery::{Delivery, Position};

/// How often requests are looked for, where no notification came.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Requests taken at once: replays share the lanes with what arrives.
const TAKEN_MAX: i64 = 32;

/// What taking needs.
pub struct Taker {
    /// Connections.
    pub pool: PgPool,
    /// The group.
    pub group: Arc<str>,
    /// Decodes the letters' bytes again.
    pub decoder: Arc<Decoder>,
    /// Where their schemas are.
    pub registry: Option<Arc<Registry>>,
    /// The partitions owned now.
    pub owned: watch::Receiver<Owned>,
    /// Tells which group has new requests.
    pub wakeups: broadcast::Receiver<Arc<str>>,
    /// Where replays go.
    pub replays: mpsc::Sender<Replay>,
    /// Replays that have ended.
    pub ends: mpsc::UnboundedReceiver<ReplayEnd>,
}

impl Taker {
    /// Takes requests until the engine ends.
    pub async fn run(mut self) {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut unrecorded: Vec<ReplayEnd> = Vec::new();
        loop {
            tokio::select! {
                ended = self.ends.recv() => match ended {
                    Some(end) => {
                        unrecorded.push(end);
                        self.record(&mut unrecorded).await;
                    }
                    None => break,
                },
                _ = looks.tick() => {
                    self.record(&mut unrecorded).await;
                    self.take().await;
                }
                () = woken(&mut self.wakeups, &self.group) => self.take().await,
            }
        }
        self.record(&mut unrecorded).await;
    }

    /// Records ends; those that cannot be recorded now stay for the next look.
    async fn record(&self, unrecorded: &mut Vec<ReplayEnd>) {
        while let Some(end) = unrecorded.first() {
            if let Err(error) = requests::finish(&self.pool, end.request.0, end.healed).await {
                tracing::warn!(request = end.request.0, error = %error, "end of a replay could not be recorded yet");
                return;
            }
            tracing::info!(group = %self.group, request = end.request.0, healed = end.healed, "replay ended");
            unrecorded.remove(0);
        }
    }

    async fn take(&self) {
        let owned = self.owned.borrow().clone();
        if owned.is_empty() {
            return;
        }
        match requests::take(&self.pool, &self.group, &owned, TAKEN_MAX).await {
            Ok(taken) => {
                for request in taken {
                    self.hand_over(request).await;
                }
            }
            Err(error) => {
                tracing::warn!(group = %self.group, error = %error, "replay requests could not be looked for")
            }
        }
    }

    async fn hand_over(&self, request: Request) {
        tracing::info!(group = %self.group, request = request.id, letter = request.letter_id, "replaying dead letter");
        let content = resolve::content(
            &self.decoder,
            self.registry.as_deref(),
            &request.partition.topic,
            &request.record,
        )
        .await;
        let replay = Replay {
            request: RequestId(request.id),
            letter_id: request.letter_id,
            epoch: request.epoch,
            handler: request.handler,
            replays: request.replays,
            delivery: Delivery {
                partition: request.partition,
                position: Position(request.offset),
                raw: request.record,
                content,
            },
        };
        if self.replays.send(replay).await.is_err() {
            tracing::debug!(group = %self.group, "the engine ended; the next owner takes the request again");
        }
    }
}

/// Resolves when this group has new requests. When nobody can tell any more, the regular looks must do.
async fn woken(wakeups: &mut broadcast::Receiver<Arc<str>>, group: &str) {
    loop {
        match wakeups.recv().await {
            Ok(named) if &*named != group => {}
            Ok(_) | Err(RecvError::Lagged(_)) => return,
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}
