//! Your Postgres writes trigger work.

pub mod event;
pub mod ledger;

pub mod handler;

pub mod clients;

pub mod handlers;

#[cfg(feature = "testkit")]
pub mod testkit;
