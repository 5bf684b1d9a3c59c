//! Expired accounts are deactivated every hour, and nobody is who was not warned: a scheduled job and a handler that work together.
//!
//! The job writes rows and nothing else, in one transaction with its tick: a warning for each account that is about to expire, and
//! the deactivation of those that have expired and whose warning a mail server took long enough before. The row of a warning is an
//! event, and the handler mails it, once as far as mail servers allow it. So while mails cannot be sent nobody is deactivated, a job
//! that runs late or twice changes nothing, and an account that is extended is left alone by both.
//!
//! ```toml
//! [schedule.jobs.expired_accounts]
//! schedule = "@hourly"
//!
//! [handlers.expiry_warnings]
//! settings = { from = "Accounts <accounts@example.com>", extend_url = "https://app.example.com/extend" }
//! ```
//!
//! ```text
//! cargo run --example expiry -- migrate --publication skip
//! cargo run --example expiry -- run
//! cargo run --example expiry -- schedule list
//! cargo test --features testkit --example expiry
//! ```

mod job;

mod warnings;

#[cfg(all(test, feature = "testkit"))]
mod tests;

use std::process::ExitCode;
use std::sync::Arc;

use afterwrite::app::own;
use afterwrite::cli::program::Program;

use crate::job::ExpiredAccounts;
use crate::warnings::{NAME, Warnings};

fn main() -> ExitCode {
    Program::of(|config| {
        let settings = own::settings(config, NAME)?;
        Ok(vec![Arc::new(Warnings::new(settings, own::mailer(config, NAME)?))])
    })
    .with_jobs(|_config| Ok(vec![Arc::new(ExpiredAccounts)]))
    .main()
}
