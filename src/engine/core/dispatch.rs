//! Which lane starts next, of a handler that may start anything at all.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::engine::core::messages::{Action, HandlerIndex, HandlerLimits, JobId, Mark, Moment, PartitionId};
use crate::engine::core::mutation::Mutation;
use crate::engine::core::poison::Clearance;
use crate::engine::core::ready::Ready;
use crate::engine::core::{Core, Origin};
use crate::engine::lanes::{LaneKey, Phase};
use crate::engine::retry::{Class, Wait};
use crate::engine::suspend::Circuit;

/// What the core knows of one handler, over all partitions.
#[derive(Debug)]
pub(crate) struct Dispatch {
    /// Lanes whose head may start.
    ready: Ready,
    pub(crate) circuit: Circuit,
    pub(crate) running: usize,
    pace: Pace,
}

/// The rate limit of a handler: starts are as far apart as the limit says.
#[derive(Debug, Default)]
struct Pace {
    next_at: Moment,
    /// The driver was told to wake us.
    awaited: bool,
}

impl Dispatch {
    pub(crate) fn new() -> Self {
        Self {
            ready: Ready::default(),
            circuit: Circuit::default(),
            running: 0,
            pace: Pace::default(),
        }
    }

    /// Forgets the lanes of a partition.
    pub(crate) fn forget(&mut self, id: PartitionId) {
        self.ready.forget(id);
    }

    /// Forgets lanes of a partition that may not start any more.
    pub(super) fn forget_lanes(&mut self, id: PartitionId, forgotten: &BTreeSet<LaneKey>) {
        self.ready.forget_lanes(id, forgotten);
    }

    /// Whether it may start a lane, as far as its own limits are concerned.
    fn may_start(&self, limits: &HandlerLimits) -> bool {
        self.running < limits.running_max && self.circuit.lets_through()
    }
}

impl Core {
    /// A lane's head may start.
    pub(crate) fn make_ready(&mut self, id: PartitionId, key: LaneKey) {
        let place = self.ready_before;
        self.ready_before += 1;
        let jobs = self.lane(id, key).queue.len();
        self.handler(key.handler).ready.push((place, id, key), jobs);
    }

    pub(crate) fn handler(&mut self, handler: HandlerIndex) -> &mut Dispatch {
        &mut self.handlers[usize::from(handler.0)]
    }

    /// Starts lanes that are ready while there is room.
    pub(super) fn dispatch(&mut self, at: Moment, actions: &mut Vec<Action>) {
        let running_max = self.limits.running_max + usize::from(self.mutated(Mutation::RunsPastItsRoom));
        while self.running < running_max {
            let Some(handler) = self.next_handler(at, actions) else {
                return;
            };
            let newest = self.mutated(Mutation::NewestLaneFirst) || self.handler(handler).circuit.wants_newest();
            let ready = &mut self.handler(handler).ready;
            let next = if newest { ready.pop_newest() } else { ready.pop() };
            let (_, id, key) = next.expect("a handler that comes next has a lane that is ready");
            let lane = self.partitions.get(&id).and_then(|partition| partition.lanes.get(&key));
            let is_ready = lane.is_some_and(|lane| lane.phase == Phase::Ready);
            // Who could not start has not had its turn.
            if is_ready && self.start(at, id, key, actions) && !newest && !self.mutated(Mutation::MostJobsAlwaysFirst) {
                self.handler(handler).ready.next_turn();
            }
        }
    }

    /// The handler whose lane has been ready for longest, of those that may start one.
    fn next_handler(&mut self, at: Moment, actions: &mut Vec<Action>) -> Option<HandlerIndex> {
        let unbounded = self.mutated(Mutation::HandlerRunsPastItsRoom);
        let unpaced = self.mutated(Mutation::RateIsIgnored);
        let unwatched = self.mutated(Mutation::SuspendedStillStarts);
        let mut oldest: Option<(u64, usize)> = None;
        for (index, (dispatch, limits)) in self.handlers.iter_mut().zip(&self.limits.handlers).enumerate() {
            let Some(place) = dispatch.ready.oldest() else {
                continue;
            };
            let may_start = match (unbounded, unwatched) {
                (true, _) => dispatch.circuit.lets_through(),
                (_, true) => dispatch.running < limits.running_max,
                _ => dispatch.may_start(limits),
            };
            if !may_start || oldest.is_some_and(|(older, _)| older < place) {
                continue;
            }
            let paced = limits.starts_per_second_max.is_some() && !unpaced;
            if paced && at < dispatch.pace.next_at {
                if !std::mem::replace(&mut dispatch.pace.awaited, true) {
                    actions.push(Action::RateAfter {
                        handler: index_of(index),
                        wait: Wait::Exact(dispatch.pace.next_at.since(at)),
                    });
                }
                continue;
            }
            oldest = Some((place, index));
        }
        oldest.map(|(_, index)| index_of(index))
    }

    /// Starts the head of a lane, with the followers that may join it, unless something is known of it that forbids it; answers
    /// whether it did.
    fn start(&mut self, at: Moment, id: PartitionId, key: LaneKey, actions: &mut Vec<Action>) -> bool {
        let head = self.lane(id, key).head();
        let mark = match self.clearance(id, key, head) {
            Clearance::Start(mark) => mark,
            Clearance::Wait => return false,
            Clearance::Crashed => {
                self.bury(head, Class::Crashed, actions);
                return false;
            }
        };
        let members = self.members(id, key, mark);
        let limits = &self.limits.handlers[usize::from(key.handler.0)];
        let pause = limits
            .starts_per_second_max
            .map(|rate| Duration::from_secs(1) / rate.max(1));
        self.lane(id, key).phase = Phase::Running { members: members.len() };
        self.partition(id).in_flight += 1;
        self.running += 1;
        if mark == Mark::Alone {
            self.alone = Some(head);
        }
        let dispatch = self.handler(key.handler);
        dispatch.running += 1;
        dispatch.circuit.started(head);
        if let Some(pause) = pause {
            dispatch.pace.next_at = at.after(pause);
        }
        let attempt = self.jobs[&head].attempts + 1;
        actions.push(Action::Start {
            handler: key.handler,
            attempt,
            members,
            mark,
        });
        true
    }

    /// The jobs at the head that one call takes. Replays run alone: they work on another state of the ledger; so do jobs that
    /// may have killed a process.
    fn members(&mut self, id: PartitionId, key: LaneKey, mark: Mark) -> Vec<JobId> {
        let partition = &self.partitions[&id];
        let lane = &partition.lanes[&key];
        let singly = lane.singly > 0 || mark != Mark::None;
        let members_max = match singly {
            true => 1,
            false => self.limits.handlers[usize::from(key.handler.0)].coalesce_max,
        };
        let may_join = |job: &&JobId| {
            let job = &self.jobs[*job];
            let delivered = matches!(job.origin, Origin::Delivery(_));
            let free = partition
                .poison
                .is_free(job.position, key.handler, self.limits.crash_deaths_max);
            delivered && free || self.mutated(Mutation::ReplayHasCompany)
        };
        let followers = lane.queue.iter().take(members_max).skip(1);
        let with_company = may_join(&&lane.head());
        let company = followers.take_while(|job| with_company && may_join(job)).copied();
        std::iter::once(lane.head()).chain(company).collect()
    }

    /// The wait of a handler for its rate limit is over.
    pub(super) fn rate_due(&mut self, handler: HandlerIndex) {
        self.handler(handler).pace.awaited = false;
    }
}

fn index_of(index: usize) -> HandlerIndex {
    HandlerIndex(u16::try_from(index).expect("a group has few handlers"))
}
