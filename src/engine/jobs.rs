//! What the driver keeps for an open job: the record, who works on it, and how its attempts failed so far.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use crate::engine::core::messages::{HandlerIndex, RequestId};
use crate::engine::letter::{EVERY_HANDLER, Letter};
use crate::engine::retry::Class;
use crate::event::change::ChangeEvent;
use crate::event::delivery::{Content, Delivery, SourcePartition};
use crate::ledger::transaction::Mode;

/// A dead letter on its way back, as whoever takes requests hands it to the engine.
#[derive(Debug)]
pub struct Replay {
    /// The request.
    pub request: RequestId,
    /// The letter it asks to replay.
    pub letter_id: String,
    /// The owner's epoch under which it was taken.
    pub epoch: u64,
    /// The handler that failed, or `*`.
    pub handler: String,
    /// How often the event was replayed before.
    pub replays: u32,
    /// The record, decoded again.
    pub delivery: Delivery,
    /// Whether the letter is the head of a parked lane.
    pub is_head: bool,
    /// Attempts that were made before, where the letter was parked because of lag.
    pub parked_attempts: Option<u32>,
}

/// A replay whose jobs have all ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayEnd {
    /// The request.
    pub request: RequestId,
    /// Whether none of its jobs was buried again.
    pub healed: bool,
}

/// An open job.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) delivery: Arc<Delivery>,
    pub(crate) handler: HandlerIndex,
    /// Hash of its ordering key.
    pub(crate) key: u64,
    pub(crate) replay: Option<Arc<ReplayOrigin>>,
    pub(crate) failure: Option<Failure>,
    /// A mark of it may be in Postgres.
    pub(crate) marked: bool,
    /// It runs alone.
    pub(crate) runs_alone: bool,
    /// Its attempts are in Postgres.
    pub(crate) noted: bool,
    /// When its last wait is over.
    pub(crate) due_at: Option<Instant>,
}

/// Where a replayed job comes from.
#[derive(Debug)]
pub(crate) struct ReplayOrigin {
    pub(crate) letter_id: String,
    pub(crate) replays: u32,
    /// It was never dead: its letter was parked because of lag.
    pub(crate) is_release: bool,
}

/// How the attempts of a job failed so far.
#[derive(Debug)]
pub(crate) struct Failure {
    first_at: DateTime<Utc>,
    last_at: DateTime<Utc>,
    error: String,
}

impl Held {
    /// A job that comes from no replay.
    pub(crate) fn of(delivery: Arc<Delivery>, handler: HandlerIndex, key: u64) -> Self {
        Self {
            delivery,
            handler,
            key,
            replay: None,
            failure: None,
            marked: false,
            runs_alone: false,
            noted: false,
            due_at: None,
        }
    }

    /// Whether an attempt at it failed here.
    pub(crate) fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// When its first attempt failed.
    pub(crate) fn first_failed_at(&self) -> DateTime<Utc> {
        self.failure.as_ref().map_or_else(Utc::now, |failure| failure.first_at)
    }

    /// The event; jobs of undecodable records have none.
    pub(crate) fn event(&self) -> Option<&Arc<ChangeEvent>> {
        match &self.delivery.content {
            Content::Change(event) => Some(event),
            Content::Skip(_) | Content::Undecodable(_) => None,
        }
    }

    /// How long ago its change was committed. Not told of replays, which are as old as somebody waited, and of records without
    /// that time.
    pub(crate) fn age(&self) -> Option<Duration> {
        if self.replay.is_some() {
            return None;
        }
        let committed_at = DateTime::from_timestamp_millis(self.event()?.origin().commit_ts_ms?)?;
        // Clocks that differ make no age that is less than nothing.
        Some((Utc::now() - committed_at).to_std().unwrap_or_default())
    }

    pub(crate) fn partition(&self) -> &SourcePartition {
        &self.delivery.partition
    }

    /// How an event that the ledger already knows is treated.
    pub(crate) fn mode(&self) -> Mode {
        match &self.replay {
            Some(origin) if origin.is_release => Mode::Release {
                letter_id: origin.letter_id.clone(),
            },
            Some(origin) => Mode::Replay {
                letter_id: origin.letter_id.clone(),
            },
            None => Mode::Deliver,
        }
    }

    pub(crate) fn failed(&mut self, error: String) {
        let now = Utc::now();
        let first_at = self.failure.as_ref().map_or(now, |failure| failure.first_at);
        self.failure = Some(Failure {
            first_at,
            last_at: now,
            error,
        });
    }

    /// The dead letter of this job.
    pub(crate) fn letter(&self, group: &Arc<str>, handler: Option<&str>, class: Class, attempts: u32) -> Letter {
        let now = Utc::now();
        let undecodable = match &self.delivery.content {
            Content::Undecodable(reason) => reason.clone(),
            Content::Change(_) | Content::Skip(_) => "the handler gave no reason".to_owned(),
        };
        let (first_at, last_at, error) = match &self.failure {
            Some(failure) => (failure.first_at, failure.last_at, failure.error.clone()),
            None => (now, now, undecodable),
        };
        Letter {
            group: Arc::clone(group),
            handler: handler.unwrap_or(EVERY_HANDLER).into(),
            event: self.event().cloned(),
            class,
            error,
            attempts,
            first_failed_at: first_at,
            failed_at: last_at,
            replays: self.replay.as_ref().map_or(0, |origin| origin.replays + 1),
            partition: self.delivery.partition.clone(),
            position: self.delivery.position,
            raw: self.delivery.raw.clone(),
            parks: None,
            due_in: None,
        }
    }
}
