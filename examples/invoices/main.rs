//! A handler of your own: one line of account per paid order, exactly once.
//!
//! The SQL of its tables is [`handler::TABLES`]; `orders` belongs to the application and has to be published and captured.
//!
//! ```text
//! eval "export $(infra/native/stack env | xargs)"
//! cargo run --example invoices -- migrate --publication skip
//! cargo run --example invoices -- run
//! cargo test --features testkit --example invoices
//! ```

mod handler;

#[cfg(all(test, feature = "testkit"))]
mod tests;

use std::process::ExitCode;
use std::sync::Arc;

use afterwrite::cli::program::Program;

use crate::handler::Invoices;

fn main() -> ExitCode {
    Program::of(|_config| Ok(vec![Arc::new(Invoices)])).main()
}
