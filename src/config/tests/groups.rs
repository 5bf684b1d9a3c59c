//! How a process takes part in its groups, and which topics they read: what is refused, with its place and the reason.

use super::{loaded, refused};

#[test]
fn what_a_group_protocol_does_not_leave_to_its_members_is_refused() {
    let consumer = "[kafka]\ngroup_protocol = \"consumer\"\n";
    let is_brokers = "it is the brokers' affair under kafka.group_protocol = \"consumer\"; leave it out";
    for (setting, expected) in [
        (
            "session_timeout_ms = 30000",
            format!("kafka.session_timeout_ms: {is_brokers}, and set group.consumer.session.timeout.ms there"),
        ),
        (
            "heartbeat_interval_ms = 3000",
            format!("kafka.heartbeat_interval_ms: {is_brokers}, and set group.consumer.heartbeat.interval.ms there"),
        ),
        (
            "properties.\"session.timeout.ms\" = 30000",
            format!("kafka.properties.session.timeout.ms: {is_brokers}"),
        ),
        (
            "properties.\"partition.assignment.strategy\" = \"range\"",
            format!("kafka.properties.partition.assignment.strategy: {is_brokers}"),
        ),
        (
            "properties.\"group.protocol\" = \"classic\"",
            "kafka.properties.group.protocol: there is a setting for it, which would overwrite this property; set \
             kafka.group_protocol instead"
                .to_owned(),
        ),
    ] {
        refused(
            &format!("{consumer}{setting}"),
            &[],
            &[],
            &format!("file:3: {expected}"),
        );
    }
    loaded(consumer, &[], &[]).unwrap();
    for (protocol, assignor, is_accepted) in [
        ("cooperative-sticky", "range", false),
        ("eager", "roundrobin", true),
        ("eager", "uniform", false),
        ("consumer", "uniform", true),
        ("consumer", "roundrobin", false),
    ] {
        let file = format!("[kafka]\ngroup_protocol = \"{protocol}\"\nassignor = \"{assignor}\"");
        let answer = loaded(&file, &[], &[]).map(|_| ());
        assert_eq!(answer.is_ok(), is_accepted, "{file}: {answer:?}");
        if let Err(message) = answer {
            assert!(
                message.contains("file:3: kafka.assignor: this kafka.group_protocol does not have it"),
                "{message}"
            );
        }
    }
}

#[test]
fn impossible_sessions_and_names_of_processes_are_refused() {
    for (file, expected) in [
        (
            "[kafka]\nsession_timeout_ms = 8000",
            "file:2: kafka.session_timeout_ms: a session (kafka.session_timeout_ms, 8000 ms) is shorter than three heartbeats",
        ),
        (
            "[kafka]\nheartbeat_interval_ms = 20000",
            "file:2: kafka.heartbeat_interval_ms: a session (kafka.session_timeout_ms, 30000 ms) is shorter than three",
        ),
        (
            "[kafka]\nheartbeat_interval_ms = 0",
            "file:2: kafka.heartbeat_interval_ms: it is less than 1; write 1 or more",
        ),
        (
            "[kafka]\ninstance_id = \"worker/1\"",
            "file:2: kafka.instance_id: it could not be part of a member's name; write letters, digits, dot, underscore",
        ),
    ] {
        refused(file, &[], &[], expected);
    }
    let config = loaded(
        "[kafka]\ninstance_id = \"${env:HOSTNAME}\"",
        &[("HOSTNAME", "worker-1")],
        &[],
    )
    .unwrap();
    assert_eq!(config.kafka.instance_id.as_deref(), Some("worker-1"));
}

#[test]
fn a_rebalance_never_outlasts_the_time_after_which_a_silent_consumer_is_taken_for_dead() {
    let silent = |grace: u64, limit: u64| {
        format!(
            "a rebalance may keep a consumer from polling for {} ms (engine.revoke_grace_ms {grace}, the engine's answer \
             2000, the commit 10000, claims 60000), and after {limit} ms (max.poll.interval.ms) it would be taken for dead \
             and lose all its partitions",
            grace + 72_000
        )
    };
    let file = "[engine]\nrevoke_grace_ms = 228000";
    let expected = format!("file:2: engine.revoke_grace_ms: {}", silent(228_000, 300_000));
    refused(file, &[], &[], &expected);
    loaded("[engine]\nrevoke_grace_ms = 227999", &[], &[]).unwrap();
    let file = "[kafka.properties]\nmax.poll.interval.ms = 60000";
    let place = "file:2: kafka.properties.max.poll.interval.ms:";
    refused(file, &[], &[], &format!("{place} {}", silent(10_000, 60_000)));
    let file = "[kafka.properties]\nmax.poll.interval.ms = \"long\"";
    refused(file, &[], &[], &format!("{place} this is not a number"));
    let file = "[engine]\nrevoke_grace_ms = 228000\n[kafka.properties]\nmax.poll.interval.ms = 600000";
    loaded(file, &[], &[]).unwrap();
}

#[test]
fn topics_are_names_or_patterns_that_mean_the_same_to_brokers_and_client() {
    for (topic, expected) in [
        ("two words", "entry 1 is no name of a topic"),
        ("", "entry 1 is no name of a topic"),
        ("^waitlist", "pattern 1 does not end with $"),
        (
            r"^tenant_\d+$",
            "pattern 1 uses an extension that not every broker and client has",
        ),
        (
            "^(?i)tenant$",
            "pattern 1 uses an extension that not every broker and client has",
        ),
        ("^tenant_(.*$", "pattern 1 is no regular expression"),
        ("^.*$", "pattern 1 covers dead-letter topics"),
        (r"^afterwrite\..*$", "pattern 1 covers dead-letter topics"),
    ] {
        for (section, path) in [("kafka", "kafka.topics"), ("groups.email", "groups.email.topics")] {
            let file = format!("[{section}]\ntopics = ['{topic}']");
            let message = loaded(&file, &[], &[]).map(|_| ()).unwrap_err();
            let expected = format!("file:2: {path}: {expected}");
            assert!(message.contains(&expected), "{message}\nis not\n{expected}");
        }
    }
    let file = "[kafka]\ntopics = ['a.b']\n[groups.email]\ntopics = ['^tenant_[0-9]+\\.users$']";
    let config = loaded(file, &[], &[]).unwrap();
    assert_eq!(config.topics_of("afterwrite.email"), [r"^tenant_[0-9]+\.users$"]);
    assert_eq!(config.topics_of("fraud"), ["a.b"]);
}
