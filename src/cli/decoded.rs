//! A record and what became of it, as `decode` and `tail` print it for programs.

use serde::Serialize;

use crate::decode::canonical::Canonical;
use crate::event::change::Change;
use crate::event::delivery::{Content, SkipReason};

/// One line of output.
#[derive(Debug, Serialize)]
pub(super) struct Line<'a> {
    pub(super) topic: &'a str,
    pub(super) partition: i32,
    pub(super) offset: i64,
    /// `change`, `skip` or `undecodable`.
    pub(super) kind: &'static str,
    /// Why it is skipped or cannot be decoded.
    pub(super) reason: Option<&'a str>,
    pub(super) event: Option<Canonical<'a>>,
}

impl<'a> Line<'a> {
    /// What became of the record at a place.
    pub(super) fn of(topic: &'a str, partition: i32, offset: i64, content: &'a Content) -> Self {
        let (kind, reason, event) = match content {
            Content::Change(event) if matches!(event.change(), Change::Read { .. }) => {
                ("skip", Some(SkipReason::Read.as_str()), Some(Canonical(event)))
            }
            Content::Change(event) => ("change", None, Some(Canonical(event))),
            Content::Skip(reason) => ("skip", Some(reason.as_str()), None),
            Content::Undecodable(reason) => ("undecodable", Some(reason.as_str()), None),
        };
        Self {
            topic,
            partition,
            offset,
            kind,
            reason,
            event,
        }
    }
}
