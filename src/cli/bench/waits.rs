//! Waits that end when they are due. The runtime's timer counts whole milliseconds and rounds up, so that a millisecond of
//! work would take two of them, and the busiest key twice as long as it has to.
//!
//! All waits of a measurement are equally long, so they end in the order in which they began, and the thread that ends them
//! has to be woken only when there was none to wait for.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

/// Ends waits until it is dropped.
#[derive(Debug)]
pub(super) struct Waits {
    shared: Arc<Mutex<Shared>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    /// When each wait ends, and who waits.
    open: VecDeque<(Instant, oneshot::Sender<()>)>,
    is_over: bool,
}

impl Waits {
    /// Starts the thread.
    pub(super) fn start() -> io::Result<Self> {
        let shared = Arc::default();
        let watched = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("waits".to_owned());
        let thread = thread.spawn(move || end_all(&watched))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Waits for so long; at once when nobody ends waits any more.
    pub(super) async fn end_of(&self, wait: Duration) {
        let (told, heard) = oneshot::channel();
        let was_idle = {
            let mut shared = lock(&self.shared);
            let was_idle = shared.open.is_empty();
            shared.open.push_back((Instant::now() + wait, told));
            was_idle
        };
        if let (true, Some(thread)) = (was_idle, &self.thread) {
            thread.thread().unpark();
        }
        if heard.await.is_err() {
            tracing::debug!("waits have ended already");
        }
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        lock(&self.shared).is_over = true;
        let Some(thread) = self.thread.take() else { return };
        thread.thread().unpark();
        if thread.join().is_err() {
            tracing::debug!("the thread that ends waits panicked");
        }
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn end_all(shared: &Mutex<Shared>) {
    loop {
        let now = Instant::now();
        let next = {
            let mut shared = lock(shared);
            if shared.is_over {
                return;
            }
            let due = shared.open.partition_point(|(end, _)| *end <= now);
            for (_, told) in shared.open.drain(..due) {
                if told.send(()).is_err() {
                    tracing::trace!("whoever waited was given up");
                }
            }
            shared.open.front().map(|(end, _)| *end)
        };
        match next {
            Some(end) => std::thread::park_timeout(end.saturating_duration_since(Instant::now())),
            None => std::thread::park(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_wait_takes_as_long_as_asked_and_ends_with_its_thread() {
        let waits = Waits::start().unwrap();
        let began = Instant::now();
        let wait = Duration::from_millis(3);
        futures::future::join_all((0..50).map(|_| waits.end_of(wait))).await;
        assert!(began.elapsed() >= wait);
        drop(waits);
    }
}
