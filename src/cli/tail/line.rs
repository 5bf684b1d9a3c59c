//! A change in one line for people: when, what, of which table and row, and what the row is now.

use chrono::DateTime;
use serde::Serialize;

use crate::cli::colours::{Colours, Look, printable};
use crate::cli::decoded::Line;
use crate::decode::canonical;
use crate::event::change::{Change, ChangeEvent};
use crate::event::key::Moved;
use crate::event::row::{Cell, Row};

/// The line of a change. Of an update whose old row is known it shows what changed only, with what was there before.
pub(super) fn of_change(event: &ChangeEvent, colours: Colours) -> String {
    let origin = event.origin();
    let at = origin.commit_ts_ms.and_then(DateTime::from_timestamp_millis);
    let at = at.map_or_else(|| "-".to_owned(), |at| at.format("%Y-%m-%dT%H:%M:%SZ").to_string());
    let name = match event.change() {
        Change::Message { prefix, .. } => prefix.clone(),
        _ => format!("{}.{}", origin.schema, origin.table),
    };
    let key = event
        .key()
        .map_or_else(|| "-".to_owned(), |key| row(key.row(), None, colours));
    let what = match event.change() {
        Change::Update { after, .. } => row(after, event.before(), colours),
        Change::Message { content, .. } => printable(content).into_owned(),
        _ => event
            .after()
            .map_or_else(String::new, |after| row(after, None, colours)),
    };
    let op = canonical::op(event.change());
    let line = format!(
        "{}  {}  {}  {key}  {what}{}",
        colours.paint(Look::Aside, &format!("{at:<20}")),
        colours.paint(look(event.change()), &format!("{op:<11}")),
        colours.paint(Look::Name, &printable(&name)),
        moved(event, colours)
    );
    line.trim_end().to_owned()
}

/// The line of a record that is no change, or cannot be decoded.
pub(super) fn of_record(line: &Line<'_>, colours: Colours) -> String {
    let look = match line.kind {
        "undecodable" => Look::Bad,
        _ => Look::Aside,
    };
    format!(
        "{:<20}  {}  {}[{}] offset {}  {}",
        "-",
        colours.paint(look, &format!("{:<11}", line.kind)),
        printable(line.topic),
        line.partition,
        line.offset,
        printable(line.reason.unwrap_or("-"))
    )
}

fn look(change: &Change) -> Look {
    match change {
        Change::Insert { .. } => Look::Good,
        Change::Update { .. } => Look::Changed,
        Change::Delete { .. } | Change::Truncate => Look::Bad,
        Change::Read { .. } => Look::Aside,
        Change::Message { .. } => Look::Id,
    }
}

fn moved(event: &ChangeEvent, colours: Colours) -> String {
    let Some(Moved { key }) = event.moved() else {
        return String::new();
    };
    let other = key
        .as_ref()
        .map_or_else(|| "another key".to_owned(), |key| row(key.row(), None, colours));
    let direction = if event.after().is_some() { "from" } else { "to" };
    format!("  moved {direction} {other}")
}

/// The columns of a row as JSON; beside its old row only those that differ, each with what it was: `"n":2→3`.
fn row(row: &Row, before: Option<&Row>, colours: Colours) -> String {
    let mut text = "{".to_owned();
    for (name, cell) in row.columns() {
        let old = before.map(|before| before.get(name));
        if cell.is_unavailable() || old == Some(Some(cell)) {
            continue;
        }
        if text.len() > 1 {
            text.push(',');
        }
        text.push_str(&colours.paint(Look::Name, &json(name)));
        text.push(':');
        if let Some(old) = old.flatten() {
            text.push_str(&format!("{}→", colours.paint(Look::Aside, &value(old))));
        }
        let look = if cell.is_null() { Look::Aside } else { Look::Id };
        text.push_str(&match (before, cell) {
            (None, Cell::Value(_)) => value(cell),
            _ => colours.paint(look, &value(cell)),
        });
    }
    text.push('}');
    text
}

fn value(cell: Cell<'_>) -> String {
    match cell {
        Cell::Value(value) => json(&value),
        Cell::Null => "null".to_owned(),
        Cell::Unavailable(_) => "?".to_owned(),
    }
}

fn json(value: &(impl Serialize + ?Sized)) -> String {
    let text = serde_json::to_string(value).unwrap_or_else(|error| error.to_string());
    printable(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::change::{Before, Origin};
    use crate::event::key::Key;
    use crate::event::row::Value;

    fn event(change: Change) -> ChangeEvent {
        let origin = Origin {
            lsn: Some(1),
            commit_ts_ms: Some(1_782_907_200_500),
            ..Origin::of_table("t")
        };
        ChangeEvent::new(origin, Key::of(row(1, 1)), change)
    }

    fn row(id: i64, n: i64) -> Row {
        Row::of([("id", Some(Value::Int(id))), ("n", Some(Value::Int(n)))])
    }

    #[test]
    fn a_change_is_one_line_and_an_update_shows_what_changed() {
        let inserted = |moved_from| Change::Insert {
            after: row(1, 2),
            moved_from,
        };
        let updated = |before| Change::Update {
            before,
            after: row(1, 3),
        };
        for (change, expected) in [
            (
                inserted(None),
                r#"insert       public.t  {"id":1,"n":1}  {"id":1,"n":2}"#,
            ),
            (
                inserted(Some(Moved { key: None })),
                r#"insert       public.t  {"id":1,"n":1}  {"id":1,"n":2}  moved from another key"#,
            ),
            (
                updated(Before::Whole(row(1, 2))),
                r#"update       public.t  {"id":1,"n":1}  {"n":2→3}"#,
            ),
            (
                updated(Before::Unknown),
                r#"update       public.t  {"id":1,"n":1}  {"id":1,"n":3}"#,
            ),
            (Change::Truncate, "truncate     public.t  -"),
        ] {
            let line = of_change(&event(change), Colours(false));
            assert_eq!(line, format!("2026-07-01T12:00:00Z  {expected}"));
        }
    }

    #[test]
    fn colours_say_what_happened_and_change_no_letter() {
        let change = Change::Update {
            before: Before::Whole(row(1, 2)),
            after: row(1, 3),
        };
        let event = event(change);
        let coloured = of_change(&event, Colours(true));
        assert!(coloured.contains("\u{1b}[33mupdate"), "{coloured}");
        let mut plain = String::new();
        for (index, piece) in coloured.split('\u{1b}').enumerate() {
            plain.push_str(match index {
                0 => piece,
                _ => piece.split_once('m').map_or("", |(_, text)| text),
            });
        }
        assert_eq!(plain, of_change(&event, Colours(false)));
    }

    #[test]
    fn a_row_cannot_write_to_the_terminal() {
        let escape = "\u{1b}]0;x\u{7}\u{9b}2J\n";
        let hostile = Row::of([(escape, Some(Value::Text(escape.into())))]);
        let origin = Origin {
            schema: escape.into(),
            ..Origin::of_table(escape)
        };
        let inserted = Change::Insert {
            after: hostile.clone(),
            moved_from: None,
        };
        let message = Change::Message {
            prefix: escape.to_owned(),
            content: escape.to_owned(),
        };
        for change in [inserted, message] {
            let line = of_change(
                &ChangeEvent::new(origin.clone(), Key::of(hostile.clone()), change),
                Colours(false),
            );
            assert!(!line.contains(char::is_control), "{line:?}");
        }
    }
}
