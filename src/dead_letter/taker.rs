//! Taking replay requests for the partitions this process owns, and recording how they ended.
//!
//! What was taken and has not ended is bounded: each such request holds its record in memory. A letter whose schema the
//! registry does not answer for waits by itself; the others go on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgPool;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::dead_letter::requests::{self, Request};
use crate::decode::Decoder;
use crate::decode::registry::Registry;
use crate::decode::resolve;
use crate::engine::core::messages::RequestId;
use crate::engine::driver::{Drain, Owned, Replay, ReplayEnd};
use crate::event::delivery::{Delivery, Position, SourcePartition};
use crate::ledger::parked::Parking;

/// How often requests are looked for, where no notification came.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Requests that are open at once: replays share the lanes with what arrives.
pub const OPEN_MAX: usize = 32;

/// Lanes that are told of at once.
pub const DRAINS_MAX: u32 = 64;

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
    /// The group's parked lanes.
    pub parking: Parking,
    /// Where lanes go whose head has ended.
    pub drains: mpsc::Sender<Drain>,
    /// Replays that have ended.
    pub ends: mpsc::UnboundedReceiver<ReplayEnd>,
}

/// Requests that were taken. One stays here until its end is recorded.
type Open = HashMap<i64, Taken>;

/// Under which epoch of which partition a request was taken.
struct Taken {
    partition: SourcePartition,
    epoch: u64,
    /// Its letter was parked because of lag.
    is_release: bool,
}

impl Taker {
    /// Takes requests until the engine ends.
    pub async fn run(mut self) {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut open = Open::new();
        let mut decoding = JoinSet::new();
        let mut unrecorded: Vec<ReplayEnd> = Vec::new();
        loop {
            tokio::select! {
                ended = self.ends.recv() => match ended {
                    Some(end) => {
                        unrecorded.push(end);
                        self.record(&mut unrecorded, &mut open).await;
                    }
                    None => break,
                },
                Some(decoded) = decoding.join_next(), if !decoding.is_empty() => self.decoded(decoded).await,
                _ = looks.tick() => {
                    self.record(&mut unrecorded, &mut open).await;
                    self.take(&mut open, &mut decoding).await;
                    self.look_for_drains().await;
                }
                () = woken(&mut self.wakeups, &self.group) => self.take(&mut open, &mut decoding).await,
            }
        }
        // What was not handed over is taken again by the next owner.
        decoding.shutdown().await;
        self.record(&mut unrecorded, &mut open).await;
    }

    /// Records ends; those that cannot be recorded now stay for the next look.
    async fn record(&self, unrecorded: &mut Vec<ReplayEnd>, open: &mut Open) {
        while let Some(end) = unrecorded.first() {
            let request = end.request.0;
            // One that is not open any more belongs to the partition's next owner.
            if let Some(taken) = open.get(&request) {
                if let Err(error) = requests::finish(&self.pool, request, taken.epoch, end.healed).await {
                    tracing::warn!(request, error = %error, "end of a replay could not be recorded yet");
                    return;
                }
                let (group, healed) = (&self.group, end.healed);
                match taken.is_release {
                    true => tracing::debug!(%group, request, healed, "release of a parked letter ended"),
                    false => tracing::info!(%group, request, healed, "replay ended"),
                }
                open.remove(&request);
            }
            unrecorded.remove(0);
        }
    }

    async fn take(&self, open: &mut Open, decoding: &mut JoinSet<Replay>) {
        let owned = self.owned.borrow().clone();
        open.retain(|_, taken| owned.get(&taken.partition) == Some(&taken.epoch));
        let room = OPEN_MAX.saturating_sub(open.len());
        if owned.is_empty() || room == 0 {
            return;
        }
        let known: Vec<i64> = open.keys().copied().collect();
        let limit = i64::try_from(room).unwrap_or(i64::MAX);
        match requests::take(&self.pool, &self.group, &owned, &known, limit).await {
            Ok(taken) => {
                for request in taken {
                    let taken = Taken {
                        partition: request.partition.clone(),
                        epoch: request.epoch,
                        is_release: request.parked_attempts.is_some(),
                    };
                    open.insert(request.id, taken);
                    self.decode(request, decoding);
                }
            }
            Err(error) => {
                tracing::warn!(group = %self.group, error = %error, "replay requests could not be looked for")
            }
        }
    }

    /// Tells the engine of parked lanes whose head was replayed or discarded: their followers may go on.
    async fn look_for_drains(&self) {
        let owned: Vec<(SourcePartition, u64)> = self.owned.borrow().clone().into_iter().collect();
        if owned.is_empty() {
            return;
        }
        match self.parking.to_drain(&owned, DRAINS_MAX).await {
            Ok(lanes) => {
                for lane in lanes {
                    let epoch = owned.iter().find(|(partition, _)| *partition == lane.partition);
                    let Some(epoch) = epoch.map(|(_, epoch)| *epoch) else {
                        continue;
                    };
                    // What finds no room now is found again a second later.
                    if self.drains.try_send(Drain { lane, epoch }).is_err() {
                        return;
                    }
                }
            }
            Err(error) => {
                tracing::warn!(group = %self.group, error = %error, "parked lanes could not be looked for")
            }
        }
    }

    /// Starts decoding a letter's record again. Its schema may have to be waited for as long as the registry is away.
    fn decode(&self, request: Request, decoding: &mut JoinSet<Replay>) {
        let (group, id, letter) = (&self.group, request.id, &request.letter_id);
        match request.parked_attempts {
            // They may be many, and nobody asked for them.
            Some(_) => tracing::debug!(%group, request = id, letter, "releasing a parked letter"),
            None => tracing::info!(%group, request = id, letter, "replaying dead letter"),
        }
        let (decoder, registry) = (Arc::clone(&self.decoder), self.registry.clone());
        decoding.spawn(async move {
            let topic = Arc::clone(&request.partition.topic);
            let content = resolve::content(&decoder, registry.as_deref(), &topic, &request.record).await;
            Replay {
                request: RequestId(request.id),
                letter_id: request.letter_id,
                epoch: request.epoch,
                handler: request.handler,
                replays: request.replays,
                is_head: request.is_head,
                parked_attempts: request.parked_attempts,
                delivery: Delivery {
                    partition: request.partition,
                    position: Position(request.offset),
                    raw: request.record,
                    content,
                },
            }
        });
    }

    /// Hands a replay over. There is room for all that are open, so this never waits for the engine.
    async fn decoded(&self, decoded: Result<Replay, tokio::task::JoinError>) {
        match decoded {
            Ok(replay) => {
                if self.replays.send(replay).await.is_err() {
                    tracing::debug!(group = %self.group, "the engine ended; the next owner takes the request again");
                }
            }
            Err(error) => tracing::error!(group = %self.group, error = %error, "decoding a letter ended abnormally"),
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
