//! How far a group is from the end of what it reads: told by its source, read by whoever shows it to people.

use std::sync::atomic::{AtomicU64, Ordering};

/// While it is not known. No topic has so many records.
const UNKNOWN: u64 = u64::MAX;

/// A number of records that one tells and others read.
#[derive(Debug)]
pub struct Distance(AtomicU64);

impl Default for Distance {
    /// It is not known.
    fn default() -> Self {
        Self(AtomicU64::new(UNKNOWN))
    }
}

impl Distance {
    /// Tells it; `None` while it is not known.
    pub fn tell(&self, records: Option<u64>) {
        self.0.store(records.unwrap_or(UNKNOWN), Ordering::Relaxed);
    }

    /// What was told last.
    pub fn told(&self) -> Option<u64> {
        let records = self.0.load(Ordering::Relaxed);
        (records != UNKNOWN).then_some(records)
    }
}
