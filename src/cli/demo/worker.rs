//! The worker of the demo: `afterwrite run` in its own process, as in production.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout};

use super::failure::DemoFailure;
use super::place::Place;
use super::stack::own_program;

/// A worker ends what it runs within `engine.shutdown_grace_ms`, which is less.
const STOP_MAX: Duration = Duration::from_secs(40);

/// How often a process that is no child is looked at while it ends.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A running worker.
#[derive(Debug)]
pub(super) struct Worker {
    child: Child,
    /// What it says.
    pub(super) log: PathBuf,
}

impl Worker {
    /// Starts the worker with these settings.
    pub(super) fn start(place: &Place, settings: &BTreeMap<String, String>) -> Result<Self, DemoFailure> {
        let log = place.log("worker");
        let refused = |source| DemoFailure::Log {
            path: log.clone(),
            source,
        };
        let file = std::fs::File::create(&log).map_err(refused)?;
        let errors = file.try_clone().map_err(refused)?;
        let child = own_program(place, settings)?
            .arg("run")
            .stdout(file)
            .stderr(errors)
            .kill_on_drop(true)
            .spawn()
            .map_err(DemoFailure::OwnProgram)?;
        if let Some(started) = child.id().and_then(identity) {
            std::fs::write(pid_file(place), started).map_err(refused)?;
        }
        Ok(Self { child, log })
    }

    /// Its process id while it runs.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Completes when the worker ends, which it should not while the demo plays. Cancel-safe.
    pub(super) async fn ended(&mut self) -> DemoFailure {
        let status = self.child.wait().await;
        DemoFailure::WorkerEnded {
            how: status.map_or_else(|error| error.to_string(), |status| status.to_string()),
            log: self.log.clone(),
        }
    }

    /// Asks it to stop, as an orchestrator would, and waits until it has; answers how long that took, or `None` when it
    /// was known to have ended before.
    pub(super) async fn stop(mut self) -> Result<Option<Duration>, DemoFailure> {
        let began = Instant::now();
        let Some(pid) = self.child.id() else {
            return Ok(None);
        };
        signal("-TERM", &pid.to_string()).await;
        let ended = timeout(STOP_MAX, self.child.wait()).await;
        match ended {
            Ok(Ok(status)) if status.success() => Ok(Some(began.elapsed())),
            Ok(Ok(status)) => Err(self.not_clean(status.to_string())),
            Ok(Err(error)) => Err(self.not_clean(error.to_string())),
            Err(_) => {
                // Dropped with it, the child is killed.
                Err(self.not_clean(format!(
                    "killed, because it did not stop within {} s",
                    STOP_MAX.as_secs()
                )))
            }
        }
    }

    fn not_clean(&self, how: String) -> DemoFailure {
        DemoFailure::WorkerEnded {
            how,
            log: self.log.clone(),
        }
    }
}

/// Ends the worker that a killed demo left behind in this place.
pub(super) async fn stop_leftover(place: &Place) {
    let Ok(started) = std::fs::read_to_string(pid_file(place)) else {
        return;
    };
    let Some(pid) = started.split(' ').next().and_then(|pid| pid.parse::<u32>().ok()) else {
        return;
    };
    let runs = || identity(pid).as_deref() == Some(started.as_str());
    let deadline = Instant::now() + STOP_MAX;
    while runs() {
        let word = if Instant::now() < deadline { "-TERM" } else { "-KILL" };
        signal(word, &pid.to_string()).await;
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Sends a signal to a process, or with a leading minus to a group.
pub(super) async fn signal(word: &str, target: &str) {
    let sent: std::io::Result<ExitStatus> = Command::new("kill")
        .args([word, "--", target])
        .stderr(Stdio::null())
        .status()
        .await;
    if let Err(error) = sent {
        tracing::warn!(%error, "a signal could not be sent");
    }
}

fn pid_file(place: &Place) -> PathBuf {
    place.dir.join("run/demo-worker.pid")
}

/// The process id with its start time, so that a process which got the number later is never taken for it. `None` when
/// the process is gone, also when only its parent has not asked yet.
fn identity(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    // The name in brackets may hold blanks.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?;
    let started = fields.nth(18)?;
    (state != "Z").then(|| format!("{pid} {started}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start_time() {
        let own = std::process::id();
        let (pid, started) = identity(own)
            .and_then(|text| text.split_once(' ').map(|(pid, at)| (pid.to_owned(), at.to_owned())))
            .unwrap();
        assert_eq!(pid, own.to_string());
        assert!(started.parse::<u64>().unwrap() > 0);
        assert_eq!(identity(u32::MAX), None);
    }
}
