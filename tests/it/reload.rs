//! SIGHUP: a worker reads its configuration again, takes what can change, and goes on with what it had where that is wrong.

use std::path::Path;
use std::time::Duration;

use crate::flaky_mails::{ALONE, reading, sign_up, until_sent};
use crate::stack::{self, until};
use crate::wal::remove;
use crate::worker::Worker;
use crate::world::World;

/// What no log may hold.
const MARK: &str = "hidden-71c0de";

async fn until_said(worker: &Worker, text: &str, times: usize) {
    until(text, Duration::from_secs(30), async || {
        (worker.said().matches(text).count() >= times).then_some(())
    })
    .await;
}

fn write(path: &Path, filter: &str, more: &str) {
    let secret = format!("[waitlist]\nsecret = \"{MARK}-and-more\"\n");
    std::fs::write(path, format!("{secret}[log]\nfilter = \"{filter}\"\n{more}")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_takes_what_can_change_and_goes_on_with_what_it_had_where_the_new_is_wrong() {
    let _stack = stack::shared().await;
    let world = World::waitlist_alone("reload").await;
    let path = std::env::temp_dir().join(format!("{}.toml", world.name));
    let file = path.to_str().unwrap();
    write(&path, "warn,afterwrite=info,sqlx::query=error", "");
    // Whoever runs the tests may have set it, and it beats the file.
    let settings = [&ALONE[..], &[("AFTERWRITE_CONFIG", file), ("RUST_LOG", "")]].concat();
    let worker = reading(&world, 1, &settings).await;

    // A wrong file is refused in the words of `config check`, and nothing of it is taken: the filter in it is right.
    let wrong = "[engine]\nlanes_max = 0\n[handlers.emial]\nenabled = false\n";
    write(&path, "off", &format!("{wrong}[smtp]\nport = \"{MARK}\"\n"));
    worker.hang_up();
    until_said(
        &worker,
        "configuration refused: the worker goes on with the one it has",
        3,
    )
    .await;
    let (code, said, _) = world.said(&["config", "check"], ("AFTERWRITE_CONFIG", file)).await;
    assert_eq!(code, Some(2));
    let refusals: Vec<&str> = said.lines().filter(|line| line.starts_with(file)).collect();
    assert_eq!(refusals.len(), 3, "{said}");
    for refusal in refusals {
        assert!(worker.said().contains(refusal), "{refusal} was not logged");
    }
    // A file that is half written is refused too.
    std::fs::write(&path, "[log\n").unwrap();
    worker.hang_up();
    until_said(&worker, "this is not TOML", 1).await;
    sign_up(&world, 3, "reloaded").await;
    until_sent(&world, 3).await;

    // What can change does, and what cannot is named.
    assert!(
        !worker.said().contains("sqlx::query"),
        "statements were logged from the start"
    );
    write(
        &path,
        "warn,afterwrite=info,sqlx::query=debug",
        "[engine]\nlanes_max = 3\n",
    );
    worker.hang_up();
    until_said(&worker, "configuration read again: a change is in effect", 1).await;
    until_said(
        &worker,
        "settings were changed that are in effect only after a restart",
        1,
    )
    .await;
    assert!(worker.said().contains("engine.lanes_max"));
    until_said(&worker, "sqlx::query", 1).await;

    // It is named until it is taken back, and what is in effect is not changed again.
    worker.hang_up();
    until_said(
        &worker,
        "settings were changed that are in effect only after a restart",
        2,
    )
    .await;
    write(&path, "warn,afterwrite=info,sqlx::query=error", "");
    worker.hang_up();
    until_said(&worker, "configuration read again: a change is in effect", 2).await;
    worker.hang_up();
    until_said(&worker, "configuration read again: nothing changed", 1).await;

    let log = worker.said();
    assert!(!log.contains(MARK), "a secret was logged");
    assert_eq!(log.matches("settings were changed that").count(), 2, "{log}");
    worker.stop().await;
    std::fs::remove_file(&path).unwrap();
    remove(world).await;
}
