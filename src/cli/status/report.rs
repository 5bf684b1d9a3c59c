//! What is reported of each group: what Postgres and Kafka said, put together.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use crate::engine::standing::{OpenJob, Standing, Suspended};
use crate::groups::broker::{Membership, Positions};
use crate::groups::graduation::rows::UnderWay;
use crate::groups::known::{Known, Letters};
use crate::groups::partition::{Position, Stopped};
use crate::groups::slots::{Slot, Slots};
use crate::groups::workers::Worker;

/// What Kafka said of one group.
#[derive(Debug, Default)]
pub(super) struct Observed {
    pub(super) membership: Membership,
    pub(super) positions: Positions,
}

/// Everything.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) at: DateTime<Utc>,
    pub(super) groups: Vec<Group>,
    /// Where groups read the write-ahead log themselves.
    pub(super) slots: Option<AllSlots>,
    /// Where groups are on their way from the write-ahead log to Kafka.
    pub(super) graduation: Option<UnderWay>,
    /// What could not be asked.
    pub(super) missing: Vec<Missing>,
}

/// What concerns slots beside those of single groups.
#[derive(Debug, Serialize)]
pub(super) struct AllSlots {
    /// Log that the server keeps for a slot at most; null where it keeps all.
    pub(super) keep_bytes_max: Option<i64>,
    /// Slots that no group ever read, and that are called as those of groups are.
    pub(super) unknown: Vec<Slot>,
}

/// A part that could not be asked, and why.
#[derive(Debug, Serialize)]
pub(super) struct Missing {
    pub(super) part: &'static str,
    pub(super) why: String,
}

/// One group. What nobody could be asked for is null.
#[derive(Debug, Serialize)]
pub(super) struct Group {
    pub(super) group: String,
    pub(super) state: State,
    pub(super) handlers: Vec<String>,
    /// As the coordinator knows it.
    pub(super) membership: Option<Membership>,
    pub(super) processes: Vec<ProcessOf>,
    pub(super) partitions: Option<Vec<PartitionOf>>,
    /// Partitions whose bounds could not be found out.
    pub(super) silent: Vec<Silent>,
    pub(super) lag_events: Option<i64>,
    pub(super) lag_s: Option<i64>,
    /// Where it reads the write-ahead log itself.
    pub(super) slot: Option<Slot>,
    pub(super) jobs: Option<Jobs>,
    pub(super) oldest_open: Option<OpenJob>,
    pub(super) suspended: Vec<Suspended>,
    pub(super) letters: Option<Vec<Letters>>,
    pub(super) letters_open: Option<i64>,
    pub(super) letters_parked: Option<i64>,
    /// Jobs that were parked because of lag, with those behind them.
    pub(super) jobs_parked: Option<i64>,
    /// Partitions that are stopped, or will be at the next start.
    pub(super) stopped: usize,
    pub(super) progressed_at: Option<DateTime<Utc>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    Running,
    Stopped,
    Unknown,
}

/// Jobs of all processes that run the group.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Jobs {
    pub(super) running: usize,
    pub(super) waiting: usize,
    pub(super) retrying: usize,
    pub(super) burying: usize,
    pub(super) parked_lanes: usize,
}

/// A process that runs the group, or ran it within the last day.
#[derive(Debug, Serialize)]
pub(super) struct ProcessOf {
    pub(super) owner: Uuid,
    pub(super) host: String,
    pub(super) pid: i64,
    pub(super) version: String,
    pub(super) state: &'static str,
    pub(super) started_at: DateTime<Utc>,
    pub(super) seen_at: DateTime<Utc>,
    pub(super) stopped_at: Option<DateTime<Utc>>,
    pub(super) progressed_at: Option<DateTime<Utc>>,
    #[serde(flatten)]
    pub(super) standing: Standing,
}

/// A partition of a topic the group reads.
#[derive(Debug, Serialize)]
pub(super) struct PartitionOf {
    #[serde(flatten)]
    pub(super) position: Position,
    pub(super) lag_events: i64,
    pub(super) lag_s: Option<i64>,
    pub(super) stopped: Option<Stopped>,
    /// The process that owns it, as host:pid.
    pub(super) process: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Silent {
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) why: String,
}

impl Report {
    /// What Postgres knows, where it answered, and what Kafka said of each group; `None` where there is no Kafka to ask, and
    /// slots are known instead.
    pub(super) fn of(
        at: DateTime<Utc>,
        names: Vec<String>,
        known: Option<&BTreeMap<String, Known>>,
        observed: Option<&BTreeMap<String, Observed>>,
        slots: Option<Slots>,
        missing: Vec<Missing>,
    ) -> Self {
        let group = |name: String| {
            let known = known.and_then(|known| known.get(&name));
            let seen = observed.and_then(|observed| observed.get(&name));
            let members = match observed {
                Some(_) => seen.map(|seen| !seen.membership.members.is_empty()),
                None => Some(false),
            };
            let workers = known.map(|known| known.workers.iter().any(Worker::runs));
            let slot = slots.as_ref().and_then(|slots| slots.of(&name)).cloned();
            Group::of(at, name, state(workers, members), known, seen).reading(at, slot)
        };
        Self {
            at,
            groups: names.into_iter().map(group).collect(),
            slots: slots.as_ref().map(AllSlots::of),
            graduation: None,
            missing,
        }
    }
}

impl Group {
    fn of(at: DateTime<Utc>, group: String, state: State, known: Option<&Known>, observed: Option<&Observed>) -> Self {
        let workers: &[Worker] = known.map_or(&[], |known| &known.workers);
        let running: Vec<&Worker> = workers.iter().filter(|worker| worker.runs()).collect();
        let partitions = observed.map(|observed| partitions(at, known, observed, &running));
        let silent = observed.iter().flat_map(|observed| &observed.positions.silent);
        let of_partitions = partitions.as_deref().unwrap_or_default();
        Self {
            state,
            handlers: known.map(|known| known.handlers.clone()).unwrap_or_default(),
            membership: observed.map(|observed| observed.membership.clone()),
            silent: silent
                .map(|(topic, partition, why)| Silent {
                    topic: topic.clone(),
                    partition: *partition,
                    why: why.clone(),
                })
                .collect(),
            lag_events: partitions.as_ref().map(|of| of.iter().map(|of| of.lag_events).sum()),
            lag_s: of_partitions.iter().filter_map(|of| of.lag_s).max(),
            stopped: of_partitions.iter().filter(|of| of.stopped.is_some()).count(),
            jobs: known.map(|_| jobs(&running)),
            oldest_open: running
                .iter()
                .filter_map(|worker| worker.standing.oldest_open.clone())
                .min_by_key(|job| job.since),
            suspended: running
                .iter()
                .flat_map(|worker| worker.standing.suspended.clone())
                .collect(),
            letters: known.map(|known| known.letters.clone()),
            letters_open: known.map(|known| known.letters_in("open")),
            letters_parked: known.map(|known| known.letters_in("parked")),
            jobs_parked: known.map(Known::jobs_parked),
            progressed_at: workers.iter().filter_map(|worker| worker.progressed_at).max(),
            processes: workers.iter().map(ProcessOf::of).collect(),
            partitions,
            slot: None,
            group,
        }
    }

    /// With the slot that it reads.
    fn reading(self, at: DateTime<Utc>, slot: Option<Slot>) -> Self {
        let Some(slot) = slot else { return self };
        let oldest = self
            .oldest_open
            .as_ref()
            .map(|job| (at - job.since).num_seconds().max(0));
        let lag_s = match self.state {
            State::Running => Some(oldest.unwrap_or(0)),
            // Nobody says when what it has not read was written: not before it settled last.
            State::Stopped if slot.lag_bytes == Some(0) => Some(0),
            State::Stopped | State::Unknown => slot.settled_s,
        };
        Self {
            lag_s,
            slot: Some(slot),
            ..self
        }
    }
}

impl AllSlots {
    fn of(slots: &Slots) -> Self {
        let unknown = slots.slots.iter().filter(|slot| slot.group.is_none());
        Self {
            keep_bytes_max: slots.keep_bytes_max,
            unknown: unknown.cloned().collect(),
        }
    }
}

/// A group runs when somebody says that it does. It is stopped only when both were asked and nobody does.
fn state(has_workers: Option<bool>, has_members: Option<bool>) -> State {
    match (has_workers, has_members) {
        (Some(true), _) | (_, Some(true)) => State::Running,
        (Some(false), Some(false)) => State::Stopped,
        _ => State::Unknown,
    }
}

fn jobs(running: &[&Worker]) -> Jobs {
    running.iter().fold(Jobs::default(), |sum, worker| Jobs {
        running: sum.running + worker.standing.running,
        waiting: sum.waiting + worker.standing.waiting,
        retrying: sum.retrying + worker.standing.retrying,
        burying: sum.burying + worker.standing.burying,
        parked_lanes: sum.parked_lanes + worker.standing.parked_lanes,
    })
}

fn partitions(at: DateTime<Utc>, known: Option<&Known>, observed: &Observed, running: &[&Worker]) -> Vec<PartitionOf> {
    let owner = |position: &Position| {
        let owns = |worker: &&&Worker| {
            let mut owned = worker.standing.partitions.iter();
            owned.any(|owned| owned.topic == position.topic && owned.partition == position.partition)
        };
        let worker = running.iter().find(owns)?;
        Some(format!("{}:{}", worker.host, worker.pid))
    };
    // Without Postgres nobody says which topics the group reads: those where it has a position.
    let reads = |position: &&Position| known.is_some() || position.committed.is_some();
    let seen = observed.positions.known.iter().filter(reads);
    seen.map(|position| {
        let first_offsets = known.map(|known| &known.first_offsets);
        let first_offset = first_offsets.and_then(|first| first.get(&(position.topic.clone(), position.partition)));
        let waiting_since = position.waiting_since_ms.and_then(DateTime::from_timestamp_millis);
        PartitionOf {
            lag_events: position.lag(),
            lag_s: match position.lag() {
                0 => Some(0),
                _ => waiting_since.map(|since| (at - since).num_seconds().max(0)),
            },
            stopped: position.stopped(first_offset.copied().flatten()),
            process: owner(position),
            position: position.clone(),
        }
    })
    .collect()
}

impl ProcessOf {
    fn of(worker: &Worker) -> Self {
        Self {
            owner: worker.owner,
            host: worker.host.clone(),
            pid: worker.pid,
            version: worker.version.clone(),
            state: match (worker.stopped_at, worker.gone) {
                (Some(_), _) => "stopped",
                (None, true) => "gone",
                (None, false) => "running",
            },
            started_at: worker.started_at,
            seen_at: worker.seen_at,
            stopped_at: worker.stopped_at,
            progressed_at: worker.progressed_at,
            standing: worker.standing.0.clone(),
        }
    }
}
