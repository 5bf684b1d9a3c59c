//! What the brokers have of the topics that are wanted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rdkafka::error::KafkaError;

use super::wanted::Wanted;
use crate::app::options::broker_options;
use crate::cli::Failure;
use crate::cli::brokers::Brokers;
use crate::clients::kafka::{TopicSetting, admin, client_config, is_away, settings_of};
use crate::config::Config;

/// How long the brokers may take to tell settings.
pub(super) const QUESTION_MAX: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
#[error("the settings of topics could not be read")]
struct Unread(#[source] KafkaError);

/// A topic that is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct There {
    pub(super) partitions: i32,
    /// Of the partition that has fewest.
    pub(super) replicas: i32,
    /// `None`: they may not be read.
    pub(super) settings: Option<BTreeMap<String, TopicSetting>>,
}

impl There {
    pub(super) fn setting(&self, name: &str) -> Option<&str> {
        Some(self.settings.as_ref()?.get(name)?.value.as_str())
    }
}

/// The topics that are there, of those that are wanted.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) topics: BTreeMap<String, There>,
    /// Topics that may not be described, and so seem not to be there.
    pub(super) denied: BTreeSet<String>,
}

impl Found {
    pub(super) async fn ask(config: &Config, wanted: &Wanted) -> Result<Self, Failure> {
        let names: Vec<String> = wanted.topics.iter().map(|topic| topic.name.clone()).collect();
        let brokers = Brokers::connect(config).await?;
        let layout = brokers.ask(move |broker| {
            let there = broker
                .layout()
                .filter(|(name, ..)| names.iter().any(|wanted| wanted == name));
            let there = there.map(|(name, partitions, replicas)| {
                let there = There {
                    partitions,
                    replicas,
                    settings: None,
                };
                (name.to_owned(), there)
            });
            let there: BTreeMap<String, There> = there.collect();
            let unseen = names.iter().filter(|name| !there.contains_key(*name));
            let denied: BTreeSet<String> = unseen.filter(|name| broker.may_not_describe(name)).cloned().collect();
            Ok((there, denied))
        });
        let (mut topics, denied) = layout.await?;
        let options = broker_options(config);
        let admin = admin(&client_config(&options.brokers, &options.properties)).map_err(Failure::usage)?;
        let names: Vec<String> = topics.keys().cloned().collect();
        let told = settings_of(&admin, &names, QUESTION_MAX).await.map_err(unread)?;
        for (there, told) in topics.values_mut().zip(told) {
            there.settings = told.ok();
        }
        Ok(Self { topics, denied })
    }

    /// Topics whose settings may not be read.
    pub(super) fn unread(&self) -> Vec<String> {
        let unread = self.topics.iter().filter(|(_, there)| there.settings.is_none());
        unread.map(|(name, _)| name.clone()).collect()
    }
}

fn unread(error: KafkaError) -> Failure {
    match is_away(&error) {
        true => Failure::unreachable(Unread(error)),
        false => Failure::failed(Unread(error)),
    }
}
