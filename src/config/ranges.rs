//! Between which numbers a setting lies: what is checked, and what the reference says.

use toml::{Table, Value};

use super::refusal::Wrong;

/// The numbers that a setting takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Range {
    least: i64,
    most: Option<i64>,
    /// Why not more, or where there is no most, why not less; empty where that is plain.
    why: &'static str,
}

const fn least(least: i64, why: &'static str) -> Range {
    Range { least, most: None, why }
}

const fn between(least: i64, most: i64, why: &'static str) -> Range {
    Range {
        least,
        most: Some(most),
        why,
    }
}

/// By `section.key`; those of a group and of a handler by [`ENGINE_OF`].
const RANGES: [(&str, Range); 45] = [
    ("postgres.connect_timeout_ms", least(1, "")),
    ("connect.timeout_ms", least(1, "")),
    ("registry.timeout_ms", least(1, "")),
    ("registry.schemas_max", least(1, "")),
    ("registry.unknown_asks_max", between(1, 100, "")),
    // A record waits for all questions before it is given up.
    (
        "registry.unknown_pause_ms",
        between(1, 60_000, "a record waits for all of these pauses"),
    ),
    ("kafka.session_timeout_ms", least(1, "")),
    ("kafka.heartbeat_interval_ms", least(1, "")),
    (
        "kafka.metadata_refresh_ms",
        between(
            100,
            5_000,
            "new partitions must be found before somebody starts to wonder",
        ),
    ),
    ("engine.attempts_max", least(1, "")),
    ("engine.wait_first_ms", least(1, "")),
    ("engine.wait_factor", between(1, 100, "")),
    ("engine.wait_ms_max", least(1, "")),
    ("engine.asked_wait_ms_max", least(1, "")),
    ("engine.outage_wait_ms_max", least(100, "")),
    ("engine.suspend_attempts_window_ms", least(1_000, "")),
    ("engine.suspend_jobs_window_ms", least(1_000, "")),
    ("engine.attempt_timeout_ms", least(1, "")),
    ("engine.lanes_max", between(1, 10_000, "")),
    (
        "engine.connections_max",
        least(2, "a lane and what commits each need one"),
    ),
    ("engine.buffered_events_max", least(1, "")),
    ("engine.buffered_bytes_max", least(1_024, "")),
    ("engine.commit_interval_ms", between(10, 60_000, "")),
    ("engine.effect_lease_ms", least(1, "")),
    ("handlers.coalesce_max", least(1, "")),
    ("handlers.lanes_max", least(1, "")),
    ("handlers.starts_per_second_max", least(1, "")),
    (
        "ledger.retention_days",
        between(1, 1_000, "each day is a table, and more of them make planning slow"),
    ),
    ("dead_letters.partitions", least(1, "")),
    ("dead_letters.replication_factor", least(1, "")),
    (
        "dead_letters.retention_ms",
        least(86_400_000, "letters that vanish within a day cannot be replayed"),
    ),
    (
        "dead_letters.message_bytes_max",
        least(65_537, "the headers of a letter may take 64 KiB"),
    ),
    // Two copies of an error leave half of the 64 KiB of a letter's headers to the original ones.
    (
        "dead_letters.error_bytes_max",
        between(64, 16_384, "the headers of a letter hold the text twice"),
    ),
    (
        "dead_letters.write_timeout_ms",
        between(
            100,
            600_000,
            "a letter that is not acknowledged holds back the commits of its partition",
        ),
    ),
    // Each letter is read and requested by itself, so no machine sends more.
    ("dead_letters.replay_rate_max", between(1, 10_000, "")),
    ("dead_letters.replays_max", least(1, "")),
    ("smtp.port", least(1, "")),
    ("smtp.step_timeout_ms", least(1, "")),
    ("smtp.connections_max", least(1, "")),
    // More than any server takes from one process.
    ("smtp.mails_per_second_max", between(1, 10_000, "")),
    ("webhook.timeout_ms", least(1, "")),
    ("traces.timeout_ms", least(1, "")),
    ("traces.sampled", between(0, 1, "")),
    ("fraud.hold_confidence", between(0, 1, "")),
    ("fraud.checks.confidence", between(0, 1, "")),
];

/// Sections that are called after something, and whose settings have the ranges of another section.
const ENGINE_OF: [&str; 2] = ["groups", "handlers"];

impl Range {
    /// The range in words.
    pub(super) fn words(&self) -> String {
        match self.most {
            Some(most) => format!("{} to {most}", self.least),
            None => format!("{} or more", self.least),
        }
    }

    fn refusal(&self, setting: &str, value: &Value) -> Option<Wrong> {
        let is_above = |limit: i64| match value {
            Value::Integer(number) => *number > limit,
            #[expect(clippy::cast_precision_loss, reason = "limits of shares are 0 and 1")]
            Value::Float(number) => number.is_nan() || *number > limit as f64,
            _ => false,
        };
        let is_below = |limit: i64| match value {
            Value::Integer(number) => *number < limit,
            #[expect(clippy::cast_precision_loss, reason = "limits of shares are 0 and 1")]
            Value::Float(number) => *number < limit as f64,
            _ => false,
        };
        let (reason, is_said) = match self.most {
            _ if is_below(self.least) => (format!("it is less than {}", self.least), self.most.is_none()),
            Some(most) if is_above(most) => (format!("it is more than {most}"), true),
            _ => return None,
        };
        let reason = match self.why {
            why if is_said && !why.is_empty() => format!("{reason}: {why}"),
            _ => reason,
        };
        Some(Wrong::new(setting, reason, format!("write {}", self.words())))
    }
}

/// The range of a setting, whose section may be called after something.
pub(super) fn of(setting: &str) -> Option<Range> {
    let parts: Vec<&str> = setting.split('.').collect();
    let find = |wanted: String| RANGES.iter().find(|(name, _)| *name == wanted).map(|(_, range)| *range);
    match parts.as_slice() {
        ["fraud", "checks", _, key] => find(format!("fraud.checks.{key}")),
        [section, _, key] if ENGINE_OF.contains(section) => {
            find(format!("{section}.{key}")).or_else(|| find(format!("engine.{key}")))
        }
        _ => find(setting.to_owned()),
    }
}

/// Numbers that lie outside of their range, of the sections that `is_asked` names.
pub(super) fn check(table: &Table, is_asked: impl Fn(&str) -> bool) -> Vec<Wrong> {
    let mut wrong = Vec::new();
    for (section, value) in table.iter().filter(|(section, _)| is_asked(section)) {
        walk(section, value, &mut wrong);
    }
    wrong
}

fn walk(path: &str, value: &Value, wrong: &mut Vec<Wrong>) {
    if let Value::Table(inner) = value {
        for (key, value) in inner {
            walk(&format!("{path}.{key}"), value, wrong);
        }
        return;
    }
    wrong.extend(of(path).and_then(|range| range.refusal(path, value)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_range_is_refused_outside_and_taken_at_its_ends() {
        for (name, range) in RANGES {
            let setting = name
                .replacen("handlers.", "handlers.x.", 1)
                .replacen("checks.", "checks.x.", 1);
            assert_eq!(
                of(&setting).map(|range| range.words()),
                Some(range.words()),
                "{setting}"
            );
            let refused = |number: i64| range.refusal(&setting, &Value::Integer(number)).is_some();
            assert!(refused(range.least - 1) && !refused(range.least), "{setting}");
            if let Some(most) = range.most {
                assert!(refused(most + 1) && !refused(most), "{setting}");
            }
        }
        assert!(of("groups.email.lanes_max").is_some() && of("handlers.email.attempts_max").is_some());
        let share = of("fraud.hold_confidence").unwrap();
        for (value, is_refused) in [(f64::NAN, true), (1.01, true), (-0.1, true), (0.5, false)] {
            assert_eq!(
                share.refusal("x", &Value::Float(value)).is_some(),
                is_refused,
                "{value}"
            );
        }
    }
}
