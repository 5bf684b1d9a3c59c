//! `afterwrite demo`: a campaign's life against the real stack, from nothing and without Docker. It needs nothing but
//! Postgres, or with `--kafka` shows the full pipeline.
//!
//! The demo is the application: it writes rows, and everything else is done by a worker in a process of its own. What
//! the demo shows it has seen from outside, in the database, in the mailbox and at the receiving end of a webhook; it
//! waits for what it sees and for no clock. However it ends, it takes down what it started.

mod failure;

mod place;

mod stack;

mod own_database;

mod server;

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
use std::time::Duration;

use clap::Args;
use sqlx::postgres::PgPool;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use self::campaign::Campaign;
use self::failure::DemoFailure;
use self::own_database::OwnDatabase;
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
use crate::config::load::{Inputs, load};
use crate::config::value::Secret;

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

With --database-url it starts no Postgres: in the server of that address it makes a database of its own, called
afterwrite_demo_ and eight letters, and drops it at the end with its replication slots. Nothing else in that server is
written. It has to be version 15 or newer with wal_level = logical, and the role needs CREATEDB and REPLICATION. Without
an address behind it the option takes DATABASE_URL, so that no password is seen in the list of processes; without the
option DATABASE_URL is not used.

With --stay it uses the clone's ordinary stack instead: the directory .stack and the fixed ports, or what STACK_DIR,
PG_PORT, KAFKA_PORT, CONNECT_PORT, REGISTRY_PORT and SMTP_PORT say. It then keeps running until Ctrl-C, shows what
happens to rows you write, and leaves the stack as it found it: what ran runs, what did not is stopped, and what was
not there is deleted.

Examples:
  afterwrite demo
  afterwrite demo --kafka
  afterwrite demo --stay
  afterwrite demo --database-url                         in the server of DATABASE_URL
  afterwrite demo --database-url postgres://me@localhost/postgres
  afterwrite demo --output json             the summary as JSON on standard output, the play on standard error")]
pub struct DemoArgs {
    /// With Kafka, Kafka Connect with Debezium, and a schema registry
    #[arg(long)]
    pub kafka: bool,
    /// In a database of its own in this server; without an address, in that of DATABASE_URL
    #[arg(long, value_name = "URL", num_args = 0..=1, default_missing_value = "", value_parser = secret,
          conflicts_with = "kafka")]
    pub database_url: Option<Secret>,
    /// Keep everything running until Ctrl-C, on fixed ports, to go on by hand
    #[arg(long)]
    pub stay: bool,
}

#[expect(clippy::unnecessary_wraps, reason = "what a parser of arguments is")]
fn secret(text: &str) -> Result<Secret, std::convert::Infallible> {
    Ok(Secret::new(text))
}

/// What has to be taken down at the end.
#[derive(Debug, Default)]
struct Running {
    worker: Option<Worker>,
    /// In somebody's server.
    database: Option<OwnDatabase>,
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
    let place = Place::choose(args.stay).map_err(DemoFailure::into_failure)?;
    let stack = Stack::new(&place);
    let database = OwnDatabase::at(args.database_url.as_ref(), &place).map_err(DemoFailure::into_failure)?;
    let mut running = Running {
        database,
        ..Running::default()
    };
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
    played.and(cleaned).map_err(DemoFailure::into_failure)
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
    let (settings, config) = prepare(args, screen, stack, place, running).await?;
    let up = began.elapsed();

    screen.step(2, readiness::what(args.kafka));
    let has_roles = running.database.is_none();
    let reached = running.database.as_ref().map(OwnDatabase::how_to_reach);
    let pool = readiness::install(screen, stack, place, (&settings, &config), has_roles).await?;
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
        let words = summary::how_to_go_on(place, &binary, campaign.id, stage.worker.pid(), args.kafka);
        return Err(stay(&mut stage, &[words, reached.unwrap_or_default()].concat()).await);
    }
    screen.line(&format!("\n{}", summary::where_next(&binary)));
    pool.close().await;
    Ok(())
}

/// Starts what the worker needs; answers its settings.
async fn prepare(
    args: &DemoArgs,
    screen: &Screen,
    stack: &Stack<'_>,
    place: &Place,
    running: &mut Running,
) -> Result<(BTreeMap<String, String>, Config), DemoFailure> {
    let database = running.database.clone();
    let parts = stack::parts(args.kafka, database.is_some());
    screen.step(1, parts.in_words);
    if database.is_none() && std::env::var_os("DATABASE_URL").is_some() {
        screen.note(
            "DATABASE_URL is set and not used: with --database-url the demo makes a database of its own in that server",
        );
    }
    prepare_place(screen, stack, place, running).await?;
    let mut settings = settings(stack.addresses().await?, args.kafka);
    settings.extend(database.as_ref().map(OwnDatabase::settings).into_iter().flatten());
    let config = load(&Inputs {
        environment: settings.clone(),
        ..Inputs::default()
    })
    .map_err(DemoFailure::Settings)?;
    if let Some(database) = &database {
        let slots = readiness::streams_of(&config)?.len();
        database.make(screen, slots).await?;
    }
    stack.up(screen, parts.services).await?;
    Ok((settings, config))
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
async fn stay(stage: &mut Stage<'_>, words: &str) -> DemoFailure {
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
    let dropped = match &running.database {
        None => Ok(()),
        Some(database) => {
            let _waiting = screen.waiting("dropping the demo's database");
            database.drop_it(screen).await
        }
    };
    let down = match running.stack_was_touched {
        true => take_down(screen, stack, place, &running.ran_before).await,
        false => Ok(()),
    };
    stopped.and(dropped).and(down)
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
