//! Each kind of column alone, under each mode that matters.

use super::*;
use crate::clients::connect::{Connector, ConnectorConfig};
use crate::doctor::tests::expected;

fn column(sql_type: &str, kind: &str) -> Column {
    let is_array = sql_type.ends_with("[]");
    let (schema, name) = sql_type
        .trim_end_matches("[]")
        .split_once('.')
        .unwrap_or(("pg_catalog", sql_type));
    Column {
        schema: "public".to_owned(),
        table: "orders".to_owned(),
        name: "c".to_owned(),
        sql_type: sql_type.to_owned(),
        type_schema: schema.to_owned(),
        type_name: name.trim_end_matches("[]").to_owned(),
        kind: kind.to_owned(),
        is_array,
        is_full: true,
        ..Column::default()
    }
}

fn named(name: &str) -> Column {
    Column {
        name: name.to_owned(),
        ..column("text", "b")
    }
}

fn generated(kind: &str) -> Column {
    Column {
        generated: kind.to_owned(),
        ..column("int4", "b")
    }
}

fn facts(columns: &[Column]) -> Facts {
    Facts {
        columns: columns.to_vec(),
        version: 150_000,
        sends_generated: false,
        publication: "aw".to_owned(),
    }
}

fn codes_of(facts: &Facts, settings: &[(&str, &str)], expected: &Expected) -> Vec<(&'static str, String)> {
    let settings = settings
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let connector = Connector {
        config: settings.collect::<ConnectorConfig>(),
        status: None,
    };
    let deployed = Deployed {
        name: "c",
        connector: &connector,
        endpoint: "http://connect:8083",
    };
    let found = findings(facts, Some(&deployed), expected);
    found
        .into_iter()
        .map(|finding| (finding.code.name, finding.remedy.parts().1.to_owned()))
        .collect()
}

fn names_of(facts: &Facts, settings: &[(&str, &str)]) -> Vec<&'static str> {
    let found = codes_of(facts, settings, &expected());
    found.into_iter().map(|(code, _)| code).collect()
}

const AS_TEXT: (&str, &str) = ("decimal.handling.mode", "string");

#[test]
fn types_that_debezium_leaves_out_are_told_and_those_that_it_knows_are_not() {
    for (sql_type, kind, is_absent) in [
        ("text", "b", false),
        ("text[]", "b", false),
        ("numeric", "b", false),
        ("public.mood", "e", false),
        ("public.mood[]", "e", false),
        ("public.citext", "b", false),
        ("int4range", "r", false),
        ("xml", "b", false),
        ("interval", "b", false),
        ("pg_lsn", "b", true),
        ("tsquery", "b", true),
        ("txid_snapshot", "b", true),
        ("name", "b", true),
        ("public.pair", "c", true),
        ("public.pair[]", "c", true),
        ("int4multirange", "m", true),
        ("public.ours", "r", true),
        ("public.amount[]", "d", true),
        ("public.cube", "b", true),
        ("xml[]", "b", true),
        ("interval[]", "b", true),
        ("name[]", "b", true),
    ] {
        let facts = facts(&[column(sql_type, kind)]);
        let expected: &[&str] = if is_absent { &["columns-absent"] } else { &[] };
        assert_eq!(names_of(&facts, &[AS_TEXT]), expected, "{sql_type}");
    }
    let facts = facts(&[column("pg_lsn", "b")]);
    assert_eq!(names_of(&facts, &[("include.unknown.datatypes", "true")]), [""; 0]);
}

#[test]
fn what_is_left_out_on_purpose_or_read_by_nobody_is_no_news() {
    let lsn = facts(&[column("pg_lsn", "b")]);
    for settings in [
        [("column.exclude.list", r"public\.orders\.c")],
        [("column.include.list", r"public\.orders\.other")],
        [("table.include.list", r"public\.other")],
    ] {
        assert_eq!(names_of(&lsn, &settings), [""; 0]);
    }
    let of_waitlist = Expected {
        names: Some(crate::handlers::names::Names::default()),
        ..expected()
    };
    assert_eq!(codes_of(&lsn, &[], &of_waitlist), []);
    let place = |name: &str| Column {
        table: "campaigns".to_owned(),
        ..Column {
            name: name.to_owned(),
            ..generated("s")
        }
    };
    assert_eq!(codes_of(&facts(&[place("more")]), &[], &of_waitlist), []);
    let found = codes_of(&facts(&[place("slug")]), &[("column.exclude.list", "a")], &of_waitlist);
    assert_eq!(found[0].0, "columns-absent");
    assert!(
        found[0]
            .1
            .contains(r#"{"column.exclude.list":"a,public\\.campaigns\\.slug"}"#),
        "{}",
        found[0].1
    );
}

#[test]
fn generated_columns_are_absent_until_postgres_publishes_them() {
    let with = |kind: &str, version, sends_generated| Facts {
        version,
        sends_generated,
        ..facts(&[generated(kind)])
    };
    for (facts, codes) in [
        (with("s", 150_000, false), &["columns-absent"][..]),
        (with("s", 180_000, false), &["identity-generated", "columns-absent"]),
        (with("s", 180_000, true), &[]),
        (with("v", 180_000, true), &["identity-generated", "columns-absent"]),
    ] {
        assert_eq!(names_of(&facts, &[]), codes, "{facts:?}");
    }
    let found = codes_of(&with("s", 180_000, false), &[], &expected());
    let publish = "ALTER PUBLICATION aw SET (publish_generated_columns = stored);";
    assert!(found.iter().all(|(_, remedy)| remedy == publish), "{found:?}");
    // Where the log is read without Debezium the same is absent, and every type arrives.
    let of_log = |left_out: &[&str]| Expected {
        brokers: None,
        left_out: left_out.iter().map(|column| (*column).to_owned()).collect(),
        ..expected()
    };
    let both = facts(&[generated("s"), column("pg_lsn", "b")]);
    let found = findings(&both, None, &of_log(&[]));
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].code.name, "columns-absent");
    assert_eq!(findings(&both, None, &of_log(&["public.orders.c"])), []);
    // Which columns arrive is not known without the connector.
    assert_eq!(findings(&both, None, &expected()), []);
}

#[test]
fn names_that_are_adjusted_are_told_and_two_that_become_one_are_an_error() {
    let avro = [("field.name.adjustment.mode", "avro")];
    for (columns, settings, codes) in [
        (vec![named("my-col")], &[][..], &[][..]),
        (vec![named("my-col")], &avro, &["columns-renamed"]),
        (vec![named("my_col")], &avro, &[]),
        (
            vec![named("my_col")],
            &[("field.name.adjustment.mode", "avro_unicode")],
            &[],
        ),
        (
            vec![named("my-col"), named("my_col")],
            &avro,
            &["columns-collide", "columns-renamed"],
        ),
    ] {
        assert_eq!(names_of(&facts(&columns), settings), codes, "{columns:?}");
    }
}

#[test]
fn values_that_do_not_arrive_are_told_with_the_condition_that_keeps_them_out() {
    let precise = ("decimal.handling.mode", "precise");
    for (sql_type, settings, check) in [
        ("numeric", &[AS_TEXT][..], None),
        (
            "numeric",
            &[],
            Some("CHECK (c NOT IN ('NaN', 'Infinity', '-Infinity'))"),
        ),
        ("numeric", &[precise], Some("NaN")),
        ("numeric[]", &[AS_TEXT], Some("CHECK ('NaN' <> ALL (c))")),
        ("date", &[], None),
        ("date[]", &[], Some("'-infinity' <> ALL (c)")),
        ("timestamp", &[("time.precision.mode", "isostring")], None),
        (
            "timestamp",
            &[("time.precision.mode", "nanoseconds")],
            Some("2262-04-11"),
        ),
        ("time", &[("time.precision.mode", "structured")], Some("c < '24:00'")),
        ("bit[]", &[AS_TEXT], Some("column.exclude.list")),
        ("polygon[]", &[AS_TEXT], Some("column.exclude.list")),
        ("polygon", &[AS_TEXT], None),
    ] {
        let found = codes_of(&facts(&[column(sql_type, "b")]), settings, &expected());
        match check {
            None => assert_eq!(found, [], "{sql_type}"),
            Some(check) => {
                assert_eq!(found[0].0, "values-unfit", "{sql_type}");
                assert!(found[0].1.contains(check), "{sql_type}: {}", found[0].1);
            }
        }
    }
    let guarded = Column {
        checks: vec!["CHECK ((c <> 'NaN'::numeric))".to_owned()],
        ..column("numeric", "b")
    };
    assert_eq!(names_of(&facts(&[guarded]), &[precise]), [""; 0]);
}
