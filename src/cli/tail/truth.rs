//! Whether a change meets a condition: true, false, or unknown where a value is null, was not sent, or cannot be compared.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeSet;

use bigdecimal::BigDecimal;
use serde_json::Value as Json;

use super::condition::{Comparison, Condition, Field, Literal, Operand, Side, Step, number_of};
use crate::decode::canonical;
use crate::event::change::ChangeEvent;
use crate::event::row::{Cell, Row, ValueRef};

/// A change, and where it lies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'e> {
    pub(super) event: &'e ChangeEvent,
    pub(super) topic: &'e str,
    pub(super) partition: i32,
    pub(super) offset: i64,
}

/// Columns that a condition names and that no row had so far: slips, or columns of other tables.
#[derive(Debug, Default)]
pub(super) struct Absent {
    seen: BTreeSet<String>,
    told: BTreeSet<String>,
    news: Vec<String>,
}

impl Absent {
    /// Those that were found missing since the last time, each once.
    pub(super) fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.news)
    }

    fn note(&mut self, column: &str, row: &Row) {
        if row.get(column).is_some() {
            if !self.seen.contains(column) {
                self.seen.insert(column.to_owned());
            }
        } else if !self.seen.contains(column) && self.told.insert(column.to_owned()) {
            self.news.push(column.to_owned());
        }
    }
}

/// A value that can be compared.
#[derive(Debug, Clone, PartialEq)]
enum Datum<'e> {
    Bool(bool),
    Number(BigDecimal),
    Text(Cow<'e, str>),
}

impl Condition {
    /// Whether the change meets it; `None` is SQL's unknown.
    pub(super) fn holds(&self, asked: Asked<'_>, absent: &mut Absent) -> Option<bool> {
        match self {
            // Both sides are always asked: a column that only one of them names is looked for in every row.
            Self::And(left, right) => match (left.holds(asked, absent), right.holds(asked, absent)) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            },
            Self::Or(left, right) => match (left.holds(asked, absent), right.holds(asked, absent)) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            },
            Self::Not(inner) => inner.holds(asked, absent).map(|holds| !holds),
            Self::Is(inner, what) => Some(inner.holds(asked, absent) == *what),
            Self::Compare(left, comparison, right) => {
                let (left, right) = (left.value(asked, absent)?, right.value(asked, absent)?);
                comparison.holds(&left, &right)
            }
            Self::Same(left, right) => match (left.value(asked, absent), right.value(asked, absent)) {
                (None, None) => Some(true),
                (Some(left), Some(right)) => Comparison::Equal.holds(&left, &right),
                _ => Some(false),
            },
            Self::Null(operand) => Some(operand.value(asked, absent).is_none()),
            Self::Like {
                operand,
                pattern,
                ignores_case,
            } => {
                let (text, pattern) = (operand.value(asked, absent)?, pattern.value(asked, absent)?);
                like(&text.into_text(), &pattern.into_text(), *ignores_case)
            }
            Self::Holds(operand) => match operand.value(asked, absent)? {
                Datum::Bool(holds) => Some(holds),
                Datum::Number(_) | Datum::Text(_) => None,
            },
            Self::Changed(column) => {
                if let Some(row) = asked.event.after().or_else(|| asked.event.before()) {
                    absent.note(column, row);
                }
                Some(asked.event.changed(column))
            }
        }
    }
}

impl Operand {
    fn value<'e>(&'e self, asked: Asked<'e>, absent: &mut Absent) -> Option<Datum<'e>> {
        match self {
            Self::Literal(Literal::Null) => None,
            Self::Literal(Literal::Bool(value)) => Some(Datum::Bool(*value)),
            Self::Literal(Literal::Number(number)) => Some(Datum::Number(number.clone())),
            Self::Literal(Literal::Text(text)) => Some(Datum::Text(Cow::Borrowed(text))),
            Self::Field(field) => field.value(asked),
            Self::Column(side, column) => {
                let row = side.row(asked.event)?;
                absent.note(column, row);
                match row.get(column)? {
                    Cell::Value(value) => Datum::of(value),
                    Cell::Null | Cell::Unavailable(_) => None,
                }
            }
            Self::Member { of, step, as_text } => {
                let document: Json = serde_json::from_str(&of.value(asked, absent)?.into_text()).ok()?;
                let member = step.of(&document)?;
                match member {
                    Json::Null if *as_text => None,
                    Json::String(text) if *as_text => Some(Datum::Text(Cow::Owned(text.clone()))),
                    other => Some(Datum::Text(Cow::Owned(other.to_string()))),
                }
            }
        }
    }
}

impl Side {
    fn row(self, event: &ChangeEvent) -> Option<&Row> {
        match self {
            Self::Before => event.before(),
            Self::After => event.after(),
            Self::Key => event.key().map(|key| key.row()),
        }
    }
}

impl Field {
    fn value(self, asked: Asked<'_>) -> Option<Datum<'_>> {
        let origin = asked.event.origin();
        let text = |text| Some(Datum::Text(Cow::Borrowed(text)));
        match self {
            Self::Id => asked.event.id().map(|id| Datum::Text(Cow::Owned(id.to_string()))),
            Self::Schema => text(&*origin.schema),
            Self::Table => text(&*origin.table),
            Self::Op => text(canonical::op(asked.event.change())),
            Self::Tx => origin.tx.map(|tx| Datum::Number(tx.into())),
            Self::Lsn => origin.lsn.map(|lsn| Datum::Number(lsn.into())),
            Self::CommitTsMs => origin.commit_ts_ms.map(|at| Datum::Number(at.into())),
            Self::Topic => text(asked.topic),
            Self::Partition => Some(Datum::Number(asked.partition.into())),
            Self::Offset => Some(Datum::Number(asked.offset.into())),
        }
    }
}

impl Step {
    fn of<'d>(&self, document: &'d Json) -> Option<&'d Json> {
        match self {
            Self::Name(name) => document.get(name),
            Self::Index(index) => {
                let items = document.as_array()?;
                let index = usize::try_from(*index)
                    .ok()
                    .or_else(|| items.len().checked_sub(usize::try_from(index.unsigned_abs()).ok()?))?;
                items.get(index)
            }
        }
    }
}

impl<'e> Datum<'e> {
    fn of(value: ValueRef<'e>) -> Option<Self> {
        Some(match value {
            ValueRef::Bool(value) => Self::Bool(value),
            ValueRef::Int(value) => Self::Number(value.into()),
            // The shortest digits that mean this number, as it is printed: 0.1 is 0.1.
            ValueRef::Float(value) => Self::Number(number_of(&value.to_string())?),
            ValueRef::Text(text) => Self::Text(Cow::Borrowed(text)),
            ValueRef::List(_) | ValueRef::Struct(_) => Self::Text(Cow::Owned(serde_json::to_string(&value).ok()?)),
        })
    }

    fn into_text(self) -> Cow<'e, str> {
        match self {
            Self::Bool(value) => Cow::Borrowed(if value { "true" } else { "false" }),
            Self::Number(number) => Cow::Owned(number.to_plain_string()),
            Self::Text(text) => text,
        }
    }

    fn number(&self) -> Option<Cow<'_, BigDecimal>> {
        match self {
            Self::Number(number) => Some(Cow::Borrowed(number)),
            Self::Text(text) => number_of(text).map(Cow::Owned),
            Self::Bool(_) => None,
        }
    }
}

impl Comparison {
    /// Decimals are texts in an event: beside a number, and where two texts are put in order, a text that is a number counts as
    /// one. Two texts are equal when they are the same letter by letter: `01` is not `1`.
    fn holds(self, left: &Datum<'_>, right: &Datum<'_>) -> Option<bool> {
        let order = match (left, right) {
            (Datum::Bool(left), Datum::Bool(right)) => left.cmp(right),
            (Datum::Bool(_), _) | (_, Datum::Bool(_)) => return None,
            (Datum::Text(left_text), Datum::Text(right_text)) => match (self, left.number(), right.number()) {
                (Self::Equal | Self::NotEqual, ..) | (_, None, _) | (_, _, None) => left_text.cmp(right_text),
                (_, Some(left), Some(right)) => left.cmp(&right),
            },
            _ => left.number()?.cmp(&right.number()?),
        };
        Some(match self {
            Self::Equal => order == Ordering::Equal,
            Self::NotEqual => order != Ordering::Equal,
            Self::Less => order == Ordering::Less,
            Self::LessOrEqual => order != Ordering::Greater,
            Self::Greater => order == Ordering::Greater,
            Self::GreaterOrEqual => order != Ordering::Less,
        })
    }
}

/// One letter of a pattern.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Part {
    Letter(char),
    One,
    Any,
}

/// Postgres' LIKE: `%` is any text, `_` any letter, a backslash takes the meaning of what follows. A pattern that ends with
/// a backslash is an error there, and unknown here.
fn like(text: &str, pattern: &str, ignores_case: bool) -> Option<bool> {
    let folded = |text: &str| match ignores_case {
        true => text.to_lowercase().chars().collect::<Vec<_>>(),
        false => text.chars().collect(),
    };
    let mut parts = Vec::new();
    let mut letters = folded(pattern).into_iter();
    while let Some(letter) = letters.next() {
        parts.push(match letter {
            '%' => Part::Any,
            '_' => Part::One,
            '\\' => Part::Letter(letters.next()?),
            letter => Part::Letter(letter),
        });
    }
    Some(matches(&folded(text), &parts))
}

/// Goes back to the last `%` only, so that the time is text times pattern at most.
fn matches(text: &[char], parts: &[Part]) -> bool {
    let (mut at, mut part) = (0, 0);
    let mut last: Option<(usize, usize)> = None;
    while at < text.len() {
        match parts.get(part) {
            Some(Part::Any) => {
                last = Some((at, part));
                part += 1;
            }
            Some(Part::One) => (at, part) = (at + 1, part + 1),
            Some(Part::Letter(letter)) if *letter == text[at] => (at, part) = (at + 1, part + 1),
            _ => match &mut last {
                Some((from, any)) => {
                    *from += 1;
                    (at, part) = (*from, *any + 1);
                }
                None => return false,
            },
        }
    }
    parts[part..].iter().all(|part| *part == Part::Any)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::change::{Before, Change, Origin};
    use crate::event::key::Key;
    use crate::event::row::Value;

    fn event() -> ChangeEvent {
        let row = |status: &str, amount: &str| {
            Row::builder()
                .value("id", Value::Int(7))
                .value("status", Value::Text(status.into()))
                .value("amount", Value::Text(amount.into()))
                .value("ratio", Value::Float(0.1))
                .value("vip", Value::Bool(true))
                .value("zip", Value::Text("01".into()))
                .value(
                    "doc",
                    Value::Text(r#"{"kind": "gift", "n": 2, "none": null, "tags": ["a", "b"]}"#.into()),
                )
                .value("list", Value::List(vec![Some(Value::Int(1)), None]))
                .null("note")
                .unavailable("body")
                .finish()
        };
        let change = Change::Update {
            before: Before::Whole(row("new", "9.50")),
            after: row("active", "10.00"),
        };
        let origin = Origin {
            tx: Some(5),
            lsn: Some(100),
            commit_ts_ms: Some(1_782_907_200_500),
            ..Origin::of_table("orders")
        };
        ChangeEvent::new(origin, Key::of(Row::of([("id", Some(Value::Int(7)))])), change)
    }

    fn asked(event: &ChangeEvent) -> Asked<'_> {
        Asked {
            event,
            topic: "waitlist.public.orders",
            partition: 3,
            offset: 42,
        }
    }

    fn truth(text: &str) -> Option<bool> {
        let event = event();
        let condition: Condition = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        condition.holds(asked(&event), &mut Absent::default())
    }

    #[test]
    fn what_holds_of_a_change_holds() {
        for text in [
            "op = 'update'",
            "'update' = op",
            "schema = 'public' and table = 'orders'",
            "tx = 5 and lsn >= 100 and commit_ts_ms > 1782907200000 and topic like '%.orders' and partition = 3 and offset = 42",
            "key.id = 7",
            "before.status <> after.status",
            "before.status is distinct from after.status",
            "changed('status') and not changed('zip') and not changed('body')",
            "after.amount > before.amount",
            "after.amount > 9.5",
            "after.amount = 10",
            "after.amount <> 10.001",
            "after.amount between 9.99 and 10.01",
            "after.amount not between 10.01 and 11",
            "after.ratio = 0.1",
            "after.id in (1, 7)",
            "after.id not in (1, 2)",
            "after.id > -1",
            "after.vip",
            "after.vip = true",
            "(after.vip is true)",
            "after.zip <> '1'",
            "after.zip = 1",
            "after.note is null and after.id is not null",
            "after.body is null",
            "after.note is not distinct from after.body",
            "after.doc->>'kind' = 'gift'",
            "after.doc->>'n' > 1",
            "after.doc->'tags'->> -1 = 'b'",
            "after.doc->'tags'->>0 = 'a'",
            "after.doc->>'none' is null",
            "after.doc->'none' is not null",
            "after.doc->>'absent' is null",
            "after.list = '[1,null]'",
            "after.list->0 = 1",
            "after.status like 'act%'",
            "after.status like '_ctiv_'",
            "after.status not like 'ctiv%'",
            "after.status ilike 'ACTIVE'",
            "not (op = 'insert')",
            "op = 'insert' or op in ('update')",
            "(after.note = 1) is unknown",
            "(after.note = 1) is not true",
            "(op = 'insert') is false",
        ] {
            assert_eq!(truth(text), Some(true), "{text}");
            assert_eq!(truth(&format!("not ({text})")), Some(false), "not ({text})");
        }
    }

    #[test]
    fn what_cannot_be_known_is_neither_true_nor_false() {
        for text in [
            "after.note = 1",
            "after.note <> 1",
            "after.body = 'x'",
            "after.absent = 1",
            "after.status > 5",
            "after.vip = 1",
            "after.status",
            "null",
            "after.note = 1 and op = 'update'",
            "after.note = 1 or op = 'insert'",
            "after.status like 'x\\'",
            "after.status->>'x' = 'y'",
            "after.id in (1, null)",
        ] {
            assert_eq!(truth(text), None, "{text}");
            assert_eq!(truth(&format!("not ({text})")), None, "not ({text})");
        }
        assert_eq!(truth("after.note = 1 and op = 'insert'"), Some(false));
        assert_eq!(truth("after.note = 1 or op = 'update'"), Some(true));
    }

    #[test]
    fn a_column_that_no_row_has_is_told_once() {
        let (event, mut absent) = (event(), Absent::default());
        let condition: Condition = "op = 'insert' and (after.statsu = 'x' or before.status = 'new' or changed('nmae'))"
            .parse()
            .unwrap();
        condition.holds(asked(&event), &mut absent);
        assert_eq!(absent.take(), ["statsu", "nmae"]);
        condition.holds(asked(&event), &mut absent);
        assert_eq!(absent.take(), [] as [&str; 0]);
    }

    /// What LIKE means, by its definition.
    fn defined(text: &[char], parts: &[Part]) -> bool {
        match parts.split_first() {
            None => text.is_empty(),
            Some((Part::Any, rest)) => (0..=text.len()).any(|from| defined(&text[from..], rest)),
            Some((Part::One, rest)) => text.split_first().is_some_and(|(_, after)| defined(after, rest)),
            Some((Part::Letter(letter), rest)) => text
                .split_first()
                .is_some_and(|(first, after)| first == letter && defined(after, rest)),
        }
    }

    proptest! {
        #[test]
        fn like_is_what_its_definition_says(text in "[ab]{0,8}", pattern in "[ab%_]{0,6}") {
            let letters: Vec<char> = text.chars().collect();
            let part = |letter| match letter { '%' => Part::Any, '_' => Part::One, letter => Part::Letter(letter) };
            let parts: Vec<Part> = pattern.chars().map(part).collect();
            prop_assert_eq!(like(&text, &pattern, false), Some(defined(&letters, &parts)));
        }
    }
}
