//! What the shadow knows of a partition that the core holds: its lanes, its jobs, and how far it is settled.

use std::collections::{BTreeMap, VecDeque};

use afterwrite::engine::core::messages::{HandlerIndex, Inheritance, JobId, Moment, ParkedJob, PartitionId, RequestId};
use afterwrite::engine::retry::{Class, Finish};
use afterwrite::event::delivery::Position;

use crate::letters::Lag;
use crate::parked::{Aside, Parked};

/// A partition that the core holds.
pub(crate) struct Hold {
    pub(crate) epoch: u64,
    pub(crate) lanes: BTreeMap<LaneName, Lane>,
    pub(crate) arrivals: VecDeque<Arrival>,
    pub(crate) arrived_before: u64,
    pub(crate) newest: Option<Position>,
    pub(crate) committed: Option<Position>,
    pub(crate) paused: bool,
    pub(crate) releasing: bool,
    /// Nothing more is waited for: what runs is to be abandoned.
    pub(crate) expired: bool,
    /// Assigned anew while it was held: it starts afresh under this epoch.
    pub(crate) renewed: Option<(u64, Inheritance)>,
    pub(crate) inherited: Inheritance,
    pub(crate) reserved_to: Option<Position>,
    /// A reservation is with the driver.
    pub(crate) reserving: bool,
    pub(crate) parked: BTreeMap<LaneName, Parked>,
    /// Open jobs that are in no lane.
    pub(crate) aside: BTreeMap<JobId, Aside>,
    /// The record that must not be passed.
    pub(crate) halt: Option<JobId>,
    pub(crate) lag: Lag,
}

pub(crate) type LaneName = (HandlerIndex, u64);

#[derive(Default)]
pub(crate) struct Lane {
    pub(crate) queue: VecDeque<JobId>,
    pub(crate) state: State,
    /// Its head could not start, because its position was not reserved.
    pub(crate) was_unreserved: bool,
    /// When it became idle the last time.
    pub(crate) ready_at: u64,
    /// How many jobs it had then.
    pub(crate) ready_with: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum State {
    /// It can start as soon as there is room.
    #[default]
    Idle,
    Running(usize),
    /// The call ended badly: `Wait` or `Bury` has to come within the step.
    Failed,
    Waiting,
    /// `Bury` has to come within the step.
    MustBury,
    Burying,
    /// The letter could not be written: `Wait` has to come within the step.
    BuryFailed,
    BuryWaiting,
    /// It failed after its partition was given up: nothing more may happen to it.
    GivenUp,
}

pub(crate) struct Arrival {
    pub(crate) position: Position,
    open: usize,
    bytes: usize,
}

pub(crate) struct Job {
    pub(crate) partition: PartitionId,
    pub(crate) lane: LaneName,
    pub(crate) origin: Origin,
    pub(crate) position: Position,
    /// Counted ends of calls of which it was the first member, without the one that parted it from its company.
    pub(crate) counted: u32,
    /// Whether it has to run alone, because its company failed.
    pub(crate) alone: bool,
    /// When a call with it as the first member failed first, and how many of its handler's calls had worked by then.
    pub(crate) first_failure: Option<(Moment, u64)>,
    /// How the last call with it as the first member ended, and how many members that had.
    pub(crate) last: Option<(Finish, usize)>,
    pub(crate) class: Option<Class>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    Arrival(u64),
    Replay(RequestId),
    Stored,
}

pub(crate) struct Replay {
    pub(crate) partition: PartitionId,
    pub(crate) open: usize,
    pub(crate) healed: bool,
    pub(crate) is_head: bool,
    /// Its letter was parked because of lag.
    pub(crate) parked: Option<ParkedJob>,
}

impl Job {
    pub(crate) fn new(
        partition: PartitionId,
        lane: LaneName,
        origin: Origin,
        position: Position,
        counted: u32,
    ) -> Self {
        Self {
            partition,
            lane,
            origin,
            position,
            counted,
            alone: false,
            first_failure: None,
            last: None,
            class: None,
        }
    }
}

impl Lane {
    pub(crate) fn become_ready(&mut self, clock: u64) {
        self.state = State::Idle;
        self.was_unreserved = false;
        self.ready_at = clock;
        self.ready_with = self.queue.len();
    }
}

impl Hold {
    pub(crate) fn new(epoch: u64, inherited: Inheritance) -> Self {
        Self {
            epoch,
            parked: Parked::inherited(&inherited.parked),
            lag: Lag::inherited(&inherited.letters),
            aside: BTreeMap::new(),
            inherited,
            reserved_to: None,
            reserving: false,
            lanes: BTreeMap::new(),
            arrivals: VecDeque::new(),
            arrived_before: 0,
            newest: None,
            committed: None,
            paused: false,
            releasing: false,
            expired: false,
            renewed: None,
            halt: None,
        }
    }

    pub(crate) fn frontier(&self) -> Option<Position> {
        let open = self.arrivals.front().map(|arrival| arrival.position);
        open.or(self.newest.map(|newest| Position(newest.0 + 1)))
    }

    pub(crate) fn bytes(&self) -> usize {
        let open = self.arrivals.iter().filter(|arrival| arrival.open > 0);
        open.map(|arrival| arrival.bytes).sum()
    }

    pub(crate) fn arrive(&mut self, position: Position, open: usize, bytes: usize) -> u64 {
        self.newest = Some(position);
        self.arrivals.push_back(Arrival { position, open, bytes });
        let number = self.arrived_before + self.arrivals.len() as u64 - 1;
        self.advance();
        number
    }

    pub(crate) fn settle(&mut self, number: u64) {
        let index = usize::try_from(number - self.arrived_before).expect("it is near");
        self.arrivals[index].open -= 1;
        self.advance();
    }

    fn advance(&mut self) {
        while self.arrivals.front().is_some_and(|arrival| arrival.open == 0) {
            self.arrivals.pop_front();
            self.arrived_before += 1;
        }
    }
}
