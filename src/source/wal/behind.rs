//! How much log the server has sent to a group that is not confirmed, for whoever asks for metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pgwire_replication::ReplicationEvent;

/// What was sent last, and what is confirmed.
#[derive(Debug)]
pub(super) struct Behind {
    sent_lsn: u64,
    confirmed_lsn: u64,
    /// The bytes between both.
    told: Arc<AtomicU64>,
}

impl Behind {
    /// Tells it there; nothing before a session has begun.
    pub(super) fn told_to(told: Arc<AtomicU64>) -> Self {
        Self {
            sent_lsn: 0,
            confirmed_lsn: 0,
            told,
        }
    }

    /// Something came.
    pub(super) fn received(&mut self, event: &ReplicationEvent) {
        let sent_lsn = match event {
            // A transaction is sent when it is committed, so the server has read up to there.
            ReplicationEvent::Begin { final_lsn, .. } => final_lsn.as_u64(),
            ReplicationEvent::XLogData { wal_start, .. } => wal_start.as_u64(),
            ReplicationEvent::Commit { end_lsn, .. } => end_lsn.as_u64(),
            ReplicationEvent::KeepAlive { wal_end, .. } => wal_end.as_u64(),
            _ => return,
        };
        self.sent_lsn = self.sent_lsn.max(sent_lsn);
        self.tell();
    }

    /// All before this place is confirmed.
    pub(super) fn confirmed(&mut self, lsn: u64) {
        self.confirmed_lsn = lsn;
        self.sent_lsn = self.sent_lsn.max(lsn);
        self.tell();
    }

    fn tell(&self) {
        self.told
            .store(self.sent_lsn.saturating_sub(self.confirmed_lsn), Ordering::Relaxed);
    }
}
