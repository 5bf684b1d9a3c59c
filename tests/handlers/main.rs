//! The waitlist's handlers against a real Postgres, a real SMTP server and a real HTTP receiver.
//!
//! Every test has a database of its own. Needs `DATABASE_URL`, `SMTP_HOST`, `SMTP_PORT` and `MAILBOX_DIR`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod world;

mod database;

mod reading;

mod servers;

mod email;

mod marketing;

mod unsubscribe;

mod refusals;

mod preview;

mod position;

mod reward;

mod webhook;

mod fraud;

mod review;

mod names;

mod erasure;

mod figures;

mod deaths;

mod roles;

mod migrations;

mod ticks;

mod tick_processes;

mod sweeps;

mod reconcile;

mod campaigns;

mod burst;
