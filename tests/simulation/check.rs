//! The state of a core is judged by its shadow when a step is over.

use afterwrite::engine::core::Core;
use afterwrite::engine::core::messages::{HandlerIndex, PartitionId};

use crate::invariant::{Checked, Invariant};
use crate::parked::Aside;
use crate::shadow::{Hold, Lane, Origin, Shadow, State};

impl Shadow {
    pub(crate) fn check(&mut self, core: &Core) -> Checked {
        let memory = Invariant::Memory;
        memory.check(self.refused.is_empty(), || {
            format!("{:?} were refused and not forgotten", self.refused)
        })?;
        memory.check(self.settled.is_empty(), || {
            format!("{:?} are settled and not forgotten", self.settled)
        })?;
        let (known, open) = (core.jobs_open(), self.jobs.len());
        memory.check(known == open, || format!("{known} jobs are kept, {open} are open"))?;
        let (known, held) = (core.partitions_owned(), self.holds.len());
        memory.check(known == held, || {
            format!("{known} partitions are kept, {held} are held")
        })?;
        let (told, running) = (core.attempts_running(), self.running);
        Invariant::Room.check(told == running, || format!("{told} calls are counted, {running} run"))?;
        let ended = self.replays.iter().find(|(_, replay)| replay.open == 0);
        Invariant::Replays.check(ended.is_none(), || "a replay without open jobs did not end")?;
        let away = self.turned_away;
        Invariant::Release.check(away.is_none(), || {
            format!("{away:?} was assigned during the stop and is kept")
        })?;
        let drained = !self.stopping || !self.holds.is_empty() || self.drained;
        Invariant::Release.check(drained, || "nothing is held any more, but the stop did not end")?;
        self.check_words(core)?;
        self.note_unreserved();
        for id in self.holds.keys().copied().collect::<Vec<_>>() {
            self.check_lag(id)?;
        }
        let commit_due = std::mem::take(&mut self.commit_due);
        for (id, hold) in &self.holds {
            self.check_lanes(*id, hold)?;
            self.check_parked(*id, hold)?;
            let unreserved =
                hold.newest.is_some() && hold.reserved_to <= hold.newest && self.limits.crash_deaths_max > 0;
            Invariant::Blame.check(!unreserved || hold.reserving || hold.releasing, || {
                format!("{id:?} waits for a reservation that nobody makes")
            })?;
            self.check_window(*id, hold)?;
            let halts = hold.halt.is_some() && hold.arrivals.is_empty() && !hold.releasing;
            Invariant::Release.check(!halts, || format!("{id:?} goes no further, and its group does not end"))?;
            let committed = !commit_due || hold.committed == hold.frontier();
            Invariant::Frontier.check(committed, || format!("{id:?} was not committed when it was time"))?;
        }
        Ok(())
    }

    fn note_unreserved(&mut self) {
        let jobs = &self.jobs;
        for hold in self.holds.values_mut() {
            let reserved_to = hold.reserved_to;
            for lane in hold.lanes.values_mut().filter(|lane| lane.state == State::Idle) {
                let head = lane.queue.front().map(|head| jobs[head].position);
                lane.was_unreserved |= head.is_some_and(|head| reserved_to.is_none_or(|to| head >= to));
            }
        }
    }

    fn check_words(&self, core: &Core) -> Checked {
        for (index, watch) in self.watches.iter().enumerate() {
            let kept = watch.owed.is_empty();
            Invariant::Suspension.check(kept, || format!("handler {index}: {:?} is not said", watch.owed))?;
            let handler = HandlerIndex(u16::try_from(index).expect("there are few handlers"));
            let told = core.is_suspended(handler) == watch.is_suspended();
            Invariant::Suspension.check(told, || format!("handler {index} is suspended for one side only"))?;
        }
        Ok(())
    }

    /// Whether nothing that is known of deaths keeps the head of a lane from starting.
    fn is_clear(&self, hold: &Hold, lane: &Lane) -> bool {
        let head = &self.jobs[lane.queue.front().expect("a lane has jobs")];
        let deaths = hold.inherited.deaths.get(&(head.position, head.lane.0));
        let is_replay = !matches!(head.origin, Origin::Arrival(_));
        let reserved = is_replay || hold.reserved_to.is_some_and(|to| head.position < to);
        self.limits.crash_deaths_max == 0 || reserved && (deaths.is_none() || self.alone.is_none())
    }

    /// Whether a lane of the handler may wait although there is room. One that waits for its rate has a wait under way.
    fn is_held_back(&self, handler: HandlerIndex) -> bool {
        let index = usize::from(handler.0);
        let Some((watch, limits)) = self.watches.get(index).zip(self.limits.handlers.get(index)) else {
            return false;
        };
        let paced = watch.is_too_early(limits, self.now) && watch.paced;
        !watch.lets_through() || watch.running >= limits.running_max || paced
    }

    fn check_lanes(&self, id: PartitionId, hold: &Hold) -> Checked {
        let room = self.running < self.limits.running_max;
        let mut with_driver = hold.aside.values().any(|aside| *aside == Aside::Storing);
        for (name, lane) in &hold.lanes {
            match lane.state {
                State::Running(_) | State::Burying => with_driver = true,
                State::Failed | State::MustBury | State::BuryFailed => {
                    Invariant::Letters.violated(format!("nothing followed for {name:?}: {:?}", lane.state))?;
                }
                State::Idle if room && !hold.releasing && !self.is_held_back(name.0) && self.is_clear(hold, lane) => {
                    Invariant::Room.violated(format!("there is room, but {name:?} of {id:?} is left waiting"))?;
                }
                State::Idle | State::Waiting | State::BuryWaiting | State::GivenUp => {}
            }
        }
        let over = hold.expired || hold.releasing && !with_driver;
        Invariant::Release.check(!over, || format!("{id:?} is given up, but not released"))
    }

    fn check_window(&self, id: PartitionId, hold: &Hold) -> Checked {
        let owned = self.holds.len();
        let events_max = (self.limits.buffered_events_max / owned).max(1);
        let bytes_max = (self.limits.buffered_bytes_max / owned).max(1);
        let (span, bytes) = (hold.arrivals.len(), hold.bytes());
        let told = || {
            format!(
                "{id:?}: {span} of {events_max} records, {bytes} of {bytes_max} bytes, {}",
                hold.paused
            )
        };
        let full = span >= events_max || bytes >= bytes_max;
        Invariant::Window.check(hold.paused || !full || hold.releasing, told)?;
        let room = span <= events_max / 2 && bytes <= bytes_max / 2;
        Invariant::Window.check(!hold.paused || !room || hold.releasing, told)
    }
}
