//! What a broker says of groups: their members, their positions, how long records have waited; and writing a position.
//!
//! Everything blocks, for a bounded time, and joins no group. A position is written as a member of a group without members
//! would: the broker refuses it while the group has any.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use chrono::{DateTime, Utc};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::Message;
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr};
use rdkafka::{Offset, TopicPartitionList};
use serde::Serialize;
use tokio::time::Instant;

use crate::clients::brokers::{Access, Listener, Unanswered, first_answer};
use crate::clients::kafka::{QUESTION_TIMEOUT, bounds, client_config, is_away};
use crate::groups::partition::Position;
use crate::hindrance::Hindered;

/// Longest wait for whether one topic may be described.
const DENIAL_MAX: Duration = Duration::from_secs(2);

/// How long a group's coordinator is waited for before the client's own errors are listened to.
const LISTENED_EVERY: Duration = Duration::from_secs(1);

/// Partitions that are asked for their bounds at once.
const ASKED_AT_ONCE: usize = 16;

/// Longest time for reading the first waiting record of every partition of a group.
const READ_MAX: Duration = Duration::from_secs(5);

/// When no record came for so long, the rest have none: what is left are markers of transactions.
const QUIET_MAX: Duration = Duration::from_millis(1_500);

/// What a broker answers who writes a position of a group that has members.
const HAS_MEMBERS: [RDKafkaErrorCode; 4] = [
    RDKafkaErrorCode::UnknownMemberId,
    RDKafkaErrorCode::IllegalGeneration,
    RDKafkaErrorCode::RebalanceInProgress,
    RDKafkaErrorCode::NonEmptyGroup,
];

/// A client that only asks.
type Client = BaseConsumer<Listener>;

/// The broker could not be asked, or refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The properties were refused.
    #[error("the kafka client could not be made: are kafka.properties right?")]
    Client(#[source] KafkaError),
    /// A broker lets nobody in who comes like this.
    #[error(transparent)]
    Refused(Hindered),
    /// There was no answer, or a refusal.
    #[error("kafka at {0} could not be asked for {1}", .what.0, .what.1)]
    Asked {
        /// Where, and what for.
        what: Box<(String, String)>,
        /// What librdkafka said.
        #[source]
        source: KafkaError,
    },
    /// Members joined the group meanwhile.
    #[error("group {group} has members again, so its position was not moved: stop them, then repeat the command")]
    Running {
        /// The group.
        group: String,
    },
    /// The position could not be written.
    #[error("the position of group {group} could not be written")]
    Written {
        /// The group.
        group: String,
        /// What librdkafka said.
        #[source]
        source: KafkaError,
    },
}

impl Error {
    /// Whether the broker does not let this principal do it.
    pub fn is_denied(&self) -> bool {
        match self {
            Self::Asked { source, .. } | Self::Written { source, .. } => matches!(
                source.rdkafka_error_code(),
                Some(RDKafkaErrorCode::GroupAuthorizationFailed)
            ),
            Self::Client(_) | Self::Refused(_) | Self::Running { .. } => false,
        }
    }

    /// Whether the broker was away: asking again later may help.
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Asked { source, .. } | Self::Written { source, .. } => is_away(source),
            Self::Client(_) | Self::Refused(_) | Self::Running { .. } => false,
        }
    }
}

/// A group as its coordinator knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Membership {
    /// `Stable`, `PreparingRebalance`, `CompletingRebalance`, `Empty`, `Dead`; empty when the broker does not know the group.
    pub state: String,
    /// Who is in it.
    pub members: Vec<Member>,
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Member {
    /// Its number, given by the coordinator.
    pub id: String,
    /// Where it connects from.
    pub host: String,
}

/// Where a group is on its partitions, and the partitions of which that could not be found out.
#[derive(Debug, Default)]
pub struct Positions {
    /// By topic and number.
    pub known: Vec<Position>,
    /// Partitions that did not answer, with the reason.
    pub silent: Vec<(String, i32, String)>,
}

/// A broker that has answered once.
pub struct Broker {
    options: Access,
    reader: Client,
    partitions: BTreeMap<String, Vec<i32>>,
    /// Of each topic, how many replicas the partition has that has fewest.
    replicas: BTreeMap<String, i32>,
    brokers: i32,
}

impl std::fmt::Debug for Broker {
    /// Leaves out the client, which knows credentials.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Broker")
            .field("brokers", &self.options.brokers)
            .finish_non_exhaustive()
    }
}

impl Broker {
    /// Asks which topics there are. Blocks for at most ten seconds.
    ///
    /// # Errors
    /// When the properties are refused, or the broker does not answer.
    pub fn connect(options: Access) -> Result<Self, Error> {
        let reader = client(&options, "afterwrite.reader")?;
        let asked = first_answer(&reader, QUESTION_TIMEOUT);
        let metadata = asked.map_err(|unanswered| match unanswered {
            Unanswered::Refused(hindered) => Error::Refused(hindered),
            Unanswered::Silent(source) => Error::Asked {
                what: Box::new((options.brokers.clone(), "its topics".to_owned())),
                source,
            },
        })?;
        let numbers =
            |topic: &rdkafka::metadata::MetadataTopic| topic.partitions().iter().map(|known| known.id()).collect();
        let topics = metadata.topics().iter();
        let partitions = topics.map(|topic| (topic.name().to_owned(), numbers(topic))).collect();
        let fewest = |topic: &rdkafka::metadata::MetadataTopic| {
            let replicas = topic.partitions().iter().map(|known| known.replicas().len()).min();
            (topic.name().to_owned(), count(replicas.unwrap_or_default()))
        };
        let replicas = metadata.topics().iter().map(fewest).collect();
        let brokers = count(metadata.brokers().len());
        Ok(Self {
            replicas,
            brokers,
            options,
            reader,
            partitions,
        })
    }

    /// Every topic, with its number of partitions and of replicas.
    pub fn layout(&self) -> impl Iterator<Item = (&str, i32, i32)> {
        self.partitions.iter().map(|(name, numbers)| {
            (
                name.as_str(),
                count(numbers.len()),
                self.replicas.get(name).copied().unwrap_or_default(),
            )
        })
    }

    /// Whether a topic may not be described. A list of all topics leaves such out; this asks for the one by its name, and so tells
    /// one that may not be seen from one that is not there.
    pub fn may_not_describe(&self, topic: &str) -> bool {
        let asked = self.reader.fetch_metadata(Some(topic), DENIAL_MAX);
        let denied = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
        asked.is_ok_and(|metadata| metadata.topics().iter().any(|known| known.error() == Some(denied)))
    }

    /// How many brokers there are.
    pub fn brokers(&self) -> i32 {
        self.brokers
    }

    /// The topics whose names begin so.
    pub fn topics(&self, beginning: &str) -> BTreeSet<String> {
        let names = self.partitions.keys().filter(|name| name.starts_with(beginning));
        names.cloned().collect()
    }

    /// The groups whose names begin so, as far as the broker knows them.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub fn groups(&self, beginning: &str) -> Result<BTreeSet<String>, Error> {
        let list = self.reader.fetch_group_list(None, QUESTION_TIMEOUT);
        let list = list.map_err(|source| self.failed("its groups", source))?;
        let names = list.groups().iter().map(|group| group.name().to_owned());
        Ok(names.filter(|name| name.starts_with(beginning)).collect())
    }

    /// Who is in a group.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub fn membership(&self, group: &str) -> Result<Membership, Error> {
        let list = self.reader.fetch_group_list(Some(group), QUESTION_TIMEOUT);
        let list = list.map_err(|source| self.failed(&format!("the members of group {group}"), source))?;
        let Some(known) = list.groups().iter().find(|known| known.name() == group) else {
            return Ok(Membership::default());
        };
        let member = |member: &rdkafka::groups::GroupMemberInfo| Member {
            id: member.id().to_owned(),
            host: member.client_host().trim_start_matches('/').to_owned(),
        };
        Ok(Membership {
            state: known.state().to_owned(),
            members: known.members().iter().map(member).collect(),
        })
    }

    /// Where a group is on every partition of these topics; a topic that does not exist has none.
    ///
    /// # Errors
    /// When the group's coordinator does not answer.
    pub fn positions(&self, group: &str, topics: &BTreeSet<String>) -> Result<Positions, Error> {
        let client = client(&self.options, group)?;
        let wanted = topics.iter().filter_map(|topic| self.partitions.get_key_value(topic));
        let places: Vec<(&str, i32)> = wanted
            .flat_map(|(topic, numbers)| numbers.iter().map(|number| (topic.as_str(), *number)))
            .collect();
        if places.is_empty() {
            return Ok(Positions::default());
        }
        let committed = self.committed(&client, group, &places)?;
        let mut positions = Positions::default();
        let asked = places.len().div_ceil(ASKED_AT_ONCE);
        let answers: Vec<KafkaResult<(i64, i64)>> = std::thread::scope(|scope| {
            let ask = |places: &[(&str, i32)]| {
                let asking = places
                    .iter()
                    .map(|(topic, partition)| bounds(&self.reader, topic, *partition));
                asking.collect::<Vec<_>>()
            };
            let threads: Vec<_> = places
                .chunks(asked)
                .map(|places| scope.spawn(move || ask(places)))
                .collect();
            let ended = threads
                .into_iter()
                .map(|thread| thread.join().expect("asking does not panic"));
            ended.flatten().collect()
        });
        for ((topic, partition), answer) in places.into_iter().zip(answers) {
            match answer {
                Ok((oldest, end)) => positions.known.push(Position {
                    topic: topic.to_owned(),
                    partition,
                    committed: offset_of(&committed, topic, partition),
                    oldest,
                    end,
                    waiting_since_ms: None,
                }),
                Err(error) => positions.silent.push((topic.to_owned(), partition, error.to_string())),
            }
        }
        Ok(positions)
    }

    fn committed(&self, client: &Client, group: &str, places: &[(&str, i32)]) -> Result<TopicPartitionList, Error> {
        let failed = |source| self.failed(&format!("the committed offsets of group {group}"), source);
        let mut list = TopicPartitionList::new();
        for (topic, partition) in places {
            list.add_partition(topic, *partition);
        }
        let answer = ask_coordinator(client, &list).map_err(failed)?;
        // A question that failed for one partition must not pass for "nothing was committed" there.
        for element in answer.elements() {
            element.error().map_err(failed)?;
        }
        Ok(answer)
    }

    /// Reads the first waiting record of each partition, all at once, and keeps its timestamp. What does not come in time is
    /// left unknown.
    ///
    /// # Errors
    /// When the client refuses.
    pub fn read_waiting(&self, positions: &mut [Position]) -> Result<(), Error> {
        let failed = |source| self.failed("the records that wait", source);
        let mut list = TopicPartitionList::new();
        let mut missing: HashMap<(String, i32), usize> = HashMap::new();
        for (index, position) in positions.iter().enumerate().filter(|(_, position)| position.lag() > 0) {
            let first = position.committed.unwrap_or(position.oldest).max(position.oldest);
            list.add_partition_offset(&position.topic, position.partition, Offset::Offset(first))
                .map_err(failed)?;
            missing.insert((position.topic.clone(), position.partition), index);
        }
        if missing.is_empty() {
            return Ok(());
        }
        let reader = client(&self.options, "afterwrite.reader")?;
        reader.assign(&list).map_err(failed)?;
        let deadline = Instant::now() + READ_MAX;
        let mut quiet = Instant::now() + QUIET_MAX * 2;
        while !missing.is_empty() && Instant::now() < deadline.min(quiet) {
            let Some(Ok(message)) = reader.poll(Duration::from_millis(100)) else {
                continue;
            };
            let place = (message.topic().to_owned(), message.partition());
            if let Some(index) = missing.remove(&place) {
                positions[index].waiting_since_ms = message.timestamp().to_millis();
                quiet = Instant::now() + QUIET_MAX;
                let mut read = TopicPartitionList::new();
                read.add_partition(&place.0, place.1);
                reader.pause(&read).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Per position the first offset whose record was written at that time or later; the end where there is none.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub fn offsets_at(&self, positions: &[Position], time: DateTime<Utc>) -> Result<Vec<i64>, Error> {
        let failed = |source| self.failed(&format!("the offsets at {time}"), source);
        let mut list = TopicPartitionList::new();
        for position in positions {
            list.add_partition_offset(
                &position.topic,
                position.partition,
                Offset::Offset(time.timestamp_millis()),
            )
            .map_err(failed)?;
        }
        let found = self.reader.offsets_for_times(list, QUESTION_TIMEOUT).map_err(failed)?;
        for element in found.elements() {
            element.error().map_err(failed)?;
        }
        let offsets = positions
            .iter()
            .map(|position| offset_of(&found, &position.topic, position.partition).unwrap_or(position.end));
        Ok(offsets.collect())
    }

    /// Writes the position of a group that has no members.
    ///
    /// # Errors
    /// When the group has members, or the broker does not answer.
    pub fn commit(&self, group: &str, offsets: &[(&str, i32, i64)]) -> Result<(), Error> {
        let client = client(&self.options, group)?;
        let mut list = TopicPartitionList::new();
        let added = offsets.iter().try_for_each(|(topic, partition, offset)| {
            list.add_partition_offset(topic, *partition, Offset::Offset(*offset))
        });
        let written = added.and_then(|()| client.commit(&list, CommitMode::Sync));
        written.map_err(|source| match source.rdkafka_error_code() {
            Some(code) if HAS_MEMBERS.contains(&code) => Error::Running {
                group: group.to_owned(),
            },
            _ => Error::Written {
                group: group.to_owned(),
                source,
            },
        })
    }

    fn failed(&self, what: &str, source: KafkaError) -> Error {
        Error::Asked {
            what: Box::new((self.options.brokers.clone(), what.to_owned())),
            source,
        }
    }
}

/// Asks a group's coordinator for what was committed. Who may not know the group is told nothing of its coordinator, which the
/// client looks for until its time is over; that it was denied stands among its own errors.
fn ask_coordinator(client: &Client, list: &TopicPartitionList) -> KafkaResult<TopicPartitionList> {
    let deadline = Instant::now() + QUESTION_TIMEOUT;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match client.committed_offsets(list.clone(), left.min(LISTENED_EVERY)) {
            Err(error) if is_away(&error) && left > LISTENED_EVERY => {}
            answer => return answer,
        }
        let denied = RDKafkaErrorCode::GroupAuthorizationFailed;
        while let Some(heard) = client.poll(Duration::ZERO) {
            match heard {
                Err(error) if error.rdkafka_error_code() == Some(denied) => return Err(error),
                _ => {}
            }
        }
    }
}

/// A client that knows the name of a group and never joins it: partitions are assigned by hand, if at all.
fn client(options: &Access, group: &str) -> Result<Client, Error> {
    let mut config = client_config(&options.brokers, &options.properties);
    config
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("allow.auto.create.topics", "false")
        // One record of each partition is wanted; a larger one comes all the same.
        .set("fetch.message.max.bytes", "65536")
        .set("fetch.wait.max.ms", "50");
    Listener::client(config, options.clone()).map_err(Error::Client)
}

fn count(many: usize) -> i32 {
    i32::try_from(many).unwrap_or(i32::MAX)
}

fn offset_of(list: &TopicPartitionList, topic: &str, partition: i32) -> Option<i64> {
    match list.find_partition(topic, partition).map(|element| element.offset()) {
        Some(Offset::Offset(offset)) => Some(offset),
        _ => None,
    }
}
