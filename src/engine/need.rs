//! From which day on a group needs the ledger: what is not settled yet must still find what was done.
//!
//! Told to the claims at most once a minute; days before what every claim says may be dropped.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, NaiveDate, Utc};
use tokio::time::Instant;

use crate::engine::core::messages::PartitionId;
use crate::engine::driver::Driver;
use crate::engine::tasks::{Ended, Task};
use crate::event::change::ChangeEvent;
use crate::event::delivery::{Content, Position, SourcePartition};

/// How often it is told.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// What each partition says about what will still come.
#[derive(Debug, Default)]
pub(super) struct Need {
    /// By the number of the partition.
    partitions: Vec<Next>,
    told_at: Option<Instant>,
}

/// What is known of what comes next in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Next {
    /// Nothing: any day may come.
    #[default]
    Unknown,
    /// It was committed about when the newest arrival was, in milliseconds, or later.
    After(i64),
    /// All there was is settled, so what comes is written from now on.
    CaughtUp,
}

impl Need {
    pub(super) fn arrived(&mut self, partition: PartitionId, content: &Content) {
        let committed_ms = match content {
            Content::Change(event) => event.origin().commit_ts_ms,
            Content::Skip(_) | Content::Undecodable(_) => None,
        };
        let next = self.next(partition);
        *next = match (committed_ms, *next) {
            (Some(committed_ms), _) => Next::After(committed_ms),
            (None, Next::CaughtUp) => Next::Unknown,
            (None, before) => before,
        };
    }

    pub(super) fn caught_up(&mut self, partition: PartitionId) {
        *self.next(partition) = Next::CaughtUp;
    }

    fn next(&mut self, partition: PartitionId) -> &mut Next {
        let index = partition.0 as usize;
        if self.partitions.len() <= index {
            self.partitions.resize(index + 1, Next::Unknown);
        }
        &mut self.partitions[index]
    }
}

impl Next {
    /// The first day that is needed, with the earliest commit among what is not settled. Nothing, when any may be.
    fn first_day(self, open_ms: Option<i64>, today: NaiveDate) -> Option<NaiveDate> {
        match (open_ms, self) {
            (Some(open_ms), _) => day(open_ms),
            (None, Self::Unknown) => None,
            (None, Self::After(committed_ms)) => day(committed_ms),
            (None, Self::CaughtUp) => Some(today),
        }
    }
}

fn day(committed_ms: i64) -> Option<NaiveDate> {
    DateTime::from_timestamp_millis(committed_ms).map(|at| at.date_naive())
}

impl Driver {
    /// A partition held nothing from `end` on. Believed only where all that arrived is settled and stands before it: what
    /// came later was written after the source had looked.
    pub(super) fn caught_up(&mut self, name: &SourcePartition, end: Position) {
        let partition = self.ownership.id(name);
        let Some(owned) = self.core.partitions.get(&partition) else {
            return;
        };
        let is_settled = owned.tracker.span() == 0;
        if is_settled && owned.tracker.newest().is_none_or(|newest| newest < end) {
            self.need.caught_up(partition);
        }
    }

    /// Tells the claims from which day on their partitions need the ledger.
    pub(super) fn tell_need(&mut self) {
        let now = Instant::now();
        if self.need.told_at.is_some_and(|told_at| now < told_at + TELL_EVERY) {
            return;
        }
        let mut open: HashMap<PartitionId, i64> = HashMap::new();
        for held in self.held.values() {
            let Some(committed_ms) = held.event().and_then(committed_ms) else {
                continue;
            };
            let partition = self.ownership.id(held.partition());
            let earliest = open.entry(partition).or_insert(committed_ms);
            *earliest = committed_ms.min(*earliest);
        }
        let today = Utc::now().date_naive();
        let mut days = Vec::new();
        for partition in self.core.partitions.keys() {
            let next = *self.need.next(*partition);
            let first_day = next.first_day(open.get(partition).copied(), today);
            let name = self.ownership.name(*partition);
            if let (Some(first_day), Some(epoch)) = (first_day, self.ownership.epoch(name)) {
                days.push((name.clone(), epoch, first_day));
            }
        }
        if days.is_empty() {
            return;
        }
        self.need.told_at = Some(now);
        let claims = self.setup.claims.clone();
        let task = self.tasks.spawn(async move {
            if let Err(error) = claims.frontiers(&days).await {
                tracing::warn!(error = %error, "which days of the ledger are needed could not be told; none is dropped for that long");
            }
            Ended::ToldNeed
        });
        self.task_jobs.insert(task.id(), Task::Owner);
    }
}

fn committed_ms(event: &std::sync::Arc<ChangeEvent>) -> Option<i64> {
    event.origin().commit_ts_ms
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::delivery::SkipReason;

    const DAY_MS: i64 = 86_400_000;

    #[test]
    fn what_is_open_decides_then_the_newest_arrival_then_that_all_was_read() {
        let today = day(20 * DAY_MS);
        let first_day = |next: Next, open_ms| next.first_day(open_ms, today.unwrap());
        assert_eq!(first_day(Next::CaughtUp, None), today);
        assert_eq!(first_day(Next::CaughtUp, Some(3 * DAY_MS)), day(3 * DAY_MS));
        assert_eq!(first_day(Next::After(5 * DAY_MS), None), day(5 * DAY_MS));
        assert_eq!(first_day(Next::After(5 * DAY_MS), Some(4 * DAY_MS)), day(4 * DAY_MS));
        assert_eq!(first_day(Next::Unknown, None), None);
    }

    #[test]
    fn what_arrives_ends_having_caught_up() {
        let mut need = Need::default();
        let partition = PartitionId(2);
        assert_eq!(*need.next(partition), Next::Unknown);
        need.caught_up(partition);
        assert_eq!(*need.next(partition), Next::CaughtUp);
        need.arrived(partition, &Content::Skip(SkipReason::Tombstone));
        assert_eq!(*need.next(partition), Next::Unknown, "it says nothing of its day");
    }
}
