//! Groups seen from outside: who runs them, how far they are, what stopped them, and moving the position of a stopped one.
//!
//! Nothing here takes part in delivery. The broker is asked by clients that join no group; a position is written only for a
//! group without members, which the broker itself checks.

pub mod workers;

pub mod known;

pub mod partition;

pub mod broker;

pub mod moves;

pub mod slots;

pub mod graduation;
