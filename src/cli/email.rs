//! `afterwrite email`: mails before they are sent.

mod preview;

use clap::{Args, Subcommand};

use crate::cli::Failure;
use crate::cli::output::Output;
use crate::config::Config;

/// Arguments of `email`.
#[derive(Debug, Args)]
pub struct EmailArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: EmailCommand,
}

/// What can be done about mails.
#[derive(Debug, Subcommand)]
pub enum EmailCommand {
    /// Show how a mail will look; sends and writes nothing
    Preview(preview::PreviewArgs),
}

/// Runs the command that was asked for.
///
/// # Errors
/// What went wrong.
pub async fn run(args: &EmailArgs, config: &Config, output: Output) -> Result<(), Failure> {
    match &args.command {
        EmailCommand::Preview(args) => preview::run(args, config, output).await,
    }
}
