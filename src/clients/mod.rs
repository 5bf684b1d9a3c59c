//! What the worker calls outside of Postgres: a mail server or a folder in its place, other people's HTTP endpoints, Kafka Connect, and what several
//! parts ask a Kafka broker.
//!
//! A client reports what happened and never decides what follows from it; that is the caller's part.

pub mod mailer;

mod mail_step;

pub mod mail_folder;

pub mod silent;

mod pace;

pub mod measured;

pub mod webhook;

pub mod connect;

pub(crate) mod kafka;

pub mod denied;

pub mod brokers;

pub(crate) mod forgotten;
