//! How far a group is on one partition, and whether it can go on from there: pure.

use serde::Serialize;

/// What the broker says of one partition and one group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Position {
    /// The topic.
    pub topic: String,
    /// The number of the partition.
    pub partition: i32,
    /// Where the group goes on after a restart; `None` when Kafka knows no position.
    pub committed: Option<i64>,
    /// The offset of the oldest record that is kept.
    pub oldest: i64,
    /// One past the newest record.
    pub end: i64,
    /// Timestamp of the first record from the position on, in milliseconds; `None` when there is none, or it did not come in
    /// time.
    pub waiting_since_ms: Option<i64>,
}

/// Why a partition is stopped, or will be at the next start of its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Stopped {
    /// The group had started here, and Kafka knows no position any more: expired, or deleted.
    OffsetLost {
        /// Where the group had started.
        first_offset: i64,
    },
    /// Retention removed records that the group had not settled.
    Overtaken {
        /// How many offsets are missing.
        lost: i64,
    },
    /// The position is past the end: another topic has this name now.
    PastEnd {
        /// How far past the end it is.
        by: i64,
    },
}

impl Position {
    /// Why the group cannot go on from here. `first_offset` is where it started, as its claim says.
    pub fn stopped(&self, first_offset: Option<i64>) -> Option<Stopped> {
        match (self.committed, first_offset) {
            (None, Some(first_offset)) => Some(Stopped::OffsetLost { first_offset }),
            (None, None) => None,
            (Some(committed), _) if committed < self.oldest => Some(Stopped::Overtaken {
                lost: self.oldest - committed,
            }),
            (Some(committed), _) if committed > self.end => Some(Stopped::PastEnd {
                by: committed - self.end,
            }),
            (Some(_), _) => None,
        }
    }

    /// Offsets from the position to the end; without a position, all that are kept. Transactions and compaction leave gaps, so
    /// there may be fewer records.
    pub fn lag(&self) -> i64 {
        let from = self.committed.unwrap_or(self.oldest).max(self.oldest);
        (self.end - from).max(0)
    }
}

impl Stopped {
    /// What happened, for people.
    pub fn in_words(&self) -> String {
        match self {
            Self::OffsetLost { first_offset } => {
                format!("the committed offset was lost (expired or deleted); the group had started at {first_offset}")
            }
            Self::Overtaken { lost } => {
                format!("retention overtook the group: {lost} offsets before the oldest record are gone")
            }
            Self::PastEnd { by } => format!("the position is {by} past the end of the topic (topic made anew?)"),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A position on a partition that keeps the offsets from `oldest` up to `end`.
    pub(crate) fn position(committed: Option<i64>, oldest: i64, end: i64) -> Position {
        Position {
            topic: "w.public.t".to_owned(),
            partition: 3,
            committed,
            oldest,
            end,
            waiting_since_ms: None,
        }
    }

    #[test]
    fn what_stops_a_partition_is_told_from_what_does_not() {
        for (committed, first_offset, stopped, lag) in [
            (Some(10), Some(0), None, 10),
            (Some(20), Some(0), None, 0),
            (Some(5), Some(0), None, 15),
            (Some(4), Some(0), Some(Stopped::Overtaken { lost: 1 }), 15),
            (Some(21), Some(0), Some(Stopped::PastEnd { by: 1 }), 0),
            (None, Some(2), Some(Stopped::OffsetLost { first_offset: 2 }), 15),
            (None, None, None, 15),
            // A position that somebody set before the group ever ran.
            (Some(4), None, Some(Stopped::Overtaken { lost: 1 }), 15),
        ] {
            let position = position(committed, 5, 20);
            assert_eq!(
                (position.stopped(first_offset), position.lag()),
                (stopped, lag),
                "{committed:?} {first_offset:?}"
            );
        }
    }
}
