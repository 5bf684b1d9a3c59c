//! The process: reads the command line, starts the runtime, and turns what came out into an exit code.

use std::io::{self, Write};
use std::process::ExitCode;

use afterwrite::cli::{self, Cli, Failure};
use afterwrite::telemetry;
use clap::Parser;
use mimalloc::MiMalloc;

/// An event is made on one thread and freed on another; the system's allocator makes that a fifth of all work, and keeps
/// what is freed.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    match start(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Also where nobody reads (`2>&1 | head`), the exit code is the failure's and no panic's.
            drop(writeln!(io::stderr(), "afterwrite: {}", failure.chain()));
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Everything that can fail without the runtime fails before it exists.
fn start(cli: Cli) -> Result<(), Failure> {
    let config = cli.configuration()?;
    telemetry::start(config.log.format);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Failure::failed)?;
    runtime.block_on(cli::run(cli, config))
}
