//! For tests of handlers, of the engine and of sources: events as a source would hand them over, and what every source promises.
//! A source in memory, for tests over a whole engine, is [`crate::source::memory`].

pub mod event;

pub mod receiver;

pub mod source_suite;
