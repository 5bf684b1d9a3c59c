//! The proof of order: a column that must rise by one with every change of a row, and no two calls for one row at once.

use std::hash::{Hash, Hasher};
use std::time::Duration;

use rustc_hash::{FxHashMap, FxHasher};

use crate::event::change::ChangeEvent;
use crate::event::row::{Cell, Row, ValueRef};

/// What is known about each row, by table and primary key.
#[derive(Debug)]
pub(super) struct Order {
    column: String,
    rows: FxHashMap<u64, Known>,
    violations: u64,
}

/// A change of a row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn {
    row: u64,
    number: Option<i64>,
    is_gone: bool,
}

#[derive(Debug, Default)]
struct Known {
    last: Option<i64>,
    running: bool,
    calls: u64,
    worked: Duration,
}

impl Order {
    pub(super) fn new(column: String) -> Self {
        Self {
            column,
            rows: FxHashMap::default(),
            violations: 0,
        }
    }

    pub(super) fn violations(&self) -> u64 {
        self.violations
    }

    /// Which change of which row this is; rows without a key are not checked.
    pub(super) fn turn(&self, event: &ChangeEvent) -> Option<Turn> {
        Some(Turn {
            row: row_of(event)?,
            number: number(event.after(), &self.column),
            is_gone: event.after().is_none(),
        })
    }

    /// A call begins. The first change of a row that is seen may have any number.
    pub(super) fn begins(&mut self, turn: Turn) {
        let known = self.rows.entry(turn.row).or_default();
        let follows = match (known.last, turn.number) {
            (Some(last), Some(number)) => number == last + 1,
            (None, Some(_)) => true,
            // A row that is gone has no new number; a new row without one cannot be judged, so it is not in order.
            (_, None) => turn.is_gone,
        };
        if known.running || !follows {
            self.violations += 1;
        }
        known.running = true;
    }

    /// How long a call for the row took that had most of them.
    pub(super) fn busiest_mean(&self) -> Option<Duration> {
        let busiest = self.rows.values().max_by_key(|known| known.calls)?;
        Some(busiest.worked / u32::try_from(busiest.calls.max(1)).ok()?)
    }

    /// A call took so long.
    pub(super) fn worked(&mut self, turn: Turn, worked: Duration) {
        let known = self.rows.entry(turn.row).or_default();
        known.calls += 1;
        known.worked += worked;
    }

    /// The call has ended, and the change counts as done, or will be tried again.
    pub(super) fn ends(&mut self, turn: Turn, done: bool) {
        let known = self.rows.entry(turn.row).or_default();
        known.running = false;
        if done {
            known.last = turn.number;
        }
    }
}

fn number(row: Option<&Row>, column: &str) -> Option<i64> {
    match row?.get(column)? {
        Cell::Value(ValueRef::Int(number)) => Some(number),
        Cell::Value(ValueRef::Text(text)) => text.parse().ok(),
        Cell::Value(_) | Cell::Null | Cell::Unavailable(_) => None,
    }
}

/// A hash of table and primary key, made here and not by the router, which is what is being judged.
fn row_of(event: &ChangeEvent) -> Option<u64> {
    let key = event.key()?.row();
    let mut hasher = FxHasher::default();
    event.origin().schema.hash(&mut hasher);
    event.origin().table.hash(&mut hasher);
    for (name, cell) in key.columns() {
        name.hash(&mut hasher);
        match cell {
            Cell::Value(ValueRef::Int(number)) => number.hash(&mut hasher),
            Cell::Value(ValueRef::Text(text)) => text.hash(&mut hasher),
            other => format!("{other:?}").hash(&mut hasher),
        }
    }
    Some(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::change::{Change, Origin};
    use crate::event::key::Key;
    use crate::event::row::Value;

    fn update(id: i64, number: i64) -> ChangeEvent {
        let row = |name, number| Row::of([(name, Some(Value::Int(number)))]);
        let origin = Origin::of_table("users");
        let change = Change::Insert {
            after: row("seq", number),
            moved_from: None,
        };
        ChangeEvent::new(origin, Key::of(row("id", id)), change)
    }

    fn turn(order: &Order, id: i64, number: i64) -> Turn {
        order.turn(&update(id, number)).unwrap()
    }

    fn violations(calls: &[(i64, i64)]) -> u64 {
        let mut order = Order::new("seq".to_owned());
        for (id, number) in calls {
            let turn = turn(&order, *id, *number);
            order.begins(turn);
            order.ends(turn, true);
        }
        order.violations()
    }

    #[test]
    fn a_number_that_does_not_rise_by_one_is_found() {
        assert_eq!(violations(&[(1, 5), (2, 1), (1, 6), (2, 2)]), 0);
        assert_eq!(violations(&[(1, 5), (1, 5)]), 1, "the same change twice");
        assert_eq!(violations(&[(1, 5), (1, 7), (1, 8)]), 1, "a change was left out");
        assert_eq!(violations(&[(1, 6), (1, 5)]), 1, "two changes were exchanged");
    }

    #[test]
    fn two_calls_for_one_row_at_once_are_found() {
        let mut order = Order::new("seq".to_owned());
        order.begins(turn(&order, 1, 1));
        order.begins(turn(&order, 2, 1));
        assert_eq!(order.violations(), 0);
        order.begins(turn(&order, 1, 2));
        assert_eq!(order.violations(), 1);
    }

    #[test]
    fn a_call_that_is_repeated_is_in_order() {
        let mut order = Order::new("seq".to_owned());
        order.begins(turn(&order, 1, 1));
        order.ends(turn(&order, 1, 1), false);
        order.begins(turn(&order, 1, 1));
        assert_eq!(order.violations(), 0);
    }

    #[test]
    fn the_busiest_row_is_the_one_with_most_calls() {
        let mut order = Order::new("seq".to_owned());
        assert_eq!(order.busiest_mean(), None);
        for (id, number, millis) in [(1, 1, 9), (2, 1, 2), (2, 2, 4)] {
            order.worked(turn(&order, id, number), Duration::from_millis(millis));
        }
        assert_eq!(order.busiest_mean(), Some(Duration::from_millis(3)));
    }

    #[test]
    fn a_column_that_is_not_there_proves_nothing() {
        let mut order = Order::new("other".to_owned());
        order.begins(turn(&order, 1, 1));
        assert_eq!(order.violations(), 1);
    }
}
