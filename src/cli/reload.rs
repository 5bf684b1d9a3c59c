//! SIGHUP: the configuration is read again while the worker runs.
//!
//! What can change at once does; what else changed is named, and stays as it was until a restart. A configuration that would
//! be refused at a start changes nothing.

use std::convert::Infallible;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::program::Program;
use crate::cli::{Failure, Global};
use crate::config::load::Reading;
use crate::telemetry;

/// The only setting that nothing was made of at the start: clients, lanes and limits were made of all others.
const AT_ONCE: &str = "log.filter";

/// Listens for SIGHUP, which from then on no longer ends the process.
///
/// # Errors
/// When the system refuses the signal handler.
pub(super) fn hangups() -> Result<Signal, Failure> {
    signal(SignalKind::hangup()).map_err(Failure::failed)
}

/// Reads the configuration again at each SIGHUP. Cancel-safe: between two signals nothing is half done.
pub(super) async fn at_hangups(
    mut hangups: Signal,
    mut running: Reading,
    global: &Global,
    program: &Program,
) -> Infallible {
    loop {
        match hangups.recv().await {
            Some(()) => reload(&mut running, global, program),
            None => std::future::pending().await,
        }
    }
}

fn reload(running: &mut Reading, global: &Global, program: &Program) {
    let mut new = program.checked(&global.inputs());
    if !new.refusals.is_empty() {
        for refusal in &new.refusals {
            tracing::error!(%refusal, "configuration refused: the worker goes on with the one it has");
        }
        return;
    }
    let mut changed = running.differing(&new);
    if changed.is_empty() {
        tracing::info!("configuration read again: nothing changed");
        return;
    }
    let waiting = changed.len();
    changed.retain(|setting| setting != AT_ONCE);
    if changed.len() < waiting {
        match telemetry::filter_by(new.config.log.filter.as_deref()) {
            Ok(()) => {
                running.adopt(AT_ONCE, &mut new);
                tracing::info!(settings = AT_ONCE, "configuration read again: a change is in effect");
            }
            Err(error) => tracing::warn!(%error, "log.filter could not be changed"),
        }
    }
    if !changed.is_empty() {
        let settings = changed.join(", ");
        tracing::warn!(
            settings,
            "settings were changed that are in effect only after a restart"
        );
    }
}
