//! One file per command.

pub mod decode;
