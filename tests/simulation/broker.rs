//! The broker of the world: who owns a partition under which epoch, and how far it is committed.

use std::collections::BTreeMap;

use afterwrite::engine::core::messages::{HandlerIndex, Inheritance, PartitionId};
use afterwrite::event::delivery::Position;

use crate::invariant::{Checked, Invariant};

pub(crate) struct Broker {
    claims: Vec<Claim>,
    /// Jobs that are running, or were when an owner died.
    marks: Vec<BTreeMap<Named, Mark>>,
    /// Attempts of jobs that wait for long.
    attempts: Vec<BTreeMap<Named, u32>>,
}

/// A job, as it is named over all owners.
pub(crate) type Named = (Position, HandlerIndex);

#[derive(Debug, Clone, Copy)]
struct Mark {
    epoch: u64,
    alone: bool,
    deaths: u32,
}

/// What the broker knows of a partition; its former owner may believe otherwise for a while.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claim {
    pub(crate) owner: Option<usize>,
    pub(crate) last_owner: Option<usize>,
    pub(crate) epoch: u64,
    pub(crate) committed: Position,
    /// Nobody died with it.
    released_clean: bool,
    /// The owner before did not release it, whether it had reserved anything or not.
    last_died: bool,
    handed_out_to: Option<Position>,
    suspect_to: Option<Position>,
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
            released_clean: true,
            last_died: false,
            handed_out_to: None,
            suspect_to: None,
            commit_lost: false,
        };
        Self {
            claims: vec![fresh; partitions],
            marks: vec![BTreeMap::new(); partitions],
            attempts: vec![BTreeMap::new(); partitions],
        }
    }

    pub(crate) fn claim(&self, id: PartitionId) -> Claim {
        self.claims[id.0 as usize]
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = PartitionId> + use<> {
        (0..u32::try_from(self.claims.len()).expect("there are few partitions")).map(PartitionId)
    }

    /// Gives the claim to a member, under the next epoch, whoever had it.
    pub(crate) fn take(&mut self, id: PartitionId, member: usize) -> u64 {
        let claim = &mut self.claims[id.0 as usize];
        match claim.released_clean {
            true => claim.handed_out_to = None,
            false => claim.suspect_to = claim.suspect_to.max(claim.handed_out_to),
        }
        claim.last_died = !claim.released_clean;
        claim.released_clean = false;
        claim.owner = Some(member);
        claim.last_owner = Some(member);
        claim.epoch += 1;
        claim.commit_lost = false;
        claim.epoch
    }

    /// What the last owners left, read after the claim was taken. A death is counted at what the last of them had marked as
    /// running alone.
    pub(crate) fn inherit(&mut self, id: PartitionId) -> Inheritance {
        let place = id.0 as usize;
        let claim = self.claims[place];
        let marks = &mut self.marks[place];
        if claim.last_died {
            for mark in marks.values_mut().filter(|mark| mark.alone) {
                (mark.deaths, mark.alone) = (mark.deaths + 1, false);
            }
        }
        Inheritance {
            letters: BTreeMap::new(),
            suspect_to: claim.suspect_to,
            deaths: marks.iter().map(|(job, mark)| (*job, mark.deaths)).collect(),
            attempts: self.attempts[place].iter().map(|(job, made)| (*job, *made)).collect(),
            parked: BTreeMap::new(),
        }
    }

    /// Makes a reservation durable, unless the owner is another by now.
    pub(crate) fn reserve(&mut self, id: PartitionId, member: usize, epoch: u64, to: Position) -> bool {
        let owns = self.is_owner(id, member, epoch);
        if owns {
            let claim = &mut self.claims[id.0 as usize];
            claim.handed_out_to = claim.handed_out_to.max(Some(to));
        }
        owns
    }

    /// Commits a running mark, unless the owner is another by now.
    pub(crate) fn mark(&mut self, id: PartitionId, member: usize, epoch: u64, job: Named, alone: bool) -> bool {
        let owns = self.is_owner(id, member, epoch);
        if owns {
            let marks = &mut self.marks[id.0 as usize];
            let deaths = marks.get(&job).map_or(0, |mark| mark.deaths);
            marks.insert(job, Mark { epoch, alone, deaths });
        }
        owns
    }

    /// An attempt that was marked has ended. One that ran alone stays a suspect until it is settled.
    pub(crate) fn unmark(&mut self, id: PartitionId, epoch: u64, job: Named, is_suspect: bool) {
        let marks = &mut self.marks[id.0 as usize];
        let Some(mark) = marks.get_mut(&job).filter(|mark| mark.epoch == epoch) else {
            return;
        };
        if is_suspect {
            mark.alone = false;
        } else {
            marks.remove(&job);
        }
    }

    /// A job is settled.
    pub(crate) fn acquit(&mut self, id: PartitionId, member: usize, epoch: u64, job: Named) {
        if self.is_owner(id, member, epoch) {
            self.marks[id.0 as usize].remove(&job);
            self.attempts[id.0 as usize].remove(&job);
        }
    }

    pub(crate) fn note_attempts(
        &mut self,
        id: PartitionId,
        member: usize,
        epoch: u64,
        job: Named,
        attempts: u32,
    ) -> bool {
        let owns = self.is_owner(id, member, epoch);
        if owns {
            self.attempts[id.0 as usize].insert(job, attempts);
        }
        owns
    }

    /// An owner that lives lets the partition go, unless the owner is another by now.
    pub(crate) fn release(&mut self, id: PartitionId, member: usize, epoch: u64) -> bool {
        let owns = self.is_owner(id, member, epoch);
        if owns {
            self.claims[id.0 as usize].released_clean = true;
            self.marks[id.0 as usize]
                .values_mut()
                .for_each(|mark| mark.alone = false);
            self.depose(id);
        }
        owns
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
