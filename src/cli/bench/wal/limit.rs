//! `pg_recvlogical`: receives the log and does nothing with it.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use tokio::process::{Child, Command};
use tokio::time::Instant;
use url::Url;

use crate::cli::Failure;

/// The program, and what it receives.
pub(super) struct Limit {
    program: PathBuf,
    /// Without the password.
    url: Url,
    password: String,
    publication: String,
}

#[derive(Debug, thiserror::Error)]
#[error("pg_recvlogical ended with {status}: {said}")]
struct Ended {
    status: String,
    said: String,
}

impl Limit {
    pub(super) fn new(program: PathBuf, address: &str, publication: &str) -> Result<Self, Failure> {
        let mut url: Url = address.parse().map_err(Failure::usage)?;
        let password = url.password().unwrap_or_default();
        let password = percent_decode_str(password).decode_utf8_lossy().into_owned();
        // Only an address without a host refuses it, and that has no password.
        if url.set_password(None).is_err() {
            tracing::debug!("the address has no password to be taken out");
        }
        Ok(Self {
            program,
            url,
            password,
            publication: publication.to_owned(),
        })
    }

    /// How long it takes to receive everything up to this place of the log, from its start.
    pub(super) async fn receive(&self, slot: &str, end: &str) -> Result<Duration, Failure> {
        let mut command = self.command(slot);
        command
            .args(["--endpos", end, "--file", "/dev/null"])
            .stdout(Stdio::null());
        let began = Instant::now();
        let ended = command.output().await.map_err(Failure::failed)?;
        let took = began.elapsed();
        if ended.status.success() {
            return Ok(took);
        }
        Err(Failure::failed(Ended {
            status: ended.status.to_string(),
            said: String::from_utf8_lossy(&ended.stderr).into_owned(),
        }))
    }

    /// Lets it write what it receives to its standard output.
    pub(super) fn follow(&self, slot: &str) -> Result<Child, Failure> {
        let mut command = self.command(slot);
        command
            .args(["--file", "-", "--fsync-interval", "0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        command.spawn().map_err(Failure::failed)
    }

    fn command(&self, slot: &str) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(["--start", "--no-loop", "--slot", slot])
            .args(["--option", "proto_version=1"])
            .args(["--option", &format!("publication_names={}", self.publication)])
            .args(["--dbname", self.url.as_str()])
            // As an argument everybody on this machine could read it.
            .env("PGPASSWORD", &self.password)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }
}
