//! How long things took, as a histogram whose bounds are the same everywhere.

use std::time::Duration;

/// Upper bounds of the buckets, in seconds: from a handler that only looks, over calls of other services, to what waited for
/// an outage. What took longer is in a bucket of its own.
pub const BOUNDS: [f64; 18] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0, 7_200.0,
];

/// Durations, counted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Durations {
    buckets: [u64; BOUNDS.len() + 1],
    count: u64,
    sum: Duration,
}

impl Durations {
    /// Counts one. A sum that no number can hold stays where it is.
    pub fn observe(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = BOUNDS.iter().position(|bound| seconds <= *bound);
        self.buckets[bucket.unwrap_or(BOUNDS.len())] += 1;
        self.count += 1;
        self.sum = self.sum.saturating_add(took);
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// How long all of them took together.
    pub fn sum(&self) -> Duration {
        self.sum
    }

    /// Each bucket's upper bound in seconds, the last without one, and how many are in it and in no earlier one.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> {
        let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
        bounds.zip(self.buckets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_in_the_first_bucket_that_has_room_for_it() {
        let mut durations = Durations::default();
        for ms in [0, 1, 2, 30_000, 30_001, 7_200_001] {
            durations.observe(Duration::from_millis(ms));
        }
        let filled: Vec<(f64, u64)> = durations.buckets().filter(|(_, count)| *count > 0).collect();
        assert_eq!(
            filled,
            [(0.001, 2), (0.0025, 1), (30.0, 1), (60.0, 1), (f64::INFINITY, 1)]
        );
        assert_eq!(
            (durations.count(), durations.sum()),
            (6, Duration::from_millis(7_260_005))
        );
        assert!(BOUNDS.is_sorted());
    }
}
