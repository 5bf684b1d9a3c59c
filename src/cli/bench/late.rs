//! How late records are done: from the moment at which each was due to be written, which is its timestamp, to the end of
//! its handler. A writer that falls behind hides nothing that way.

use chrono::Utc;

/// Delays of one measurement.
#[derive(Debug)]
pub(super) struct Late {
    /// Records that are done before the first whose delay counts.
    still_warming: u64,
    by_us: Vec<i64>,
}

impl Late {
    /// Counts the delays of all records but the first `warm_up`.
    pub(super) fn after(warm_up: u64) -> Self {
        Self {
            still_warming: warm_up,
            by_us: Vec::new(),
        }
    }

    /// A record is done that was due then.
    pub(super) fn done(&mut self, due_ms: i64) {
        if self.still_warming > 0 {
            self.still_warming -= 1;
            return;
        }
        self.by_us.push(Utc::now().timestamp_micros() - due_ms * 1_000);
    }

    /// The delay that this share of the records did not exceed, in milliseconds.
    pub(super) fn percentile_ms(&self, share: f64) -> Option<f64> {
        let mut sorted = self.by_us.clone();
        sorted.sort_unstable();
        let place = (sorted.len() as f64 * share).ceil() as usize;
        sorted.get(place.saturating_sub(1)).map(|by_us| *by_us as f64 / 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_delays_that_were_seen() {
        let late = Late {
            still_warming: 0,
            by_us: (1..=100).rev().map(|ms| ms * 1_000).collect(),
        };
        assert_eq!(late.percentile_ms(0.5), Some(50.0));
        assert_eq!(late.percentile_ms(0.99), Some(99.0));
        assert_eq!(Late::after(0).percentile_ms(0.5), None);
    }

    #[test]
    fn what_is_done_while_it_warms_up_does_not_count() {
        let mut late = Late::after(1);
        late.done(0);
        let due_ms = Utc::now().timestamp_millis() - 1_000;
        late.done(due_ms);
        let delay = late.percentile_ms(1.0).unwrap();
        assert!((1_000.0..60_000.0).contains(&delay), "{delay}");
    }
}
