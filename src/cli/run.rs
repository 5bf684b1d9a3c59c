//! `afterwrite run`: the worker.

use clap::Args;
use tokio::sync::watch;

use crate::app;
use crate::cli::{Failure, stop_signal};
use crate::config::Config;
use crate::dead_letter::topic;

/// Arguments of `run`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  afterwrite run                            all groups in one process
  afterwrite run --only email,reward        these groups only; run the others elsewhere
  AFTERWRITE__ENGINE__LANES_MAX=50 afterwrite run

SIGTERM and Ctrl-C stop cleanly: what runs ends, positions are committed, the groups are left.")]
pub struct RunArgs {
    /// Groups to run, short (email) or full (afterwrite.email); all when absent
    #[arg(long, value_name = "GROUP", value_delimiter = ',')]
    pub only: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
#[error("--only names {unknown}, which is not a group; there are {known}")]
struct UnknownGroup {
    unknown: String,
    known: String,
}

/// Runs the waitlist worker until it is told to stop.
///
/// # Errors
/// When the configuration or the database is not as it must be.
pub async fn run(args: &RunArgs, config: &Config) -> Result<(), Failure> {
    let mut handlers = app::waitlist::handlers(config).map_err(Failure::usage)?;
    let names: Vec<String> = handlers.iter().map(|handler| handler.spec().name).collect();
    let only: Vec<&str> = args.only.iter().map(|group| config.short_group_name(group)).collect();
    if let Some(unknown) = only.iter().find(|group| !names.iter().any(|name| name == *group)) {
        let unknown = (*unknown).to_owned();
        return Err(Failure::usage(UnknownGroup {
            unknown,
            known: names.join(", "),
        }));
    }
    warn_of_schedule(config);
    handlers.retain(|handler| only.is_empty() || only.contains(&handler.spec().name.as_str()));
    let (stop, stopping) = watch::channel(false);
    let signals = tokio::spawn(async move {
        let heard = stop_signal().await;
        stop.send_replace(true);
        heard
    });
    let served = app::serve(config, handlers, stopping).await;
    signals.abort();
    served
        .map(|_| ())
        .map_err(|error| match error.downcast_ref::<topic::Error>() {
            // The topic contradicts the configuration, and only a person can say which of them is right.
            Some(_) => Failure::usage(error),
            None => Failure::failed(error),
        })
}

/// Whoever set an interval expects work that this version does not do.
fn warn_of_schedule(config: &Config) {
    let schedule = &config.schedule;
    let set: Vec<&str> = [
        (
            schedule.analytics_interval,
            "schedule.analytics_interval (ANALYTICS_INTERVAL)",
        ),
        (
            schedule.fraud_scan_interval,
            "schedule.fraud_scan_interval (FRAUD_DETECTION_INTERVAL)",
        ),
    ]
    .into_iter()
    .filter_map(|(interval, name)| interval.map(|_| name))
    .collect();
    if !set.is_empty() {
        tracing::warn!(
            settings = set.join(", "),
            "this version has no scheduled work yet: these settings do nothing"
        );
    }
}
