//! Runs of replays: which letters they act on, that one at a time works on a group, and that nothing is lost or asked for
//! twice when one is cut off.

use std::process::Stdio;
use std::time::Duration;

use afterwrite::dead_letter::filter::Filter;
use afterwrite::dead_letter::runs::{self, Begun, Chosen, Run};
use afterwrite::engine::letter::Letters;
use afterwrite::engine::retry::Class;
use serde_json::json;
use tokio::process::Child;

use crate::letters::{complaint, letter, report, sink, world};
use crate::stack::{self, until};
use crate::world::World;

/// A world with open letters, the first of which failed first.
async fn with_letters(test: &str, letters: i64) -> World {
    let world = world(test).await;
    let sink = sink(&world);
    for k in 1..=letters {
        sink.bury(&letter(&world, k, Class::Timeout, 100 - k)).await.unwrap();
    }
    world
}

async fn begin(world: &World) -> Box<Run> {
    let chosen = Chosen::Filter {
        filter: Filter::default(),
        replays_max: 5,
    };
    match runs::begin(&world.pool, &world.group(), &chosen, 100, "ada@host", false).await {
        Ok(Begun::Run(run)) => run,
        _ => panic!("the run did not begin"),
    }
}

/// The source offsets of the letters that were asked for, in the order of their requests.
async fn requested(world: &World) -> Vec<i64> {
    sqlx::query_scalar("SELECT source_offset FROM afterwrite.replay_requests ORDER BY id")
        .fetch_all(&world.pool)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_run_acts_on_the_letters_that_were_listed_and_one_at_a_time_works_on_a_group() {
    let _stack = stack::shared().await;
    let world = with_letters("snapshot", 3).await;
    let mut run = begin(&world).await;
    assert_eq!(run.letters, 3);
    sink(&world).bury(&letter(&world, 4, Class::Timeout, 1)).await.unwrap();

    let replay = ["replay", "--all", "--group", "recorder"];
    for words in [
        &replay[..],
        &["replay", "--resume", "--group", "recorder"],
        &[&replay[..], &["--take-over"]].concat(),
    ] {
        let (code, said) = complaint(&world, words).await;
        assert!(
            code == Some(1) && said.contains("is being replayed already"),
            "{words:?}: {said}"
        );
        assert!(
            said.contains("by ada@host since") && said.contains("3 of 3 letters left"),
            "{said}"
        );
    }
    assert_eq!(run.next().await.unwrap().len(), 3);
    // As when its process died: the session ends, and nobody writes anything.
    drop(run);
    until("the lock to be free", Duration::from_secs(20), async || {
        let (_, said) = complaint(&world, &replay).await;
        said.contains("was interrupted").then_some(())
    })
    .await;
    assert_eq!(
        requested(&world).await,
        [] as [i64; 0],
        "an interrupted run is not passed over in silence"
    );
    let (code, resumed) = report(&world, &["dlq", "replay", "--resume", "--group", "recorder"]).await;
    assert_eq!((code, &resumed["requested"]), (0, &json!(3)), "{resumed}");
    assert_eq!(
        requested(&world).await,
        [1, 2, 3],
        "oldest first, without the letter that came later"
    );
    let (code, said) = complaint(&world, &["replay", "--resume", "--group", "recorder"]).await;
    assert!(code == Some(1) && said.contains("nothing to go on with"), "{said}");

    drop(begin(&world).await);
    until(
        "the interrupted run to be taken over",
        Duration::from_secs(20),
        async || {
            let (code, _) = complaint(&world, &["replay", "--all", "--group", "recorder", "--take-over"]).await;
            (code == Some(0)).then_some(())
        },
    )
    .await;
    assert_eq!(requested(&world).await, [1, 2, 3, 4]);
    assert_eq!(
        world
            .count("SELECT count(*) FROM afterwrite.replay_runs WHERE state = 'running'")
            .await,
        0
    );
    world.remove().await;
}

fn replay(world: &World, words: &[&str]) -> Child {
    let mut command = world.command(env!("CARGO_BIN_EXE_afterwrite"));
    command.args(["dlq", "replay", "--group", "recorder"]).args(words);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command.spawn().unwrap()
}

async fn reaches(world: &World, letters: usize) {
    until("letters to be requested", Duration::from_secs(60), async || {
        (requested(world).await.len() >= letters).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_is_killed_or_stopped_is_gone_on_with() {
    let _stack = stack::shared().await;
    let world = with_letters("killed", 9).await;
    let mut killed = replay(&world, &["--all", "--rate", "2"]);
    reaches(&world, 2).await;
    killed.kill().await.unwrap();
    let until_killed = requested(&world).await.len();

    let stopped = until(
        "the lock of the dead process to be free",
        Duration::from_secs(20),
        async || {
            let before = requested(&world).await.len();
            let mut process = replay(&world, &["--resume", "--rate", "2"]);
            tokio::select! {
                _ = process.wait() => None,
                () = reaches(&world, before + 2) => Some(process),
            }
        },
    )
    .await;
    let pid = stopped.id().unwrap().to_string();
    assert!(
        std::process::Command::new("kill")
            .args(["-INT", &pid])
            .status()
            .unwrap()
            .success()
    );
    let output = stopped.wait_with_output().await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let until_stopped = requested(&world).await.len();
    assert!(
        until_stopped > until_killed && until_stopped < 9,
        "{until_killed} {until_stopped}"
    );
    assert_eq!(output.status.code(), Some(1), "{said}");
    let left = 9 - until_stopped;
    assert!(
        said.contains(&format!("stopped with {left} letters left")) && said.contains("--resume --group"),
        "{said}"
    );

    until("the last run to end", Duration::from_secs(30), async || {
        let resume = ["replay", "--resume", "--group", "recorder", "--rate", "100"];
        (complaint(&world, &resume).await.0 == Some(0)).then_some(())
    })
    .await;
    assert_eq!(
        requested(&world).await,
        (1..=9).collect::<Vec<i64>>(),
        "each once, in order"
    );
    println!(
        "{}: killed after {until_killed} of 9 letters, stopped after {until_stopped}, each requested once",
        world.name
    );
    world.remove().await;
}

#[tokio::test]
async fn letters_go_back_at_the_rate_that_was_asked_for() {
    let _stack = stack::shared().await;
    let world = with_letters("rate", 4).await;
    let (code, sent) = report(&world, &["dlq", "replay", "--group", "recorder", "--rate", "1"]).await;
    assert_eq!((code, &sent["requested"]), (0, &json!(4)));
    let took = "SELECT (extract(epoch FROM max(requested_at) - min(requested_at)) * 1000)::bigint
                FROM afterwrite.replay_requests";
    let took_ms = world.count(took).await;
    assert!(took_ms > 2_500, "four letters at one a second took {took_ms} ms");
    println!("{}: 4 letters at 1 a second took {took_ms} ms", world.name);
    world.remove().await;
}

#[tokio::test]
async fn a_letter_that_goes_round_is_left_out_unless_it_is_forced() {
    let _stack = stack::shared().await;
    let world = with_letters("loop", 1).await;
    let mut round = letter(&world, 2, Class::Timeout, 1);
    round.replays = 5;
    sink(&world).bury(&round).await.unwrap();
    let id = round.id();
    let all = ["dlq", "replay", "--all", "--group", "recorder"];
    let (_, dry) = report(&world, &[&all[..], &["--dry-run"]].concat()).await;
    assert_eq!(
        (&dry["counts"][0]["letters"], &dry["held_back"]),
        (&json!(1), &json!([id]))
    );
    for words in [&all[..], &["dlq", "replay", &id]] {
        let (code, sent) = report(&world, words).await;
        assert_eq!((code, &sent["held_back"]), (0, &json!([id])), "{words:?}: {sent}");
    }
    assert_eq!(requested(&world).await, [1]);
    let (_, forced) = report(&world, &["dlq", "replay", &id, "--force"]).await;
    assert_eq!(forced["waiting"], json!([id]), "{forced}");
    assert_eq!(requested(&world).await, [1, 2]);
    world.remove().await;
}
