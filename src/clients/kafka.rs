//! What is asked of a broker in more than one place, and what may be said of its client's errors.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, ConfigSource, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use tokio::time::Instant;

/// Longest time for one question to the broker.
pub(crate) const QUESTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause before a partition that has no leader is asked again.
const LEADER_PAUSE: Duration = Duration::from_millis(100);

/// Topics whose settings are asked for at once at most.
const DESCRIBED_AT_ONCE: usize = 500;

/// A client that makes topics, and reads and changes their settings.
pub(crate) type Admin = AdminClient<DefaultClientContext>;

/// What each client is told: where brokers are, and how to get in.
pub(crate) fn client_config(brokers: &str, properties: &[(String, String)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    for (name, value) in properties {
        config.set(name, value);
    }
    trust_the_machine(&mut config);
    config
}

/// Tells a client whose authorities it trusts where nobody named any. OpenSSL of a system knows where that system has them; the
/// one that is linked into the static program runs on any.
pub(crate) fn trust_the_machine(config: &mut ClientConfig) {
    if cfg!(target_env = "musl") {
        let named = std::env::var("SSL_CERT_FILE").ok();
        trust(config, named.filter(|file| Path::new(file).is_file()));
    }
}

/// This file, as OpenSSL has it and rustls too, or the first of the places that systems have; brokers and endpoints of tokens are
/// two settings of librdkafka.
fn trust(config: &mut ClientConfig, named: Option<String>) {
    let place = named.unwrap_or_else(|| "probe".to_owned());
    for shown_by in ["ssl", "https"] {
        let is_named = ["location", "pem"].map(|form| config.get(&format!("{shown_by}.ca.{form}")).is_some());
        if is_named == [false, false] {
            config.set(format!("{shown_by}.ca.location"), &place);
        }
    }
}

/// A client for topics and their settings.
///
/// # Errors
/// When a property is refused; its value is not in the error.
pub(crate) fn admin(config: &ClientConfig) -> KafkaResult<Admin> {
    config.create().map_err(hide_value)
}

/// A setting of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TopicSetting {
    pub(crate) value: String,
    /// Whether the topic itself has it, and does not take it from its brokers.
    pub(crate) is_own: bool,
}

/// Of each topic what the brokers say of its settings: in the order of `topics`.
///
/// # Errors
/// When no answer comes in time. A topic whose settings are refused has its own code.
pub(crate) async fn settings_of(
    admin: &Admin,
    topics: &[String],
    within: Duration,
) -> KafkaResult<Vec<Result<BTreeMap<String, TopicSetting>, RDKafkaErrorCode>>> {
    let times = AdminOptions::new().request_timeout(Some(within));
    let mut settings = Vec::with_capacity(topics.len());
    for names in topics.chunks(DESCRIBED_AT_ONCE) {
        let asked: Vec<ResourceSpecifier<'_>> = names.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
        for described in admin.describe_configs(&asked, &times).await? {
            settings.push(described.map(|described| {
                let entries = described.entries.into_iter().filter_map(|entry| {
                    let is_own = entry.source == ConfigSource::DynamicTopic;
                    let value = entry.value?;
                    Some((entry.name, TopicSetting { value, is_own }))
                });
                entries.collect()
            }));
        }
    }
    Ok(settings)
}

/// The first offset of a partition and the one after its last. A partition whose leader is being chosen, as in the moments
/// after its topic was made, is asked again. Blocks for at most [`QUESTION_TIMEOUT`].
///
/// # Errors
/// When the broker does not answer, or refuses.
pub(crate) fn bounds<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partition: i32,
) -> KafkaResult<(i64, i64)> {
    let deadline = Instant::now() + QUESTION_TIMEOUT;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match consumer.fetch_watermarks(topic, partition, left) {
            Err(error) if is_between_leaders(&error) && left > LEADER_PAUSE => {
                tracing::debug!(topic, partition, "waiting for the partition's leader");
                std::thread::park_timeout(LEADER_PAUSE);
            }
            answer => return answer,
        }
    }
}

/// The offset of each partition at one place: [`Offset::Beginning`], [`Offset::End`], or the first record whose timestamp is
/// not before `Offset::Offset(milliseconds)`, and the end where there is none. One request a broker, for all partitions, and at
/// most `within` altogether.
///
/// # Errors
/// When a broker does not answer in time, or refuses the question about one of the partitions.
pub(crate) fn offsets_at<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    partitions: &[(&str, i32)],
    at: Offset,
    within: Duration,
) -> KafkaResult<Vec<(String, i32, i64)>> {
    let mut list = TopicPartitionList::new();
    for (topic, partition) in partitions {
        list.add_partition_offset(topic, *partition, at)?;
    }
    if list.count() == 0 {
        return Ok(Vec::new());
    }
    let deadline = Instant::now() + within;
    let left = || deadline.saturating_duration_since(Instant::now());
    let found = consumer.offsets_for_times(list, left())?;
    let mut offsets = Vec::with_capacity(found.count());
    let mut at_end = Vec::new();
    for element in found.elements() {
        element.error()?;
        match element.offset() {
            Offset::Offset(offset) => offsets.push((element.topic().to_owned(), element.partition(), offset)),
            // All records are older.
            _ if at != Offset::End => at_end.push((element.topic().to_owned(), element.partition())),
            other => {
                tracing::debug!(
                    topic = element.topic(),
                    partition = element.partition(),
                    ?other,
                    "no end was told"
                );
            }
        }
    }
    let at_end: Vec<(&str, i32)> = at_end
        .iter()
        .map(|(topic, partition)| (topic.as_str(), *partition))
        .collect();
    offsets.extend(offsets_at(consumer, &at_end, Offset::End, left())?);
    Ok(offsets)
}

/// Whether the broker that was asked is not the partition's leader yet, or not any more.
pub(crate) fn is_between_leaders(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::NotLeaderForPartition | RDKafkaErrorCode::LeaderNotAvailable)
    )
}

/// Whether the broker was away: asking again later may help.
pub(crate) fn is_away(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::Resolve
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::RequestTimedOut
                | RDKafkaErrorCode::CoordinatorNotAvailable
                | RDKafkaErrorCode::WaitingForCoordinator
        )
    )
}

/// The command that gives a topic a setting, for people.
pub(crate) fn alter_topic(topic: &str, setting: &str) -> String {
    format!(
        "kafka-configs.sh --bootstrap-server \"$KAFKA_BROKERS\" --alter --entity-type topics --entity-name {topic} --add-config {setting}"
    )
}

/// What an access control list speaks of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Resource {
    /// A topic, or with `true` all whose names begin so.
    Topic(String, bool),
    /// A group.
    Group(String),
    /// Transactional ids that begin so.
    Transactions(String),
}

impl Resource {
    fn words(&self) -> String {
        let quoted = |name: &str| format!("'{}'", name.replace('\'', r"'\''"));
        match self {
            Self::Topic(name, false) => format!("--topic {}", quoted(name)),
            Self::Topic(name, true) => format!("--topic {} --resource-pattern-type prefixed", quoted(name)),
            Self::Group(name) => format!("--group {}", quoted(name)),
            Self::Transactions(name) => format!("--transactional-id {} --resource-pattern-type prefixed", quoted(name)),
        }
    }
}

/// The command that lets a principal do something, for people.
pub(crate) fn allow(principal: &str, operations: &[&str], resource: &Resource) -> String {
    let operations: Vec<String> = operations
        .iter()
        .map(|operation| format!("--operation {operation}"))
        .collect();
    format!(
        "kafka-acls.sh --bootstrap-server \"$KAFKA_BROKERS\" --add --allow-principal '{principal}' {} {}",
        operations.join(" "),
        resource.words()
    )
}

/// What a worker does with a topic that a group reads: reading it, and comparing its retention with where it stands.
pub(crate) const READS_TOPIC: &[&str] = &["Read", "DescribeConfigs"];

/// What it does with a group.
pub(crate) const RUNS_GROUP: &[&str] = &["Read"];

/// What it does with a topic of dead letters, which it makes where it is missing.
pub(crate) const KEEPS_LETTERS: &[&str] = &["Read", "Write", "Create", "DescribeConfigs"];

/// The error without the value of the property that was refused: it may be a password under a mistyped name.
pub(crate) fn hide_value(error: KafkaError) -> KafkaError {
    match error {
        KafkaError::ClientConfig(result, description, name, _) => {
            KafkaError::ClientConfig(result, description, name, "(hidden)".to_owned())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_partition_between_two_leaders_is_asked_again() {
        for (code, expected) in [
            (RDKafkaErrorCode::NotLeaderForPartition, true),
            (RDKafkaErrorCode::LeaderNotAvailable, true),
            (RDKafkaErrorCode::UnknownTopicOrPartition, false),
            (RDKafkaErrorCode::TopicAuthorizationFailed, false),
        ] {
            assert_eq!(is_between_leaders(&KafkaError::MetadataFetch(code)), expected, "{code}");
        }
    }

    #[test]
    fn a_broker_that_is_away_is_told_from_one_that_refuses() {
        for (code, expected) in [
            (RDKafkaErrorCode::BrokerTransportFailure, true),
            (RDKafkaErrorCode::OperationTimedOut, true),
            (RDKafkaErrorCode::GroupAuthorizationFailed, false),
        ] {
            assert_eq!(is_away(&KafkaError::MetadataFetch(code)), expected, "{code}");
        }
    }

    #[test]
    fn a_right_is_given_by_one_command() {
        let topic = |is_prefix| Resource::Topic("a.b".to_owned(), is_prefix);
        let begins = "kafka-acls.sh --bootstrap-server \"$KAFKA_BROKERS\" --add --allow-principal 'User:me'";
        for (operations, resource, ends) in [
            (
                READS_TOPIC,
                topic(false),
                "--operation Read --operation DescribeConfigs --topic 'a.b'",
            ),
            (
                &["Write"],
                topic(true),
                "--operation Write --topic 'a.b' --resource-pattern-type prefixed",
            ),
            (
                RUNS_GROUP,
                Resource::Group("g".to_owned()),
                "--operation Read --group 'g'",
            ),
            (
                &["Write"],
                Resource::Transactions("t".to_owned()),
                "--operation Write --transactional-id 't' --resource-pattern-type prefixed",
            ),
        ] {
            assert_eq!(allow("User:me", operations, &resource), format!("{begins} {ends}"));
        }
    }

    #[test]
    fn authorities_that_somebody_named_stay_and_others_are_those_of_the_machine() {
        let told = |properties: &[(&str, &str)], named: Option<&str>| {
            let mut config = ClientConfig::new();
            for (name, value) in properties {
                config.set(*name, *value);
            }
            trust(&mut config, named.map(str::to_owned));
            let made: KafkaResult<BaseConsumer> = config.create();
            assert!(made.is_ok(), "{properties:?}: {:?}", made.err());
            ["ssl", "https"].map(|by| config.get(&format!("{by}.ca.location")).map(str::to_owned))
        };
        let both = |ssl: &str, https: &str| [ssl, https].map(|place| Some(place.to_owned()));
        assert_eq!(told(&[], None), both("probe", "probe"));
        assert_eq!(told(&[], Some("/dev/null")), both("/dev/null", "/dev/null"));
        assert_eq!(
            told(&[("ssl.ca.location", "/dev/zero")], Some("/dev/null")),
            both("/dev/zero", "/dev/null")
        );
        assert_eq!(
            told(&[("https.ca.location", "/dev/full")], None),
            both("probe", "/dev/full")
        );
        let [ssl, https] = told(&[("https.ca.pem", "-----BEGIN CERTIFICATE-----")], None);
        assert_eq!((ssl.as_deref(), https), (Some("probe"), None));
    }

    #[test]
    fn a_refused_property_is_named_without_its_value() {
        let made: KafkaResult<BaseConsumer> = ClientConfig::new().set("sasl.pasword", "hunter2").create();
        let said = hide_value(made.map(|_| ()).unwrap_err()).to_string();
        assert!(said.contains("sasl.pasword") && !said.contains("hunter2"), "{said}");
    }
}
