//! What has arrived and what is done, counted by distinct (partition, offset).
//!
//! A handler sees events and no positions. So the measurement listens between source and engine, and ties each event to
//! its position by the address of the shared event, which stays its own as long as the engine holds the record.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustc_hash::FxHashMap;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::cli::bench::late::Late;
use crate::cli::bench::order::{Order, Turn};
use crate::cli::bench::usage::rss_mb;
use crate::event::change::ChangeEvent;
use crate::event::delivery::{Content, Delivery, SourceEvent, SourcePartition};

/// Counts of one measurement, shared by whoever listens and the handler.
#[derive(Debug)]
pub(super) struct Progress {
    wanted: u64,
    state: Mutex<State>,
    complete: watch::Sender<bool>,
}

/// What was counted.
#[derive(Debug, Default)]
pub(super) struct State {
    partitions: FxHashMap<SourcePartition, u32>,
    /// Events whose handler has not ended, by the event's address.
    open: FxHashMap<usize, Open>,
    /// For each partition a bit for each position that is done, 64 offsets in a word.
    done_offsets: Vec<FxHashMap<i64, u64>>,
    pub(super) order: Option<Order>,
    pub(super) first_at: Option<Instant>,
    /// When the last wanted position was done; until then, when the newest was.
    pub(super) last_at: Option<Instant>,
    complete: bool,
    pub(super) done: u64,
    pub(super) skipped: u64,
    pub(super) undecodable: u64,
    /// Failed for good, and their letter is written.
    pub(super) buried: u64,
    /// Resident memory when a quarter was settled.
    pub(super) rss_quarter_mb: Option<f64>,
    pub(super) duplicates: u64,
    pub(super) calls: u64,
    pub(super) worked: Duration,
    /// How late records were done, where that is asked.
    pub(super) late: Option<Late>,
}

/// An event whose handler has not ended.
#[derive(Debug)]
struct Open {
    position: (u32, i64),
    turn: Option<Turn>,
    /// When its record was due to be written.
    due_ms: Option<i64>,
}

impl Progress {
    /// Complete when `wanted` positions are done, buried or known to be undecodable.
    pub(super) fn new(wanted: u64, sequence_column: Option<String>) -> Self {
        Self::timed(wanted, sequence_column, None)
    }

    /// The same, and `late` is told of each record that is done.
    pub(super) fn timed(wanted: u64, sequence_column: Option<String>, late: Option<Late>) -> Self {
        let state = State {
            order: sequence_column.map(Order::new),
            late,
            ..State::default()
        };
        Self {
            wanted,
            state: Mutex::new(state),
            complete: watch::Sender::new(false),
        }
    }

    /// Becomes true when everything wanted is done.
    pub(super) fn complete(&self) -> watch::Receiver<bool> {
        self.complete.subscribe()
    }

    /// What was counted so far.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Positions that are done, buried or known to be undecodable.
    pub(super) fn settled(&self) -> u64 {
        self.state().settled()
    }

    /// Takes note of the memory once a quarter is settled.
    pub(super) fn look(&self) {
        let mut state = self.state();
        if state.rss_quarter_mb.is_none() && state.settled() >= self.wanted / 4 {
            state.rss_quarter_mb = rss_mb();
        }
    }

    /// Records are on their way to the engine.
    pub(super) fn heard(&self, events: &[SourceEvent]) {
        let mut state = self.state();
        let now = Instant::now();
        for event in events {
            if let SourceEvent::Delivered { delivery, .. } = event {
                self.delivered(&mut state, delivery, now);
            }
        }
    }

    fn delivered(&self, state: &mut State, delivery: &Delivery, now: Instant) {
        state.first_at.get_or_insert(now);
        let partition = state.partition(&delivery.partition);
        let position = (partition, delivery.position.0);
        match &delivery.content {
            Content::Change(event) => {
                let open = Open {
                    position,
                    turn: state.order.as_ref().and_then(|order| order.turn(event)),
                    due_ms: delivery.raw.timestamp_ms,
                };
                state.open.insert(Arc::as_ptr(event).addr(), open);
                return;
            }
            // Nobody is called for it: the engine settles it when it arrives.
            Content::Skip(_) => {
                state.skipped += 1;
                state.finish(position);
            }
            Content::Undecodable(_) => state.undecodable += 1,
        }
        self.check(state, now);
    }

    /// The handler was called with this event.
    pub(super) fn begins(&self, event: &Arc<ChangeEvent>) {
        let mut state = self.state();
        let turn = state.turn(event);
        if let (Some(order), Some(turn)) = (&mut state.order, turn) {
            order.begins(turn);
        }
    }

    /// The handler is through with this event, which took so long; or failed at it.
    pub(super) fn ends(&self, event: &Arc<ChangeEvent>, worked: Option<Duration>) {
        let mut state = self.state();
        let turn = state.turn(event);
        if let (Some(order), Some(turn)) = (&mut state.order, turn) {
            order.ends(turn, worked.is_some());
        }
        let Some(worked) = worked else { return };
        state.calls += 1;
        state.worked += worked;
        if let (Some(order), Some(turn)) = (&mut state.order, turn) {
            order.worked(turn, worked);
        }
        match state.open.remove(&Arc::as_ptr(event).addr()) {
            Some(open) => {
                state.finish(open.position);
                if let (Some(late), Some(due_ms)) = (&mut state.late, open.due_ms) {
                    late.done(due_ms);
                }
            }
            None => state.duplicates += 1,
        }
        self.check(&mut state, Instant::now());
    }

    /// The handler failed at this event for good: the next change of its row is in order.
    pub(super) fn fails(&self, event: &Arc<ChangeEvent>) {
        let mut state = self.state();
        let turn = state.turn(event);
        if let (Some(order), Some(turn)) = (&mut state.order, turn) {
            order.ends(turn, true);
        }
    }

    /// The letter of an event is written.
    pub(super) fn buried(&self, event: &Arc<ChangeEvent>) {
        let mut state = self.state();
        match state.open.remove(&Arc::as_ptr(event).addr()) {
            Some(_) => state.buried += 1,
            None => state.duplicates += 1,
        }
        self.check(&mut state, Instant::now());
    }

    fn check(&self, state: &mut State, now: Instant) {
        if state.complete {
            return;
        }
        state.last_at = Some(now);
        if state.settled() >= self.wanted {
            state.complete = true;
            self.complete.send_replace(true);
        }
    }
}

impl State {
    fn settled(&self) -> u64 {
        self.done + self.undecodable + self.buried
    }

    /// Which change of which row this is: told when it arrived, or found out now when it is called without being open.
    fn turn(&self, event: &Arc<ChangeEvent>) -> Option<Turn> {
        match self.open.get(&Arc::as_ptr(event).addr()) {
            Some(open) => open.turn,
            None => self.order.as_ref().and_then(|order| order.turn(event)),
        }
    }

    fn partition(&mut self, name: &SourcePartition) -> u32 {
        if let Some(known) = self.partitions.get(name) {
            return *known;
        }
        let number = u32::try_from(self.partitions.len()).expect("fewer partitions than u32 has numbers");
        self.partitions.insert(name.clone(), number);
        self.done_offsets.push(FxHashMap::default());
        number
    }

    fn finish(&mut self, (partition, offset): (u32, i64)) {
        let word = self.done_offsets[partition as usize].entry(offset >> 6).or_default();
        let bit = 1_u64 << (offset & 63);
        if *word & bit != 0 {
            self.duplicates += 1;
        } else {
            *word |= bit;
            self.done += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::change::{Change, Origin};
    use crate::event::delivery::{Position, RawRecord, SkipReason};
    use crate::event::key::Key;
    use crate::event::row::{Row, Value};

    fn delivery(offset: i64, content: Content) -> Delivery {
        Delivery {
            partition: SourcePartition {
                topic: "t".into(),
                partition: 0,
            },
            position: Position(offset),
            raw: RawRecord::default(),
            content,
        }
    }

    fn event() -> Arc<ChangeEvent> {
        let origin = Origin::of_table("t");
        Arc::new(ChangeEvent::new(origin, None, Change::Truncate))
    }

    impl Progress {
        fn hear(&self, delivery: Delivery) {
            let delivery = Box::new(delivery);
            self.heard(&[SourceEvent::Delivered { epoch: 1, delivery }]);
        }
    }

    #[test]
    fn positions_are_counted_once_and_completion_is_told() {
        let progress = Progress::new(3, None);
        let complete = progress.complete();
        let change = event();
        progress.hear(delivery(0, Content::Change(Arc::clone(&change))));
        progress.hear(delivery(63, Content::Skip(SkipReason::Tombstone)));
        progress.ends(&change, None);
        assert_eq!(progress.settled(), 1, "a failed call is not done");
        progress.ends(&change, Some(Duration::from_millis(2)));
        assert_eq!((progress.settled(), *complete.borrow()), (2, false));
        progress.hear(delivery(64, Content::Undecodable("x".to_owned())));
        assert!(*complete.borrow());
        let state = progress.state();
        assert_eq!((state.done, state.undecodable, state.duplicates), (2, 1, 0));
    }

    #[test]
    fn what_is_buried_is_settled_and_what_comes_after_it_is_in_order() {
        let progress = Progress::new(2, Some("seq".to_owned()));
        let numbered = |number| {
            let row = |name, value| Row::of([(name, Some(Value::Int(value)))]);
            let change = Change::Insert {
                after: row("seq", number),
                moved_from: None,
            };
            Arc::new(ChangeEvent::new(Origin::of_table("t"), Key::of(row("id", 1)), change))
        };
        let (first, second) = (numbered(1), numbered(2));
        progress.hear(delivery(0, Content::Change(Arc::clone(&first))));
        progress.hear(delivery(1, Content::Change(Arc::clone(&second))));
        progress.begins(&first);
        progress.fails(&first);
        assert_eq!(progress.settled(), 0, "its letter is not written yet");
        progress.buried(&first);
        progress.begins(&second);
        progress.ends(&second, Some(Duration::ZERO));
        let state = progress.state();
        assert_eq!((state.done, state.buried, state.duplicates), (1, 1, 0));
        assert_eq!(state.order.as_ref().unwrap().violations(), 0);
    }

    #[test]
    fn a_second_call_and_a_second_delivery_are_duplicates() {
        let progress = Progress::new(10, None);
        let change = event();
        progress.hear(delivery(7, Content::Change(Arc::clone(&change))));
        progress.ends(&change, Some(Duration::ZERO));
        progress.ends(&change, Some(Duration::ZERO));
        let again = event();
        progress.hear(delivery(7, Content::Change(Arc::clone(&again))));
        progress.ends(&again, Some(Duration::ZERO));
        assert_eq!((progress.settled(), progress.state().duplicates), (1, 2));
    }
}
