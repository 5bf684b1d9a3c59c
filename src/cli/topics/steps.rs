//! What has to be done so that topics are as they are wanted, what is lost by it, and what nobody can do. Pure.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Accept;
use super::found::{Found, There};
use super::wanted::{Partitions, Purpose, Topic};

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub(super) enum Step {
    /// A topic that is not there.
    Make {
        topic: String,
        partitions: i32,
        /// `None` leaves it to the brokers.
        replicas: Option<i32>,
        settings: BTreeMap<&'static str, String>,
    },
    /// Further partitions.
    Add { topic: String, before: i32, after: i32 },
    /// Another value of a setting.
    Set {
        topic: String,
        setting: &'static str,
        before: Option<String>,
        after: String,
    },
}

impl Step {
    pub(super) fn in_words(&self) -> String {
        match self {
            Self::Make {
                topic,
                partitions,
                replicas,
                settings,
            } => {
                let settings = settings.iter().map(|(name, value)| format!(", {name}={value}"));
                let replicas = replicas.map(|replicas| format!(", {replicas} replicas"));
                format!(
                    "make {topic}: {partitions} partitions{}{}",
                    replicas.unwrap_or_default(),
                    settings.collect::<String>()
                )
            }
            Self::Add { topic, before, after } => format!("{topic}: partitions: {before} → {after}"),
            Self::Set {
                topic,
                setting,
                before,
                after,
            } => {
                let before = before.as_deref().unwrap_or("(not told)");
                format!("{topic}: {setting}: {before} → {after}")
            }
        }
    }
}

/// What is lost by a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Loss {
    /// What `--accept-loss` is given.
    pub(super) accept: Accept,
    topic: String,
    what: &'static str,
    instead: String,
}

impl Loss {
    pub(super) fn in_words(&self) -> String {
        format!(
            "{} of {}: {}; {}",
            self.accept.name(),
            self.topic,
            self.what,
            self.instead
        )
    }
}

/// A step, and what is lost by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Planned {
    #[serde(flatten)]
    pub(super) step: Step,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) loss: Option<Loss>,
}

/// What is wanted and cannot be had, or not from here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Impossible {
    topic: String,
    what: String,
    remedy: String,
}

impl Impossible {
    pub(super) fn in_words(&self) -> String {
        format!("{}: {}; {}", self.topic, self.what, self.remedy)
    }
}

/// Compares what is wanted with what is there.
pub(super) fn plan(wanted: &[Topic], found: &Found) -> (Vec<Planned>, Vec<Impossible>) {
    let (mut steps, mut impossible) = (Vec::new(), Vec::new());
    for topic in wanted {
        match found.topics.get(&topic.name) {
            None if found.denied.contains(&topic.name) => impossible.push(Impossible {
                topic: topic.name.clone(),
                what: "it may not be described, so whether it is there is not known".to_owned(),
                remedy: "allow it: `afterwrite topics plan --acls`, under operator".to_owned(),
            }),
            None => {
                impossible.extend(of_replicas(topic, topic.replicas));
                steps.push(Planned {
                    step: Step::Make {
                        topic: topic.name.clone(),
                        partitions: topic.partitions.number(),
                        replicas: topic.replicas,
                        settings: topic.settings.clone(),
                    },
                    loss: None,
                });
            }
            Some(there) => {
                impossible.extend(of_replicas(topic, Some(there.replicas)));
                match of_partitions(topic, there) {
                    Some(Ok(planned)) => steps.push(planned),
                    Some(Err(cannot)) => impossible.push(cannot),
                    None => {}
                }
                steps.extend(of_settings(topic, there));
            }
        }
    }
    (steps, impossible)
}

fn of_partitions(topic: &Topic, there: &There) -> Option<Result<Planned, Impossible>> {
    let (wanted, has) = (topic.partitions.number(), there.partitions);
    let add = |loss| Planned {
        step: Step::Add {
            topic: topic.name.clone(),
            before: has,
            after: wanted,
        },
        loss,
    };
    match topic.partitions {
        Partitions::Any(_) => None,
        // The connector chooses among so many, whatever else there is.
        Partitions::Routed(_) => (has < wanted).then(|| Ok(add(None))),
        Partitions::Keyed(_) if has == wanted => None,
        Partitions::Keyed(_) if has < wanted => Some(Ok(add(Some(Loss {
            accept: Accept::Partitions,
            topic: topic.name.clone(),
            what: "keys move to other partitions, and what waits in the old one of a key may be overtaken by what is written after it",
            instead: match topic.purpose {
                Purpose::Letters => {
                    "keep the number that there is, and write it into dead_letters.partitions".to_owned()
                }
                Purpose::Changes | Purpose::Markers => format!(
                    "pause the connector, wait until `afterwrite status` shows no lag, and accept it then; or keep the number that \
                     there is, and write it into {}",
                    topic.written
                ),
            },
        })))),
        Partitions::Keyed(_) => Some(Err(Impossible {
            topic: topic.name.clone(),
            what: format!("it has {has} partitions, {wanted} are wanted, and Kafka takes none away"),
            remedy: format!(
                "write {has} into {}; only a topic that is deleted and made again can have fewer, and loses all that was not read",
                topic.written
            ),
        })),
    }
}

/// A topic that never takes a record, and one that has fewer replicas than is said.
fn of_replicas(topic: &Topic, replicas: Option<i32>) -> Option<Impossible> {
    let replicas = replicas?;
    let insync = topic.settings.get("min.insync.replicas");
    let insync = insync.and_then(|insync| insync.parse::<i32>().ok()).unwrap_or(1);
    let (what, remedy) = match topic.replicas {
        Some(wanted) if replicas < wanted => (
            format!("it has {replicas} replicas, and {wanted} are wanted"),
            "give it more with kafka-reassign-partitions.sh: which broker takes which is for somebody to decide"
                .to_owned(),
        ),
        _ if insync > replicas => (
            format!("min.insync.replicas is to be {insync}, and with {replicas} replicas no record would be taken"),
            format!(
                "give it more replicas (--replication-factor), or write {replicas} into {}",
                topic.written
            ),
        ),
        _ => return None,
    };
    Some(Impossible {
        topic: topic.name.clone(),
        what,
        remedy,
    })
}

fn of_settings(topic: &Topic, there: &There) -> Vec<Planned> {
    // Who may not read settings cannot change one without losing the others.
    if there.settings.is_none() {
        return Vec::new();
    }
    let steps = topic.settings.iter().filter_map(|(setting, wanted)| {
        let has = there.setting(setting);
        let number = |text: &str| text.parse::<i64>().ok();
        let is_so = match *setting {
            // Whatever takes more takes this, too.
            "max.message.bytes" => has.and_then(number) >= number(wanted),
            "cleanup.policy" => has.is_some_and(|has| policies(has) == policies(wanted)),
            _ => has == Some(wanted),
        };
        (!is_so).then(|| Planned {
            step: Step::Set {
                topic: topic.name.clone(),
                setting,
                before: has.map(str::to_owned),
                after: wanted.clone(),
            },
            loss: loss_of(topic, setting, has, wanted),
        })
    });
    let mut steps: Vec<Planned> = steps.collect();
    steps.extend(of_insync(topic, there));
    steps
}

fn policies(text: &str) -> Vec<&str> {
    let mut policies: Vec<&str> = text.split(',').map(str::trim).collect();
    policies.sort_unstable();
    policies
}

/// Where nobody says how many have to be in sync, more than there are stop every producer.
fn of_insync(topic: &Topic, there: &There) -> Option<Planned> {
    let setting = "min.insync.replicas";
    let has = there.setting(setting)?;
    let is_too_many = has.parse::<i32>().is_ok_and(|has| has > there.replicas);
    (is_too_many && !topic.settings.contains_key(setting)).then(|| Planned {
        step: Step::Set {
            topic: topic.name.clone(),
            setting,
            before: Some(has.to_owned()),
            after: there.replicas.to_string(),
        },
        loss: None,
    })
}

fn loss_of(topic: &Topic, setting: &str, has: Option<&str>, wanted: &str) -> Option<Loss> {
    let loss = |accept, what, instead: String| {
        Some(Loss {
            accept,
            topic: topic.name.clone(),
            what,
            instead,
        })
    };
    let keep = format!("keep what there is, and write it into {}", topic.written);
    match setting {
        "retention.ms" => {
            let forever = |text: &str| text.parse::<i64>().ok().filter(|kept| *kept >= 0);
            let is_shorter = match (has.and_then(forever), forever(wanted)) {
                (_, None) => false,
                (None, Some(_)) => true,
                (Some(has), Some(wanted)) => wanted < has,
            };
            match is_shorter {
                true => loss(
                    Accept::Retention,
                    "records that are older than the new retention are removed at once",
                    keep,
                ),
                false => None,
            }
        }
        "cleanup.policy" => match (has.unwrap_or_default().contains("compact"), wanted.contains("compact")) {
            (false, true) => loss(
                Accept::Cleanup,
                "of the changes of one row all but the last are removed, also those that a group has not read",
                keep,
            ),
            (true, false) if !has.unwrap_or_default().contains("delete") => loss(
                Accept::Cleanup,
                "records that are older than retention.ms, which compaction has kept, are removed at once",
                "raise retention.ms first, where the newest change of each row is to be kept".to_owned(),
            ),
            _ => None,
        },
        _ => None,
    }
}
