//! The waitlist's handlers against a real Postgres, a real SMTP server and a real HTTP receiver.
//!
//! Every test has a database of its own. Needs `DATABASE_URL`, `SMTP_HOST`, `SMTP_PORT` and `MAILBOX_DIR`.
#![cfg(feature = "testkit")]
// A test that panics says where; the helpers of tests are no exception.
#![allow(clippy::unwrap_used)]

#[path = "handlers/world.rs"]
mod world;

#[path = "handlers/servers.rs"]
mod servers;

#[path = "handlers/email.rs"]
mod email;

#[path = "handlers/position.rs"]
mod position;

#[path = "handlers/reward.rs"]
mod reward;

#[path = "handlers/webhook.rs"]
mod webhook;

#[path = "handlers/fraud.rs"]
mod fraud;
