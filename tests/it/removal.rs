//! Deletes a test's topics from the broker: each that stays makes every later start of the broker longer.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::types::RDKafkaErrorCode;

/// Within which the broker has to answer.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// Deletes each topic in whose name `test` stands, which no other test's has.
pub(crate) async fn of_topics(brokers: &str, test: &str) {
    assert!(!test.is_empty(), "every topic would be deleted");
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    let admin: AdminClient<DefaultClientContext> = config.create().unwrap();
    let metadata = admin.inner().fetch_metadata(None, ANSWER_MAX).unwrap();
    let names = metadata.topics().iter().map(|topic| topic.name());
    let ours: Vec<&str> = names.filter(|name| name.contains(test)).collect();
    if ours.is_empty() {
        return;
    }
    let options = AdminOptions::new().operation_timeout(Some(ANSWER_MAX));
    for deleted in admin.delete_topics(&ours, &options).await.unwrap() {
        match deleted {
            // Or the test itself has deleted it just now.
            Ok(_) | Err((_, RDKafkaErrorCode::UnknownTopicOrPartition)) => {}
            Err((topic, code)) => panic!("{topic} could not be deleted: {code}"),
        }
    }
}
