//! Lanes: jobs of one handler, from one partition, with one ordering key, strictly one after the other.

use std::collections::{HashMap, VecDeque};

use crate::engine::core::messages::{HandlerIndex, JobId};

/// Names a lane within its partition. Two ordering keys that hash alike share a lane: stricter order, never less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct LaneKey {
    pub(crate) handler: HandlerIndex,
    pub(crate) key: u64,
}

/// One lane. It exists only while it has jobs.
#[derive(Debug)]
pub(crate) struct Lane {
    /// Jobs in order; the head is the one whose phase the lane is in.
    pub(crate) queue: VecDeque<JobId>,
    /// What is happening to the head.
    pub(crate) phase: Phase,
    /// So many jobs at the head run one at a time, because they failed together.
    pub(crate) singly: usize,
}

/// What is happening to the head of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It may start as soon as there is room.
    Ready,
    /// It runs, together with as many followers as make up `members`.
    Running { members: usize },
    /// It waits until its position is reserved.
    Unreserved,
    /// It has to run alone, and something else does.
    WaitingAlone,
    /// It waits before it is tried again.
    Waiting,
    /// Its dead letter is being written.
    Burying,
    /// Its dead letter could not be written; it waits before that is tried again.
    BuryWaiting,
}

/// The lanes of one partition.
pub(crate) type Lanes = HashMap<LaneKey, Lane>;

impl Lane {
    /// A lane of one job.
    pub(crate) fn of(job: JobId) -> Self {
        Self {
            queue: VecDeque::from([job]),
            phase: Phase::Ready,
            singly: 0,
        }
    }

    /// The job whose phase the lane is in.
    pub(crate) fn head(&self) -> JobId {
        *self.queue.front().expect("a lane exists only while it has jobs")
    }

    /// Removes the head.
    pub(crate) fn pop(&mut self) -> JobId {
        self.singly = self.singly.saturating_sub(1);
        self.queue.pop_front().expect("a lane exists only while it has jobs")
    }
}
