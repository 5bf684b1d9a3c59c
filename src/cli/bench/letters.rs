//! Dead letters of a measurement: counted only, or written to their topic. Either way they have no state, because a
//! measurement needs no database.

use std::sync::Arc;

use async_trait::async_trait;

use crate::app::options;
use crate::cli::Failure;
use crate::cli::bench::Cluster;
use crate::cli::bench::drain::Ledger;
use crate::cli::bench::progress::Progress;
use crate::config::Config;
use crate::dead_letter::sink::KafkaLetters;
use crate::dead_letter::{headers, topic};
use crate::engine::letter::{BuryError, Letter, Letters};

/// What cannot be decoded is counted where it arrives, and nothing is written.
pub(super) struct NoLetters;

#[async_trait]
impl Letters for NoLetters {
    async fn bury(&self, _: &Letter) -> Result<(), BuryError> {
        Ok(())
    }
}

/// Written to the dead-letter topic of the group as the worker writes them.
pub(super) struct TopicLetters {
    letters: KafkaLetters,
    error_bytes_max: usize,
    progress: Arc<Progress>,
}

impl TopicLetters {
    /// Makes the topic, or takes one that is there.
    pub(super) async fn open(
        config: &Config,
        cluster: &Cluster,
        group: &str,
        progress: Arc<Progress>,
    ) -> Result<Self, Failure> {
        let topics = topic::Options {
            brokers: cluster.brokers.clone(),
            ..options::dead_letter_topics(config)
        };
        topic::ensure(&topics, &topic::name(group)).await.map_err(|error| {
            if error.is_permanent() {
                Failure::usage(error)
            } else {
                Failure::unreachable(error)
            }
        })?;
        let writing = options::writing(config);
        Ok(Self {
            letters: KafkaLetters::new(topics, writing, Ledger::none()).map_err(Failure::usage)?,
            error_bytes_max: writing.error_bytes_max,
            progress,
        })
    }
}

#[async_trait]
impl Letters for TopicLetters {
    async fn bury(&self, letter: &Letter) -> Result<(), BuryError> {
        let topic = topic::name(&letter.group);
        let error = headers::cut(&letter.error, self.error_bytes_max);
        match self
            .letters
            .produce(&letter.raw, &headers::of(letter, &error), &topic)
            .await
        {
            Ok(_) => {
                letter.event.iter().for_each(|event| self.progress.buried(event));
                Ok(())
            }
            Err(source) => Err(BuryError {
                place: topic,
                source: source.into(),
            }),
        }
    }
}
