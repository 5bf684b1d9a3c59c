//! States of connectors, and what is busy.

use super::*;

fn status(connector: &str, tasks: &[&str]) -> ConnectorStatus {
    let part = |state: &&str| Part {
        id: None,
        state: (*state).to_owned(),
        worker_id: String::new(),
        trace: None,
    };
    ConnectorStatus {
        name: "x".to_owned(),
        connector: part(&connector),
        tasks: tasks.iter().map(part).collect(),
    }
}

#[test]
fn a_connector_runs_only_with_its_tasks() {
    for (connector, tasks, runs, stopped) in [
        ("RUNNING", &["RUNNING"][..], true, false),
        ("RUNNING", &[], false, false),
        ("RUNNING", &["RUNNING", "FAILED"], false, false),
        ("UNASSIGNED", &["RUNNING"], false, false),
        ("STOPPED", &["RUNNING"], false, false),
        ("STOPPED", &[], false, true),
    ] {
        let status = status(connector, tasks);
        assert_eq!((status.runs(), status.is_stopped()), (runs, stopped), "{status:?}");
    }
    assert!(status("RUNNING", &["RUNNING", "FAILED"]).failed().is_some());
}

#[test]
fn a_busy_cluster_is_told_from_a_refusal() {
    assert!(is_busy(StatusCode::CONFLICT, ""));
    assert!(is_busy(
        StatusCode::INTERNAL_SERVER_ERROR,
        "Request timed out. The worker is …"
    ));
    let rebalance = "Request cannot be completed because a rebalance is expected";
    assert!(is_busy(StatusCode::INTERNAL_SERVER_ERROR, rebalance));
    assert!(!is_busy(StatusCode::INTERNAL_SERVER_ERROR, "no"));
    assert!(!is_busy(StatusCode::BAD_REQUEST, "timed out"));
}
