//! Where a group stands in this process: what runs, what waits and for what, told to whoever shows it to people.
//!
//! A plain value, made from the core and from what the driver keeps; nothing is decided by it.

use std::time::Duration;

use chrono::{DateTime, Utc};
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::engine::core::Core;
use crate::engine::core::messages::{HandlerIndex, JobId};
use crate::engine::counts::Counts;
use crate::engine::driver::Driver;
use crate::engine::jobs::Held;
use crate::engine::lanes::Phase;
use crate::engine::letter::EVERY_HANDLER;
use crate::event::delivery::Content;

/// Where a group stands in one process. Counts are of jobs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Standing {
    /// Jobs in attempts that run now.
    pub running: usize,
    /// Lanes of which an attempt runs now.
    pub running_lanes: usize,
    /// How many may run at once.
    pub lanes_max: usize,
    /// Jobs that wait for room, or for the one before them in their lane.
    pub waiting: usize,
    /// Jobs whose attempt failed, or that asked for it, and that wait for their time.
    pub retrying: usize,
    /// Jobs whose dead letter is being written, or is waiting to be written again.
    pub burying: usize,
    /// Lanes that are held back behind a buried head.
    pub parked_lanes: usize,
    /// Whether jobs that wait are parked because of lag.
    pub lagging: bool,
    /// What is suspended.
    pub suspended: Vec<Suspended>,
    /// The open job whose record is the oldest.
    pub oldest_open: Option<OpenJob>,
    /// Records from the frontiers to the newest arrivals, over all partitions.
    pub buffered_events: usize,
    /// How many these may be.
    pub buffered_events_max: usize,
    /// Bytes of the unsettled ones among them.
    pub buffered_bytes: usize,
    /// How many these may be.
    pub buffered_bytes_max: usize,
    /// The partitions this process owns.
    pub partitions: Vec<OwnedPartition>,
    /// Grows with everything that is settled here; says nothing but that it grew.
    pub progress: u64,
    /// What passed through, for whoever is in the same process.
    #[serde(skip)]
    pub counts: Counts,
    /// When the driver began to run; nothing until it does.
    #[serde(skip)]
    pub running_since: Option<DateTime<Utc>>,
    /// When this was told; nothing until the driver runs.
    #[serde(skip)]
    pub told_at: Option<Instant>,
    /// How often it is told.
    #[serde(skip)]
    pub told_every: Duration,
}

/// A handler, or one destination of it, of which only a probe is let through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspended {
    /// The handler.
    pub handler: String,
    /// Since when.
    pub since: DateTime<Utc>,
    /// Why, for people.
    pub why: String,
}

/// A job that is neither done nor buried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenJob {
    /// Its handler; `*` when its record cannot be decoded.
    pub handler: String,
    /// Topic of its record.
    pub topic: String,
    /// Partition of its record.
    pub partition: i32,
    /// Offset of its record.
    pub offset: i64,
    /// Timestamp of its record.
    pub since: DateTime<Utc>,
}

/// A partition that this process owns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnedPartition {
    /// Its topic.
    pub topic: String,
    /// Its number.
    pub partition: i32,
    /// Everything before it is settled; `None` until something arrived.
    pub frontier: Option<i64>,
    /// Records from the frontier to the newest arrival.
    pub buffered_events: usize,
    /// Whether its share of the window is used up.
    pub paused: bool,
}

impl Driver {
    /// Tells where the group stands to whoever listens.
    pub(super) fn tell_standing(&self) {
        if self.channels.standing.receiver_count() == 0 {
            return;
        }
        let name = |handler: HandlerIndex| match handler {
            HandlerIndex::NONE => EVERY_HANDLER.to_owned(),
            HandlerIndex(index) => self.setup.router.name(usize::from(index)).to_owned(),
        };
        let partitions = self.core.partitions.iter().map(|(id, partition)| {
            let owned = self.ownership.name(*id);
            OwnedPartition {
                topic: owned.topic.to_string(),
                partition: owned.partition,
                frontier: partition.tracker.frontier().map(|frontier| frontier.0),
                buffered_events: partition.tracker.span(),
                paused: partition.paused,
            }
        });
        let counts = &self.counts;
        let standing = Standing {
            oldest_open: oldest(&self.held).map(|(since, held)| OpenJob {
                handler: name(held.handler),
                topic: held.partition().topic.to_string(),
                partition: held.partition().partition,
                offset: held.delivery.position.0,
                since,
            }),
            partitions: partitions.collect(),
            lagging: !self.lagging.is_empty(),
            suspended: self.suspended(),
            progress: counts.done + counts.buried + counts.skipped.values().sum::<u64>(),
            counts: counts.clone(),
            running_since: Some(self.began_at),
            told_at: Some(Instant::now()),
            told_every: self.setup.times.commit_interval,
            ..jobs(&self.core)
        };
        self.channels.standing.send_replace(standing);
    }
}

impl Driver {
    fn suspended(&self) -> Vec<Suspended> {
        let told = self.suspended.iter().map(|(handler, (since, cause))| Suspended {
            handler: self.setup.router.name(usize::from(handler.0)).to_owned(),
            since: *since,
            why: cause.as_str().to_owned(),
        });
        told.collect()
    }
}

/// What the core knows.
fn jobs(core: &Core) -> Standing {
    let mut standing = Standing {
        lanes_max: core.limits.running_max,
        buffered_events_max: core.limits.buffered_events_max,
        buffered_bytes_max: core.limits.buffered_bytes_max,
        ..Standing::default()
    };
    for partition in core.partitions.values() {
        standing.buffered_events += partition.tracker.span();
        standing.buffered_bytes += partition.tracker.unsettled_bytes();
        standing.parked_lanes += partition.parked.len();
        standing.waiting += partition.aside.len();
        for lane in partition.lanes.values() {
            let heads = match lane.phase {
                Phase::Ready | Phase::Unreserved | Phase::WaitingAlone => 0,
                Phase::Running { members } => {
                    standing.running_lanes += 1;
                    standing.running += members;
                    members
                }
                Phase::Waiting => {
                    standing.retrying += 1;
                    1
                }
                Phase::Burying | Phase::BuryWaiting => {
                    standing.burying += 1;
                    1
                }
            };
            standing.waiting += lane.queue.len().saturating_sub(heads);
        }
    }
    standing
}

/// The open job with the oldest record.
fn oldest(held: &FxHashMap<JobId, Held>) -> Option<(DateTime<Utc>, &Held)> {
    let since = |held: &Held| {
        let committed_ms = match &held.delivery.content {
            Content::Change(event) => event.origin().commit_ts_ms,
            Content::Skip(_) | Content::Undecodable(_) => None,
        };
        let at_ms = held.delivery.raw.timestamp_ms.or(committed_ms)?;
        DateTime::from_timestamp_millis(at_ms)
    };
    held.values()
        .filter_map(|held| Some((since(held)?, held)))
        .min_by_key(|(since, held)| (*since, held.delivery.position))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::core::messages::{
        HandlerLimits, Inheritance, Input, JobSpec, Limits, Moment, PartitionId, Work,
    };
    use crate::engine::retry::Finish;
    use crate::event::delivery::Position;

    fn core(running_max: usize) -> Core {
        Core::new(Limits {
            running_max,
            buffered_events_max: 4,
            buffered_bytes_max: 100,
            lag_bytes_max: 0,
            crash_deaths_max: 0,
            reserved_ahead: 1,
            handlers: vec![HandlerLimits::default()],
        })
    }

    #[test]
    fn every_open_job_is_counted_once_by_what_it_waits_for() {
        let mut core = core(2);
        let mut actions = Vec::new();
        let partition = PartitionId(0);
        let assigned = Input::Assigned {
            partition,
            epoch: 1,
            inherited: Inheritance::default(),
        };
        core.step(Moment(0), assigned, &mut actions);
        // Two of key 1, one of key 2, one of key 3: two lanes run, the third finds no room.
        for (job, key) in [(1, 1), (2, 1), (3, 2), (4, 3)] {
            let job_spec = JobSpec {
                job: JobId(job),
                handler: HandlerIndex(0),
                key,
            };
            let delivered = Input::Delivered {
                partition,
                epoch: 1,
                position: Position(i64::try_from(job).unwrap()),
                bytes: 10,
                work: Work::Jobs(vec![job_spec]),
            };
            core.step(Moment(0), delivered, &mut actions);
        }
        let counted = |core: &Core| {
            let standing = jobs(core);
            (standing.running, standing.waiting, standing.retrying, standing.burying)
        };
        assert_eq!(counted(&core), (2, 2, 0, 0));
        let failed = |job| Input::Finished {
            job: JobId(job),
            finish: Finish::Transient(None),
        };
        core.step(Moment(0), failed(1), &mut actions);
        assert_eq!(
            counted(&core),
            (2, 1, 1, 0),
            "the head of key 1 waits, key 3 has its room"
        );
        let finish = Finish::Permanent;
        core.step(Moment(0), Input::Finished { job: JobId(3), finish }, &mut actions);
        assert_eq!(counted(&core), (1, 1, 1, 1));
        let standing = jobs(&core);
        assert_eq!((standing.running_lanes, standing.lanes_max), (1, 2));
        assert_eq!((standing.buffered_events, standing.buffered_bytes), (4, 40));
        assert_eq!((standing.buffered_events_max, standing.buffered_bytes_max), (4, 100));
    }
}
