//! What handlers ask of a change: identifiers of its row, and what became of a column.

use uuid::Uuid;

use crate::event::change::{Before, Change, ChangeEvent};
use crate::event::key::Key;
use crate::event::row::Row;

/// Columns that the application touches with every update, whatever else it changes.
const BOOKKEEPING: &[&str] = &["updated_at"];

/// The identifier in a column of a row.
pub(crate) fn id(row: &Row, column: &str) -> Option<Uuid> {
    row.text(column)?.parse().ok()
}

/// The identifiers a column has and had: one, or two when it changed.
pub(crate) fn ids(event: &ChangeEvent, column: &str) -> Vec<Uuid> {
    let mut found: Vec<Uuid> = [event.after(), event.before(), event.key().map(Key::row)]
        .into_iter()
        .flatten()
        .filter_map(|row| id(row, column))
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// Whether the row was deleted; leaving under a primary key that changed is no deletion.
pub(crate) fn is_delete(event: &ChangeEvent) -> bool {
    matches!(event.change(), Change::Delete { moved_to: None, .. })
}

/// Whether the row was inserted; appearing under a primary key that changed is no insertion.
pub(crate) fn is_insert(event: &ChangeEvent) -> bool {
    matches!(event.change(), Change::Insert { moved_from: None, .. })
}

/// Whether an update changed one of these columns. An old row that is not known may have differed.
pub(crate) fn updated(event: &ChangeEvent, columns: &[&str]) -> bool {
    matches!(event.change(), Change::Update { .. }) && columns.iter().any(|column| event.changed(column))
}

/// Whether an update changed no captured column at all: only something that is not captured.
pub(crate) fn changed_nothing_captured(event: &ChangeEvent) -> bool {
    match event.change() {
        Change::Update {
            before: Before::Whole(_),
            after,
        } => after
            .columns()
            .all(|(column, _)| BOOKKEEPING.contains(&column) || !event.changed(column)),
        _ => false,
    }
}

/// Whether the text of `column` entered or left this set of words. An insert enters, a delete leaves, and an old row that
/// is not known may have been on either side.
pub(crate) fn crossed(event: &ChangeEvent, column: &str, words: &[&str]) -> bool {
    let inside = |row: &Row| row.text(column).is_some_and(|word| words.contains(&word));
    match event.change() {
        Change::Insert { after, .. } => inside(after),
        Change::Update { before, after } => before.whole().is_none_or(|old| inside(old) != inside(after)),
        Change::Delete { before, .. } => before.whole().is_none_or(inside),
        Change::Read { .. } | Change::Truncate | Change::Message { .. } => false,
    }
}

/// Whether `column` is `word` now and was not before.
pub(crate) fn became(event: &ChangeEvent, column: &str, word: &str) -> bool {
    let is = |row: &Row| row.text(column) == Some(word);
    match event.change() {
        Change::Insert { after, moved_from } => is(after) && moved_from.is_none(),
        Change::Update { before, after } => is(after) && before.whole().is_none_or(|old| !is(old)),
        Change::Delete { .. } | Change::Read { .. } | Change::Truncate | Change::Message { .. } => false,
    }
}

/// Whether this change completed a campaign.
pub(crate) fn completes(event: &ChangeEvent) -> bool {
    &*event.origin().table == "campaigns" && became(event, "status", "completed")
}
