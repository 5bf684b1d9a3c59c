//! Positions outside of what their topics still hold: such a partition is stopped, never reset, and named.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use rdkafka::Offset;
use tokio::time::Instant;

use crate::clients::kafka::{QUESTION_TIMEOUT, offsets_at};
use crate::event::delivery::SourcePartition;
use crate::source::kafka::client::Client;
use crate::source::kafka::commits::committed;

/// Pause after a question that failed; it is asked on the poll thread, which has other things to do.
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// Which gaps were named, and whether there is one to be found.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    /// From when on somebody has to look.
    look_at: Option<Instant>,
    /// What was named, with the epoch of the claim: once is enough.
    named: HashSet<(SourcePartition, u64)>,
}

/// What is wrong with a position.
#[derive(Debug, PartialEq, Eq)]
enum Gap {
    /// So many records before the oldest one.
    Overtaken { lost: i64 },
    /// Behind the newest one.
    PastEnd,
}

impl Gaps {
    /// The client complained of some partition's position; it does not say which.
    pub(super) fn suspect(&mut self) {
        self.look_at.get_or_insert_with(Instant::now);
    }

    /// Names the partitions whose position is out of range, where somebody complained. Three questions for all partitions
    /// together, in [`QUESTION_TIMEOUT`] altogether.
    pub(super) fn name(&mut self, client: &Client, owned: impl FnOnce() -> HashMap<SourcePartition, u64>) {
        let now = Instant::now();
        if self.look_at.is_none_or(|at| now < at) {
            return;
        }
        self.look_at = None;
        let mut suspects = owned();
        self.named
            .retain(|(partition, epoch)| suspects.get(partition) == Some(epoch));
        suspects.retain(|partition, epoch| !self.named.contains(&(partition.clone(), *epoch)));
        if suspects.is_empty() {
            return;
        }
        match bounds(client, &suspects) {
            Ok(found) => {
                for (partition, position, low, high) in found {
                    let Some(gap) = gap(position, low, high) else { continue };
                    say(&partition, position, &gap, low, high);
                    if let Some(epoch) = suspects.get(&partition) {
                        self.named.insert((partition, *epoch));
                    }
                }
            }
            Err(error) => {
                tracing::error!(
                    error,
                    "a position is out of range, and the committed offsets could not be read to tell which"
                );
                self.look_at = Some(now + ASK_AGAIN);
            }
        }
    }
}

type Bounds = (SourcePartition, i64, i64, i64);

/// Position, oldest and newest offset of the partitions that have a position.
fn bounds(client: &Client, partitions: &HashMap<SourcePartition, u64>) -> Result<Vec<Bounds>, String> {
    let deadline = Instant::now() + QUESTION_TIMEOUT;
    let left = || deadline.saturating_duration_since(Instant::now());
    let names: Vec<SourcePartition> = partitions.keys().cloned().collect();
    let committed = committed(client, &names, left()).map_err(|error| error.to_string())?;
    let mut positions = HashMap::new();
    for element in committed.elements() {
        if let Offset::Offset(position) = element.offset() {
            positions.insert((element.topic().to_owned(), element.partition()), position);
        }
    }
    let asked: Vec<(&str, i32)> = positions
        .keys()
        .map(|(topic, partition)| (topic.as_str(), *partition))
        .collect();
    let ask = |at| offsets_at(client, &asked, at, left()).map_err(|error| error.to_string());
    let low = ask(Offset::Beginning)?;
    let high: HashMap<(String, i32), i64> = ask(Offset::End)?
        .into_iter()
        .map(|(topic, partition, offset)| ((topic, partition), offset))
        .collect();
    let found = low.into_iter().filter_map(|(topic, partition, low)| {
        let place = (topic, partition);
        let (position, high) = (*positions.get(&place)?, *high.get(&place)?);
        let partition = SourcePartition {
            topic: place.0.into(),
            partition,
        };
        Some((partition, position, low, high))
    });
    Ok(found.collect())
}

fn gap(position: i64, low: i64, high: i64) -> Option<Gap> {
    match position {
        position if position < low => Some(Gap::Overtaken { lost: low - position }),
        position if position > high => Some(Gap::PastEnd),
        _ => None,
    }
}

fn say(partition: &SourcePartition, position: i64, gap: &Gap, low: i64, high: i64) {
    match gap {
        Gap::Overtaken { lost } => tracing::error!(
            %partition, position, oldest = low, lost,
            "records before this group's position are gone (retention overtook it): the partition is stopped; set the \
             group's offset explicitly, then restart"
        ),
        Gap::PastEnd => tracing::error!(
            %partition, position, newest = high,
            "this group's position is past the end of the topic (topic made anew?): the partition is stopped; set the \
             group's offset explicitly, then restart"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_may_stand_anywhere_from_the_oldest_record_to_behind_the_newest() {
        let cases = [
            (4, Some(Gap::Overtaken { lost: 1 })),
            (5, None),
            (9, None),
            (10, Some(Gap::PastEnd)),
        ];
        for (position, expected) in cases {
            assert_eq!(gap(position, 5, 9), expected, "{position}");
        }
    }
}
