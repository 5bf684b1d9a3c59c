//! Reading topics without a group, and printing what comes for as long as somebody reads.

use std::io::{self, Write};
use std::pin::pin;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::app;
use crate::cli::Failure;
use crate::config::Config;
use crate::source::kafka::follow::{Error, Followed, Follower, From};

/// Records that are read ahead of whoever takes them.
const AHEAD_MAX: usize = 256;

/// The thread that reads.
pub(super) struct Reading(JoinHandle<Result<(), Error>>);

impl Reading {
    /// How it ended. It does when nobody takes records any more.
    pub(super) async fn ended(self) -> Result<(), Failure> {
        self.0.await.map_err(Failure::failed)?.map_err(|error| match error {
            Error::Client(_) | Error::Refused(_) => Failure::usage(error),
            Error::Read { .. } => Failure::unreachable(error),
        })
    }
}

/// Reads the topics of the source. `begun` is told how many partitions are read, and of which topics.
pub(super) fn read_topics(
    config: &Config,
    from: From,
    begun: impl FnOnce(usize, &str) + Send + 'static,
) -> (mpsc::Receiver<Followed>, Reading) {
    let options = app::options::reading_options(config);
    let name = config.source.name.clone();
    let (records, coming) = mpsc::channel(AHEAD_MAX);
    let reading = tokio::task::spawn_blocking(move || {
        let mut follower = Follower::start(&options, &name, from)?;
        begun(follower.partitions(), &format!("{name}.*"));
        while !records.is_closed() {
            if let Some(followed) = follower.next(Duration::from_millis(200))?
                && records.blocking_send(followed).is_err()
            {
                break;
            }
        }
        Ok(())
    });
    (coming, Reading(reading))
}

/// Says something beside the output. Whoever reads both may have left (`2>&1 | head`): then nobody needs the hint.
pub(super) fn hint(text: &str) {
    drop(writeln!(io::stderr(), "{text}"));
}

/// Hands on what comes until there is no more, `limit` is printed, nobody wants more, or `stop` completes; whoever stops is
/// heard at once, also while `print` waits. `print` answers what it printed, and `None` when nobody reads any more.
pub(super) async fn follow<T>(
    mut coming: mpsc::Receiver<T>,
    stop: impl Future<Output = Result<(), Failure>>,
    limit: Option<u64>,
    mut print: impl AsyncFnMut(T) -> Result<Option<u64>, Failure>,
) -> Result<(), Failure> {
    let mut stop = pin!(stop);
    let mut left = limit.unwrap_or(u64::MAX);
    while left > 0 {
        let next = async {
            match coming.recv().await {
                Some(next) => print(next).await,
                None => Ok(None),
            }
        };
        tokio::select! {
            biased;
            stopped = &mut stop => return stopped,
            printed = next => match printed? {
                Some(lines) => left = left.saturating_sub(lines),
                None => return Ok(()),
            },
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Follows the numbers 0 to 9, printing the even ones.
    async fn printed(
        stop: impl Future<Output = Result<(), Failure>>,
        limit: Option<u64>,
        reader_leaves_at: u64,
    ) -> Vec<u64> {
        let (numbers, coming) = mpsc::channel(10);
        for number in 0..10_u64 {
            numbers.send(number).await.unwrap();
        }
        drop(numbers);
        let mut printed = Vec::new();
        follow(coming, stop, limit, async |number| {
            if number >= reader_leaves_at {
                return Ok(None);
            }
            if number % 2 == 0 {
                printed.push(number);
            }
            Ok(Some(u64::from(number % 2 == 0)))
        })
        .await
        .unwrap();
        printed
    }

    #[tokio::test]
    async fn a_stop_is_heard_while_something_waits_to_be_printed() {
        let (numbers, coming) = mpsc::channel(1);
        numbers.send(1).await.unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let mut stop = Some(stop);
        let stopping = async {
            stopped.await.unwrap();
            Ok(())
        };
        let following = follow(coming, stopping, None, async |_: u64| {
            stop.take().unwrap().send(()).unwrap();
            std::future::pending().await
        });
        tokio::time::timeout(Duration::from_secs(10), following)
            .await
            .expect("a schema may be waited for without end")
            .unwrap();
    }

    #[tokio::test]
    async fn following_ends_by_itself_at_its_limit_without_a_reader_and_when_told() {
        assert_eq!(printed(std::future::pending(), None, 99).await, [0, 2, 4, 6, 8]);
        assert_eq!(printed(std::future::pending(), Some(2), 99).await, [0, 2]);
        assert_eq!(printed(std::future::pending(), None, 3).await, [0, 2]);
        assert_eq!(printed(async { Ok(()) }, None, 99).await, [] as [u64; 0]);
    }
}
