//! The alarm before a topic's retention overtakes a group: a task beside the poll thread, with clients of its own. It is also
//! who finds out that a partition was read to its end.
//!
//! What a topic removes before a group has read it is lost for that group. How near that is shows in the age of the oldest
//! record that is not settled, against `retention.ms`, and in its distance from the oldest one there is, against the length
//! of the log, where `retention.bytes` has already begun to remove records.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::mpsc::WeakSender;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::clients::kafka::{QUESTION_TIMEOUT, TopicSetting, admin, client_config, offsets_at, settings_of};
use crate::event::delivery::{Position, SourceEvent, SourcePartition};
use crate::source::kafka::Options;
use crate::source::kafka::client::config;
use crate::source::kafka::protocol::Membership;

/// Where each owned partition stands: before this position all is settled and committed.
pub(super) type Frontiers = HashMap<SourcePartition, Position>;

/// How often is looked.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Share of its retention, in percent, that the oldest unsettled record may have used up before somebody is told, and
/// before somebody must act.
const WARN_PERCENT: i64 = 50;
const ACT_PERCENT: i64 = 80;

/// How near a partition's position is to being overtaken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
enum Level {
    #[default]
    Far,
    Near,
    VeryNear,
}

/// What a topic keeps; `None` is everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Keeps {
    milliseconds: Option<i64>,
    bytes: Option<i64>,
}

impl Keeps {
    /// As far as is known: what may not be asked is not watched.
    const EVERYTHING: Self = Self {
        milliseconds: None,
        bytes: None,
    };
}

/// The log of one partition against one position in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Log {
    position: i64,
    low: i64,
    high: i64,
    /// The first record that is younger than [`WARN_PERCENT`] of the retention, and than [`ACT_PERCENT`] of it.
    younger_than_warn: Option<i64>,
    younger_than_act: Option<i64>,
}

/// The task's state.
pub(super) struct Watch {
    group: String,
    consumer_config: ClientConfig,
    admin_config: ClientConfig,
    frontiers: watch::Receiver<Frontiers>,
    levels: HashMap<SourcePartition, Level>,
    /// Where the engine is told. It does not keep the channel open: the source has ended when its other parts have.
    events: WeakSender<SourceEvent>,
}

/// What was found out about one partition.
struct Finding {
    partition: SourcePartition,
    log: Log,
    keeps: Keeps,
    level: Level,
    /// Nothing stands at its position or behind it.
    is_settled: bool,
    /// Of the oldest unsettled record, where somebody is to be told.
    age: Option<Duration>,
}

impl Watch {
    pub(super) fn new(
        options: &Options,
        frontiers: watch::Receiver<Frontiers>,
        events: WeakSender<SourceEvent>,
    ) -> Self {
        // It only asks, and reads by hand: without a subscription it joins nothing, whatever its group is called.
        let mut consumer_config = config(&Options {
            membership: Membership::default(),
            ..options.clone()
        });
        consumer_config.set("enable.partition.eof", "true");
        consumer_config.set("statistics.interval.ms", "0");
        let admin_config = client_config(&options.brokers, &options.properties);
        Self {
            group: options.group.clone(),
            consumer_config,
            admin_config,
            frontiers,
            levels: HashMap::new(),
            events,
        }
    }

    /// Looks now and then, until the poll thread has ended.
    pub(super) async fn run(mut self) {
        while self.frontiers.wait_for(|frontiers| !frontiers.is_empty()).await.is_ok() {
            let looked = Instant::now();
            match self.look().await {
                Ok(findings) => {
                    self.tell_caught_up(&findings);
                    self.say(findings);
                }
                Err(error) => {
                    tracing::debug!(group = self.group, error = %error, "retention could not be compared with the positions");
                }
            }
            let ended = async { while self.frontiers.changed().await.is_ok() {} };
            if tokio::time::timeout_at(looked + LOOK_EVERY, ended).await.is_ok() {
                return;
            }
        }
    }

    async fn look(&mut self) -> KafkaResult<Vec<Finding>> {
        let frontiers = self.frontiers.borrow_and_update().clone();
        self.levels.retain(|partition, _| frontiers.contains_key(partition));
        let topics: BTreeSet<String> = frontiers.keys().map(|partition| partition.topic.to_string()).collect();
        let keeps = self.keeps(&topics).await?;
        let config = self.consumer_config.clone();
        let known = self.levels.clone();
        let asking = tokio::task::spawn_blocking(move || {
            let consumer: BaseConsumer = config.create()?;
            ask(&consumer, &frontiers, &keeps, &known)
        });
        match asking.await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::debug!(error = %error, "comparing retention with the positions ended abnormally");
                Ok(Vec::new())
            }
        }
    }

    /// What topics keep. Those whose settings may not be read, and compacted ones, which remove nothing by age, are left out.
    async fn keeps(&self, topics: &BTreeSet<String>) -> KafkaResult<HashMap<String, Keeps>> {
        let admin = admin(&self.admin_config)?;
        let names: Vec<String> = topics.iter().cloned().collect();
        let described = settings_of(&admin, &names, QUESTION_TIMEOUT).await?;
        let answered = topics.iter().zip(described);
        let known = answered.filter_map(|(topic, described)| match described {
            Ok(described) => Some((topic.clone(), keeps(&described)?)),
            Err(code) => {
                tracing::debug!(topic, code = %code, "settings of the topic may not be read: its retention is not watched");
                None
            }
        });
        Ok(known.collect())
    }

    /// Tells the engine of partitions that were read to their end and are settled. A busy engine is told at the next look.
    fn tell_caught_up(&self, findings: &[Finding]) {
        let settled = findings.iter().filter(|finding| finding.is_settled);
        let ends: Vec<_> = settled
            .map(|finding| (finding.partition.clone(), Position(finding.log.high)))
            .collect();
        let events = self.events.upgrade().filter(|_| !ends.is_empty());
        if let Some(Err(error)) = events.map(|events| events.try_send(SourceEvent::CaughtUp { ends })) {
            tracing::debug!(group = self.group, error = %error, "the engine was not told which partitions are read to their end");
        }
    }

    /// Says what has changed since the last look.
    fn say(&mut self, findings: Vec<Finding>) {
        for finding in findings {
            let before = self
                .levels
                .insert(finding.partition.clone(), finding.level)
                .unwrap_or_default();
            let (group, partition, log) = (&self.group, &finding.partition, finding.log);
            let age_s = finding.age.map(|age| age.as_secs());
            let retention_s = finding.keeps.milliseconds.map(|milliseconds| milliseconds / 1_000);
            match finding.level {
                level if level == before => {}
                Level::VeryNear => tracing::error!(
                    group, %partition, position = log.position, oldest = log.low, age_s, retention_s,
                    retention_bytes = finding.keeps.bytes,
                    "the topic's retention is about to overtake this group: raise retention.ms or retention.bytes of the topic \
                     now, then see why the group is behind"
                ),
                Level::Near if before == Level::Far => tracing::warn!(
                    group, %partition, position = log.position, oldest = log.low, age_s, retention_s,
                    retention_bytes = finding.keeps.bytes,
                    "the oldest unsettled record of this partition has used up half of the topic's retention"
                ),
                Level::Near | Level::Far => {
                    tracing::info!(group, %partition, "the group draws away from the topic's retention");
                }
            }
        }
    }
}

fn keeps(settings: &BTreeMap<String, TopicSetting>) -> Option<Keeps> {
    let value = |name: &str| settings.get(name).map(|setting| setting.value.as_str());
    let number = |name: &str| {
        value(name)
            .and_then(|text| text.parse::<i64>().ok())
            .filter(|number| *number >= 0)
    };
    let removes = value("cleanup.policy").is_none_or(|policy| policy.contains("delete"));
    removes.then(|| Keeps {
        milliseconds: number("retention.ms"),
        bytes: number("retention.bytes"),
    })
}

/// Compares positions with what their topics hold: four questions for all partitions of topics with one retention.
fn ask(
    consumer: &BaseConsumer,
    frontiers: &Frontiers,
    keeps: &HashMap<String, Keeps>,
    known: &HashMap<SourcePartition, Level>,
) -> KafkaResult<Vec<Finding>> {
    let now_ms = chrono::Utc::now().timestamp_millis();
    let deadline = Instant::now() + LOOK_EVERY / 2;
    let left = || deadline.saturating_duration_since(Instant::now()).min(QUESTION_TIMEOUT);
    let mut logs: HashMap<SourcePartition, (Log, Keeps)> = HashMap::new();
    for (partition, position) in frontiers {
        let keeps = keeps.get(&*partition.topic).copied().unwrap_or(Keeps::EVERYTHING);
        let log = Log {
            position: position.0,
            ..Log::default()
        };
        logs.insert(partition.clone(), (log, keeps));
    }
    let places = |logs: &HashMap<SourcePartition, (Log, Keeps)>, retention: Option<i64>| -> Vec<(String, i32)> {
        let of_retention = logs
            .iter()
            .filter(|(_, (_, keeps))| retention.is_none() || keeps.milliseconds == retention);
        of_retention
            .map(|(partition, _)| (partition.topic.to_string(), partition.partition))
            .collect()
    };
    let mut fill = |retention: Option<i64>, at: Offset, put: fn(&mut Log, i64)| -> KafkaResult<()> {
        let asked = places(&logs, retention);
        let asked: Vec<(&str, i32)> = asked
            .iter()
            .map(|(topic, partition)| (topic.as_str(), *partition))
            .collect();
        for (topic, partition, offset) in offsets_at(consumer, &asked, at, left())? {
            let place = SourcePartition {
                topic: topic.into(),
                partition,
            };
            if let Some((log, _)) = logs.get_mut(&place) {
                put(log, offset);
            }
        }
        Ok(())
    };
    fill(None, Offset::Beginning, |log, offset| log.low = offset)?;
    fill(None, Offset::End, |log, offset| log.high = offset)?;
    let retentions: BTreeSet<i64> = keeps.values().filter_map(|keeps| keeps.milliseconds).collect();
    for retention in retentions {
        let before =
            |percent: i64| Offset::Offset(now_ms.saturating_sub(retention.saturating_mul(percent) / 100).max(0));
        fill(Some(retention), before(WARN_PERCENT), |log, offset| {
            log.younger_than_warn = Some(offset)
        })?;
        fill(Some(retention), before(ACT_PERCENT), |log, offset| {
            log.younger_than_act = Some(offset)
        })?;
    }
    let mut findings = Vec::with_capacity(logs.len());
    for (partition, (log, keeps)) in logs {
        let level = level(&log, &keeps);
        let is_news = level > known.get(&partition).copied().unwrap_or_default();
        let age = is_news
            .then(|| age(consumer, &partition, log.position, now_ms))
            .flatten();
        let is_settled =
            log.position == log.high || left() > Duration::ZERO && is_at_end(consumer, &partition, log.position);
        findings.push(Finding {
            is_settled,
            partition,
            log,
            keeps,
            level,
            age,
        });
    }
    Ok(findings)
}

/// How near a position is to being overtaken. Pure.
fn level(log: &Log, keeps: &Keeps) -> Level {
    let has_unsettled = log.position < log.high;
    // A partition that was overtaken already is stopped, and named elsewhere.
    if !has_unsettled || log.position < log.low {
        return Level::Far;
    }
    let by_age =
        |younger: Option<i64>| keeps.milliseconds.is_some() && younger.is_some_and(|first| log.position < first);
    // A log from which nothing was removed yet may grow before its size matters.
    let length = log.high - log.low;
    let passed = log.position - log.low;
    let by_size = |percent: i64| keeps.bytes.is_some() && log.low > 0 && passed * 100 < length * (100 - percent);
    if by_age(log.younger_than_act) || by_size(ACT_PERCENT) {
        Level::VeryNear
    } else if by_age(log.younger_than_warn) || by_size(WARN_PERCENT) {
        Level::Near
    } else {
        Level::Far
    }
}

/// The age of the record at a position.
fn age(consumer: &BaseConsumer, partition: &SourcePartition, position: i64, now_ms: i64) -> Option<Duration> {
    let record = read_from(consumer, partition, position)?.ok()?;
    let written_ms = record.timestamp().to_millis()?;
    Some(Duration::from_millis(u64::try_from(now_ms - written_ms).ok()?))
}

/// Whether what stands from a position on is no record: markers of transactions, which no position passes.
fn is_at_end(consumer: &BaseConsumer, partition: &SourcePartition, position: i64) -> bool {
    matches!(
        read_from(consumer, partition, position),
        Some(Err(KafkaError::PartitionEOF(_)))
    )
}

/// Reads what stands at a position or behind it.
fn read_from<'a>(
    consumer: &'a BaseConsumer,
    partition: &SourcePartition,
    position: i64,
) -> Option<KafkaResult<BorrowedMessage<'a>>> {
    let mut list = TopicPartitionList::new();
    let place = list.add_partition_offset(&partition.topic, partition.partition, Offset::Offset(position));
    place.and_then(|()| consumer.assign(&list)).ok()?;
    consumer.poll(QUESTION_TIMEOUT)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BY_AGE: Keeps = Keeps {
        milliseconds: Some(1_000),
        bytes: None,
    };
    const BY_SIZE: Keeps = Keeps {
        milliseconds: None,
        bytes: Some(1),
    };

    fn at(position: i64) -> Log {
        Log {
            position,
            low: 100,
            high: 200,
            younger_than_warn: Some(150),
            younger_than_act: Some(120),
        }
    }

    #[test]
    fn a_position_is_near_when_its_record_has_used_up_half_of_the_retention() {
        let cases = [
            (200, Level::Far),
            (150, Level::Far),
            (149, Level::Near),
            (120, Level::Near),
            (119, Level::VeryNear),
            (100, Level::VeryNear),
            (99, Level::Far),
        ];
        for (position, expected) in cases {
            assert_eq!(level(&at(position), &BY_AGE), expected, "{position}");
        }
        let settled = Log { high: 119, ..at(119) };
        assert_eq!(level(&settled, &BY_AGE), Level::Far, "nothing is left to be lost");
        let unasked = Log {
            younger_than_warn: None,
            younger_than_act: None,
            ..at(100)
        };
        assert_eq!(level(&unasked, &BY_AGE), Level::Far);
    }

    #[test]
    fn where_the_size_is_limited_the_distance_from_the_oldest_record_counts() {
        for (position, expected) in [
            (150, Level::Far),
            (149, Level::Near),
            (120, Level::Near),
            (119, Level::VeryNear),
        ] {
            assert_eq!(level(&at(position), &BY_SIZE), expected, "{position}");
        }
        let still_growing = Log { low: 0, ..at(1) };
        assert_eq!(level(&still_growing, &BY_SIZE), Level::Far, "nothing was removed yet");
        assert_eq!(level(&at(100), &Keeps::EVERYTHING), Level::Far);
    }
}
