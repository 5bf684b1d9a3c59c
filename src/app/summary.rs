//! What a process is about to do, said once at its start: a line for where everything is, a line a group, and a line a job.

use chrono::{SecondsFormat, Utc};

use super::Group;
use crate::config::{Config, shown};
use crate::schedule::runner::Scheduler;

/// Says it.
pub(super) fn say(config: &Config, groups: &[Group], scheduler: Option<&Scheduler>) {
    let shown::Addresses {
        postgres,
        brokers,
        registry,
        mail,
    } = shown::addresses(config);
    let source = if config.source.kind.has_brokers() {
        "kafka"
    } else {
        "wal"
    };
    tracing::info!(
        source,
        postgres,
        brokers,
        registry,
        mail,
        "what this process works with"
    );
    for group in groups {
        let handler = group.handlers.join(",");
        tracing::info!(
            group = %group.name,
            handler,
            critical = group.is_critical,
            reads = group.reads.join(","),
            first_start = group.first_start,
            lanes_max = group.setup.limits.running_max,
            attempts_max = group.attempts_max,
            attempt_timeout_ms = group.attempt_timeout.as_millis(),
            "group is about to start"
        );
    }
    let now = Utc::now();
    for planned in scheduler.into_iter().flat_map(Scheduler::planned) {
        let next = planned.schedule.after(now);
        tracing::info!(
            job = planned.job.name(),
            schedule = %planned.schedule,
            next = next.map(|next| next.to_rfc3339_opts(SecondsFormat::Secs, true)),
            "scheduled job is about to start"
        );
    }
}
