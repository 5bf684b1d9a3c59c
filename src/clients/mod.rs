//! What the handlers call outside of Postgres: a mail server, and other people's HTTP endpoints.
//!
//! Each is a trait with one real implementation. A client reports what happened and never decides what follows from
//! it; that is the handlers' part.

pub mod mailer;

pub mod webhook;
