//! `afterwrite health`: asks the worker of this machine whether it lives, for health checks of containers and units that have
//! no HTTP client.

use std::time::Duration;

use clap::Args;
use serde_json::Value;

use crate::cli::Failure;
use crate::cli::output::{Output, table};
use crate::config::Config;

/// Longest wait for an answer; health checks of container engines wait for 30 s by default.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Nothing is known, or there is nothing.
const NONE: &str = "-";

/// Arguments of `health`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  afterwrite health            exit code 0 while the worker can get on by itself, 1 when only a restart helps
  afterwrite health --ready    exit code 0 while every group runs, 1 while one has not started or has ended

It asks the address of `admin.listen` on this machine, and ends with 3 when nobody answers there, with 2 when it is not set.")]
pub struct HealthArgs {
    /// Whether every group runs, not only whether the process lives
    #[arg(long)]
    ready: bool,
    /// Be content where `admin.listen` is not set: nobody can be asked then (for the health check of an image)
    #[arg(long)]
    if_listening: bool,
}

#[derive(Debug, thiserror::Error)]
enum HealthFailed {
    #[error(
        "admin.listen is not set, so the worker tells nothing over HTTP: set it, for example to \"localhost:9464\""
    )]
    NotListening,
    #[error("no worker answered at {url} (admin.listen) within {} s", ANSWER_MAX.as_secs())]
    Unreachable { url: String, source: reqwest::Error },
    #[error("{url} answered with something else than a worker does: {status}")]
    Foreign {
        url: String,
        status: reqwest::StatusCode,
        source: reqwest::Error,
    },
    #[error("the worker answered {status}: {what}")]
    Bad { status: u16, what: &'static str },
}

/// Runs `health`.
///
/// # Errors
/// When the worker says that it is not well, or does not answer.
pub async fn run(args: &HealthArgs, config: &Config, output: Output) -> Result<(), Failure> {
    let Some(listen) = &config.admin.listen else {
        if args.if_listening {
            return Ok(());
        }
        return Err(Failure::usage(HealthFailed::NotListening));
    };
    let path = if args.ready { "readyz" } else { "healthz" };
    let url = format!("http://{}/{path}", reachable(listen));
    let asked = async {
        reqwest::Client::builder()
            .timeout(ANSWER_MAX)
            .build()?
            .get(&url)
            .send()
            .await
    };
    let answer = asked.await.map_err(|source| {
        Failure::unreachable(HealthFailed::Unreachable {
            url: url.clone(),
            source,
        })
    })?;
    let status = answer.status();
    let health: Value = answer
        .json()
        .await
        .map_err(|source| Failure::failed(HealthFailed::Foreign { url, status, source }))?;
    output.print(&health, text)?;
    if status.is_success() {
        return Ok(());
    }
    let what = if args.ready {
        "a group has not started or has ended"
    } else {
        "a group is stuck, and only a restart helps"
    };
    let status = status.as_u16();
    Err(Failure::failed(HealthFailed::Bad { status, what }))
}

/// Where to ask a process of this machine that listens on this address: one that listens everywhere also listens here.
fn reachable(listen: &str) -> String {
    match listen.rsplit_once(':') {
        Some(("0.0.0.0" | "[::]" | "", port)) => format!("localhost:{port}"),
        _ => listen.to_owned(),
    }
}

fn text(health: &Value) -> String {
    let groups = health["groups"].as_array().map(Vec::as_slice).unwrap_or_default();
    let word = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => NONE.to_owned(),
        other => other.to_string(),
    };
    let rows = groups.iter().map(|group| {
        let suspended = group["suspended"].as_array().map_or(0, Vec::len);
        [
            word(&group["group"]),
            word(&group["state"]),
            word(&group["partitions"]),
            word(&group["retrying"]),
            suspended.to_string(),
            word(&group["parked_lanes"]),
            word(&group["oldest_open"]["since"]),
        ]
    });
    table(
        [
            "group",
            "state",
            "partitions",
            "retrying",
            "suspended",
            "parked lanes",
            "oldest open job",
        ],
        rows,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_listens_everywhere_is_asked_here() {
        for (listen, asked) in [
            ("0.0.0.0:9464", "localhost:9464"),
            ("[::]:9464", "localhost:9464"),
            ("localhost:1", "localhost:1"),
            ("10.0.0.7:9464", "10.0.0.7:9464"),
        ] {
            assert_eq!(reachable(listen), asked);
        }
    }
}
