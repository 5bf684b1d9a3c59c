//! From the write-ahead log to Kafka with `afterwrite graduate`: under load, under kills at each step, and back again.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout};
use tokio::time::Instant;

use crate::mails::{SIGNUPS, caught, sign_up};
use crate::producer;
use crate::stack::{self, until};
use crate::survival::{check_effects, write_changes};
use crate::wal;
use crate::worker::Worker;
use crate::world::World;

/// Rounds of changes that are written meanwhile; in each 500 keys change once. 100 with `GRADUATION_ROUNDS=100`, which is what
/// was measured last.
const ROUNDS: i32 = 40;

/// The steps at whose lines the command is killed.
const STEPS: [&str; 8] = [
    "check",
    "slot",
    "beginnings",
    "connector",
    "cut",
    "switch",
    "start",
    "slots",
];

/// What the table `work` is published by; it has no column that is left out.
const OF_WORK: [(&str, &str); 2] = [
    ("AFTERWRITE__WAL__PUBLICATION", "it"),
    ("AFTERWRITE__WAL__EXCLUDED_COLUMNS", "[]"),
];

/// A running `afterwrite graduate`.
struct Graduate {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

/// A line of it.
#[derive(Debug)]
struct Line {
    step: String,
    text: String,
}

impl Graduate {
    fn start(world: &World, file: &Path, settings: &[(&str, &str)]) -> Self {
        Self::start_with(world, file, settings, &[])
    }

    fn start_with(world: &World, file: &Path, settings: &[(&str, &str)], words: &[&str]) -> Self {
        let mut command = world.command(env!("CARGO_BIN_EXE_afterwrite"));
        command
            .args(["--output", "json", "graduate", file.to_str().unwrap()])
            .args(words)
            .envs(settings.iter().copied())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Its next line; none when it has ended.
    async fn next(&mut self) -> Option<Line> {
        let line = tokio::time::timeout(Duration::from_secs(120), self.lines.next_line()).await;
        let line = line.expect("the graduation says nothing").unwrap()?;
        println!("{line}");
        let line: Value = serde_json::from_str(&line).unwrap();
        let text = |name: &str| line[name].as_str().unwrap().to_owned();
        Some(Line {
            step: text("step"),
            text: text("text"),
        })
    }

    /// Reads up to a line of this step that says this.
    async fn until(&mut self, step: &str, part: &str) {
        loop {
            let line = self.next().await.expect("the graduation ended");
            if line.step == step && line.text.contains(part) {
                return;
            }
        }
    }

    async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    async fn code(mut self) -> Option<i32> {
        while self.next().await.is_some() {}
        self.child.wait().await.unwrap().code()
    }
}

/// The workers of a group, one after the other: each reads what the group reads now.
struct Workers<'a> {
    world: &'a World,
    settings: Vec<(&'static str, &'static str)>,
    now: Mutex<Option<Worker>>,
    started: Mutex<u32>,
    is_over: Mutex<bool>,
}

impl<'a> Workers<'a> {
    /// The first one, when it reads.
    async fn start(world: &'a World) -> Self {
        let workers = Self {
            world,
            settings: wal::SETTINGS.to_vec(),
            now: Mutex::default(),
            started: Mutex::default(),
            is_over: Mutex::default(),
        };
        let first = workers.next("wal");
        wal::until_it_reads(&first).await;
        *workers.now.lock().unwrap() = Some(first);
        workers
    }

    fn next(&self, source: &str) -> Worker {
        let mut started = self.started.lock().unwrap();
        *started += 1;
        let name = format!("{source}{started}");
        match source {
            "wal" => self.world.worker(&name, &self.settings),
            _ => self.world.worker(&name, &[]),
        }
    }

    fn kill(&self) {
        if let Some(worker) = self.now.lock().unwrap().take() {
            worker.kill();
        }
    }

    /// What an operator does: starts a worker whenever none runs, with Kafka once its group was let go there.
    async fn look_after(&self) {
        let mut look = tokio::time::interval(Duration::from_millis(200));
        while !*self.is_over.lock().unwrap() {
            look.tick().await;
            let source: String =
                sqlx::query_scalar("SELECT coalesce(min(source), 'wal') FROM afterwrite.sources WHERE NOT leaving")
                    .fetch_one(&self.world.pool)
                    .await
                    .unwrap();
            let mut now = self.now.lock().unwrap();
            let is_gone = match &mut *now {
                Some(worker) => worker.has_ended(),
                None => true,
            };
            if is_gone {
                *now = Some(self.next(&source));
            }
        }
    }

    async fn end(self) {
        let worker = self.now.lock().unwrap().take().unwrap();
        worker.stop().await;
    }
}

fn file_of(world: &World) -> PathBuf {
    world.connector_file(World::of_work("waitlist", &[]))
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_graduate_under_load_whatever_is_killed_at_each_step() {
    let _stack = stack::shared().await;
    let world = World::bare("graduates").await;
    let began = Instant::now();
    let rounds = std::env::var("GRADUATION_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    let file = file_of(&world);
    let workers = Workers::start(&world).await;
    let graduation = async {
        let mut killed = BTreeSet::new();
        loop {
            let mut graduate = Graduate::start(&world, &file, &OF_WORK);
            let mut killed_now = false;
            while let Some(line) = graduate.next().await {
                if STEPS.contains(&line.step.as_str()) && killed.insert(line.step.clone()) {
                    println!("{:6.1} s: kill -9 at {}", began.elapsed().as_secs_f64(), line.step);
                    killed_now = true;
                    break;
                }
            }
            if !killed_now {
                assert_eq!(graduate.code().await, Some(0));
                break;
            }
            graduate.kill().await;
            workers.kill();
        }
        assert_eq!(killed, STEPS.iter().map(|step| (*step).to_owned()).collect());
        *workers.is_over.lock().unwrap() = true;
    };
    tokio::join!(write_changes(&world, 1..=rounds), graduation, workers.look_after());
    check_effects(&world, i64::from(rounds) * 500, began).await;
    let (from_log, from_kafka) = (
        world
            .count("SELECT count(*) FROM effects WHERE worker LIKE 'wal%'")
            .await,
        world
            .count("SELECT count(*) FROM effects WHERE worker LIKE 'kafka%'")
            .await,
    );
    println!(
        "{}: {from_log} changes were read from the log, {from_kafka} from Kafka; {} workers",
        world.name,
        workers.started.lock().unwrap()
    );
    assert!(from_log > 0 && from_kafka > 0, "{from_log} {from_kafka}");
    assert_eq!(slots_of_groups(&world).await, 0);
    workers.end().await;
    world.remove().await;
}

/// Slots that the server has in this database, and places that are known, but for the connector's.
async fn slots_of_groups(world: &World) -> i64 {
    sqlx::query_scalar(
        "SELECT (SELECT count(*) FROM pg_replication_slots WHERE database = current_database() AND slot_name <> $1)
             + (SELECT count(*) FROM afterwrite.slots)
             + (SELECT count(*) FROM afterwrite.claims WHERE topic NOT LIKE '%.public.%')",
    )
    .bind(&world.name)
    .fetch_one(&world.pool)
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_mail_is_sent_twice_by_a_graduation() {
    let _stack = stack::shared().await;
    let world = World::waitlist_alone("graduates_mails").await;
    world.launch().await;
    let mut from_log = Worker::waitlist(&world, "wal", &wal::SETTINGS[..1]);
    let groups = world.count("SELECT count(*) FROM afterwrite.slots");
    assert_eq!(groups.await, 0);
    until("all groups to read", Duration::from_secs(60), async || {
        (from_log.said().matches("partition assigned").count() == 4).then_some(())
    })
    .await;
    let file = world.connector_file(world.of_waitlist());
    let graduation = async {
        let mut graduate = Graduate::start(&world, &file, &[]);
        graduate.until("start", "to be started").await;
        let status = until("the worker to end by itself", Duration::from_secs(60), async || {
            from_log.ended()
        })
        .await;
        assert!(status.success(), "{status}");
        let from_kafka = Worker::waitlist(&world, "kafka", &[]);
        assert_eq!(graduate.code().await, Some(0));
        from_kafka
    };
    let ((), from_kafka) = tokio::join!(sign_up(&world), graduation);
    until("every signup to have its mail", Duration::from_secs(60), async || {
        let sent = world.count("SELECT count(*) FROM email_log WHERE status = 'sent'");
        (sent.await == SIGNUPS).then_some(())
    })
    .await;
    from_kafka.stop().await;
    let copies = caught(&world);
    let ids: BTreeSet<&str> = copies.iter().map(|mail| mail.id.as_str()).collect();
    assert_eq!(
        (copies.len(), ids.len()),
        (SIGNUPS.try_into().unwrap(), SIGNUPS.try_into().unwrap())
    );
    assert_eq!(slots_of_groups(&world).await, 0);
    world.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_graduation_is_taken_back_and_letters_go_along() {
    let _stack = stack::shared().await;
    let world = World::bare("graduates_back").await;
    let file = file_of(&world);
    let worker = wal::worker(&world, "wal1");
    wal::until_it_reads(&worker).await;
    // It waits for its turn, which must not come while the other one leaves.
    let standby = wal::worker(&world, "standby");
    wal::insert(&world, 1..=100, "ok").await;
    wal::insert(&world, 1_000..=1_000, "permanent").await;
    wal::until_effects(&world, 100).await;
    refuses(&world, "early", &[], "`afterwrite graduate` moves it to Kafka").await;
    let wrong = world.connector_file(World::of_work("waitlist", &[("snapshot.mode", "initial")]));
    let (code, said) = graduate(&world, &wrong, &[]).await;
    assert!(
        code == Some(2) && said.contains("snapshot.mode is initial"),
        "{code:?} {said}"
    );
    let file_is_back = file_of(&world);
    assert_eq!(file, file_is_back);
    let (code, said) = graduate(&world, &file, &["--dry-run"]).await;
    assert!(code == Some(0) && said.contains("next: "), "{code:?} {said}");
    assert_eq!(world.count("SELECT count(*) FROM afterwrite.graduations").await, 0);

    let mut begun = Graduate::start(&world, &file, &OF_WORK);
    begun.until("start", "to be started").await;
    begun.kill().await;
    let (_, said, _) = world.said(&["status"], ("AFTERWRITE__SOURCE__KIND", "wal")).await;
    assert!(said.contains("a graduation with connector"), "{said}");
    ends_well(worker).await;
    ends_well(standby).await;
    // Nobody reads these but the connector: they are the log's again, and not Kafka's, after the way back.
    wal::insert(&world, 101..=150, "ok").await;
    until("the connector to write them", Duration::from_secs(60), async || {
        let topic = world.topic();
        (producer::exists(&topic) && producer::read_all(&topic).await.len() == 50).then_some(())
    })
    .await;
    refuses(&world, "late", &wal::SETTINGS, "reads Kafka since").await;
    is_taken_back(&world, &file).await;

    let worker = wal::worker(&world, "wal2");
    wal::until_it_reads(&worker).await;
    wal::insert(&world, 151..=200, "ok").await;
    wal::until_effects(&world, 200).await;
    let mut again = Graduate::start(&world, &file, &OF_WORK);
    again.until("start", "to be started").await;
    ends_well(worker).await;
    wal::insert(&world, 201..=300, "ok").await;
    let worker = world.worker("kafka", &[]);
    assert_eq!(again.code().await, Some(0));
    wal::until_effects(&world, 300).await;
    let again =
        world.count("SELECT count(*) FROM (SELECT FROM attempts WHERE k <= 200 GROUP BY k HAVING count(*) > 1) t");
    assert_eq!(again.await, 0, "something was delivered by both sources without need");
    assert_eq!(slots_of_groups(&world).await, 0);

    the_letter_of_the_log_is_replayed(&world).await;
    let (code, said) = graduate(&world, &file, &["--back"]).await;
    assert!(
        code == Some(1) && said.contains("nothing to take back"),
        "{code:?} {said}"
    );
    worker.stop().await;
    world.remove().await;
}

/// Back to the log, with a kill on the way.
async fn is_taken_back(world: &World, file: &Path) {
    let mut back = Graduate::start_with(world, file, &OF_WORK, &["--back"]);
    back.until("back", "may read the log again").await;
    back.kill().await;
    // The connector or its slot may be gone: no way leads forward from here.
    let (code, said) = graduate(world, file, &[]).await;
    assert!(
        code == Some(1) && said.contains("is being taken back"),
        "{code:?} {said}"
    );
    let (code, said) = graduate(world, file, &["--back"]).await;
    assert!(code == Some(0) && said.contains("is taken back"), "{code:?} {said}");
    let (code, _) = world.afterwrite(&["connector", "status", &world.name]).await;
    assert_eq!(code, 1, "the connector is there");
}

/// Whoever owns the topic of its table has it now.
async fn the_letter_of_the_log_is_replayed(world: &World) {
    sqlx::query("INSERT INTO mended VALUES (1000)")
        .execute(&world.pool)
        .await
        .unwrap();
    let (code, said) = world
        .afterwrite(&["dlq", "replay", "--all", "--group", "recorder", "--wait"])
        .await;
    assert_eq!(code, 0, "{said}");
    wal::until_effects(world, 301).await;
}

/// `afterwrite graduate`: its exit code, and all that it said.
async fn graduate(world: &World, file: &Path, words: &[&str]) -> (Option<i32>, String) {
    let mut command = world.command(env!("CARGO_BIN_EXE_afterwrite"));
    let output = command
        .arg("graduate")
        .arg(file)
        .args(words)
        .envs(OF_WORK)
        .output()
        .await
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

/// A worker that may not read this source says why.
async fn refuses(world: &World, name: &str, settings: &[(&str, &str)], why: &str) {
    let mut worker = world.worker(name, settings);
    let status = until("the worker to end", Duration::from_secs(30), async || worker.ended()).await;
    assert!(!status.success(), "{status}");
    assert!(worker.said().contains(why), "{}", worker.said());
}

/// A worker whose group left the log ends by itself.
async fn ends_well(mut worker: Worker) {
    let status = until("the worker to end", Duration::from_secs(30), async || worker.ended()).await;
    assert!(status.success(), "{status}: {}", worker.said());
}
