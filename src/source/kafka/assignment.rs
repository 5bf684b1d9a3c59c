//! Taking partitions over: the claim in Postgres, and an explicit start where nothing was committed.
//!
//! `auto.offset.reset` is `error`, so a position is never reset silently. A partition on which the group never started
//! gets its first offset committed explicitly; one that had started but has no committed offset any more has lost it,
//! is left without a position, and is named.

use std::time::Duration;

use rdkafka::Offset;
use rdkafka::consumer::Consumer;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::clients::kafka::QUESTION_TIMEOUT;
use crate::event::delivery::{Inherited, Position, SourcePartition};
use crate::ledger::beginnings::Beginning;
use crate::ledger::claims::{Claim, Claims};
use crate::source::kafka::client::Client;
use crate::source::kafka::commits::{commit_within, committed};

/// Pause between tries to reach Postgres or the broker while partitions wait for their claims.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// How often a warning says what is waited for.
const TRIES_PER_WARNING: u32 = 10;

/// Until when claiming may go on.
#[derive(Debug, Clone, Copy)]
struct Deadline(Instant);

impl Deadline {
    fn after(time: Duration) -> Self {
        Self(Instant::now() + time)
    }

    fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
}

/// A partition that is ours.
pub(super) struct Claimed {
    pub(super) partition: SourcePartition,
    /// Of its claim.
    pub(super) epoch: u64,
    /// Where the group stands; `None` when that was lost.
    pub(super) position: Option<Position>,
    /// What its earlier owners left.
    pub(super) inherited: Inherited,
}

/// Whom to ask, and until when.
pub(super) struct Asking<'a> {
    client: &'a Client,
    claims: &'a Claims,
    runtime: &'a Handle,
    stop: &'a watch::Receiver<bool>,
    deadline: Deadline,
}

impl<'a> Asking<'a> {
    /// Asks for at most `budget` from now on, and no longer than until the process stops. It holds up the poll thread, and
    /// librdkafka gives the whole assignment away when that is silent for `max.poll.interval.ms`.
    pub(super) fn new(
        client: &'a Client,
        claims: &'a Claims,
        runtime: &'a Handle,
        stop: &'a watch::Receiver<bool>,
        budget: Duration,
    ) -> Self {
        Self {
            client,
            claims,
            runtime,
            stop,
            deadline: Deadline::after(budget),
        }
    }

    /// Claims partitions. Runs on the poll thread before the first fetch; heartbeats go on meanwhile.
    ///
    /// Partitions that could not be claimed are left out, and deliver nothing; the poll loop gives the assignment back.
    pub(super) fn claim(&self, partitions: &[SourcePartition], beginning: &Beginning) -> Vec<Claimed> {
        let mut claimed = Vec::with_capacity(partitions.len());
        let Some(committed) = self.broker("the committed offsets", |within| {
            committed(self.client, partitions, within)
        }) else {
            return claimed;
        };
        for partition in partitions {
            let topic = &partition.topic;
            let Some(claim) = self.postgres("the claim", || self.claims.take(topic, partition.partition)) else {
                return claimed;
            };
            let offset = committed
                .find_partition(topic, partition.partition)
                .map(|element| element.offset());
            let known = match offset {
                Some(Offset::Offset(offset)) => Some(offset),
                _ => None,
            };
            if let Some(position) = self.begin(partition, &claim, known, beginning) {
                if let Some(position) = position {
                    let forget = || self.claims.forget_before(partition, claim.epoch, position);
                    self.postgres("what is known of settled events", forget);
                }
                claimed.push(Claimed {
                    partition: partition.clone(),
                    epoch: claim.epoch,
                    position,
                    inherited: claim.inherited,
                });
            }
        }
        claimed
    }

    /// Makes sure that the partition has a position, unless it has lost it, and answers it; `None` when that failed.
    fn begin(
        &self,
        partition: &SourcePartition,
        claim: &Claim,
        committed: Option<i64>,
        beginning: &Beginning,
    ) -> Option<Option<Position>> {
        let first = match (committed, claim.first_offset) {
            (Some(offset), Some(_)) => return Some(Some(Position(offset))),
            (Some(offset), None) => offset,
            (None, Some(first)) => {
                tracing::error!(
                    %partition, first_offset = first,
                    "the committed offset of this partition was lost (expired or deleted): it is stopped; set the group's \
                     offset explicitly, then restart"
                );
                return Some(None);
            }
            (None, None) => self.broker("the first offset", |within| {
                first_offset(self.client, partition, beginning, within)
            })?,
        };
        let started = || self.claims.started(&partition.topic, partition.partition, first);
        self.postgres("the first offset", started)?;
        Some(Some(Position(first)))
    }

    fn broker<T, E: std::fmt::Display>(&self, what: &str, mut ask: impl FnMut(Duration) -> Result<T, E>) -> Option<T> {
        self.insist(what, || ask(self.deadline.left().min(QUESTION_TIMEOUT)))
    }

    fn postgres<T, E, F>(&self, what: &str, mut ask: impl FnMut() -> F) -> Option<T>
    where
        E: std::fmt::Display,
        F: Future<Output = Result<T, E>>,
    {
        self.insist(what, || {
            let answer = async { tokio::time::timeout(self.deadline.left(), ask()).await };
            match self.runtime.block_on(answer) {
                Ok(answer) => answer.map_err(|error| error.to_string()),
                Err(_) => Err("postgres did not answer".to_owned()),
            }
        })
    }

    fn insist<T, E: std::fmt::Display>(&self, what: &str, ask: impl FnMut() -> Result<T, E>) -> Option<T> {
        insist(what, self.deadline, || *self.stop.borrow(), ask)
    }
}

/// Finds and commits the offset at which the group starts on a partition. One that was there when the group began starts
/// where it ended then, also when its topic no longer goes back so far: that is a gap, and is named as one.
fn first_offset(
    client: &Client,
    partition: &SourcePartition,
    beginning: &Beginning,
    within: Duration,
) -> Result<i64, String> {
    let first = match beginning.offset_of(&partition.topic, partition.partition) {
        Some(first) => first,
        None => {
            let (low, _) = client
                .fetch_watermarks(&partition.topic, partition.partition, within)
                .map_err(|error| error.to_string())?;
            low
        }
    };
    commit_within(client, &[(partition.clone(), Position(first))], within)?;
    tracing::info!(%partition, offset = first, "first start: explicit offset committed");
    Ok(first)
}

/// Asks again until there is an answer, the time is over or the process stops; the partitions wait meanwhile, nothing is
/// fetched without a claim.
fn insist<T, E: std::fmt::Display>(
    what: &str,
    deadline: Deadline,
    stopped: impl Fn() -> bool,
    mut ask: impl FnMut() -> Result<T, E>,
) -> Option<T> {
    let mut tried = 0_u32;
    while !deadline.left().is_zero() && !stopped() {
        match ask() {
            Ok(answer) => return Some(answer),
            Err(error) if tried.is_multiple_of(TRIES_PER_WARNING) => {
                tracing::warn!(error = %error, "waiting for {what} before the first fetch")
            }
            Err(_) => {}
        }
        tried += 1;
        std::thread::park_timeout(RETRY_PAUSE.min(deadline.left()));
    }
    tracing::error!("gave up on {what}: the partitions are given back, and claimed anew after a pause");
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_in_vain_is_given_up_at_the_deadline() {
        let deadline = Deadline::after(Duration::from_millis(20));
        let mut tries = 0;
        let answer: Option<()> = insist(
            "an answer",
            deadline,
            || false,
            || {
                tries += 1;
                Err("none")
            },
        );
        assert_eq!((answer, deadline.left()), (None, Duration::ZERO));
        assert!(tries >= 1);
        let late = insist(
            "an answer",
            deadline,
            || false,
            || -> Result<(), String> { panic!("nothing is asked after the deadline") },
        );
        assert_eq!(late, None);
    }

    #[test]
    fn a_stop_ends_the_asking() {
        let stopped = std::cell::Cell::new(false);
        let answer: Option<()> = insist(
            "an answer",
            Deadline::after(Duration::from_secs(30)),
            || stopped.get(),
            || {
                stopped.set(true);
                Err("none")
            },
        );
        assert_eq!(answer, None);
    }

    #[test]
    fn a_question_is_asked_until_it_is_answered() {
        let mut answers = [Err("not yet"), Ok(7)].into_iter();
        let answer = insist(
            "an answer",
            Deadline::after(Duration::from_secs(30)),
            || false,
            || answers.next().expect("it is asked twice"),
        );
        assert_eq!(answer, Some(7));
    }
}
