//! What must hold after every step, by name.
//!
//! Which of them are watched is a matter of the thread, so that any of them can be switched off wherever it is asked: a
//! defect that only one of them watches for has to be caught by that one.

use std::cell::Cell;
use std::fmt;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Invariant {
    /// A committed or released position is exactly the frontier: it passes no job that is neither done nor durably
    /// buried, falls behind none that is, and never moves back within an assignment.
    Frontier,
    /// Within a lane jobs start in log order, never two at once; a call takes a prefix of at most `coalesce_max`;
    /// replays and jobs that failed in company run alone.
    LaneOrder,
    /// Effects in the database happen in log order within a lane (replays excepted). That each happens at most once is the
    /// ledger's doing, which the model of the database takes for granted; the real stack proves it.
    Effects,
    /// Attempts are numbered and counted right; outages and snoozes are not counted; nothing is buried too early, too
    /// late or for another's failure; waits keep their limits.
    Attempts,
    /// A handler is suspended when its attempts or jobs say so, and only then; one probe at a time goes through; it is
    /// resumed when enough of them worked, and only then; nothing is buried that may be the victim of an outage.
    Suspension,
    /// What was with an owner that died is marked before it runs; what ran at a death runs alone; nothing is started whose
    /// death nobody would know of; a job is blamed for deaths when it caused enough of them, and only then.
    Blame,
    /// While the head of a lane is in the dead letters, nothing behind it is worked on and all of it is stored; when the
    /// head has ended, what is stored goes on in order before anything that arrived later.
    Parking,
    /// While too much is kept for a partition, its jobs that only wait become letters, and only then and only those; they come
    /// back by themselves, few at a time.
    Lag,
    /// Never more running than allowed, by the group, by a handler, within a second; never a lane left waiting while there is
    /// room, and none overtaken by one that was ready later, but every other time by one with most jobs.
    Room,
    /// Nothing of a partition starts, and nothing is left with the driver, once it is given up; nothing else is
    /// abandoned; a stop ends once. A group ends before a record that must not be passed when all before it is settled, and
    /// only then.
    Release,
    /// A partition whose share is used up is paused, and one that has room again is resumed.
    Window,
    /// A job is forgotten only when it is settled or its partition is given up; no dead letter is lost.
    Letters,
    /// A replay ends once per acceptance, and is healed only when all of its jobs are.
    Replays,
    /// When faults stop, everything ends and everything is committed.
    Liveness,
    /// The core keeps exactly the jobs and partitions that are open, and the driver is told of each that is not.
    Memory,
    /// The core never panics.
    NoPanic,
}

#[derive(Debug, Clone)]
pub(crate) struct Violation {
    pub(crate) invariant: Invariant,
    pub(crate) detail: String,
}

pub(crate) type Checked<T = ()> = Result<T, Violation>;

impl fmt::Display for Violation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?}: {}", self.invariant, self.detail)
    }
}

impl Invariant {
    pub(crate) const ALL: [Self; 16] = [
        Self::Frontier,
        Self::LaneOrder,
        Self::Effects,
        Self::Attempts,
        Self::Suspension,
        Self::Blame,
        Self::Parking,
        Self::Lag,
        Self::Room,
        Self::Release,
        Self::Window,
        Self::Letters,
        Self::Replays,
        Self::Liveness,
        Self::Memory,
        Self::NoPanic,
    ];

    /// It does not hold.
    pub(crate) fn violated(self, detail: impl Into<String>) -> Checked {
        self.check(false, || detail)
    }

    /// Checks `holds`, when it is watched; the detail is built only when it does not.
    pub(crate) fn check<D: Into<String>>(self, holds: bool, detail: impl FnOnce() -> D) -> Checked {
        if holds || !Watched::now().contains(self) {
            return Ok(());
        }
        Err(Violation {
            invariant: self,
            detail: detail().into(),
        })
    }
}

/// The invariants that can be violated; the others are looked away from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Watched(u32);

thread_local! {
    static WATCHED: Cell<Watched> = const { Cell::new(Watched::ALL) };
}

impl Watched {
    pub(crate) const ALL: Self = Self(u32::MAX);
    pub(crate) const NONE: Self = Self(0);

    pub(crate) const fn only(invariant: Invariant) -> Self {
        Self(1 << invariant as u32)
    }

    fn contains(self, invariant: Invariant) -> bool {
        self.0 & Self::only(invariant).0 != 0
    }

    fn now() -> Self {
        WATCHED.get()
    }

    /// Watches these from now on, in this thread.
    pub(crate) fn begin(self) {
        WATCHED.set(self);
    }
}
