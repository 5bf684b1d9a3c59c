//! Topics of a measurement: made, looked at, rewound, deleted.

use std::time::Duration;

use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use crate::cli::Failure;
use crate::cli::bench::Cluster;
use crate::clients::kafka::{Admin, admin};

/// How long the broker may take to answer one question.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
enum TopicError {
    #[error("kafka at {brokers} could not be reached")]
    Unreachable { brokers: String, source: KafkaError },
    #[error("topic {topic} does not exist")]
    Missing { topic: String },
    #[error("topic {topic} could not be made: {code}")]
    Refused { topic: String, code: RDKafkaErrorCode },
    #[error("topic {topic} holds records already, so the sequence of its keys would start again; name a new topic")]
    NotEmpty { topic: String },
    #[error("the position of group {group} could not be moved to the beginning; does another process run it?")]
    Rewind { group: String, source: KafkaError },
}

/// The partitions of topics with their oldest and newest offsets.
pub(super) type Extents = Vec<(String, i32, i64, i64)>;

impl Cluster {
    fn unreachable(&self, source: KafkaError) -> Failure {
        let brokers = self.brokers.clone();
        Failure::unreachable(TopicError::Unreachable { brokers, source })
    }

    /// A consumer that is in no group and fetches nothing until it is told to.
    pub(super) fn consumer(&self, group: &str) -> Result<BaseConsumer, Failure> {
        let mut client = self.client();
        client
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "false")
            // With the client's own second of patience, a loop that is slower than the broker mostly waits.
            .set("fetch.queue.backoff.ms", "10");
        client.create().map_err(Failure::usage)
    }

    /// Where topics begin and end. Blocks.
    pub(super) fn extents(&self, consumer: &BaseConsumer, topics: &[String]) -> Result<Extents, Failure> {
        let mut extents = Extents::new();
        for topic in topics {
            let metadata = consumer.fetch_metadata(Some(topic), QUESTION_TIMEOUT);
            let metadata = metadata.map_err(|error| self.unreachable(error))?;
            let partitions = metadata.topics().first().map_or(&[][..], |found| found.partitions());
            if partitions.is_empty() {
                let topic = topic.clone();
                return Err(Failure::usage(TopicError::Missing { topic }));
            }
            for partition in partitions {
                let watermarks = consumer.fetch_watermarks(topic, partition.id(), QUESTION_TIMEOUT);
                let (low, high) = watermarks.map_err(|error| self.unreachable(error))?;
                extents.push((topic.clone(), partition.id(), low, high));
            }
        }
        Ok(extents)
    }

    /// Moves a group that nobody runs to the beginning of topics. Blocks.
    pub(super) fn rewind(&self, group: &str, topics: &[String]) -> Result<(), Failure> {
        let consumer = self.consumer(group)?;
        let mut list = TopicPartitionList::new();
        for (topic, partition, low, _) in self.extents(&consumer, topics)? {
            list.add_partition_offset(&topic, partition, Offset::Offset(low))
                .map_err(Failure::failed)?;
        }
        consumer.commit(&list, CommitMode::Sync).map_err(|source| {
            let group = group.to_owned();
            Failure::usage(TopicError::Rewind { group, source })
        })
    }

    fn admin(&self) -> Result<Admin, Failure> {
        admin(&self.client()).map_err(Failure::usage)
    }

    /// Makes a topic, or takes an empty one.
    pub(super) async fn make_empty(&self, topic: &str, partitions: i32) -> Result<(), Failure> {
        let wanted = NewTopic::new(topic, partitions, TopicReplication::Fixed(-1)).set("cleanup.policy", "delete");
        let made = self.admin()?.create_topics([&wanted], &times()).await;
        let made = made.map_err(|error| self.unreachable(error))?;
        for result in made {
            match result {
                // New, so empty; its partitions may have no leader to ask yet.
                Ok(_) => return Ok(()),
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => return Err(Failure::usage(TopicError::Refused { topic, code })),
            }
        }
        let (cluster, name) = (self.clone(), topic.to_owned());
        super::blocking(move || {
            let consumer = cluster.consumer("afterwrite.bench.look")?;
            let extents = cluster.extents(&consumer, std::slice::from_ref(&name))?;
            if extents.iter().any(|(_, _, low, high)| low != high) {
                return Err(Failure::usage(TopicError::NotEmpty { topic: name }));
            }
            Ok(())
        })
        .await
    }

    /// Deletes a topic; that it remains is worth a line and no failure.
    pub(super) async fn delete_topic(&self, topic: &str) -> Result<(), Failure> {
        if let Err(error) = self.admin()?.delete_topics(&[topic], &times()).await {
            tracing::warn!(topic, %error, "topic could not be deleted");
        }
        Ok(())
    }

    /// Deletes a group that nobody runs any more; that it remains is worth a line and no failure.
    pub(super) async fn delete_group(&self, group: &str) -> Result<(), Failure> {
        if let Err(error) = self.admin()?.delete_groups(&[group], &times()).await {
            tracing::warn!(group, %error, "consumer group could not be deleted");
        }
        Ok(())
    }
}

fn times() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(QUESTION_TIMEOUT))
}
