//! The Connect schema of the changes that [`envelope`](super::envelope) prints, as Kafka's JSON converter puts it in front of
//! each of them.

use serde_json::{Value, json};

/// A member of a struct: name, Connect type, Connect name.
pub type Column = (String, &'static str, Option<&'static str>);

/// The columns of a row with so many of them, in order.
pub fn row(columns: usize) -> Vec<Column> {
    let keys = [
        ("id".to_owned(), "string", Some("io.debezium.data.Uuid")),
        ("seq".to_owned(), "int64", None),
    ];
    let others = (2..columns).map(|column| {
        let (name, kind, meaning) = match column % 8 {
            0 => ("email", "string", None),
            1 => ("count", "int64", None),
            2 => ("consent", "boolean", None),
            3 => ("created_at", "string", Some("io.debezium.time.ZonedTimestamp")),
            4 => ("note", "string", None),
            5 => ("deleted_at", "string", None),
            6 => ("balance", "string", None),
            _ => ("metadata", "string", Some("io.debezium.data.Json")),
        };
        (format!("c{column:02}_{name}"), kind, meaning)
    });
    keys.into_iter().chain(others).collect()
}

/// The members of the source block in order.
pub fn source() -> Vec<Column> {
    let members = [
        ("version", "string"),
        ("connector", "string"),
        ("name", "string"),
        ("ts_ms", "int64"),
        ("snapshot", "string"),
        ("db", "string"),
        ("sequence", "string"),
        ("ts_us", "int64"),
        ("ts_ns", "int64"),
        ("schema", "string"),
        ("table", "string"),
        ("txId", "int64"),
        ("lsn", "int64"),
        ("xmin", "int64"),
        ("origin", "string"),
        ("origin_lsn", "int64"),
    ];
    members.map(|(name, kind)| (name.to_owned(), kind, None)).to_vec()
}

/// The schema of a change of rows with so many columns.
pub fn connect(columns: usize) -> Value {
    let members = row(columns);
    let row = |field| typed_struct(&members, "bench.public.bench_users.Value", field);
    json!({"type": "struct", "optional": false, "name": "bench.public.bench_users.Envelope", "version": 2, "fields": [
        row("before"), row("after"),
        typed_struct(&source(), "io.debezium.connector.postgresql.Source", "source"),
        {"type": "struct", "fields": [
            {"type": "string", "optional": false, "field": "id"},
            {"type": "int64", "optional": false, "field": "total_order"},
            {"type": "int64", "optional": false, "field": "data_collection_order"}],
         "optional": true, "name": "event.block", "version": 1, "field": "transaction"},
        {"type": "string", "optional": false, "field": "op"},
        {"type": "int64", "optional": true, "field": "ts_ms"},
        {"type": "int64", "optional": true, "field": "ts_us"},
        {"type": "int64", "optional": true, "field": "ts_ns"}]})
}

fn typed_struct(members: &[Column], name: &str, field: &str) -> Value {
    let fields: Vec<Value> = members.iter().map(typed_member).collect();
    json!({"type": "struct", "fields": fields, "optional": true, "name": name, "field": field})
}

fn typed_member((name, kind, meaning): &Column) -> Value {
    match meaning {
        Some(meaning) => json!({"type": kind, "optional": true, "name": meaning, "version": 1, "field": name}),
        None => json!({"type": kind, "optional": true, "field": name}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::envelope;

    #[test]
    fn the_schema_names_the_columns_of_the_changes() {
        let mut text = String::new();
        envelope::update(&mut text, 0, 1, 1, 25).unwrap();
        let change: Value = serde_json::from_str(&text).unwrap();
        let printed = change["after"].as_object().unwrap();
        let named = row(25);
        assert_eq!(named.len(), printed.len());
        for (name, kind, _) in named {
            let fits = match &printed[&name] {
                Value::String(_) => kind == "string",
                Value::Bool(_) => kind == "boolean",
                Value::Number(_) => kind == "int64",
                other => other.is_null(),
            };
            assert!(fits, "{name} is no {kind}: {}", printed[&name]);
        }
    }
}
