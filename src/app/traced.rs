//! Traces of this process: begun and ended with it.

use std::time::Duration;

use anyhow::Context as _;

use crate::config::Config;
use crate::traces;

/// Begins to trace, where that is configured.
///
/// # Errors
/// When the settings make no client.
pub(super) fn start(config: &Config) -> anyhow::Result<()> {
    let Some(endpoint) = &config.traces.endpoint else {
        return Ok(());
    };
    traces::start(traces::Settings {
        endpoint: endpoint.base().to_owned(),
        headers: config.traces.header_list().unwrap_or_default(),
        timeout: Duration::from_millis(config.traces.timeout_ms),
        sampled: config.traces.sampled,
    })
    .context("[traces] cannot be used")
}

/// Exports what is left. That blocks, so it is done where it may.
pub(super) async fn end() {
    if let Err(error) = tokio::task::spawn_blocking(traces::end).await {
        tracing::debug!(%error, "the last spans were not exported");
    }
}
