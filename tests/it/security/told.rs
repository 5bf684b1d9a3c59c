//! What a worker tells of a login that has ended: in its log and at `/readyz`.

use std::time::Duration;

use serde_json::Value;

use crate::stack::until;
use crate::suspending::asked;
use crate::worker::Worker;

/// Within which it has to be told, and to be over.
pub(super) const WITHIN: Duration = Duration::from_secs(90);

/// The log and `/readyz` say all of it.
pub(super) async fn is_told(worker: &Worker, need: &str, says: &[&str]) {
    is_logged(worker, says).await;
    is_down(worker, need, says).await;
}

/// The log says all of it in one line.
pub(super) async fn is_logged(worker: &Worker, says: &[&str]) {
    until(&format!("the worker to say {says:?}"), WITHIN, async || {
        let said = worker.said();
        let is_told = said.lines().any(|line| says.iter().all(|words| line.contains(words)));
        is_told.then_some(())
    })
    .await;
}

/// `/readyz` says all of it.
pub(super) async fn is_down(worker: &Worker, name: &str, says: &[&str]) {
    until(&format!("readyz to say {says:?}"), WITHIN, async || {
        let need = need(worker, name).await;
        let why = need["why"].as_str()?;
        (need["state"] == "down" && says.iter().all(|words| why.contains(words))).then_some(())
    })
    .await;
}

/// `/readyz` says that it is over.
pub(super) async fn is_up(worker: &Worker, name: &str) {
    until("readyz to say that it is over", WITHIN, async || {
        (need(worker, name).await["state"] == "up").then_some(())
    })
    .await;
}

async fn need(worker: &Worker, name: &str) -> Value {
    let (status, answer) = asked(worker, "/readyz").await;
    let health: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!((status, &health["alive"]), (200, &Value::Bool(true)), "{answer}");
    let needs = health["needs"].as_array().unwrap();
    needs.iter().find(|need| need["name"] == name).unwrap().clone()
}
