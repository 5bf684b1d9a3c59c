//! The brokers, the groups and their protocols: values that cannot be true, and properties that are not the user's.

use super::{Refusals, is_topic_part};
use crate::config::Config;
use crate::config::kafka::{
    Assignor, CLAIM_WAIT_MS, COMMIT_WAIT_MS, GroupProtocol, Kafka, MAX_POLL_INTERVAL_MS, REVOKE_MARGIN_MS,
};

/// librdkafka properties that this program sets itself, also by their other names, and why nobody else may.
const OWN_PROPERTIES: [(&str, &str); 25] = [
    ("bootstrap.servers", "set kafka.brokers instead"),
    ("metadata.broker.list", "set kafka.brokers instead"),
    ("group.id", "set kafka.group_prefix instead"),
    (
        "enable.auto.commit",
        "a position is committed when its work is settled, never by the clock",
    ),
    (
        "enable.auto.offset.store",
        "a position is committed when its work is settled, never on delivery",
    ),
    (
        "auto.offset.reset",
        "a lost position must stop the partition, never be reset silently",
    ),
    ("session.timeout.ms", "set kafka.session_timeout_ms instead"),
    ("heartbeat.interval.ms", "set kafka.heartbeat_interval_ms instead"),
    (
        "partition.assignment.strategy",
        "set kafka.group_protocol and kafka.assignor instead",
    ),
    ("group.protocol", "set kafka.group_protocol instead"),
    ("group.protocol.type", "set kafka.group_protocol instead"),
    ("group.remote.assignor", "set kafka.assignor instead"),
    ("group.instance.id", "set kafka.instance_id instead"),
    (
        "topic.metadata.refresh.interval.ms",
        "set kafka.metadata_refresh_ms instead",
    ),
    (
        "isolation.level",
        "what a transaction wrote that was aborted never happened, and is never read",
    ),
    (
        "enable.partition.eof",
        "a worker waits for the next record, and ends of partitions tell it nothing",
    ),
    (
        "allow.auto.create.topics",
        "topics are made by the connector, and those of dead letters by the worker",
    ),
    ("acks", ALL_REPLICAS),
    ("request.required.acks", ALL_REPLICAS),
    ("enable.idempotence", "a letter that is sent again is not written again"),
    ("delivery.timeout.ms", "set dead_letters.write_timeout_ms instead"),
    ("message.timeout.ms", "set dead_letters.write_timeout_ms instead"),
    ("message.max.bytes", "set dead_letters.message_bytes_max instead"),
    ("linger.ms", AT_ONCE),
    ("queue.buffering.max.ms", AT_ONCE),
];

const ALL_REPLICAS: &str = "a job counts as buried when all in-sync replicas have its letter";

/// What the brokers decide under protocol `consumer`.
const OF_BROKERS: [&str; 3] = [
    "session.timeout.ms",
    "heartbeat.interval.ms",
    "partition.assignment.strategy",
];

const BROKERS_AFFAIR: &str = "it is the brokers' affair under kafka.group_protocol = \"consumer\": unset it";

const AT_ONCE: &str = "the lane of a letter waits for it, so it is written at once";

/// New partitions must be found before a user starts to wonder.
const METADATA_REFRESH_MS_MAX: u32 = 5_000;

/// Refuses what cannot be true of `[kafka]`.
pub(super) fn check(config: &Config, refusals: &mut Refusals) {
    let kafka = &config.kafka;
    for broker in kafka.brokers.split(',') {
        let port = broker
            .trim()
            .rsplit_once(':')
            .map(|(host, port)| (host, port.parse::<u16>()));
        let holds = matches!(port, Some((host, Ok(port))) if !host.is_empty() && port > 0);
        refusals.unless(
            holds,
            "kafka.brokers",
            format!("{:?} is not written host:port", broker.trim()),
        );
    }
    check_protocol(kafka, refusals);
    refusals.unless(
        (100..=METADATA_REFRESH_MS_MAX).contains(&kafka.metadata_refresh_ms),
        "kafka.metadata_refresh_ms",
        format!("it must lie between 100 and {METADATA_REFRESH_MS_MAX}"),
    );
    for (name, why) in OWN_PROPERTIES {
        let is_brokers = kafka.group_protocol == GroupProtocol::Consumer && OF_BROKERS.contains(&name);
        refusals.unless(
            !kafka.properties.0.contains_key(name),
            format!("kafka.properties.{name}"),
            if is_brokers { BROKERS_AFFAIR } else { why },
        );
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
fn check_topics(config: &Config, path: &str, topics: &[String], refusals: &mut Refusals) {
    for topic in topics {
        if !topic.starts_with('^') {
            let reason = format!("{topic:?} is no name of a topic; a pattern begins with ^ and ends with $");
            refusals.unless(is_topic_part(topic), path, reason);
            continue;
        }
        refusals.unless(
            topic.ends_with('$'),
            path,
            format!("{topic:?} does not end with $: what may follow it would depend on kafka.group_protocol"),
        );
        let letters = topic.split('\\').skip(1).filter_map(|rest| rest.chars().next());
        let is_portable = !topic.contains("(?") && !letters.into_iter().any(char::is_alphanumeric);
        refusals.unless(
            is_portable,
            path,
            format!("{topic:?} uses an extension that not every broker and client has: write [0-9] for \\d"),
        );
        match regex_lite::Regex::new(topic) {
            Err(error) => refusals.unless(false, path, format!("{topic:?} is no pattern: {error}")),
            Ok(pattern) => refusals.unless(
                !pattern.is_match(&format!("{}.x.dlq", config.kafka.group_prefix)),
                path,
                format!("{topic:?} covers dead-letter topics: what was buried would come back without end"),
            ),
        }
    }
}

/// What a protocol leaves to its members, and what it does not.
fn check_protocol(kafka: &Kafka, refusals: &mut Refusals) {
    if kafka.group_protocol == GroupProtocol::Consumer {
        for (path, set, of_brokers) in [
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
            let reason = format!("{BROKERS_AFFAIR}, and set {of_brokers} there");
            refusals.unless(set.is_none(), path, reason);
        }
    } else {
        refusals.unless(
            !kafka.heartbeat_interval().is_zero(),
            "kafka.heartbeat_interval_ms",
            "0 is less than 1",
        );
        refusals.unless(
            kafka.session_timeout() >= 3 * kafka.heartbeat_interval(),
            "kafka.session_timeout_ms",
            "it is shorter than three heartbeats: one lost heartbeat would cost the partitions",
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
        "this kafka.group_protocol does not have it: eager has range and roundrobin, consumer has range and uniform, \
         cooperative-sticky is one itself",
    );
    refusals.unless(
        kafka.instance_id.as_deref().is_none_or(is_topic_part),
        "kafka.instance_id",
        "it is part of a member's name: letters, digits, dot, underscore and hyphen only, 100 at most",
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
            refusals.unless(false, format!("kafka.properties.{NAME}"), "this is not a number");
            return;
        }
    };
    let grace = config.engine.revoke_grace_ms;
    let fixed = REVOKE_MARGIN_MS + COMMIT_WAIT_MS + CLAIM_WAIT_MS;
    let path = match own {
        Some(_) => format!("kafka.properties.{NAME}"),
        None => "engine.revoke_grace_ms".to_owned(),
    };
    refusals.unless(
        grace.saturating_add(fixed) < limit,
        path,
        format!(
            "a rebalance may keep a consumer from polling for {} ms (engine.revoke_grace_ms {grace}, the engine's answer \
             {REVOKE_MARGIN_MS}, the commit {COMMIT_WAIT_MS}, claims {CLAIM_WAIT_MS}), and after {limit} ms ({NAME}) it \
             would be taken for dead and lose all its partitions",
            grace.saturating_add(fixed)
        ),
    );
}
