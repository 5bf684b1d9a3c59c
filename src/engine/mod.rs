//! The engine: decide apart from do.

pub mod core;

pub(crate) mod lanes;

pub(crate) mod offsets;

pub mod retry;
