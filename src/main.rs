//! The process: `afterwrite` itself, the waitlist worker with every command.

use std::process::ExitCode;

use afterwrite::cli::program::Program;
use mimalloc::MiMalloc;

/// An event is made on one thread and freed on another; the system's allocator makes that a fifth of all work, and keeps
/// what is freed.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    Program::waitlist().main()
}
