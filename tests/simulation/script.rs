//! What a handler does with a record, attempt by attempt: written down before the world starts.

use std::time::Duration;

use afterwrite::engine::retry::Finish;

use crate::random::Random;

/// How the attempts at one job end, over all assignments and restarts.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Script {
    Works,
    Skips,
    /// Every attempt ends the process.
    Kills,
    /// So many attempts fail this way, the next works.
    Fails {
        how: Failure,
        times: u32,
    },
    Always(Failure),
    /// So many attempts fail in different ways, the next works.
    Mixed {
        seed: u64,
        times: u32,
    },
}

/// One way in which an attempt fails; later ones win when jobs fail together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Failure {
    Snoozes,
    Transient,
    TransientAsking,
    Unreachable,
    TimesOut,
    Panics,
    Permanent,
    /// The ledger refuses the event before the handler sees it.
    Expired,
}

const FAILURES: [Failure; 8] = [
    Failure::Snoozes,
    Failure::Transient,
    Failure::TransientAsking,
    Failure::Unreachable,
    Failure::TimesOut,
    Failure::Panics,
    Failure::Permanent,
    Failure::Expired,
];

/// How one attempt at one job ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Works,
    Skips,
    Kills,
    Fails(Failure),
}

impl Script {
    pub(crate) fn draw(random: &mut Random) -> Self {
        let times = u32::try_from(random.between(1, 5)).expect("it is small");
        let how = FAILURES[random.below(FAILURES.len())];
        match random.below(100) {
            0..45 => Self::Works,
            45..55 => Self::Skips,
            55..75 => Self::Fails { how, times },
            75..85 => Self::Mixed {
                seed: random.next(),
                times,
            },
            // Neither is ever counted, so a job that did this for ever would rightly never end.
            _ if matches!(how, Failure::Snoozes | Failure::Unreachable) => Self::Always(Failure::Permanent),
            _ => Self::Always(how),
        }
    }

    /// The end of attempt `number`, counted from 0.
    pub(crate) fn ending(self, number: u32) -> Ending {
        match self {
            Self::Works => Ending::Works,
            Self::Skips => Ending::Skips,
            Self::Fails { how, times } if number < times => Ending::Fails(how),
            Self::Mixed { seed, times } if number < times => {
                let mut random = Random::new(seed ^ u64::from(number));
                Ending::Fails(FAILURES[random.below(FAILURES.len())])
            }
            Self::Fails { .. } | Self::Mixed { .. } => Ending::Works,
            Self::Kills => Ending::Kills,
            Self::Always(how) => Ending::Fails(how),
        }
    }
}

impl Failure {
    pub(crate) fn finish(self, luck: &mut Random) -> Finish {
        let delay = Duration::from_secs(luck.between(1, 20) as u64);
        match self {
            Self::Snoozes => Finish::Snooze(delay),
            Self::Transient => Finish::Transient(None),
            Self::TransientAsking => Finish::Transient(Some(delay)),
            Self::Unreachable => Finish::Unreachable,
            Self::TimesOut => Finish::TimedOut,
            Self::Panics => Finish::Panicked,
            Self::Permanent => Finish::Permanent,
            Self::Expired => Finish::Expired,
        }
    }
}
