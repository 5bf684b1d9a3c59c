//! How partitions move between the members of a group: the three protocols, and what goes wrong with each.
//!
//! - `eager`: everybody lets everything go, and when nothing is held any more, everything is shared out at once.
//! - `cooperative`: some partitions are let go while the others are worked on, and when they are free they are shared out.
//! - `consumer` (KIP-848): the broker moves one partition at a time. While it does, it may refuse a commit, because the
//!   member has not heard of its new epoch yet; the commit is sent again after the next heartbeat, if that still has a point.
//!
//! Under each of them a member can be put out of the group without a word. It works on as if it owned its partitions, beside
//! their next owners, until it hears that all of them are lost.

use afterwrite::engine::core::messages::{Input, PartitionId};
use afterwrite::event::delivery::Position;

use crate::invariant::Checked;
use crate::step::pick;
use crate::world::World;

/// How the members of a group agree on who has which partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Eager,
    Cooperative,
    Consumer,
}

/// Something that happens in a rebalance, or instead of one.
#[derive(Clone, Copy)]
enum Event {
    Revoked,
    /// Another rebalance is not over yet.
    RevokedMeanwhile,
    Assigned,
    /// Others go on working, or are still letting go.
    AssignedMeanwhile,
    PutOut,
    PutOutMeanwhile,
    Lost,
    LostWhileRevoked,
}

impl Protocol {
    fn name(self, event: Event) -> &'static str {
        match (self, event) {
            (Self::Eager, Event::Revoked) => "eager: everything is revoked",
            (Self::Eager, Event::RevokedMeanwhile) => "eager: the rest is revoked",
            (Self::Eager, Event::Assigned | Event::AssignedMeanwhile) => "eager: everything is assigned",
            (Self::Eager, Event::PutOut) => "eager: a member is put out",
            (Self::Eager, Event::PutOutMeanwhile) => "eager: a member is put out while it lets go",
            (Self::Eager, Event::Lost) => "eager: lost without a revocation",
            (Self::Eager, Event::LostWhileRevoked) => "eager: lost while revoked",
            (Self::Cooperative, Event::Revoked) => "cooperative: some are revoked, others stay",
            (Self::Cooperative, Event::RevokedMeanwhile) => "cooperative: some are revoked while others are",
            (Self::Cooperative, Event::Assigned) => "cooperative: what is free is assigned",
            (Self::Cooperative, Event::AssignedMeanwhile) => "cooperative: what is free is assigned, others stay",
            (Self::Cooperative, Event::PutOut) => "cooperative: a member is put out",
            (Self::Cooperative, Event::PutOutMeanwhile) => "cooperative: a member is put out while it lets go",
            (Self::Cooperative, Event::Lost) => "cooperative: lost without a revocation",
            (Self::Cooperative, Event::LostWhileRevoked) => "cooperative: lost while revoked",
            (Self::Consumer, Event::Revoked) => "consumer: one is revoked",
            (Self::Consumer, Event::RevokedMeanwhile) => "consumer: one is revoked while others are",
            (Self::Consumer, Event::Assigned) => "consumer: one is assigned",
            (Self::Consumer, Event::AssignedMeanwhile) => "consumer: one is assigned while others are revoked",
            (Self::Consumer, Event::PutOut) => "consumer: a member is fenced",
            (Self::Consumer, Event::PutOutMeanwhile) => "consumer: a member is fenced while it lets go",
            (Self::Consumer, Event::Lost) => "consumer: lost without a revocation",
            (Self::Consumer, Event::LostWhileRevoked) => "consumer: lost while revoked",
        }
    }
}

impl World {
    fn moves(&mut self, event: Event) {
        let name = self.plan.protocol.name(event);
        self.fault(name);
    }

    /// All (member, partition) that are fetched and not lost already: those being let go, or those that are not.
    fn owned(&self, releasing: bool) -> Vec<(usize, PartitionId)> {
        let owned = self.fetched().into_iter();
        owned
            .filter(|(m, id)| self.is_current(*m, *id) && self.members[*m].fetches[id].releasing == releasing)
            .collect()
    }

    /// A rebalance begins: those who have to let partitions go are told.
    pub(crate) fn revoke_some(&mut self, picked: usize) -> Checked<bool> {
        let (owned, meanwhile) = (self.owned(false), !self.owned(true).is_empty());
        let all = owned.len();
        let revoked: Vec<(usize, PartitionId)> = match self.plan.protocol {
            // Nobody begins with it without need: it stops everything.
            Protocol::Eager if !picked.is_multiple_of(4) && !meanwhile && self.free().is_empty() => Vec::new(),
            Protocol::Eager => owned,
            Protocol::Cooperative => {
                let moved = |place: &usize| picked >> (place % 16) & 1 == 1;
                let some = (0..all).filter(moved).map(|place| owned[place]).collect();
                if all == 1 { owned } else { some }
            }
            Protocol::Consumer => pick(owned, picked).into_iter().collect(),
        };
        if revoked.is_empty() {
            return Ok(false);
        }
        match (meanwhile, self.plan.protocol) {
            (true, _) => self.moves(Event::RevokedMeanwhile),
            (false, Protocol::Cooperative) if revoked.len() == all => self.note(|| "-- all are revoked".to_owned()),
            (false, _) => self.moves(Event::Revoked),
        }
        for (m, partition) in revoked {
            self.feed(m, Input::Revoking { partition })?;
        }
        Ok(true)
    }

    /// Partitions that nobody owns.
    pub(crate) fn free(&self) -> Vec<PartitionId> {
        let free = |id: &PartitionId| self.broker.claim(*id).owner.is_none();
        self.broker.ids().filter(free).collect()
    }

    /// What is free is shared out, as far as the protocol allows it now.
    pub(crate) fn assign_some(&mut self, picked: usize) -> Checked<bool> {
        let takers: Vec<usize> = self
            .up()
            .into_iter()
            .filter(|m| self.members[*m].takes_work())
            .collect();
        let (stay, let_go) = (!self.owned(false).is_empty(), !self.owned(true).is_empty());
        let (free, meanwhile) = match self.plan.protocol {
            Protocol::Eager if stay || let_go => (Vec::new(), false),
            Protocol::Cooperative if let_go => (Vec::new(), false),
            Protocol::Eager | Protocol::Cooperative => (self.free(), stay),
            Protocol::Consumer => (pick(self.free(), picked / 64).into_iter().collect(), let_go),
        };
        if free.is_empty() || takers.is_empty() {
            return Ok(false);
        }
        self.moves(match meanwhile {
            true => Event::AssignedMeanwhile,
            false => Event::Assigned,
        });
        for (place, id) in free.into_iter().enumerate() {
            let m = takers[(picked + place) % takers.len()];
            if self.broker.claim(id).last_owner.is_some_and(|last| last != m) {
                self.fault("fault: moved to another member");
            }
            self.assign(m, id)?;
        }
        Ok(true)
    }

    /// A member loses its place in the group, and does not know it.
    pub(crate) fn put_out(&mut self, picked: usize) -> bool {
        let (owned, released) = (self.owned(false), self.owned(true));
        let members = owned.iter().chain(&released).map(|(m, _)| *m);
        let Some(m) = pick(members.collect(), picked) else {
            return false;
        };
        self.moves(match released.iter().any(|(member, _)| *member == m) {
            true => Event::PutOutMeanwhile,
            false => Event::PutOut,
        });
        self.note(|| format!("-- it is member {m}"));
        self.broker.depose_all(m);
        true
    }

    /// A member hears that it has lost everything that others may have by now.
    pub(crate) fn hear_loss(&mut self, picked: usize) -> Checked<bool> {
        let mut lost = self.fetched();
        lost.retain(|(m, id)| !self.is_current(*m, *id));
        let Some((m, _)) = pick(lost.clone(), picked) else {
            return Ok(false);
        };
        lost.retain(|(member, _)| *member == m);
        for (_, partition) in lost {
            let fetch = self.members[m].fetches.get(&partition);
            self.moves(match fetch.is_some_and(|fetch| fetch.releasing) {
                true => Event::LostWhileRevoked,
                false => Event::Lost,
            });
            self.feed(m, Input::Lost { partition })?;
        }
        Ok(true)
    }

    /// A commit under an epoch of the member that is over: the broker refuses it, and the source keeps it.
    pub(crate) fn refuse_commit(&mut self, m: usize, id: PartitionId, position: Position) {
        self.fault("consumer: commit under an old epoch of the member");
        if let Some(fetch) = self.members[m].fetches.get_mut(&id) {
            fetch.refused = Some(position);
        }
    }

    /// Members hear of their epochs, and send the commits again that were refused, unless there were newer ones.
    pub(crate) fn heartbeat(&mut self) -> Checked<bool> {
        let stale = std::mem::take(&mut self.is_epoch_stale);
        for (m, id) in self.fetched() {
            let fetch = self.members[m].fetches.get_mut(&id).expect("it was just found");
            let epoch = fetch.epoch;
            if let Some(position) = fetch.refused.take() {
                self.fault("consumer: refused commit sent again");
                self.broker.commit(id, m, epoch, position)?;
            }
        }
        Ok(stale)
    }
}
