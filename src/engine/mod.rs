//! The engine: decide apart from do.
//!
//! [`core`] decides; [`driver`] performs. The driver is the only owner of the core and of everything kept for open jobs;
//! sources, attempts and dead letters talk to it by messages.

pub mod core;

pub(crate) mod lanes;

pub(crate) mod offsets;

pub mod retry;

pub mod suspend;

pub mod driver;

mod perform;

mod tasks;

mod need;

mod halt;

mod ownership;

mod keeper;

pub mod owner;

mod jobs;

pub(crate) mod attempt;

pub mod backoff;

pub mod letter;

mod lag;

pub mod counts;

pub mod standing;
