//! The running stack: its addresses, and killing and starting its services.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

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

/// Asks again and again until the answer is there; the only kind of waiting in these tests.
///
/// # Panics
/// When the deadline passes; the message says what was waited for.
pub(crate) async fn until<T>(what: &str, within: Duration, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + within;
    let mut look = tokio::time::interval(Duration::from_millis(100));
    // A look that takes longer than that must leave time to whatever is waited for beside it.
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "waited {within:?} in vain for {what}"
        );
    }
}
