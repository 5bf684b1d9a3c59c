//! Commits: which position of which partition is on its way, which failed, and one that is waited for.

use std::collections::HashMap;
use std::time::Duration;

use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use tokio::time::Instant;

use crate::event::delivery::{Position, SourcePartition};
use crate::source::kafka::client::Client;

/// Pause between a commit that the brokers do not know of and its repetition: a member whose epoch is stale learns the new
/// one with its next heartbeat, which librdkafka brings forward.
const REPEAT_PAUSE: Duration = Duration::from_millis(100);

/// Longest time one repetition waits for the brokers before the commit is sent again.
const ASK_MAX: Duration = Duration::from_secs(2);

/// What was committed last of each owned partition.
#[derive(Debug, Default)]
pub(super) struct Commits {
    newest: HashMap<SourcePartition, Commit>,
    was_acknowledged: bool,
}

/// The newest commit of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Commit {
    position: Position,
    /// It, or one before it, did not reach the broker.
    failed: bool,
    /// Since when nothing that was sent has been acknowledged; `None` when everything has.
    waiting_since: Option<Instant>,
}

impl Commits {
    /// These positions were sent.
    pub(super) fn sent(&mut self, positions: &[(SourcePartition, Position)], now: Instant) {
        for (partition, position) in positions {
            let before = self.newest.get(partition).and_then(|commit| commit.waiting_since);
            let newest = Commit {
                position: *position,
                failed: false,
                waiting_since: before.or(Some(now)),
            };
            self.newest.insert(partition.clone(), newest);
        }
    }

    /// The broker took a position.
    pub(super) fn acknowledged(&mut self, partition: &SourcePartition, position: Position, now: Instant) {
        self.was_acknowledged = true;
        if let Some(commit) = self.newest.get_mut(partition) {
            let is_newest = position >= commit.position;
            commit.failed &= !is_newest;
            commit.waiting_since = (!is_newest).then_some(now);
        }
    }

    /// A position did not reach the broker; answers whether it will be repeated.
    pub(super) fn failed(&mut self, partition: &SourcePartition) -> bool {
        let waiting = self.newest.get_mut(partition);
        let Some(commit) = waiting.filter(|commit| commit.waiting_since.is_some()) else {
            return false;
        };
        commit.failed = true;
        true
    }

    /// The partitions of which a commit failed, with the newest position that was to be committed: repeating an older one
    /// would take the group back.
    pub(super) fn to_repeat(&self) -> Vec<(SourcePartition, Position)> {
        let failed = self.newest.iter().filter(|(_, commit)| commit.failed);
        failed
            .map(|(partition, commit)| (partition.clone(), commit.position))
            .collect()
    }

    /// Since when the partition that waits longest has waited for an acknowledgement.
    pub(super) fn waiting_since(&self) -> Option<Instant> {
        self.newest.values().filter_map(|commit| commit.waiting_since).min()
    }

    /// Whether a broker ever took a position from this client.
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

/// What became of one position.
pub(super) struct Outcome {
    pub(super) partition: SourcePartition,
    pub(super) position: Position,
    pub(super) result: Result<(), KafkaError>,
}

/// Takes the answer to a commit apart. When some positions were taken and others not, the result as a whole is an error,
/// and only the elements say which.
pub(super) fn outcomes(result: &KafkaResult<()>, offsets: &TopicPartitionList) -> Vec<Outcome> {
    let elements = offsets.elements();
    let answers = elements.iter().map(|element| element.error());
    let results = apart(result, answers.collect());
    let told = elements.iter().zip(results);
    told.filter_map(|(element, result)| {
        let Offset::Offset(offset) = element.offset() else {
            return None;
        };
        Some(Outcome {
            partition: SourcePartition {
                topic: element.topic().into(),
                partition: element.partition(),
            },
            position: Position(offset),
            result,
        })
    })
    .collect()
}

/// An error that no element has is one of the whole request.
fn apart(result: &KafkaResult<()>, answers: Vec<KafkaResult<()>>) -> Vec<KafkaResult<()>> {
    if answers.iter().any(Result::is_err) {
        return answers;
    }
    answers.iter().map(|_| result.clone()).collect()
}

/// Whether there was nothing to commit, which is no failure.
pub(super) fn is_empty(result: &KafkaResult<()>) -> bool {
    matches!(result, Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::NoOffset)))
}

/// Sends a commit; how it ended comes back through the callback.
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
/// The client library's own waiting commit has no limit of time, does not repeat one that came in the middle of a rebalance
/// (REBALANCE_IN_PROGRESS, STALE_MEMBER_EPOCH), and does not say of which partitions it failed. So it is sent without
/// waiting, and the brokers are asked what they know: they answer requests of one client in order.
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
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition(&partition.topic, partition.partition);
    }
    let answer = client.committed_offsets(list, within)?;
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
    fn what_failed_is_repeated_with_the_newest_position_until_that_is_acknowledged() {
        let mut commits = Commits::default();
        let now = Instant::now();
        commits.sent(&[(partition(0), Position(5))], now);
        commits.sent(&[(partition(0), Position(9)), (partition(1), Position(1))], now);
        assert!(commits.failed(&partition(0)));
        assert_eq!(commits.to_repeat(), [(partition(0), Position(9))]);
        commits.acknowledged(&partition(0), Position(5), now);
        assert_eq!(
            commits.to_repeat(),
            [(partition(0), Position(9))],
            "an older one is not enough"
        );
        commits.acknowledged(&partition(0), Position(9), now);
        assert_eq!(commits.to_repeat(), []);
        assert!(
            !commits.failed(&partition(0)),
            "a failure of what is known already means nothing"
        );
        assert!(
            !commits.failed(&partition(7)),
            "nor does one of a partition that is not ours"
        );
    }

    #[test]
    fn the_wait_for_an_acknowledgement_counts_from_the_first_commit_that_has_none() {
        let mut commits = Commits::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(commits.waiting_since(), None);
        commits.sent(&[(partition(0), Position(1))], at(1));
        commits.sent(&[(partition(0), Position(2)), (partition(1), Position(1))], at(2));
        commits.failed(&partition(0));
        commits.sent(&[(partition(0), Position(2))], at(3));
        assert_eq!(commits.waiting_since(), Some(at(1)), "repeating is not progress");
        assert!(!commits.was_acknowledged());
        commits.acknowledged(&partition(0), Position(1), at(4));
        assert_eq!(
            commits.waiting_since(),
            Some(at(2)),
            "the other partition waits for longer now"
        );
        commits.forget(&[partition(1)]);
        assert_eq!(commits.waiting_since(), Some(at(4)));
        commits.acknowledged(&partition(0), Position(2), at(5));
        assert_eq!(commits.waiting_since(), None);
        commits.forget_all();
        assert!(commits.was_acknowledged());
    }

    #[test]
    fn a_commit_that_failed_in_part_is_taken_apart() {
        let failed = || Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::StaleMemberEpoch));
        let of_one = || Err(KafkaError::OffsetFetch(RDKafkaErrorCode::UnknownTopicOrPartition));
        assert_eq!(apart(&failed(), vec![of_one(), Ok(())]), [of_one(), Ok(())]);
        assert_eq!(apart(&Ok(()), vec![of_one(), Ok(())]), [of_one(), Ok(())]);
        assert_eq!(apart(&failed(), vec![Ok(()), Ok(())]), [failed(), failed()]);
        assert_eq!(apart(&Ok(()), vec![Ok(())]), [Ok(())]);
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
