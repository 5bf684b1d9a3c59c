//! Watches the run: how much is settled each second, and for how long nothing was although something could be.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use crate::world::World;

/// Nothing was settled for so long: something hangs, and waiting on tells nothing more.
const HANGS_AFTER: Duration = Duration::from_secs(120);

/// After an outage a process may fail of it for so long: it waits for a connection, or for what it was asked last.
const AFTERMATH: Duration = Duration::from_secs(15);

/// What is known of the run while it goes on. One task looks, the others read.
pub(super) struct Watch {
    began: Instant,
    run_max: Duration,
    down: Cell<usize>,
    /// Since when everything that members need is there.
    up_since: Cell<Instant>,
    settled: Cell<usize>,
    progressed_at: Cell<Instant>,
    longest_stall: Cell<(Duration, Duration)>,
    /// Settled events at the end of each second.
    seconds: RefCell<Vec<usize>>,
}

impl Watch {
    pub(super) fn new(run_max: Duration) -> Self {
        let now = Instant::now();
        Self {
            began: now,
            run_max,
            down: Cell::new(0),
            up_since: Cell::new(now),
            settled: Cell::new(0),
            progressed_at: Cell::new(now),
            longest_stall: Cell::new((Duration::ZERO, Duration::ZERO)),
            seconds: RefCell::default(),
        }
    }

    /// Looks each second, for ever.
    pub(super) async fn run(&self, world: &World) {
        let mut look = tokio::time::interval(Duration::from_secs(1));
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            let sql = "SELECT (SELECT count(*) FROM done) + (SELECT count(*) FROM afterwrite.letters)";
            let asked = sqlx::query_scalar::<_, i64>(sql).fetch_one(&world.pool);
            if let Ok(Ok(settled)) = tokio::time::timeout(Duration::from_secs(5), asked).await {
                self.saw(usize::try_from(settled).unwrap());
            }
            self.seconds.borrow_mut().push(self.settled.get());
            self.judge();
        }
    }

    fn saw(&self, settled: usize) {
        if settled > self.settled.get() {
            self.settled.set(settled);
            self.progressed_at.set(Instant::now());
        }
    }

    fn judge(&self) {
        let now = Instant::now();
        if self.down.get() > 0 {
            self.up_since.set(now);
        }
        let stall = now - self.progressed_at.get().max(self.up_since.get());
        if stall > self.longest_stall.get().0 {
            self.longest_stall.set((stall, now - self.began));
        }
        let settled = self.settled.get();
        assert!(
            stall < HANGS_AFTER,
            "nothing was settled for {stall:.0?} after {settled} events"
        );
        let elapsed = now - self.began;
        assert!(elapsed < self.run_max, "{settled} events were settled in {elapsed:.0?}");
    }

    /// Something that members need is being taken away, until the answer is dropped.
    pub(super) fn outage(&self) -> Outage<'_> {
        self.down.set(self.down.get() + 1);
        Outage(self)
    }

    /// Whether something is away now.
    pub(super) fn is_outage(&self) -> bool {
        self.down.get() > 0
    }

    /// Whether a process that ends now may have done so because of an outage.
    pub(super) fn excuses(&self) -> bool {
        self.is_outage() || self.up_since.get().elapsed() < AFTERMATH && self.up_since.get() != self.began
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Events that are done or buried.
    pub(super) fn settled(&self) -> usize {
        self.settled.get()
    }

    /// The longest time without progress while everything was there, and when it ended.
    pub(super) fn longest_stall(&self) -> (Duration, Duration) {
        self.longest_stall.get()
    }

    /// Events settled in each tenth of the run, a second.
    pub(super) fn pace(&self) -> String {
        let seconds = self.seconds.borrow();
        let part = seconds.len().div_ceil(10).max(1);
        let mut before = 0;
        let rates = seconds.chunks(part).map(|chunk| {
            let last = *chunk.last().unwrap();
            let rate = (last - before) / chunk.len();
            before = last;
            rate.to_string()
        });
        rates.collect::<Vec<_>>().join(" ")
    }
}

/// See [`Watch::outage`].
pub(super) struct Outage<'a>(&'a Watch);

impl Drop for Outage<'_> {
    fn drop(&mut self) {
        self.0.down.set(self.0.down.get() - 1);
        self.0.up_since.set(Instant::now());
    }
}
