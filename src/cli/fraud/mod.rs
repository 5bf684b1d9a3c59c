//! `afterwrite fraud`: what the fraud checks found, and what people decide about it.

mod decide;
mod list;
mod show;

use clap::{Args, Subcommand};

use crate::cli::Failure;
use crate::cli::output::Output;
use crate::config::Config;

/// Arguments of `fraud`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  afterwrite fraud list                             what waits for a decision
  afterwrite fraud show 7d4f0c2e-…                  the evidence, and whose credit is at stake
  afterwrite fraud dismiss 7d4f0c2e-… --note 'one family'
  afterwrite fraud confirm 7d4f0c2e-…

Places and rewards follow by themselves: a decision is a row that changes, and the worker reacts to it.")]
pub struct FraudArgs {
    #[command(subcommand)]
    command: FraudCommand,
}

#[derive(Debug, Subcommand)]
enum FraudCommand {
    /// List detections, those that wait for a decision unless other states are asked for
    List(list::ListArgs),
    /// Show one detection with its evidence and what is at stake
    Show(show::ShowArgs),
    /// Say that detections are right: the credit stays held
    Confirm(decide::DecideArgs),
    /// Say that detections are wrong: the credit is released, and the same evidence is never held against the user again
    Dismiss(decide::DecideArgs),
}

#[derive(Debug, thiserror::Error)]
#[error("detections could not be read from postgres; was `afterwrite migrate` run?")]
struct ReadFailed(#[source] sqlx::Error);

/// Runs a `fraud` command.
///
/// # Errors
/// When Postgres fails, or a detection is unknown.
pub async fn run(args: &FraudArgs, config: &Config, output: Output) -> Result<(), Failure> {
    match &args.command {
        FraudCommand::List(args) => list::run(args, config, output).await,
        FraudCommand::Show(args) => show::run(args, config, output).await,
        FraudCommand::Confirm(args) => decide::confirm(args, config, output).await,
        FraudCommand::Dismiss(args) => decide::dismiss(args, config, output).await,
    }
}
