//! Commits: which position of which partition is on its way, and one that is waited for.
//!
//! How a commit that nobody waits for has ended, the client library does not say (its event for that is made for automatic
//! commits only), and its own waiting commit has no limit of time, does not repeat one that came in the middle of a rebalance
//! (REBALANCE_IN_PROGRESS, STALE_MEMBER_EPOCH), and does not say of which partitions it failed. So commits are sent without
//! waiting, and the brokers are asked what they know. They answer requests of one client in order: what they do not know when
//! they are asked later was refused.
//!
//! What they know they can lose again: librdkafka (2.12.1) sends a commit that a broker could not take for the moment once
//! more, behind newer ones, and the group is back at the older position. So they are asked again about what they knew.

use std::collections::HashMap;
use std::time::Duration;

use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};
use tokio::time::Instant;

use crate::event::delivery::{Position, SourcePartition};
use crate::source::kafka::client::Client;

/// Pause between a commit that the brokers do not know of and its repetition: a member whose epoch is stale learns the new
/// one with its next heartbeat, which librdkafka brings forward.
const REPEAT_PAUSE: Duration = Duration::from_millis(100);

/// Longest time one repetition waits for the brokers before the commit is sent again.
const ASK_MAX: Duration = Duration::from_secs(2);

/// The newest commit of each owned partition.
#[derive(Debug, Default)]
pub(super) struct Commits {
    newest: HashMap<SourcePartition, Commit>,
    was_acknowledged: bool,
}

/// The newest commit of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Commit {
    position: Position,
    /// What the brokers said they know.
    known: Option<Position>,
    /// Since when the brokers have known nothing newer; `None` when they know the newest.
    waiting_since: Option<Instant>,
}

impl Commits {
    /// These positions were sent.
    pub(super) fn sent(&mut self, positions: &[(SourcePartition, Position)], now: Instant) {
        for (partition, position) in positions {
            let before = self.newest.get(partition);
            let newest = Commit {
                position: *position,
                known: before.and_then(|commit| commit.known),
                waiting_since: before.and_then(|commit| commit.waiting_since).or(Some(now)),
            };
            self.newest.insert(partition.clone(), newest);
        }
    }

    /// The brokers know this position of a partition; when they knew a newer one before, that is waited for again.
    pub(super) fn known(&mut self, partition: &SourcePartition, known: Position, now: Instant) {
        let Some(commit) = self.newest.get_mut(partition) else {
            return;
        };
        if known >= commit.position {
            self.was_acknowledged = true;
            commit.waiting_since = None;
        } else if commit.waiting_since.is_none() || commit.known.is_some_and(|before| known > before) {
            commit.waiting_since = Some(now);
        }
        commit.known = Some(known);
    }

    /// The newest positions that the brokers are not known to know. Only the newest are repeated: an older one would take the
    /// group back.
    pub(super) fn waiting(&self) -> Vec<(SourcePartition, Position)> {
        let waiting = self.newest.iter().filter(|(_, commit)| commit.waiting_since.is_some());
        waiting
            .map(|(partition, commit)| (partition.clone(), commit.position))
            .collect()
    }

    /// The newest positions, known or not.
    pub(super) fn newest(&self) -> Vec<(SourcePartition, Position)> {
        let newest = self.newest.iter();
        newest
            .map(|(partition, commit)| (partition.clone(), commit.position))
            .collect()
    }

    /// Since when the partition that waits longest has waited for an acknowledgement.
    pub(super) fn waiting_since(&self) -> Option<Instant> {
        self.newest.values().filter_map(|commit| commit.waiting_since).min()
    }

    /// Whether the brokers ever took a position from this client.
    pub(super) fn was_acknowledged(&self) -> bool {
        self.was_acknowledged
    }

    /// These partitions are not ours any more.
    pub(super) fn forget(&mut self, partitions: &[SourcePartition]) {
        self.newest.retain(|partition, _| !partitions.contains(partition));
    }

    /// No partition is ours any more.
    pub(super) fn forget_all(&mut self) {
        self.newest.clear();
    }
}

/// Sends a commit, and does not wait for how it ends.
pub(super) fn send(client: &Client, positions: &[(SourcePartition, Position)]) -> KafkaResult<()> {
    let mut list = TopicPartitionList::new();
    for (name, position) in positions {
        if let Err(error) = list.add_partition_offset(&name.topic, name.partition, Offset::Offset(position.0)) {
            tracing::error!(partition = %name, error = %error, "position could not be put into a commit");
        }
    }
    if list.count() == 0 {
        return Ok(());
    }
    client.commit(&list, CommitMode::Async)
}

/// Commits positions and waits until the brokers know them, for at most `budget`; sends them again as often as they do not.
///
/// # Errors
/// What was said last, when the budget is spent.
pub(super) fn commit_within(
    client: &Client,
    positions: &[(SourcePartition, Position)],
    budget: Duration,
) -> Result<(), String> {
    let names: Vec<SourcePartition> = positions.iter().map(|(name, _)| name.clone()).collect();
    repeat_within(budget, |left| {
        send(client, positions).map_err(|error| error.to_string())?;
        let known = committed(client, &names, left.min(ASK_MAX)).map_err(|error| error.to_string())?;
        let missing = positions.iter().find(|(name, position)| {
            let known = known.find_partition(&name.topic, name.partition);
            !matches!(known.map(|element| element.offset()), Some(Offset::Offset(offset)) if offset >= position.0)
        });
        match missing {
            None => Ok(()),
            Some((name, position)) => Err(format!("the brokers do not know offset {} of {name}", position.0)),
        }
    })
}

/// The committed positions of partitions; those that have none, or whose answer is an error, are left out.
///
/// # Errors
/// When the brokers do not answer in time.
pub(super) fn known(
    client: &Client,
    partitions: &[SourcePartition],
    within: Duration,
) -> KafkaResult<Vec<(SourcePartition, Position)>> {
    let answer = client.committed_offsets(listed(partitions), within)?;
    let known = answer.elements().into_iter().filter_map(|element| {
        let Offset::Offset(offset) = element.error().map(|()| element.offset()).ok()? else {
            return None;
        };
        let partition = SourcePartition {
            topic: element.topic().into(),
            partition: element.partition(),
        };
        Some((partition, Position(offset)))
    });
    Ok(known.collect())
}

fn listed(partitions: &[SourcePartition]) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition(&partition.topic, partition.partition);
    }
    list
}

fn repeat_within(budget: Duration, mut attempt: impl FnMut(Duration) -> Result<(), String>) -> Result<(), String> {
    let deadline = Instant::now() + budget;
    loop {
        let answer = attempt(deadline.saturating_duration_since(Instant::now()));
        let left = deadline.saturating_duration_since(Instant::now());
        if answer.is_ok() || left.is_zero() {
            return answer;
        }
        std::thread::park_timeout(REPEAT_PAUSE.min(left));
    }
}

/// The committed offsets of partitions.
///
/// # Errors
/// When the brokers do not answer in time, or one partition's answer is an error: that must not pass for "nothing was
/// committed" there.
pub(super) fn committed(
    client: &Client,
    partitions: &[SourcePartition],
    within: Duration,
) -> KafkaResult<TopicPartitionList> {
    let answer = client.committed_offsets(listed(partitions), within)?;
    for element in answer.elements() {
        element.error()?;
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(number: i32) -> SourcePartition {
        SourcePartition {
            topic: "t".into(),
            partition: number,
        }
    }

    #[test]
    fn the_newest_position_is_waited_for_until_the_brokers_know_it() {
        let mut commits = Commits::default();
        let now = Instant::now();
        commits.sent(&[(partition(0), Position(5))], now);
        commits.sent(&[(partition(0), Position(9))], now);
        assert_eq!(commits.waiting(), [(partition(0), Position(9))]);
        commits.known(&partition(0), Position(5), now);
        assert_eq!(
            commits.waiting(),
            [(partition(0), Position(9))],
            "an older one is not enough"
        );
        assert!(!commits.was_acknowledged());
        commits.known(&partition(0), Position(9), now);
        assert_eq!(commits.waiting(), []);
        assert!(commits.was_acknowledged());
        commits.known(&partition(7), Position(1), now);
        assert_eq!(commits.waiting(), [], "what is not ours is not waited for");
    }

    #[test]
    fn what_was_known_and_is_not_any_more_is_waited_for_again() {
        let mut commits = Commits::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        commits.sent(&[(partition(0), Position(5))], at(0));
        commits.sent(&[(partition(0), Position(9))], at(1));
        commits.known(&partition(0), Position(9), at(2));
        assert_eq!(commits.newest(), [(partition(0), Position(9))]);
        commits.known(&partition(0), Position(5), at(60));
        assert_eq!(commits.waiting(), [(partition(0), Position(9))]);
        assert_eq!(commits.waiting_since(), Some(at(60)), "not since it was sent first");
    }

    #[test]
    fn the_wait_counts_from_the_last_progress() {
        let mut commits = Commits::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(commits.waiting_since(), None);
        commits.sent(&[(partition(0), Position(3))], at(1));
        commits.sent(&[(partition(0), Position(4)), (partition(1), Position(1))], at(2));
        commits.known(&partition(0), Position(1), at(3));
        commits.sent(&[(partition(0), Position(4))], at(3));
        assert_eq!(
            commits.waiting_since(),
            Some(at(1)),
            "neither a first answer nor a repetition is progress"
        );
        commits.known(&partition(0), Position(3), at(4));
        assert_eq!(
            commits.waiting_since(),
            Some(at(2)),
            "the other partition waits for longer now"
        );
        commits.forget(&[partition(1)]);
        assert_eq!(commits.waiting_since(), Some(at(4)));
        commits.known(&partition(0), Position(4), at(5));
        assert_eq!(commits.waiting_since(), None);
        commits.forget_all();
        assert!(commits.was_acknowledged());
    }

    #[test]
    fn a_commit_is_repeated_until_it_is_known_or_its_budget_is_spent() {
        let mut answers = [Err("stale".to_owned()), Ok(())].into_iter();
        let known = repeat_within(Duration::from_secs(30), |_| answers.next().expect("it is sent twice"));
        assert_eq!(known, Ok(()));
        let mut tries = 0;
        let given_up = repeat_within(Duration::from_millis(1), |left| {
            tries += 1;
            assert!(left <= Duration::from_millis(1));
            Err("still stale".to_owned())
        });
        assert_eq!(given_up, Err("still stale".to_owned()));
        assert!((1..=2).contains(&tries));
    }
}
