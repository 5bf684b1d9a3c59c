//! Sources: where changes come from. Each speaks to the engine by [`crate::event::delivery`] and nothing else.

pub mod kafka;

pub mod wal;

#[cfg(feature = "testkit")]
pub mod memory;
