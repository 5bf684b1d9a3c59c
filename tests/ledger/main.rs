//! The coordination state against a real Postgres: what an owner of a partition inherits, parked lanes, slots, and the ledger's days.
//!
//! Every test has a database of its own, in which it may do what the worker's role may do. Needs `DATABASE_URL`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod database;

mod owners;

mod parked;

mod retention;

mod registry;

mod patience;

mod keyless;

mod redo;

mod slots;
