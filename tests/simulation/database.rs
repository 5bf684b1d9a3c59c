//! The database of the world: the ledger, the effects that went with it, and the dead letters.
//!
//! A transaction is one call of [`Database::commit`]: the ledger rows come first, members that have one are left out.
//! That a rival waits for an open transaction is modelled by the moment at which the world lets it commit.

use std::collections::{BTreeMap, BTreeSet};

use afterwrite::engine::core::messages::Moment;
use afterwrite::event::delivery::Position;

use crate::invariant::{Checked, Invariant};
use crate::plan::{Plan, Row};
use crate::script::{Ending, Failure};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    Done,
    Buried,
}

pub(crate) struct Database {
    ledger: Vec<Option<Entry>>,
    letters: Vec<u32>,
    skipped: Vec<bool>,
    attempts: Vec<u32>,
    replayed: Vec<u32>,
    effects: Vec<u32>,
    /// Per lane the record whose effect is the latest.
    latest: Vec<Option<usize>>,
    /// Lanes whose head is in the dead letters.
    pub(crate) parked: BTreeMap<usize, Parked>,
    /// Lanes were parked so often.
    parkings: usize,
    /// Rows whose letters were parked because of lag and are not on their way back.
    pub(crate) waiting: BTreeMap<usize, Waiting>,
    /// Rows whose effect comes before that of what is behind them, although it is that of a replay.
    pub(crate) ordered: BTreeSet<usize>,
}

/// A letter that was parked because of lag.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waiting {
    pub(crate) due: Moment,
    pub(crate) attempts: u32,
    /// It was in the dead letters before, and came back by a command.
    pub(crate) is_replay: bool,
}

/// A lane whose head is in the dead letters.
pub(crate) struct Parked {
    pub(crate) head: usize,
    pub(crate) draining: bool,
    /// The head was mended or given up.
    pub(crate) head_ended: bool,
    /// Which letter is the head's: the one that was written when the lane was parked for this time.
    pub(crate) parking: usize,
    /// What is stored behind it: rows by their places in the log.
    pub(crate) stored: BTreeMap<usize, usize>,
}

impl Database {
    pub(crate) fn new(plan: &Plan) -> Self {
        let rows = plan.rows.len();
        Self {
            ledger: vec![None; rows],
            letters: vec![0; rows],
            skipped: vec![false; rows],
            attempts: vec![0; rows],
            replayed: vec![0; rows],
            effects: vec![0; rows],
            latest: vec![None; plan.lanes],
            parked: BTreeMap::new(),
            parkings: 0,
            waiting: BTreeMap::new(),
            ordered: BTreeSet::new(),
        }
    }

    /// Calls the handler with these rows: how it ends follows from those that are not done yet.
    pub(crate) fn call(&mut self, plan: &Plan, rows: &[usize], replay: bool) -> Ending {
        let mut together = Ending::Skips;
        for row in rows
            .iter()
            .copied()
            .filter(|row| self.takes(*row, replay))
            .collect::<Vec<_>>()
        {
            let ending = if replay {
                self.replayed[row] += 1;
                if self.replayed[row] > plan.rows[row].heals_after {
                    Ending::Works
                } else {
                    plan.rows[row].script.ending(0)
                }
            } else {
                plan.rows[row].script.ending(self.attempts[row])
            };
            self.attempts[row] += 1;
            together = worse(together, ending);
        }
        together
    }

    /// The transaction of a call that worked, or of one whose outcome the caller never learnt.
    pub(crate) fn commit(&mut self, plan: &Plan, rows: &[usize], replay: bool) -> Checked {
        if !replay && self.is_behind_parked(rows) {
            return Ok(());
        }
        for row in rows.iter().copied() {
            if !self.takes(row, replay) {
                continue;
            }
            let is_in_order = !replay || self.ordered.remove(&row);
            if is_in_order && matches!(plan.rows[row].script.ending(u32::MAX), Ending::Skips) {
                self.skipped[row] = true;
                continue;
            }
            self.ledger[row] = Some(Entry::Done);
            self.effects[row] += 1;
            let lane = self.parked.get_mut(&plan.rows[row].lane);
            if let Some(lane) = lane.filter(|lane| replay && lane.head == row) {
                lane.head_ended = true;
            }
            if is_in_order {
                let latest = &mut self.latest[plan.rows[row].lane];
                let index = plan.rows[row].index;
                Invariant::Effects.check(latest.is_none_or(|latest| latest < index), || {
                    format!("row {row} had its effect after that of record {latest:?}")
                })?;
                *latest = Some(index);
            }
        }
        Ok(())
    }

    /// Whether one of these rows was parked because of lag and is not done: the transaction of a call with others is refused.
    pub(crate) fn is_behind_parked(&self, rows: &[usize]) -> bool {
        rows.len() > 1 && rows.iter().any(|row| self.ordered.contains(row))
    }

    /// The sink has the letter.
    pub(crate) fn write_letter(&mut self, row: usize) {
        self.letters[row] += 1;
    }

    /// In the transaction of a letter: the lane is parked behind it, and what was stored of the letter's own event goes.
    pub(crate) fn park_lane(&mut self, plan: &Plan, row: usize) {
        let Row { lane, index, .. } = plan.rows[row];
        let parked = self.parked.entry(lane).or_insert_with(|| Parked {
            head: row,
            draining: false,
            head_ended: false,
            parking: 0,
            stored: BTreeMap::new(),
        });
        self.parkings += 1;
        parked.parking = self.parkings;
        parked.head = row;
        parked.draining = false;
        parked.head_ended = self.ledger[row] == Some(Entry::Done);
        parked.stored.remove(&index);
    }

    /// Stores an event behind the head of its lane; refused when the lane is live.
    pub(crate) fn store(&mut self, plan: &Plan, row: usize) -> bool {
        let Row { lane, index, .. } = plan.rows[row];
        let Some(parked) = self.parked.get_mut(&lane) else {
            return false;
        };
        parked.stored.insert(index, row);
        true
    }

    /// Somebody gives the head of a lane up.
    pub(crate) fn discard_head(&mut self, lane: usize) {
        if let Some(parked) = self.parked.get_mut(&lane) {
            parked.head_ended = true;
            self.waiting.remove(&parked.head);
            self.ordered.remove(&parked.head);
        }
    }

    /// The time at which the lane of a row was parked behind that row's own letter.
    pub(crate) fn parking_of(&self, plan: &Plan, row: usize) -> Option<usize> {
        let lane = self.parked.get(&plan.rows[row].lane)?;
        (lane.head == row).then_some(lane.parking)
    }

    /// The replay of a letter ended, one way or the other: if a lane is still parked behind it, that drains.
    pub(crate) fn letter_ended(&mut self, parking: usize) {
        let mut lanes = self.parked.values_mut();
        if let Some(lane) = lanes.find(|lane| lane.parking == parking) {
            lane.head_ended = true;
            self.ordered.remove(&lane.head);
        }
    }

    /// Lets a lane drain, when nothing of it is done yet, or deletes what is done, and answers what comes next; nothing, and
    /// the lane is live. No answer when it was parked anew.
    pub(crate) fn unpark(
        &mut self,
        plan: &Plan,
        lane: usize,
        done: &[Position],
        rows_max: usize,
    ) -> Option<Vec<usize>> {
        let Some(parked) = self.parked.get_mut(&lane) else {
            return Some(Vec::new());
        };
        parked.draining |= done.is_empty();
        parked.stored.retain(|_, row| {
            let row = &plan.rows[*row];
            !done.contains(&plan.record(row.partition, row.index).position)
        });
        let next: Vec<usize> = parked.stored.values().take(rows_max).copied().collect();
        match (next.is_empty(), parked.draining) {
            (true, true) => self.parked.remove(&lane),
            (true, false) => return None,
            (false, _) => None,
        };
        Some(next)
    }

    /// What the ledger says of the row.
    pub(crate) fn entry(&self, row: usize) -> Option<Entry> {
        self.ledger[row]
    }

    /// The ledger says that the job is in the dead letters, unless it was done meanwhile.
    pub(crate) fn enter_buried(&mut self, row: usize) {
        self.ledger[row].get_or_insert(Entry::Buried);
    }

    pub(crate) fn is_settled(&self, row: usize) -> bool {
        match self.ledger[row] {
            Some(Entry::Done) => true,
            Some(Entry::Buried) => self.letters[row] > 0,
            None => {
                self.skipped[row]
                    || self
                        .parked
                        .values()
                        .any(|lane| lane.stored.values().any(|stored| *stored == row))
            }
        }
    }

    /// Done, or nothing had to be done.
    pub(crate) fn is_done(&self, row: usize) -> bool {
        self.ledger[row] == Some(Entry::Done) || self.skipped[row]
    }

    pub(crate) fn has_letter(&self, row: usize) -> bool {
        self.letters[row] > 0
    }

    /// Whether a call would work on the row, and not leave it out.
    pub(crate) fn takes(&self, row: usize, replay: bool) -> bool {
        match self.ledger[row] {
            Some(Entry::Done) => false,
            Some(Entry::Buried) => replay,
            None => true,
        }
    }
}

fn worse(one: Ending, other: Ending) -> Ending {
    let rank = |ending: Ending| -> (u8, Option<Failure>) {
        match ending {
            Ending::Skips => (0, None),
            Ending::Works => (1, None),
            Ending::Fails(failure) => (2, Some(failure)),
            Ending::Kills => (3, None),
        }
    };
    if rank(one) >= rank(other) { one } else { other }
}
