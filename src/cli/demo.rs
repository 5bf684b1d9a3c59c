//! `afterwrite demo`: a campaign's life against the real stack, from nothing and without Docker. It needs nothing but
//! Postgres, or with `--kafka` shows the full pipeline.
//!
//! The demo is the application: it writes rows, and everything else is done by a worker in a process of its own. What
//! the demo shows it has seen from outside, in the database, in the mailbox and at the receiving end of a webhook; it
//! waits for what it sees and for no clock. However it ends, it takes down what it started.

mod place;

mod stack;

mod worker;

mod screen;

mod campaign;

mod receiver;

mod watch;

mod stage;

mod story;

mod letter;

mod readiness;

mod summary;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use clap::Args;
use sqlx::postgres::PgPool;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use self::campaign::Campaign;
use self::place::Place;
use self::readiness::{Owners, Rehearsal};
use self::receiver::Receiver;
use self::screen::Screen;
use self::stack::Stack;
use self::stage::Stage;
use self::summary::{Seconds, Summary};
use self::watch::Watcher;
use self::worker::Worker;
use crate::cli::output::{Output, print_line};
use crate::cli::{Failure, stop_signal};
use crate::config::Config;
use crate::config::load::{ConfigError, Inputs, load};
use crate::dead_letter::kept;

/// The secret of the demo's webhook, the one of the standard's own example.
const WEBHOOK_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Settings of the demo's worker beside the stack's addresses.
const SETTINGS: [(&str, &str); 2] = [
    (
        "AFTERWRITE__WAITLIST__SECRET",
        "afterwrite-demo-secret-for-made-up-people",
    ),
    // The receiver of the demo is on this machine, where webhooks may not lead by default.
    ("AFTERWRITE__WEBHOOK__ALLOWED_NETWORKS", "[\"127.0.0.1/32\"]"),
];

/// The same where changes come through Kafka: topics are made while the worker starts, and it looks for new ones soon.
const WITH_KAFKA: [(&str, &str); 1] = [("AFTERWRITE__KAFKA__METADATA_REFRESH_MS", "500")];

/// The same where the worker reads the write-ahead log.
const WITHOUT_KAFKA: [(&str, &str); 1] = [("AFTERWRITE__SOURCE__KIND", "wal")];

/// Last lines of a log that are shown when something failed.
const LOG_LINES: usize = 25;

/// Arguments of `demo`.
#[derive(Debug, Args)]
#[command(after_help = "\
The demo starts a stack of its own (target/demo, free ports), plays, and takes everything down again. It is Postgres,
whose write-ahead log the worker reads itself, and a mail catcher; with --kafka Debezium reads the log, and the worker
Kafka.

With --stay it uses the clone's ordinary stack instead: the directory .stack and the fixed ports, or what STACK_DIR,
PG_PORT, KAFKA_PORT, CONNECT_PORT, REGISTRY_PORT and SMTP_PORT say. It then keeps running until Ctrl-C, shows what
happens to rows you write, and leaves the stack as it found it: what ran runs, what did not is stopped, and what was
not there is deleted.

Examples:
  afterwrite demo
  afterwrite demo --kafka
  afterwrite demo --stay
  afterwrite demo --output json             the summary as JSON on standard output, the play on standard error")]
pub struct DemoArgs {
    /// With Kafka, Kafka Connect with Debezium, and a schema registry
    #[arg(long)]
    pub kafka: bool,
    /// Keep everything running until Ctrl-C, on fixed ports, to go on by hand
    #[arg(long)]
    pub stay: bool,
}

/// Why the demo ended early.
#[derive(Debug, thiserror::Error)]
enum DemoFailure {
    #[error(
        "there is no infra/native/stack in this directory or above; run the demo in a clone of the repository, or set \
         CARGO_MANIFEST_DIR to one"
    )]
    NoClone,
    #[error("another demo of this clone is running; wait for it, or stop it with Ctrl-C")]
    Twice,
    #[error("the lock {} could not be taken", path.display())]
    Lock { path: PathBuf, source: std::io::Error },
    #[error("no port could be had on this machine")]
    Ports(#[source] std::io::Error),
    #[error("this program could not be started once more")]
    OwnProgram(#[source] std::io::Error),
    #[error("{} could not be started", path.display())]
    Script { path: PathBuf, source: std::io::Error },
    #[error("{what} failed with {status}{}", quoted(.said))]
    Command {
        what: String,
        status: ExitStatus,
        said: String,
    },
    #[error("{what} did not end within {seconds} s")]
    Slow { what: String, seconds: u64 },
    #[error("waited {seconds} s in vain for: {what}; see {}", log.display())]
    Late { what: String, seconds: u64, log: PathBuf },
    #[error("the worker ended ({how}); see {}", log.display())]
    WorkerEnded { how: String, log: PathBuf },
    #[error("{} could not be written or read", path.display())]
    Log { path: PathBuf, source: std::io::Error },
    #[error("the addresses of the stack are no configuration")]
    Settings(#[source] ConfigError),
    #[error("{}", .0.chain())]
    Database(Failure),
    #[error("the application's rows could not be written")]
    Write(#[source] sqlx::Error),
    #[error("what the worker does could not be looked at in the database")]
    Watch(#[source] sqlx::Error),
    #[error("the mailbox {} could not be looked at", path.display())]
    Mailbox { path: PathBuf, source: std::io::Error },
    #[error("the dead letter could not be read")]
    Letter(#[source] kept::Error),
    #[error("{0}")]
    Wrong(&'static str),
    #[error("stopped by a signal")]
    Interrupted,
}

impl DemoFailure {
    /// The log that says more.
    fn log(&self) -> Option<&PathBuf> {
        match self {
            Self::Late { log, .. } | Self::WorkerEnded { log, .. } => Some(log),
            _ => None,
        }
    }
}

fn quoted(said: &str) -> String {
    if said.is_empty() {
        String::new()
    } else {
        format!(":\n{said}")
    }
}

/// What has to be taken down at the end.
#[derive(Debug, Default)]
struct Running {
    worker: Option<Worker>,
    /// Services that ran before, so that they are left alone.
    ran_before: Vec<String>,
    stack_was_touched: bool,
}

/// Plays, and takes everything down again.
///
/// # Errors
/// What failed, after the clean-up; a play that was cut off by a signal has failed, too.
pub async fn run(args: &DemoArgs, output: Output) -> Result<(), Failure> {
    let screen = Screen::new(output);
    let place = Place::choose(args.stay).map_err(|failure| match failure {
        DemoFailure::NoClone => Failure::usage(failure),
        _ => Failure::failed(failure),
    })?;
    let stack = Stack::new(&place);
    let mut running = Running::default();
    let staying = Cell::new(false);
    let played = tokio::select! {
        played = Box::pin(perform(args, &screen, &stack, &place, &mut running, &staying)) => played,
        // A signal is how a stay is meant to end.
        failure = interrupted() => if staying.get() { Ok(()) } else { Err(failure) },
    };
    let kept = match &played {
        Ok(()) => None,
        Err(failure) => Box::pin(explain(&screen, &stack, &place, failure)).await,
    };
    let cleaned = Box::pin(clean_up(&screen, &stack, &place, running)).await;
    if let (Err(_), Err(second)) = (&played, &cleaned) {
        screen.note(&format!("and then, while cleaning up: {second}"));
    }
    if let Some(kept) = kept {
        screen.note(&format!("the logs are kept in {}", kept.display()));
    }
    played.and(cleaned).map_err(Failure::failed)
}

/// Everything up to the end of the play, and the stay after it.
async fn perform(
    args: &DemoArgs,
    screen: &Screen,
    stack: &Stack<'_>,
    place: &Place,
    running: &mut Running,
    staying: &Cell<bool>,
) -> Result<(), DemoFailure> {
    let began = Instant::now();
    screen.step(1, if args.kafka { stack::EVERYTHING } else { stack::LITTLE });
    prepare_place(screen, stack, place, running).await?;
    stack.up(screen, stack::services(args.kafka)).await?;
    let settings = settings(stack.addresses().await?, args.kafka);
    let config = load(&Inputs {
        environment: settings.clone(),
        ..Inputs::default()
    })
    .map_err(DemoFailure::Settings)?;
    let up = began.elapsed();

    screen.step(2, readiness::what(args.kafka));
    let pool = readiness::install(screen, stack, place, &settings, &config).await?;
    let captured = began.elapsed();

    screen.step(3, "the worker, in its own process");
    let mut receiver = Receiver::start(WEBHOOK_SECRET).await?;
    let worker = start_worker(screen, place, running, (&pool, &config), &settings).await?;
    let ready = began.elapsed();

    screen.step(4, "a small campaign: the application only writes rows");
    let (campaign, rows) = story::open(&pool, &receiver.url, WEBHOOK_SECRET).await?;
    let watcher = Watcher::begin(&pool, campaign.id, mailbox(&settings)).await?;
    let mut stage = Stage::new(screen, watcher, &mut receiver, worker);
    stage.did(&story::opening_words(), "INSERT campaigns, webhooks, rewards", rows);
    play(&mut stage, &campaign, &pool, &config).await?;

    screen.step(6, "the end");
    let summary = Summary::of(
        &stage,
        campaign.id,
        &pool,
        Seconds {
            stack: up.as_secs_f64(),
            tables: (captured - up).as_secs_f64(),
            worker: (ready - captured).as_secs_f64(),
            play: (began.elapsed() - ready).as_secs_f64(),
            all: began.elapsed().as_secs_f64(),
        },
    )
    .await?;
    print(screen, &summary)?;
    let binary = std::env::current_exe().map_err(DemoFailure::OwnProgram)?;
    let binary = binary.display().to_string();
    if args.stay {
        staying.set(true);
        return Err(stay(args, &mut stage, place, &binary, campaign.id).await);
    }
    screen.line(&format!("\n{}", summary::where_next(&binary)));
    pool.close().await;
    Ok(())
}

/// Starts the worker and waits until every handler of it has reacted to something.
async fn start_worker<'a>(
    screen: &Screen,
    place: &Place,
    running: &'a mut Running,
    (pool, config): (&PgPool, &Config),
    settings: &BTreeMap<String, String>,
) -> Result<&'a mut Worker, DemoFailure> {
    let begin = || Rehearsal::begin(pool, config, mailbox(settings));
    let start = || Worker::start(place, settings);
    if config.source.kind.has_brokers() {
        let rehearsal = begin().await?;
        let worker = running.worker.insert(start()?);
        rehearsal.end(screen, worker).await?;
        return Ok(worker);
    }
    // A group that reads the log begins with what is written when its slot is there.
    let owners = Owners::of(pool, config).await?;
    let worker = running.worker.insert(start()?);
    owners.wait(worker).await?;
    begin().await?.end(screen, worker).await?;
    Ok(worker)
}

async fn play(stage: &mut Stage<'_>, campaign: &Campaign, pool: &PgPool, config: &Config) -> Result<(), DemoFailure> {
    Box::pin(story::play(stage, campaign)).await?;
    stage
        .screen
        .step(5, "a dead letter: what no retry heals is kept, mended, and sent back");
    Box::pin(letter::play(stage, campaign, pool, config)).await
}

/// Makes room: what a demo left that was killed is taken down.
async fn prepare_place(
    screen: &Screen,
    stack: &Stack<'_>,
    place: &Place,
    running: &mut Running,
) -> Result<(), DemoFailure> {
    if place.existed {
        worker::stop_leftover(place).await;
        if place.is_shared {
            running.ran_before = stack.running().await?;
        } else {
            screen.note("a demo that was killed left its stack behind: taking it down");
            stack.down(true).await?;
        }
    }
    running.stack_was_touched = true;
    Ok(())
}

/// The stack's addresses and what the demo needs beside them, by the names this program reads.
fn settings(addresses: BTreeMap<String, String>, with_kafka: bool) -> BTreeMap<String, String> {
    let mut settings = addresses;
    let own = if with_kafka { WITH_KAFKA } else { WITHOUT_KAFKA };
    let all = SETTINGS.into_iter().chain(own);
    settings.extend(all.map(|(name, value)| (name.to_owned(), value.to_owned())));
    settings
}

fn mailbox(settings: &BTreeMap<String, String>) -> PathBuf {
    settings.get("MAILBOX_DIR").map(PathBuf::from).unwrap_or_default()
}

fn print(screen: &Screen, summary: &Summary) -> Result<(), DemoFailure> {
    match screen.output {
        Output::Table => screen.line(&format!("\n{}", summary.in_words())),
        Output::Json => {
            let text = serde_json::to_string(summary).map_err(Failure::failed);
            text.and_then(|text| print_line(&text)).map_err(DemoFailure::Database)?;
        }
    }
    Ok(())
}

/// Says how to go on, and shows what happens for as long as nothing fails.
async fn stay(
    args: &DemoArgs,
    stage: &mut Stage<'_>,
    place: &Place,
    binary: &str,
    campaign: uuid::Uuid,
) -> DemoFailure {
    let words = summary::how_to_go_on(place, binary, campaign, stage.worker.pid(), args.kafka);
    stage.screen.line(&format!("\n{words}\n"));
    stage.follow().await
}

/// Completes when the demo is asked to stop: SIGTERM, Ctrl-C, or a terminal that is closed.
async fn interrupted() -> DemoFailure {
    let hung_up = async {
        match signal(SignalKind::hangup()) {
            Ok(mut hangup) => hangup.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        heard = stop_signal() => heard.map_or_else(DemoFailure::Database, |()| DemoFailure::Interrupted),
        _ = hung_up => DemoFailure::Interrupted,
    }
}

/// Says which step failed and what the logs say about it; answers where they are kept.
async fn explain(screen: &Screen, stack: &Stack<'_>, place: &Place, failure: &DemoFailure) -> Option<PathBuf> {
    let step = screen.current_step();
    if matches!(failure, DemoFailure::Interrupted) {
        screen.bad(&format!("stopped in step “{step}”"));
        return None;
    }
    screen.bad(&format!("failed in step “{step}”"));
    if let Some(log) = failure.log() {
        show_end(screen, log);
        for service in stack.dead_services().await {
            screen.bad(&format!("{service} is not running any more"));
            show_end(screen, &place.log(&service));
        }
    }
    if place.is_shared {
        return None;
    }
    keep_logs(place).ok()
}

fn show_end(screen: &Screen, log: &Path) {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    screen.note(&format!("the end of {}:", log.display()));
    screen.note(&lines[lines.len().saturating_sub(LOG_LINES)..].join("\n"));
}

/// Copies the logs out of the directory that is about to be deleted.
fn keep_logs(place: &Place) -> std::io::Result<PathBuf> {
    let kept = place.kept_logs();
    if kept.exists() {
        std::fs::remove_dir_all(&kept)?;
    }
    std::fs::create_dir_all(&kept)?;
    for entry in std::fs::read_dir(place.dir.join("log"))? {
        let entry = entry?;
        std::fs::copy(entry.path(), kept.join(entry.file_name()))?;
    }
    Ok(kept)
}

/// Stops the worker as an orchestrator would, then the stack. Both are tried, whatever happens to the first.
async fn clean_up(screen: &Screen, stack: &Stack<'_>, place: &Place, running: Running) -> Result<(), DemoFailure> {
    screen.line("");
    let stopped = match running.worker {
        None => Ok(()),
        Some(worker) => {
            let _waiting = screen.waiting("stopping the worker");
            worker.stop().await.map(|took| {
                if let Some(took) = took {
                    screen.note(&format!("worker stopped cleanly after SIGTERM in {}", in_seconds(took)));
                }
            })
        }
    };
    let down = match running.stack_was_touched {
        true => take_down(screen, stack, place, &running.ran_before).await,
        false => Ok(()),
    };
    stopped.and(down)
}

/// Leaves the stack as it was found: deleted, down, or with the services that ran before and no others.
async fn take_down(
    screen: &Screen,
    stack: &Stack<'_>,
    place: &Place,
    ran_before: &[String],
) -> Result<(), DemoFailure> {
    let _waiting = screen.waiting("taking the stack down");
    let began = Instant::now();
    let what = if !ran_before.is_empty() {
        stack.stop_others(ran_before).await?;
        "as it was found"
    } else if place.existed && place.is_shared {
        stack.down(false).await?;
        "down"
    } else {
        stack.down(true).await?;
        "down and deleted"
    };
    screen.note(&format!("stack {what} in {}", in_seconds(began.elapsed())));
    Ok(())
}

fn in_seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
