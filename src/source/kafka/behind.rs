//! How many records a group is behind: from what librdkafka's statistics say of the ends of topics, without asking a broker.

use rdkafka::Statistics;

use crate::source::kafka::retention::Frontiers;

/// Records that can be read between the positions and the ends of partitions; `None` as long as one of these is not known. A marker of a transaction counts as a record: it has an offset.
pub(super) fn behind(statistics: &Statistics, frontiers: &Frontiers) -> Option<u64> {
    let of_each = frontiers.iter().map(|(partition, position)| {
        let end = statistics
            .topics
            .get(&*partition.topic)?
            .partitions
            .get(&partition.partition)?
            .ls_offset;
        // What is not known is told as a negative number; the position may be ahead of an end that was told a while ago.
        (end >= 0).then(|| u64::try_from(end - position.0).unwrap_or_default())
    });
    of_each.sum()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use rdkafka::statistics::{Partition, Topic};

    use super::*;
    use crate::event::delivery::{Position, SourcePartition};

    fn told(ends: &[(i32, i64)]) -> Statistics {
        let of = |(number, end): &(i32, i64)| {
            let partition = Partition {
                ls_offset: *end,
                ..Partition::default()
            };
            (*number, partition)
        };
        let topic = Topic {
            partitions: ends.iter().map(of).collect(),
            ..Topic::default()
        };
        Statistics {
            topics: HashMap::from([("t".to_owned(), topic)]),
            ..Statistics::default()
        }
    }

    fn standing(positions: &[(i32, i64)]) -> Frontiers {
        let of = |(number, position): &(i32, i64)| {
            let partition = SourcePartition {
                topic: "t".into(),
                partition: *number,
            };
            (partition, Position(*position))
        };
        positions.iter().map(of).collect()
    }

    #[test]
    fn only_what_is_owned_counts() {
        assert_eq!(
            behind(&told(&[(0, 10), (1, 20), (2, 7)]), &standing(&[(0, 4), (2, 7)])),
            Some(6)
        );
        assert_eq!(behind(&told(&[(0, 10)]), &standing(&[])), Some(0));
    }

    #[test]
    fn an_end_that_is_older_than_the_position_is_no_distance() {
        assert_eq!(behind(&told(&[(0, 10)]), &standing(&[(0, 12)])), Some(0));
    }

    #[test]
    fn an_end_that_is_not_known_makes_the_whole_unknown() {
        assert_eq!(
            behind(&told(&[(0, 10), (1, -1001)]), &standing(&[(0, 4), (1, 0)])),
            None
        );
        assert_eq!(behind(&told(&[(0, 10)]), &standing(&[(0, 4), (1, 0)])), None);
    }
}
