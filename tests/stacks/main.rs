//! The files of the two stacks, of the connectors and of the database must fit together. These tests read them, and start
//! no service.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod reading;

mod compose;

mod connectors;

mod binaries;

mod monitoring;

mod packages;

mod release;
