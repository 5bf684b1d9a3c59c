//! What passed through a group in this process, counted for logs and for `run`'s last line.

use std::collections::BTreeMap;
use std::fmt;

use crate::event::delivery::SkipReason;

/// Counts since the process started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records that arrived.
    pub delivered: u64,
    /// Records that woke nobody, by reason.
    pub skipped: BTreeMap<&'static str, u64>,
    /// Attempts that ended well; one may have taken several events of its lane.
    pub done: u64,
    /// Attempts that failed; another followed, or a dead letter.
    pub failed: u64,
    /// Dead letters that became durable.
    pub buried: u64,
    /// Dead letters that came back.
    pub replayed: u64,
    /// Jobs that were parked as letters because of lag.
    pub parked: u64,
}

impl Counts {
    /// Counts a record that woke nobody.
    pub fn skip(&mut self, reason: SkipReason) {
        *self.skipped.entry(reason.as_str()).or_default() += 1;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{} delivered, {} done, {} attempts failed, {} buried",
            self.delivered, self.done, self.failed, self.buried
        )?;
        if self.replayed > 0 {
            write!(out, ", {} replayed", self.replayed)?;
        }
        if self.parked > 0 {
            write!(out, ", {} parked", self.parked)?;
        }
        for (reason, count) in &self.skipped {
            write!(out, ", {count} skipped as {reason}")?;
        }
        Ok(())
    }
}
