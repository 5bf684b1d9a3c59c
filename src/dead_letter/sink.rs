//! Writing a letter: first to the topic, acknowledged by all in-sync replicas, then its state to Postgres.

use std::time::Duration;

use async_trait::async_trait;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::types::RDKafkaErrorCode;
use sqlx::postgres::PgPool;

use crate::clients::kafka::hide_value;
use crate::dead_letter::state::{self, Place};
use crate::dead_letter::{headers, topic};
use crate::engine::letter::{BuryError, Letter, Letters};

/// How letters are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Writing {
    /// Longer error texts are cut.
    pub error_bytes_max: usize,
    /// How long the broker may take to acknowledge a letter; the engine then writes it again.
    pub acknowledge_max: Duration,
}

/// Dead letters in Kafka topics.
pub struct KafkaLetters {
    producer: FutureProducer,
    pool: PgPool,
    options: topic::Options,
    writing: Writing,
}

impl KafkaLetters {
    /// A sink whose state goes to `pool`.
    ///
    /// # Errors
    /// When the properties are refused. An unreachable broker is no error here: writing waits for it.
    pub fn new(options: topic::Options, writing: Writing, pool: PgPool) -> Result<Self, KafkaError> {
        let producer = topic::client_config(&options)
            .set("acks", "all")
            // Copies of a letter are known by their id. An idempotent producer would end for good on some errors, and every
            // letter after it would fail until the process is restarted.
            .set("enable.idempotence", "false")
            .set("delivery.timeout.ms", writing.acknowledge_max.as_millis().to_string())
            .set("message.max.bytes", options.message_bytes_max.to_string())
            .set("linger.ms", "0")
            .create()
            .map_err(hide_value)?;
        Ok(Self {
            producer,
            pool,
            options,
            writing,
        })
    }

    async fn produce(&self, letter: &Letter, error: &str, topic: &str) -> Result<Place, KafkaError> {
        let mut added = OwnedHeaders::new();
        for (name, value) in headers::of(letter, error) {
            added = added.insert(Header {
                key: &name,
                value: value.as_deref(),
            });
        }
        let mut record: FutureRecord<'_, [u8], [u8]> = FutureRecord::to(topic).headers(added);
        if let Some(key) = &letter.raw.key {
            record = record.key(key);
        }
        if let Some(value) = &letter.raw.value {
            record = record.payload(value);
        }
        match self.producer.send(record, self.writing.acknowledge_max).await {
            Ok(delivered) => Ok(Place {
                topic: topic.to_owned(),
                partition: delivered.partition,
                offset: delivered.offset,
            }),
            Err((error, _)) => Err(error),
        }
    }
}

/// Whether the topic does not exist: by the broker's word, or by that of the client, which remembers it.
fn is_unknown_topic(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic)
    )
}

#[async_trait]
impl Letters for KafkaLetters {
    async fn bury(&self, letter: &Letter) -> Result<(), BuryError> {
        let topic = topic::name(&letter.group);
        let error = headers::cut(&letter.error, self.writing.error_bytes_max);
        let place = match self.produce(letter, &error, &topic).await {
            Ok(place) => place,
            Err(source) => {
                // A topic that somebody deleted is made again, so that the next try can succeed.
                if is_unknown_topic(&source)
                    && let Err(error) = topic::ensure(&self.options, &topic).await
                {
                    tracing::warn!(topic, error = %error, "missing dead-letter topic could not be made again");
                }
                return Err(BuryError {
                    place: topic,
                    source: source.into(),
                });
            }
        };
        let recorded = state::record(&self.pool, letter, &error, &place).await;
        recorded.map_err(|source| BuryError {
            place: "afterwrite.letters".to_owned(),
            source: source.into(),
        })
    }
}
