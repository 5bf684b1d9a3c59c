//! Workers as processes of this binary, with a handler that records what it did and fails as the row tells it to.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use afterwrite::app;
use afterwrite::config::load::{Inputs, load};
use afterwrite::event::change::ChangeEvent;
use afterwrite::event::row::Row;
use afterwrite::handler::{Context, Handler, HandlerError, Keyless, Ordering, Outcome, Route, Spec};
use async_trait::async_trait;
use tokio::sync::watch;

use crate::stack;
use crate::world::World;

/// Set in worker processes: the worker's name.
const NAME: &str = "AFTERWRITE_IT_WORKER";

/// A worker process. Dropped, it is killed.
pub(crate) struct Worker {
    child: Child,
    log: PathBuf,
}

impl Worker {
    /// A worker with the handler of this file.
    pub(crate) fn recording(world: &World, name: &str, settings: &[(&str, &str)]) -> Self {
        Self::of_test("worker::works_when_started_as_a_worker", world, name, settings)
    }

    /// A worker that is this binary again, running one test of it, which calls [`work_when_started_as_a_worker`]. An empty
    /// setting takes away what every worker has.
    pub(crate) fn of_test(test: &str, world: &World, name: &str, settings: &[(&str, &str)]) -> Self {
        let mut command = world.command(std::env::current_exe().unwrap());
        command.args([test, "--exact", "--nocapture"]).env(NAME, name);
        Self::spawn(world, name, command, settings)
    }

    /// `afterwrite run`, with the waitlist's handlers.
    pub(crate) fn waitlist(world: &World, name: &str, settings: &[(&str, &str)]) -> Self {
        let mut command = world.command(env!("CARGO_BIN_EXE_afterwrite"));
        command.arg("run");
        Self::spawn(world, name, command, settings)
    }

    fn spawn(world: &World, name: &str, command: tokio::process::Command, settings: &[(&str, &str)]) -> Self {
        let path = std::env::temp_dir().join(format!("{}-{name}.log", world.name));
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .unwrap();
        let mut command = command.into_std();
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        for (name, value) in settings {
            // Empty is not set, also where the world sets it.
            match *value {
                "" => command.env_remove(name),
                value => command.env(name, value),
            };
        }
        Self {
            child: command.spawn().unwrap(),
            log: path,
        }
    }

    /// Everything the process said.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// The local ports of its connections with this port of the machine.
    pub(crate) fn connections(&self, port: u16) -> BTreeSet<u16> {
        let process = PathBuf::from(format!("/proc/{}", self.child.id()));
        let open = std::fs::read_dir(process.join("fd")).unwrap();
        let open = open.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
        let sockets: BTreeSet<String> = open.map(|link| link.to_string_lossy().into_owned()).collect();
        let table = std::fs::read_to_string(process.join("net/tcp")).unwrap();
        let rows = table
            .lines()
            .skip(1)
            .map(|line| line.split_whitespace().collect::<Vec<_>>());
        let port_of = |place: &str| u16::from_str_radix(place.rsplit_once(':').unwrap().1, 16).unwrap();
        // Established, to this port, and this process's.
        let ours = rows.filter(|row| {
            row[3] == "01" && port_of(row[2]) == port && sockets.contains(&format!("socket:[{}]", row[9]))
        });
        ours.map(|row| port_of(row[1])).collect()
    }

    /// The most memory that the process ever had, in megabytes.
    pub(crate) fn memory_mb_max(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
        kilobytes / 1024
    }

    /// Kills the process with SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The most memory that the process has had; `None` when it is gone.
    pub(crate) fn memory_peak_kb(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        peak.trim_end_matches("kB").trim().parse().ok()
    }

    /// Freezes the process: it keeps its connections and does nothing any more.
    pub(crate) fn freeze(&self) {
        self.signal("-STOP");
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// Asks the process to stop with SIGTERM, and does not wait for it.
    pub(crate) fn ask_to_stop(&self) {
        self.signal("-TERM");
    }

    /// Has the process read its configuration again.
    pub(crate) fn hang_up(&self) {
        self.signal("-HUP");
    }

    /// Whether the process has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.ended().is_some()
    }

    /// How the process ended, when it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Asks the process to stop with SIGTERM and waits until it has.
    pub(crate) async fn stop(mut self) {
        self.ask_to_stop();
        let status = stack::until("the worker to stop", Duration::from_secs(40), async || {
            self.child.try_wait().unwrap()
        })
        .await;
        assert!(status.success(), "the worker stopped with {status}");
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
    }
}

/// What worker processes run. Without the variable it is the check that no test runs as a worker by accident.
#[test]
fn works_when_started_as_a_worker() {
    work_when_started_as_a_worker(|worker| Arc::new(Recorder { worker }));
}

/// Runs a handler until SIGTERM in a process that was started as a worker, under the worker's name; in any other process
/// it does nothing.
pub(crate) fn work_when_started_as_a_worker(handler: impl FnOnce(String) -> Arc<dyn Handler>) {
    let Ok(name) = std::env::var(NAME) else { return };
    afterwrite::telemetry::start(afterwrite::telemetry::Format::Human, None);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let config = load(&Inputs::of_process(None, &[])).unwrap();
        let (stop, stopping) = watch::channel(false);
        tokio::spawn(async move {
            afterwrite::cli::stop_signal().await.unwrap();
            stop.send_replace(true);
        });
        app::serve(&config, vec![handler(name)], stopping).await.unwrap();
    });
}

/// Records each event in `effects`, in its once-only transaction, and behaves as the row's `behaviour` says:
/// `ok`, `fail:N` (transient until the N-th attempt), `later` (always transient, and not again for a second), `permanent` (until the key is in `mended`), `down` (transient until 0 is in `mended`), `panic`, `hang`, `abort` (the process dies),
/// `hold:NAME` (never ends in the worker of that name, its transaction open).
struct Recorder {
    worker: String,
}

#[async_trait]
impl Handler for Recorder {
    fn spec(&self) -> Spec {
        Spec {
            name: "recorder".to_owned(),
            routes: vec![Route {
                schema: "public".to_owned(),
                table: "work".to_owned(),
                ordering: Ordering::PrimaryKey,
                keyless: Keyless::Refused,
            }],
            coalesce_max: 1,
            attempt_timeout: None,
        }
    }

    async fn handle(&self, context: &mut Context, events: &[Arc<ChangeEvent>]) -> Result<Outcome, HandlerError> {
        let row = events[0]
            .after()
            .or(events[0].before())
            .ok_or_else(|| HandlerError::permanent("no row"))?;
        let (key, seq) = (number(row, "k")?, number(row, "seq")?);
        let attempt = i32::try_from(context.attempt()).unwrap();
        sqlx::query("INSERT INTO attempts (k, seq, attempt) VALUES ($1, $2, $3)")
            .bind(key)
            .bind(seq)
            .bind(attempt)
            .execute(context.pool())
            .await?;
        self.behave(row.text("behaviour").unwrap_or("ok"), key, context).await?;
        let replayed = context.replayed();
        let Some(once) = context.once().await? else {
            return Ok(Outcome::Done);
        };
        sqlx::query("INSERT INTO effects (k, seq, worker, attempt, replayed) VALUES ($1, $2, $3, $4, $5)")
            .bind(key)
            .bind(seq)
            .bind(&self.worker)
            .bind(attempt)
            .bind(replayed)
            .execute(once.connection)
            .await?;
        if row
            .text("behaviour")
            .and_then(|behaviour| behaviour.strip_prefix("hold:"))
            == Some(&*self.worker)
        {
            std::future::pending::<()>().await;
        }
        Ok(Outcome::Done)
    }
}

impl Recorder {
    async fn behave(&self, behaviour: &str, key: i32, context: &Context) -> Result<(), HandlerError> {
        match behaviour.split_once(':') {
            Some(("fail", times)) if context.attempt() < times.parse().map_err(HandlerError::permanent)? => {
                Err(HandlerError::transient("the row says so"))
            }
            _ => match behaviour {
                "permanent" => {
                    let mended: Option<i32> = sqlx::query_scalar("SELECT k FROM mended WHERE k = $1")
                        .bind(key)
                        .fetch_optional(context.pool())
                        .await?;
                    mended
                        .map(|_| ())
                        .ok_or_else(|| HandlerError::permanent("the row says so"))
                }
                "down" => {
                    let is_up: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM mended WHERE k = 0)")
                        .fetch_one(context.pool())
                        .await?;
                    match is_up {
                        true => Ok(()),
                        false => Err(HandlerError::transient("what every row needs is down")),
                    }
                }
                "later" => Err(HandlerError::retry_after(Duration::from_secs(1), "the row says so")),
                "panic" => panic!("the row says so"),
                "hang" => std::future::pending().await,
                "abort" => std::process::abort(),
                _ => Ok(()),
            },
        }
    }
}

fn number(row: &Row, column: &str) -> Result<i32, HandlerError> {
    let value = row.int(column).and_then(|value| i32::try_from(value).ok());
    value.ok_or_else(|| HandlerError::permanent(format!("column {column} is not an integer")))
}
