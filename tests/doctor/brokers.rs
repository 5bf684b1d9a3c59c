//! Topics, as Kafka's own tools change them: what the remedies call, and what breaks them.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, ConfigSource, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};

use crate::installation::{Installation, address};
use crate::patience::until;

fn admin() -> AdminClient<DefaultClientContext> {
    ClientConfig::new()
        .set("bootstrap.servers", address("KAFKA_BROKERS"))
        .create()
        .unwrap()
}

fn producer() -> FutureProducer {
    ClientConfig::new()
        .set("bootstrap.servers", address("KAFKA_BROKERS"))
        .create()
        .unwrap()
}

/// Gives a topic one more setting of its own, as `kafka-configs.sh --alter --add-config` does; answers when the broker tells it.
pub(crate) async fn configure(topic: &str, setting: &str, value: &str) {
    let mut settings = settings_of(topic).await;
    settings.insert(setting.to_owned(), value.to_owned());
    let change = AlterConfig::new(ResourceSpecifier::Topic(topic));
    let change = settings
        .iter()
        .fold(change, |change, (name, value)| change.set(name, value));
    for altered in admin().alter_configs([&change], &AdminOptions::new()).await.unwrap() {
        altered.unwrap();
    }
    // The next change begins with what is told then, and would take this one back.
    until(
        &format!("{topic} to have {setting}"),
        Duration::from_secs(30),
        async || (settings_of(topic).await.get(setting).map(String::as_str) == Some(value)).then_some(()),
    )
    .await;
}

/// The settings that a topic has of its own.
async fn settings_of(topic: &str) -> BTreeMap<String, String> {
    let asked = [ResourceSpecifier::Topic(topic)];
    let described = admin().describe_configs(&asked, &AdminOptions::new()).await;
    let described = described.unwrap().pop().unwrap().unwrap();
    let own = described
        .entries
        .into_iter()
        .filter(|entry| entry.source == ConfigSource::DynamicTopic);
    own.filter_map(|entry| Some((entry.name, entry.value?))).collect()
}

/// Makes a topic.
pub(crate) async fn make(topic: &str, partitions: i32, settings: &[(String, String)]) {
    let wanted = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    let wanted = settings
        .iter()
        .fold(wanted, |wanted, (name, value)| wanted.set(name, value));
    for made in admin().create_topics([&wanted], &AdminOptions::new()).await.unwrap() {
        made.unwrap();
    }
}

/// Writes another setting of a connector where Kafka Connect keeps it, as a version or a cluster would have left it that took what
/// this one refuses.
pub(crate) async fn smuggle(installation: &Installation, key: &str, value: &str) {
    let config = reqwest::get(installation.connector_url("/config")).await.unwrap();
    let mut config: serde_json::Value = config.json().await.unwrap();
    config[key] = value.into();
    let kept = serde_json::json!({"properties": config}).to_string();
    let name = format!("connector-{}", installation.name);
    let record = FutureRecord::to("afterwrite-connect-configs").key(&name).payload(&kept);
    producer().send(record, Duration::from_secs(10)).await.unwrap();
}

/// Writes a record with the magic byte and the id of a schema before its body; without an id as with one that is in the headers.
pub(crate) async fn write(topic: &str, id: Option<i32>) {
    let value = match id {
        Some(id) => [&[0_u8][..], &id.to_be_bytes(), &[2]].concat(),
        None => vec![2, 2],
    };
    let headers = OwnedHeaders::new_with_capacity(1);
    let header = Header {
        key: "apicurio.value.globalId",
        value: Some(&[0_u8, 0, 0, 0, 0, 0, 0, 7][..]),
    };
    let headers = match id {
        Some(_) => headers,
        None => headers.insert(header),
    };
    let record: FutureRecord<'_, [u8], [u8]> = FutureRecord::to(topic).payload(&value[..]).headers(headers);
    producer().send(record, Duration::from_secs(10)).await.unwrap();
}

/// Deletes a topic with what it holds.
pub(crate) async fn delete(topic: &str) {
    for deleted in admin().delete_topics(&[topic], &AdminOptions::new()).await.unwrap() {
        deleted.unwrap();
    }
}

/// Deletes a group with its positions.
pub(crate) async fn forget_group(group: &str) {
    for deleted in admin().delete_groups(&[group], &AdminOptions::new()).await.unwrap() {
        deleted.unwrap();
    }
}

/// Does what a command of Kafka's tools says. They are scripts of its distribution, which the stack does without.
pub(crate) async fn obey(command: &str) {
    let words: Vec<&str> = command.split_whitespace().collect();
    let after = |option: &str| {
        words
            .iter()
            .position(|word| *word == option)
            .map(|place| words[place + 1])
    };
    let (tool, topic) = (words[0], after("--topic").or(after("--entity-name")).unwrap());
    assert_eq!(after("--bootstrap-server"), Some("\"$KAFKA_BROKERS\""), "{command}");
    let partitions = || after("--partitions").unwrap().parse::<i32>().unwrap();
    match (tool, words.contains(&"--create")) {
        ("kafka-configs.sh", _) => {
            let (setting, value) = after("--add-config").unwrap().split_once('=').unwrap();
            configure(topic, setting, value).await;
        }
        ("kafka-topics.sh", true) => {
            let settings = words.windows(2).filter(|pair| pair[0] == "--config");
            let settings: Vec<(String, String)> = settings
                .map(|pair| {
                    pair[1]
                        .split_once('=')
                        .map(|(name, value)| (name.to_owned(), value.to_owned()))
                        .unwrap()
                })
                .collect();
            make(topic, partitions(), &settings).await;
        }
        ("kafka-topics.sh", false) => {
            let wanted = NewPartitions::new(topic, partitions().unsigned_abs() as usize);
            for grown in admin()
                .create_partitions([&wanted], &AdminOptions::new())
                .await
                .unwrap()
            {
                grown.unwrap();
            }
        }
        other => panic!("{other:?} is no tool of Kafka"),
    }
}
