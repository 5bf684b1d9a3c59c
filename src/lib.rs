//! Your Postgres writes trigger work.
//!
//! An application only writes rows. Debezium streams the write-ahead log into Kafka; this crate decodes the changes,
//! routes each by table to handlers, retries what may heal, and puts what will not heal into a dead-letter topic from
//! which it can be replayed. The journey of a change, which is also the order in which to read the modules:
//!
//! 1. [`source`] polls a record and hands it on as a delivery;
//! 2. [`decode`] turns its bytes into an [`event`], whatever the encoding;
//! 3. [`router`] says which [`handler`]s it wakes, and on which ordering key;
//! 4. [`engine`] decides when each job runs, what follows from its end, and how far the group's position may move;
//! 5. the [`ledger`] makes what a handler writes to the database happen once;
//! 6. [`dead_letter`] keeps what failed for good, byte for byte, until it is replayed.
//!
//! [`schedule`] is work that the clock wakes instead of a change. [`groups`] sees all of that from outside: who runs a group, how far it is, what stopped it; [`doctor`] looks for what is wrong on the whole way.

mod causes;

pub mod hindrance;

pub mod tally;

pub mod event;

pub mod decode;

pub mod source;

pub mod ledger;

pub mod handler;

pub mod router;

pub mod engine;

pub mod dead_letter;

pub mod groups;

pub mod clients;

pub mod handlers;

pub mod schedule;

pub mod mail_catcher;

pub mod doctor;

pub mod shadow;

pub mod config;

pub mod telemetry;

pub mod traces;

pub mod admin;

pub mod app;

pub mod cli;

#[cfg(feature = "testkit")]
pub mod testkit;
