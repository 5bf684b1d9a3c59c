//! Your Postgres writes trigger work.

pub mod cli;
pub mod decode;
pub mod event;
pub mod ledger;

pub mod handler;
