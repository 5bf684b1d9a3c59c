//! The waitlist's handlers against a real Postgres, a real SMTP server and a real HTTP receiver.
//!
//! Every test has a database of its own. Needs `DATABASE_URL`, `SMTP_HOST`, `SMTP_PORT` and `MAILBOX_DIR`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod world;

mod servers;

mod email;

mod position;

mod reward;

mod webhook;

mod fraud;

mod campaigns;
