//! Events made from rows of a real table, printed as Debezium prints them in its recommended modes.
//!
//! [`Recorder::install`] puts a trigger on tables that records every change with its whole row, and [`Recorder::drain`]
//! turns what was recorded into events, in order: what a connector would have captured, without one.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use serde_json::Value as Json;
use sqlx::postgres::PgPool;

use crate::event::change::{Before, Change, ChangeEvent, Origin};
use crate::event::key::Key;
use crate::event::row::{Cell, Row, Value};

/// Columns that a connector leaves out, as (table, column).
pub const EXCLUDED: &[(&str, &str)] = &[
    ("waitlist_users", "verification_token"),
    ("email_log", "recipient"),
    ("email_log", "subject"),
    ("email_log", "variables"),
];

/// Records the changes of tables in one database.
#[derive(Debug)]
pub struct Recorder {
    pool: PgPool,
    seen: AtomicI64,
}

/// A column of a table.
struct Column {
    name: Arc<str>,
    type_name: String,
}

#[derive(sqlx::FromRow)]
struct Recorded {
    seq: i64,
    table_name: String,
    op: String,
    before: Option<Json>,
    after: Option<Json>,
    tx: i64,
    committed_ms: i64,
}

impl Recorder {
    /// Records every later change of these tables of schema `public`.
    ///
    /// # Errors
    /// Whatever Postgres answered.
    pub async fn install(pool: &PgPool, tables: &[&str]) -> Result<Self, sqlx::Error> {
        let mut script = String::from(
            "CREATE SCHEMA recorder;
             CREATE TABLE recorder.changes (
                 seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, table_name text NOT NULL, op text NOT NULL,
                 before jsonb, after jsonb, tx bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint,
                 committed_ms bigint NOT NULL DEFAULT extract(epoch FROM clock_timestamp()) * 1000);
             CREATE FUNCTION recorder.record() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
             BEGIN
                 SET LOCAL TimeZone = 'UTC';
                 INSERT INTO recorder.changes (table_name, op, before, after)
                 VALUES (TG_TABLE_NAME, TG_OP, CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) END,
                         CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) END);
                 RETURN NULL;
             END $$;",
        );
        for table in tables {
            script.push_str(&format!(
                "CREATE TRIGGER recorded AFTER INSERT OR UPDATE OR DELETE ON public.{table}
                 FOR EACH ROW EXECUTE FUNCTION recorder.record();"
            ));
        }
        sqlx::raw_sql(sqlx::AssertSqlSafe(script)).execute(pool).await?;
        Ok(Self {
            pool: pool.clone(),
            seen: AtomicI64::new(0),
        })
    }

    /// What changed since the last call, in order.
    ///
    /// # Errors
    /// Whatever Postgres answered.
    pub async fn drain(&self) -> Result<Vec<Arc<ChangeEvent>>, sqlx::Error> {
        let rows: Vec<Recorded> = sqlx::query_as("SELECT * FROM recorder.changes WHERE seq > $1 ORDER BY seq")
            .bind(self.seen.load(Ordering::SeqCst))
            .fetch_all(&self.pool)
            .await?;
        let mut events = Vec::with_capacity(rows.len());
        for recorded in rows {
            self.seen.store(recorded.seq, Ordering::SeqCst);
            let (columns, key) = columns(&self.pool, &recorded.table_name).await?;
            events.push(Arc::new(event(&recorded, &columns, &key)));
        }
        Ok(events)
    }
}

/// The captured columns of a table in order, and the names of its primary key.
async fn columns(pool: &PgPool, table: &str) -> Result<(Vec<Column>, Vec<String>), sqlx::Error> {
    let found: Vec<(String, String, bool)> = sqlx::query_as(
        "SELECT a.attname::text, format_type(a.atttypid, -1), coalesce(a.attnum = ANY(i.indkey), false)
         FROM pg_attribute a LEFT JOIN pg_index i ON i.indrelid = a.attrelid AND i.indisprimary
         WHERE a.attrelid = format('public.%I', $1::text)::regclass AND a.attnum > 0 AND NOT a.attisdropped
         ORDER BY a.attnum",
    )
    .bind(table)
    .fetch_all(pool)
    .await?;
    let key = found
        .iter()
        .filter(|(_, _, of_key)| *of_key)
        .map(|(name, ..)| name.clone())
        .collect();
    let columns = found
        .into_iter()
        .filter(|(name, ..)| !EXCLUDED.contains(&(table, name)))
        .map(|(name, type_name, _)| Column {
            name: name.into(),
            type_name,
        })
        .collect();
    Ok((columns, key))
}

fn event(recorded: &Recorded, columns: &[Column], key: &[String]) -> ChangeEvent {
    let print = |json: &Option<Json>| json.as_ref().map(|json| row(json, columns));
    let (before, after) = (print(&recorded.before), print(&recorded.after));
    let newest = after.as_ref().or(before.as_ref());
    let key = newest.and_then(|row| {
        let of_key = row.columns().filter(|(name, _)| key.iter().any(|part| part == name));
        Key::of(Row::of(of_key.map(|(name, cell)| match cell {
            Cell::Value(value) => (name, Some(value.to_owned())),
            Cell::Null | Cell::Unavailable(_) => (name, None),
        })))
    });
    let before = before.map_or(Before::Unknown, Before::Whole);
    let change = match (recorded.op.as_str(), after) {
        ("INSERT", Some(after)) => Change::Insert {
            after,
            moved_from: None,
        },
        ("UPDATE", Some(after)) => Change::Update { before, after },
        (_, _) => Change::Delete { before, moved_to: None },
    };
    let origin = Origin {
        name: "waitlist".into(),
        db: "waitlist".into(),
        schema: "public".into(),
        table: recorded.table_name.as_str().into(),
        tx: Some(recorded.tx),
        lsn: Some(recorded.seq),
        commit_ts_ms: Some(recorded.committed_ms),
    };
    ChangeEvent::new(origin, key, change)
}

fn row(json: &Json, columns: &[Column]) -> Row {
    Row::of(columns.iter().map(|column| {
        let printed = json.get(&*column.name).unwrap_or(&Json::Null);
        (&*column.name, value(printed, &column.type_name))
    }))
}

/// A value as `to_jsonb` prints it, in canonical form. `None` is null.
fn value(json: &Json, type_name: &str) -> Option<Value> {
    if json.is_null() {
        return None;
    }
    if let Some(element) = type_name.strip_suffix("[]") {
        let elements = json.as_array().into_iter().flatten();
        return Some(Value::List(elements.map(|item| value(item, element)).collect()));
    }
    let text = |text: &str| Some(Value::Text(text.into()));
    match (type_name, json) {
        ("json" | "jsonb", _) => text(&json.to_string()),
        ("timestamp with time zone", Json::String(printed)) => text(&timestamp(printed)),
        ("date", Json::String(printed)) => text(&format!("{printed}Z")),
        (_, Json::Bool(flag)) => Some(Value::Bool(*flag)),
        ("smallint" | "integer" | "bigint" | "oid", Json::Number(number)) => number.as_i64().map(Value::Int),
        ("real" | "double precision", Json::Number(number)) => number.as_f64().map(Value::Float),
        (_, Json::String(printed)) => text(printed),
        (_, _) => text(&json.to_string()),
    }
}

/// `2026-07-01T12:00:00.5Z`, from what Postgres prints in UTC.
fn timestamp(printed: &str) -> String {
    let plain = printed.trim_end_matches("+00:00");
    let shortened = match plain.split_once('.') {
        Some((seconds, fraction)) => match fraction.trim_end_matches('0') {
            "" => seconds.to_owned(),
            rest => format!("{seconds}.{rest}"),
        },
        None => plain.to_owned(),
    };
    format!("{shortened}Z")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_print_as_debezium_prints_them() {
        for (json, type_name, expected) in [
            (json!(5), "integer", Value::Int(5)),
            (
                json!("2026-07-01T12:00:00.500000+00:00"),
                "timestamp with time zone",
                Value::Text("2026-07-01T12:00:00.5Z".into()),
            ),
            (
                json!("2026-07-01T12:00:00+00:00"),
                "timestamp with time zone",
                Value::Text("2026-07-01T12:00:00Z".into()),
            ),
            (json!("2026-12-31"), "date", Value::Text("2026-12-31Z".into())),
            (json!({"a": 1}), "jsonb", Value::Text("{\"a\":1}".into())),
            (
                json!([1, null]),
                "integer[]",
                Value::List(vec![Some(Value::Int(1)), None]),
            ),
            (json!(true), "boolean", Value::Bool(true)),
        ] {
            assert_eq!(value(&json, type_name), Some(expected));
        }
        assert_eq!(value(&json!(null), "text"), None);
    }
}
