//! Each kind of update alone, over the connector of this repository.

use super::*;

fn shipped() -> ConnectorConfig {
    serde_json::from_str(include_str!("../../../../connectors/waitlist.json")).unwrap()
}

fn with(mut config: ConnectorConfig, settings: &[(&str, Option<&str>)]) -> ConnectorConfig {
    for (key, value) in settings {
        match value {
            Some(value) => config.insert((*key).to_owned(), (*value).to_owned()),
            None => config.remove(*key),
        };
    }
    config
}

fn accepts(before: &ConnectorConfig, after: &ConnectorConfig, published: &Published) -> Vec<String> {
    losses(before, after, published)
        .into_iter()
        .map(|loss| loss.accept)
        .collect()
}

/// A setting that is given another value, and what has to be accepted for it.
const UPDATES: [(&str, Option<&str>, &[&str]); 33] = [
    ("slot.name", Some("other"), &["slot.name"]),
    ("slot.name", None, &["slot.name"]),
    ("topic.prefix", Some("other"), &["topic.prefix"]),
    ("topic.delimiter", Some("_"), &["topic.delimiter"]),
    ("database.dbname", Some("other"), &["database.dbname"]),
    ("database.hostname", Some("${env:OTHER}"), &["database.hostname"]),
    ("database.password", Some("${env:OTHER}"), &[]),
    ("plugin.name", None, &["plugin.name"]),
    ("slot.drop.on.stop", Some("true"), &["slot.drop.on.stop"]),
    ("slot.drop.on.stop", Some("false"), &[]),
    ("snapshot.mode", Some("initial_only"), &["snapshot.mode"]),
    ("snapshot.mode", Some("when_needed"), &["snapshot.mode"]),
    ("snapshot.mode", Some("always"), &["snapshot.mode"]),
    ("snapshot.mode", Some("initial"), &[]),
    ("skipped.operations", Some("t, d"), &["skipped.operations"]),
    ("skipped.operations", None, &["skipped.operations"]),
    (
        "event.processing.failure.handling.mode",
        Some("skip"),
        &["event.processing.failure.handling.mode"],
    ),
    (
        "event.converting.failure.handling.mode",
        None,
        &["event.converting.failure.handling.mode"],
    ),
    ("errors.tolerance", Some("all"), &["errors.tolerance"]),
    ("offset.mismatch.strategy", None, &["offset.mismatch.strategy"]),
    ("producer.override.acks", Some("1"), &["producer.override.acks"]),
    ("producer.override.acks", None, &[]),
    ("message.key.columns", Some("public.t:a"), &["message.key.columns"]),
    (
        "topic.creation.default.cleanup.policy",
        Some("compact"),
        &["topic.creation.default.cleanup.policy"],
    ),
    ("key.converter.schemas.enable", Some("true"), &["key.converter"]),
    ("key.converter.replace.null.with.default", None, &[]),
    ("value.converter.schemas.enable", Some("true"), &[]),
    (
        "transforms.route.partition.topic.num",
        Some("16"),
        &["transforms.route"],
    ),
    ("transforms", None, &["transforms.route"]),
    ("table.include.list", None, &[]),
    ("heartbeat.interval.ms", Some("5000"), &[]),
    ("tombstones.on.delete", Some("true"), &[]),
    ("column.exclude.list", None, &[]),
];

#[test]
fn what_an_update_loses_is_told_and_nothing_else() {
    for (key, value, expected) in UPDATES {
        let (before, after) = (shipped(), with(shipped(), &[(key, value)]));
        assert_eq!(
            accepts(&before, &after, &Published::default()),
            expected,
            "{key} {value:?}"
        );
    }
    assert_eq!(losses(&shipped(), &shipped(), &Published::default()), []);
}

#[test]
fn a_stop_that_drops_the_slot_is_a_loss_whatever_is_updated() {
    let before = with(shipped(), &[("slot.drop.on.stop", Some("true"))]);
    assert_eq!(
        accepts(&before, &shipped(), &Published::default()),
        ["slot.drop.on.stop"]
    );
    let after = with(before.clone(), &[("poll.interval.ms", Some("60"))]);
    assert_eq!(accepts(&before, &after, &Published::default()), ["slot.drop.on.stop"]);
}

fn of_tables(before: &str, after: &str, published: Option<&[&str]>) -> String {
    let of = |list: &str| match list {
        "" => with(shipped(), &[("table.include.list", None), ("transforms", None)]),
        list => with(shipped(), &[("table.include.list", Some(list)), ("transforms", None)]),
    };
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let published = Published {
        before: published.map(names),
        after: published.map(names),
        is_younger: false,
    };
    let found = losses(&of(before), &of(after), &published);
    found
        .into_iter()
        .map(|loss| format!("{} {}", loss.accept, loss.what))
        .collect()
}

#[test]
fn tables_that_a_list_lets_go_are_named() {
    for (before, after, published, lost) in [
        (r"public\.a,public\.b", r"public\.b", None, "public.a are"),
        (r"public\.a", r"public\.a,public\.b", None, ""),
        (r"public\.a,public\.b", r"public\.b,public\.a", None, ""),
        (r"public\.a", r"public\..*", None, ""),
        (r"public\.a.*", r"public\.a", None, r"tables like public\.a.*"),
        (
            r"public\.a.*",
            r"public\.a",
            Some(&["public.a", "public.ab"][..]),
            "public.ab are",
        ),
        (r"public\.a.*", r"public\.a", Some(&["public.a", "public.b"]), ""),
        ("", r"public\.a", Some(&["public.a", "public.b"]), "public.b are"),
        ("", r"public\.a", None, "could not be compared"),
        (
            r"public\.a",
            "${env:TABLES}",
            Some(&["public.a"]),
            "only Kafka Connect knows",
        ),
        // It is in the list, and nothing of it is sent.
        (r"public\.a,public\.b", r"public\.b", Some(&["public.b"]), ""),
    ] {
        let found = of_tables(before, after, published);
        let is_right = match lost {
            "" => found.is_empty(),
            lost => found.starts_with("table.include.list") && found.contains(lost),
        };
        assert!(is_right, "{before} → {after} ({published:?}): {found}");
    }
}

#[test]
fn another_publication_has_to_have_every_table() {
    let after = with(shipped(), &[("publication.name", Some("other"))]);
    let published = |after: &[&str], is_younger| Published {
        before: Some(["public.campaigns".to_owned(), "public.else".to_owned()].into()),
        after: Some(after.iter().map(|name| (*name).to_owned()).collect()),
        is_younger,
    };
    for (published, said) in [
        (Published::default(), Some("could not be asked")),
        (published(&["public.campaigns"], false), None),
        (published(&[], false), Some("has no public.campaigns:")),
        (published(&["public.campaigns"], true), Some("never gets past it")),
    ] {
        let found = losses(&shipped(), &after, &published);
        assert_eq!(found.len(), usize::from(said.is_some()), "{found:?}");
        assert!(said.is_none_or(|said| found[0].what.contains(said)), "{found:?}");
    }
}

#[test]
fn what_moves_or_drops_records_is_a_loss_and_what_decorates_them_is_none() {
    for (class, lost) in [
        ("org.apache.kafka.connect.transforms.RegexRouter", true),
        ("org.apache.kafka.connect.transforms.TimestampRouter", true),
        ("io.debezium.transforms.ByLogicalTableRouter", true),
        ("io.debezium.transforms.ContentBasedRouter", true),
        ("io.debezium.transforms.outbox.EventRouter", true),
        ("io.debezium.transforms.Filter", true),
        ("io.debezium.transforms.ExtractNewRecordState", true),
        ("org.apache.kafka.connect.transforms.ExtractField$Value", true),
        ("org.apache.kafka.connect.transforms.InsertHeader", false),
        ("io.debezium.transforms.HeaderToValue", false),
    ] {
        let added = [("transforms", Some("route,x")), ("transforms.x.type", Some(class))];
        let (before, after) = (shipped(), with(shipped(), &added));
        let expected: &[&str] = if lost { &["transforms.x"] } else { &[] };
        assert_eq!(accepts(&before, &after, &Published::default()), expected, "{class}");
    }
}

#[test]
fn a_further_table_may_be_routed_and_one_that_was_may_not_be_routed_otherwise() {
    let key = "predicates.ofACampaign.pattern";
    let pattern = shipped()[key].clone();
    let listed = shipped()["table.include.list"].clone();
    let routed = |of: &str| {
        let pattern = pattern.replace("referrals|", of);
        with(shipped(), &[(key, Some(&pattern))])
    };
    let more = with(
        routed("referrals|orders|"),
        &[("table.include.list", Some(&format!(r"{listed},public\.orders")))],
    );
    assert_eq!(accepts(&shipped(), &more, &Published::default()), Vec::<String>::new());
    assert_eq!(
        accepts(&shipped(), &routed(""), &Published::default()),
        ["transforms.route"]
    );
}
