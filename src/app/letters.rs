//! Where the letters of a group go, and that it is there before anything is fetched.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use sqlx::postgres::PgPool;
use tokio::sync::watch;

use crate::app::{options, stopped};
use crate::config::Config;
use crate::dead_letter::sink::KafkaLetters;
use crate::dead_letter::table::TableLetters;
use crate::dead_letter::topic;
use crate::engine::letter::Letters;

/// Pause before a dead-letter topic that could not be made is tried again.
const TOPIC_PAUSE: Duration = Duration::from_secs(2);

/// Where letters go: to their topic, or as a whole to Postgres where there is none.
pub(super) fn sink(config: &Config, topic: Option<&topic::Options>, pool: PgPool) -> anyhow::Result<Arc<dyn Letters>> {
    let writing = options::writing(config);
    let Some(topic) = topic else {
        return Ok(Arc::new(TableLetters::new(pool, writing.error_bytes_max)));
    };
    let letters = KafkaLetters::new(topic.clone(), writing, pool)
        .context("the producer of dead letters could not be made: are kafka.properties right?")?;
    Ok(Arc::new(letters))
}

/// Makes or checks the dead-letter topic, waiting for the broker; answers false when the process was stopped meanwhile.
pub(super) async fn ensure_topic(
    options: &topic::Options,
    name: &str,
    stop: watch::Receiver<bool>,
) -> Result<bool, topic::Error> {
    loop {
        // A client of brokers that do not answer waits for a minute.
        let made = tokio::select! {
            made = topic::ensure(options, name) => made,
            () = stopped(stop.clone()) => return Ok(false),
        };
        match made {
            Ok(()) => return Ok(true),
            Err(error) if error.is_permanent() => return Err(error),
            Err(error) => {
                let cause = std::error::Error::source(&error)
                    .map(ToString::to_string)
                    .unwrap_or_default();
                tracing::warn!(error = %error, cause, "waiting for the broker before anything is fetched");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(TOPIC_PAUSE) => {}
            () = stopped(stop.clone()) => return Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::Utc;
    use sqlx::postgres::PgPoolOptions;

    use super::*;
    use crate::config::SourceKind;
    use crate::engine::letter::Letter;
    use crate::engine::retry::Class;
    use crate::event::delivery::{Position, RawRecord, SourcePartition};

    #[tokio::test]
    async fn letters_go_to_postgres_where_there_are_no_brokers_and_to_topics_elsewhere() {
        let letter = Letter {
            group: "g".into(),
            handler: "*".into(),
            event: None,
            class: Class::Undecodable,
            error: "e".to_owned(),
            attempts: 1,
            first_failed_at: Utc::now(),
            failed_at: Utc::now(),
            replays: 0,
            partition: SourcePartition {
                topic: "t".into(),
                partition: 0,
            },
            position: Position(0),
            raw: RawRecord::default(),
            parks: None,
            due_in: None,
        };
        for (kind, place) in [(SourceKind::Wal, "afterwrite.letters"), (SourceKind::Kafka, "g.dlq")] {
            // Nobody listens there.
            let mut config = Config::default();
            config.source.kind = kind;
            config.kafka.brokers = "127.0.0.1:1".to_owned();
            config.dead_letters.write_timeout_ms = 100;
            let pool = PgPoolOptions::new()
                .acquire_timeout(Duration::from_millis(100))
                .connect_lazy("postgres://127.0.0.1:1/none")
                .unwrap();
            let topics = options::letter_topics(&config);
            let sink = sink(&config, topics.as_ref(), pool).unwrap();
            assert_eq!(sink.bury(&letter).await.unwrap_err().place, place, "{kind:?}");
        }
    }

    #[tokio::test]
    async fn a_stop_is_heard_while_the_broker_is_away() {
        let options = options::dead_letter_topics(&Config {
            kafka: crate::config::kafka::Kafka {
                // Nobody listens there.
                brokers: "127.0.0.1:1".to_owned(),
                ..Default::default()
            },
            ..Config::default()
        });
        let (stop, stopping) = watch::channel(false);
        let waiting = ensure_topic(&options, "none.dlq", stopping);
        let stopped = async {
            tokio::task::yield_now().await;
            stop.send_replace(true);
        };
        let ended = tokio::time::timeout(Duration::from_secs(10), futures::future::join(waiting, stopped));
        assert!(!ended.await.unwrap().0.unwrap());
    }
}
