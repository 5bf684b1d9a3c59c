//! A limit of calls a second, kept by waiting.
//!
//! Turns are given out one after the other, an interval apart, over all tasks of a process; no burst makes up for quiet
//! times. Whoever would wait for longer than it can is told when to come back, each a turn later than the one before, so
//! that a long queue does not ask all the time.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Gives out turns.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    wait_max: Duration,
    next: Mutex<Next>,
}

/// Where the queue ends.
#[derive(Debug, Clone, Copy)]
struct Next {
    /// The first turn that nobody has.
    free: Instant,
    /// The first moment for which nobody was told to come back.
    unpromised: Instant,
}

impl Pace {
    /// At most so many turns a second, for callers that can wait for `wait_max`.
    pub(super) fn new(per_second_max: u32, wait_max: Duration) -> Self {
        let now = Instant::now();
        Self {
            interval: Duration::from_secs(1) / per_second_max.max(1),
            wait_max,
            next: Mutex::new(Next {
                free: now,
                unpromised: now,
            }),
        }
    }

    /// Waits for a turn; `Err` says when to come back for one. A turn whose caller is gone passes unused.
    pub(super) async fn turn(&self) -> Result<(), Duration> {
        let turn = {
            let mut next = self.next.lock().expect("no panic while held");
            next.take(Instant::now(), self.interval, self.wait_max)?
        };
        sleep_until(turn).await;
        Ok(())
    }
}

impl Next {
    fn take(&mut self, now: Instant, interval: Duration, wait_max: Duration) -> Result<Instant, Duration> {
        let turn = self.free.max(now);
        if turn - now <= wait_max {
            self.free = turn + interval;
            return Ok(turn);
        }
        let promised = self.unpromised.max(turn);
        self.unpromised = promised + interval;
        Err(promised - now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_an_interval_apart_and_quiet_times_are_not_made_up_for() {
        let start = Instant::now();
        let mut next = Next {
            free: start,
            unpromised: start,
        };
        let ms = Duration::from_millis;
        let mut at = |after: u64| {
            let turn = next.take(start + ms(after), ms(100), ms(250));
            turn.map(|turn| (turn - start).as_millis())
                .map_err(|wait| wait.as_millis())
        };
        assert_eq!([at(0), at(0), at(0)], [Ok(0), Ok(100), Ok(200)]);
        // Whoever cannot wait comes back one after the other, and finds a turn then.
        assert_eq!([at(10), at(20), at(30)], [Err(290), Err(380), Err(470)]);
        assert_eq!([at(300), at(400), at(500)], [Ok(300), Ok(400), Ok(500)]);
        assert_eq!([at(5_000), at(5_000)], [Ok(5_000), Ok(5_100)]);
    }

    #[tokio::test]
    async fn a_turn_is_waited_for() {
        let pace = Pace::new(100, Duration::from_secs(1));
        let start = Instant::now();
        for _ in 0..4 {
            pace.turn().await.unwrap();
        }
        assert!(start.elapsed() >= Duration::from_millis(30), "{:?}", start.elapsed());
        let impatient = Pace::new(1, Duration::ZERO);
        impatient.turn().await.unwrap();
        assert!(impatient.turn().await.unwrap_err() > Duration::from_millis(500));
    }
}
