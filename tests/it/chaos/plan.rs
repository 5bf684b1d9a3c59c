//! What a run of chaos consists of: its size, its seed, and what becomes of each event.

use std::time::Duration;

use crate::chaos::random::Random;

/// Members of the group that are there at once, those on their way out not counted: at most, and at least.
pub(super) const MEMBERS_MAX: usize = 12;
pub(super) const MEMBERS_MIN: usize = 3;

/// Partitions of the topic.
pub(super) const PARTITIONS: i32 = 24;

/// In a gust so many members join or leave, at most, each after a pause of at most this.
pub(super) const GUST_MAX: usize = 12;
pub(super) const CHURN_MS_MAX: usize = 500;

/// The next gust comes at most this long after the group has settled something again. Without that a group of the classic
/// protocols never forms: each generation waits for the sessions of those that were killed, and ends when it is complete,
/// because those that were asked to leave in the meantime do so only then.
pub(super) const LULL_MS_MAX: usize = 4_000;

/// Attempts that one worker runs at once: so many calls one kill can cut off.
pub(super) const LANES_MAX: usize = 8;

/// What workers run with, beside what every test's workers have.
const SETTINGS: [(&str, &str); 11] = [
    ("AFTERWRITE__ENGINE__LANES_MAX", "8"),
    ("AFTERWRITE__ENGINE__WAIT_FIRST_MS", "100"),
    ("AFTERWRITE__ENGINE__WAIT_MS_MAX", "1000"),
    ("AFTERWRITE__ENGINE__OUTAGE_WAIT_MS_MAX", "1000"),
    // Shorter than a slow attempt: a stop and a revocation abandon those.
    ("AFTERWRITE__ENGINE__SHUTDOWN_GRACE_MS", "1500"),
    ("AFTERWRITE__ENGINE__REVOKE_GRACE_MS", "1500"),
    // Whoever is killed from outside looks as if an event had killed it.
    ("AFTERWRITE__ENGINE__CRASH_DEATHS_MAX", "0"),
    ("AFTERWRITE__DEAD_LETTERS__WRITE_TIMEOUT_MS", "2000"),
    ("AFTERWRITE__POSTGRES__CONNECT_TIMEOUT_MS", "5000"),
    // librdkafka pauses for ten seconds between two tries to connect, in which nothing can be seen.
    ("AFTERWRITE__KAFKA__PROPERTIES__RECONNECT_BACKOFF_MAX_MS", "1000"),
    ("RUST_BACKTRACE", "1"),
];

/// How the members of a group agree on who has which partition, as `kafka.group_protocol` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    CooperativeSticky,
    Eager,
    Consumer,
}

impl Protocol {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::CooperativeSticky => "cooperative-sticky",
            Self::Eager => "eager",
            Self::Consumer => "consumer",
        }
    }

    /// What members are started with because of it. The default goes without saying.
    fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::CooperativeSticky => &[],
            Self::Eager => &[("AFTERWRITE__KAFKA__GROUP_PROTOCOL", "eager")],
            // Sessions and heartbeats are the brokers'.
            Self::Consumer => &[
                ("AFTERWRITE__KAFKA__GROUP_PROTOCOL", "consumer"),
                ("AFTERWRITE__KAFKA__SESSION_TIMEOUT_MS", ""),
                ("AFTERWRITE__KAFKA__HEARTBEAT_INTERVAL_MS", ""),
            ],
        }
    }
}

/// How much there is of everything.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) protocol: Protocol,
    pub(super) events: usize,
    pub(super) rows: u32,
    /// How long a slow attempt takes.
    pub(super) slow: Duration,
    /// Those events that come during the storm are written over this time, at least.
    pub(super) written_over: Duration,
    /// Members come and go for at most so long.
    pub(super) storm_max: Duration,
    /// They do so until this share of the events is settled, and so many gusts and outages are over; the rest is done in
    /// peace.
    pub(super) storm_percent: usize,
    pub(super) gusts_min: usize,
    pub(super) outages_min: usize,
    /// The pause between two outages of Postgres or the broker lies between these.
    pub(super) outage_pauses_ms: (usize, usize),
    /// The dead-letter topic refuses letters from then on, for so long.
    pub(super) unwritable: (Duration, Duration),
    /// All of it must be over by then.
    pub(super) run_max: Duration,
}

impl Plan {
    /// The short form, which is part of every run of the tests, or the long one (`CHAOS=long`). `CHAOS_SEED` repeats a
    /// run, as far as processes can be repeated; `CHAOS_EVENTS` changes it.
    pub(super) fn of_environment(protocol: Protocol) -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let number =
            |name: &str| variable(name).map(|value| value.parse().unwrap_or_else(|_| panic!("{name}={value}")));
        let seed = number("CHAOS_SEED").unwrap_or_else(|| u64::from(uuid::Uuid::new_v4().as_fields().0));
        let mut plan = match variable("CHAOS").as_deref() {
            Some("long") => Self::long(seed, protocol),
            None | Some("short") => Self::short(seed, protocol),
            Some(other) => panic!("CHAOS={other}: there are short and long"),
        };
        if let Some(events) = number("CHAOS_EVENTS") {
            plan.events = usize::try_from(events).unwrap();
        }
        plan
    }

    fn short(seed: u64, protocol: Protocol) -> Self {
        Self {
            seed,
            protocol,
            events: 6_000,
            rows: 2_000,
            slow: Duration::from_secs(2),
            written_over: Duration::from_secs(10),
            storm_max: Duration::from_secs(60),
            storm_percent: 0,
            gusts_min: 3,
            outages_min: 2,
            outage_pauses_ms: (3_000, 4_000),
            unwritable: (Duration::from_secs(3), Duration::from_secs(5)),
            run_max: Duration::from_secs(240),
        }
    }

    fn long(seed: u64, protocol: Protocol) -> Self {
        Self {
            seed,
            protocol,
            events: 200_000,
            rows: 10_000,
            slow: Duration::from_secs(20),
            written_over: Duration::from_secs(150),
            storm_max: Duration::from_secs(300),
            storm_percent: 80,
            gusts_min: 10,
            outages_min: 4,
            outage_pauses_ms: (15_000, 30_000),
            unwritable: (Duration::from_secs(20), Duration::from_secs(30)),
            run_max: Duration::from_secs(1_800),
        }
    }

    /// Chance for one part of the run, so that what one part draws does not depend on when another draws.
    pub(super) fn chance(&self, part: u64) -> Random {
        Random::new(Random::new(self.seed ^ part << 56).next())
    }

    pub(super) fn fate(&self, row: u32, change: u32) -> Fate {
        Fate::of(self.seed, row, change)
    }

    /// What a worker is started with.
    pub(super) fn settings(&self) -> Vec<(&'static str, &'static str)> {
        [&SETTINGS, self.protocol.settings()].concat()
    }
}

/// What becomes of an event. Seed, row and change decide it, so that every process knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Works,
    /// Its attempt takes long, between its call and its transaction.
    Slow,
    /// Its first two attempts fail.
    FailsTwice,
    /// It ends in the dead letters.
    FailsForGood,
}

impl Fate {
    pub(super) fn of(seed: u64, row: u32, change: u32) -> Self {
        let mut chance = Random::new(seed ^ u64::from(row) << 32 ^ u64::from(change));
        match chance.below(10_000) {
            0..5 => Self::Slow,
            5..15 => Self::FailsForGood,
            15..35 => Self::FailsTwice,
            _ => Self::Works,
        }
    }
}
