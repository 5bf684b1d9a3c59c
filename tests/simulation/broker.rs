//! The broker of the world: who owns a partition under which epoch, and how far it is committed.

use afterwrite::engine::core::messages::PartitionId;
use afterwrite::event::delivery::Position;

use crate::invariant::{Checked, Invariant};

pub(crate) struct Broker {
    claims: Vec<Claim>,
}

/// What the broker knows of a partition; its former owner may believe otherwise for a while.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claim {
    pub(crate) owner: Option<usize>,
    pub(crate) last_owner: Option<usize>,
    pub(crate) epoch: u64,
    pub(crate) committed: Position,
    /// The last commit of this epoch did not arrive, and the core was not told.
    pub(crate) commit_lost: bool,
}

impl Broker {
    pub(crate) fn new(partitions: usize) -> Self {
        let fresh = Claim {
            owner: None,
            last_owner: None,
            epoch: 0,
            committed: Position(0),
            commit_lost: false,
        };
        Self {
            claims: vec![fresh; partitions],
        }
    }

    pub(crate) fn claim(&self, id: PartitionId) -> Claim {
        self.claims[id.0 as usize]
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = PartitionId> + use<> {
        (0..u32::try_from(self.claims.len()).expect("there are few partitions")).map(PartitionId)
    }

    /// Gives the partition to a member, under the next epoch, which it answers.
    pub(crate) fn assign(&mut self, id: PartitionId, member: usize) -> u64 {
        let claim = &mut self.claims[id.0 as usize];
        claim.owner = Some(member);
        claim.last_owner = Some(member);
        claim.epoch += 1;
        claim.commit_lost = false;
        claim.epoch
    }

    pub(crate) fn depose(&mut self, id: PartitionId) {
        self.claims[id.0 as usize].owner = None;
    }

    /// Takes every partition of a member that died or left.
    pub(crate) fn depose_all(&mut self, member: usize) {
        for claim in self.claims.iter_mut().filter(|claim| claim.owner == Some(member)) {
            claim.owner = None;
        }
    }

    pub(crate) fn is_owner(&self, id: PartitionId, member: usize, epoch: u64) -> bool {
        let claim = self.claim(id);
        claim.owner == Some(member) && claim.epoch == epoch
    }

    /// Commits for a member; one that is no longer the owner is refused.
    pub(crate) fn commit(&mut self, id: PartitionId, member: usize, epoch: u64, position: Position) -> Checked<bool> {
        if !self.is_owner(id, member, epoch) {
            return Ok(false);
        }
        let claim = &mut self.claims[id.0 as usize];
        let backwards = position < claim.committed;
        Invariant::Frontier.check(!backwards, || {
            format!("{id:?} goes back from {:?} to {position:?}", claim.committed)
        })?;
        claim.committed = position;
        claim.commit_lost = false;
        Ok(true)
    }

    pub(crate) fn lose_commit(&mut self, id: PartitionId) {
        self.claims[id.0 as usize].commit_lost = true;
    }
}
