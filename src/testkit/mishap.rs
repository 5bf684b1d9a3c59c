//! What goes wrong in a test, and where: one [`Mishap`] for each attempt, in order.
//!
//! ```
//! use std::time::Duration;
//!
//! use afterwrite::handler::points::Point;
//! use afterwrite::testkit::mishap::Mishap;
//!
//! // The first two attempts fail, in the third the process dies between a call and its settling; the fourth is left alone.
//! let script = [
//!     Mishap::transient(),
//!     Mishap::retry_after(Duration::from_secs(7)),
//!     Mishap::die().at(Point::accepted("receipt:1")),
//!     Mishap::none(),
//! ];
//! # assert_eq!(script.len(), 4);
//! ```

use std::time::Duration;

use crate::handler::HandlerError;
use crate::handler::points::Point;

/// What happens to one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mishap {
    at: At,
    pub(super) what: What,
}

/// Where it happens.
#[derive(Debug, Clone, PartialEq, Eq)]
enum At {
    Point(Point),
    Step(usize),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    Nothing,
    Transient,
    RetryAfter(Duration),
    Permanent,
    Unreachable,
    TimeOut,
    Panic,
    Death,
    LostDatabase,
}

/// The error of a scripted failure.
#[derive(Debug, thiserror::Error)]
#[error("the test wants a failure")]
pub struct Wanted;

impl Mishap {
    fn of(what: What) -> Self {
        Self {
            at: At::Point(Point::Called),
            what,
        }
    }

    /// Nothing happens: keeps the place of an attempt that is left alone.
    pub fn none() -> Self {
        Self::of(What::Nothing)
    }

    /// The attempt fails, and may succeed later: counted.
    pub fn transient() -> Self {
        Self::of(What::Transient)
    }

    /// The same, with the other side's own delay. The kit shortens every wait; the report has the delay that was asked for.
    pub fn retry_after(delay: Duration) -> Self {
        Self::of(What::RetryAfter(delay))
    }

    /// The attempt fails for good.
    pub fn permanent() -> Self {
        Self::of(What::Permanent)
    }

    /// Something every job needs does not answer: no attempt is counted.
    pub fn unreachable() -> Self {
        Self::of(What::Unreachable)
    }

    /// The attempt hangs until its time is over.
    pub fn time_out() -> Self {
        Self::of(What::TimeOut)
    }

    /// The attempt panics.
    pub fn panic() -> Self {
        Self::of(What::Panic)
    }

    /// The process dies: nothing that was not committed survives, no destructor of the handler's is relied on, and a new process
    /// takes over. Leases of the dead end at once.
    pub fn die() -> Self {
        Self::of(What::Death)
    }

    /// Postgres ends the sessions of the handlers in the middle of their transactions, as a failover does. At [`Point::Opened`] the
    /// handler's next statement fails, at [`Point::Returned`] the commit.
    pub fn lose_database() -> Self {
        Self {
            at: At::Point(Point::Opened),
            what: What::LostDatabase,
        }
    }

    /// It happens at this point instead of at the beginning; not at all when the attempt does not reach it.
    #[must_use]
    pub fn at(mut self, point: Point) -> Self {
        self.at = At::Point(point);
        self
    }

    /// It happens at the point that the attempt reaches as its `step`th, from 0: for a test that tries all of them, whatever their
    /// effects are called.
    #[must_use]
    pub fn at_step(mut self, step: usize) -> Self {
        self.at = At::Step(step);
        self
    }

    pub(super) fn is_due(&self, step: usize, point: &Point) -> bool {
        match &self.at {
            At::Point(at) => at == point,
            At::Step(at) => *at == step,
        }
    }

    /// The error that it is, where it is one.
    pub(super) fn error(&self) -> Option<HandlerError> {
        match self.what {
            What::Transient => Some(HandlerError::transient(Wanted)),
            What::RetryAfter(delay) => Some(HandlerError::retry_after(delay, Wanted)),
            What::Permanent => Some(HandlerError::permanent(Wanted)),
            What::Unreachable => Some(HandlerError::unreachable("what the test names", Wanted)),
            What::Nothing | What::TimeOut | What::Panic | What::Death | What::LostDatabase => None,
        }
    }
}
