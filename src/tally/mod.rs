//! What a process did, counted by whoever did it and read by whoever shows it to people.
//!
//! These counts belong to the process as a whole, as its log does: who counts sits deep in handlers, scheduled jobs and
//! clients, some of which are made before anything runs. Nothing is ever decided by a count. What is counted for a group
//! alone is its engine's ([`crate::engine::counts`]).
//!
//! Labels hold words from closed lists and names of handlers, never cells, keys or addresses. A counter that is given more
//! than [`SERIES_MAX`] different ones counts the others together, so that a mistake cannot fill memory.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use self::durations::Durations;

pub mod durations;

pub mod reach;

/// Sets of labels that one counter tells apart.
pub const SERIES_MAX: usize = 200;

/// What stands for the labels of those beyond.
const OTHER: &str = "other";

/// Something that is counted: a static, named after what it counts in the plural. It is shown as `afterwrite_NAME_total`.
///
/// ```
/// use afterwrite::tally::Counter;
///
/// static INVOICES: Counter = Counter::new("invoices", "Invoices that were written, by kind", &["kind"]);
///
/// INVOICES.add(&["yearly"], 2);
/// ```
///
/// A handler counts by [`Context::count`](crate::handler::Context::count), so that only what was committed is counted.
#[derive(Debug)]
pub struct Counter {
    /// Its name, without prefix and unit.
    pub name: &'static str,
    /// What it counts, for people.
    pub about: &'static str,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    series: Series<u64>,
}

/// Something that takes time: a static. It is shown as the histogram `afterwrite_NAME_seconds`.
#[derive(Debug)]
pub struct Timer {
    /// Its name, without prefix and unit.
    pub name: &'static str,
    /// What took the time, for people.
    pub about: &'static str,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    series: Series<Durations>,
}

/// Everything that was counted or timed once, by its name.
static COUNTERS: Mutex<BTreeMap<&'static str, &'static Counter>> = Mutex::new(BTreeMap::new());
static TIMERS: Mutex<BTreeMap<&'static str, &'static Timer>> = Mutex::new(BTreeMap::new());

impl Counter {
    /// A counter of this name with these labels.
    pub const fn new(name: &'static str, about: &'static str, labels: &'static [&'static str]) -> Self {
        Self {
            name,
            about,
            labels,
            series: Series::new(),
        }
    }

    /// Has it shown also while there is nothing to count.
    pub fn show(&'static self) {
        self.shown();
    }

    /// The counter of this name: of two that have one name the first is shown, and counts for both, because a name that is
    /// shown twice spoils a scrape.
    fn shown(&'static self) -> &'static Self {
        locked(&COUNTERS).entry(self.name).or_insert(self)
    }

    /// Counts `by` more, under one value for each label.
    ///
    /// # Panics
    /// When there is not one value for each label.
    pub fn add(&'static self, values: &[&str], by: u64) {
        assert_eq!(values.len(), self.labels.len(), "{} has other labels", self.name);
        self.shown()
            .series
            .with(values, |count| *count = count.saturating_add(by));
    }

    /// How many were counted, by the values of the labels.
    pub fn told(&self) -> Vec<(Vec<String>, u64)> {
        self.series.told()
    }
}

impl Timer {
    /// A timer of this name with these labels.
    pub const fn new(name: &'static str, about: &'static str, labels: &'static [&'static str]) -> Self {
        Self {
            name,
            about,
            labels,
            series: Series::new(),
        }
    }

    /// Has it shown also while there is nothing to time.
    pub fn show(&'static self) {
        self.shown();
    }

    fn shown(&'static self) -> &'static Self {
        locked(&TIMERS).entry(self.name).or_insert(self)
    }

    /// Counts something that took so long, under one value for each label.
    ///
    /// # Panics
    /// When there is not one value for each label.
    pub fn observe(&'static self, values: &[&str], took: Duration) {
        assert_eq!(values.len(), self.labels.len(), "{} has other labels", self.name);
        self.shown().series.with(values, |durations| durations.observe(took));
    }

    /// How long they took, by the values of the labels.
    pub fn told(&self) -> Vec<(Vec<String>, Durations)> {
        self.series.told()
    }
}

/// Every counter that counted something.
pub fn counters() -> Vec<&'static Counter> {
    locked(&COUNTERS).values().copied().collect()
}

/// Every timer that timed something.
pub fn timers() -> Vec<&'static Timer> {
    locked(&TIMERS).values().copied().collect()
}

/// Values by those of the labels.
#[derive(Debug)]
struct Series<V>(Mutex<BTreeMap<Vec<String>, V>>);

impl<V: Default + Clone> Series<V> {
    const fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    fn with(&self, values: &[&str], change: impl FnOnce(&mut V)) {
        let mut series = locked(&self.0);
        let mut labels: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
        if series.len() >= SERIES_MAX && !series.contains_key(&labels) {
            labels.iter_mut().for_each(|label| OTHER.clone_into(label));
        }
        change(series.entry(labels).or_default());
    }

    fn told(&self) -> Vec<(Vec<String>, V)> {
        let series = locked(&self.0);
        series
            .iter()
            .map(|(labels, value)| (labels.clone(), value.clone()))
            .collect()
    }
}

/// Nothing is half done where a thread can panic, so what another one left behind is whole.
fn locked<V>(mutex: &Mutex<V>) -> std::sync::MutexGuard<'_, V> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_told_by_its_labels() {
        static APPLES: Counter = Counter::new("test_apples", "Apples", &["colour", "place"]);
        static MORE_APPLES: Counter = Counter::new("test_apples", "Apples", &["colour", "place"]);
        APPLES.add(&["red", "tree"], 2);
        APPLES.add(&["red", "tree"], 1);
        MORE_APPLES.add(&["green", "tree"], 5);
        let of = |colour: &str| vec![colour.to_owned(), "tree".to_owned()];
        assert_eq!(APPLES.told(), [(of("green"), 5), (of("red"), 3)]);
        let shown = counters().into_iter().filter(|counter| counter.name == "test_apples");
        assert_eq!(shown.count(), 1);
    }

    #[test]
    fn values_without_end_are_counted_together() {
        static KEYS: Counter = Counter::new("test_keys", "Keys", &["key"]);
        static WAITS: Timer = Timer::new("test_waits", "Waits", &["key"]);
        for key in 0..SERIES_MAX + 50 {
            KEYS.add(&[&key.to_string()], 1);
            WAITS.observe(&[&key.to_string()], Duration::from_secs(1));
        }
        KEYS.add(&["0"], 1);
        let told: BTreeMap<Vec<String>, u64> = KEYS.told().into_iter().collect();
        assert_eq!(told.len(), SERIES_MAX + 1);
        assert_eq!((told[&vec!["other".to_owned()]], told[&vec!["0".to_owned()]]), (50, 2));
        assert_eq!(WAITS.told().len(), SERIES_MAX + 1);
    }
}
