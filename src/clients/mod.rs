//! What the worker calls outside of Postgres and Kafka.
//!
//! A client reports what happened and never decides what follows from it; that is the caller's part.

pub mod connect;
