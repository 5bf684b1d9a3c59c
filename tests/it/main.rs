//! The worker against the real stack: Postgres, Kafka, Kafka Connect with Debezium, the registry, the mail catcher.
//!
//! `tests/run` starts one stack and hands its addresses over in the environment (`infra/native/stack env`); run by hand:
//!
//! ```text
//! cargo build && infra/native/stack up
//! eval "$(infra/native/stack env | sed 's/^/export /')"
//! cargo test --features testkit --test it -- --nocapture
//! ```
//!
//! Each test has a database, a connector, topics and groups of its own ([`world`]), so tests run side by side; those that
//! kill services take the stack for themselves ([`stack::alone`]). Workers are processes of this same binary
//! ([`worker`]), so they can be killed like real ones. Each test prints its figures.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod patience;

mod stack;

mod world;

mod removal;

mod worker;

mod producer;

mod survival;

mod failing;

mod crashing;

mod suspending;

mod marks;

mod metrics;

mod retention;

mod undecodable;

mod unwritable;

mod dead_letter_topic;

mod mails;

mod flaky_mails;

mod reload;

mod mail_tls;

mod registry;

mod encodings;

mod connectors;

mod topics;

mod ownership;

mod protocols;

mod lost_answers;

mod beginnings;

mod outage;

mod chaos;

mod ledger;

mod replays;

mod letters;

mod letters_in_postgres;

mod runs;

mod too_large;

mod followed;

mod tailing;

mod shadow;

mod old_rows;

mod status;

mod moves;

mod torture;

#[cfg(test)]
#[path = "../captures/mod.rs"]
mod captures;

mod scenario;

mod parity;

mod wal_reader;

mod wal;

mod slot_lag;

mod slots;

mod graduation;

mod sources;

mod fairness;

mod fixtures;

mod demo;

mod wal_seen;

mod authority;

mod wal_tls;

mod security;
