//! The newest records of topics, all read at once, by a client that joins no group: heartbeats, and changes with the schemas that
//! they were written with.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use tokio::time::timeout;

use super::connector::Deployed;
use super::expected::Expected;
use super::finding::Outcome;
use super::heartbeats::{self, Beat, Seen};
use super::{samples, topics};
use crate::causes::chain;
use crate::clients::brokers::Access;
use crate::groups::broker::Broker;
use crate::source::kafka::newest::{Newest, newest};

/// Longest wait for all of them.
const READ_WITHIN: Duration = Duration::from_secs(4);

/// Longest wait for what is asked of brokers, and of the registry: a topic that may not be described takes a question more.
const TOLD_WITHIN: Duration = Duration::from_secs(7);

/// What they are.
#[derive(Debug, Default)]
pub(super) struct Facts {
    beats: Option<(Beat, Seen)>,
    samples: samples::Facts,
}

/// Asks for the newest records. `with_schemas`: those of changes too, and the registry for their schemas.
pub(super) async fn collect(
    (broker, topics): (&Arc<Broker>, &topics::Facts),
    with_schemas: bool,
    deployed: Option<&Deployed<'_>>,
    expected: &Expected,
) -> Facts {
    let Some(access) = expected.brokers.clone() else {
        return Facts::default();
    };
    let beat = deployed.and_then(|deployed| heartbeats::wanted(deployed, expected));
    let changes = match with_schemas {
        true => samples::partitions(topics, expected),
        false => Vec::new(),
    };
    let (broker, topic) = (Arc::clone(broker), beat.as_ref().map(|beat| beat.topic.clone()));
    let unread = unread(&changes);
    let asked = tokio::task::spawn_blocking(move || read(&broker, &access, topic.as_deref(), &changes));
    let (seen, read) = match timeout(TOLD_WITHIN, asked).await {
        Ok(Ok(read)) => read,
        Ok(Err(_)) | Err(_) => (Seen::Unread, unread),
    };
    let topics = read.keys().map(|(topic, _)| topic.clone()).collect();
    let samples = timeout(TOLD_WITHIN, samples::collect(read, expected)).await;
    Facts {
        beats: beat.map(|beat| (beat, seen)),
        samples: samples.unwrap_or_else(|_| samples::Facts::unread(topics)),
    }
}

/// What did not come in time, of each of these partitions.
fn unread(places: &[(String, i32)]) -> BTreeMap<(String, i32), Newest> {
    places.iter().map(|place| (place.clone(), Newest::Unread)).collect()
}

/// What is at the end of the topic of heartbeats, and of these partitions. Blocks, for a bounded time.
fn read(
    broker: &Broker,
    access: &Access,
    beats: Option<&str>,
    changes: &[(String, i32)],
) -> (Seen, BTreeMap<(String, i32), Newest>) {
    let is_there = |topic: &&str| broker.topics(topic).contains(*topic);
    // The connector names the partition itself.
    let of_beats = beats.filter(is_there).map(|topic| (topic, 0));
    let of_changes = changes.iter().map(|(topic, partition)| (topic.as_str(), *partition));
    let places: BTreeSet<(&str, i32)> = of_changes.chain(of_beats).collect();
    let places: Vec<(&str, i32)> = places.into_iter().collect();
    let mut found = match places.is_empty() {
        true => BTreeMap::new(),
        false => newest(access, &places, READ_WITHIN).unwrap_or_else(|error| {
            tracing::debug!(error = chain(&error), "the newest records could not be read");
            let places = places
                .iter()
                .map(|(topic, partition)| ((*topic).to_owned(), *partition));
            unread(&places.collect::<Vec<_>>())
        }),
    };
    let seen = match (beats, of_beats) {
        (Some(topic), Some(_)) => found.remove(&(topic.to_owned(), 0)).map_or(Seen::Unread, Seen::Newest),
        (Some(topic), None) if broker.may_not_describe(topic) => Seen::Newest(Newest::Denied),
        (_, None) => Seen::NoTopic,
        (None, Some(_)) => Seen::Unread,
    };
    (seen, found)
}

/// What is wrong with them. `is_read`: somebody reads the connector's slot, as far as that is known; `is_registry_there`: it answers.
pub(super) fn findings(
    facts: &Facts,
    is_read: bool,
    is_registry_there: bool,
    deployed: Option<&Deployed<'_>>,
) -> Outcome {
    let mut outcome = match (&facts.beats, deployed) {
        (Some((beat, seen)), Some(deployed)) => heartbeats::findings(beat, seen, is_read, deployed, Utc::now()),
        _ => Outcome::default(),
    };
    outcome.add(samples::findings(&facts.samples, deployed, is_registry_there));
    outcome
}
