//! The commands of `afterwrite config`, as processes: what is refused and how it is said, and that no secret is ever printed.
//! No services are needed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod cases;

mod coverage;

mod documented;

mod secrets;

mod shown;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A folder of one test's own, deleted at its end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("afterwrite-config-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.0.join(name), bytes).unwrap();
    }

    /// `afterwrite` in this folder, with no variables but those it is given.
    fn afterwrite(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_afterwrite"));
        command.current_dir(&self.0).env_clear();
        command
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Everything that a command said.
fn said(output: &Output) -> String {
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
