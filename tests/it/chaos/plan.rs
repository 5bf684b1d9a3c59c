//! What a run of chaos consists of: its size, its seed, and what becomes of each event.

use std::time::Duration;

use crate::chaos::random::Random;

/// Members of the group that are there at once, those on their way out not counted: at least, and at most.
const MEMBERS: (usize, usize) = (3, 12);

/// The same where one of them reads and the others wait for it to end.
const READERS: (usize, usize) = (1, 3);

/// Partitions of the topic.
pub(super) const PARTITIONS: i32 = 24;

/// In a gust so many members join or leave, at most, each after a pause of at most this.
const GUST_MAX: usize = 12;
pub(super) const CHURN_MS_MAX: usize = 500;

/// The next gust comes at most this long after the group has settled something again. Without that a group of the classic
/// protocols never forms: each generation waits for the sessions of those that were killed, and ends when it is complete,
/// because those that were asked to leave in the meantime do so only then.
pub(super) const LULL_MS_MAX: usize = 4_000;

/// Of the changes of a large transaction one in so many is wanted.
pub(super) const WANTED_OF: u32 = 100;

/// Attempts that one worker runs at once: so many calls one kill can cut off.
pub(super) const LANES_MAX: usize = 8;

/// What workers run with, beside what every test's workers have.
const SETTINGS: [(&str, &str); 12] = [
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
    // What librdkafka does with assignments and commits: a partition that stays without an owner, or behind, is explained by
    // nothing else.
    ("RUST_LOG", "info,afterwrite::source::kafka=debug"),
];

/// Where there are brokers.
const LIBRDKAFKA_LOG: (&str, &str) = ("AFTERWRITE__KAFKA__PROPERTIES__DEBUG", "cgrp");

/// Without a broker, and with a limit to the log that is kept which an outage reaches. Waits are a tenth of what they are otherwise,
/// and slow calls that began before the mail server went away end well after it: a job must not be out of attempts before those are
/// over, or it looks like the only one that fails.
const LOG_SETTINGS: [(&str, &str); 7] = [
    crate::wal::SETTINGS[0],
    crate::wal::SETTINGS[1],
    crate::wal::SETTINGS[2],
    crate::wal::SETTINGS[3],
    ("AFTERWRITE__WAL__SLOT_LAG_BYTES_MAX", "4194304"),
    ("AFTERWRITE__ENGINE__ATTEMPTS_MAX", "20"),
    ("AFTERWRITE__ENGINE__SUSPEND_ATTEMPTS_WINDOW_MS", "3000"),
];

/// What the members read: topics, under a group protocol, or the write-ahead log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Kafka(Protocol),
    Wal,
}

impl Source {
    pub(super) const COOPERATIVE_STICKY: Self = Self::Kafka(Protocol::CooperativeSticky);
    pub(super) const EAGER: Self = Self::Kafka(Protocol::Eager);
    pub(super) const CONSUMER: Self = Self::Kafka(Protocol::Consumer);

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kafka(protocol) => protocol.name(),
            Self::Wal => "wal",
        }
    }

    fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Kafka(protocol) => protocol.settings(),
            Self::Wal => &LOG_SETTINGS,
        }
    }

    /// What is killed and restarted, one after the other.
    pub(super) fn services(self) -> [&'static str; 2] {
        match self {
            Self::Kafka(_) => ["kafka", "postgres"],
            Self::Wal => ["postgres", "postgres"],
        }
    }

    /// Members at least, and at most.
    pub(super) fn members(self) -> (usize, usize) {
        match self {
            Self::Kafka(_) => MEMBERS,
            Self::Wal => READERS,
        }
    }

    /// What it is called when letters are refused, or calls.
    pub(super) fn refusal(self) -> &'static str {
        match self {
            Self::Kafka(_) => "letters refused for",
            Self::Wal => "mail server away for",
        }
    }

    pub(super) fn gust_max(self) -> usize {
        match self {
            Self::Kafka(_) => GUST_MAX,
            Self::Wal => READERS.1,
        }
    }
}

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
            Self::CooperativeSticky => &[LIBRDKAFKA_LOG],
            Self::Eager => &[LIBRDKAFKA_LOG, ("AFTERWRITE__KAFKA__GROUP_PROTOCOL", "eager")],
            // Sessions and heartbeats are the brokers'.
            Self::Consumer => &[
                LIBRDKAFKA_LOG,
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
    pub(super) source: Source,
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
    /// From then on, for so long, the dead-letter topic refuses letters. Where there is none, what the handlers call is away.
    pub(super) unwritable: (Duration, Duration),
    /// Where the log is read: one transaction of so many changes, of which one in [`WANTED_OF`] is wanted.
    pub(super) large: u32,
    /// All of it must be over by then.
    pub(super) run_max: Duration,
}

impl Plan {
    /// The short form, which is part of every run of the tests, or the long one (`CHAOS=long`). `CHAOS_SEED` repeats a
    /// run, as far as processes can be repeated; `CHAOS_EVENTS` changes it.
    pub(super) fn of_environment(source: Source) -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let number =
            |name: &str| variable(name).map(|value| value.parse().unwrap_or_else(|_| panic!("{name}={value}")));
        let seed = number("CHAOS_SEED").unwrap_or_else(|| u64::from(uuid::Uuid::new_v4().as_fields().0));
        let mut plan = match variable("CHAOS").as_deref() {
            Some("long") => Self::long(seed, source),
            None | Some("short") => Self::short(seed, source),
            Some(other) => panic!("CHAOS={other}: there are short and long"),
        };
        if let Some(events) = number("CHAOS_EVENTS") {
            plan.events = usize::try_from(events).unwrap();
        }
        plan
    }

    fn short(seed: u64, source: Source) -> Self {
        Self {
            seed,
            source,
            events: match source {
                Source::Kafka(_) => 6_000,
                Source::Wal => 3_000,
            },
            rows: 2_000,
            slow: Duration::from_secs(2),
            written_over: Duration::from_secs(10),
            storm_max: Duration::from_secs(60),
            storm_percent: 0,
            gusts_min: 3,
            outages_min: 2,
            outage_pauses_ms: (3_000, 4_000),
            unwritable: (Duration::from_secs(3), Duration::from_secs(5)),
            large: 1_000_000,
            run_max: Duration::from_secs(240),
        }
    }

    fn long(seed: u64, source: Source) -> Self {
        Self {
            seed,
            source,
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
            large: 3_000_000,
            run_max: Duration::from_secs(1_800),
        }
    }

    /// Chance for one part of the run, so that what one part draws does not depend on when another draws.
    pub(super) fn chance(&self, part: u64) -> Random {
        Random::new(Random::new(self.seed ^ part << 56).next())
    }

    /// Wanted changes of the large transaction, each of a row of its own.
    pub(super) fn large_wanted(&self) -> u32 {
        match self.source {
            Source::Kafka(_) => 0,
            Source::Wal => self.large / WANTED_OF,
        }
    }

    /// How much there is of what, in words.
    pub(super) fn size(&self) -> String {
        let (events, rows) = (self.events, self.rows);
        match self.source {
            Source::Kafka(_) => format!("{events} over {rows} rows in {PARTITIONS} partitions"),
            Source::Wal => format!(
                "{events} over {rows} rows, and {} of {} in one transaction",
                self.large_wanted(),
                self.large
            ),
        }
    }

    /// Everything that is to be settled.
    pub(super) fn wanted(&self) -> usize {
        self.events + self.large_wanted() as usize
    }

    pub(super) fn fate(&self, row: u32, change: u32) -> Fate {
        Fate::of(self.seed, row, change)
    }

    /// What a worker is started with.
    pub(super) fn settings(&self) -> Vec<(&'static str, &'static str)> {
        [&SETTINGS, self.source.settings()].concat()
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
