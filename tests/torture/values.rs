//! Values at the ends of what their types can hold.

use afterwrite::decode::Decoded;
use afterwrite::decode::Decoder;
use afterwrite::decode::options::{IntervalMode, Options, TimePrecision};
use afterwrite::decode::tables::Tables;
use afterwrite::event::delivery::{Content, RawRecord};
use afterwrite::event::typed::{Bits, Column, Date, Decimal, Document, Interval, Point, Time, Timestamp};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value as Json, json};

use crate::encode::{field, json_with_schema, member, optional};
use crate::records::{TOPIC, auto, changes, envelope, event, event_of, outcome, record, table_schema, with_headers};

/// The row of an insert without schema, read into a struct.
fn typed<T: DeserializeOwned>(options: Options, columns: &str) -> Result<T, String> {
    let text = format!(
        r#"{{"op":"c","source":{{"connector":"postgresql","schema":"public","table":"t","lsn":1}},"after":{columns}}}"#
    );
    let decoded = Decoder::new(options).decode_despite(TOPIC, &record("", &text), &Tables::all(), &[]);
    match decoded {
        Decoded::Content(Content::Change(event)) => event.after_as().map_err(|error| error.to_string()),
        other => panic!("not a change: {other:?}"),
    }
}

#[derive(Debug, PartialEq, Deserialize)]
struct One<T> {
    a: T,
}

/// The only column of an insert without schema, read as a type.
pub(crate) fn one<T: DeserializeOwned>(options: Options, value: &str) -> Result<T, String> {
    typed::<One<T>>(options, &format!(r#"{{"a":{value}}}"#)).map(|one| one.a)
}

/// What a column of this type prints as in the encodings that carry types.
fn printed(column: Json, value: &Json) -> Json {
    let (_, schema) = table_schema(&[column]);
    let value = envelope("c", Json::Null, json!({"id": 1, "a": value}));
    let wrapped = RawRecord {
        value: Some(json_with_schema(&schema, &value).into()),
        ..RawRecord::default()
    };
    event(&wrapped)["after"]["a"].clone()
}

fn named(kind: &str, name: &str) -> Json {
    let mut column = field("a", kind);
    column["name"] = json!(name);
    column
}

#[test]
fn t39_integers_above_2_to_the_53_keep_every_bit() {
    for value in [9_007_199_254_740_993_i64, i64::MAX, i64::MIN] {
        let column = field("a", "int64");
        for (encoding, decoder, record) in changes(&column, "c", &Json::Null, &json!({"id": 1, "a": value})) {
            let found = event_of(&decoder, &record);
            assert_eq!(found["after"]["a"], json!(value), "{encoding}");
            assert_eq!(found["lsn"], json!(9_007_199_254_740_993_i64), "{encoding}");
        }
    }
}

#[test]
fn t40_decimals_of_every_size_print_as_postgres_does() {
    let decimal = |scale: &str| {
        let mut column = named("bytes", "org.apache.kafka.connect.data.Decimal");
        column["parameters"] = json!({"scale": scale});
        column
    };
    assert_eq!(printed(decimal("2"), &json!("/w==")), "-0.01");
    assert_eq!(
        printed(decimal("5"), &json!("MDk=")),
        "0.12345",
        "a scale above the precision"
    );
    let variable = |name: &str| {
        let mut ty = json!({"type": "struct", "name": "io.debezium.data.VariableScaleDecimal",
            "fields": [field("scale", "int32"), field("value", "bytes")]});
        ty = member(name, ty, true);
        ty
    };
    let (_, schema) = table_schema(&[variable("a"), variable("b")]);
    let row = json!({"id": 1, "a": {"scale": 4, "value": "A2Yu"}, "b": {"scale": 0, "value": "AQ=="}});
    let twice = RawRecord {
        value: Some(json_with_schema(&schema, &envelope("c", Json::Null, row)).into()),
        ..RawRecord::default()
    };
    assert_eq!(event(&twice)["after"], json!({"id": 1, "a": "22.2766", "b": "1"}));
    // decimal.format=NUMERIC: literals of any length, with and without a schema.
    let literal = format!("{}.5", "9".repeat(131_072));
    let text = format!(r#"{{"op":"c","source":{{"schema":"s","table":"t"}},"after":{{"a":{literal}}}}}"#);
    assert_eq!(event(&record("", &text))["after"]["a"], json!(literal));
    let schema = table_schema(&[decimal("1")]).1;
    let behind_schema = RawRecord {
        value: Some(format!(r#"{{"schema":{schema},"payload":{text}}}"#).into()),
        ..RawRecord::default()
    };
    assert_eq!(event(&behind_schema)["after"]["a"], json!(literal));
    let Ok(Decimal::Number(huge)) = one(Options::default(), &format!("\"{literal}\"")) else {
        panic!("no number")
    };
    assert_eq!(huge.to_plain_string(), literal);
}

#[test]
fn t41_special_numbers_are_text_and_typed_access_knows_them() {
    for (sent, expected) in [
        ("NAN", Decimal::NaN),
        ("POSITIVE_INFINITY", Decimal::Infinity),
        ("NEGATIVE_INFINITY", Decimal::NegativeInfinity),
    ] {
        assert_eq!(one(Options::default(), &format!("\"{sent}\"")), Ok(expected));
    }
    for sent in ["NaN", "Infinity", "-Infinity"] {
        assert_eq!(printed(field("a", "double"), &json!(sent)), json!(sent));
        let read: f64 = one(Options::default(), &format!("\"{sent}\"")).unwrap();
        assert!(!read.is_finite());
    }
}

#[test]
fn t42_infinities_and_far_away_times_are_kept() {
    for (name, value, expected) in [
        ("io.debezium.time.Date", json!(2_146_033_979), "+5877611-06-21Z"),
        ("io.debezium.time.Date", json!(-2_147_472_691), "-5877611-06-22Z"),
        ("io.debezium.time.Date", json!(-735_160), "-0043-03-15Z"),
        (
            "io.debezium.time.MicroTimestamp",
            json!(i64::MAX),
            "+292278994-08-16T23:00:00Z",
        ),
        (
            "io.debezium.time.MicroTimestamp",
            json!(i64::MIN),
            "-292275055-05-16T23:00:00Z",
        ),
        (
            "io.debezium.time.MicroTimestamp",
            json!(-62_135_596_800_000_000_i64),
            "0001-01-01T00:00:00Z",
        ),
        (
            "io.debezium.time.NanoTimestamp",
            json!(i64::MAX),
            "+292278994-08-16T23:00:00Z",
        ),
    ] {
        let kind = if name.ends_with(".Date") { "int32" } else { "int64" };
        assert_eq!(printed(named(kind, name), &value), json!(expected), "{name}");
    }
    let far = "+294276-12-31T23:59:59.999999Z";
    for (sent, expected) in [
        ("infinity", Timestamp::Infinity),
        ("-infinity", Timestamp::NegativeInfinity),
        (far, Timestamp::Far(far.into())),
        (
            "9999-12-31T23:59:59.999999999Z",
            Timestamp::At("9999-12-31T23:59:59.999999999Z".parse().unwrap()),
        ),
    ] {
        assert_eq!(one(Options::default(), &format!("\"{sent}\"")), Ok(expected));
    }
    assert_eq!(one(Options::default(), "\"+5877611-06-21Z\""), Ok(Date::Infinity));
}

#[test]
fn t43_the_end_of_the_day_is_a_time() {
    let micro = named("int64", "io.debezium.time.MicroTime");
    assert_eq!(printed(micro, &json!(86_400_000_000_i64)), "00:00:00Z");
    let micros = Options {
        time_precision: TimePrecision::Microseconds,
        ..Options::default()
    };
    assert_eq!(one(micros, "86400000000"), Ok(Time::EndOfDay));
    let zoned = one(Options::default(), "\"09:51:30.123789Z\"");
    assert_eq!(zoned, Ok(Time::At("09:51:30.123789".parse().unwrap())));
}

#[test]
fn t44_intervals_keep_the_sign_of_each_part() {
    let parts = Interval::Parts {
        months: -12,
        days: 3,
        micros: -1,
    };
    assert_eq!(one(Options::default(), "\"P-1Y0M3DT0H0M-0.000001S\""), Ok(parts));
    let problem = one::<Interval>(Options::default(), "1000").unwrap_err();
    assert!(
        problem.starts_with("table public.t: column a ") && problem.contains("source.interval"),
        "{problem}"
    );
    let numeric = Options {
        interval: IntervalMode::Numeric,
        ..Options::default()
    };
    assert_eq!(one(numeric, "-9223372036854775808"), Ok(Interval::Micros(i64::MIN)));
}

#[test]
fn t45_bits_may_be_empty_and_lose_their_end() {
    let bits = |text: &str| one::<Bits>(Options::default(), &format!("\"{text}\"")).unwrap();
    assert_eq!(bits("").bytes, [] as [u8; 0]);
    assert!(!bits("").is_set(11));
    // B'000000000001' of bit(12): one byte is left.
    assert!(bits("AQ==").is_set(0));
    assert_eq!(printed(named("bytes", "io.debezium.data.Bits"), &json!("AQ==")), "AQ==");
}

const SENT: &str = "__debezium_unavailable_value";

fn list(items: Json) -> Json {
    member("a", json!({"type": "array", "items": items}), true)
}

#[test]
fn t46_the_placeholder_is_known_in_every_form_and_only_where_the_connector_puts_it() {
    let base64 = "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==";
    let bytes: Vec<u8> = SENT.bytes().collect();
    let document = json!({SENT: SENT});
    let uuid = json!({"type": "string", "name": "io.debezium.data.Uuid"});
    for (column, sent) in [
        (optional("a", "string"), json!(SENT)),
        (named("string", "io.debezium.data.Json"), json!(document.to_string())),
        (optional("a", "bytes"), json!(base64)),
        (list(json!({"type": "string"})), json!([SENT])),
        (list(json!({"type": "bytes"})), json!([base64])),
        (list(json!({"type": "int32"})), json!(bytes)),
        (
            list(json!({"type": "int32", "name": "io.debezium.time.Date"})),
            json!(bytes),
        ),
        (list(uuid), json!(["b68a35a7-17ad-35b3-af2a-ae46edb4545a"])),
        (
            member(
                "a",
                json!({"type": "map", "keys": {"type": "string"}, "values": {"type": "string"}}),
                true,
            ),
            document,
        ),
    ] {
        let (_, schema) = table_schema(std::slice::from_ref(&column));
        let change = |op: &str| envelope(op, Json::Null, json!({"id": 1, "a": sent}));
        for (op, expected) in [("u", json!(["a"])), ("c", json!([]))] {
            let typed = RawRecord {
                value: Some(json_with_schema(&schema, &change(op)).into()),
                ..RawRecord::default()
            };
            for found in [event(&typed), event(&record("", &change(op).to_string()))] {
                assert_eq!(found["unavailable"], expected, "{op} {column}");
            }
        }
    }
    let row = json!({"id": 1, "a": SENT});
    let insert = record(r#"{"id":1}"#, &envelope("c", Json::Null, row.clone()).to_string());
    let moved = with_headers(insert, &[("__debezium.oldkey", r#"{"id":2}"#)]);
    assert_eq!(
        event(&moved)["unavailable"],
        json!(["a"]),
        "the new row of a changed key"
    );
    // Where the old row was sent the connector had the value: the text is the user's own.
    let full = Decoder::new(Options {
        full_identity: Tables::like(["*.*"]),
        ..Options::default()
    });
    let update = record(r#"{"id":1}"#, &envelope("u", row.clone(), row).to_string());
    assert_eq!(event_of(&full, &update)["after"]["a"], SENT);
    let told = Decoder::new(Options {
        unavailable_placeholder: "<none>".to_owned(),
        ..Options::default()
    });
    let other = record(
        "",
        &envelope("u", Json::Null, json!({"a": "<none>", "b": SENT})).to_string(),
    );
    assert_eq!(
        event_of(&told, &other)["after"],
        json!({"b": SENT}),
        "source.unavailable_placeholder"
    );
}

#[test]
fn t47_an_hstore_may_hold_null_and_come_as_a_map() {
    let map = member(
        "a",
        json!({"type": "map", "keys": {"type": "string"}, "values": {"type": "string", "optional": true}}),
        true,
    );
    assert_eq!(
        printed(map, &json!({"k": null, "l": "v"})),
        json!({"k": null, "l": "v"})
    );
    type Store = std::collections::BTreeMap<String, Option<String>>;
    let expected = Store::from([("k".to_owned(), None), ("l".to_owned(), Some("v".to_owned()))]);
    let text = r#""{\"k\":null,\"l\":\"v\"}""#;
    assert_eq!(one(Options::default(), text), Ok(Document(expected.clone())));
    assert_eq!(one(Options::default(), r#"{"k":null,"l":"v"}"#), Ok(expected));
}

#[test]
fn t48_arrays_hold_null_and_nothing_and_garbage_is_no_value() {
    for items in [json!([]), json!([1, null, 3]), json!([null, null])] {
        let column = list(json!({"type": "int32", "optional": true}));
        for (encoding, decoder, record) in changes(&column, "c", &Json::Null, &json!({"id": 1, "a": items})) {
            assert_eq!(event_of(&decoder, &record)["after"]["a"], items, "{encoding}");
        }
    }
    let garbage = json!({"id": 1, "a": ["[Ljava.lang.String;@21471a77", "[Ljava.lang.String;@7b"]});
    let found = event(&record("", &envelope("c", Json::Null, garbage).to_string()));
    assert_eq!(
        (&found["unavailable"], &found["after"]),
        (&json!(["a"]), &json!({"id": 1}))
    );
}

#[test]
fn t49_a_json_null_is_not_an_sql_null_and_its_numbers_keep_their_digits() {
    assert_eq!(
        printed(named("string", "io.debezium.data.Json"), &json!("null")),
        json!("null")
    );
    let digits = "123456789012345678901234567890.123456789";
    let document = format!(r#"{{"id":1,"a":"{{\"n\": {digits}}}"}}"#);
    let text = format!(r#"{{"op":"c","source":{{"schema":"s","table":"t"}},"after":{document}}}"#);
    assert_eq!(event(&record("", &text))["after"]["a"], format!("{{\"n\": {digits}}}"));
    assert_eq!(
        one(Options::default(), "\"null\""),
        Ok(Column::Value(Document(Json::Null)))
    );
    assert_eq!(
        one::<Column<Document<Json>>>(Options::default(), "null"),
        Ok(Column::Null)
    );
    assert_eq!(one(Options::default(), "\"[1]\""), Ok(Document(vec![1])));
}

#[test]
fn t50_a_column_that_is_absent_is_not_null() {
    #[derive(Debug, PartialEq, Deserialize)]
    struct Two {
        #[serde(default)]
        absent: Column<i64>,
        null: Column<i64>,
    }
    let read = typed::<Two>(Options::default(), r#"{"null":null}"#);
    assert_eq!(
        read,
        Ok(Two {
            absent: Column::Absent,
            null: Column::Null
        })
    );
    let problem = typed::<One<i64>>(Options::default(), "{}").unwrap_err();
    assert_eq!(problem, "table public.t: column a is absent");
}

#[test]
fn t52_an_enum_label_that_is_not_known_is_named_as_such() {
    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Status {
        Waiting,
        Invited,
    }
    assert_eq!(one(Options::default(), "\"invited\""), Ok(Status::Invited));
    let problem = one::<Status>(Options::default(), "\"banned\"").unwrap_err();
    assert_eq!(problem, "table public.t: column a holds none of waiting, invited");
}

#[test]
fn t53_points_without_a_reference_system_and_sparse_vectors_are_read() {
    let point = member(
        "a",
        json!({"type": "struct", "name": "io.debezium.data.geometry.Point", "fields": [
            field("x", "double"), field("y", "double"), optional("wkb", "bytes"), optional("srid", "int32")]}),
        true,
    );
    let sent = json!({"x": 1.5, "y": -2.0, "wkb": "AQE=", "srid": null});
    assert_eq!(printed(point, &sent), sent);
    assert_eq!(
        one(Options::default(), &sent.to_string()),
        Ok(Point { x: 1.5, y: -2.0 })
    );
    let sparse = member(
        "a",
        json!({"type": "struct", "name": "io.debezium.data.SparseDoubleVector", "fields": [
            field("dimensions", "int16"),
            member("vector", json!({"type": "map", "keys": {"type": "int16"}, "values": {"type": "double"}}), false)]}),
        true,
    );
    let vector = json!({"dimensions": 5, "vector": [[1, 1.0], [3, 2.0]]});
    assert_eq!(printed(sparse, &vector), vector);
}

#[test]
fn t54_text_of_every_kind_arrives_and_half_a_character_is_refused() {
    for text in ["🚀 naïve", "tab\t nl\n quote\" back\\ \u{7f}", &"é".repeat(500_000)] {
        for (encoding, decoder, record) in
            changes(&field("a", "string"), "c", &Json::Null, &json!({"id": 1, "a": text}))
        {
            assert!(event_of(&decoder, &record)["after"]["a"] == *text, "{encoding}");
        }
    }
    let half = r#"{"op":"c","source":{"schema":"s","table":"t"},"after":{"a":"\ud83d secret"}}"#;
    let found = outcome(&auto(), TOPIC, &record("", half));
    assert!(found.contains("column a holds text that is not Unicode"), "{found}");
    assert!(!found.contains("secret"), "{found}");
}

#[test]
fn t55_columns_have_any_name() {
    for name in [
        "my-col",
        "my col",
        "Größe",
        "UPPER",
        "a.b",
        "\"quoted\"",
        "",
        "schema",
        "op",
    ] {
        let mut row = json!({"id": 1});
        row[name] = json!("x");
        let found = event(&record("", &envelope("c", Json::Null, row.clone()).to_string()));
        assert_eq!(found["after"], row);
    }
    // A name is not taken for another one that is written as the first one reads.
    let decoder = auto();
    for printed in [
        r#""a\\n":1"#,
        r#""a\n":1"#,
        r#""a\\n":1"#,
        r#""x\":1,\"y":1"#,
        r#""x":1,"y":1"#,
    ] {
        let row = format!("{{{printed}}}");
        let change = envelope("u", json!("BEFORE"), json!("AFTER")).to_string();
        for [old, new] in [["null", row.as_str()], [row.as_str(), row.as_str()]] {
            let text = change.replace("\"BEFORE\"", old).replace("\"AFTER\"", new);
            let expected: Json = serde_json::from_str(&row).unwrap();
            assert_eq!(event_of(&decoder, &record("", &text))["after"], expected, "{printed}");
        }
    }
    // Avro has no such names: the connector changes them, and a struct names them as they arrive.
    #[derive(Debug, PartialEq, Deserialize)]
    struct Adjusted {
        #[serde(alias = "my_col")]
        #[serde(rename = "my-col")]
        column: i64,
    }
    for sent in [r#"{"my-col":5}"#, r#"{"my_col":5}"#] {
        assert_eq!(typed::<Adjusted>(Options::default(), sent), Ok(Adjusted { column: 5 }));
    }
}
