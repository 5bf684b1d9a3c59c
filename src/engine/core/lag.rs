//! Lag: what is kept for a partition because its frontier stands, and how it is kept from filling a disk.
//!
//! While the lag is above its limit, jobs that only wait (for another attempt, or for a handler that is suspended) are parked:
//! each becomes a letter, and its lane is parked behind it whether or not the handler parks at dead letters. So the frontier
//! goes on. It ends when the lag is down to half of the limit.
//!
//! Such letters come back as replays, the oldest first, whatever the lag is: a replay holds no frontier back. Those of a handler
//! that is suspended are its probes. Few of them are open at once, and a lane that drains counts as one.

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::core::messages::{Action, HandlerIndex, Input, JobId, ParkedJob, PartitionId, RequestId};
use crate::engine::core::mutation::Mutation;
use crate::engine::core::{Core, Origin, Partition};
use crate::engine::lanes::{Lane, LaneKey, Phase};
use crate::engine::retry::Class;
use crate::event::delivery::Position;

/// Letters that are written at once because of lag: enough to keep a database busy, and few enough that it does nothing else.
const WRITTEN_AT_ONCE_MAX: usize = 32;

/// Letters of a group that come back at once, and lanes that drain behind them. Half of what a taker takes: the other half is
/// left to people.
const RECALLED_MAX: usize = 16;

/// What is known of the lag of a partition.
#[derive(Debug, Default)]
pub(crate) struct Lag {
    /// Jobs that wait are parked.
    is_over: bool,
    /// Letters that are being written because of it.
    writing: usize,
    handlers: BTreeMap<HandlerIndex, Letters>,
}

/// Letters of one handler that were parked because of lag.
#[derive(Debug, Default)]
struct Letters {
    /// The driver was asked to bring some back.
    is_asked: bool,
    /// More were parked since then.
    has_news: bool,
    /// There may be some that were not asked for.
    may_be_left: bool,
    /// The time of none has come; looked for again at the next commit.
    rests: bool,
    /// Those that are on their way back, or open.
    recalled: usize,
}

impl Core {
    /// What happened that concerns lag and the letters of it.
    pub(super) fn of_lag(&mut self, input: Input, actions: &mut Vec<Action>) {
        match input {
            Input::Lag {
                partition,
                epoch,
                bytes,
            } => self.lag(partition, epoch, bytes, actions),
            Input::Recalled {
                partition,
                epoch,
                handler,
                letters,
                left,
            } => self.recalled(partition, epoch, handler, letters, left),
            _ => {}
        }
    }

    /// So much is kept for a partition.
    fn lag(&mut self, id: PartitionId, epoch: u64, bytes: u64, actions: &mut Vec<Action>) {
        let bytes_max = self.limits.lag_bytes_max;
        let for_ever = self.mutated(Mutation::LagNeverEnds);
        if bytes_max == 0 || self.mutated(Mutation::LagIsIgnored) {
            return;
        }
        let Some(partition) = self.owned_under(id, epoch) else {
            return;
        };
        let was_over = partition.lag.is_over;
        partition.lag.is_over = match was_over {
            true => bytes > bytes_max / 2 || for_ever,
            false => bytes > bytes_max,
        };
        let lags = partition.lag.is_over;
        if lags != was_over {
            actions.push(Action::Lagging {
                partition: id,
                lags,
                bytes,
            });
        }
        self.park_waiting(id, actions);
    }

    /// Parks jobs of a partition that wait while the lag is too large, the oldest first.
    fn park_waiting(&mut self, id: PartitionId, actions: &mut Vec<Action>) {
        let partition = &self.partitions[&id];
        let room = WRITTEN_AT_ONCE_MAX - partition.lag.writing;
        // Looking through all lanes is worth it for many.
        if !partition.lag.is_over || partition.releasing || room < WRITTEN_AT_ONCE_MAX / 2 {
            return;
        }
        let lanes = partition
            .lanes
            .iter()
            .filter(|(key, lane)| self.only_waits(**key, lane));
        let mut waiting: Vec<(Position, LaneKey, JobId)> = lanes
            .filter_map(|(key, lane)| Some((self.holds_back(lane)?, *key, lane.head())))
            .collect();
        waiting.sort_unstable();
        waiting.truncate(room);
        self.partition(id).lag.writing += waiting.len();
        let lanes: BTreeSet<LaneKey> = waiting.iter().map(|(_, key, _)| *key).collect();
        let handlers: BTreeSet<HandlerIndex> = lanes.iter().map(|key| key.handler).collect();
        for handler in handlers {
            self.handler(handler).forget_lanes(id, &lanes);
        }
        for (_, _, head) in waiting {
            self.bury(head, Class::Parked, actions);
        }
    }

    /// Whether nothing happens to a lane until some time is over.
    fn only_waits(&self, key: LaneKey, lane: &Lane) -> bool {
        match lane.phase {
            Phase::Waiting => true,
            Phase::Ready => self.is_suspended(key.handler),
            Phase::Unreserved | Phase::WaitingAlone | Phase::Running { .. } | Phase::Burying | Phase::BuryWaiting => {
                false
            }
        }
    }

    /// Where the first job of a lane stands that the frontier waits for.
    fn holds_back(&self, lane: &Lane) -> Option<Position> {
        let mut jobs = lane.queue.iter().map(|job| &self.jobs[job]);
        let delivered = jobs.find(|job| matches!(job.origin, Origin::Delivery(_)));
        delivered.map(|job| job.position)
    }

    /// The letter of a job that was parked because of lag is durable.
    pub(super) fn letter_parked(&mut self, id: PartitionId, handler: HandlerIndex, actions: &mut Vec<Action>) {
        // It may have been the last thing that its partition waited for.
        let Some(partition) = self.partitions.get_mut(&id) else {
            return;
        };
        partition.lag.writing -= 1;
        let letters = partition.lag.handlers.entry(handler).or_default();
        letters.has_news = letters.is_asked;
        letters.may_be_left = true;
        self.recalling.insert((id, handler));
        self.park_waiting(id, actions);
    }

    /// What an earlier owner parked.
    pub(super) fn inherit_letters(&mut self, id: PartitionId, letters: BTreeMap<HandlerIndex, usize>) {
        for (handler, recalled) in letters {
            let inherited = Letters {
                may_be_left: true,
                recalled,
                ..Letters::default()
            };
            self.partition(id).lag.handlers.insert(handler, inherited);
            self.recalling.insert((id, handler));
        }
    }

    /// Asks for letters that were parked, where there is room for them. There are none but during an outage and after it.
    pub(super) fn recall(&mut self, actions: &mut Vec<Action>) {
        if self.recalling.is_empty() || self.stopping || self.mutated(Mutation::NeverRecalls) {
            return;
        }
        let share = (RECALLED_MAX / self.limits.handlers.len()).max(1);
        let at_once = self.mutated(Mutation::RecallsAllAtOnce);
        for (id, handler) in &self.recalling {
            let Some(partition) = self.partitions.get_mut(id).filter(|partition| !partition.releasing) else {
                continue;
            };
            let draining = partition.draining;
            let Some(letters) = partition.lag.handlers.get_mut(handler) else {
                continue;
            };
            let room = match at_once {
                true => usize::MAX,
                false => share.saturating_sub(letters.recalled + draining),
            };
            // Each question is a statement, so it is asked for several.
            if letters.is_asked || letters.rests || !letters.may_be_left || room.saturating_mul(2) < share {
                continue;
            }
            letters.is_asked = true;
            actions.push(Action::Recall {
                partition: *id,
                handler: *handler,
                letters_max: room,
            });
        }
    }

    /// Letters are on their way back.
    fn recalled(&mut self, id: PartitionId, epoch: u64, handler: HandlerIndex, count: usize, left: bool) {
        let Some(partition) = self.owned_under(id, epoch) else {
            return;
        };
        let Some(letters) = partition.lag.handlers.get_mut(&handler) else {
            return;
        };
        letters.is_asked = false;
        letters.recalled += count;
        letters.rests = count == 0;
        letters.may_be_left = left || std::mem::take(&mut letters.has_news);
        self.forget_letters(id, handler);
    }

    /// A replay of a letter ended that was parked because of lag. Somebody may have asked for it by a command.
    pub(super) fn letter_ended(&mut self, id: PartitionId, parked: Option<ParkedJob>) {
        let Some(ParkedJob { handler, .. }) = parked else {
            return;
        };
        let letters = self.partition(id).lag.handlers.get_mut(&handler);
        if let Some(letters) = letters {
            letters.recalled = letters.recalled.saturating_sub(1);
            self.forget_letters(id, handler);
        }
    }

    /// Forgets the letters of a handler when all have ended.
    fn forget_letters(&mut self, id: PartitionId, handler: HandlerIndex) {
        let of_partition = &mut self.partition(id).lag.handlers;
        let is_over = |letters: &&Letters| !letters.may_be_left && !letters.is_asked && letters.recalled == 0;
        if of_partition.get(&handler).filter(is_over).is_some() {
            of_partition.remove(&handler);
            self.recalling.remove(&(id, handler));
        }
    }

    /// Attempts that were made at the job of a replay before it was parked because of lag.
    pub(super) fn parked_attempts(&self, request: RequestId) -> Option<u32> {
        let forgotten = self.mutated(Mutation::ParkedAttemptsAreForgotten);
        let parked = self.replays.get(&request)?.parked.filter(|_| !forgotten);
        parked.map(|job| job.attempts)
    }

    /// The time of letters may have come.
    pub(super) fn look_for_letters(&mut self) {
        for (id, handler) in &self.recalling {
            let partition = self.partitions.get_mut(id);
            if let Some(letters) = partition.and_then(|partition| partition.lag.handlers.get_mut(handler)) {
                letters.rests = false;
            }
        }
    }

    /// A partition that is held under this epoch and not given up.
    pub(super) fn owned_under(&mut self, id: PartitionId, epoch: u64) -> Option<&mut Partition> {
        let live = |partition: &&mut Partition| partition.epoch == epoch && !partition.releasing;
        self.partitions.get_mut(&id).filter(live)
    }
}

#[cfg(test)]
#[path = "lag_tests.rs"]
mod tests;
