//! For tests of handlers, of the engine and of sources.
//!
//! A handler is tested with a [`Kit`](kit::Kit): events are delivered to it through the whole engine over a Postgres of the test's
//! own, twice, with scripted [mishaps](mishap::Mishap), out of a crash; a [report](report::Report) says what came of it. A
//! [`Table`](table::Table) makes the events, a [`Receiver`](receiver::Receiver) is what the handler calls, and a
//! [`MailServer`](mail_server::MailServer) takes its mails; [`Ticks`](ticks::Ticks) runs a scheduled job. All it needs is `DATABASE_URL`, of a role that may make databases.
//! `docs/HANDLERS.md` shows it at work, `examples/` has whole tests.
//!
//! For engines and sources: [events](event) of recorded rows, and [what every source promises](source_suite). A source in memory,
//! for tests over a whole engine, is [`crate::source::memory`].

pub mod kit;

pub mod table;

pub mod mishap;

pub mod report;

pub mod database;

pub mod receiver;

pub mod ticks;

pub mod mail_server;

pub mod event;

mod process;

mod watched;

pub mod source_suite;
