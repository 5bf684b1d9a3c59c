//! For tests of handlers and of the engine: events as a source would hand them over.

pub mod event;
