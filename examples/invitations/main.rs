//! Inviting people to a team by mail: each invitation mailed once as far as mail servers allow it, and every repetition recognisable.
//!
//! A row of `invitations` wakes it. The mail is rendered once, kept with its claim, and every attempt hands over the same bytes with
//! the same `Message-ID`. `[smtp]` of the configuration says which server takes it.
//!
//! ```toml
//! [handlers.invitations]
//! settings = { from = "Teams <teams@example.com>", accept_url = "https://app.example.com/invitations/{token}" }
//! ```
//!
//! ```text
//! cargo run --example invitations -- migrate --publication skip
//! cargo run --example invitations -- run
//! cargo test --features testkit --example invitations
//! ```

mod handler;

mod mail;

#[cfg(all(test, feature = "testkit"))]
mod tests;

use std::process::ExitCode;
use std::sync::Arc;

use afterwrite::app::own;
use afterwrite::cli::program::Program;

use crate::handler::{Invitations, NAME};

fn main() -> ExitCode {
    Program::of(|config| {
        let settings = own::settings(config, NAME)?;
        Ok(vec![Arc::new(Invitations::new(settings, own::mailer(config, NAME)?))])
    })
    .main()
}
