//! The source against the client library's own mock of a cluster, which answers a request with an error when it is told to.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::*;
use crate::decode::options::Options as DecodeOptions;
use crate::event::delivery::{Position, Settled};

const GROUP: &str = "g";
const TOPIC: &str = "t";

/// A group that reads one topic.
pub(super) fn options(brokers: &str) -> Options {
    Options {
        brokers: brokers.to_owned(),
        group: GROUP.to_owned(),
        wanted: Tables::all(),
        topics: vec![TOPIC.to_owned()],
        start: Start::Earliest,
        properties: Vec::new(),
        membership: Membership::default(),
        budgets: Budgets {
            revoke: Duration::from_secs(1),
            commit: Duration::from_secs(1),
            claim: Duration::from_secs(10),
        },
        events_behind: Arc::default(),
    }
}

fn committed(brokers: &str) -> Option<i64> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("group.id", GROUP);
    let consumer: BaseConsumer = config.create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition(TOPIC, 0);
    let answer = consumer.committed_offsets(list, Duration::from_secs(5)).ok()?;
    match answer.find_partition(TOPIC, 0)?.offset() {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_a_rebalance_swallows_is_sent_again() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic(TOPIC, 1, 1).unwrap();
    let brokers = cluster.bootstrap_servers();
    let producer: FutureProducer = ClientConfig::new().set("bootstrap.servers", &brokers).create().unwrap();
    let record = FutureRecord::to(TOPIC).key("k").payload("v");
    producer.send(record, Duration::from_secs(10)).await.unwrap();
    let options = options(&brokers);
    let kept = Kept {
        claims: Claims::in_memory(GROUP),
        beginnings: Beginnings::in_memory(),
    };
    let (commands, orders) = std::sync::mpsc::channel();
    let (events, mut arriving) = mpsc::channel(UNHEARD_MAX);
    let (_stop, stopping) = watch::channel(false);
    let decoder = Arc::new(Decoder::new(DecodeOptions::default()));
    let running = start(options, kept, decoder, None, orders, events, stopping).unwrap();
    let settled = loop {
        if let SourceEvent::Delivered { epoch, delivery } = arriving.recv().await.expect("the source lives") {
            let partition = delivery.partition;
            let position = Position(delivery.position.0 + 1);
            break Settled {
                partition,
                epoch,
                position,
            };
        }
    };

    let refusal = RDKafkaRespErr::RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS;
    cluster.request_errors(RDKafkaApiKey::OffsetCommit, &[refusal]);
    commands.send(SourceCommand::Commit(vec![settled])).unwrap();
    let mut look = tokio::time::interval(Duration::from_millis(200));
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        look.tick().await;
        let brokers = brokers.clone();
        let committed = tokio::task::spawn_blocking(move || committed(&brokers)).await.unwrap();
        if committed == Some(1) {
            break;
        }
        assert!(Instant::now() < deadline, "committed: {committed:?}");
    }
    commands.send(SourceCommand::Leave(Vec::new())).unwrap();
    arriving.close();
    running.ended().await;
}
