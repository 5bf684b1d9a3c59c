//! What passed through a group in this process, counted for logs and for `run`'s last line.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::engine::retry::{Class, Finish};
use crate::event::delivery::SkipReason;
use crate::tally::durations::Durations;

/// Counts since the process started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records that arrived.
    pub delivered: u64,
    /// Records that woke nobody, by reason.
    pub skipped: BTreeMap<&'static str, u64>,
    /// Attempts that ended well; one may have taken several events of its lane.
    pub done: u64,
    /// Attempts that failed; another followed, or a dead letter.
    pub failed: u64,
    /// Dead letters that became durable.
    pub buried: u64,
    /// Dead letters that came back.
    pub replayed: u64,
    /// Jobs that were parked as letters because of lag.
    pub parked: u64,
    /// Dead letters that became durable, by class.
    pub letters: BTreeMap<&'static str, u64>,
    /// What passed through each handler, in the router's order; those behind the last that was woken are left out.
    pub handlers: Vec<HandlerCounts>,
}

/// What passed through one handler.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HandlerCounts {
    /// Attempts that ended, by how.
    pub attempts: BTreeMap<&'static str, u64>,
    /// How long attempts took that ended by themselves or by their time-out.
    pub durations: Durations,
    /// From the commit of a change in the source's database to the end of the attempt that did it; the oldest of each attempt.
    /// Replays are not in it.
    pub ages: Durations,
}

impl Counts {
    /// Counts an attempt that ended, also where its job is not ours any more.
    pub(crate) fn attempt(&mut self, finish: Finish) {
        match finish {
            Finish::Done | Finish::Skipped => self.done += 1,
            Finish::Snooze(_) => {}
            Finish::Transient(_)
            | Finish::Permanent
            | Finish::Expired
            | Finish::Unreachable
            | Finish::TimedOut
            | Finish::Panicked => self.failed += 1,
        }
    }

    /// Counts it for its handler, with how long it took where that is known.
    pub(crate) fn attempt_of(&mut self, handler: usize, finish: Finish, took: Option<Duration>) {
        let counts = self.handler(handler);
        *counts.attempts.entry(finish.as_str()).or_default() += 1;
        if let Some(took) = took {
            counts.durations.observe(took);
        }
    }

    /// Counts how old a change was when it was done.
    pub(crate) fn age(&mut self, handler: usize, age: Duration) {
        self.handler(handler).ages.observe(age);
    }

    /// Counts a letter that became durable.
    pub(crate) fn letter(&mut self, class: Class) {
        self.buried += 1;
        *self.letters.entry(class.as_str()).or_default() += 1;
    }

    fn handler(&mut self, handler: usize) -> &mut HandlerCounts {
        if self.handlers.len() <= handler {
            self.handlers.resize_with(handler + 1, HandlerCounts::default);
        }
        &mut self.handlers[handler]
    }

    /// Counts a record that woke nobody.
    pub fn skip(&mut self, reason: SkipReason) {
        *self.skipped.entry(reason.as_str()).or_default() += 1;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{} delivered, {} done, {} attempts failed, {} buried",
            self.delivered, self.done, self.failed, self.buried
        )?;
        if self.replayed > 0 {
            write!(out, ", {} replayed", self.replayed)?;
        }
        if self.parked > 0 {
            write!(out, ", {} parked", self.parked)?;
        }
        for (reason, count) in &self.skipped {
            write!(out, ", {count} skipped as {reason}")?;
        }
        Ok(())
    }
}
