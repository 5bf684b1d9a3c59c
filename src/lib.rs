//! Your Postgres writes trigger work.

pub mod event;
pub mod ledger;

pub mod handler;

pub mod clients;

pub mod mail_catcher;

pub mod config;

pub mod telemetry;

pub mod cli;
