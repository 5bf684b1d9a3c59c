//! The files in `tests/fixtures/debezium-3.7.0`: written anew by `make fixtures`, from the stack of this repository.

use crate::scenario::connectors::{ENCODINGS, OTHERS};
use crate::scenario::{Scenario, cut};

/// Set by `make fixtures`.
const WANTED: &str = "UPDATE_FIXTURES";

#[tokio::test(flavor = "multi_thread")]
async fn are_written_anew_when_asked_for() {
    if std::env::var_os(WANTED).is_none() {
        return;
    }
    let all: Vec<_> = ENCODINGS.into_iter().chain(OTHERS).collect();
    let scenario = Scenario::begin("capture", "", &all, "").await;
    scenario.stream().await;
    scenario.snapshot_incrementally().await;
    for (name, mut capture) in scenario.captures().await {
        let finished = format!("{name}.capture.public.finished");
        assert!(
            capture.records.iter().any(|record| record.topic == finished),
            "{name} did not finish"
        );
        cut(&mut capture);
        println!("{name}: {} records", capture.records.len());
        capture.write(name);
    }
    scenario.remove().await;
}
