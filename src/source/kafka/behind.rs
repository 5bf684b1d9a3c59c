//! How many records a group is behind: from what librdkafka's statistics say of the ends of topics, without asking a broker.

use rdkafka::Statistics;

use crate::source::kafka::objections::Objections;
use crate::source::kafka::retention::Frontiers;
use crate::tally::reach::Reach;

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

/// Tells whether a broker answers, and if none does, why it lets us not in, where that is known. One that the client has not
/// needed yet is not connected, so one of them is enough.
pub(super) fn meet(statistics: &Statistics, brokers: &Reach, objections: &Objections) {
    let known = statistics.brokers.values();
    let connected = known.filter(|broker| broker.state == "UP").count();
    match (connected, statistics.brokers.len()) {
        (0, known) => match objections.why_shut() {
            Some(objection) => brokers.missed(&objection),
            None => brokers.missed(&format!("none of {known} known brokers is connected")),
        },
        (_, _) => {
            objections.let_in();
            brokers.answered();
        }
    }
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
    fn one_connected_broker_is_enough() {
        let states = |states: &[&str]| {
            let of = |(number, state): (usize, &&str)| {
                let broker = rdkafka::statistics::Broker {
                    state: (*state).to_owned(),
                    ..Default::default()
                };
                (number.to_string(), broker)
            };
            let brokers = Reach::new();
            let statistics = Statistics {
                brokers: states.iter().enumerate().map(of).collect(),
                ..Statistics::default()
            };
            meet(&statistics, &brokers, &Objections::default());
            brokers.met().map(|met| met.is_up)
        };
        assert_eq!(states(&[]), Some(false));
        assert_eq!(states(&["INIT", "UP"]), Some(true));
        assert_eq!(states(&["INIT", "DOWN"]), Some(false));
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
