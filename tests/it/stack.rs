//! The running stack: its addresses, and killing and starting its services.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

pub(crate) use crate::patience::until;

/// Tests that only use the stack share it; tests that kill its services have it alone.
static STACK: LazyLock<RwLock<()>> = LazyLock::new(|| RwLock::new(()));

/// Uses the stack together with other tests.
pub(crate) async fn shared() -> RwLockReadGuard<'static, ()> {
    STACK.read().await
}

/// Has the stack alone, to kill its services.
pub(crate) async fn alone() -> RwLockWriteGuard<'static, ()> {
    STACK.write().await
}

/// An address from `infra/native/stack env`.
pub(crate) fn address(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: start the stack and export what `infra/native/stack env` prints")
    })
}

/// Runs `infra/native/stack VERB SERVICE`.
pub(crate) async fn order(verb: &'static str, service: &'static str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let script: PathBuf = root.join("infra/native/stack");
    let ran = tokio::task::spawn_blocking(move || {
        Command::new(script)
            .args([verb, service])
            .env("AFTERWRITE_BIN", env!("CARGO_BIN_EXE_afterwrite"))
            .output()
    });
    let output = ran.await.unwrap().unwrap();
    assert!(
        output.status.success(),
        "stack {verb} {service} failed: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
