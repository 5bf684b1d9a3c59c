//! A Postgres of its own, for what is broken of a whole server: its settings, its roles, its slots, its log.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A server that nobody else uses; it is deleted with this.
#[derive(Debug)]
pub(crate) struct OwnServer {
    directory: PathBuf,
    port: u16,
}

impl OwnServer {
    /// A new cluster, with the settings of the stack's.
    pub(crate) fn start() -> Self {
        // Free a moment ago.
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let name = format!("doctor_postgres_{}", uuid::Uuid::new_v4().simple());
        let this = Self {
            directory: std::env::temp_dir().join(name),
            port,
        };
        this.stack(&["start", "postgres"]);
        this
    }

    /// Its address, as the role that owns it.
    pub(crate) fn url(&self) -> String {
        format!("postgres://waitlist_owner@127.0.0.1:{}/waitlist", self.port)
    }

    /// Stops it in an orderly way, and starts it again.
    pub(crate) fn restart(&self) {
        self.stack(&["stop", "postgres"]);
        self.stack(&["start", "postgres"]);
    }

    fn stack(&self, words: &[&str]) {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("infra/native/stack");
        let output = Command::new(program)
            .args(words)
            .env("STACK_DIR", &self.directory)
            .env("PG_PORT", self.port.to_string())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "stack {words:?}: {said}");
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        self.stack(&["down", "--wipe"]);
    }
}
