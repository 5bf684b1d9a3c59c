//! Jitter: the one place where the `backoff` crate is used.
//!
//! The crate is no longer maintained (RUSTSEC-2025-0012). It was asked for by name, so it stays behind this function,
//! which draws one interval; replacing it touches no other file.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff;

/// Draws a wait between nothing and `ceiling`, evenly ("full jitter"), so that lanes that failed together do not come back
/// together.
pub fn jittered(ceiling: Duration) -> Duration {
    let mut interval = ExponentialBackoff {
        initial_interval: ceiling / 2,
        current_interval: ceiling / 2,
        randomization_factor: 1.0,
        max_elapsed_time: None,
        ..ExponentialBackoff::default()
    };
    interval.next_backoff().unwrap_or(ceiling).min(ceiling)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_spread_over_the_whole_range_and_never_exceed_the_ceiling() {
        let ceiling = Duration::from_secs(8);
        let drawn: Vec<Duration> = (0..1_000).map(|_| jittered(ceiling)).collect();
        assert!(drawn.iter().all(|wait| *wait <= ceiling));
        assert!(drawn.iter().any(|wait| *wait < Duration::from_secs(1)));
        assert!(drawn.iter().any(|wait| *wait > Duration::from_secs(7)));
        assert_eq!(jittered(Duration::ZERO), Duration::ZERO);
    }
}
