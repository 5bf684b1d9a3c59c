//! The dead-letter topics: made and checked by us, never by the broker on the fly.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;

/// Settings of dead-letter topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// `host:port` of brokers, comma separated.
    pub brokers: String,
    /// Further librdkafka properties, such as those of TLS and SASL.
    pub properties: Vec<(String, String)>,
    /// Partitions of a topic that is made.
    pub partitions: i32,
    /// Replicas of a topic that is made; `None` leaves it to the broker.
    pub replicas: Option<i32>,
    /// How long letters are kept.
    pub retention: Duration,
    /// Largest record, in bytes: the source's largest and room for the headers.
    pub message_bytes_max: usize,
}

/// A dead-letter topic could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client or the request failed.
    #[error("dead-letter topic {topic} could not be made")]
    Made {
        /// The topic.
        topic: String,
        /// What librdkafka said.
        #[source]
        source: KafkaError,
    },
    /// The broker refused.
    #[error("dead-letter topic {topic} was refused by the broker: {code}")]
    Refused {
        /// The topic.
        topic: String,
        /// Why.
        code: RDKafkaErrorCode,
    },
}

/// The dead-letter topic of a group.
pub fn name(group: &str) -> String {
    format!("{group}.dlq")
}

/// A client configuration for the dead letters' brokers.
pub fn client_config(options: &Options) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &options.brokers);
    for (name, value) in &options.properties {
        config.set(name, value);
    }
    config
}

/// Makes the topic of a group unless it exists.
///
/// # Errors
/// When the broker does not answer or refuses.
pub async fn ensure(options: &Options, topic: &str) -> Result<(), Error> {
    let failed = |source| Error::Made {
        topic: topic.to_owned(),
        source,
    };
    let admin: AdminClient<DefaultClientContext> = client_config(options).create().map_err(failed)?;
    let retention = options.retention.as_millis().to_string();
    let bytes = options.message_bytes_max.to_string();
    let replication = TopicReplication::Fixed(options.replicas.unwrap_or(-1));
    let wanted = NewTopic::new(topic, options.partitions, replication)
        .set("cleanup.policy", "delete")
        .set("retention.ms", &retention)
        .set("max.message.bytes", &bytes);
    let times = AdminOptions::new().operation_timeout(Some(Duration::from_secs(10)));
    for made in admin.create_topics([&wanted], &times).await.map_err(failed)? {
        match made {
            Ok(topic) => tracing::info!(topic, "dead-letter topic made"),
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => return Err(Error::Refused { topic, code }),
        }
    }
    Ok(())
}
