//! Makes topics, adds partitions and changes settings.

use std::collections::BTreeMap;

use rdkafka::admin::{AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;

use super::TopicsFailure;
use super::found::{Found, QUESTION_MAX};
use super::steps::{Planned, Step};
use crate::app::options::broker_options;
use crate::cli::Failure;
use crate::clients::kafka::{Admin, admin, client_config};
use crate::config::Config;

/// Does all steps, each for itself: one that fails stops no other.
///
/// # Errors
/// When one of them failed; the command can be repeated.
pub(super) async fn make(config: &Config, steps: &[Planned], found: &Found) -> Result<(), Failure> {
    let options = broker_options(config);
    let admin = admin(&client_config(&options.brokers, &options.properties)).map_err(Failure::usage)?;
    let mut failed = Vec::new();
    for planned in steps {
        let done = match &planned.step {
            Step::Make {
                topic,
                partitions,
                replicas,
                settings,
            } => make_topic(&admin, topic, *partitions, *replicas, settings).await,
            Step::Add { topic, after, .. } => add_partitions(&admin, topic, *after).await,
            // All settings of a topic are sent at once.
            Step::Set { .. } => continue,
        };
        failed.extend(done.err().map(|why| format!("{}: {why}", planned.step.in_words())));
    }
    for (topic, settings) in settings_by_topic(steps) {
        if let Err(why) = configure(&admin, topic, &settings, found).await {
            let names: Vec<&str> = settings.iter().map(|(name, _)| *name).collect();
            failed.extend(names.iter().map(|name| format!("{topic}: {name}: {why}")));
        }
    }
    match failed.is_empty() {
        true => Ok(()),
        false => Err(Failure::failed(TopicsFailure::Half {
            done: steps.len() - failed.len(),
            all: steps.len(),
            failed,
        })),
    }
}

fn settings_by_topic(steps: &[Planned]) -> BTreeMap<&str, Vec<(&'static str, &str)>> {
    let mut settings: BTreeMap<&str, Vec<(&'static str, &str)>> = BTreeMap::new();
    for planned in steps {
        if let Step::Set {
            topic, setting, after, ..
        } = &planned.step
        {
            settings.entry(topic).or_default().push((setting, after));
        }
    }
    settings
}

fn times() -> AdminOptions {
    AdminOptions::new()
        .operation_timeout(Some(QUESTION_MAX))
        .request_timeout(Some(QUESTION_MAX * 2))
}

/// Why the brokers did not do it.
fn why(code: RDKafkaErrorCode) -> String {
    match code {
        RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed => {
            format!("{code}; `afterwrite topics plan --acls` prints what an operator has to be allowed")
        }
        other => other.to_string(),
    }
}

async fn make_topic(
    admin: &Admin,
    topic: &str,
    partitions: i32,
    replicas: Option<i32>,
    settings: &BTreeMap<&'static str, String>,
) -> Result<(), String> {
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(replicas.unwrap_or(-1)));
    let new = settings.iter().fold(new, |new, (name, value)| new.set(name, value));
    let made = admin.create_topics([&new], &times()).await.map_err(said)?;
    match made.into_iter().next() {
        Some(Err((_, code))) => Err(why(code)),
        _ => Ok(()),
    }
}

async fn add_partitions(admin: &Admin, topic: &str, number: i32) -> Result<(), String> {
    let number = usize::try_from(number).unwrap_or_default();
    let more = NewPartitions::new(topic, number);
    let added = admin.create_partitions([&more], &times()).await;
    match added.map_err(said)?.into_iter().next() {
        Some(Err((_, code))) => Err(why(code)),
        _ => Ok(()),
    }
}

/// Gives a topic settings beside those of its own: the request takes away whatever is not in it.
async fn configure(admin: &Admin, topic: &str, settings: &[(&str, &str)], found: &Found) -> Result<(), String> {
    let own = found.topics.get(topic).and_then(|there| there.settings.as_ref());
    let mut all: BTreeMap<&str, &str> = own
        .into_iter()
        .flatten()
        .filter(|(_, setting)| setting.is_own)
        .map(|(name, setting)| (name.as_str(), setting.value.as_str()))
        .collect();
    all.extend(settings.iter().copied());
    let alter = AlterConfig::new(ResourceSpecifier::Topic(topic));
    let alter = all
        .into_iter()
        .fold(alter, |alter, (name, value)| alter.set(name, value));
    match admin
        .alter_configs([&alter], &times())
        .await
        .map_err(said)?
        .into_iter()
        .next()
    {
        Some(Err((_, code))) => Err(why(code)),
        _ => Ok(()),
    }
}

fn said(error: KafkaError) -> String {
    error.to_string()
}
