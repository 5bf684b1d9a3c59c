//! Suspension: an outage, or a flood of failures for good, told from jobs that are poison. Pure: the time is told.
//!
//! One [`Circuit`] watches the attempts of one handler. While it is suspended nothing of the handler is buried and no attempt
//! is counted; one *probe* at a time goes through, and [`PROBES_TO_RESUME`] of them that worked in a row end it.

use std::collections::VecDeque;
use std::time::Duration;

use crate::engine::core::messages::{JobId, Moment, PartitionId};
use crate::engine::lanes::LaneKey;
use crate::engine::retry::Finish;

/// Probes that have to work in a row before a handler goes on. One alone may be the single event that still works.
pub(crate) const PROBES_TO_RESUME: u32 = 3;

/// Parts of a window; the oldest is forgotten as a whole.
const PARTS: u64 = 10;

/// When a handler is suspended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SuspendPolicy {
    /// Fewer attempts than this within [`SuspendPolicy::attempts_window`] say nothing; 0 switches the rule off.
    pub attempts_min: u32,
    /// Attempts of which half failed and may heal suspend the handler, within this time.
    pub attempts_window: Duration,
    /// So does this long a time in which attempts of several lanes failed and none worked; zero switches the rule off.
    pub silence: Duration,
    /// Fewer jobs than this within [`SuspendPolicy::jobs_window`] say nothing; 0 switches the rule off.
    pub jobs_min: u32,
    /// Jobs of which half failed for good suspend the handler, within this time.
    pub jobs_window: Duration,
}

impl Default for SuspendPolicy {
    fn default() -> Self {
        Self {
            attempts_min: 20,
            attempts_window: Duration::from_secs(30),
            silence: Duration::from_secs(30),
            jobs_min: 100,
            jobs_window: Duration::from_secs(60),
        }
    }
}

/// Why a handler was suspended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// Half of its attempts failed, and may heal.
    Failing,
    /// Nothing worked for a while.
    Silent,
    /// Half of its jobs failed for good.
    Flood,
}

impl Cause {
    /// What people are told.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failing => "half of its attempts fail",
            Self::Silent => "nothing works any more",
            Self::Flood => "half of its jobs fail for good",
        }
    }
}

/// What followed from the end of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    Suspended(Cause),
    Resumed,
    /// The next probe may start at once.
    ProbeNext,
    /// So many probes failed in a row; the next has to wait.
    ProbeFailed(u32),
}

/// What the end of an attempt says about what the handler needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sign {
    /// It is there.
    Works,
    /// It is away, or in trouble.
    Fails,
    /// The other side answered, and refused this job.
    Refuses,
    /// It was not needed.
    Nothing,
}

/// What an end says.
pub(crate) fn sign(finish: Finish) -> Sign {
    match finish {
        Finish::Done => Sign::Works,
        Finish::Skipped | Finish::Snooze(_) | Finish::Expired => Sign::Nothing,
        Finish::Permanent => Sign::Refuses,
        Finish::Transient(_) | Finish::Unreachable | Finish::TimedOut | Finish::Panicked => Sign::Fails,
    }
}

/// The watch over one handler.
#[derive(Debug, Default)]
pub(crate) struct Circuit {
    attempts: Share,
    jobs: Share,
    works: u64,
    failing: Option<Failing>,
    suspended: Option<Suspended>,
}

/// Attempts fail, and none has worked since.
#[derive(Debug)]
struct Failing {
    since: Moment,
    lane: (PartitionId, LaneKey),
    /// More than that lane fails: one lane alone may be one poisonous event, and suspending would only hold up the others.
    several: bool,
}

#[derive(Debug)]
struct Suspended {
    worked: u32,
    failed: u32,
    probe: Probe,
    /// The next probe is the lane that became ready last: a long row of jobs that fail for good must not hide one that works.
    newest_next: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Probe {
    Waiting,
    Due,
    Running(JobId),
}

impl Circuit {
    /// Whether the handler is suspended.
    pub(crate) fn is_suspended(&self) -> bool {
        self.suspended.is_some()
    }

    /// Whether one of its lanes may start as far as suspension is concerned.
    pub(crate) fn lets_through(&self) -> bool {
        self.suspended.as_ref().is_none_or(|state| state.probe == Probe::Due)
    }

    /// Whether the lane that became ready last is the next to start.
    pub(crate) fn wants_newest(&self) -> bool {
        self.suspended.as_ref().is_some_and(|state| state.newest_next)
    }

    /// How many attempts worked so far: a job that failed asks whether others worked since.
    pub(crate) fn works(&self) -> u64 {
        self.works
    }

    /// An attempt starts, with this job at its head.
    pub(crate) fn started(&mut self, head: JobId) {
        if let Some(state) = &mut self.suspended {
            state.probe = Probe::Running(head);
            state.newest_next = !state.newest_next;
        }
    }

    /// The wait for the next probe is over.
    pub(crate) fn probe_due(&mut self) {
        if let Some(state) = self.suspended.as_mut().filter(|state| state.probe == Probe::Waiting) {
            state.probe = Probe::Due;
        }
    }

    /// What ran with this job at its head was abandoned: if it was the probe, another takes its place.
    pub(crate) fn abandoned(&mut self, head: JobId) {
        let probe = Probe::Running(head);
        if let Some(state) = self.suspended.as_mut().filter(|state| state.probe == probe) {
            state.probe = Probe::Due;
        }
    }

    /// An attempt at so many jobs of a lane ended.
    pub(crate) fn ended(
        &mut self,
        policy: &SuspendPolicy,
        at: Moment,
        head: JobId,
        lane: (PartitionId, LaneKey),
        finish: Finish,
        members: usize,
    ) -> Option<Turn> {
        let sign = sign(finish);
        self.works += u64::from(sign == Sign::Works);
        match &mut self.suspended {
            Some(state) if state.probe == Probe::Running(head) => {
                let turn = state.probed(sign);
                if turn == Turn::Resumed {
                    *self = Self {
                        works: self.works,
                        ..Self::default()
                    };
                }
                Some(turn)
            }
            // It started before the handler was suspended, and says nothing that was not known then.
            Some(_) => None,
            None => self.watch(policy, at, lane, sign, members).map(|cause| {
                *self = Self {
                    works: self.works,
                    suspended: Some(Suspended {
                        worked: 0,
                        failed: 0,
                        probe: Probe::Waiting,
                        newest_next: false,
                    }),
                    ..Self::default()
                };
                Turn::Suspended(cause)
            }),
        }
    }

    fn watch(
        &mut self,
        policy: &SuspendPolicy,
        at: Moment,
        lane: (PartitionId, LaneKey),
        sign: Sign,
        members: usize,
    ) -> Option<Cause> {
        match sign {
            Sign::Nothing => return None,
            Sign::Works => self.failing = None,
            Sign::Fails => {
                let failing = self.failing.get_or_insert(Failing {
                    since: at,
                    lane,
                    several: false,
                });
                failing.several |= failing.lane != lane;
            }
            Sign::Refuses => {}
        }
        if policy.attempts_min > 0 {
            self.attempts.add(at, policy.attempts_window, sign == Sign::Fails, 1);
        }
        // Jobs that failed together get their verdicts one by one.
        let verdicts = match sign {
            Sign::Works => members,
            Sign::Refuses if members == 1 => 1,
            _ => 0,
        };
        if policy.jobs_min > 0 && verdicts > 0 {
            self.jobs.add(at, policy.jobs_window, sign == Sign::Refuses, verdicts);
        }
        let silent = |failing: &Failing| failing.several && at.since(failing.since) >= policy.silence;
        match sign {
            Sign::Fails if self.attempts.is_half_bad(policy.attempts_min) => Some(Cause::Failing),
            Sign::Fails if !policy.silence.is_zero() && self.failing.as_ref().is_some_and(silent) => {
                Some(Cause::Silent)
            }
            Sign::Refuses if verdicts > 0 && self.jobs.is_half_bad(policy.jobs_min) => Some(Cause::Flood),
            _ => None,
        }
    }
}

impl Suspended {
    fn probed(&mut self, sign: Sign) -> Turn {
        match sign {
            Sign::Works => {
                self.worked += 1;
                self.failed = 0;
                self.probe = Probe::Due;
                match self.worked {
                    PROBES_TO_RESUME.. => Turn::Resumed,
                    _ => Turn::ProbeNext,
                }
            }
            Sign::Nothing => {
                self.probe = Probe::Due;
                Turn::ProbeNext
            }
            Sign::Fails | Sign::Refuses => {
                self.worked = 0;
                self.failed += 1;
                self.probe = Probe::Waiting;
                Turn::ProbeFailed(self.failed)
            }
        }
    }
}

/// How many of the things that happened within a window were bad. A window is as many parts as [`PARTS`], and the present
/// one counts as far as it has gone.
#[derive(Debug, Default)]
struct Share {
    parts: VecDeque<Part>,
    all: u64,
    bad: u64,
}

#[derive(Debug)]
struct Part {
    number: u64,
    all: u64,
    bad: u64,
}

impl Share {
    fn add(&mut self, at: Moment, window: Duration, is_bad: bool, times: usize) {
        let number = at.part(window);
        while self.parts.front().is_some_and(|part| part.number + PARTS <= number) {
            let old = self.parts.pop_front().expect("it was just seen");
            self.all -= old.all;
            self.bad -= old.bad;
        }
        if self.parts.back().is_none_or(|part| part.number != number) {
            self.parts.push_back(Part { number, all: 0, bad: 0 });
        }
        let part = self.parts.back_mut().expect("it was just put there");
        let (all, bad) = (times as u64, if is_bad { times as u64 } else { 0 });
        part.all += all;
        part.bad += bad;
        self.all += all;
        self.bad += bad;
    }

    fn is_half_bad(&self, min: u32) -> bool {
        min > 0 && self.all >= u64::from(min) && self.bad * 2 >= self.all
    }
}

impl Moment {
    /// The time from an earlier moment to this one.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// This moment so much later.
    pub(crate) fn after(self, time: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
        )
    }

    /// The number of the part of a window in which this moment falls.
    pub fn part(self, window: Duration) -> u64 {
        let micros = u64::try_from(window.as_micros()).unwrap_or(u64::MAX);
        self.0 / (micros / PARTS).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::core::messages::HandlerIndex;

    fn lane(key: u64) -> (PartitionId, LaneKey) {
        let handler = HandlerIndex(0);
        (PartitionId(0), LaneKey { handler, key })
    }

    fn seconds(seconds: u64) -> Moment {
        Moment(seconds * 1_000_000)
    }

    /// Lets attempts end, one every so many milliseconds; answers the first cause and after how many.
    fn suspended_by(ends: impl IntoIterator<Item = (u64, Finish)>, every_ms: u64) -> Option<(Cause, usize)> {
        let mut circuit = Circuit::default();
        for (number, (key, finish)) in ends.into_iter().enumerate() {
            let at = Moment(number as u64 * every_ms * 1_000);
            let turn = circuit.ended(
                &SuspendPolicy::default(),
                at,
                JobId(number as u64),
                lane(key),
                finish,
                1,
            );
            if let Some(Turn::Suspended(cause)) = turn {
                return Some((cause, number + 1));
            }
        }
        None
    }

    const FAILS: Finish = Finish::Transient(None);

    #[test]
    fn half_of_twenty_attempts_within_half_a_minute_suspend() {
        let alternating = (0..100).map(|n| (n, if n % 2 == 0 { Finish::Done } else { FAILS }));
        assert_eq!(suspended_by(alternating.clone(), 100), Some((Cause::Failing, 20)));
        assert_eq!(
            suspended_by(alternating, 2_000),
            None,
            "fewer than twenty in half a minute"
        );
        let one_in_three = (0..1_000).map(|n| (n, if n % 3 == 0 { FAILS } else { Finish::Done }));
        assert_eq!(suspended_by(one_in_three, 100), None);
    }

    #[test]
    fn silence_of_several_lanes_suspends_and_that_of_one_does_not() {
        let two = (0..20).map(|n| (n % 2, FAILS));
        assert_eq!(suspended_by(two, 5_000), Some((Cause::Silent, 7)));
        assert_eq!(suspended_by((0..200).map(|_| (7, FAILS)), 5_000), None);
        let with_success = (0..200).map(|n| (n % 3, if n % 5 == 0 { Finish::Done } else { FAILS }));
        assert_eq!(suspended_by(with_success, 5_000), None);
    }

    #[test]
    fn half_of_a_hundred_jobs_that_fail_for_good_suspend() {
        let flood = (0..1_000).map(|n| (n, if n % 2 == 1 { Finish::Permanent } else { Finish::Done }));
        assert_eq!(suspended_by(flood, 10), Some((Cause::Flood, 100)));
        let one_in_hundred = (0..10_000).map(|n| (n, if n % 100 == 1 { Finish::Permanent } else { Finish::Done }));
        assert_eq!(suspended_by(one_in_hundred, 10), None);
    }

    #[test]
    fn three_probes_that_work_in_a_row_end_it() {
        let mut circuit = Circuit::default();
        let policy = SuspendPolicy {
            attempts_min: 1,
            ..SuspendPolicy::default()
        };
        let end = |circuit: &mut Circuit, number, finish| {
            circuit.ended(&policy, seconds(number), JobId(number), lane(number), finish, 1)
        };
        assert_eq!(end(&mut circuit, 0, FAILS), Some(Turn::Suspended(Cause::Failing)));
        assert!(!circuit.lets_through());
        circuit.probe_due();
        let mut number = 0;
        let mut probe = |circuit: &mut Circuit, finish| {
            assert!(circuit.lets_through());
            number += 1;
            circuit.started(JobId(number));
            assert!(!circuit.lets_through(), "one probe at a time");
            end(circuit, number, finish)
        };
        assert_eq!(probe(&mut circuit, Finish::Done), Some(Turn::ProbeNext));
        assert_eq!(probe(&mut circuit, Finish::Skipped), Some(Turn::ProbeNext));
        assert_eq!(probe(&mut circuit, Finish::Done), Some(Turn::ProbeNext));
        assert_eq!(probe(&mut circuit, Finish::Permanent), Some(Turn::ProbeFailed(1)));
        assert!(!circuit.lets_through());
        circuit.probe_due();
        for _ in 1..PROBES_TO_RESUME {
            assert_eq!(probe(&mut circuit, Finish::Done), Some(Turn::ProbeNext));
        }
        assert_eq!(probe(&mut circuit, Finish::Done), Some(Turn::Resumed));
        assert!(circuit.lets_through() && !circuit.is_suspended());
    }
}
