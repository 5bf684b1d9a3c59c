//! Your Postgres writes trigger work.

pub mod event;
pub mod ledger;

pub mod handler;

pub mod router;

pub mod engine;

pub mod dead_letter;
