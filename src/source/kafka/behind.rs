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
/// needed yet is not connected, so one of them is enough. One that lets us not in may still have a connection of ours that is
/// idle, which it cuts off as soon as something is asked over it: such a connection proves nothing, an answer does.
pub(super) fn meet(statistics: &Statistics, brokers: &Reach, objections: &Objections) {
    let connected = statistics.brokers.values().filter(|broker| broker.state == "UP");
    let (count, answers) = connected.fold((0, 0), |(count, answers), broker| (count + 1, answers + broker.rx));
    let has_answered = objections.hear_answers(answers);
    match (count, objections.why_shut()) {
        (1.., None) => brokers.answered(),
        (1.., Some(_)) if has_answered => {
            objections.let_in();
            brokers.answered();
        }
        (_, Some(objection)) => brokers.missed(&objection),
        (_, None) => {
            let known = statistics.brokers.len();
            brokers.missed(&format!("none of {known} known brokers is connected"));
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
    fn a_connection_over_which_nothing_is_answered_is_no_sign_of_being_let_in() {
        let (objections, brokers) = (Objections::default(), Reach::new());
        let options = crate::source::kafka::tests::options("b:9092");
        let refused = "sasl_ssl://b:9092/1: SASL authentication error: {\"status\":\"invalid_token\"} (after 3ms in state AUTH_REQ)";
        let is_up = |told: &[(&str, u64)]| {
            let of = |(number, (state, rx)): (usize, &(&str, u64))| {
                let broker = rdkafka::statistics::Broker {
                    state: (*state).to_owned(),
                    rx: *rx,
                    ..Default::default()
                };
                (number.to_string(), broker)
            };
            let statistics = Statistics {
                brokers: told.iter().enumerate().map(of).collect(),
                ..Statistics::default()
            };
            meet(&statistics, &brokers, &objections);
            let met = brokers.met().unwrap();
            (met.is_up, met.why)
        };
        assert!(is_up(&[("UP", 5), ("UP", 70)]).0);
        let code = rdkafka::types::RDKafkaErrorCode::Authentication;
        objections.hear(&options, &rdkafka::error::KafkaError::Global(code), refused);
        let (is_let_in, why) = is_up(&[("UP", 5), ("AUTH_REQ", 72)]);
        assert!(!is_let_in && why.unwrap().contains("refused the token"));
        assert!(!is_up(&[("UP", 5), ("DOWN", 74)]).0);
        assert_eq!(is_up(&[("UP", 5), ("UP", 76)]), (true, None));
        assert!(is_up(&[("UP", 5), ("UP", 76)]).0, "nobody objects any more");
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
