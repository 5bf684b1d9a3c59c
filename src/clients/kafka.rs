//! What is asked of a broker in more than one place, and what may be said of its client's errors.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use tokio::time::Instant;

/// Longest time for one question to the broker.
pub(crate) const QUESTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause before a partition that has no leader is asked again.
const LEADER_PAUSE: Duration = Duration::from_millis(100);

/// The first offset of a partition and the one after its last. A partition whose leader is being chosen, as in the moments
/// after its topic was made, is asked again. Blocks for at most [`QUESTION_TIMEOUT`].
///
/// # Errors
/// When the broker does not answer, or refuses.
pub(crate) fn bounds(consumer: &BaseConsumer, topic: &str, partition: i32) -> KafkaResult<(i64, i64)> {
    let deadline = Instant::now() + QUESTION_TIMEOUT;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match consumer.fetch_watermarks(topic, partition, left) {
            Err(error) if is_between_leaders(&error) && left > LEADER_PAUSE => {
                tracing::debug!(topic, partition, "waiting for the partition's leader");
                std::thread::park_timeout(LEADER_PAUSE);
            }
            answer => return answer,
        }
    }
}

/// The offset of each partition at one place: [`Offset::Beginning`], [`Offset::End`], or the first record whose timestamp is
/// not before `Offset::Offset(milliseconds)`, and the end where there is none. One request a broker, for all partitions, and at
/// most `within` altogether.
///
/// # Errors
/// When a broker does not answer in time, or refuses the question about one of the partitions.
pub(crate) fn offsets_at<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    partitions: &[(&str, i32)],
    at: Offset,
    within: Duration,
) -> KafkaResult<Vec<(String, i32, i64)>> {
    let mut list = TopicPartitionList::new();
    for (topic, partition) in partitions {
        list.add_partition_offset(topic, *partition, at)?;
    }
    if list.count() == 0 {
        return Ok(Vec::new());
    }
    let deadline = Instant::now() + within;
    let left = || deadline.saturating_duration_since(Instant::now());
    let found = consumer.offsets_for_times(list, left())?;
    let mut offsets = Vec::with_capacity(found.count());
    let mut at_end = Vec::new();
    for element in found.elements() {
        element.error()?;
        match element.offset() {
            Offset::Offset(offset) => offsets.push((element.topic().to_owned(), element.partition(), offset)),
            // All records are older.
            _ if at != Offset::End => at_end.push((element.topic().to_owned(), element.partition())),
            other => {
                tracing::debug!(
                    topic = element.topic(),
                    partition = element.partition(),
                    ?other,
                    "no end was told"
                );
            }
        }
    }
    let at_end: Vec<(&str, i32)> = at_end
        .iter()
        .map(|(topic, partition)| (topic.as_str(), *partition))
        .collect();
    offsets.extend(offsets_at(consumer, &at_end, Offset::End, left())?);
    Ok(offsets)
}

/// Whether the broker that was asked is not the partition's leader yet, or not any more.
pub(crate) fn is_between_leaders(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::NotLeaderForPartition | RDKafkaErrorCode::LeaderNotAvailable)
    )
}

/// Whether the broker was away: asking again later may help.
pub(crate) fn is_away(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::Resolve
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::RequestTimedOut
                | RDKafkaErrorCode::CoordinatorNotAvailable
                | RDKafkaErrorCode::WaitingForCoordinator
        )
    )
}

/// The command that gives a topic a setting, for people.
pub(crate) fn alter_topic(topic: &str, setting: &str) -> String {
    format!(
        "kafka-configs.sh --bootstrap-server \"$KAFKA_BROKERS\" --alter --entity-type topics --entity-name {topic} --add-config {setting}"
    )
}

/// The error without the value of the property that was refused: it may be a password under a mistyped name.
pub(crate) fn hide_value(error: KafkaError) -> KafkaError {
    match error {
        KafkaError::ClientConfig(result, description, name, _) => {
            KafkaError::ClientConfig(result, description, name, "(hidden)".to_owned())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::config::ClientConfig;

    use super::*;

    #[test]
    fn only_a_partition_between_two_leaders_is_asked_again() {
        for (code, expected) in [
            (RDKafkaErrorCode::NotLeaderForPartition, true),
            (RDKafkaErrorCode::LeaderNotAvailable, true),
            (RDKafkaErrorCode::UnknownTopicOrPartition, false),
            (RDKafkaErrorCode::TopicAuthorizationFailed, false),
        ] {
            assert_eq!(is_between_leaders(&KafkaError::MetadataFetch(code)), expected, "{code}");
        }
    }

    #[test]
    fn a_broker_that_is_away_is_told_from_one_that_refuses() {
        for (code, expected) in [
            (RDKafkaErrorCode::BrokerTransportFailure, true),
            (RDKafkaErrorCode::OperationTimedOut, true),
            (RDKafkaErrorCode::GroupAuthorizationFailed, false),
        ] {
            assert_eq!(is_away(&KafkaError::MetadataFetch(code)), expected, "{code}");
        }
    }

    #[test]
    fn a_refused_property_is_named_without_its_value() {
        let made: KafkaResult<BaseConsumer> = ClientConfig::new().set("sasl.pasword", "hunter2").create();
        let said = hide_value(made.map(|_| ()).unwrap_err()).to_string();
        assert!(said.contains("sasl.pasword") && !said.contains("hunter2"), "{said}");
    }
}
