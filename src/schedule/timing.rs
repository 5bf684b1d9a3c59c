//! Which ticks are due: pure functions of a schedule, the last tick that is known, and the time.
//!
//! Every process computes the same ticks, whenever it looks: those of an interval are its multiples since 1970, those of a
//! cron pattern are times of its zone. So a tick has one name over all replicas, and a row under that name exists once.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};

/// The shortest interval.
pub const INTERVAL_MIN: Duration = Duration::from_secs(1);

/// When a scheduled job runs.
#[derive(Debug, Clone)]
pub struct Schedule(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Every { interval_ms: i64 },
    Cron { text: String, cron: Box<Cron>, zone: Tz },
}

/// A schedule that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Shorter than [`INTERVAL_MIN`], or longer than times are counted.
    #[error("an interval of {} ms cannot be a schedule; it must be at least one second", .0.as_millis())]
    Interval(Duration),
    /// Not a zone of the IANA database.
    #[error("{0} is no time zone of the IANA database; write it like Europe/Berlin, or UTC")]
    Zone(String),
    /// Not five fields of cron, nor a name such as `@daily`.
    #[error("{pattern} is no cron pattern of five fields, nor a name such as @hourly or @daily")]
    Pattern {
        /// What was given.
        pattern: String,
        /// What is wrong with it.
        #[source]
        source: croner::errors::CronError,
    },
    /// A pattern such as the 30th of February.
    #[error("{0} never comes")]
    Never(String),
}

/// What becomes of ticks that passed while nobody ran the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missed {
    /// Only the last one matters: its run does what the others would have done.
    Last,
    /// Each is run, oldest first, but for those before the newest `max`.
    Each {
        /// How many are caught up with.
        max: usize,
    },
}

/// Ticks that are due.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Due {
    /// From the oldest on.
    pub ticks: Vec<DateTime<Utc>>,
    /// Whether there were older ones that are not run.
    pub passed_over: bool,
}

impl Schedule {
    /// Every so often, at the multiples of the interval since 1970 (UTC): `1h` is at the full hour.
    ///
    /// # Errors
    /// When it is shorter than [`INTERVAL_MIN`].
    pub fn every(interval: Duration) -> Result<Self, Error> {
        let interval_ms = i64::try_from(interval.as_millis()).ok();
        match interval_ms.filter(|_| interval >= INTERVAL_MIN) {
            Some(interval_ms) => Ok(Self(Kind::Every { interval_ms })),
            None => Err(Error::Interval(interval)),
        }
    }

    /// A cron pattern of five fields (minute, hour, day of month, month, day of week), or `@hourly`, `@daily`, `@weekly`,
    /// `@monthly`, `@yearly`, in a zone of the IANA database.
    ///
    /// Where clocks go forward, a time that does not exist (`30 2 * * *`) is run at the first one that does, and patterns
    /// with several times a day leave out those that do not exist. Where clocks go back, one time a day comes once, and
    /// a pattern with several times comes in both passes of the hour.
    ///
    /// # Errors
    /// When the pattern or the zone is none, or when the pattern never comes.
    pub fn cron(pattern: &str, zone: &str) -> Result<Self, Error> {
        let zone_known: Tz = zone.parse().map_err(|_| Error::Zone(zone.to_owned()))?;
        let parser = CronParser::builder()
            .seconds(Seconds::Disallowed)
            .year(Year::Disallowed)
            .build();
        let cron = parser.parse(pattern).map_err(|source| Error::Pattern {
            pattern: pattern.to_owned(),
            source,
        })?;
        let schedule = Self(Kind::Cron {
            text: pattern.to_owned(),
            cron: Box::new(cron),
            zone: zone_known,
        });
        match schedule.after(DateTime::UNIX_EPOCH) {
            Some(_) => Ok(schedule),
            None => Err(Error::Never(pattern.to_owned())),
        }
    }

    /// The zone its times are of; `None` for an interval, which knows none.
    pub fn zone(&self) -> Option<&'static str> {
        match &self.0 {
            Kind::Every { .. } => None,
            Kind::Cron { zone, .. } => Some(zone.name()),
        }
    }

    /// The first tick after `time`.
    pub fn after(&self, time: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match &self.0 {
            Kind::Every { interval_ms } => {
                let passed = time.timestamp_millis().div_euclid(*interval_ms);
                DateTime::from_timestamp_millis(passed.checked_add(1)?.checked_mul(*interval_ms)?)
            }
            Kind::Cron { cron, zone, .. } => {
                let next = cron.find_next_occurrence(&time.with_timezone(zone), false).ok()?;
                Some(next.to_utc())
            }
        }
    }

    /// The last tick at or before `time`.
    pub fn at_or_before(&self, time: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match &self.0 {
            Kind::Every { interval_ms } => {
                let passed = time.timestamp_millis().div_euclid(*interval_ms);
                DateTime::from_timestamp_millis(passed.checked_mul(*interval_ms)?)
            }
            Kind::Cron { cron, zone, .. } => {
                let last = cron.find_previous_occurrence(&time.with_timezone(zone), true).ok()?;
                Some(last.to_utc())
            }
        }
    }

    /// The last tick before `time`.
    pub fn before(&self, time: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.at_or_before(time - chrono::Duration::milliseconds(1))
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Cron { text, .. } => out.write_str(text),
            Kind::Every { interval_ms } => {
                let mut rest = *interval_ms;
                out.write_str("every ")?;
                for (unit, ms) in [
                    ("d", 86_400_000),
                    ("h", 3_600_000),
                    ("m", 60_000),
                    ("s", 1_000),
                    ("ms", 1),
                ] {
                    if rest >= ms {
                        write!(out, "{}{unit}", rest / ms)?;
                        rest %= ms;
                    }
                }
                Ok(())
            }
        }
    }
}

/// The ticks that are due at `now`, when `last` is the newest one known. Without one the job never ran here, and the newest
/// tick that there was is due: each job runs once at its first start.
///
/// A clock that was put back makes nothing due. The work grows with what is answered, not with how long nobody looked.
pub fn due(schedule: &Schedule, last: Option<DateTime<Utc>>, now: DateTime<Utc>, missed: Missed) -> Due {
    let max = match (last, missed) {
        (None, _) | (_, Missed::Last) => 1,
        (_, Missed::Each { max }) => max.max(1),
    };
    let mut ticks = VecDeque::new();
    let mut tick = schedule.at_or_before(now);
    while let Some(found) = tick.filter(|tick| last.is_none_or(|last| *tick > last)) {
        if ticks.len() == max {
            let passed_over = last.is_some();
            return Due {
                ticks: ticks.into(),
                passed_over,
            };
        }
        ticks.push_front(found);
        tick = schedule.before(found);
    }
    Due {
        ticks: ticks.into(),
        passed_over: false,
    }
}

/// What follows from a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Another one after this wait.
    Again(Duration),
    /// None: it failed as often as a run may.
    Failed,
}

/// After the first failed attempt.
const WAIT_FIRST: Duration = Duration::from_secs(10);

/// However often it failed.
const WAIT_MAX: Duration = Duration::from_secs(3_600);

/// With the waits between them, attempts of three quarters of a day.
pub const ATTEMPTS_MAX: u32 = 24;

/// What follows when attempt number `attempt`, counted from 1, has failed.
pub fn verdict(attempt: u32) -> Verdict {
    if attempt >= ATTEMPTS_MAX {
        return Verdict::Failed;
    }
    Verdict::Again(wait(attempt))
}

/// How long a run is left alone whose process dies during this attempt. The first time it is not its fault.
pub fn wait_after_death(attempt: u32) -> Duration {
    match attempt {
        0 | 1 => Duration::ZERO,
        more => wait(more - 1),
    }
}

fn wait(attempt: u32) -> Duration {
    let doubled = 1_u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
    WAIT_FIRST.saturating_mul(doubled).min(WAIT_MAX)
}

#[cfg(test)]
#[path = "timing_tests.rs"]
mod tests;
