//! The dead-letter topics: made and checked by us, never by the broker on the fly.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;

use crate::clients::denied::Denied;
use crate::clients::kafka::{self, Admin, TopicSetting, admin, alter_topic, settings_of};

/// How long the broker may take for one operation.
const OPERATION_MAX: Duration = Duration::from_secs(10);

/// Settings of dead-letter topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// `host:port` of brokers, comma separated.
    pub brokers: String,
    /// Further librdkafka properties, such as those of TLS and SASL.
    pub properties: Vec<(String, String)>,
    /// Partitions of a topic that is made.
    pub partitions: i32,
    /// Replicas of a topic that is made; `None` leaves it to the broker.
    pub replicas: Option<i32>,
    /// How long letters are kept.
    pub retention: Duration,
    /// Largest record, in bytes: the source's largest and room for the headers.
    pub message_bytes_max: usize,
}

/// A dead-letter topic could not be made, or cannot be used as it is.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client or the request failed.
    #[error("dead-letter topic {topic} could not be made")]
    Made {
        /// The topic.
        topic: String,
        /// What librdkafka said.
        #[source]
        source: KafkaError,
    },
    /// The broker refused.
    #[error("dead-letter topic {topic} was refused by the broker: {code}")]
    Refused {
        /// The topic.
        topic: String,
        /// Why.
        code: RDKafkaErrorCode,
    },
    /// It may not be made, or not be seen.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The settings of an existing topic could not be read.
    #[error("settings of dead-letter topic {topic} could not be read")]
    Described {
        /// The topic.
        topic: String,
        /// What librdkafka said.
        #[source]
        source: KafkaError,
    },
    /// The topic exists, and would lose or refuse letters.
    #[error("dead-letter topic {topic} cannot be used: {}", faults.join("; "))]
    Unfit {
        /// The topic.
        topic: String,
        /// Each setting with its value, what it does to letters, and the remedy.
        faults: Vec<String>,
    },
}

impl Error {
    /// Whether waiting cannot mend it.
    pub fn is_permanent(&self) -> bool {
        matches!(self, Self::Unfit { .. })
    }
}

/// What an existing topic does with its records, in the broker's words.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// `cleanup.policy`.
    pub cleanup_policy: Option<String>,
    /// `max.message.bytes`.
    pub message_bytes_max: Option<u64>,
    /// `retention.ms`; `-1` is for ever.
    pub retention_ms: Option<i64>,
}

impl Found {
    /// Out of a topic's settings.
    pub fn of(setting: impl Fn(&str) -> Option<String>) -> Self {
        Self {
            cleanup_policy: setting("cleanup.policy"),
            message_bytes_max: setting("max.message.bytes").and_then(|text| text.parse().ok()),
            retention_ms: setting("retention.ms").and_then(|text| text.parse().ok()),
        }
    }
}

/// What makes a topic lose or refuse letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The setting with its value, and what it does to letters.
    pub what: String,
    /// The command that mends it.
    pub remedy: String,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}: {}", self.what, self.remedy)
    }
}

/// The dead-letter topic of a group.
pub fn name(group: &str) -> String {
    format!("{group}.dlq")
}

/// A client configuration for the dead letters' brokers.
pub fn client_config(options: &Options) -> ClientConfig {
    kafka::client_config(&options.brokers, &options.properties)
}

/// What a broker says of what somebody may not do.
const NOT_ALLOWED: [RDKafkaErrorCode; 2] = [
    RDKafkaErrorCode::TopicAuthorizationFailed,
    RDKafkaErrorCode::ClusterAuthorizationFailed,
];

/// Makes the topic of a group, or checks the one that exists.
///
/// # Errors
/// When the broker does not answer or refuses, and when the existing topic would lose or refuse letters.
pub async fn ensure(options: &Options, topic: &str) -> Result<(), Error> {
    let failed = |source| Error::Made {
        topic: topic.to_owned(),
        source,
    };
    let admin = admin(&client_config(options)).map_err(failed)?;
    let retention = options.retention.as_millis().to_string();
    let bytes = options.message_bytes_max.to_string();
    let replication = TopicReplication::Fixed(options.replicas.unwrap_or(-1));
    let wanted = NewTopic::new(topic, options.partitions, replication)
        .set("cleanup.policy", "delete")
        .set("retention.ms", &retention)
        .set("max.message.bytes", &bytes);
    let times = AdminOptions::new().operation_timeout(Some(OPERATION_MAX));
    for made in admin.create_topics([&wanted], &times).await.map_err(failed)? {
        match made {
            Ok(topic) => tracing::info!(topic, "dead-letter topic made"),
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => match described(&admin, topic).await? {
                Ok(settings) => fit(options, topic, &settings)?,
                Err(code) if NOT_ALLOWED.contains(&code) => {
                    tracing::warn!(topic, code = %code, "settings of the dead-letter topic may not be read: it is used unchecked; allow DescribeConfigs on it");
                }
                Err(code) => {
                    return Err(Error::Described {
                        topic: topic.to_owned(),
                        source: KafkaError::AdminOp(code),
                    });
                }
            },
            // One that may not be made here serves where somebody else made it.
            Err((_, code)) if NOT_ALLOWED.contains(&code) => match described(&admin, topic).await? {
                Ok(settings) => fit(options, topic, &settings)?,
                Err(_) => return Err(Denied::keeping_letters(topic).into()),
            },
            Err((topic, code)) => return Err(Error::Refused { topic, code }),
        }
    }
    Ok(())
}

/// What the brokers say of the topic's settings.
async fn described(
    admin: &Admin,
    topic: &str,
) -> Result<Result<BTreeMap<String, TopicSetting>, RDKafkaErrorCode>, Error> {
    let asked = [topic.to_owned()];
    let mut described = settings_of(admin, &asked, OPERATION_MAX)
        .await
        .map_err(|source| Error::Described {
            topic: topic.to_owned(),
            source,
        })?;
    Ok(described.pop().unwrap_or_else(|| Ok(BTreeMap::new())))
}

/// Refuses a topic that would lose or refuse letters.
fn fit(options: &Options, topic: &str, settings: &BTreeMap<String, TopicSetting>) -> Result<(), Error> {
    let found = Found::of(|name| settings.get(name).map(|setting| setting.value.clone()));
    let retention_ms = i64::try_from(options.retention.as_millis()).unwrap_or(i64::MAX);
    if let Some(kept_ms) = found.retention_ms.filter(|kept| (0..retention_ms).contains(kept)) {
        tracing::warn!(
            topic,
            retention_ms = kept_ms,
            wanted_ms = retention_ms,
            "the dead-letter topic keeps letters for less than dead_letters.retention_ms: older ones cannot be replayed"
        );
    }
    let faults: Vec<String> = faults(options, topic, &found).iter().map(Fault::to_string).collect();
    match faults.is_empty() {
        true => Ok(()),
        false => Err(Error::Unfit {
            topic: topic.to_owned(),
            faults,
        }),
    }
}

/// What makes letters vanish or be refused: each setting with its value, its effect and the remedy. Pure.
pub fn faults(options: &Options, topic: &str, found: &Found) -> Vec<Fault> {
    let compacted = found
        .cleanup_policy
        .as_deref()
        .filter(|policy| policy.contains("compact"));
    let compacted = compacted.map(|policy| Fault {
        what: format!("cleanup.policy is {policy}, and of the letters with one key all but the last would vanish"),
        remedy: alter_topic(topic, "cleanup.policy=delete"),
    });
    let wanted = options.message_bytes_max;
    let small = found.message_bytes_max.filter(|bytes| *bytes < wanted as u64);
    let small = small.map(|bytes| Fault {
        what: format!(
            "max.message.bytes is {bytes}, and letters of up to {wanted} bytes (dead_letters.message_bytes_max) would be refused; raise \
             it, or lower the setting to what the source's topics take and 64 KiB"
        ),
        remedy: alter_topic(topic, &format!("max.message.bytes={wanted}")),
    });
    compacted.into_iter().chain(small).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_that_loses_or_refuses_letters_is_unfit() {
        let options = Options {
            brokers: String::new(),
            properties: Vec::new(),
            partitions: 3,
            replicas: None,
            retention: Duration::from_secs(1),
            message_bytes_max: 100_000,
        };
        for (policy, bytes, settings) in [
            ("delete", 100_000, &[][..]),
            ("delete", 200_000, &[]),
            ("compact", 100_000, &["cleanup.policy is compact"]),
            ("compact,delete", 100_000, &["cleanup.policy is compact,delete"]),
            (
                "compact",
                99_999,
                &["cleanup.policy is compact", "max.message.bytes is 99999"],
            ),
        ] {
            let found = Found {
                cleanup_policy: Some(policy.to_owned()),
                message_bytes_max: Some(bytes),
                retention_ms: None,
            };
            let faults = faults(&options, "g.dlq", &found);
            assert_eq!(faults.len(), settings.len(), "{faults:?}");
            for (fault, setting) in faults.iter().zip(settings) {
                assert!(
                    fault.what.starts_with(setting) && fault.remedy.contains("--entity-name g.dlq"),
                    "{fault}"
                );
            }
        }
        assert_eq!(faults(&options, "g.dlq", &Found::default()), []);
    }
}
