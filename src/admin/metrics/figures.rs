//! What is told of the process as a whole: what handlers and clients counted, its database connections, and the
//! application's figures.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::{Labels, Level, set};
use crate::admin::Told;
use crate::admin::histogram::Histogram;
use crate::handlers::figures::Figures;
use crate::tally;

pub(super) fn register(told: &Told, to: &mut Registry) {
    register_tallies(to);
    register_pools(told, to);
    if let Some(figures) = told.figures.as_ref().and_then(|figures| figures.borrow().clone()) {
        register_figures(&figures, to);
    }
}

fn labels(names: &'static [&'static str], values: Vec<String>) -> Labels {
    names.iter().copied().zip(values).collect()
}

fn register_tallies(to: &mut Registry) {
    for counter in tally::counters() {
        let family = Family::<Labels, Counter>::default();
        for (values, count) in counter.told() {
            family.get_or_create(&labels(counter.labels, values)).inc_by(count);
        }
        to.register(counter.name, counter.about, family);
    }
    for timer in tally::timers() {
        let family = Family::<Labels, Histogram>::default();
        for (values, durations) in timer.told() {
            family.get_or_create(&labels(timer.labels, values)).set(&durations);
        }
        to.register_with_unit(timer.name, timer.about, Unit::Seconds, family);
    }
}

/// How long somebody waits for a connection is not told by the pool; a pool whose connections are all busy is where to look.
fn register_pools(told: &Told, to: &mut Registry) {
    let (connections, connections_max) = (Level::default(), Level::default());
    for (name, pool) in &*told.pools {
        let open = usize::try_from(pool.size()).unwrap_or(usize::MAX);
        let idle = pool.num_idle().min(open);
        let of = |state: &str| vec![("pool", name.clone()), ("state", state.to_owned())];
        set(&connections, &of("idle"), idle);
        set(&connections, &of("busy"), open - idle);
        let most = usize::try_from(pool.options().get_max_connections()).unwrap_or(usize::MAX);
        set(&connections_max, &vec![("pool", name.clone())], most);
    }
    to.register(
        "pool_connections",
        "Database connections that are open, by what they do",
        connections,
    );
    to.register("pool_connections_max", "How many may be open", connections_max);
}

fn register_figures(figures: &Figures, to: &mut Registry) {
    let (rewards, detections) = (Level::default(), Level::default());
    for (state, count) in &figures.rewards {
        let count = usize::try_from(*count).unwrap_or(usize::MAX);
        set(&rewards, &vec![("state", (*state).to_owned())], count);
    }
    for ((kind, state), count) in &figures.detections {
        let labels = vec![("type", (*kind).to_owned()), ("status", (*state).to_owned())];
        set(&detections, &labels, usize::try_from(*count).unwrap_or(usize::MAX));
    }
    to.register(
        "rewards",
        "Rewards by state, 10000 of each at most; told by one process of all",
        rewards,
    );
    to.register(
        "detections",
        "Findings of the fraud checks by type and status, 10000 of each status at most; told by one process of all",
        detections,
    );
    let oldest_review = Family::<Labels, Gauge<f64, AtomicU64>>::default();
    if let Some(found) = figures.oldest_review {
        #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 have 41 bits")]
        let seconds = found.timestamp_millis() as f64 / 1_000.0;
        oldest_review.get_or_create(&Vec::new()).set(seconds);
    }
    to.register_with_unit(
        "oldest_review_timestamp",
        "When the oldest finding was made that nobody has decided about; absent when there is none",
        Unit::Seconds,
        oldest_review,
    );
}
