//! Once-only database effects: the ledger row and the handler's SQL commit in one transaction.
//!
//! The ledger row is written first. A redelivery finds it and does nothing; a rival that runs the same event at the same
//! moment waits on it. A transaction that rolls back takes its ledger row along, so an attempt that failed left nothing.

pub mod transaction;

pub mod redo;

pub mod effects;

pub mod would_call;

pub mod discard;

pub mod days;

pub mod retention;

pub mod claims;

pub mod patience;

mod inheritance;

pub mod marks;

pub mod attempts;

pub mod parked;

pub mod headers;

pub mod beginnings;

pub mod registry;

pub mod slots;

pub mod sources;

use std::sync::Arc;

use chrono::NaiveDate;

use crate::event::change::ChangeEvent;
use crate::event::id::EventId;

/// Where the ledger keeps what was done with one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LedgerKey {
    /// UTC day of the event's commit: the ledger's partition.
    pub commit_day: NaiveDate,
    /// The event.
    pub event_id: EventId,
}

impl LedgerKey {
    /// The key of an event; `None` where the event has no identity (tables without a key), which is outside the promise
    /// of once-only effects.
    pub fn of(event: &Arc<ChangeEvent>) -> Option<Self> {
        let event_id = event.id()?;
        let commit_day = chrono::DateTime::from_timestamp_millis(event.origin().commit_ts_ms?)?.date_naive();
        Some(Self { commit_day, event_id })
    }
}
