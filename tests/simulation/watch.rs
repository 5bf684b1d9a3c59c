//! What must be true of suspension and of a handler's own limits, worked out from every end of an attempt there ever was.

use std::time::Duration;

use afterwrite::engine::core::messages::{HandlerIndex, HandlerLimits, JobId, Moment, PartitionId};
use afterwrite::engine::retry::{Finish, Wait};
use afterwrite::engine::suspend::{Cause, SuspendPolicy};

use crate::invariant::{Checked, Invariant};
use crate::shadow::Shadow;

/// Probes that have to work in a row.
const PROBES: u32 = 3;

/// A window has ten parts; the oldest is forgotten as a whole.
const PARTS: u64 = 10;

/// What the core has to say within the step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    Suspended(Cause),
    Resumed,
    ProbeAfter,
}

pub(crate) struct Watch {
    /// Of attempts while nothing was suspended: when, and whether it failed in a way that may heal.
    attempts: Vec<(Moment, bool)>,
    /// Of jobs: when, and whether it failed for good.
    jobs: Vec<(Moment, bool)>,
    pub(crate) works: u64,
    failing: Option<(Moment, PartitionId, u64, bool)>,
    suspended: Option<Probe>,
    worked: u32,
    pub(crate) running: usize,
    pub(crate) last_start: Option<Moment>,
    /// The last lane that started was not the one that had been ready for longest.
    pub(crate) passed_over: bool,
    /// A wait for the rate limit is with the driver.
    pub(crate) paced: bool,
    pub(crate) owed: Vec<Word>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Probe {
    Waiting,
    Due,
    Running(JobId),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sign {
    Works,
    Fails,
    Refuses,
    Nothing,
}

fn sign(finish: Finish) -> Sign {
    match finish {
        Finish::Done => Sign::Works,
        Finish::Skipped | Finish::Snooze(_) | Finish::Expired => Sign::Nothing,
        Finish::Permanent => Sign::Refuses,
        Finish::Transient(_) | Finish::Unreachable | Finish::TimedOut | Finish::Panicked => Sign::Fails,
    }
}

/// Whether an end is held against the job, or against what its handler needs.
pub(crate) fn is_failure(finish: Finish) -> bool {
    matches!(sign(finish), Sign::Fails | Sign::Refuses)
}

impl Watch {
    pub(crate) fn new() -> Self {
        Self {
            attempts: Vec::new(),
            jobs: Vec::new(),
            works: 0,
            failing: None,
            suspended: None,
            worked: 0,
            running: 0,
            last_start: None,
            passed_over: false,
            paced: false,
            owed: Vec::new(),
        }
    }

    pub(crate) fn is_suspended(&self) -> bool {
        self.suspended.is_some()
    }

    /// Whether a lane that is ready may be left waiting although there is room in the group.
    pub(crate) fn holds_back(&self, limits: &HandlerLimits, now: Moment) -> bool {
        !self.lets_through() || self.running >= limits.running_max || self.is_too_early(limits, now)
    }

    pub(crate) fn lets_through(&self) -> bool {
        matches!(self.suspended, None | Some(Probe::Due))
    }

    pub(crate) fn is_too_early(&self, limits: &HandlerLimits, now: Moment) -> bool {
        let pause = limits.starts_per_second_max.map(|rate| Duration::from_secs(1) / rate);
        let since = self.last_start.map(|start| now.since(start));
        pause.zip(since).is_some_and(|(pause, since)| since < pause)
    }

    pub(crate) fn started(&mut self, head: JobId, now: Moment) {
        self.running += 1;
        self.last_start = Some(now);
        if self.suspended.is_some() {
            self.suspended = Some(Probe::Running(head));
        }
    }

    pub(crate) fn probe_due(&mut self) {
        if self.suspended == Some(Probe::Waiting) {
            self.suspended = Some(Probe::Due);
        }
    }

    pub(crate) fn abandoned(&mut self, head: JobId) {
        self.running -= 1;
        if self.suspended == Some(Probe::Running(head)) {
            self.suspended = Some(Probe::Due);
        }
    }

    pub(crate) fn ended(
        &mut self,
        policy: &SuspendPolicy,
        now: Moment,
        head: JobId,
        lane: (PartitionId, u64),
        finish: Finish,
        members: usize,
    ) {
        self.running -= 1;
        let sign = sign(finish);
        self.works += u64::from(sign == Sign::Works);
        match self.suspended {
            Some(Probe::Running(probe)) if probe == head => self.probed(sign),
            Some(_) => {}
            None => {
                if let Some(cause) = self.cause(policy, now, lane, sign, members) {
                    self.suspended = Some(Probe::Waiting);
                    self.worked = 0;
                    self.start_afresh();
                    self.owed.extend([Word::Suspended(cause), Word::ProbeAfter]);
                }
            }
        }
    }

    fn start_afresh(&mut self) {
        self.attempts.clear();
        self.jobs.clear();
        self.failing = None;
    }

    fn probed(&mut self, sign: Sign) {
        self.suspended = Some(Probe::Due);
        match sign {
            Sign::Nothing => {}
            Sign::Works => {
                self.worked += 1;
                if self.worked == PROBES {
                    self.suspended = None;
                    self.start_afresh();
                    self.owed.push(Word::Resumed);
                }
            }
            Sign::Fails | Sign::Refuses => {
                self.worked = 0;
                self.suspended = Some(Probe::Waiting);
                self.owed.push(Word::ProbeAfter);
            }
        }
    }

    fn cause(
        &mut self,
        policy: &SuspendPolicy,
        now: Moment,
        (partition, key): (PartitionId, u64),
        sign: Sign,
        members: usize,
    ) -> Option<Cause> {
        if sign == Sign::Nothing {
            return None;
        }
        self.attempts.push((now, sign == Sign::Fails));
        let verdicts = match sign {
            Sign::Works => members,
            Sign::Refuses if members == 1 => 1,
            _ => 0,
        };
        self.jobs
            .extend(std::iter::repeat_n((now, sign == Sign::Refuses), verdicts));
        match sign {
            Sign::Works => self.failing = None,
            Sign::Fails => {
                let (_, id, lane, several) = self.failing.get_or_insert((now, partition, key, false));
                *several |= (*id, *lane) != (partition, key);
            }
            _ => {}
        }
        let silent = self
            .failing
            .is_some_and(|(since, _, _, several)| several && now.since(since) >= policy.silence);
        match sign {
            Sign::Fails if is_half_bad(&self.attempts, now, policy.attempts_window, policy.attempts_min) => {
                Some(Cause::Failing)
            }
            Sign::Fails if !policy.silence.is_zero() && silent => Some(Cause::Silent),
            Sign::Refuses if verdicts > 0 && is_half_bad(&self.jobs, now, policy.jobs_window, policy.jobs_min) => {
                Some(Cause::Flood)
            }
            _ => None,
        }
    }
}

fn is_half_bad(ends: &[(Moment, bool)], now: Moment, window: Duration, min: u32) -> bool {
    let recent = |(at, _): &&(Moment, bool)| at.part(window) + PARTS > now.part(window);
    let all = ends.iter().filter(recent).count();
    let bad = ends.iter().filter(recent).filter(|(_, bad)| *bad).count();
    min > 0 && all >= min as usize && bad * 2 >= all
}

/// The handler of a lane that has one.
pub(crate) fn of(watches: &mut [Watch], handler: HandlerIndex) -> &mut Watch {
    &mut watches[usize::from(handler.0)]
}

impl Shadow {
    /// Whether a job that is to be buried is not: its handler is suspended, or nothing else of it worked since it failed.
    pub(crate) fn is_spared(&self, job: JobId, finish: Finish) -> bool {
        let job = &self.jobs[&job];
        let handler = usize::from(job.lane.0.0);
        let watch = &self.watches[handler];
        let Some((at, works)) = job.first_failure else {
            return false;
        };
        if finish == Finish::Expired {
            return false;
        }
        let patient = self.now.since(at) < self.limits.handlers[handler].policy.exhausted_alone_after;
        match (watch.is_suspended(), finish) {
            (true, Finish::Permanent) => patient,
            (true, _) => true,
            (false, Finish::Permanent) => false,
            (false, _) => patient && works == watch.works,
        }
    }

    pub(crate) fn holds_back(&self, handler: HandlerIndex) -> bool {
        let index = usize::from(handler.0);
        let Some(watch) = self.watches.get(index) else {
            return false;
        };
        watch.holds_back(&self.limits.handlers[index], self.now)
    }

    pub(crate) fn says(&mut self, handler: HandlerIndex, word: Word) -> Checked {
        let owed = &mut of(&mut self.watches, handler).owed;
        match owed.iter().position(|due| *due == word) {
            Some(place) => owed.remove(place),
            None => return Invariant::Suspension.violated(format!("{handler:?}: {word:?} is not true")),
        };
        Ok(())
    }

    pub(crate) fn probes_after(&mut self, handler: HandlerIndex, wait: Wait) -> Checked {
        let longest = self.limits.handlers[usize::from(handler.0)].policy.outage_wait_max;
        let right = matches!(wait, Wait::Jittered(ceiling) if ceiling <= longest);
        Invariant::Attempts.check(right, || format!("{wait:?} before a probe"))?;
        self.says(handler, Word::ProbeAfter)
    }

    pub(crate) fn rate_after(&mut self, handler: HandlerIndex) -> Checked {
        let (limits, now) = (&self.limits.handlers[usize::from(handler.0)], self.now);
        let watch = of(&mut self.watches, handler);
        let early = watch.is_too_early(limits, now) && !watch.paced;
        watch.paced = true;
        Invariant::Room.check(early, || "a handler waits for its rate without need")
    }
}
