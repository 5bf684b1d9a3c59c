//! Notices when a client has forgotten every broker.
//!
//! Since 2.10 librdkafka drops the brokers that an answer to a metadata request does not name. While the brokers of a cluster
//! are fenced, as all of a small one are for a moment when it starts or was too slow, such an answer names none: the client then
//! drops all of them, those of `bootstrap.servers` too, and never asks anybody again
//! (<https://github.com/confluentinc/librdkafka/issues/5301>). It raises no error. Only its statistics show it, and only another
//! client mends it.

use std::sync::atomic::{AtomicU32, Ordering};

use rdkafka::Statistics;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// How often librdkafka tells its statistics, in milliseconds: the value of `statistics.interval.ms`.
pub(crate) const TOLD_EVERY_MS: &str = "5000";

/// A client that knows no broker so many times in a row has forgotten them: between two of them it may be about to learn of others.
const TIMES: u32 = 2;

/// What whoever reads with such a client is told.
pub(crate) const FORGOT: KafkaError = KafkaError::Global(RDKafkaErrorCode::AllBrokersDown);

/// Where librdkafka has brokers from that are processes somewhere; the others are roles, such as the coordinator of a group.
const PLACES: [&str; 2] = ["configured", "learned"];

/// How many times in a row a client's statistics had no broker.
#[derive(Debug, Default)]
pub(crate) struct Forgotten(AtomicU32);

impl Forgotten {
    /// Looks at statistics.
    pub(crate) fn see(&self, statistics: &Statistics) {
        let mut brokers = statistics.brokers.values();
        if brokers.any(|broker| PLACES.contains(&broker.source.as_str())) {
            self.0.store(0, Ordering::Relaxed);
        } else {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether the client has forgotten every broker.
    pub(crate) fn is_certain(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= TIMES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(sources: &[&str]) -> Statistics {
        let brokers = sources.iter().map(|source| {
            let broker = rdkafka::statistics::Broker {
                source: (*source).to_owned(),
                ..Default::default()
            };
            ((*source).to_owned(), broker)
        });
        Statistics {
            brokers: brokers.collect(),
            ..Statistics::default()
        }
    }

    #[test]
    fn a_client_without_a_broker_has_forgotten_them_when_it_finds_none() {
        let forgotten = Forgotten::default();
        let seen = |sources: &[&str]| {
            forgotten.see(&told(sources));
            forgotten.is_certain()
        };
        // A broker that is away is known.
        assert!(!seen(&["configured"]));
        assert!(!seen(&["learned", "logical"]));
        assert!(!seen(&["logical", "internal"]), "it may be learning of others");
        assert!(!seen(&["learned"]));
        assert!(!seen(&[]));
        assert!(seen(&["logical"]), "twice in a row");
        assert!(!seen(&["learned"]));
    }
}
