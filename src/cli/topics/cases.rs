//! Topics of the connector of this repository: what is wanted, and what follows from what is there.

use std::time::Duration;

use super::*;
use crate::cli::doctor::expected;
use crate::cli::program::Program;
use crate::cli::topics::acls::{Acl, Principals, needed};
use crate::cli::topics::found::{Found, There};
use crate::cli::topics::steps::{Planned, Step, plan};
use crate::clients::kafka::TopicSetting;
use crate::config::Config;

fn shipped() -> ConnectorConfig {
    serde_json::from_str(include_str!("../../../connectors/waitlist.json")).unwrap()
}

fn of_waitlist() -> Expected {
    expected(None, &Config::default(), &Program::waitlist()).unwrap()
}

fn all(connector: &ConnectorConfig) -> Vec<Topic> {
    wanted(connector, &of_waitlist(), Some(3)).topics
}

fn one(name: &str) -> Topic {
    all(&shipped()).into_iter().find(|topic| topic.name == name).unwrap()
}

#[test]
fn each_captured_table_each_group_and_the_heartbeats_have_a_topic() {
    let names: Vec<String> = all(&shipped()).into_iter().map(|topic| topic.name).collect();
    for name in [
        "waitlist.public.waitlist_users",
        "waitlist.public.campaigns",
        "waitlist.afterwrite.heartbeat",
        "waitlist.afterwrite.debezium_signal",
        "__debezium-heartbeat.waitlist",
        "afterwrite.email.dlq",
        "afterwrite.fraud.dlq",
    ] {
        assert!(names.iter().any(|known| known == name), "{name}: {names:?}");
    }
    assert_eq!(one("waitlist.public.waitlist_users").partitions, Partitions::Routed(8));
    assert_eq!(one("waitlist.public.campaigns").partitions, Partitions::Keyed(8));
    assert_eq!(one("__debezium-heartbeat.waitlist").partitions, Partitions::Any(1));
    assert_eq!(one("afterwrite.email.dlq").settings["cleanup.policy"], "delete");
    let settings = one("waitlist.public.campaigns").settings;
    assert_eq!(settings["retention.ms"], "604800000");
    // Only Connect knows it.
    assert!(!settings.contains_key("min.insync.replicas"));
}

#[test]
fn what_the_file_says_otherwise_is_wanted_otherwise() {
    let mut connector = shipped();
    for (key, value) in [
        ("heartbeat.interval.ms", "0"),
        ("provide.transaction.metadata", "true"),
        ("topic.creation.default.replication.factor", "2"),
        ("table.include.list", r"public\.a b,public\.c.*"),
        ("topic.delimiter", "_"),
    ] {
        connector.insert(key.to_owned(), value.to_owned());
    }
    let topics = all(&connector);
    let names: Vec<&str> = topics.iter().map(|topic| topic.name.as_str()).collect();
    assert!(
        names.contains(&"waitlist.transaction") && names.contains(&"waitlist_public_a_b"),
        "{names:?}"
    );
    assert!(
        !names
            .iter()
            .any(|name| name.contains("heartbeat") || name.contains('*')),
        "{names:?}"
    );
    assert!(
        topics
            .iter()
            .all(|topic| topic.purpose == Purpose::Letters || topic.replicas == Some(2))
    );
    connector.insert("transforms".to_owned(), "x".to_owned());
    let router = "org.apache.kafka.connect.transforms.RegexRouter";
    connector.insert("transforms.x.type".to_owned(), router.to_owned());
    assert!(!all(&connector).iter().any(|topic| topic.name == "waitlist_public_a_b"));
}

/// A topic that is there as it is wanted, but for this.
fn there(topic: &Topic, partitions: i32, replicas: i32, otherwise: &[(&str, &str)]) -> Found {
    let mut settings: BTreeMap<String, TopicSetting> = BTreeMap::new();
    let own = topic.settings.iter().map(|(name, value)| (*name, value.as_str()));
    for (name, value) in own.chain(otherwise.iter().copied()) {
        let value = value.to_owned();
        settings.insert(name.to_owned(), TopicSetting { value, is_own: true });
    }
    let there = There {
        partitions,
        replicas,
        settings: Some(settings),
    };
    Found {
        topics: BTreeMap::from([(topic.name.clone(), there)]),
        ..Found::default()
    }
}

fn told(topic: &Topic, found: &Found) -> Vec<String> {
    let (steps, impossible) = plan(std::slice::from_ref(topic), found);
    let step = |planned: &Planned| {
        let loss = planned.loss.as_ref().map(|loss| format!(" LOSES {}", loss.in_words()));
        format!("{}{}", planned.step.in_words(), loss.unwrap_or_default())
    };
    steps
        .iter()
        .map(step)
        .chain(impossible.iter().map(|one| format!("IMPOSSIBLE {}", one.in_words())))
        .collect()
}

#[test]
fn what_is_as_it_should_be_needs_nothing_and_what_is_missing_is_made() {
    for topic in all(&shipped()) {
        let number = topic.partitions.number();
        assert_eq!(told(&topic, &there(&topic, number, 3, &[])), Vec::<String>::new());
        let (steps, impossible) = plan(std::slice::from_ref(&topic), &Found::default());
        assert!(impossible.is_empty(), "{impossible:?}");
        let Step::Make {
            partitions, replicas, ..
        } = &steps[0].step
        else {
            panic!("{steps:?}")
        };
        assert_eq!((*partitions, *replicas), (number, Some(3)));
    }
}

/// Partitions, replicas and settings of a topic that is there, and how the only line about it begins; and what is in it.
type Case = (
    &'static str,
    i32,
    i32,
    &'static [(&'static str, &'static str)],
    &'static str,
    &'static str,
);

const KEYED: &str = "waitlist.public.campaigns";
const ROUTED: &str = "waitlist.public.waitlist_users";
const LETTERS: &str = "afterwrite.email.dlq";

const CASES: &[Case] = &[
    (
        KEYED,
        4,
        3,
        &[],
        "waitlist.public.campaigns: partitions: 4 → 8",
        "LOSES partitions",
    ),
    (KEYED, 9, 3, &[], "IMPOSSIBLE", "write 9 into topic.creation.default"),
    (
        ROUTED,
        4,
        3,
        &[],
        "waitlist.public.waitlist_users: partitions: 4 → 8",
        "4 → 8",
    ),
    (ROUTED, 9, 3, &[], "", ""),
    (KEYED, 8, 1, &[], "IMPOSSIBLE", "kafka-reassign-partitions.sh"),
    (
        KEYED,
        8,
        3,
        &[("retention.ms", "86400000")],
        "waitlist.public.campaigns: retention.ms: 86400000 → 604800000",
        "",
    ),
    (
        KEYED,
        8,
        3,
        &[("retention.ms", "-1")],
        "waitlist.public.campaigns: retention.ms: -1 → 604800000",
        "LOSES retention.ms",
    ),
    (
        KEYED,
        8,
        3,
        &[("retention.ms", "31536000000")],
        "waitlist.public.campaigns: retention.ms",
        "LOSES retention.ms",
    ),
    (
        KEYED,
        8,
        3,
        &[("cleanup.policy", "compact")],
        "waitlist.public.campaigns: cleanup.policy",
        "LOSES cleanup.policy",
    ),
    (
        KEYED,
        8,
        3,
        &[("cleanup.policy", "compact,delete")],
        "waitlist.public.campaigns: cleanup.policy",
        "→ delete",
    ),
    (
        KEYED,
        8,
        3,
        &[("max.message.bytes", "1048588")],
        "waitlist.public.campaigns: max.message.bytes",
        "→ 10485760",
    ),
    (KEYED, 8, 3, &[("max.message.bytes", "99999999")], "", ""),
    (
        KEYED,
        8,
        3,
        &[("min.insync.replicas", "4")],
        "waitlist.public.campaigns: min.insync.replicas: 4 → 3",
        "",
    ),
    (KEYED, 8, 3, &[("min.insync.replicas", "2")], "", ""),
    (LETTERS, 12, 3, &[], "IMPOSSIBLE", "into [dead_letters]"),
];

#[test]
fn each_difference_is_a_step_with_what_it_loses_or_impossible() {
    for (name, partitions, replicas, otherwise, begins, holds) in CASES {
        let topic = one(name);
        let said = told(&topic, &there(&topic, *partitions, *replicas, otherwise));
        assert_eq!(said.len(), usize::from(!begins.is_empty()), "{otherwise:?}: {said:?}");
        let line = said.concat();
        assert!(line.starts_with(begins) && line.contains(holds), "{line}");
        let loses = line.contains("LOSES");
        assert_eq!(loses, holds.starts_with("LOSES"), "{line}");
    }
}

#[test]
fn settings_that_may_not_be_read_are_left_alone_and_too_few_replicas_are_impossible() {
    let topic = one(KEYED);
    let mut found = there(&topic, 8, 3, &[]);
    found.topics.get_mut(KEYED).unwrap().settings = None;
    assert_eq!(told(&topic, &found), Vec::<String>::new());
    assert_eq!(found.unread(), [KEYED]);
    let denied = Found {
        denied: [KEYED.to_owned()].into(),
        ..Found::default()
    };
    let said = told(&topic, &denied).concat();
    assert!(
        said.starts_with("IMPOSSIBLE") && said.contains("topics plan --acls"),
        "{said}"
    );
    let insync = Topic {
        settings: BTreeMap::from([("min.insync.replicas", "2".to_owned())]),
        replicas: Some(1),
        ..topic
    };
    let said = told(&insync, &Found::default());
    assert!(
        said.iter().any(|line| line.contains("no record would be taken")),
        "{said:?}"
    );
}

#[derive(clap::Parser)]
struct Parsed {
    #[command(flatten)]
    principals: Principals,
}

fn acls(words: &[&str]) -> Vec<Acl> {
    let words = std::iter::once(&"x").chain(words).copied();
    let principals = <Parsed as clap::Parser>::parse_from(words).principals;
    let expected = of_waitlist();
    needed(&wanted(&shipped(), &expected, None), &shipped(), &expected, &principals)
}

#[test]
fn each_principal_is_allowed_what_it_does_with_the_same_topics() {
    let said = Acl::all_in_words(&acls(&["--worker", "User:aw-{}"]));
    for line in [
        "# worker, group afterwrite.email",
        "--allow-principal 'User:aw-email' --operation Read --operation DescribeConfigs --topic 'waitlist.public.waitlist_users'",
        "--allow-principal 'User:aw-email' --operation Read --group 'afterwrite.email'",
        "--operation Read --operation Write --operation Create --operation DescribeConfigs --topic 'afterwrite.email.dlq'",
        "# operator",
        "--operation Read --operation Describe --group 'afterwrite.email'",
        "# connect",
        "--allow-principal 'User:connect' --operation Read --group 'afterwrite-connect'",
        "--operation Write --operation Create --topic 'waitlist.' --resource-pattern-type prefixed",
        "--operation Write --operation Create --topic '__debezium-heartbeat.waitlist'",
    ] {
        assert!(said.contains(line), "{line}\n{said}");
    }
    assert!(
        !said.contains("--transactional-id")
            && !said.contains("User:connect' --operation Write --operation Create --topic 'afterwrite.")
    );
}

#[test]
fn letters_are_kept_as_long_as_they_are_said_to_be() {
    let letters = of_waitlist().letters.unwrap();
    assert!(letters.retention > Duration::ZERO);
    assert_eq!(
        one(LETTERS).settings["retention.ms"],
        letters.retention.as_millis().to_string()
    );
    assert_eq!(one(LETTERS).partitions, Partitions::Keyed(letters.partitions));
}
