//! What happened, readable: how each event ended, call by call what the handler did, and what is in the database afterwards.
//!
//! A [`Report`] prints as lines, so that a failing assertion tells the whole story:
//!
//! ```no_run
//! # use afterwrite::testkit::report::{Ended, Report};
//! # let report: Report = unimplemented!();
//! assert_eq!(report.ended(), &Ended::Done, "{report}");
//! assert_eq!((report.attempts(), report.letters().len()), (3, 0), "{report}");
//! ```
//!
//! ```text
//! done
//!   attempt 1: failed and may succeed later: the test wants a failure
//!   attempt 2: done [called, claimed receipt:1, accepted receipt:1, opened, returned]
//!   ledger: done
//!   effect receipt:1: sent, 1 calls
//! ```

use std::fmt;
use std::time::Duration;

use crate::event::id::EventId;
use crate::handler::points::Point;
use crate::handler::{Fault, HandlerError, Outcome};

/// How an event ended in a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The handler does not want it, or no route leads to it: it was never called.
    Unwanted,
    /// It is done.
    Done,
    /// The handler had nothing to do, for this reason.
    Skipped(&'static str),
    /// The ledger had it before this delivery, in this state (`done`, `buried`, …), and nothing was done for it.
    Before(String),
    /// It is in the dead letters, by class: `permanent`, `exhausted`, `timeout`, `panic`, `crashed`, `expired`.
    Buried(String),
    /// It waits behind a dead letter of its lane (`on_bury = "park"`).
    Parked,
}

impl fmt::Display for Ended {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unwanted => out.write_str("not wanted"),
            Self::Done => out.write_str("done"),
            Self::Skipped(reason) => write!(out, "skipped: {reason}"),
            Self::Before(state) => write!(out, "{state} before"),
            Self::Buried(class) => write!(out, "buried as {class}"),
            Self::Parked => out.write_str("parked"),
        }
    }
}

/// One call of the handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Which attempt it was, from 1.
    pub attempt: u32,
    /// Whether a dead letter was replayed.
    pub replayed: bool,
    /// The events it was called for.
    pub events: Vec<Option<EventId>>,
    /// The points that it reached, in order.
    pub points: Vec<Point>,
    /// How it ended; `None` while it runs.
    pub ended: Option<CallEnd>,
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallEnd {
    /// `Ok(Outcome::Done)`.
    Done,
    /// `Ok(Outcome::Done)`, and `once()` had said that nothing was left to do.
    FoundDone,
    /// `Ok(Outcome::Skipped(…))`.
    Skipped(&'static str),
    /// `Ok(Outcome::Snooze(…))`.
    Snoozed(Duration),
    /// `Ok(…)`, and its transaction could not be committed.
    NotCommitted,
    /// An error.
    Failed {
        /// What follows from it.
        fault: Fault,
        /// Its causes in one line.
        error: String,
    },
    /// It panicked.
    Panicked,
    /// It was cut off when its time was over.
    TimedOut,
    /// The process died meanwhile.
    Died,
}

impl CallEnd {
    pub(super) fn of(ended: &Result<Outcome, HandlerError>, found_all_done: bool) -> Self {
        match ended {
            Ok(Outcome::Done) if found_all_done => Self::FoundDone,
            Ok(Outcome::Done) => Self::Done,
            Ok(Outcome::Skipped(reason)) => Self::Skipped(reason),
            Ok(Outcome::Snooze(delay)) => Self::Snoozed(*delay),
            Err(error) => Self::Failed {
                fault: error.fault.clone(),
                error: error.chain(),
            },
        }
    }

    fn is_ok(&self) -> bool {
        matches!(self, Self::Done | Self::FoundDone | Self::Skipped(_))
    }
}

impl fmt::Display for CallEnd {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => out.write_str("done"),
            Self::FoundDone => out.write_str("found it done"),
            Self::Skipped(reason) => write!(out, "skipped: {reason}"),
            Self::Snoozed(delay) => write!(out, "later, after {delay:?}"),
            Self::NotCommitted => out.write_str("well, and not committed"),
            Self::Failed { fault, error } => match fault {
                Fault::Transient { after: None } => write!(out, "failed and may succeed later: {error}"),
                Fault::Transient { after: Some(after) } => write!(out, "failed, again after {after:?}: {error}"),
                Fault::Permanent => write!(out, "failed for good: {error}"),
                Fault::Expired => write!(out, "too old: {error}"),
                Fault::Unreachable { what } => write!(out, "{what} did not answer: {error}"),
            },
            Self::Panicked => out.write_str("panicked"),
            Self::TimedOut => out.write_str("ran out of time"),
            Self::Died => out.write_str("the process died"),
        }
    }
}

/// A dead letter of the handler.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct LetterSeen {
    /// Why: `permanent`, `exhausted`, `timeout`, `panic`, `crashed`, `expired`.
    pub class: String,
    /// `open`, `parked`, `replaying`, `replayed` or `discarded`.
    pub state: String,
    /// Attempts that were made.
    pub attempts: i32,
    /// The last error, as an operator reads it.
    pub error: String,
    /// The event as hex.
    pub event_id: Option<String>,
}

/// An effect of the handler.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct EffectSeen {
    /// Its key.
    pub effect_key: String,
    /// `sending`, `sent`, `skipped`, `failed` or `reopened`.
    pub state: String,
    /// How often it was claimed to be called.
    pub calls: i32,
}

/// What happened to events that were delivered together.
#[derive(Debug, Clone)]
pub struct Report {
    pub(super) ended: Vec<Ended>,
    pub(super) calls: Vec<Call>,
    pub(super) letters: Vec<LetterSeen>,
    pub(super) ledger: Vec<String>,
    pub(super) effects: Vec<EffectSeen>,
}

impl Report {
    /// How the event ended.
    ///
    /// # Panics
    /// When several were delivered together.
    pub fn ended(&self) -> &Ended {
        match self.ended.as_slice() {
            [only] => only,
            many => panic!("{} events were delivered: ask all_ended()\n{self}", many.len()),
        }
    }

    /// How each of the events ended, in the order in which they were delivered.
    pub fn all_ended(&self) -> &[Ended] {
        &self.ended
    }

    /// The calls of the handler during this delivery, over all lives of the process.
    pub fn calls(&self) -> &[Call] {
        &self.calls
    }

    /// How many calls there were.
    pub fn attempts(&self) -> usize {
        self.calls.len()
    }

    /// The points that its last call reached.
    pub fn points(&self) -> &[Point] {
        self.calls.last().map_or(&[], |call| &call.points)
    }

    /// All dead letters of the handler, oldest first.
    pub fn letters(&self) -> &[LetterSeen] {
        &self.letters
    }

    /// What the ledger says of the events that were delivered: `done`, `buried`, `discarded`, `redo`, or nothing for an event
    /// that has no row.
    pub fn ledger(&self) -> &[String] {
        &self.ledger
    }

    /// All effects of the handler, by key.
    pub fn effects(&self) -> &[EffectSeen] {
        &self.effects
    }

    /// A call that went well and was followed by another one for the same event was not committed.
    pub(super) fn correct(calls: &mut [Call]) {
        for index in 0..calls.len() {
            let (before, behind) = calls.split_at_mut(index + 1);
            let Some(call) = before.last_mut() else { continue };
            let is_again = behind
                .iter()
                .any(|later| later.events.iter().any(|event| call.events.contains(event)));
            if is_again && call.ended.as_ref().is_some_and(CallEnd::is_ok) {
                call.ended = Some(CallEnd::NotCommitted);
            }
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ended: Vec<String> = self.ended.iter().map(ToString::to_string).collect();
        writeln!(out, "{}", ended.join(", "))?;
        for call in &self.calls {
            let replayed = if call.replayed { " of a replay" } else { "" };
            let points: Vec<String> = call.points.iter().map(ToString::to_string).collect();
            write!(out, "  attempt {}{replayed}: ", call.attempt)?;
            match &call.ended {
                Some(end) => write!(out, "{end}")?,
                None => out.write_str("running")?,
            }
            writeln!(out, " [{}]", points.join(", "))?;
        }
        if !self.ledger.is_empty() {
            writeln!(out, "  ledger: {}", self.ledger.join(", "))?;
        }
        for letter in &self.letters {
            let LetterSeen {
                class,
                state,
                attempts,
                error,
                ..
            } = letter;
            writeln!(out, "  letter {class}: {state}, {attempts} attempts, {error}")?;
        }
        for EffectSeen {
            effect_key,
            state,
            calls,
        } in &self.effects
        {
            writeln!(out, "  effect {effect_key}: {state}, {calls} calls")?;
        }
        Ok(())
    }
}
