//! The newest records of topics, all read at once, by a client that joins no group: heartbeats, and changes with the schemas that
//! they were written with.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use tokio::time::timeout;

use super::connector::Deployed;
use super::expected::Expected;
use super::finding::Outcome;
use super::heartbeats::{self, Beat, Seen};
use crate::causes::chain;
use crate::groups::broker::Broker;
use crate::source::kafka::newest::{Newest, newest};

/// Longest wait for all of them.
const READ_WITHIN: Duration = Duration::from_secs(4);

/// Longest wait for what is asked of them altogether: a topic that may not be described takes a question more.
const TOLD_WITHIN: Duration = Duration::from_secs(7);

/// What they are.
#[derive(Debug, Default)]
pub(super) struct Facts {
    beats: Option<(Beat, Seen)>,
}

/// Asks for the newest records.
pub(super) async fn collect(broker: &Arc<Broker>, deployed: Option<&Deployed<'_>>, expected: &Expected) -> Facts {
    let Some(access) = expected.brokers.clone() else {
        return Facts::default();
    };
    let beat = deployed.and_then(|deployed| heartbeats::wanted(deployed, expected));
    let Some(beat) = beat else {
        return Facts::default();
    };
    let (broker, topic) = (Arc::clone(broker), beat.topic.clone());
    let asked = tokio::task::spawn_blocking(move || {
        if !broker.topics(&topic).contains(&topic) {
            return match broker.may_not_describe(&topic) {
                true => Seen::Newest(Newest::Denied),
                false => Seen::NoTopic,
            };
        }
        // The connector names the partition itself.
        let mut read = newest(&access, &[(&topic, 0)], READ_WITHIN).unwrap_or_else(|error| {
            tracing::debug!(error = chain(&error), "the newest records could not be read");
            BTreeMap::new()
        });
        read.remove(&(topic, 0)).map_or(Seen::Unread, Seen::Newest)
    });
    let seen = match timeout(TOLD_WITHIN, asked).await {
        Ok(Ok(seen)) => seen,
        Ok(Err(_)) | Err(_) => Seen::Unread,
    };
    Facts {
        beats: Some((beat, seen)),
    }
}

/// What is wrong with them. `is_read`: somebody reads the connector's slot, as far as that is known.
pub(super) fn findings(facts: &Facts, is_read: bool, deployed: Option<&Deployed<'_>>) -> Outcome {
    match (&facts.beats, deployed) {
        (Some((beat, seen)), Some(deployed)) => heartbeats::findings(beat, seen, is_read, deployed, Utc::now()),
        _ => Outcome::default(),
    }
}
