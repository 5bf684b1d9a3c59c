//! Printing what comes, for as long as somebody reads.

use std::pin::pin;

use tokio::sync::mpsc;

use crate::cli::Failure;

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
        tokio::time::timeout(std::time::Duration::from_secs(10), following)
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
