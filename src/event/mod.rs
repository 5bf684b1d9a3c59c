//! The words everything else speaks: a decoded change, its row, its identity, and where it came from.
//!
//! Nothing here does I/O and nothing here knows a wire format. Lower modules (decoders, sources) build these values;
//! higher ones (router, engine, handlers) read them.

pub mod change;
pub mod key;

pub mod calendar;
pub mod modes;
pub mod row;
pub(crate) mod structured;
pub mod typed;

pub mod id;
mod identity;

pub mod delivery;

pub mod distance;
