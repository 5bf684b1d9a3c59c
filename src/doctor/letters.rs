//! Where dead letters go, and which wait for somebody.

use std::collections::BTreeMap;

use super::codes;
use super::expected::Expected;
use super::finding::{Finding, Remedy};
use super::topics;
use crate::dead_letter::topic::{self, Found, Options};
use crate::groups::known::Known;

/// `topics` is `None` where there are no brokers, or they are away.
pub(super) fn findings(
    topics: Option<&topics::Facts>,
    known: &BTreeMap<String, Known>,
    expected: &Expected,
) -> Vec<Finding> {
    let mut found = Vec::new();
    for group in &expected.groups {
        let Some(known) = known.get(&group.name) else { continue };
        if let (Some(topics), Some(options)) = (topics, &expected.letters) {
            found.extend(of_topic(&topic::name(&group.name), topics, options));
        }
        let open = known.letters_in("open");
        if open > 0 {
            found.push(codes::LETTERS_OPEN.found(
                format!(
                    "group {} has {open} dead letters that nobody has replayed or discarded",
                    group.name
                ),
                Remedy::shell(format!("afterwrite dlq list --group {} --state open", group.short)),
            ));
        }
    }
    found
}

fn of_topic(name: &str, topics: &topics::Facts, options: &Options) -> Vec<Finding> {
    let Some(there) = topics.topics.get(name) else {
        return vec![codes::LETTERS_TOPIC_MISSING.found(
            format!("there is no topic {name}"),
            Remedy::shell(format!(
                "kafka-topics.sh --bootstrap-server \"$KAFKA_BROKERS\" --create --topic {name} --partitions {} --config \
                 cleanup.policy=delete --config retention.ms={} --config max.message.bytes={}",
                options.partitions,
                options.retention.as_millis(),
                options.message_bytes_max
            )),
        )];
    };
    let Some(settings) = &there.settings else {
        return Vec::new();
    };
    let settings = Found::of(|setting| settings.get(setting).cloned());
    let unfit = topic::faults(options, name, &settings);
    let mut found: Vec<Finding> = unfit
        .into_iter()
        .map(|fault| {
            codes::LETTERS_TOPIC_UNFIT.found(format!("topic {name}: {}", fault.what), Remedy::shell(fault.remedy))
        })
        .collect();
    let wanted = i64::try_from(options.retention.as_millis()).unwrap_or(i64::MAX);
    if let Some(kept) = settings.retention_ms.filter(|kept| (0..wanted).contains(kept)) {
        found.push(codes::LETTERS_RETENTION.found(
            format!(
                "topic {name} keeps letters for {} hours, and dead_letters.retention_ms says {}",
                kept / 3_600_000,
                wanted / 3_600_000
            ),
            Remedy::shell(crate::clients::kafka::alter_topic(
                name,
                &format!("retention.ms={wanted}"),
            )),
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::expected;
    use super::*;
    use crate::groups::known::Letters;

    fn found(settings: Option<&[(&str, &str)]>, open: i64) -> Vec<&'static str> {
        let topic = settings.map(|settings| topics::Topic {
            settings: Some(
                settings
                    .iter()
                    .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                    .collect(),
            ),
            ..topics::Topic::default()
        });
        let topics = topic
            .map(|topic| ("aw.email.dlq".to_owned(), topic))
            .into_iter()
            .collect();
        let letters = vec![Letters {
            class: "permanent".to_owned(),
            state: "open".to_owned(),
            count: open,
        }];
        let known = [(
            "aw.email".to_owned(),
            Known {
                letters,
                ..Known::default()
            },
        )]
        .into();
        let expected = Expected {
            letters: Some(Options {
                brokers: String::new(),
                properties: Vec::new(),
                partitions: 3,
                replicas: None,
                retention: Duration::from_millis(10_000),
                message_bytes_max: 1_000,
            }),
            ..expected()
        };
        let facts = topics::Facts {
            topics,
            brokers: 1,
            ..topics::Facts::default()
        };
        let found = findings(Some(&facts), &known, &expected);
        found.iter().map(|finding| finding.code.name).collect()
    }

    #[test]
    fn what_loses_letters_is_told_and_those_that_wait_too() {
        let good = [
            ("cleanup.policy", "delete"),
            ("retention.ms", "10000"),
            ("max.message.bytes", "1000"),
        ];
        assert_eq!(found(Some(&good), 0), Vec::<&str>::new());
        assert_eq!(found(Some(&good), 2), ["letters-open"]);
        assert_eq!(found(None, 0), ["letters-topic-missing"]);
        assert_eq!(
            found(Some(&[("cleanup.policy", "compact")]), 0),
            ["letters-topic-unfit"]
        );
        assert_eq!(found(Some(&[("max.message.bytes", "999")]), 0), ["letters-topic-unfit"]);
        assert_eq!(found(Some(&[("retention.ms", "9999")]), 0), ["letters-retention"]);
    }
}
