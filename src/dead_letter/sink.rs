//! Writing a letter: first to the topic, acknowledged by all in-sync replicas, then its state to Postgres. A letter that
//! the topic refuses as too large goes to Postgres as a whole: it would be refused for ever.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::Statistics;
use rdkafka::client::ClientContext;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::types::RDKafkaErrorCode;
use sqlx::postgres::PgPool;

use crate::clients::denied::Denied;
use crate::clients::forgotten::{Forgotten, TOLD_EVERY_MS};
use crate::clients::kafka::hide_value;
use crate::dead_letter::state::{self, Kept, LetterRow, Place};
use crate::dead_letter::{headers, table, topic};
use crate::engine::letter::{BuryError, Letter, Letters};
use crate::event::delivery::RawRecord;

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
    producer: Mutex<Producer>,
    pool: PgPool,
    options: topic::Options,
    writing: Writing,
}

/// A client, and whether it is of any use yet.
#[derive(Clone)]
struct Producer {
    client: FutureProducer<Watched>,
    forgotten: Arc<Forgotten>,
}

struct Watched(Arc<Forgotten>);

impl ClientContext for Watched {
    fn stats(&self, statistics: Statistics) {
        self.0.see(&statistics);
    }
}

fn producer(options: &topic::Options, writing: Writing) -> Result<Producer, KafkaError> {
    let forgotten = Arc::<Forgotten>::default();
    let client = topic::client_config(options)
        .set("acks", "all")
        // Copies of a letter are known by their id. An idempotent producer would end for good on some errors, and every
        // letter after it would fail until the process is restarted.
        .set("enable.idempotence", "false")
        .set("delivery.timeout.ms", writing.acknowledge_max.as_millis().to_string())
        .set("message.max.bytes", options.message_bytes_max.to_string())
        .set("linger.ms", "0")
        .set("statistics.interval.ms", TOLD_EVERY_MS)
        .create_with_context(Watched(Arc::clone(&forgotten)))
        .map_err(hide_value)?;
    Ok(Producer { client, forgotten })
}

impl KafkaLetters {
    /// A sink whose state goes to `pool`.
    ///
    /// # Errors
    /// When the properties are refused. An unreachable broker is no error here: writing waits for it.
    pub fn new(options: topic::Options, writing: Writing, pool: PgPool) -> Result<Self, KafkaError> {
        let producer = Mutex::new(producer(&options, writing)?);
        Ok(Self {
            producer,
            pool,
            options,
            writing,
        })
    }

    /// The producer; a new one when the last has forgotten every broker.
    fn producer(&self) -> Result<Producer, KafkaError> {
        let mut kept = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.forgotten.is_certain() {
            *kept = producer(&self.options, self.writing)?;
            tracing::warn!(
                "the producer of dead letters had forgotten every broker (librdkafka issue 5301): it is another one now"
            );
        }
        Ok(kept.clone())
    }

    /// Writes a letter's record with all its headers.
    pub(crate) async fn produce(
        &self,
        record: &RawRecord,
        headers: &[headers::Header],
        topic: &str,
    ) -> Result<Place, KafkaError> {
        let mut added = OwnedHeaders::new_with_capacity(headers.len());
        for (name, value) in headers {
            added = added.insert(Header {
                key: name,
                value: value.as_deref(),
            });
        }
        let mut produced: FutureRecord<'_, [u8], [u8]> = FutureRecord::to(topic).headers(added);
        if let Some(key) = &record.key {
            produced = produced.key(key);
        }
        if let Some(value) = &record.value {
            produced = produced.payload(value);
        }
        match self
            .producer()?
            .client
            .send(produced, self.writing.acknowledge_max)
            .await
        {
            Ok(delivered) => Ok(Place {
                topic: topic.to_owned(),
                partition: delivered.partition,
                offset: delivered.offset,
            }),
            Err((error, _)) => Err(error),
        }
    }

    /// Writes the letter to its topic; answers `None` when that refuses it as too large, also with a shorter error.
    async fn to_topic(&self, letter: &Letter, error: &str, topic: &str) -> Result<Option<Place>, KafkaError> {
        let shorter = headers::cut(&letter.error, ERROR_BYTES_WHERE_TIGHT);
        let mut texts = vec![error];
        texts.extend((shorter.len() < error.len()).then_some(shorter.as_str()));
        for text in texts {
            match self.produce(&letter.raw, &headers::of(letter, text), topic).await {
                Err(refused) if is_too_large(&refused) => {}
                answer => return answer.map(Some),
            }
        }
        Ok(None)
    }

    /// Puts a letter that is not known back: its record as it is, then its state. Answers whether it was not known.
    ///
    /// # Errors
    /// When the broker or Postgres refuse; repeating it leaves one letter.
    pub async fn put_back(&self, letter: LetterRow, record: &RawRecord) -> Result<bool, BuryError> {
        let place = self.place(&letter, record).await?;
        let kept = place.as_ref().map_or(Kept::Table(record), Kept::Topic);
        table::put_back(&self.pool, letter, kept).await
    }

    /// Gives a known letter its bytes back.
    ///
    /// # Errors
    /// When the broker or Postgres refuse; repeating it leaves one letter.
    pub async fn restore(&self, letter: &LetterRow, record: &RawRecord) -> Result<(), BuryError> {
        let place = self.place(letter, record).await?;
        let kept = place.as_ref().map_or(Kept::Table(record), Kept::Topic);
        table::restore(&self.pool, letter, kept).await
    }

    /// Writes a record that has all its headers to the letter's topic; `None` when it is too large for that.
    async fn place(&self, letter: &LetterRow, record: &RawRecord) -> Result<Option<Place>, BuryError> {
        let topic = topic::name(&letter.group_name);
        match self.produce(record, &record.headers, &topic).await {
            Ok(place) => Ok(Some(place)),
            Err(refused) if is_too_large(&refused) => Ok(None),
            Err(source) => Err(unburied(topic, source)),
        }
    }

    /// A topic that somebody deleted is made again, so that the next try can succeed.
    async fn make_again(&self, topic: &str, refused: &KafkaError) {
        if is_unknown_topic(refused)
            && let Err(error) = topic::ensure(&self.options, topic).await
        {
            tracing::warn!(topic, error = %error, "missing dead-letter topic could not be made again");
        }
    }
}

/// What is left of the error's text where the topic has no room for more.
const ERROR_BYTES_WHERE_TIGHT: usize = 64;

/// Whether the record is larger than the topic, or this client, takes.
fn is_too_large(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize)
    )
}

/// Why a topic did not take a letter.
fn unburied(topic: String, refused: KafkaError) -> BuryError {
    let is_denied = refused.rdkafka_error_code() == Some(RDKafkaErrorCode::TopicAuthorizationFailed);
    BuryError {
        source: match is_denied {
            true => Denied::keeping_letters(&topic).into(),
            false => refused.into(),
        },
        place: topic,
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
        let place = match self.to_topic(letter, &error, &topic).await {
            Ok(place) => place,
            Err(source) => {
                self.make_again(&topic, &source).await;
                return Err(unburied(topic, source));
            }
        };
        match &place {
            Some(place) => {
                let recorded = state::record(&self.pool, letter, &error, Kept::Topic(place)).await;
                recorded.map_err(table::unrecorded)
            }
            None => {
                tracing::warn!(
                    group = %letter.group, letter = letter.id(), bytes = letter.raw.weight(),
                    "the dead-letter topic refuses the letter as too large: its bytes go to afterwrite.dead_letters"
                );
                table::keep(&self.pool, letter, &error).await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use sqlx::postgres::PgPoolOptions;

    use super::*;

    #[tokio::test]
    async fn a_producer_that_has_forgotten_every_broker_is_made_anew() {
        let options = topic::Options {
            // Nobody listens there.
            brokers: "127.0.0.1:1".to_owned(),
            properties: Vec::new(),
            partitions: 1,
            replicas: None,
            retention: Duration::from_secs(1),
            message_bytes_max: 1_000_000,
        };
        let writing = Writing {
            error_bytes_max: 100,
            acknowledge_max: Duration::from_secs(1),
        };
        let pool = PgPoolOptions::new()
            .connect_lazy("postgres://127.0.0.1:1/none")
            .unwrap();
        let letters = KafkaLetters::new(options, writing, pool).unwrap();
        let first = letters.producer().unwrap().forgotten;
        assert!(Arc::ptr_eq(&first, &letters.producer().unwrap().forgotten));
        for _ in 0..2 {
            first.see(&Statistics::default());
        }
        assert!(!Arc::ptr_eq(&first, &letters.producer().unwrap().forgotten));
    }
}
