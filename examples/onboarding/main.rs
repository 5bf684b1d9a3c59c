//! Onboarding a tenant: several calls of a provisioning API, each made once, and the tenant active when all were.
//!
//! A row of `tenants` with status `requested` starts it. Each step is an effect with a key of its own, settled by itself, so a retry,
//! a crash and a redelivery go on behind the last step that succeeded; what a step brought is kept beside it. Five attempts, which
//! is the default, then the dead letter; a replay goes on at the step that failed.
//!
//! ```toml
//! [handlers.onboarding]
//! attempts_max = 5
//! settings = { api_url = "https://provisioning.example", api_key = "${env:PROVISIONING_KEY}" }
//! ```
//!
//! ```text
//! cargo run --example onboarding -- migrate --publication skip
//! cargo run --example onboarding -- run
//! cargo test --features testkit --example onboarding
//! ```

mod handler;

#[cfg(all(test, feature = "testkit"))]
mod tests;

use std::process::ExitCode;
use std::sync::Arc;

use afterwrite::app::own;
use afterwrite::cli::program::Program;

use crate::handler::{NAME, Onboarding};

fn main() -> ExitCode {
    Program::of(|config| {
        let settings = own::settings(config, NAME)?;
        Ok(vec![Arc::new(Onboarding::new(settings)?)])
    })
    .main()
}
