//! Which lane may start before others that are ready, worked out from when each became ready and with how many jobs.

use afterwrite::engine::core::messages::HandlerIndex;

use crate::hold::{Hold, Lane, State};
use crate::invariant::{Checked, Invariant};
use crate::shadow::Shadow;

impl Shadow {
    /// Whether it is this lane's turn, and whether it passes over one that was ready earlier. Only a lane with about as many
    /// jobs as any other may do that, and never twice in a row for one handler.
    pub(crate) fn takes_its_turn(&self, hold: &Hold, handler: HandlerIndex, lane: &Lane) -> Checked<bool> {
        let own = &self.watches[usize::from(handler.0)];
        if own.is_suspended() || self.is_hindered(hold, lane) {
            return Ok(false);
        }
        let holds = self.holds.values().filter(|other| !other.releasing);
        let lanes = holds.flat_map(|hold| hold.lanes.iter().map(move |((name, _), lane)| (hold, *name, lane)));
        let ready: Vec<_> = lanes.filter(|(_, _, lane)| lane.state == State::Idle).collect();
        let of_handler = ready.iter().filter(|(_, name, _)| *name == handler);
        let oldest = of_handler.clone().map(|(_, _, lane)| lane.ready_at).min();
        let overtakes_handler = ready.iter().any(|(hold, name, other)| {
            let waits = *name != handler && !self.holds_back(*name) && !self.is_hindered(hold, other);
            waits && Some(other.ready_at) < oldest
        });
        Invariant::Room.check(
            !overtakes_handler,
            || "a lane starts before one of another handler that was ready earlier than all of its own",
        )?;
        let others = of_handler.filter(|(hold, _, other)| !self.is_hindered(hold, other));
        if others.clone().all(|(_, _, other)| other.ready_at >= lane.ready_at) {
            return Ok(false);
        }
        Invariant::Room.check(
            !own.passed_over,
            || "the lane that was ready first is passed over for the second time in a row",
        )?;
        let most = others.map(|(_, _, other)| other.ready_with).max().unwrap_or(0);
        Invariant::Room.check(
            level(lane.ready_with) >= level(most),
            || "a lane starts before one that was ready earlier, and another one has twice as many jobs",
        )?;
        Ok(true)
    }
}

/// Lanes with twice as many jobs are one higher.
fn level(jobs: usize) -> u32 {
    usize::BITS - jobs.leading_zeros()
}
