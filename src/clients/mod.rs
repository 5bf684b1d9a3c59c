//! What the worker calls outside of Postgres and Kafka: a mail server, other people's HTTP endpoints, Kafka Connect.
//!
//! A client reports what happened and never decides what follows from it; that is the caller's part.

pub mod mailer;

pub mod webhook;

pub mod connect;
