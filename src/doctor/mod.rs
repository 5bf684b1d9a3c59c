//! Whether an installation works, on the whole way from a committed row to the end of its work, and what mends what does not.
//!
//! Each part of the way has a file: `collect` asks, `findings` is a pure function of what was answered and of what should be
//! ([`expected`]). A part that cannot be asked, because an earlier one is away, is named once as not checked. Every question has
//! a time limit, and nothing is changed but the one row of the probe.

pub mod finding;

mod quoting;

pub mod codes;

mod lint_codes;

#[cfg(test)]
mod all_codes;

pub mod doors;

pub mod expected;

mod server;

mod horizon;

mod tables;

mod columns;

mod adjusting;

mod schema;

mod publication;

mod roles;

mod slot;

mod connector;

mod offsets;

mod exactly_once;

pub(crate) mod heartbeats;

mod samples;

mod records;

pub(crate) mod lints;

mod lint_rules;

pub(crate) mod routing;

mod topics;

mod registry;

mod groups;

mod handlers;

mod letters;

pub mod probe;

pub mod asking;

pub mod examination;

#[cfg(test)]
mod tests;
