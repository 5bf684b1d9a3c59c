//! Retry verdicts: what follows from the end of an attempt. A pure function; waits are ceilings, the driver draws the
//! jitter.

use std::time::Duration;

/// Limits of retrying, per handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Attempts before a dead letter of class `exhausted`, `timeout` or `panic`.
    pub attempts_max: u32,
    /// Ceiling of the first wait.
    pub first_wait: Duration,
    /// Each further ceiling is this many times the one before.
    pub factor: u32,
    /// No ceiling is above this.
    pub wait_max: Duration,
    /// No single wait that a handler asks for (snooze, `Retry-After`) is longer than this.
    pub asked_wait_max: Duration,
    /// Ceiling of waits for something unreachable, for the next probe, and for a dead letter that could not be written.
    pub outage_wait_max: Duration,
    /// A job that no other lane of its handler outdid is tried for so long before its attempts are counted against it.
    pub exhausted_alone_after: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            attempts_max: 5,
            first_wait: Duration::from_secs(1),
            factor: 2,
            wait_max: Duration::from_secs(300),
            asked_wait_max: Duration::from_secs(300),
            outage_wait_max: Duration::from_secs(30),
            exhausted_alone_after: Duration::from_secs(3_600),
        }
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// Worked.
    Done,
    /// Nothing had to be done.
    Skipped,
    /// The handler wants to be called later; no attempt is counted.
    Snooze(Duration),
    /// Failed, may heal; not before this delay where the other side asked for one.
    Transient(Option<Duration>),
    /// Failed for good.
    Permanent,
    /// Was not run: the event is older than what the ledger remembers. No attempt is counted.
    Expired,
    /// Something every job needs does not answer; no attempt is counted.
    Unreachable,
    /// The time-out ran out.
    TimedOut,
    /// The handler panicked.
    Panicked,
}

impl Finish {
    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Skipped => "skipped",
            Self::Snooze(_) => "snoozed",
            Self::Transient(_) => "transient",
            Self::Permanent => "permanent",
            Self::Expired => "expired",
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timed_out",
            Self::Panicked => "panicked",
        }
    }
}

/// Why a dead letter was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// The bytes can never decode.
    Undecodable,
    /// The handler said so.
    Permanent,
    /// All attempts failed.
    Exhausted,
    /// All attempts failed, the last by its time-out.
    Timeout,
    /// All attempts failed, the last by a panic.
    Panic,
    /// Processes died while it ran.
    Crashed,
    /// It is older than what the ledger remembers, so whether it was done is not known.
    Expired,
    /// It waited while too much was kept for its partition. It is not dead: its owner releases it by itself.
    Parked,
}

impl Class {
    /// The word in headers, tables and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Undecodable => "undecodable",
            Self::Permanent => "permanent",
            Self::Exhausted => "exhausted",
            Self::Timeout => "timeout",
            Self::Panic => "panic",
            Self::Crashed => "crashed",
            Self::Expired => "expired",
            Self::Parked => "parked",
        }
    }
}

/// How long to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Somewhere between nothing and this ceiling, drawn by the driver.
    Jittered(Duration),
    /// Exactly this, because the handler or the other side asked for it.
    Exact(Duration),
}

/// What follows from the end of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The job is finished.
    Settle,
    /// The job is tried again after this.
    Again(Wait),
    /// The job goes to the dead letters.
    Bury(Class),
}

/// Whether this end counts as an attempt.
pub(crate) fn counts(finish: Finish) -> bool {
    match finish {
        Finish::Done | Finish::Skipped | Finish::Snooze(_) | Finish::Unreachable | Finish::Expired => false,
        Finish::Transient(_) | Finish::Permanent | Finish::TimedOut | Finish::Panicked => true,
    }
}

/// The verdict on an attempt that ended with `finish`.
///
/// `attempts` includes this one if it counts; `outages` is how many attempts in a row met something unreachable.
pub(crate) fn verdict(policy: &Policy, finish: Finish, attempts: u32, outages: u32) -> Verdict {
    let class = match finish {
        Finish::Done | Finish::Skipped => return Verdict::Settle,
        Finish::Snooze(delay) => return Verdict::Again(Wait::Exact(delay.min(policy.asked_wait_max))),
        Finish::Unreachable => return Verdict::Again(outage_wait(policy, outages)),
        Finish::Permanent => return Verdict::Bury(Class::Permanent),
        Finish::Expired => return Verdict::Bury(Class::Expired),
        Finish::Transient(_) => Class::Exhausted,
        Finish::TimedOut => Class::Timeout,
        Finish::Panicked => Class::Panic,
    };
    if attempts >= policy.attempts_max {
        return Verdict::Bury(class);
    }
    match finish {
        Finish::Transient(Some(asked)) => Verdict::Again(Wait::Exact(asked.min(policy.asked_wait_max))),
        _ => Verdict::Again(Wait::Jittered(ceiling(policy, attempts).min(policy.wait_max))),
    }
}

/// The wait after the n-th failure in a row to reach something every job needs.
pub(crate) fn outage_wait(policy: &Policy, outages: u32) -> Wait {
    Wait::Jittered(ceiling(policy, outages).min(policy.outage_wait_max))
}

/// The wait of a job whose attempts are used up, but may not be its own fault.
pub(crate) fn spared_wait(policy: &Policy, attempts: u32) -> Wait {
    Wait::Jittered(ceiling(policy, attempts).min(policy.wait_max))
}

fn ceiling(policy: &Policy, failures: u32) -> Duration {
    let factor = policy.factor.saturating_pow(failures.saturating_sub(1));
    policy.first_wait.saturating_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(finish: Finish, attempts: u32, expected: Verdict) {
        assert_eq!(verdict(&Policy::default(), finish, attempts, 1), expected);
    }

    #[test]
    fn verdicts_follow_from_the_finish_and_the_attempts() {
        let seconds = Duration::from_secs;
        check(Finish::Done, 1, Verdict::Settle);
        check(Finish::Skipped, 1, Verdict::Settle);
        check(Finish::Transient(None), 1, Verdict::Again(Wait::Jittered(seconds(1))));
        check(Finish::Transient(None), 4, Verdict::Again(Wait::Jittered(seconds(8))));
        check(Finish::Transient(None), 5, Verdict::Bury(Class::Exhausted));
        check(Finish::TimedOut, 5, Verdict::Bury(Class::Timeout));
        check(Finish::Panicked, 5, Verdict::Bury(Class::Panic));
        check(Finish::Permanent, 1, Verdict::Bury(Class::Permanent));
        check(Finish::Expired, 0, Verdict::Bury(Class::Expired));
        check(
            Finish::Transient(Some(seconds(7))),
            1,
            Verdict::Again(Wait::Exact(seconds(7))),
        );
        check(
            Finish::Transient(Some(seconds(9_000))),
            1,
            Verdict::Again(Wait::Exact(seconds(300))),
        );
        check(
            Finish::Snooze(seconds(9_000)),
            0,
            Verdict::Again(Wait::Exact(seconds(300))),
        );
    }

    #[test]
    fn an_outage_never_buries_and_waits_at_most_its_cap() {
        for outages in [1, 5, 40, u32::MAX] {
            let Verdict::Again(Wait::Jittered(ceiling)) = verdict(&Policy::default(), Finish::Unreachable, 0, outages)
            else {
                panic!("an outage must lead to a wait");
            };
            assert!(ceiling <= Duration::from_secs(30));
        }
    }
}
