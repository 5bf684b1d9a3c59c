//! A measurement in a process of its own, so that its memory and processor time are its own too.

use std::ffi::OsString;
use std::process::Stdio;

use serde_json::Value;
use tokio::process::Command;

use crate::cli::Failure;

#[derive(Debug, thiserror::Error)]
enum ChildError {
    #[error("`bench {action}` could not be started")]
    Started { action: String, source: std::io::Error },
    #[error("`bench {action}` ended with {status}")]
    Ended { action: String, status: String },
    #[error("`bench {action}` did not print a report")]
    Said { action: String, source: serde_json::Error },
}

/// Words of a command, fixed ones and others.
pub(super) fn words(fixed: &[&str], more: &[&str]) -> Vec<String> {
    fixed.iter().chain(more).map(|word| (*word).to_owned()).collect()
}

/// Runs one measurement in a process of its own. Its configuration is this one's: same directory, same
/// environment, same words.
pub(super) async fn measure(action: &[String], brokers: &str, settings: &[OsString]) -> Result<Value, Failure> {
    let program = std::env::current_exe().map_err(Failure::failed)?;
    let mut command = Command::new(program);
    command
        .arg("bench")
        .args(action)
        .args(["--brokers", brokers])
        .args(settings);
    report_of(command, &action.join(" ")).await
}

/// What a program prints, which is one JSON document; `action` says what it does.
pub(super) async fn report_of(mut command: Command, action: &str) -> Result<Value, Failure> {
    let action = || action.to_owned();
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|source| {
            Failure::failed(ChildError::Started {
                action: action(),
                source,
            })
        })?;
    if !output.status.success() {
        return Err(Failure::failed(ChildError::Ended {
            action: action(),
            status: output.status.to_string(),
        }));
    }
    serde_json::from_slice(&output.stdout).map_err(|source| {
        Failure::failed(ChildError::Said {
            action: action(),
            source,
        })
    })
}
