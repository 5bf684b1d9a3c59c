//! Records that broke other consumers of Debezium, each with what must become of it.
//!
//! The list is that of [docs/DEBEZIUM.md](../../docs/DEBEZIUM.md); a test's name begins with the number there. What only a
//! real connector, broker or database can show has its test in `tests/it/torture.rs`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod encode;
mod records;

#[cfg(test)]
#[path = "../captures/mod.rs"]
mod captures;

mod avro;
mod captured;
mod framing;
mod identity;
mod values;
