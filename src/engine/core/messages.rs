//! What goes into the core and what comes out: the closed list of everything that can happen and everything that can be
//! decided.

use std::collections::BTreeMap;

use crate::engine::retry::{Class, Finish, Policy, Wait};
use crate::engine::suspend::{Cause, SuspendPolicy};
use crate::event::delivery::Position;

/// A partition, numbered by the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionId(pub u32);

/// A handler, by its place in the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HandlerIndex(pub u16);

impl HandlerIndex {
    /// Stands for "no handler": the record could not be decoded.
    pub const NONE: Self = Self(u16::MAX);
}

/// One event for one handler, numbered by the driver; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(pub u64);

/// A request to replay a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub i64);

/// When something happened: microseconds since a moment that stays the same while the core lives. Never goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Moment(pub u64);

/// What happened.
#[derive(Debug, Clone)]
pub enum Input {
    /// The partition is ours from now on.
    Assigned {
        /// The partition.
        partition: PartitionId,
        /// The assignment under which it was fetched.
        epoch: u64,
        /// What its earlier owners left.
        inherited: Inheritance,
    },
    /// Records before this position may be handed out: the next owner suspects them if this one dies.
    Reserved {
        /// The partition.
        partition: PartitionId,
        /// The assignment under which it was asked for.
        epoch: u64,
        /// The first position that is not reserved.
        to: Position,
    },
    /// A record of the partition arrived.
    Delivered {
        /// The partition.
        partition: PartitionId,
        /// The assignment under which it was fetched.
        epoch: u64,
        /// Its place.
        position: Position,
        /// What it weighs.
        bytes: usize,
        /// What it asks for.
        work: Work,
    },
    /// A dead letter of the partition comes back.
    Replayed {
        /// The partition.
        partition: PartitionId,
        /// The assignment under which it was fetched.
        epoch: u64,
        /// The request.
        request: RequestId,
        /// Where its record stands.
        position: Position,
        /// Whether its letter is the head of a parked lane, which drains when it is mended.
        is_head: bool,
        /// What is known of its job, where the letter was parked because of lag.
        parked: Option<ParkedJob>,
        /// What it asks for.
        work: Work,
    },
    /// A started attempt ended.
    Finished {
        /// The job.
        job: JobId,
        /// How.
        finish: Finish,
    },
    /// A wait is over.
    Due {
        /// The job.
        job: JobId,
    },
    /// The wait for the next probe of a suspended handler is over.
    ProbeDue {
        /// The handler.
        handler: HandlerIndex,
    },
    /// The wait of a handler for its rate limit is over.
    RateDue {
        /// The handler.
        handler: HandlerIndex,
    },
    /// A dead letter is durable.
    Buried {
        /// The job.
        job: JobId,
    },
    /// A dead letter could not be written.
    BuryFailed {
        /// The job.
        job: JobId,
    },
    /// Events of a parked lane are stored.
    Stored {
        /// The first of them.
        job: JobId,
    },
    /// Events of a parked lane could not be stored.
    StoreFailed {
        /// The first of them.
        job: JobId,
    },
    /// The head of a parked lane was given up: its followers may go on.
    Drain {
        /// The partition.
        partition: PartitionId,
        /// The assignment under which this was found out.
        epoch: u64,
        /// The handler.
        handler: HandlerIndex,
        /// Hash of the ordering key.
        key: u64,
    },
    /// What comes next of a draining lane was read. Nothing: the store is empty, and the lane is live.
    Unparked {
        /// The partition.
        partition: PartitionId,
        /// The assignment under which it was read.
        epoch: u64,
        /// The handler.
        handler: HandlerIndex,
        /// Hash of the ordering key.
        key: u64,
        /// New jobs for what was stored, in order, with their places.
        jobs: Vec<(JobId, Position)>,
    },
    /// So much is kept for the partition because its frontier stands where it does.
    Lag {
        /// The partition.
        partition: PartitionId,
        /// The assignment under which that was found out.
        epoch: u64,
        /// How much.
        bytes: u64,
    },
    /// Letters that were parked because of lag are on their way back as replays.
    Recalled {
        /// The partition.
        partition: PartitionId,
        /// The assignment under which they were asked for.
        epoch: u64,
        /// The handler.
        handler: HandlerIndex,
        /// So many.
        letters: usize,
        /// Whether there are more, now or when their time has come.
        left: bool,
    },
    /// The partition is about to be taken away.
    Revoking {
        /// The partition.
        partition: PartitionId,
    },
    /// The time for finishing what runs on the partition is over.
    RevokeExpired {
        /// The partition.
        partition: PartitionId,
    },
    /// The partition is already gone.
    Lost {
        /// The partition.
        partition: PartitionId,
    },
    /// It is time to commit.
    CommitDue,
    /// Take nothing more, finish what runs.
    Stopping,
    /// The time for finishing what runs is over.
    StopExpired,
}

/// What the earlier owners of a partition left to the next one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inheritance {
    /// Records before this position were with an owner that died.
    pub suspect_to: Option<Position>,
    /// Jobs that were running when an owner died, and how many died while such a job ran alone.
    pub deaths: BTreeMap<(Position, HandlerIndex), u32>,
    /// Jobs that waited for another attempt, and how many they had.
    pub attempts: BTreeMap<(Position, HandlerIndex), u32>,
    /// Lanes that hold their events back, by handler and key, and whether they are draining.
    pub parked: BTreeMap<(HandlerIndex, u64), bool>,
    /// Handlers with letters that were parked because of lag, and how many of these are on their way back already.
    pub letters: BTreeMap<HandlerIndex, usize>,
}

/// A job whose letter was parked because of lag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParkedJob {
    /// Its handler.
    pub handler: HandlerIndex,
    /// Attempts that were made before.
    pub attempts: u32,
}

/// Whether the attempt at a job is written down before it begins, so that its death is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// It is not: nobody has died of this job.
    None,
    /// It is: somebody may have.
    Running,
    /// It is, and nothing else that was running at a death runs meanwhile.
    Alone,
}

/// What a record asks for.
#[derive(Debug, Clone)]
pub enum Work {
    /// Nothing: the record moves the frontier and no more.
    Nothing,
    /// One job per handler it wakes.
    Jobs(Vec<JobSpec>),
    /// A dead letter, because the bytes can never decode.
    Undecodable(JobId),
    /// The end of the group before it, because the bytes can never decode.
    Halt(JobId),
}

impl Work {
    /// The jobs of this work.
    pub(crate) fn jobs(&self) -> Vec<JobSpec> {
        match self {
            Self::Nothing => Vec::new(),
            Self::Jobs(jobs) => jobs.clone(),
            Self::Undecodable(job) | Self::Halt(job) => vec![JobSpec {
                job: *job,
                handler: HandlerIndex::NONE,
                key: job.0,
            }],
        }
    }
}

/// A job to queue.
#[derive(Debug, Clone, Copy)]
pub struct JobSpec {
    /// The job.
    pub job: JobId,
    /// Who works on it.
    pub handler: HandlerIndex,
    /// Hash of its ordering key.
    pub key: u64,
}

/// What the driver has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Run one attempt of the handler at these jobs, in this order; answer with the first as `job`.
    Start {
        /// The handler.
        handler: HandlerIndex,
        /// Counts from 1.
        attempt: u32,
        /// The jobs in order; the first stands for all.
        members: Vec<JobId>,
        /// What has to be committed before it begins. One that cannot be is an end of kind `Unreachable`.
        mark: Mark,
    },
    /// Make durable that records before this position may be handed out; answer `Reserved`.
    Reserve {
        /// The partition.
        partition: PartitionId,
        /// The first position that is not reserved.
        to: Position,
    },
    /// Answer `Due` after this wait.
    Wait {
        /// The job.
        job: JobId,
        /// Attempts that were counted so far.
        attempts: u32,
        /// How long.
        wait: Wait,
    },
    /// The handler is suspended: nothing of it is buried, one probe at a time goes through.
    Suspended {
        /// The handler.
        handler: HandlerIndex,
        /// Why.
        cause: Cause,
    },
    /// The handler works again.
    Resumed {
        /// The handler.
        handler: HandlerIndex,
    },
    /// Answer `ProbeDue` after this wait.
    ProbeAfter {
        /// The handler.
        handler: HandlerIndex,
        /// How long.
        wait: Wait,
    },
    /// Answer `RateDue` after this wait.
    RateAfter {
        /// The handler.
        handler: HandlerIndex,
        /// How long.
        wait: Wait,
    },
    /// Write the dead letter; answer `Buried` only when it is durable.
    Bury {
        /// The job.
        job: JobId,
        /// Why.
        class: Class,
        /// Attempts that were made.
        attempts: u32,
        /// Whether its lane has to be parked in the same transaction.
        park: bool,
    },
    /// Store these events of one lane, in this order and all or none, behind the head of their parked lane; answer `Stored`
    /// with the first only when that is durable.
    Park {
        /// The jobs; the first stands for all.
        jobs: Vec<JobId>,
    },
    /// Delete what is done of a draining lane and read what comes next, or end its parking when nothing does; answer
    /// `Unparked`.
    Unpark {
        /// The partition.
        partition: PartitionId,
        /// The handler.
        handler: HandlerIndex,
        /// Hash of the ordering key.
        key: u64,
        /// Events that were read before and are settled.
        done: Vec<Position>,
    },
    /// Bring letters of the handler that were parked because of lag back as replays, the oldest first, when their time has
    /// come; answer `Recalled`.
    Recall {
        /// The partition.
        partition: PartitionId,
        /// The handler.
        handler: HandlerIndex,
        /// At most so many.
        letters_max: usize,
    },
    /// From now on jobs of the partition that wait are parked as letters, or no more are.
    Lagging {
        /// The partition.
        partition: PartitionId,
        /// Whether they are.
        lags: bool,
        /// What is kept for the partition.
        bytes: u64,
    },
    /// The job is settled or no longer ours: drop what is kept for it.
    Forget {
        /// The job.
        job: JobId,
    },
    /// Stop whatever is under way for the job and never answer for it.
    Abandon {
        /// The job.
        job: JobId,
    },
    /// Everything before these positions is settled.
    Commit {
        /// Per partition the first position that is not settled.
        positions: Vec<(PartitionId, Position)>,
    },
    /// Hand over nothing more of this partition.
    Pause {
        /// The partition.
        partition: PartitionId,
    },
    /// Hand over records of this partition again.
    Resume {
        /// The partition.
        partition: PartitionId,
    },
    /// The partition is let go; everything before `position` is settled.
    Released {
        /// The partition.
        partition: PartitionId,
        /// The first position that is not settled; `None` when nothing arrived.
        position: Option<Position>,
    },
    /// All jobs of a replay ended; `healed` when none was buried again.
    ReplayEnded {
        /// The request.
        request: RequestId,
        /// Whether none of its jobs was buried again.
        healed: bool,
    },
    /// Everything before this record is settled and it must not be passed: the core takes nothing more, as if it had heard
    /// `Stopping`.
    Halt {
        /// The job of the record, forgotten when its partition is released.
        job: JobId,
    },
    /// Everything that ran has ended: the group can be left.
    Drained,
}

/// Limits of a group in this process.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Lanes that run at once.
    pub running_max: usize,
    /// A job during which so many processes died while it ran alone goes to the dead letters; 0 switches that off.
    pub crash_deaths_max: u32,
    /// Positions that are reserved ahead of the newest record.
    pub reserved_ahead: i64,
    /// Records from frontier to newest over all partitions; each partition has an equal share.
    pub buffered_events_max: usize,
    /// Bytes of unsettled records over all partitions; each partition has an equal share.
    pub buffered_bytes_max: usize,
    /// While more than this is kept for a partition, its jobs that wait are parked as letters; 0 switches that off.
    pub lag_bytes_max: u64,
    /// Per handler, in the order of their indices.
    pub handlers: Vec<HandlerLimits>,
}

impl Default for HandlerLimits {
    /// A handler that takes one event a call, as often as it can.
    fn default() -> Self {
        Self {
            coalesce_max: 1,
            running_max: usize::MAX,
            starts_per_second_max: None,
            parks: false,
            suspend: SuspendPolicy::default(),
            policy: Policy::default(),
        }
    }
}

/// Limits of one handler.
#[derive(Debug, Clone)]
pub struct HandlerLimits {
    /// Events one call may take.
    pub coalesce_max: usize,
    /// Lanes of this handler that run at once.
    pub running_max: usize,
    /// Calls that may start within a second; `None` is without limit.
    pub starts_per_second_max: Option<u32>,
    /// Whether later events of a key wait while an earlier one is in the dead letters.
    pub parks: bool,
    /// When it is suspended.
    pub suspend: SuspendPolicy,
    /// Retrying.
    pub policy: Policy,
}
