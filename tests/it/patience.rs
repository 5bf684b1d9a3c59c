//! Waiting for what is sure to come, and saying what did not.

use std::time::Duration;

/// Asks again and again until the answer is there; the only kind of waiting in these tests.
///
/// # Panics
/// When the deadline passes; the message says what was waited for.
pub(crate) async fn until<T>(what: &str, within: Duration, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + within;
    let mut look = tokio::time::interval(Duration::from_millis(100));
    // A look that takes longer than that must leave time to whatever is waited for beside it.
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "waited {within:?} in vain for {what}"
        );
    }
}
