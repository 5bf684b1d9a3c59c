//! `afterwrite doctor` over one installation that is really broken and mended in turn, on the real stack.
//!
//! Each line of the lists breaks one thing for real, and then the binary has to name its cause by its code, with a code of exit that
//! says so. Where the remedy that it prints can be run, it is run as printed, and then the doctor has to be silent again.
//! Run it as tests/it is run; it takes the stack for itself.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[cfg(test)]
#[path = "../it/patience.rs"]
mod patience;

mod installation;

mod brokers;

mod breaking;

mod lists;
