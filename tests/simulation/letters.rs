//! The shadow's view of lag, and of letters that were parked because of it.

use std::collections::BTreeMap;

use afterwrite::engine::core::messages::{HandlerIndex, Input, JobId, ParkedJob, PartitionId};

use crate::invariant::{Checked, Invariant};
use crate::shadow::{Hold, LaneName, Origin, Shadow, State};

/// Letters of a group that come back at once, and lanes that drain.
const RECALLED_MAX: usize = 16;

/// What is known of the lag of a partition.
#[derive(Default)]
pub(crate) struct Lag {
    is_over: bool,
    /// What has to be said within the step.
    owed: Option<bool>,
    /// It was told in this step.
    is_told: bool,
    handlers: BTreeMap<HandlerIndex, Letters>,
}

/// Letters of one handler.
#[derive(Default)]
struct Letters {
    is_asked: bool,
    recalled: usize,
}

impl Lag {
    pub(crate) fn inherited(letters: &BTreeMap<HandlerIndex, usize>) -> Self {
        let letters = letters.iter().map(|(handler, recalled)| {
            let letters = Letters {
                recalled: *recalled,
                is_asked: false,
            };
            (*handler, letters)
        });
        Self {
            handlers: letters.collect(),
            ..Self::default()
        }
    }
}

impl Shadow {
    pub(crate) fn take_of_lag(&mut self, input: &Input) {
        match input {
            Input::Lag {
                partition,
                epoch,
                bytes,
            } => self.lag(*partition, *epoch, *bytes),
            Input::Recalled {
                partition,
                epoch,
                handler,
                letters,
                ..
            } => self.recalled(*partition, *epoch, *handler, *letters),
            _ => {}
        }
    }

    /// So much is kept for a partition.
    fn lag(&mut self, id: PartitionId, epoch: u64, bytes: u64) {
        let bytes_max = self.limits.lag_bytes_max;
        let live = |hold: &&mut Hold| hold.epoch == epoch && !hold.releasing && bytes_max > 0;
        let Some(hold) = self.holds.get_mut(&id).filter(live) else {
            return;
        };
        let is_over = match hold.lag.is_over {
            true => bytes > bytes_max / 2,
            false => bytes > bytes_max,
        };
        hold.lag.owed = (is_over != hold.lag.is_over).then_some(is_over);
        hold.lag.is_over = is_over;
        hold.lag.is_told = true;
    }

    pub(crate) fn says_lag(&mut self, id: PartitionId, lags: bool) -> Checked {
        let owed = self.holds.get_mut(&id).and_then(|hold| hold.lag.owed.take());
        Invariant::Lag.check(owed == Some(lags), || {
            format!("{id:?} lags: {lags}, and it is {owed:?}")
        })
    }

    /// A job is parked as a letter. Its lane only waits, and its frontier waits for the lane, while the lag is too large.
    pub(crate) fn parks_letter(&mut self, job: JobId, attempts: u32, park: bool) -> Checked {
        let (id, name) = (self.jobs[&job].partition, self.jobs[&job].lane);
        let hold = &self.holds[&id];
        let right = hold.lag.is_over && !hold.releasing && self.blocks(hold, name, false);
        Invariant::Lag.check(right, || format!("{job:?} is parked because of lag, and need not be"))?;
        Invariant::Lag.check(park, || {
            format!("{job:?} is parked because of lag, and its lane is not")
        })?;
        let counted = self.jobs[&job].counted;
        Invariant::Attempts.check(attempts == counted, || {
            format!("{attempts} attempts are told of a parked job, {counted} were counted")
        })
    }

    /// Whether nothing happens to a lane until some time is over, and a frontier waits for it; where it has to be `certain`, none
    /// of which the core may know more.
    fn blocks(&self, hold: &Hold, name: LaneName, certain: bool) -> bool {
        let Some(lane) = hold.lanes.get(&name) else {
            return false;
        };
        let waits = match lane.state {
            State::Waiting => true,
            State::Idle => {
                let watch = self.watches.get(usize::from(name.0.0));
                let is_clear = !certain || !self.is_hindered(hold, lane);
                is_clear && watch.is_some_and(crate::watch::Watch::is_suspended)
            }
            _ => false,
        };
        let arrived = |job: &JobId| matches!(self.jobs[job].origin, Origin::Arrival(_));
        waits && lane.queue.iter().any(arrived)
    }

    /// The letter of a job that waited is durable.
    pub(crate) fn letter_parked(&mut self, id: PartitionId, handler: HandlerIndex) {
        if let Some(hold) = self.holds.get_mut(&id) {
            hold.lag.handlers.entry(handler).or_default();
        }
    }

    pub(crate) fn recalls(&mut self, id: PartitionId, handler: HandlerIndex, letters_max: usize) -> Checked {
        let share = (RECALLED_MAX / self.limits.handlers.len()).max(1);
        let Some(hold) = self.holds.get_mut(&id).filter(|hold| !hold.releasing) else {
            return Invariant::Lag.violated(format!("letters of {id:?} are asked for, which is not held"));
        };
        let draining = hold.parked.values().filter(|lane| lane.is_draining()).count();
        let Some(letters) = hold.lag.handlers.get_mut(&handler).filter(|letters| !letters.is_asked) else {
            return Invariant::Lag.violated(format!("letters of {handler:?} are asked for in vain, or twice"));
        };
        letters.is_asked = true;
        let at_once = letters_max.saturating_add(letters.recalled + draining);
        Invariant::Lag.check(at_once <= share, || {
            format!(
                "{letters_max} letters are asked for, {} are open and {draining} lanes drain",
                letters.recalled
            )
        })
    }

    fn recalled(&mut self, id: PartitionId, epoch: u64, handler: HandlerIndex, count: usize) {
        let live = |hold: &&mut Hold| hold.epoch == epoch && !hold.releasing;
        let hold = self.holds.get_mut(&id).filter(live);
        if let Some(letters) = hold.and_then(|hold| hold.lag.handlers.get_mut(&handler)) {
            letters.is_asked = false;
            letters.recalled += count;
        }
    }

    /// The replay of a letter that was parked ended.
    pub(crate) fn letter_ended(&mut self, id: PartitionId, parked: Option<ParkedJob>) {
        let Some(parked) = parked else { return };
        let hold = self.holds.get_mut(&id);
        if let Some(letters) = hold.and_then(|hold| hold.lag.handlers.get_mut(&parked.handler)) {
            letters.recalled = letters.recalled.saturating_sub(1);
        }
    }

    pub(crate) fn check_lag(&mut self, id: PartitionId) -> Checked {
        let lag = &mut self.hold(id).lag;
        let owed = lag.owed.take();
        let told = std::mem::take(&mut lag.is_told) && lag.is_over;
        Invariant::Lag.check(owed.is_none(), || format!("{id:?} lags: {owed:?}, and nobody says so"))?;
        let hold = &self.holds[&id];
        let mut left = hold.lanes.keys().filter(|name| told && self.blocks(hold, **name, true));
        let left = left.next();
        Invariant::Lag.check(left.is_none() || hold.releasing, || {
            format!("{left:?} of {id:?} waits, and the lag is too large")
        })
    }
}
