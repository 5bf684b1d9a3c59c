//! The events of parked lanes, in Postgres: stored as records, read back and decoded again.

use std::sync::Arc;

use async_trait::async_trait;

use crate::dead_letter::recall;
use crate::decode::Decoder;
use crate::decode::registry::Registry;
use crate::decode::resolve;
use crate::engine::owner::{ParkError, ParkedEvents, Recalled};
use crate::event::delivery::{Content, Delivery, Position, SourcePartition};
use crate::ledger::LedgerKey;
use crate::ledger::parked::{Appended, Lane, Parked, Parking};

/// Events of parked lanes in `afterwrite.parked`.
pub struct StoredEvents {
    /// The tables.
    pub parking: Parking,
    /// Decodes what is read back.
    pub decoder: Arc<Decoder>,
    /// Where schemas are.
    pub registry: Option<Arc<Registry>>,
}

#[async_trait]
impl ParkedEvents for StoredEvents {
    async fn store(&self, lane: &Lane, epoch: u64, events: &[Arc<Delivery>]) -> Result<(), ParkError> {
        let appended: Vec<Appended<'_>> = events.iter().map(|event| appended(event)).collect();
        match self.parking.park(epoch, lane, &appended).await {
            Ok(Parked::Stored) => Ok(()),
            Ok(Parked::Fenced) => Err(ParkError::NotOurs),
            Ok(Parked::LaneIsLive) => Err(ParkError::Store("the lane is not parked in postgres".into())),
            Err(error) => Err(failed(error)),
        }
    }

    async fn next(&self, lane: &Lane, epoch: u64, done: &[Position], limit: u32) -> Result<Vec<Delivery>, ParkError> {
        if done.is_empty() {
            if !self.parking.drain(epoch, lane).await.map_err(failed)? {
                return self.live_or_not_ours(lane, epoch).await;
            }
        } else if !self.parking.done(epoch, lane, done).await.map_err(failed)? {
            return Err(ParkError::NotOurs);
        }
        let stored = self.parking.next(lane, None, limit).await.map_err(failed)?;
        if stored.is_empty() {
            return self.live_or_not_ours(lane, epoch).await;
        }
        let mut read = Vec::with_capacity(stored.len());
        for event in stored {
            let (decoder, registry) = (&self.decoder, self.registry.as_deref());
            let content = resolve::content(decoder, registry, &lane.partition.topic, &event.raw).await;
            read.push(Delivery {
                partition: lane.partition.clone(),
                position: event.position,
                raw: event.raw,
                content,
            });
        }
        Ok(read)
    }

    async fn recall(
        &self,
        partition: &SourcePartition,
        epoch: u64,
        handler: &str,
        letters_max: usize,
    ) -> Result<Recalled, ParkError> {
        let (pool, group) = (self.parking.pool(), self.parking.group());
        match recall::recall(pool, group, partition, epoch, handler, letters_max).await {
            Ok(Some(recalled)) => Ok(recalled),
            Ok(None) => Err(ParkError::NotOurs),
            Err(error) => Err(failed(error)),
        }
    }
}

impl StoredEvents {
    /// Ends the parking of a lane of which nothing is left.
    async fn live_or_not_ours(&self, lane: &Lane, epoch: u64) -> Result<Vec<Delivery>, ParkError> {
        match self.parking.go_live(epoch, lane).await.map_err(failed)? {
            true => Ok(Vec::new()),
            false => Err(ParkError::NotOurs),
        }
    }
}

fn appended(delivery: &Delivery) -> Appended<'_> {
    let key = match &delivery.content {
        Content::Change(event) => LedgerKey::of(event),
        Content::Skip(_) | Content::Undecodable(_) => None,
    };
    Appended {
        position: delivery.position,
        key,
        raw: &delivery.raw,
    }
}

fn failed(error: sqlx::Error) -> ParkError {
    ParkError::Store(error.into())
}
