//! Which partitions this process owns, under which epoch, and which of them are on their way out.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use rustc_hash::FxHashMap;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::engine::core::messages::PartitionId;
use crate::event::delivery::{Position, SourcePartition};

/// Partitions owned now, with their epochs; watched by whoever takes replay requests.
pub type Owned = HashMap<SourcePartition, u64>;

/// Names of partitions, the epochs of those owned, and revocations that wait for running attempts.
#[derive(Debug)]
pub(crate) struct Ownership {
    ids: FxHashMap<SourcePartition, PartitionId>,
    names: Vec<SourcePartition>,
    owned: Arc<watch::Sender<Owned>>,
    revocations: Vec<Revocation>,
}

#[derive(Debug)]
struct Revocation {
    waiting: HashSet<PartitionId>,
    positions: Vec<(SourcePartition, Position)>,
    deadline: Instant,
    reply: SyncSender<Vec<(SourcePartition, Position)>>,
}

impl Ownership {
    pub(crate) fn new(owned: Arc<watch::Sender<Owned>>) -> Self {
        Self {
            ids: FxHashMap::default(),
            names: Vec::new(),
            owned,
            revocations: Vec::new(),
        }
    }

    /// The number of a partition, given at its first sight and kept.
    pub(crate) fn id(&mut self, name: &SourcePartition) -> PartitionId {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        let id = PartitionId(u32::try_from(self.names.len()).expect("fewer partitions than u32 has numbers"));
        self.names.push(name.clone());
        self.ids.insert(name.clone(), id);
        id
    }

    pub(crate) fn name(&self, id: PartitionId) -> &SourcePartition {
        &self.names[id.0 as usize]
    }

    /// The epoch under which a partition is owned now.
    pub(crate) fn epoch(&self, name: &SourcePartition) -> Option<u64> {
        self.owned.borrow().get(name).copied()
    }

    pub(crate) fn assign(&mut self, name: &SourcePartition, epoch: u64) {
        self.owned.send_modify(|owned| {
            owned.insert(name.clone(), epoch);
        });
    }

    /// The partition is no longer ours; completes the revocation that waited for it.
    pub(crate) fn released(&mut self, id: PartitionId, position: Option<Position>) {
        let name = self.name(id).clone();
        self.owned.send_modify(|owned| {
            owned.remove(&name);
        });
        for revocation in &mut self.revocations {
            if revocation.waiting.remove(&id)
                && let Some(position) = position
            {
                revocation.positions.push((name.clone(), position));
            }
        }
        self.revocations.retain_mut(|revocation| !revocation.answered());
    }

    /// Begins a revocation; it is answered when all of its owned partitions are released.
    pub(crate) fn revoke(
        &mut self,
        partitions: &[PartitionId],
        reply: SyncSender<Vec<(SourcePartition, Position)>>,
        deadline: Instant,
    ) {
        let owned = self.owned.borrow().clone();
        let waiting = partitions
            .iter()
            .copied()
            .filter(|id| owned.contains_key(self.name(*id)))
            .collect();
        let mut revocation = Revocation {
            waiting,
            positions: Vec::new(),
            deadline,
            reply,
        };
        if !revocation.answered() {
            self.revocations.push(revocation);
        }
    }

    /// Whether somebody waits for the partition to be let go.
    pub(crate) fn is_revoking(&self, id: PartitionId) -> bool {
        self.revocations
            .iter()
            .any(|revocation| revocation.waiting.contains(&id))
    }

    /// When the budget of the most urgent revocation is spent.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.revocations.iter().map(|revocation| revocation.deadline).min()
    }

    /// Partitions whose revocation is out of budget.
    pub(crate) fn expired(&self, now: Instant) -> Vec<PartitionId> {
        let late = self.revocations.iter().filter(|revocation| revocation.deadline <= now);
        late.flat_map(|revocation| revocation.waiting.iter().copied()).collect()
    }
}

impl Revocation {
    /// Answers when nothing is waited for any more. A source that no longer listens has spent its budget: it commits
    /// nothing, and the next owner meets the records again.
    fn answered(&mut self) -> bool {
        if !self.waiting.is_empty() {
            return false;
        }
        if self.reply.try_send(std::mem::take(&mut self.positions)).is_err() {
            tracing::debug!("the source stopped waiting for a revocation before it was complete");
        }
        true
    }
}
