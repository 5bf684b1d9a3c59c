//! Offset tracking of one partition: what arrived, what is settled, how far everything is settled.
//!
//! Arrivals are numbered by tickets, because positions have gaps (transaction markers, compaction). Only records that
//! arrived are tracked, so a gap is the same as a settled record. The frontier is the position before which everything
//! is settled; it never moves back.

use std::collections::VecDeque;

use crate::event::delivery::Position;

/// Number of an arrival within its partition and epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Ticket(pub(crate) u64);

/// Arrivals of one partition from the frontier on.
#[derive(Debug, Default)]
pub(crate) struct Tracker {
    arrivals: VecDeque<Arrival>,
    first: u64,
    newest: Option<Position>,
    unsettled_bytes: usize,
}

#[derive(Debug)]
struct Arrival {
    position: Position,
    open_jobs: usize,
    bytes: usize,
}

impl Tracker {
    /// Tracks a record with that many jobs; `None` when a record at or after that position arrived before.
    pub(crate) fn arrive(&mut self, position: Position, jobs: usize, bytes: usize) -> Option<Ticket> {
        if self.newest.is_some_and(|newest| position <= newest) {
            return None;
        }
        self.newest = Some(position);
        let ticket = Ticket(self.first + self.arrivals.len() as u64);
        let held_bytes = if jobs == 0 { 0 } else { bytes };
        self.arrivals.push_back(Arrival {
            position,
            open_jobs: jobs,
            bytes: held_bytes,
        });
        self.unsettled_bytes += held_bytes;
        self.advance();
        Some(ticket)
    }

    /// Settles one job of a record; the record is settled when its last job is.
    pub(crate) fn settle(&mut self, ticket: Ticket) {
        let index = usize::try_from(ticket.0 - self.first).expect("a window fits into memory");
        let arrival = self.arrivals.get_mut(index).expect("a ticket is settled once per job");
        assert!(
            arrival.open_jobs > 0,
            "a record was settled more often than it has jobs"
        );
        arrival.open_jobs -= 1;
        if arrival.open_jobs == 0 {
            self.unsettled_bytes -= arrival.bytes;
            self.advance();
        }
    }

    /// Where to go on after a restart: everything before it is settled. `None` until something arrived.
    pub(crate) fn frontier(&self) -> Option<Position> {
        match self.arrivals.front() {
            Some(arrival) => Some(arrival.position),
            None => self.past_newest(),
        }
    }

    /// The newest arrival.
    pub(crate) fn newest(&self) -> Option<Position> {
        self.newest
    }

    /// One past the newest arrival: the frontier once everything is settled.
    pub(crate) fn past_newest(&self) -> Option<Position> {
        self.newest.map(|newest| Position(newest.0 + 1))
    }

    /// Records from the frontier to the newest arrival, settled ones between them included.
    pub(crate) fn span(&self) -> usize {
        self.arrivals.len()
    }

    /// Bytes of records that are not settled.
    pub(crate) fn unsettled_bytes(&self) -> usize {
        self.unsettled_bytes
    }

    fn advance(&mut self) {
        while self.arrivals.front().is_some_and(|arrival| arrival.open_jobs == 0) {
            self.arrivals.pop_front();
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frontier_stops_at_the_first_unsettled_record_and_jumps_gaps() {
        let mut tracker = Tracker::default();
        let first = tracker.arrive(Position(10), 1, 5).unwrap();
        let second = tracker.arrive(Position(17), 2, 5).unwrap();
        assert_eq!(tracker.frontier(), Some(Position(10)));
        tracker.settle(second);
        assert_eq!(tracker.frontier(), Some(Position(10)));
        tracker.settle(first);
        assert_eq!(tracker.frontier(), Some(Position(17)), "one of two jobs is still open");
        tracker.settle(second);
        assert_eq!(tracker.frontier(), Some(Position(18)));
        assert_eq!((tracker.span(), tracker.unsettled_bytes()), (0, 0));
    }

    #[test]
    fn watermarks_move_the_frontier_without_a_job() {
        let mut tracker = Tracker::default();
        assert_eq!(tracker.frontier(), None);
        tracker.arrive(Position(3), 0, 100).unwrap();
        assert_eq!(tracker.frontier(), Some(Position(4)));
    }

    #[test]
    fn a_record_that_arrives_again_is_not_tracked_twice() {
        let mut tracker = Tracker::default();
        assert!(tracker.arrive(Position(3), 1, 1).is_some());
        assert!(tracker.arrive(Position(3), 1, 1).is_none());
        assert!(tracker.arrive(Position(2), 1, 1).is_none());
        assert_eq!(tracker.span(), 1);
    }
}
