//! Lanes of one handler that may start, and which of them is next.
//!
//! Every other start goes to the lane that has been ready for longest, so none waits for ever. Those between go to one of
//! the lanes with most jobs: nothing can be done about a busy key but to start its next job as soon as the last has ended,
//! while the many lanes of one job have time.

use std::collections::{BTreeSet, VecDeque};

use crate::engine::core::messages::PartitionId;
use crate::engine::lanes::LaneKey;

/// Lanes with twice as many jobs are a level higher; the highest takes all that have more.
const LEVELS: usize = 16;

/// A lane with its place in the order in which lanes became ready, over all handlers.
pub(super) type Entry = (u64, PartitionId, LaneKey);

/// The lanes, each once.
#[derive(Debug, Default)]
pub(super) struct Ready {
    levels: [VecDeque<Entry>; LEVELS],
    /// Which levels have lanes, a bit each.
    filled: u16,
    /// Whether it is the turn of the lane that has been ready for longest.
    oldest_next: bool,
}

impl Ready {
    /// A lane with so many jobs may start.
    pub(super) fn push(&mut self, entry: Entry, jobs: usize) {
        let level = usize::try_from(jobs.max(1).ilog2()).map_or(LEVELS - 1, |level| level.min(LEVELS - 1));
        self.levels[level].push_back(entry);
        self.filled |= 1 << level;
    }

    /// The place of the lane that has been ready for longest.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.filled_levels()
            .filter_map(|level| self.levels[level].front())
            .map(|(place, _, _)| *place)
            .min()
    }

    /// Takes the lane whose turn it is.
    pub(super) fn pop(&mut self) -> Option<Entry> {
        let place = |level: &usize| self.levels[*level].front().map(|(place, _, _)| *place);
        let level = match self.oldest_next {
            true => self.filled_levels().min_by_key(place),
            false => self.filled_levels().next_back(),
        };
        self.take(level?, VecDeque::pop_front)
    }

    /// The lane whose turn it was started.
    pub(super) fn next_turn(&mut self) {
        self.oldest_next = !self.oldest_next;
    }

    /// Takes the lane that became ready last.
    pub(super) fn pop_newest(&mut self) -> Option<Entry> {
        let newest = |level: &usize| self.levels[*level].back().map(|(place, _, _)| *place);
        let level = self.filled_levels().max_by_key(newest);
        self.take(level?, VecDeque::pop_back)
    }

    fn take(&mut self, level: usize, pop: fn(&mut VecDeque<Entry>) -> Option<Entry>) -> Option<Entry> {
        let entry = pop(&mut self.levels[level]);
        if self.levels[level].is_empty() {
            self.filled &= !(1 << level);
        }
        entry
    }

    /// Forgets the lanes of a partition.
    pub(super) fn forget(&mut self, id: PartitionId) {
        self.retain(|partition, _| partition != id);
    }

    /// Forgets lanes of a partition that may not start any more.
    pub(super) fn forget_lanes(&mut self, id: PartitionId, forgotten: &BTreeSet<LaneKey>) {
        self.retain(|partition, lane| partition != id || !forgotten.contains(&lane));
    }

    fn retain(&mut self, kept: impl Fn(PartitionId, LaneKey) -> bool) {
        for (level, lanes) in self.levels.iter_mut().enumerate() {
            lanes.retain(|(_, partition, lane)| kept(*partition, *lane));
            if lanes.is_empty() {
                self.filled &= !(1 << level);
            }
        }
    }

    fn filled_levels(&self) -> impl DoubleEndedIterator<Item = usize> + use<> {
        let filled = self.filled;
        (0..LEVELS).filter(move |level| filled & 1 << level != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::core::messages::HandlerIndex;

    fn entry(place: u64) -> Entry {
        let handler = HandlerIndex(0);
        (place, PartitionId(0), LaneKey { handler, key: place })
    }

    fn ready(jobs: &[usize]) -> Ready {
        let mut ready = Ready::default();
        for (place, jobs) in (0..).zip(jobs) {
            ready.push(entry(place), *jobs);
        }
        ready
    }

    fn places(mut pop: impl FnMut() -> Option<Entry>) -> Vec<u64> {
        std::iter::from_fn(|| pop().map(|(place, _, _)| place)).collect()
    }

    #[test]
    fn the_lane_with_most_jobs_and_the_oldest_take_turns() {
        let mut ready = ready(&[1, 1, 9, 1, 40, 12]);
        assert_eq!(ready.oldest(), Some(0));
        let taken = places(|| {
            let taken = ready.pop();
            ready.next_turn();
            taken
        });
        assert_eq!(taken, [4, 0, 2, 1, 5, 3]);
        assert_eq!((ready.oldest(), ready.pop()), (None, None));
    }

    #[test]
    fn the_newest_is_taken_from_whatever_level() {
        let mut ready = ready(&[1, 70_000, 1]);
        assert_eq!(places(|| ready.pop_newest()), [2, 1, 0]);
    }

    #[test]
    fn lanes_of_a_partition_are_forgotten() {
        let mut ready = ready(&[1, 5]);
        ready.push((2, PartitionId(1), entry(2).2), 5);
        ready.forget(PartitionId(0));
        assert_eq!(places(|| ready.pop()), [2]);
    }

    #[test]
    fn single_lanes_are_forgotten() {
        let mut ready = ready(&[1, 5, 1]);
        ready.forget_lanes(PartitionId(1), &BTreeSet::from([entry(0).2]));
        ready.forget_lanes(PartitionId(0), &BTreeSet::from([entry(1).2, entry(2).2]));
        assert_eq!(places(|| ready.pop()), [0]);
    }
}
