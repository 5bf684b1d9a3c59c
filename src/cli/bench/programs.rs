//! Programs that come with Postgres.

use std::path::{Path, PathBuf};

/// Where Debian keeps them when they are not in PATH.
const INSTALLED: &str = "/usr/lib/postgresql";

/// The program is not on this machine.
#[derive(Debug, thiserror::Error)]
#[error("{program} is neither in PATH nor below {INSTALLED}: it comes with Postgres")]
pub(super) struct Missing {
    program: &'static str,
}

/// Where a program of Postgres is.
pub(super) fn find(program: &'static str) -> Result<PathBuf, Missing> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed = std::fs::read_dir(INSTALLED).into_iter().flatten().flatten();
    let folders = std::env::split_paths(&path).chain(installed.map(|version| version.path().join("bin")));
    let mut candidates = folders.map(|folder| folder.join(program));
    candidates
        .find(|candidate| Path::is_file(candidate))
        .ok_or(Missing { program })
}
