//! How far the log was read and settled, and what of that the server may be told.
//!
//! Changes are numbered in the order in which they are received, from a number that is kept together with the place in the log
//! at which it was given. The log decides what is received after a place, so a change has the same number whenever it is
//! received. The server is told the end of a transaction only, and only when every change up to there is settled.

use std::collections::VecDeque;

use crate::event::delivery::Position;
use crate::ledger::slots::Standing;
use crate::source::wal::envelope::RECORDS_MAX;

/// The state.
#[derive(Debug)]
pub(super) struct Progress {
    standing: Standing,
    /// The number of the next change.
    next: Position,
    /// After the last change that was handed over.
    delivered_to: Position,
    /// Ends of transactions that are not all settled, oldest first.
    ends: VecDeque<End>,
    is_in_transaction: bool,
}

/// The end of a transaction.
#[derive(Debug, Clone, Copy)]
struct End {
    lsn: u64,
    next: Position,
    delivered_to: Position,
}

impl Progress {
    /// Goes on from what was kept.
    pub(super) fn resume(standing: Standing) -> Self {
        Self {
            standing,
            next: standing.position,
            delivered_to: standing.settled_to,
            ends: VecDeque::new(),
            is_in_transaction: false,
        }
    }

    /// A transaction begins.
    pub(super) fn begin(&mut self) {
        self.is_in_transaction = true;
    }

    /// A change of one table was received: gives it a number, and one for the record it may have more.
    pub(super) fn number(&mut self) -> Position {
        let number = self.next;
        self.next = Position(number.0.saturating_add(RECORDS_MAX));
        number
    }

    /// Whether this was settled before the log was read again.
    pub(super) fn was_settled(&self, position: Position) -> bool {
        position < self.standing.settled_to
    }

    /// It is about to be handed over.
    pub(super) fn delivered(&mut self, position: Position) {
        self.delivered_to = self.delivered_to.max(Position(position.0.saturating_add(1)));
    }

    /// A transaction ended at this place.
    pub(super) fn commit(&mut self, lsn: u64) {
        self.is_in_transaction = false;
        self.end_at(lsn);
    }

    /// The server has sent all there is before this place.
    pub(super) fn is_read_to(&mut self, lsn: u64) {
        if !self.is_in_transaction {
            self.end_at(lsn);
        }
    }

    fn end_at(&mut self, lsn: u64) {
        // Ends between which nothing was handed over are one.
        if self
            .ends
            .back()
            .is_some_and(|last| last.delivered_to == self.delivered_to)
        {
            self.ends.pop_back();
        }
        self.ends.push_back(End {
            lsn,
            next: self.next,
            delivered_to: self.delivered_to,
        });
    }

    /// All before this change is settled: where the slot stands now. A place that was never received is never told.
    pub(super) fn settled(&mut self, to: Position) -> Standing {
        self.standing.settled_to = self.standing.settled_to.max(to);
        while let Some(end) = self
            .ends
            .front()
            .filter(|end| end.delivered_to <= self.standing.settled_to)
        {
            if end.lsn > self.standing.confirmed_lsn {
                self.standing.confirmed_lsn = end.lsn;
                self.standing.position = end.next;
            }
            self.ends.pop_front();
        }
        // Where everything is settled, the changes that nobody wants are too.
        if self.ends.is_empty() && !self.is_in_transaction && self.delivered_to <= self.standing.settled_to {
            self.standing.settled_to = self.standing.settled_to.max(self.next);
            self.delivered_to = self.standing.settled_to;
        }
        self.standing
    }

    /// Where the slot stands.
    pub(super) fn standing(&self) -> Standing {
        self.standing
    }

    /// The number that the next change will have, when everything that was handed over is settled and no transaction is open.
    pub(super) fn caught_up_at(&self) -> Option<Position> {
        (!self.is_in_transaction && self.delivered_to <= self.standing.settled_to).then_some(self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(lsn: u64, position: i64, settled_to: i64) -> Standing {
        Standing {
            confirmed_lsn: lsn,
            position: Position(position),
            settled_to: Position(settled_to),
        }
    }

    fn deliver(progress: &mut Progress) -> Position {
        let position = progress.number();
        progress.delivered(position);
        position
    }

    fn after(position: Position) -> Position {
        Position(position.0 + 1)
    }

    #[test]
    fn only_the_end_of_a_settled_transaction_is_confirmed() {
        let mut progress = Progress::resume(standing(100, 0, 0));
        progress.begin();
        let first = deliver(&mut progress);
        let second = deliver(&mut progress);
        assert_eq!(
            progress.settled(after(first)),
            standing(100, 0, 1),
            "the transaction is still open"
        );
        progress.commit(200);
        assert_eq!(
            progress.settled(after(first)),
            standing(100, 0, 1),
            "its second change is not settled"
        );
        progress.begin();
        let third = deliver(&mut progress);
        assert_eq!(progress.settled(after(second)), standing(200, 4, 3));
        progress.commit(300);
        assert_eq!(progress.settled(after(third)), standing(300, 6, 6));
    }

    #[test]
    fn what_nobody_wants_holds_nothing_back() {
        let mut progress = Progress::resume(standing(100, 0, 0));
        let wanted = {
            progress.begin();
            let position = deliver(&mut progress);
            progress.commit(200);
            position
        };
        for lsn in [300, 400] {
            progress.begin();
            progress.number();
            progress.commit(lsn);
        }
        progress.is_read_to(450);
        assert_eq!(
            progress.ends.len(),
            1,
            "ends between which nothing was handed over are one"
        );
        assert_eq!(progress.settled(Position(0)).confirmed_lsn, 100);
        assert_eq!(progress.settled(after(wanted)), standing(450, 6, 6));
        assert_eq!(progress.caught_up_at(), Some(Position(6)));
    }

    #[test]
    fn a_place_inside_a_transaction_is_not_confirmed() {
        let mut progress = Progress::resume(standing(100, 0, 0));
        progress.begin();
        progress.is_read_to(500);
        assert_eq!(progress.settled(Position(0)).confirmed_lsn, 100);
        assert_eq!(progress.caught_up_at(), None);
    }

    #[test]
    fn a_change_has_its_number_again_when_the_log_is_read_again() {
        let mut progress = Progress::resume(standing(100, 10, 10));
        progress.begin();
        let numbers: Vec<Position> = (0..3).map(|_| deliver(&mut progress)).collect();
        let kept = progress.settled(after(numbers[0]));
        let mut again = Progress::resume(kept);
        again.begin();
        let numbered: Vec<Position> = (0..3).map(|_| again.number()).collect();
        assert_eq!(numbered, numbers);
        let settled: Vec<bool> = numbers.iter().map(|number| again.was_settled(*number)).collect();
        assert_eq!(settled, [true, false, false]);
    }

    #[test]
    fn nothing_goes_back() {
        let mut progress = Progress::resume(standing(100, 0, 50));
        progress.is_read_to(90);
        assert_eq!(progress.settled(Position(7)), standing(100, 0, 50));
    }
}
