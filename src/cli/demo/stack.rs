//! The demo's stack: `infra/native/stack`, its progress and its addresses, and commands of this program against it.

use std::collections::BTreeMap;
use std::process::{ExitStatus, Output as Ended, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use super::failure::DemoFailure;
use super::place::Place;
use super::screen::Screen;

/// The first start downloads Kafka, Debezium and the registry.
const UP_MAX: Duration = Duration::from_secs(900);

/// Stopping a stack; the script itself kills what does not stop in time.
const DOWN_MAX: Duration = Duration::from_secs(90);

/// One command of this program, such as `migrate`.
const COMMAND_MAX: Duration = Duration::from_secs(120);

/// What every line of the script begins with.
const PREFIX: &str = "stack: ";

/// Variables that a command of this program keeps from the demo's own environment. Everything else might be a setting
/// of another installation.
const KEPT: [&str; 6] = ["PATH", "HOME", "LANG", "TZ", "RUST_LOG", "RUST_BACKTRACE"];

/// The stack in its place.
#[derive(Debug)]
pub(super) struct Stack<'a> {
    place: &'a Place,
    /// Process group of the script that runs now, or 0.
    running: AtomicU32,
}

impl<'a> Stack<'a> {
    pub(super) fn new(place: &'a Place) -> Self {
        Self {
            place,
            running: AtomicU32::new(0),
        }
    }

    /// The services that run.
    pub(super) async fn running(&self) -> Result<Vec<String>, DemoFailure> {
        if !self.place.existed {
            return Ok(Vec::new());
        }
        let status = self.script(&["status"], COMMAND_MAX).await?;
        Ok(services_that(&String::from_utf8_lossy(&status.stdout), true))
    }

    /// The services that were started and have ended; none when that cannot be found out.
    pub(super) async fn dead_services(&self) -> Vec<String> {
        let status = self.script(&["status"], COMMAND_MAX).await;
        let mut dead = status.map_or_else(
            |_| Vec::new(),
            |status| services_that(&String::from_utf8_lossy(&status.stdout), false),
        );
        // One that was never started has said nothing.
        dead.retain(|service| self.place.log(service).metadata().is_ok_and(|log| log.len() > 0));
        dead
    }

    /// Starts what is down of these services, showing the script's progress.
    pub(super) async fn up(&self, screen: &Screen, services: &[&str]) -> Result<(), DemoFailure> {
        let waiting = screen.waiting("starting the services");
        let mut child = self
            .command(&[&["up"], services].concat())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| self.not_started(source))?;
        self.running.store(child.id().unwrap_or_default(), Ordering::Relaxed);
        let lines = child.stderr.take().map(BufReader::new);
        let status = timeout(UP_MAX, async {
            if let Some(lines) = lines {
                show(lines, screen).await;
            }
            child.wait().await
        })
        .await;
        drop(waiting);
        match status {
            Err(_) => Err(DemoFailure::Late {
                what: "the stack to be up".to_owned(),
                seconds: UP_MAX.as_secs(),
                log: self.place.log("connect"),
            }),
            Ok(ended) => {
                self.running.store(0, Ordering::Relaxed);
                success(
                    ended.map_err(|source| self.not_started(source))?,
                    "infra/native/stack up",
                    "",
                )
            }
        }
    }

    /// Ends a script that was cut off.
    async fn end_script(&self) {
        let cut_off = self.running.swap(0, Ordering::Relaxed);
        if cut_off != 0 {
            super::worker::signal("-TERM", &format!("-{cut_off}")).await;
        }
    }

    /// Stops all services but these, those that others need last.
    pub(super) async fn stop_others(&self, kept: &[String]) -> Result<(), DemoFailure> {
        self.end_script().await;
        let mut others = self.running().await?;
        others.retain(|service| !kept.contains(service));
        for service in others.iter().rev() {
            let ended = self.script(&["stop", service], DOWN_MAX).await?;
            let what = format!("infra/native/stack stop {service}");
            success(ended.status, &what, &String::from_utf8_lossy(&ended.stderr))?;
        }
        Ok(())
    }

    /// Stops everything, and deletes its files when it may; ends a script that was cut off first.
    pub(super) async fn down(&self, wipe: bool) -> Result<(), DemoFailure> {
        self.end_script().await;
        let arguments: &[&str] = if wipe { &["down", "--wipe"] } else { &["down"] };
        let ended = self.script(arguments, DOWN_MAX).await?;
        success(
            ended.status,
            &format!("infra/native/stack {}", arguments.join(" ")),
            &String::from_utf8_lossy(&ended.stderr),
        )
    }

    /// The addresses, by the names that this program reads.
    pub(super) async fn addresses(&self) -> Result<BTreeMap<String, String>, DemoFailure> {
        let ended = self.script(&["env"], COMMAND_MAX).await?;
        success(
            ended.status,
            "infra/native/stack env",
            &String::from_utf8_lossy(&ended.stderr),
        )?;
        let said = String::from_utf8_lossy(&ended.stdout).into_owned();
        let pairs = said.lines().filter_map(|line| line.split_once('='));
        Ok(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// Runs a command of this program as a person would; answers what it printed.
    pub(super) async fn afterwrite(
        &self,
        arguments: &[&str],
        settings: &BTreeMap<String, String>,
    ) -> Result<String, DemoFailure> {
        let what = format!("afterwrite {}", arguments.join(" "));
        let mut command = own_program(self.place, settings)?;
        command.args(arguments).kill_on_drop(true);
        let ended = timeout(COMMAND_MAX, command.output())
            .await
            .map_err(|_| DemoFailure::Slow {
                what: what.clone(),
                seconds: COMMAND_MAX.as_secs(),
            })?
            .map_err(DemoFailure::OwnProgram)?;
        success(ended.status, &what, &String::from_utf8_lossy(&ended.stderr))?;
        Ok(String::from_utf8_lossy(&ended.stdout).trim().to_owned())
    }

    async fn script(&self, arguments: &[&str], time_max: Duration) -> Result<Ended, DemoFailure> {
        let mut command = self.command(arguments);
        timeout(time_max, command.kill_on_drop(true).output())
            .await
            .map_err(|_| DemoFailure::Slow {
                what: format!("infra/native/stack {}", arguments.join(" ")),
                seconds: time_max.as_secs(),
            })?
            .map_err(|source| self.not_started(source))
    }

    /// In a process group of its own: a Ctrl-C at the terminal is for the demo, which then takes the stack down.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.place.script());
        command
            .args(arguments)
            .envs(self.place.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .process_group(0);
        command
    }

    fn not_started(&self, source: std::io::Error) -> DemoFailure {
        DemoFailure::Script {
            path: self.place.script(),
            source,
        }
    }
}

/// This program, with these settings and none of the environment's or the working directory's.
pub(super) fn own_program(place: &Place, settings: &BTreeMap<String, String>) -> Result<Command, DemoFailure> {
    let binary = std::env::current_exe().map_err(DemoFailure::OwnProgram)?;
    let mut command = Command::new(binary);
    command
        .env_clear()
        .envs(KEPT.iter().filter_map(|name| Some((*name, std::env::var_os(name)?))))
        .envs(settings)
        .current_dir(&place.dir)
        .stdin(Stdio::null())
        .process_group(0);
    Ok(command)
}

/// What a demo starts.
pub(super) struct Parts {
    /// For people.
    pub(super) in_words: &'static str,
    pub(super) services: &'static [&'static str],
}

/// The parts with Kafka, with nothing but Postgres, or where somebody's Postgres is used.
pub(super) fn parts(with_kafka: bool, has_postgres: bool) -> Parts {
    match (with_kafka, has_postgres) {
        (true, _) => Parts {
            in_words: "the stack: Postgres, Kafka, Kafka Connect with Debezium, a schema registry, a mail catcher",
            services: &["postgres", "kafka", "connect", "registry", "smtp"],
        },
        (false, false) => Parts {
            in_words: "the stack: Postgres and a mail catcher",
            services: &["postgres", "smtp"],
        },
        (false, true) => Parts {
            in_words: "a database in your Postgres, and a mail catcher",
            services: &["smtp"],
        },
    }
}

/// The services that run, or those that do not, by what `stack status` prints.
fn services_that(status: &str, running: bool) -> Vec<String> {
    let lines = status.lines().filter(|line| line.ends_with(" pid -") != running);
    let names = lines.filter_map(|line| line.split(' ').next());
    names.map(str::to_owned).collect()
}

async fn show<R: AsyncRead + Unpin>(lines: BufReader<R>, screen: &Screen) {
    let mut lines = lines.lines();
    loop {
        match lines.next_line().await {
            Ok(Some(line)) => {
                let said = line.strip_prefix(PREFIX).unwrap_or(&line);
                // How to use the stack by hand is said at the end, where it is still there.
                screen.note(said.split(" (export ").next().unwrap_or(said));
            }
            Ok(None) => return,
            Err(error) => {
                tracing::debug!(%error, "the progress of the stack could not be read");
                return;
            }
        }
    }
}

fn success(status: ExitStatus, what: &str, said: &str) -> Result<(), DemoFailure> {
    if status.success() {
        return Ok(());
    }
    Err(DemoFailure::Command {
        what: what.to_owned(),
        status,
        said: said.trim().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_that_run_are_told_from_those_that_do_not() {
        let status = "postgres  up        port 25432  pid 71\nkafka     starting  port 29092  pid 72\n\
                      connect   down      port 28083  pid -\n";
        assert_eq!(services_that(status, true), ["postgres", "kafka"]);
        assert_eq!(services_that(status, false), ["connect"]);
    }
}
