//! Taking partitions over: the claim in Postgres, and an explicit start where nothing was committed.
//!
//! `auto.offset.reset` is `error`, so a position is never reset silently. A partition on which the group never started
//! gets its first offset committed explicitly; one that had started but has no committed offset any more has lost it,
//! is left without a position, and is named.

use std::time::Duration;

use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use tokio::runtime::Handle;

use crate::event::delivery::SourcePartition;
use crate::ledger::claims::{Claim, Claims};
use crate::source::kafka::Start;
use crate::source::kafka::client::{Client, QUESTION_TIMEOUT};

/// Pause between tries to reach Postgres or the broker while partitions wait for their claims.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Tries before the claim is given up; the partitions then stay without a claim and deliver nothing.
const TRIES_MAX: u32 = 120;

/// Claims partitions. Runs on the poll thread before the first fetch; heartbeats go on meanwhile.
///
/// Partitions that could not be claimed are left out: their records are dropped by the poll loop until the next
/// assignment.
pub(super) fn claim(
    client: &Client,
    claims: &Claims,
    runtime: &Handle,
    partitions: &[SourcePartition],
    start: Start,
) -> Vec<(SourcePartition, u64)> {
    let mut claimed = Vec::with_capacity(partitions.len());
    let Some(started_before) = insist("the claims", || runtime.block_on(claims.group_started())) else {
        return claimed;
    };
    let Some(committed) = insist("the committed offsets", || committed(client, partitions)) else {
        return claimed;
    };
    for partition in partitions {
        let topic = &partition.topic;
        let Some(claim) = insist("the claim", || {
            runtime.block_on(claims.take(topic, partition.partition))
        }) else {
            continue;
        };
        let offset = committed
            .find_partition(topic, partition.partition)
            .map(|element| element.offset());
        let known = match offset {
            Some(Offset::Offset(offset)) => Some(offset),
            _ => None,
        };
        if begin(
            client,
            claims,
            runtime,
            partition,
            claim,
            known,
            if started_before { Start::Earliest } else { start },
        ) {
            claimed.push((partition.clone(), claim.epoch));
        }
    }
    claimed
}

/// Makes sure that the partition has a position; answers whether it has one.
fn begin(
    client: &Client,
    claims: &Claims,
    runtime: &Handle,
    partition: &SourcePartition,
    claim: Claim,
    committed: Option<i64>,
    start: Start,
) -> bool {
    let first = match (committed, claim.first_offset) {
        (Some(_), Some(_)) => return true,
        (Some(offset), None) => offset,
        (None, Some(first)) => {
            tracing::error!(
                %partition, first_offset = first,
                "the committed offset of this partition was lost (expired or deleted): it is stopped; set the group's \
                 offset explicitly, then restart"
            );
            return true;
        }
        (None, None) => {
            let Some(first) = insist("the first offset", || first_offset(client, partition, start)) else {
                return false;
            };
            first
        }
    };
    let recorded = insist("the first offset", || {
        runtime.block_on(claims.started(&partition.topic, partition.partition, first))
    });
    recorded.is_some()
}

fn committed(client: &Client, partitions: &[SourcePartition]) -> rdkafka::error::KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition(&partition.topic, partition.partition);
    }
    client.committed_offsets(list, QUESTION_TIMEOUT)
}

/// Finds and commits the offset at which the group starts on a partition.
fn first_offset(client: &Client, partition: &SourcePartition, start: Start) -> rdkafka::error::KafkaResult<i64> {
    let (low, high) = client.fetch_watermarks(&partition.topic, partition.partition, QUESTION_TIMEOUT)?;
    let first = match start {
        Start::Earliest => low,
        Start::Latest => high,
    };
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&partition.topic, partition.partition, Offset::Offset(first))?;
    client.commit(&list, CommitMode::Sync)?;
    tracing::info!(%partition, offset = first, "first start: explicit offset committed");
    Ok(first)
}

/// Asks again until there is an answer; the partitions wait meanwhile, nothing is fetched without a claim.
fn insist<T, E: std::fmt::Display>(what: &str, mut ask: impl FnMut() -> Result<T, E>) -> Option<T> {
    for tried in 0..TRIES_MAX {
        match ask() {
            Ok(answer) => return Some(answer),
            Err(error) if tried % 10 == 0 => {
                tracing::warn!(error = %error, "waiting for {what} before the first fetch")
            }
            Err(_) => {}
        }
        std::thread::park_timeout(RETRY_PAUSE);
    }
    tracing::error!("gave up on {what}: the partitions deliver nothing until the next assignment");
    None
}

/// Names every partition whose position is outside of what its topic still holds. It is stopped, never reset.
pub(super) fn name_gaps(client: &Client, partitions: &[SourcePartition]) {
    let Ok(committed) = committed(client, partitions) else {
        tracing::error!("a position is out of range, and the committed offsets could not be read to tell which");
        return;
    };
    for partition in partitions {
        let (topic, number) = (&partition.topic, partition.partition);
        let Ok((low, high)) = client.fetch_watermarks(topic, number, QUESTION_TIMEOUT) else {
            continue;
        };
        let offset = committed.find_partition(topic, number).map(|element| element.offset());
        match offset {
            Some(Offset::Offset(position)) if position < low => tracing::error!(
                %partition, position, oldest = low, lost = low - position,
                "records before this group's position are gone (retention overtook it): the partition is stopped; set \
                 the group's offset explicitly, then restart"
            ),
            Some(Offset::Offset(position)) if position > high => tracing::error!(
                %partition, position, newest = high,
                "this group's position is past the end of the topic (topic made anew?): the partition is stopped; set \
                 the group's offset explicitly, then restart"
            ),
            _ => {}
        }
    }
}
