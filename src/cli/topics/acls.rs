//! What each principal has to be allowed, by the same list of topics. Pure.

use clap::Args;
use serde::Serialize;

use super::wanted::{Purpose, Wanted};
use crate::clients::connect::ConnectorConfig;
use crate::clients::kafka::{KEEPS_LETTERS, READS_TOPIC, RUNS_GROUP, Resource, allow};
use crate::dead_letter::topic;
use crate::doctor::expected::{Expected, Group};

/// What `topics apply`, `status`, `replay`, `dlq` and `doctor` do with topics.
const OPERATES_TOPIC: &[&str] = &["Read", "Write", "Create", "Alter", "AlterConfigs", "DescribeConfigs"];

/// What a command does with a group: looking at it, and moving its position.
const OPERATES_GROUP: &[&str] = &["Read", "Describe"];

/// What Kafka Connect does with the topics in which it keeps itself.
const KEEPS_ITSELF: &[&str] = &["Read", "Write", "Create", "DescribeConfigs"];

/// What it does with topics that a connector writes.
const WRITES_TOPIC: &[&str] = &["Write", "Create"];

/// Who the brokers know the parts as.
#[derive(Debug, Args)]
#[command(next_help_heading = "Principals, for --acls")]
pub(super) struct Principals {
    /// The worker; {} stands for the short name of a group, where each runs under a name of its own
    #[arg(long, value_name = "PRINCIPAL", default_value = "User:afterwrite")]
    worker: String,
    /// Whoever gives commands
    #[arg(long, value_name = "PRINCIPAL", default_value = "User:afterwrite-operator")]
    operator: String,
    /// Kafka Connect
    #[arg(long, value_name = "PRINCIPAL", default_value = "User:connect")]
    connect: String,
    /// group.id of Kafka Connect; its own topics are taken to be called like it, with -configs, -offsets and -status
    #[arg(long, value_name = "GROUP", default_value = "afterwrite-connect")]
    connect_group: String,
}

/// What somebody has to be allowed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Acl {
    /// `worker`, `operator` or `connect`.
    part: &'static str,
    /// The group, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    principal: String,
    operations: &'static [&'static str],
    command: String,
}

impl Acl {
    /// Commands for a shell, under what they are for.
    pub(super) fn all_in_words(acls: &[Self]) -> String {
        let mut text = String::new();
        let mut before = None;
        for acl in acls {
            let about = (acl.part, &acl.group);
            if before != Some(about) {
                let group = acl.group.iter().map(|group| format!(", group {group}"));
                let line = if text.is_empty() { "" } else { "\n" };
                text.push_str(&format!("{line}# {}{}\n", acl.part, group.collect::<String>()));
                before = Some(about);
            }
            text.push_str(&acl.command);
            text.push('\n');
        }
        text.trim_end().to_owned()
    }
}

/// What is needed, for the worker by groups.
pub(super) fn needed(
    wanted: &Wanted,
    connector: &ConnectorConfig,
    expected: &Expected,
    principals: &Principals,
) -> Vec<Acl> {
    let mut acls: Vec<Acl> = expected
        .groups
        .iter()
        .flat_map(|group| of_group(group, principals))
        .collect();
    acls.extend(of_operator(wanted, expected, principals));
    acls.extend(of_connect(wanted, connector, expected, principals));
    acls
}

fn acl(
    part: &'static str,
    group: Option<&Group>,
    principal: &str,
    operations: &'static [&'static str],
    resource: &Resource,
) -> Acl {
    Acl {
        part,
        group: group.map(|group| group.name.clone()),
        principal: principal.to_owned(),
        operations,
        command: allow(principal, operations, resource),
    }
}

/// A subscribed name or pattern: of a pattern the part before the first letter that means more than itself.
fn subscribed(name: &str) -> Resource {
    let Some(pattern) = name.strip_prefix('^') else {
        return Resource::Topic(name.to_owned(), false);
    };
    let unescaped = pattern.replace("\\.", ".");
    let plain = unescaped.trim_end_matches('$');
    let end = plain
        .find(['*', '[', '(', '|', '+', '?', '\\', '{'])
        .unwrap_or(plain.len());
    // The letter before a star may not be there at all.
    let end = if plain[end..].starts_with(['*', '?', '{']) {
        end.saturating_sub(1)
    } else {
        end
    };
    Resource::Topic(plain[..end].to_owned(), true)
}

fn of_group(group: &Group, principals: &Principals) -> Vec<Acl> {
    let principal = principals.worker.replace("{}", &group.short);
    let add = |operations, resource: &Resource| acl("worker", Some(group), &principal, operations, resource);
    let mut acls: Vec<Acl> = group
        .topics
        .iter()
        .map(|name| add(READS_TOPIC, &subscribed(name)))
        .collect();
    acls.push(add(RUNS_GROUP, &Resource::Group(group.name.clone())));
    acls.push(add(KEEPS_LETTERS, &Resource::Topic(topic::name(&group.name), false)));
    acls
}

fn of_operator(wanted: &Wanted, expected: &Expected, principals: &Principals) -> Vec<Acl> {
    let add = |operations, resource: &Resource| acl("operator", None, &principals.operator, operations, resource);
    let mut acls = vec![add(
        OPERATES_TOPIC,
        &Resource::Topic(format!("{}.", expected.source), true),
    )];
    let begins = format!("{}.", expected.source);
    let others = wanted.topics.iter().filter(|topic| !topic.name.starts_with(&begins));
    acls.extend(others.map(|topic| add(OPERATES_TOPIC, &Resource::Topic(topic.name.clone(), false))));
    let groups = expected.groups.iter();
    acls.extend(groups.map(|group| add(OPERATES_GROUP, &Resource::Group(group.name.clone()))));
    acls
}

fn of_connect(wanted: &Wanted, connector: &ConnectorConfig, expected: &Expected, principals: &Principals) -> Vec<Acl> {
    let group = &principals.connect_group;
    let add = |operations, resource: &Resource| acl("connect", None, &principals.connect, operations, resource);
    let mut acls = vec![add(RUNS_GROUP, &Resource::Group(group.clone()))];
    for end in ["configs", "offsets", "status"] {
        acls.push(add(KEEPS_ITSELF, &Resource::Topic(format!("{group}-{end}"), false)));
    }
    // Also tables that are added to the list later.
    acls.push(add(
        WRITES_TOPIC,
        &Resource::Topic(format!("{}.", expected.source), true),
    ));
    let begins = format!("{}.", expected.source);
    let others = wanted
        .topics
        .iter()
        .filter(|topic| topic.purpose != Purpose::Letters && !topic.name.starts_with(&begins));
    acls.extend(others.map(|topic| add(WRITES_TOPIC, &Resource::Topic(topic.name.clone(), false))));
    if connector.contains_key("exactly.once.support") {
        for beginning in [format!("connect-cluster-{group}"), format!("{group}-")] {
            acls.push(add(&["Write", "Describe"], &Resource::Transactions(beginning)));
        }
    }
    acls
}
