//! `afterwrite doctor` over installations that are really broken and mended in turn, on the real stack.
//!
//! Each line of the lists breaks one thing for real, and then the binary has to name its cause by its code, with a code of exit that
//! says so. Where the remedy that it prints can be run, it is run as printed, and then the doctor has to be silent again.
//! Four installations are broken at once, each with lists of its own: most of the time is waiting, for Kafka Connect above all. What
//! is broken of a whole server, is so of one that the test starts for itself.
//! Run it as tests/it is run.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[cfg(test)]
#[path = "../it/patience.rs"]
mod patience;

#[cfg(test)]
#[path = "../it/removal.rs"]
mod removal;

mod own_server;

mod installation;

mod brokers;

mod breaking;

mod hours;

mod broken;

mod lists;
