//! The brokers and the topics: how they keep what the connector writes.

use std::collections::{BTreeMap, BTreeSet};

use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::types::RDKafkaErrorCode;

use super::codes;
use super::connector::Deployed;
use super::expected::Expected;
use super::finding::{Finding, Remedy};
use super::routing::routed_partitions;
use crate::clients::kafka::{alter_topic, hide_value};
use crate::groups::broker::Broker;
use crate::source::kafka::is_subscribed;

/// What a topic removes sooner than this is lost for a group that is stopped over a night and a day.
const RETENTION_MIN_MS: i64 = 24 * 3_600 * 1_000;

/// Topics whose settings are asked for at once at most.
const TOPICS_MAX: usize = 500;

/// A topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Topic {
    pub(super) partitions: i32,
    /// Of the partition that has fewest.
    pub(super) replicas: i32,
    /// `None`: they may not be read.
    pub(super) settings: Option<BTreeMap<String, String>>,
}

impl Topic {
    pub(super) fn setting(&self, name: &str) -> Option<&str> {
        self.settings.as_ref()?.get(name).map(String::as_str)
    }

    fn number(&self, name: &str) -> Option<i64> {
        self.setting(name)?.parse().ok()
    }
}

/// What the brokers have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) topics: BTreeMap<String, Topic>,
    pub(super) brokers: i32,
}

impl Facts {
    /// The topics that a group reads.
    pub(super) fn read_by<'a>(&'a self, subscribed: &'a [String]) -> impl Iterator<Item = (&'a String, &'a Topic)> {
        self.topics.iter().filter(|(name, _)| is_subscribed(subscribed, name))
    }
}

/// The topics of the source, those that groups read, and those of their letters, with their settings.
pub(super) async fn collect(broker: &Broker, expected: &Expected) -> Result<Facts, String> {
    let options = expected.brokers.as_ref().ok_or("there are no brokers")?;
    let letters: BTreeSet<String> = expected
        .groups
        .iter()
        .map(|group| crate::dead_letter::topic::name(&group.name))
        .collect();
    let of_source = format!("{}.", expected.source);
    let concerns = |name: &str| {
        name.starts_with(&of_source)
            || letters.contains(name)
            || expected.groups.iter().any(|group| is_subscribed(&group.topics, name))
    };
    let mut topics: BTreeMap<String, Topic> = broker
        .layout()
        .filter(|(name, _, _)| concerns(name))
        .map(|(name, partitions, replicas)| {
            (
                name.to_owned(),
                Topic {
                    partitions,
                    replicas,
                    settings: None,
                },
            )
        })
        .collect();
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &options.brokers);
    for (name, value) in &options.properties {
        config.set(name, value);
    }
    let admin: AdminClient<DefaultClientContext> = config.create().map_err(|error| hide_value(error).to_string())?;
    let names: Vec<String> = topics.keys().cloned().collect();
    let times = AdminOptions::new().request_timeout(Some(expected.patience));
    let mut described = Vec::with_capacity(names.len());
    for names in names.chunks(TOPICS_MAX) {
        let asked: Vec<ResourceSpecifier<'_>> = names.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
        let answers = admin.describe_configs(&asked, &times).await;
        described.extend(answers.map_err(|error| error.to_string())?);
    }
    for (name, answer) in names.iter().zip(described) {
        match (topics.get_mut(name), answer) {
            (Some(topic), Ok(answer)) => {
                let entries = answer
                    .entries
                    .into_iter()
                    .filter_map(|entry| Some((entry.name, entry.value?)));
                topic.settings = Some(entries.collect());
            }
            (_, Err(RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed)) => {}
            (_, Err(code)) => tracing::debug!(topic = name, code = %code, "settings of the topic could not be read"),
            (None, Ok(_)) => {}
        }
    }
    Ok(Facts {
        topics,
        brokers: broker.brokers(),
    })
}

/// What is wrong with the topics that groups read.
pub(super) fn findings(facts: &Facts, deployed: Option<&Deployed<'_>>, expected: &Expected) -> Vec<Finding> {
    let subscribed: Vec<String> = expected
        .groups
        .iter()
        .flat_map(|group| group.topics.iter().cloned())
        .collect();
    let mut found = Vec::new();
    for (name, topic) in facts.read_by(&subscribed) {
        found.extend(of_settings(name, topic, facts.brokers));
        let Some(deployed) = deployed else { continue };
        found.extend(of_routing(name, topic, deployed));
        let largest = deployed
            .get("producer.override.max.request.size")
            .and_then(|size| size.parse::<i64>().ok());
        let takes = topic.number("max.message.bytes");
        if let (Some(largest), Some(takes)) = (largest, takes)
            && takes < largest
        {
            found.push(codes::TOPIC_SMALL.found(
                format!("topic {name} takes records of {takes} bytes, and the connector sends up to {largest}"),
                Remedy::shell(alter_topic(name, &format!("max.message.bytes={largest}"))),
            ));
        }
    }
    let unread: Vec<&str> = facts
        .read_by(&subscribed)
        .filter(|(_, topic)| topic.settings.is_none())
        .map(|(name, _)| name.as_str())
        .collect();
    if !unread.is_empty() {
        found.push(codes::TOPICS_HIDDEN.found(
            format!("the settings of {} may not be read", unread.join(", ")),
            Remedy::words(format!(
                "allow it: kafka-acls.sh --bootstrap-server \"$KAFKA_BROKERS\" --add --allow-principal User:… --operation DescribeConfigs \
                 --topic {} --resource-pattern-type prefixed",
                expected.source
            )),
        ));
    }
    found
}

fn of_settings(name: &str, topic: &Topic, brokers: i32) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some(policy) = topic
        .setting("cleanup.policy")
        .filter(|policy| policy.contains("compact"))
    {
        found.push(codes::TOPIC_COMPACTED.found(
            format!("cleanup.policy of topic {name} is {policy}"),
            Remedy::shell(alter_topic(name, "cleanup.policy=delete")),
        ));
    }
    if let Some(kept) = topic
        .number("retention.ms")
        .filter(|kept| (0..RETENTION_MIN_MS).contains(kept))
    {
        found.push(codes::TOPIC_RETENTION.found(
            format!("topic {name} keeps records for {} minutes", kept / 60_000),
            Remedy::shell(alter_topic(name, "retention.ms=604800000")),
        ));
    }
    let insync = topic.number("min.insync.replicas").unwrap_or(1);
    if insync > i64::from(topic.replicas) {
        found.push(codes::TOPIC_INSYNC.found(
            format!(
                "topic {name} has {} replicas, and min.insync.replicas is {insync}",
                topic.replicas
            ),
            Remedy::shell(alter_topic(name, &format!("min.insync.replicas={}", topic.replicas))),
        ));
    }
    if topic.replicas == 1 && brokers > 1 {
        found.push(codes::TOPIC_ALONE.found(
            format!("topic {name} has one replica, on {brokers} brokers"),
            Remedy::words("give it three: kafka-reassign-partitions.sh; and topic.creation.default.replication.factor=3 in the connector"),
        ));
    }
    found
}

/// A connector that routes by campaign picks one of so many partitions; those a topic lacks stop its task.
fn of_routing(name: &str, topic: &Topic, deployed: &Deployed<'_>) -> Option<Finding> {
    let wanted = routed_partitions(&deployed.connector.config, name)?;
    (topic.partitions < wanted).then(|| {
        codes::TOPIC_PARTITIONS.found(
            format!(
                "topic {name} has {} partitions, and the connector routes to {wanted}",
                topic.partitions
            ),
            Remedy::shell(format!(
                "kafka-topics.sh --bootstrap-server \"$KAFKA_BROKERS\" --alter --topic {name} --partitions {wanted}"
            )),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::connector::tests::status;
    use super::super::tests::expected;
    use super::*;
    use crate::clients::connect::{Connector, ConnectorConfig};

    fn topic(settings: &[(&str, &str)]) -> Topic {
        let settings = settings
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        Topic {
            partitions: 8,
            replicas: 1,
            settings: Some(settings),
        }
    }

    fn found(topic: Topic, brokers: i32) -> Vec<&'static str> {
        let config: ConnectorConfig = serde_json::from_str(
            &include_str!("../../connectors/waitlist.json")
                .replace("|referrals|", "|orders|referrals|")
                .replace("\"waitlist\\\\.public", "\"aw\\\\.public"),
        )
        .unwrap();
        let connector = Connector {
            config,
            status: Some(status("RUNNING", &["RUNNING"])),
        };
        let deployed = Deployed {
            name: "c",
            connector: &connector,
            endpoint: "http://connect:8083",
        };
        let facts = Facts {
            topics: [("aw.public.orders".to_owned(), topic)].into(),
            brokers,
        };
        findings(&facts, Some(&deployed), &expected())
            .iter()
            .map(|finding| finding.code.name)
            .collect()
    }

    #[test]
    fn what_loses_or_refuses_records_is_told() {
        let good = [
            ("cleanup.policy", "delete"),
            ("retention.ms", "604800000"),
            ("max.message.bytes", "10485760"),
        ];
        assert_eq!(found(topic(&good), 1), Vec::<&str>::new());
        assert_eq!(found(topic(&[("retention.ms", "-1")]), 1), Vec::<&str>::new());
        for (key, value, code) in [
            ("cleanup.policy", "compact,delete", "topic-compacted"),
            ("retention.ms", "3600000", "topic-retention"),
            ("min.insync.replicas", "2", "topic-insync"),
            ("max.message.bytes", "1048576", "topic-small"),
        ] {
            assert_eq!(found(topic(&[(key, value)]), 1), [code]);
        }
        assert_eq!(found(topic(&good), 3), ["topic-alone"]);
        assert_eq!(
            found(
                Topic {
                    partitions: 1,
                    ..topic(&good)
                },
                1
            ),
            ["topic-partitions"]
        );
        assert_eq!(
            found(
                Topic {
                    settings: None,
                    ..topic(&good)
                },
                1
            ),
            ["topics-hidden"]
        );
    }
}
