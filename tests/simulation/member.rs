//! One process of the group: a core, its shadow, and what a driver would hold for it.

use std::collections::BTreeMap;

use afterwrite::engine::core::Core;
use afterwrite::engine::core::messages::{HandlerIndex, Input, JobId, Limits, Mark, Moment, PartitionId};
use afterwrite::engine::core::mutation::Mutation;
use afterwrite::event::delivery::Position;

use crate::database::Waiting;
use crate::invariant::Watched;
use crate::shadow::Shadow;

pub(crate) struct Member {
    /// `None` while the process is down.
    pub(crate) core: Option<Core>,
    /// `None` when nobody watches the core itself, or when it lost track of one that is broken.
    pub(crate) shadow: Option<Shadow>,
    /// It was told to stop.
    pub(crate) stopping: bool,
    /// Its core said that it can leave.
    pub(crate) drained: bool,
    pub(crate) fetches: BTreeMap<PartitionId, Fetch>,
    pub(crate) calls: Vec<Call>,
    /// Events on their way into the store of parked lanes.
    pub(crate) storing: Vec<Vec<JobId>>,
    /// Questions under way for what comes next of a draining lane.
    pub(crate) unparks: Vec<Unpark>,
    /// Reservations under way.
    pub(crate) reservations: Vec<(PartitionId, u64, Position)>,
    /// Waits under way, with the moments at which they are over.
    pub(crate) waits: Vec<(Waiter, Moment)>,
    /// Letters under way.
    pub(crate) burials: Vec<Burial>,
    /// Questions under way for letters that were parked because of lag.
    pub(crate) recalls: Vec<Recall>,
    /// Answers for jobs that were abandoned or forgotten, still in a channel.
    pub(crate) late: Vec<Input>,
    /// Records that were fetched under an epoch that is over, still in a channel.
    pub(crate) stale: Vec<Stale>,
}

/// A call under way.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) jobs: Vec<JobId>,
    pub(crate) mark: Mark,
    /// Its mark was refused, so its handler is not called.
    pub(crate) fenced: bool,
}

/// A letter under way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Burial {
    pub(crate) job: JobId,
    /// Whether its lane is parked with it.
    pub(crate) park: bool,
    /// When its job is due again and how often it was tried, where it is parked because of lag.
    pub(crate) waiting: Option<Waiting>,
}

/// A question under way for letters that were parked because of lag.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Recall {
    pub(crate) partition: PartitionId,
    pub(crate) epoch: u64,
    pub(crate) handler: HandlerIndex,
    pub(crate) letters_max: usize,
}

/// A question under way for what comes next of a draining lane.
#[derive(Debug, Clone)]
pub(crate) struct Unpark {
    pub(crate) partition: PartitionId,
    pub(crate) epoch: u64,
    pub(crate) handler: HandlerIndex,
    pub(crate) key: u64,
    pub(crate) done: Vec<Position>,
}

/// Whose wait is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waiter {
    Job(JobId),
    Probe(HandlerIndex),
    Rate(HandlerIndex),
}

impl Waiter {
    /// What its core hears when the wait is over.
    pub(crate) fn input(self) -> Input {
        match self {
            Self::Job(job) => Input::Due { job },
            Self::Probe(handler) => Input::ProbeDue { handler },
            Self::Rate(handler) => Input::RateDue { handler },
        }
    }
}

/// Which core is simulated, and how closely it is watched.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject {
    pub(crate) mutation: Option<Mutation>,
    /// The invariants that are watched.
    pub(crate) watched: Watched,
    /// Whether a shadow stands beside it; otherwise it is judged only by what reaches the broker and the database.
    pub(crate) shadowed: bool,
}

/// How far a partition was fetched in this epoch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fetch {
    pub(crate) epoch: u64,
    pub(crate) first: usize,
    pub(crate) next: usize,
    pub(crate) paused: bool,
    /// It is being given up.
    pub(crate) releasing: bool,
    /// So many records are already in the channel when a pause arrives.
    pub(crate) overrun: usize,
    /// A commit that the broker refused, because the member's own epoch was an old one.
    pub(crate) refused: Option<Position>,
}

pub(crate) struct Stale {
    pub(crate) partition: PartitionId,
    pub(crate) epoch: u64,
    pub(crate) index: usize,
}

impl Member {
    pub(crate) fn new(limits: Limits, subject: Subject) -> Self {
        let core = match subject.mutation {
            Some(mutation) => Core::broken(limits.clone(), mutation),
            None => Core::new(limits.clone()),
        };
        Self {
            core: Some(core),
            shadow: (subject.shadowed && subject.watched != Watched::NONE).then(|| Shadow::new(limits)),
            stopping: false,
            drained: false,
            fetches: BTreeMap::new(),
            calls: Vec::new(),
            storing: Vec::new(),
            unparks: Vec::new(),
            reservations: Vec::new(),
            waits: Vec::new(),
            burials: Vec::new(),
            recalls: Vec::new(),
            late: Vec::new(),
            stale: Vec::new(),
        }
    }

    /// Keeps what a driver knows by itself of what it tells its core.
    pub(crate) fn hear(&mut self, input: &Input) {
        match input {
            Input::Revoking { partition } => {
                if let Some(fetch) = self.fetches.get_mut(partition) {
                    fetch.releasing = true;
                }
            }
            Input::Stopping => {
                self.stopping = true;
                for fetch in self.fetches.values_mut() {
                    fetch.releasing = true;
                }
            }
            _ => {}
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.core.is_some()
    }

    /// Up, and not on its way out.
    pub(crate) fn takes_work(&self) -> bool {
        self.is_up() && !self.stopping
    }
}
