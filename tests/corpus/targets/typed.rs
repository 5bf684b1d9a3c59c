//! One column as every type that a handler may ask for: what several types make of it fits together.

use std::collections::BTreeMap;

use afterwrite::event::row::Row;
use afterwrite::event::typed::{
    Base64, Bits, Column, Date, Decimal, Document, Geometry, Interval, Known, RowError, Time, Timestamp,
};
use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Utc};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use uuid::Uuid;

/// A struct with one column of a type.
#[derive(Debug, Deserialize)]
struct Of<T> {
    v: T,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Waiting,
    Invited,
}

#[derive(Debug, PartialEq, Deserialize)]
struct Point {
    x: f64,
    y: Option<f64>,
}

/// Checks the column `v` of a row.
pub(crate) fn check(row: &Row) {
    let wide = one::<i64>(row);
    assert_eq!(wide.as_ref().ok().copied(), row.int("v"), "an integer has one value");
    assert_eq!(one::<bool>(row).ok(), row.bool("v"), "a boolean has one value");
    assert_eq!(
        one::<String>(row).ok().as_deref(),
        row.text("v"),
        "a text has one value"
    );
    let narrow = [
        one::<i8>(row).ok().map(i64::from),
        one::<i16>(row).ok().map(i64::from),
        one::<i32>(row).ok().map(i64::from),
        one::<u8>(row).ok().map(i64::from),
        one::<u16>(row).ok().map(i64::from),
        one::<u32>(row).ok().map(i64::from),
        one::<u64>(row).ok().and_then(|number| i64::try_from(number).ok()),
    ];
    for number in narrow.into_iter().flatten() {
        assert_eq!(
            Some(number),
            wide.as_ref().ok().copied(),
            "a narrow integer is the wide one"
        );
    }
    one::<f32>(row).ok();
    one::<f64>(row).ok();
    one::<i128>(row).ok();
    one::<char>(row).ok();
    one::<()>(row).ok();
    one::<Status>(row).ok();
    one::<Uuid>(row).ok();
    one::<DateTime<Utc>>(row).ok();
    one::<NaiveDate>(row).ok();
    one::<NaiveTime>(row).ok();
    one::<NaiveDateTime>(row).ok();
    one::<Date>(row).ok();
    one::<Timestamp>(row).ok();
    one::<Time>(row).ok();
    one::<Decimal>(row).ok();
    one::<Interval>(row).ok();
    one::<Base64>(row).ok();
    one::<Bits>(row).ok();
    one::<Geometry>(row).ok();
    one::<Point>(row).ok();
    one::<Vec<Option<i32>>>(row).ok();
    one::<(Option<String>, f64)>(row).ok();
    one::<Vec<Vec<Option<Timestamp>>>>(row).ok();
    one::<BTreeMap<String, Option<Base64>>>(row).ok();
    one::<Vec<Option<Point>>>(row).ok();
    one::<Vec<Option<Decimal>>>(row).ok();
    if let Ok(Document(document)) = one::<Document<Value>>(row) {
        let text = row.text("v").expect("a document is a text");
        assert_eq!(serde_json::from_str::<Value>(text).ok(), Some(document));
    }
    check_whole(row);
}

/// A type as it is, as an option, and as one that may be unavailable; the first twice. Compared as text, because NaN
/// differs from itself.
fn one<T: DeserializeOwned + std::fmt::Debug>(row: &Row) -> Result<T, RowError> {
    let told = |value: &dyn std::fmt::Debug| format!("{value:?}");
    let plain = row.to::<Of<T>>();
    assert_eq!(
        told(&plain),
        told(&row.to::<Of<T>>()),
        "asked twice, answered differently"
    );
    let optional = row.to::<Of<Option<T>>>();
    let known = row.to::<Of<Known<T>>>();
    match &plain {
        Ok(Of { v }) => {
            let is_same = matches!(&known, Ok(Of { v: Known::Value(known) }) if told(known) == told(v));
            assert!(is_same, "{known:?} and {v:?}");
            // A type that takes null itself never sees it through an option.
            let is_same =
                matches!(&optional, Ok(Of { v: found }) if found.as_ref().is_none_or(|found| told(found) == told(v)));
            assert!(is_same, "{optional:?} and {v:?}");
        }
        Err(error) => {
            assert!(
                !matches!(&known, Ok(Of { v: Known::Value(_) })),
                "{known:?} in spite of {error}"
            );
            assert!(
                !matches!(&optional, Ok(Of { v: Some(_) })),
                "{optional:?} in spite of {error}"
            );
        }
    }
    plain.map(|Of { v }| v)
}

/// Structs that take a row as a whole.
fn check_whole(row: &Row) {
    row.to::<BTreeMap<String, Value>>().ok();
    row.to::<Value>().ok();
    row.to::<()>().ok();
    row.to::<Vec<i32>>().ok();
    row.to::<Status>().ok();
    let known = row.to::<Of<Known<Option<Value>>>>();
    let is_there = row.get("v").is_some();
    let is_unavailable = row.get("v").is_some_and(|cell| cell.is_unavailable());
    let column = row.to::<Of<Column<Value>>>().ok().map(|Of { v }| v);
    let is_null = row.get("v").is_some_and(|cell| cell.is_null());
    assert_eq!(
        column == Some(Column::Null),
        is_null,
        "null is told from everything else"
    );
    assert_eq!(column == Some(Column::Unavailable), is_unavailable);
    if let Ok(Of { v }) = known {
        assert_eq!(
            v == Known::Unavailable,
            is_unavailable,
            "unavailable is told from everything else"
        );
        assert!(
            is_there || v == Known::Value(None),
            "a column that is absent is null at most"
        );
    }
}
