//! What is said of heartbeats that are missing, and of those that cannot be read.

use super::super::connector::tests::status;
use super::super::tests::expected;
use super::*;
use crate::clients::connect::{Connector, ConnectorStatus};
use crate::event::delivery::{Position, RawRecord, SourcePartition};
use crate::source::kafka::follow::Followed;

fn connector(settings: &[(&str, &str)], status: ConnectorStatus) -> Connector {
    let config = settings
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    Connector {
        config: config.collect(),
        status: Some(status),
    }
}

fn deployed(connector: &Connector) -> Deployed<'_> {
    Deployed {
        name: "c",
        connector,
        endpoint: "http://connect:8083",
    }
}

fn runs() -> ConnectorStatus {
    status("RUNNING", &["RUNNING"])
}

#[test]
fn the_topic_is_called_as_the_connector_says() {
    const BEATS: (&str, &str) = ("heartbeat.interval.ms", "10000");
    let renames = [
        BEATS,
        ("transforms", "rename"),
        (
            "transforms.rename.type",
            "org.apache.kafka.connect.transforms.RegexRouter",
        ),
        ("transforms.rename.regex", "(.*)-heartbeat\\.(.*)"),
        ("transforms.rename.replacement", "$1.of.$2"),
    ];
    let unknown = [
        BEATS,
        ("transforms", "x"),
        ("transforms.x.type", "com.example.SomeRouter"),
    ];
    for (settings, wanted_topic) in [
        (&[BEATS][..], Some("__debezium-heartbeat.aw")),
        (&[("heartbeat.interval.ms", "0")], None),
        (&[], None),
        (&[("heartbeat.interval.ms", "${env:BEATS}")], None),
        (&[BEATS, ("topic.heartbeat.prefix", "beats")], Some("beats.aw")),
        (&[BEATS, ("topic.delimiter", "-")], Some("__debezium-heartbeat-aw")),
        (&[BEATS, ("topic.heartbeat.name", "beats")], Some("beats")),
        (&[BEATS, ("topic.heartbeat.name", "${env:NAME}")], None),
        (&[BEATS, ("topic.prefix", "other")], Some("__debezium-heartbeat.other")),
        (&renames, Some("__debezium.of.aw")),
        (&unknown, None),
    ] {
        let connector = connector(settings, runs());
        let beat = wanted(&deployed(&connector), &expected());
        assert_eq!(
            beat.as_ref().map(|beat| beat.topic.as_str()),
            wanted_topic,
            "{settings:?}"
        );
    }
    for state in [status("PAUSED", &["PAUSED"]), status("RUNNING", &["FAILED"])] {
        let connector = connector(&[BEATS], state);
        assert_eq!(wanted(&deployed(&connector), &expected()), None);
    }
}

#[test]
fn a_heartbeat_is_missed_after_three_intervals_and_a_minute() {
    let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
    let ago = |seconds: i64| {
        Seen::Newest(Newest::Record(Followed {
            partition: SourcePartition {
                topic: "beats".into(),
                partition: 0,
            },
            position: Position(7),
            raw: RawRecord {
                timestamp_ms: Some((now - TimeDelta::seconds(seconds)).timestamp_millis()),
                ..RawRecord::default()
            },
        }))
    };
    let connector = connector(&[], runs());
    for (interval_s, seen, is_read, codes) in [
        (10, ago(60), true, &[][..]),
        (10, ago(61), true, &["heartbeat-stale"]),
        (10, ago(61), false, &[]),
        (30, ago(90), true, &[]),
        (30, ago(91), true, &["heartbeat-stale"]),
        // Another machine's clock.
        (30, ago(-500), true, &[]),
        (10, Seen::Newest(Newest::Nothing), true, &[]),
        (10, Seen::NoTopic, true, &[]),
        (10, Seen::Newest(Newest::Removed), true, &["heartbeat-stale"]),
        (10, Seen::Newest(Newest::Denied), true, &["heartbeat-hidden"]),
    ] {
        let beat = Beat {
            topic: "beats".to_owned(),
            interval: Duration::from_secs(interval_s),
        };
        let outcome = findings(&beat, &seen, is_read, &deployed(&connector), now);
        let found: Vec<&str> = outcome.findings.iter().map(|finding| finding.code.name).collect();
        assert_eq!(
            (found.as_slice(), outcome.unchecked.as_slice()),
            (codes, &[][..]),
            "{seen:?}"
        );
        let text = outcome.findings.first().map_or("", |finding| finding.remedy.parts().1);
        match codes {
            ["heartbeat-stale"] => assert!(
                text.contains("-X POST") && text.contains("/connectors/c/restart"),
                "{text}"
            ),
            ["heartbeat-hidden"] => assert!(text.ends_with("--operation Read --topic 'beats'"), "{text}"),
            _ => {}
        }
    }
    let beat = Beat {
        topic: "beats".to_owned(),
        interval: Duration::from_millis(u64::MAX),
    };
    assert!(
        findings(&beat, &ago(1_000_000), true, &deployed(&connector), now)
            .findings
            .is_empty()
    );
    let late = findings(&beat, &Seen::Unread, true, &deployed(&connector), now);
    assert!(late.unchecked[0].because.contains("topic beats"));
}
