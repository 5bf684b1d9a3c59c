//! The brokers and the topics: how they keep what the connector writes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::error::KafkaResult;
use rdkafka::types::RDKafkaErrorCode;
use tokio::time::{Instant, timeout};

use super::codes;
use super::connector::Deployed;
use super::expected::Expected;
use super::finding::{Finding, Remedy};
use super::routing::routed_partitions;
use crate::clients::brokers::Access;
use crate::clients::denied::PRINCIPAL;
use crate::clients::kafka::{
    KEEPS_LETTERS, READS_TOPIC, Resource, admin, allow, alter_topic, client_config, settings_of,
};
use crate::groups::broker::Broker;
use crate::source::kafka::is_subscribed;

/// What a topic removes sooner than this is lost for a group that is stopped over a night and a day.
const RETENTION_MIN_MS: i64 = 24 * 3_600 * 1_000;

/// Longest wait for the settings of all topics, and for what may not be described.
const TOLD_WITHIN: Duration = Duration::from_secs(6);

/// Topics that are asked for by name at most.
const ASKED_MAX: usize = 100;

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
    /// Why their settings could not be asked for, though the brokers answer.
    pub(super) unread: Option<String>,
    /// Topics that may not be described.
    pub(super) denied: BTreeSet<String>,
}

impl Facts {
    /// The topics that a group reads.
    pub(super) fn read_by<'a>(&'a self, subscribed: &'a [String]) -> impl Iterator<Item = (&'a String, &'a Topic)> {
        self.topics.iter().filter(|(name, _)| is_subscribed(subscribed, name))
    }
}

/// The topics of the source, those that groups read, and those of their letters, with their settings.
pub(super) async fn collect(broker: &Arc<Broker>, expected: &Expected) -> Result<Facts, String> {
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
    let unseen = unseen(expected, &topics);
    let (described, denied) = futures::future::join(
        timeout(TOLD_WITHIN, describe(options, expected, &mut topics)),
        denied(broker, unseen),
    )
    .await;
    let unread = match described {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(format!("there was no answer within {} s", TOLD_WITHIN.as_secs())),
    };
    Ok(Facts {
        topics,
        brokers: broker.brokers(),
        unread,
        denied,
    })
}

/// Adds what the brokers say of the topics' settings.
async fn describe(options: &Access, expected: &Expected, topics: &mut BTreeMap<String, Topic>) -> KafkaResult<()> {
    let admin = admin(&client_config(&options.brokers, &options.properties))?;
    let names: Vec<String> = topics.keys().cloned().collect();
    let described = settings_of(&admin, &names, expected.patience).await?;
    for (name, answer) in names.iter().zip(described) {
        match (topics.get_mut(name), answer) {
            (Some(topic), Ok(settings)) => {
                let settings = settings.into_iter().map(|(name, setting)| (name, setting.value));
                topic.settings = Some(settings.collect());
            }
            (_, Err(RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed)) => {}
            (_, Err(code)) => tracing::debug!(topic = name, code = %code, "settings of the topic could not be read"),
            (None, Ok(_)) => {}
        }
    }
    Ok(())
}

/// Topics that groups read or write, and that are not listed.
fn unseen(expected: &Expected, topics: &BTreeMap<String, Topic>) -> Vec<String> {
    let groups = &expected.groups;
    let letters = groups.iter().map(|group| crate::dead_letter::topic::name(&group.name));
    let read = groups.iter().flat_map(|group| group.topics.iter().cloned());
    let names: BTreeSet<String> = read
        .chain(letters)
        .filter(|name| !name.starts_with('^') && !topics.contains_key(name))
        .collect();
    names.into_iter().take(ASKED_MAX).collect()
}

/// Which of them may not be described: who may not is told nothing of them, but for the one that is asked for by its name.
async fn denied(broker: &Arc<Broker>, unseen: Vec<String>) -> BTreeSet<String> {
    let broker = Arc::clone(broker);
    let deadline = Instant::now() + TOLD_WITHIN;
    let asked = tokio::task::spawn_blocking(move || {
        let may_not = |name: &String| Instant::now() < deadline && broker.may_not_describe(name);
        unseen.into_iter().filter(may_not).collect()
    });
    asked.await.unwrap_or_default()
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
    found.extend(of_denied(facts, expected));
    if let Some(why) = &facts.unread {
        found.push(codes::TOPICS_UNREAD.found(
            format!("the brokers did not tell the settings of their topics: {why}"),
            Remedy::words("see the log of the brokers, above all of their controller, and ask again"),
        ));
        return found;
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
                "as a superuser of Kafka, with the worker's principal: {}",
                allow(
                    PRINCIPAL,
                    &["DescribeConfigs"],
                    &Resource::Topic(format!("{}.", expected.source), true)
                )
            )),
        ));
    }
    found
}

/// Topics that the principal may not describe, with what a worker needs of each.
fn of_denied(facts: &Facts, expected: &Expected) -> Vec<Finding> {
    let denied = facts.denied.iter().map(|name| {
        let is_read = expected.groups.iter().any(|group| is_subscribed(&group.topics, name));
        let needs = if is_read { READS_TOPIC } else { KEEPS_LETTERS };
        codes::TOPIC_DENIED.found(
            format!("topic {name} may not be described"),
            Remedy::words(format!(
                "as a superuser of Kafka, with the worker's principal: {}",
                allow(PRINCIPAL, needs, &Resource::Topic(name.clone(), false))
            )),
        )
    });
    denied.collect()
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
            ..Facts::default()
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

    #[test]
    fn what_may_not_be_described_is_told_with_the_command_that_allows_it() {
        let facts = Facts {
            denied: ["aw.email.dlq".to_owned(), "aw.public.orders".to_owned()].into(),
            ..Facts::default()
        };
        let found = findings(&facts, None, &expected());
        let told: Vec<(&str, &str)> = found
            .iter()
            .map(|finding| (finding.code.name, finding.remedy.parts().1))
            .collect();
        let ends = [
            "--operation Read --operation Write --operation Create --operation DescribeConfigs --topic 'aw.email.dlq'",
            "--operation Read --operation DescribeConfigs --topic 'aw.public.orders'",
        ];
        assert_eq!(told.len(), 2, "{told:?}");
        for ((code, remedy), end) in told.into_iter().zip(ends) {
            assert!(code == "topic-denied" && remedy.ends_with(end), "{code} {remedy}");
        }
    }

    #[test]
    fn settings_that_were_not_told_are_no_brokers_that_are_away() {
        let hidden = Topic {
            settings: None,
            ..topic(&[])
        };
        let facts = Facts {
            topics: [("aw.public.orders".to_owned(), hidden)].into(),
            unread: Some("timed out".to_owned()),
            ..Facts::default()
        };
        let found = findings(&facts, None, &expected());
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].code.name == "topics-unread" && found[0].what.ends_with("timed out"));
    }
}
