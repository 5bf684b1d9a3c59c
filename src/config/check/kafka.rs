//! The brokers, the groups and their protocols: values that cannot be true, and properties that are not the user's.

use super::{Refusals, is_topic_part};
use crate::config::Config;
use crate::config::kafka::{
    Assignor, CLAIM_WAIT_MS, COMMIT_WAIT_MS, GroupProtocol, Kafka, MAX_POLL_INTERVAL_MS, REVOKE_MARGIN_MS,
};

/// librdkafka properties that this program sets itself, also by their other names: why nobody else may, and what to do.
const OWN_PROPERTIES: [(&str, &str, &str); 26] = [
    ("bootstrap.servers", OURS, "set kafka.brokers instead"),
    ("metadata.broker.list", OURS, "set kafka.brokers instead"),
    ("group.id", OURS, "set kafka.group_prefix instead"),
    (
        "enable.auto.commit",
        "a position is committed when its work is settled, never by the clock",
        UNSET,
    ),
    (
        "enable.auto.offset.store",
        "a position is committed when its work is settled, never on delivery",
        UNSET,
    ),
    (
        "auto.offset.reset",
        "a lost position must stop the partition, never be reset silently",
        UNSET,
    ),
    ("session.timeout.ms", OURS, "set kafka.session_timeout_ms instead"),
    ("heartbeat.interval.ms", OURS, "set kafka.heartbeat_interval_ms instead"),
    (
        "partition.assignment.strategy",
        OURS,
        "set kafka.group_protocol and kafka.assignor instead",
    ),
    ("group.protocol", OURS, "set kafka.group_protocol instead"),
    ("group.protocol.type", OURS, "set kafka.group_protocol instead"),
    ("group.remote.assignor", OURS, "set kafka.assignor instead"),
    ("group.instance.id", OURS, "set kafka.instance_id instead"),
    (
        "topic.metadata.refresh.interval.ms",
        OURS,
        "set kafka.metadata_refresh_ms instead",
    ),
    (
        "statistics.interval.ms",
        "how far a group is behind, and that a client is of no use any more, is seen in its statistics",
        UNSET,
    ),
    (
        "isolation.level",
        "what a transaction wrote that was aborted never happened, and is never read",
        UNSET,
    ),
    (
        "enable.partition.eof",
        "a worker waits for the next record, and ends of partitions tell it nothing",
        UNSET,
    ),
    (
        "allow.auto.create.topics",
        "topics are made by the connector, and those of dead letters by the worker",
        UNSET,
    ),
    ("acks", ALL_REPLICAS, UNSET),
    ("request.required.acks", ALL_REPLICAS, UNSET),
    (
        "enable.idempotence",
        "a letter that is sent again is not written again",
        UNSET,
    ),
    ("delivery.timeout.ms", OURS, "set dead_letters.write_timeout_ms instead"),
    ("message.timeout.ms", OURS, "set dead_letters.write_timeout_ms instead"),
    ("message.max.bytes", OURS, "set dead_letters.message_bytes_max instead"),
    ("linger.ms", AT_ONCE, UNSET),
    ("queue.buffering.max.ms", AT_ONCE, UNSET),
];

const OURS: &str = "there is a setting for it, which would overwrite this property";

const UNSET: &str = "leave it out";

const ALL_REPLICAS: &str = "a job counts as buried when all in-sync replicas have its letter";

/// What the brokers decide under protocol `consumer`.
const OF_BROKERS: [&str; 3] = [
    "session.timeout.ms",
    "heartbeat.interval.ms",
    "partition.assignment.strategy",
];

const BROKERS_AFFAIR: &str = "it is the brokers' affair under kafka.group_protocol = \"consumer\"";

const AT_ONCE: &str = "the lane of a letter waits for it, so it is written at once";

/// Refuses what cannot be true of `[kafka]`.
pub(super) fn check(config: &Config, refusals: &mut Refusals) {
    let kafka = &config.kafka;
    for (index, broker) in (1..).zip(kafka.brokers.split(',')) {
        let port = broker
            .trim()
            .rsplit_once(':')
            .map(|(host, port)| (host, port.parse::<u16>()));
        let holds = matches!(port, Some((host, Ok(port))) if !host.is_empty() && port > 0);
        refusals.unless(
            holds,
            "kafka.brokers",
            format!("broker {index} is not host:port"),
            "write them like a:9092,b:9092",
        );
    }
    check_protocol(kafka, refusals);
    for (name, why, remedy) in OWN_PROPERTIES {
        let is_brokers = kafka.group_protocol == GroupProtocol::Consumer && OF_BROKERS.contains(&name);
        let (reason, remedy) = match is_brokers {
            true => (BROKERS_AFFAIR, UNSET),
            false => (why, remedy),
        };
        let is_set = kafka.properties.0.contains_key(name);
        refusals.unless(!is_set, format!("kafka.properties.{name}"), reason, remedy);
    }
    check_silence(config, refusals);
    check_topics(config, "kafka.topics", &kafka.topics, refusals);
    for (name, group) in &config.groups {
        let own = group.topics.as_deref().unwrap_or_default();
        check_topics(config, &format!("groups.{name}.topics"), own, refusals);
    }
}

/// Topics and patterns. The brokers match whole names (protocol `consumer`), the client library looks for the pattern
/// anywhere in them (the others): only a pattern with both ends means the same to both.
fn check_topics(config: &Config, setting: &str, topics: &[String], refusals: &mut Refusals) {
    for (index, topic) in (1..).zip(topics) {
        if !topic.starts_with('^') {
            refusals.unless(
                is_topic_part(topic),
                setting,
                format!("entry {index} is no name of a topic"),
                "write a name, or a pattern that begins with ^ and ends with $",
            );
            continue;
        }
        refusals.unless(
            topic.ends_with('$'),
            setting,
            format!("pattern {index} does not end with $: what may follow it would depend on kafka.group_protocol"),
            "end it with $, or with .*$",
        );
        let letters = topic.split('\\').skip(1).filter_map(|rest| rest.chars().next());
        let is_portable = !topic.contains("(?") && !letters.into_iter().any(char::is_alphanumeric);
        refusals.unless(
            is_portable,
            setting,
            format!("pattern {index} uses an extension that not every broker and client has"),
            "write [0-9] for \\d, and so on",
        );
        match regex_lite::Regex::new(topic) {
            Err(_) => refusals.unless(
                false,
                setting,
                format!("pattern {index} is no regular expression"),
                "look for a bracket that is not closed, and for ? or * that follow nothing",
            ),
            Ok(pattern) => refusals.unless(
                !pattern.is_match(&format!("{}.x.dlq", config.kafka.group_prefix)),
                setting,
                format!("pattern {index} covers dead-letter topics: what was buried would come back without end"),
                "begin it with what the source's topics begin with",
            ),
        }
    }
}

/// What a protocol leaves to its members, and what it does not.
fn check_protocol(kafka: &Kafka, refusals: &mut Refusals) {
    if kafka.group_protocol == GroupProtocol::Consumer {
        for (setting, set, of_brokers) in [
            (
                "kafka.session_timeout_ms",
                kafka.session_timeout_ms,
                "group.consumer.session.timeout.ms",
            ),
            (
                "kafka.heartbeat_interval_ms",
                kafka.heartbeat_interval_ms,
                "group.consumer.heartbeat.interval.ms",
            ),
        ] {
            let remedy = format!("leave it out, and set {of_brokers} there");
            refusals.unless(set.is_none(), setting, BROKERS_AFFAIR, remedy);
        }
    } else {
        let setting = match kafka.session_timeout_ms {
            None => "kafka.heartbeat_interval_ms",
            Some(_) => "kafka.session_timeout_ms",
        };
        refusals.unless(
            kafka.session_timeout() >= 3 * kafka.heartbeat_interval(),
            setting,
            format!(
                "a session (kafka.session_timeout_ms, {} ms) is shorter than three heartbeats (kafka.heartbeat_interval_ms, \
                 {} ms): one lost heartbeat would cost the partitions",
                kafka.session_timeout().as_millis(),
                kafka.heartbeat_interval().as_millis()
            ),
            "lengthen the one, or shorten the other",
        );
    }
    let allowed: &[Assignor] = match kafka.group_protocol {
        GroupProtocol::CooperativeSticky => &[],
        GroupProtocol::Eager => &[Assignor::Range, Assignor::RoundRobin],
        GroupProtocol::Consumer => &[Assignor::Range, Assignor::Uniform],
    };
    refusals.unless(
        kafka.assignor.is_none_or(|assignor| allowed.contains(&assignor)),
        "kafka.assignor",
        "this kafka.group_protocol does not have it",
        "leave it out: eager has range and roundrobin, consumer has range and uniform, cooperative-sticky is one itself",
    );
    refusals.unless(
        kafka.instance_id.as_deref().is_none_or(is_topic_part),
        "kafka.instance_id",
        "it could not be part of a member's name",
        "write letters, digits, dot, underscore and hyphen only, 100 at most",
    );
}

/// A consumer that does not poll for `max.poll.interval.ms` is taken for dead and loses all its partitions, so whatever keeps
/// the poll thread busy in one rebalance has to be shorter.
fn check_silence(config: &Config, refusals: &mut Refusals) {
    const NAME: &str = "max.poll.interval.ms";
    let own = config.kafka.properties.0.get(NAME);
    let limit = match own.map(|value| value.expose().parse::<u64>()) {
        None => MAX_POLL_INTERVAL_MS,
        Some(Ok(limit)) => limit,
        Some(Err(_)) => {
            let setting = format!("kafka.properties.{NAME}");
            refusals.unless(false, setting, "this is not a number", "write milliseconds");
            return;
        }
    };
    let grace = config.engine.revoke_grace_ms;
    let fixed = REVOKE_MARGIN_MS + COMMIT_WAIT_MS + CLAIM_WAIT_MS;
    let (setting, remedy) = match own {
        Some(_) => (
            format!("kafka.properties.{NAME}"),
            "lengthen it, or shorten engine.revoke_grace_ms",
        ),
        None => (
            "engine.revoke_grace_ms".to_owned(),
            "shorten it, or lengthen kafka.properties.\"max.poll.interval.ms\"",
        ),
    };
    refusals.unless(
        grace.saturating_add(fixed) < limit,
        setting,
        format!(
            "a rebalance may keep a consumer from polling for {} ms (engine.revoke_grace_ms {grace}, the engine's answer \
             {REVOKE_MARGIN_MS}, the commit {COMMIT_WAIT_MS}, claims {CLAIM_WAIT_MS}), and after {limit} ms ({NAME}) it \
             would be taken for dead and lose all its partitions",
            grace.saturating_add(fixed)
        ),
        remedy,
    );
}
