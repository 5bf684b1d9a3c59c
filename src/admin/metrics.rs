//! What a process tells a Prometheus server, in the text form of OpenMetrics.
//!
//! Values are those that each driver told last; a registry is made for every scrape. Labels are names of groups, handlers
//! and closed lists, never names of topics or of anything that grows.

mod figures;

#[cfg(test)]
mod tests;

#[cfg(test)]
mod counted {
    /// What a worker counts beside its groups.
    pub(super) fn show() {
        crate::app::counted::show();
    }
}

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::admin::histogram::Histogram;
use crate::admin::{Group, Told};
use crate::engine::standing::Standing;
use crate::schedule::runner::Standings;

/// What a scrape is answered as.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Labels = Vec<(&'static str, String)>;
type Count = Family<Labels, Counter>;
type Level = Family<Labels, Gauge<f64, AtomicU64>>;
type Spread = Family<Labels, Histogram>;

/// The families, in the order in which they are printed.
#[derive(Default)]
struct Families {
    records: Count,
    skips: Count,
    attempts: Count,
    dead_letters: Count,
    replays: Count,
    jobs: Level,
    suspended: Level,
    parked: Count,
    lagging: Level,
    parked_lanes: Level,
    oldest_open: Level,
    running_lanes: Level,
    lanes_max: Level,
    partitions: Level,
    paused: Level,
    buffered_events: Level,
    buffered_events_max: Level,
    buffered_bytes: Level,
    buffered_bytes_max: Level,
    slot_lag: Level,
    events_behind: Level,
    attempt_durations: Spread,
    ages: Spread,
    scheduled_attempts: Count,
    scheduled_oldest_open: Level,
}

/// Everything, as text.
pub(super) fn text(told: &Told) -> String {
    let families = Families::default();
    for group in told.groups.iter() {
        families.fill(group, &group.standing.borrow());
    }
    if let Some(scheduled) = &told.scheduled {
        families.fill_scheduled(&scheduled.borrow());
    }
    let mut registry = Registry::with_prefix("afterwrite");
    families.register(&mut registry);
    figures::register(told, &mut registry);
    let mut text = String::new();
    if let Err(error) = encode(&mut text, &registry) {
        // A scrape that ends without its last line counts as failed, and says why to whoever looks.
        write!(text, "# {error}").expect("a string takes everything");
    }
    text
}

impl Families {
    fn fill(&self, group: &Group, standing: &Standing) {
        let with = |more: &[(&'static str, &str)]| {
            // Alerts decide by it who is woken, so everything that is said of a group says it.
            let critical = group.is_critical.to_string();
            let mut labels = vec![("group", group.name.clone()), ("critical", critical)];
            labels.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
            labels
        };
        let own = with(&[]);
        let counts = &standing.counts;
        let add = |family: &Count, labels: &Labels, count: u64| {
            family.get_or_create(labels).inc_by(count);
        };
        add(&self.records, &own, counts.delivered);
        for (reason, count) in &counts.skipped {
            add(&self.skips, &with(&[("reason", reason)]), *count);
        }
        for (handler, counts) in group.handlers.iter().zip(&counts.handlers) {
            for (outcome, count) in &counts.attempts {
                let labels = with(&[("handler", handler), ("outcome", outcome)]);
                add(&self.attempts, &labels, *count);
            }
            let labels = with(&[("handler", handler)]);
            self.attempt_durations.get_or_create(&labels).set(&counts.durations);
            self.ages.get_or_create(&labels).set(&counts.ages);
        }
        for (class, count) in &counts.letters {
            add(&self.dead_letters, &with(&[("class", class)]), *count);
        }
        add(&self.replays, &own, counts.replayed);
        add(&self.parked, &own, counts.parked);
        let states = [
            ("running", standing.running),
            ("waiting", standing.waiting),
            ("retrying", standing.retrying),
            ("burying", standing.burying),
        ];
        for (state, jobs) in states {
            set(&self.jobs, &with(&[("state", state)]), jobs);
        }
        for handler in &group.handlers {
            let is_suspended = standing.suspended.iter().any(|other| other.handler == *handler);
            set(
                &self.suspended,
                &with(&[("handler", handler)]),
                usize::from(is_suspended),
            );
        }
        if let Some(oldest) = &standing.oldest_open {
            let at = self.oldest_open.get_or_create(&own);
            #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 have 41 bits")]
            at.set(oldest.since.timestamp_millis() as f64 / 1_000.0);
        }
        set(&self.lagging, &own, usize::from(standing.lagging));
        set(&self.parked_lanes, &own, standing.parked_lanes);
        self.fill_room(&own, standing);
        if let Some(behind) = group.events_behind.as_ref().and_then(|distance| distance.told()) {
            set(&self.events_behind, &own, usize::try_from(behind).unwrap_or(usize::MAX));
        }
        if let Some(log_behind) = &group.log_behind {
            let bytes = usize::try_from(log_behind.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
            set(&self.slot_lag, &own, bytes);
        }
    }

    /// How much of what a group may have is taken.
    fn fill_room(&self, own: &Labels, standing: &Standing) {
        let paused = standing.partitions.iter().filter(|partition| partition.paused).count();
        set(&self.running_lanes, own, standing.running_lanes);
        set(&self.lanes_max, own, standing.lanes_max);
        set(&self.partitions, own, standing.partitions.len());
        set(&self.paused, own, paused);
        set(&self.buffered_events, own, standing.buffered_events);
        set(&self.buffered_events_max, own, standing.buffered_events_max);
        set(&self.buffered_bytes, own, standing.buffered_bytes);
        set(&self.buffered_bytes_max, own, standing.buffered_bytes_max);
    }

    fn fill_scheduled(&self, scheduled: &Standings) {
        for (job, standing) in scheduled {
            for (outcome, count) in [("done", standing.done), ("failed", standing.failed)] {
                let labels = vec![("job", job.clone()), ("outcome", outcome.to_owned())];
                self.scheduled_attempts.get_or_create(&labels).inc_by(count);
            }
            if let Some(tick) = standing.oldest_open {
                let at = self.scheduled_oldest_open.get_or_create(&vec![("job", job.clone())]);
                #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 have 41 bits")]
                at.set(tick.timestamp_millis() as f64 / 1_000.0);
            }
        }
    }

    fn register(self, to: &mut Registry) {
        self.register_counts(to);
        self.register_levels(to);
    }

    fn register_counts(&self, to: &mut Registry) {
        to.register("records", "Records that arrived", self.records.clone());
        to.register("skips", "Records that woke nobody", self.skips.clone());
        to.register("attempts", "Attempts that ended, by how", self.attempts.clone());
        to.register_with_unit(
            "attempt_duration",
            "How long attempts took",
            Unit::Seconds,
            self.attempt_durations.clone(),
        );
        to.register_with_unit(
            "commit_to_done",
            "From the commit of a change in the source's database to the end of the attempt that did it; the oldest of each attempt",
            Unit::Seconds,
            self.ages.clone(),
        );
        to.register(
            "dead_letters",
            "Dead letters that became durable, by class",
            self.dead_letters.clone(),
        );
        to.register("replays", "Dead letters that came back", self.replays.clone());
        to.register(
            "parked",
            "Jobs that were parked as letters because of lag",
            self.parked.clone(),
        );
        to.register(
            "scheduled_attempts",
            "Attempts at scheduled runs that ended in this process",
            self.scheduled_attempts.clone(),
        );
    }

    fn register_levels(self, to: &mut Registry) {
        to.register("jobs", "Jobs that are neither done nor buried", self.jobs);
        to.register(
            "suspended",
            "Whether only probes of the handler are let through",
            self.suspended,
        );
        to.register(
            "lagging",
            "Whether jobs that wait are parked as letters because of lag",
            self.lagging,
        );
        to.register(
            "parked_lanes",
            "Lanes held back behind a buried head",
            self.parked_lanes,
        );
        to.register_with_unit(
            "oldest_open_job_timestamp",
            "When the oldest record with an open job was written; absent when there is none",
            Unit::Seconds,
            self.oldest_open,
        );
        to.register("running_lanes", "Lanes with an attempt that runs", self.running_lanes);
        to.register("lanes_max", "How many may run at once", self.lanes_max);
        to.register("partitions", "Partitions that this process owns", self.partitions);
        to.register(
            "paused_partitions",
            "Partitions whose share of the window is used up",
            self.paused,
        );
        to.register(
            "buffered_events",
            "Records from the frontiers to the newest arrivals",
            self.buffered_events,
        );
        to.register("buffered_events_max", "How many these may be", self.buffered_events_max);
        to.register_with_unit(
            "buffered",
            "Size of the unsettled records",
            Unit::Bytes,
            self.buffered_bytes,
        );
        to.register_with_unit(
            "buffered_max",
            "How much these may be",
            Unit::Bytes,
            self.buffered_bytes_max,
        );
        to.register(
            "events_behind",
            "Records between the committed positions and the ends of the topics; absent while that is not known, and where the log is read",
            self.events_behind,
        );
        to.register_with_unit(
            "slot_lag",
            "Log that was sent and is not confirmed; absent where topics are read",
            Unit::Bytes,
            self.slot_lag,
        );
        to.register_with_unit(
            "scheduled_oldest_open_timestamp",
            "The oldest tick of the job that is neither done nor given up, in any process; absent when there is none",
            Unit::Seconds,
            self.scheduled_oldest_open,
        );
    }
}

#[expect(clippy::cast_precision_loss, reason = "nothing here reaches 2 to the 53")]
fn set(family: &Level, labels: &Labels, value: usize) {
    family.get_or_create(labels).set(value as f64);
}
