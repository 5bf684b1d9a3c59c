//! Waiting for Kafka Connect, which answers before it acts.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::ConnectorFailure;
use crate::cli::Failure;
use crate::clients::connect::{ConnectClient, ConnectError, ConnectorStatus};

/// How often the state is asked for while waiting.
pub(in crate::cli) const POLL_EVERY: Duration = Duration::from_millis(200);

/// Longest wait before a busy cluster is asked again.
const BUSY_WAIT_MAX: Duration = Duration::from_secs(2);

/// A failed task is given this long to be restarted by Connect before the command gives up on it: a task of the
/// configuration before may be seen failing.
const FAILED_FOR: Duration = Duration::from_secs(3);

/// A deadline, and what is done until then.
#[derive(Debug)]
pub(in crate::cli) struct Patience {
    pub(in crate::cli) wait_s: u64,
    deadline: Instant,
}

impl Patience {
    pub(in crate::cli) fn new(wait_s: u64) -> Self {
        Self {
            wait_s,
            deadline: Instant::now() + Duration::from_secs(wait_s),
        }
    }

    pub(in crate::cli) fn is_over(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Repeats a request while the cluster is busy or away.
    pub(in crate::cli) async fn insist<T, F: Future<Output = Result<T, ConnectError>>>(
        &self,
        request: impl Fn() -> F,
    ) -> Result<T, ConnectError> {
        let mut wait = POLL_EVERY;
        loop {
            match request().await {
                Err(ConnectError::Busy { .. } | ConnectError::Unreachable { .. }) if !self.is_over() => {}
                answer => return answer,
            }
            sleep(wait).await;
            wait = (wait * 2).min(BUSY_WAIT_MAX);
        }
    }

    /// Waits until the status is as wanted. A task that failed and stays failed ends the wait at once.
    pub(in crate::cli) async fn until(
        &self,
        client: &ConnectClient,
        name: &str,
        wanted: &'static str,
        is_so: impl Fn(Option<&ConnectorStatus>) -> bool,
    ) -> Result<Option<ConnectorStatus>, Failure> {
        let mut failed_since = None;
        loop {
            let status = self.insist(|| client.status(name)).await?;
            if is_so(status.as_ref()) {
                return Ok(status);
            }
            let failed = status.as_ref().and_then(ConnectorStatus::failed);
            failed_since = failed.map(|_| failed_since.unwrap_or_else(Instant::now));
            let stays_failed = failed_since.is_some_and(|since: Instant| since.elapsed() >= FAILED_FOR);
            if let Some(part) = failed
                && ["running", "paused"].contains(&wanted)
                && (stays_failed || self.is_over())
            {
                return Err(Failure::failed(ConnectorFailure::Failed {
                    name: name.to_owned(),
                    trace: causes_of(part.trace.as_deref().unwrap_or("no trace was given")),
                }));
            }
            if self.is_over() {
                return Err(Failure::failed(ConnectorFailure::NotYet {
                    name: name.to_owned(),
                    wanted,
                    wait_s: self.wait_s,
                    state: state_in_words(status.as_ref()),
                }));
            }
            sleep(POLL_EVERY).await;
        }
    }
}

/// The lines of a Java trace that say what happened; `status` shows all of it.
fn causes_of(trace: &str) -> String {
    let lines = trace
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with("at ") && !line.is_empty());
    lines.collect::<Vec<_>>().join("; ")
}

pub(in crate::cli) fn state_in_words(status: Option<&ConnectorStatus>) -> String {
    let Some(status) = status else {
        return "unknown to kafka connect".to_owned();
    };
    let tasks: Vec<&str> = status.tasks.iter().map(|task| task.state.as_str()).collect();
    let tasks = match tasks.as_slice() {
        [] => "no task".to_owned(),
        states => format!("tasks {}", states.join(", ")),
    };
    format!("{} with {tasks}", status.connector.state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_cut_to_what_happened() {
        assert_eq!(causes_of("a: b\n\tat x.y(Z:1)\nCaused by: c\n"), "a: b; Caused by: c");
        assert_eq!(state_in_words(None), "unknown to kafka connect");
    }
}
