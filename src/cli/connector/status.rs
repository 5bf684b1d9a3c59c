//! What runs of connectors, as a table.

use super::ConnectorFailure;
use crate::cli::Failure;
use crate::cli::output::{Output, table};
use crate::clients::connect::{ConnectClient, ConnectorStatus, Part};

pub(super) async fn status(client: &ConnectClient, name: Option<&str>, output: Output) -> Result<(), Failure> {
    let names = match name {
        Some(name) => vec![name.to_owned()],
        None => client.names().await?,
    };
    let mut statuses = Vec::new();
    for connector in names {
        match client.status(&connector).await? {
            Some(status) => statuses.push(status),
            // Deleted since it was listed.
            None if name.is_none() => {}
            None => return Err(Failure::failed(ConnectorFailure::Unknown(connector))),
        }
    }
    output.print(&statuses, |statuses| status_table(statuses))
}

fn status_table(statuses: &[ConnectorStatus]) -> String {
    if statuses.is_empty() {
        return "there is no connector".to_owned();
    }
    let row = |status: &ConnectorStatus, what: String, part: &Part| {
        [status.name.clone(), what, part.state.clone(), part.worker_id.clone()]
    };
    let rows = statuses.iter().flat_map(|status| {
        let tasks = status
            .tasks
            .iter()
            .map(move |task| row(status, format!("task {}", task.id.unwrap_or_default()), task));
        std::iter::once(row(status, "connector".to_owned(), &status.connector)).chain(tasks)
    });
    let mut text = table(["NAME", "PART", "STATE", "WORKER"], rows);
    for status in statuses {
        if let Some(trace) = status.failed().and_then(|part| part.trace.as_deref()) {
            text.push_str(&format!("\n\n{} failed:\n{trace}", status.name));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_failed_task_shows_its_trace() {
        let status: Vec<ConnectorStatus> = serde_json::from_value(json!([{
            "name": "waitlist", "type": "source",
            "connector": {"state": "RUNNING", "worker_id": "w:1", "version": "3"},
            "tasks": [{"id": 0, "state": "FAILED", "worker_id": "w:2", "trace": "no slot"}],
        }]))
        .unwrap();
        let text = status_table(&status);
        assert!(
            text.contains("task 0") && text.ends_with("waitlist failed:\nno slot"),
            "{text}"
        );
    }
}
