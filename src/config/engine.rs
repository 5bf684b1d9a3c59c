//! Retries, time-outs, parallel work and windows: for all groups, for one group, for one handler.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Config;
use super::value::OwnSettings;

/// What every group has unless it says otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Engine {
    /// Attempts before a job that may heal is exhausted.
    pub attempts_max: u32,
    /// Wait after the first failed attempt.
    pub wait_first_ms: u64,
    /// Each further wait is longer by this factor.
    pub wait_factor: u32,
    /// Longest wait between two attempts.
    pub wait_ms_max: u64,
    /// Longest wait a handler may ask for (`Retry-After`, snooze), a round.
    pub asked_wait_ms_max: u64,
    /// Longest wait for something that does not answer, and for a dead letter that could not be written.
    pub outage_wait_ms_max: u64,
    /// A job during which so many processes died while it ran alone becomes a dead letter; 0 switches that off.
    pub crash_deaths_max: u32,
    /// A job that no other lane of its handler outdid since it failed is not exhausted for so long.
    pub exhausted_alone_after_ms: u64,
    /// A handler is suspended when half of at least so many attempts within a window fail; 0 switches that off.
    pub suspend_attempts_min: u32,
    /// The window of these attempts.
    pub suspend_attempts_window_ms: u64,
    /// A handler of which several lanes fail, and nothing works for so long, is suspended; 0 switches that off.
    pub suspend_silence_ms: u64,
    /// A handler is suspended when half of at least so many jobs within a window fail for good; 0 switches that off.
    pub suspend_jobs_min: u32,
    /// The window of these jobs.
    pub suspend_jobs_window_ms: u64,
    /// How long one attempt may take, where neither the group's section, the handler's, nor the handler itself says so.
    pub attempt_timeout_ms: u64,
    /// Lanes of one group that run at once.
    pub lanes_max: usize,
    /// Database connections of one group; two more than its lanes when absent.
    pub connections_max: Option<u32>,
    /// Unsettled events of one group, shared by its partitions.
    pub buffered_events_max: usize,
    /// Bytes of unsettled events of one group, shared by its partitions.
    pub buffered_bytes_max: usize,
    /// How often settled positions are committed.
    pub commit_interval_ms: u64,
    /// How long what runs may take to end after SIGTERM.
    pub shutdown_grace_ms: u64,
    /// How long what runs may take to end when its partition is taken away.
    pub revoke_grace_ms: u64,
    /// What becomes of records that can never decode.
    pub on_undecodable: OnUndecodable,
    /// How long a claimed mail or call belongs to the process that makes it; longer than any attempt.
    pub effect_lease_ms: u64,
}

impl Default for Engine {
    fn default() -> Self {
        Self {
            attempts_max: 5,
            wait_first_ms: 1_000,
            wait_factor: 2,
            wait_ms_max: 300_000,
            asked_wait_ms_max: 300_000,
            outage_wait_ms_max: 30_000,
            crash_deaths_max: 3,
            exhausted_alone_after_ms: 3_600_000,
            suspend_attempts_min: 20,
            suspend_attempts_window_ms: 30_000,
            suspend_silence_ms: 30_000,
            suspend_jobs_min: 100,
            suspend_jobs_window_ms: 60_000,
            attempt_timeout_ms: 30_000,
            lanes_max: 10,
            connections_max: None,
            buffered_events_max: 10_000,
            buffered_bytes_max: 64 * 1024 * 1024,
            commit_interval_ms: 1_000,
            shutdown_grace_ms: 25_000,
            revoke_grace_ms: 10_000,
            on_undecodable: OnUndecodable::Bury,
            effect_lease_ms: 120_000,
        }
    }
}

impl Engine {
    /// Database connections of the group: every running lane has one, and claims and commits never wait for a lane.
    pub fn connections(&self) -> u32 {
        let lanes = u32::try_from(self.lanes_max).unwrap_or(u32::MAX);
        self.connections_max.unwrap_or(lanes.saturating_add(2))
    }
}

/// What becomes of a record that can never decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnUndecodable {
    /// It becomes a dead letter of its group.
    #[default]
    Bury,
    /// The group ends before it, and the process with an error.
    Halt,
}

/// What one group has instead of `[engine]`.
#[derive(Debug, Clone, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Group {
    /// Instead of [`topics`](super::kafka::Kafka::topics) of `[kafka]`.
    pub topics: Option<Vec<String>>,
    /// Instead of [`Engine::attempts_max`].
    pub attempts_max: Option<u32>,
    /// Instead of [`Engine::wait_first_ms`].
    pub wait_first_ms: Option<u64>,
    /// Instead of [`Engine::wait_factor`].
    pub wait_factor: Option<u32>,
    /// Instead of [`Engine::wait_ms_max`].
    pub wait_ms_max: Option<u64>,
    /// Instead of [`Engine::attempt_timeout_ms`] and of what its handlers ask for.
    pub attempt_timeout_ms: Option<u64>,
    /// Instead of [`Engine::lanes_max`].
    pub lanes_max: Option<usize>,
    /// Instead of [`Engine::connections_max`].
    pub connections_max: Option<u32>,
    /// Instead of [`Engine::buffered_events_max`].
    pub buffered_events_max: Option<usize>,
    /// Instead of [`Engine::buffered_bytes_max`].
    pub buffered_bytes_max: Option<usize>,
    /// Instead of [`Engine::on_undecodable`].
    pub on_undecodable: Option<OnUndecodable>,
}

/// What one handler has instead of its own defaults.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HandlerSettings {
    /// A handler that is switched off is not run, and its group reads nothing when no other handler shares it.
    pub enabled: bool,
    /// How long one attempt may take; it beats the group's and what the handler itself asks for.
    pub attempt_timeout_ms: Option<u64>,
    /// Events of one ordering key that one call may take.
    pub coalesce_max: Option<usize>,
    /// Instead of the group's [`Engine::attempts_max`].
    pub attempts_max: Option<u32>,
    /// Instead of the group's [`Engine::wait_first_ms`].
    pub wait_first_ms: Option<u64>,
    /// Instead of the group's [`Engine::wait_factor`].
    pub wait_factor: Option<u32>,
    /// Instead of the group's [`Engine::wait_ms_max`].
    pub wait_ms_max: Option<u64>,
    /// Lanes of this handler that run at once, where that is fewer than the group's.
    pub lanes_max: Option<usize>,
    /// Calls that may start within a second; without it, as many as there is work for.
    pub starts_per_second_max: Option<u32>,
    /// What becomes of later events of a key whose event is in the dead letters.
    pub on_bury: OnBury,
    /// Whether alerts about it and its group wake somebody: a label of their metrics, by which the alert rules decide.
    pub critical: bool,
    /// The name it had before: what it did under that name stays done.
    pub was: Option<String>,
    /// What the handler itself is told: its own keys, which it reads and checks by itself.
    pub settings: OwnSettings,
}

/// What becomes of later events of a key whose event is in the dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnBury {
    /// They are worked on.
    #[default]
    Continue,
    /// They are kept behind it until it is replayed or discarded.
    Park,
}

impl Default for HandlerSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            attempt_timeout_ms: None,
            coalesce_max: None,
            attempts_max: None,
            wait_first_ms: None,
            wait_factor: None,
            wait_ms_max: None,
            lanes_max: None,
            starts_per_second_max: None,
            on_bury: OnBury::Continue,
            critical: true,
            was: None,
            settings: OwnSettings::default(),
        }
    }
}

impl Config {
    /// The full name of a group, given short (`email`) or full (`afterwrite.email`).
    pub fn group_name(&self, group: &str) -> String {
        format!("{}.{}", self.kafka.group_prefix, self.short_group_name(group))
    }

    /// The short name of a group, given short or full.
    pub fn short_group_name<'a>(&self, group: &'a str) -> &'a str {
        group
            .strip_prefix(self.kafka.group_prefix.as_str())
            .and_then(|rest| rest.strip_prefix('.'))
            .unwrap_or(group)
    }

    /// The time-out of an attempt that the configuration chose for this handler, or for its group; it beats the one the
    /// handler itself asks for, which beats `[engine]`.
    pub fn attempt_timeout_of(&self, group: &str, handler: &str) -> Option<Duration> {
        let of_handler = self.handlers.get(handler).and_then(|own| own.attempt_timeout_ms);
        let of_group = || self.group(group).and_then(|own| own.attempt_timeout_ms);
        of_handler.or_else(of_group).map(Duration::from_millis)
    }

    /// What a handler has: that of its group with its own `[handlers.NAME]` on top.
    pub fn engine_of_handler(&self, group: &str, handler: &str) -> Engine {
        let engine = self.engine_of(group);
        let Some(own) = self.handlers.get(handler) else {
            return engine;
        };
        Engine {
            attempts_max: own.attempts_max.unwrap_or(engine.attempts_max),
            wait_first_ms: own.wait_first_ms.unwrap_or(engine.wait_first_ms),
            wait_factor: own.wait_factor.unwrap_or(engine.wait_factor),
            wait_ms_max: own.wait_ms_max.unwrap_or(engine.wait_ms_max),
            lanes_max: own.lanes_max.map_or(engine.lanes_max, |own| own.min(engine.lanes_max)),
            ..engine
        }
    }

    /// The topics that a group was told to read; empty where they follow from its tables.
    pub fn topics_of(&self, group: &str) -> &[String] {
        let own = self.group(group).and_then(|own| own.topics.as_ref());
        own.unwrap_or(&self.kafka.topics)
    }

    /// The section of a group, given short or full.
    fn group(&self, group: &str) -> Option<&Group> {
        let short = self.short_group_name(group);
        let mut groups = self.groups.iter();
        groups.find_map(|(name, own)| (self.short_group_name(name) == short).then_some(own))
    }

    /// What a group has: `[engine]` with its own `[groups.NAME]` on top.
    pub fn engine_of(&self, group: &str) -> Engine {
        let engine = self.engine.clone();
        let Some(own) = self.group(group) else { return engine };
        Engine {
            attempts_max: own.attempts_max.unwrap_or(engine.attempts_max),
            wait_first_ms: own.wait_first_ms.unwrap_or(engine.wait_first_ms),
            wait_factor: own.wait_factor.unwrap_or(engine.wait_factor),
            wait_ms_max: own.wait_ms_max.unwrap_or(engine.wait_ms_max),
            attempt_timeout_ms: own.attempt_timeout_ms.unwrap_or(engine.attempt_timeout_ms),
            lanes_max: own.lanes_max.unwrap_or(engine.lanes_max),
            connections_max: own.connections_max.or(engine.connections_max),
            buffered_events_max: own.buffered_events_max.unwrap_or(engine.buffered_events_max),
            buffered_bytes_max: own.buffered_bytes_max.unwrap_or(engine.buffered_bytes_max),
            on_undecodable: own.on_undecodable.unwrap_or(engine.on_undecodable),
            ..engine
        }
    }
}
