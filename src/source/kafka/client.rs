//! The librdkafka client: its properties, and its callbacks, which run on the poll thread.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::KafkaError;
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr};
use rdkafka::{Offset, Statistics, TopicPartitionList};
use tokio::runtime::Handle;
use tokio::sync::mpsc::Sender;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::clients::forgotten::{Forgotten, TOLD_EVERY_MS};
use crate::clients::kafka::trust_the_machine;
use crate::event::delivery::{Assigned, Position, RawRecord, SourcePartition};
use crate::ledger::beginnings::Beginning;
use crate::ledger::claims::Claims;
use crate::source::kafka::behind::behind;
use crate::source::kafka::commits::{self, Commits};
use crate::source::kafka::objections::{Objections, meet};
use crate::source::kafka::retention::Frontiers;
use crate::source::kafka::{Options, assignment};
use crate::tally::reach;

/// Records that are passed on together.
pub(super) const BATCH_MAX: usize = 64;

/// Consumer of one group.
pub(super) type Client = BaseConsumer<Callbacks>;

/// What the poll thread passes on, in the order in which it happened.
#[derive(Debug)]
pub(super) enum Polled {
    Assigned {
        partitions: Vec<Assigned>,
    },
    Record {
        epoch: u64,
        partition: SourcePartition,
        position: Position,
        raw: RawRecord,
    },
    Revoking {
        partitions: Vec<SourcePartition>,
        reply: std::sync::mpsc::SyncSender<Vec<(SourcePartition, Position)>>,
    },
    Lost {
        partitions: Vec<SourcePartition>,
    },
}

/// State shared by the callbacks and the poll loop; both run on the poll thread.
pub(super) struct Callbacks {
    pub(super) options: Options,
    claims: Claims,
    /// Where the group began; known before it subscribes.
    beginning: OnceLock<Beginning>,
    /// Where each owned partition stands, for whoever watches over it.
    frontiers: Arc<watch::Sender<Frontiers>>,
    runtime: Handle,
    stop: watch::Receiver<bool>,
    /// Partitions were assigned that could not be claimed.
    unclaimed: AtomicBool,
    /// `None` when the client is being closed.
    records: Mutex<Option<Sender<Vec<Polled>>>>,
    /// What was polled and is not passed on yet, in order.
    polled: Mutex<Vec<Polled>>,
    /// Partitions owned now, with the epochs of their claims.
    epochs: Mutex<HashMap<SourcePartition, u64>>,
    /// What was committed last of each owned partition.
    commits: Mutex<Commits>,
    /// What brokers hold against us.
    objections: Objections,
    forgotten: Forgotten,
}

impl Callbacks {
    pub(super) fn new(
        options: Options,
        claims: Claims,
        runtime: Handle,
        records: Sender<Vec<Polled>>,
        frontiers: Arc<watch::Sender<Frontiers>>,
        stop: watch::Receiver<bool>,
    ) -> Self {
        Self {
            options,
            claims,
            beginning: OnceLock::new(),
            frontiers,
            runtime,
            stop,
            unclaimed: AtomicBool::new(false),
            records: Mutex::new(Some(records)),
            polled: Mutex::default(),
            epochs: Mutex::default(),
            commits: Mutex::default(),
            objections: Objections::default(),
            forgotten: Forgotten::default(),
        }
    }

    /// The epoch under which a partition is owned now.
    pub(super) fn epoch(&self, partition: &SourcePartition) -> Option<u64> {
        self.epochs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(partition)
            .copied()
    }

    /// Whether partitions are assigned that have no claim: they deliver nothing, so the assignment must be given back.
    pub(super) fn lacks_claims(&self) -> bool {
        self.unclaimed.load(Ordering::Relaxed)
    }

    /// Whether the client has forgotten every broker, and is of no use any more.
    pub(super) fn has_forgotten_brokers(&self) -> bool {
        self.forgotten.is_certain()
    }

    /// Tells where the group began. Before that nothing may be subscribed.
    pub(super) fn begin(&self, beginning: Beginning) {
        if self.beginning.set(beginning).is_err() {
            tracing::debug!(group = self.options.group, "the beginning was told already");
        }
    }

    /// Partitions owned now, with the epochs of their claims.
    pub(super) fn owned(&self) -> HashMap<SourcePartition, u64> {
        self.epochs.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many these are.
    pub(super) fn owned_count(&self) -> usize {
        self.epochs.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Commits positions of owned partitions; those that do not arrive are repeated by [`Self::answered`].
    pub(super) fn commit(&self, client: &Client, positions: &[(SourcePartition, Position)]) {
        self.commits().sent(positions, Instant::now());
        self.frontiers
            .send_modify(|frontiers| frontiers.extend(positions.iter().cloned()));
        if let Err(error) = commits::send(client, positions) {
            tracing::warn!(group = self.options.group, error = %error, "commit failed and is repeated");
        }
    }

    /// The brokers have answered which commits they know. Those that had been sent before they were asked and that they do
    /// not know are sent again.
    pub(super) fn answered(
        &self,
        client: &Client,
        asked: &[(SourcePartition, Position)],
        known: Vec<(SourcePartition, Position)>,
    ) {
        let now = Instant::now();
        for (partition, position) in known {
            self.commits().known(&partition, position, now);
        }
        let mut refused = self.commits().waiting();
        // What was sent meanwhile may be on its way.
        refused.retain(|newest| asked.contains(newest));
        if let Some((partition, _)) = refused.first() {
            tracing::warn!(group = self.options.group, %partition, partitions = refused.len(), "commit failed and is repeated");
            self.commit(client, &refused);
        }
    }

    /// What was committed.
    pub(super) fn commits(&self) -> MutexGuard<'_, Commits> {
        self.commits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Commits the last positions of partitions that go, and waits for it. What is not known by then is delivered again, and
    /// the ledger knows what was done.
    pub(super) fn commit_last(&self, client: &Client, positions: &[(SourcePartition, Position)]) {
        if positions.is_empty() {
            return;
        }
        if let Err(error) = commits::commit_within(client, positions, self.options.budgets.commit) {
            tracing::warn!(
                group = self.options.group,
                error,
                "commit failed; what it covered is delivered again and met by the ledger"
            );
        }
    }

    /// Passes something on: records in batches, because waking the decoding task costs more than copying a record;
    /// everything else at once, behind the records polled before it.
    pub(super) fn pass_on(&self, polled: Polled) {
        let is_record = matches!(polled, Polled::Record { .. });
        let mut batch = self.polled.lock().unwrap_or_else(PoisonError::into_inner);
        batch.push(polled);
        let is_full = batch.len() >= BATCH_MAX;
        drop(batch);
        if is_full || !is_record {
            self.flush();
        }
    }

    /// Whether something was polled that is not passed on yet.
    pub(super) fn is_holding(&self) -> bool {
        !self.polled.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Passes on what was polled; the decoding task always drains its channel, so this blocks only while it is busy.
    pub(super) fn flush(&self) {
        let batch = std::mem::take(&mut *self.polled.lock().unwrap_or_else(PoisonError::into_inner));
        if batch.is_empty() {
            return;
        }
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        if records
            .as_ref()
            .is_none_or(|records| records.blocking_send(batch).is_err())
        {
            tracing::debug!(group = self.options.group, "the decoding task has already ended");
        }
    }

    /// The client is about to be closed: whatever its callbacks are still told concerns nobody.
    pub(super) fn retire(&self) {
        self.epochs.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.commits().forget_all();
        self.frontiers.send_modify(Frontiers::clear);
        self.options.events_behind.tell(None);
        *self.records.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn is_retired(&self) -> bool {
        self.records.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// All partitions are gone without a chance to commit.
    pub(super) fn lose_all(&self) {
        let partitions: Vec<SourcePartition> = self.owned().into_keys().collect();
        self.frontiers.send_modify(Frontiers::clear);
        self.epochs.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.commits().forget_all();
        if !partitions.is_empty() {
            self.pass_on(Polled::Lost { partitions });
        }
    }

    /// Claims partitions, and says where each of them begins.
    ///
    /// The client would ask for the committed offsets once more. When that answer is an error (a coordinator that has only
    /// just started), librdkafka (2.12.1) never asks again: it fetches nothing of these partitions, and cannot let others of
    /// them go either, so that the whole group waits for it.
    fn assign(&self, client: &Client, partitions: &mut TopicPartitionList) {
        let names = names(partitions);
        if names.is_empty() || self.is_retired() {
            return;
        }
        let budget = self.options.budgets.claim;
        let asking = assignment::Asking::new(client, &self.claims, &self.runtime, &self.stop, budget);
        let beginning = self
            .beginning
            .get()
            .expect("the beginning is told before anything is subscribed");
        let claimed = asking.claim(&names, beginning);
        if claimed.len() < names.len() {
            self.unclaimed.store(true, Ordering::Relaxed);
        }
        let standing: Vec<(SourcePartition, Position)> = claimed
            .iter()
            .filter_map(|claimed| Some((claimed.partition.clone(), claimed.position?)))
            .collect();
        for (partition, position) in &standing {
            let offset = Offset::Offset(position.0);
            if let Err(error) = partitions.set_partition_offset(&partition.topic, partition.partition, offset) {
                tracing::warn!(%partition, error = %error, "the client asks by itself where the partition begins");
            }
        }
        self.frontiers.send_modify(|frontiers| frontiers.extend(standing));
        let owned = claimed.iter().map(|claimed| (claimed.partition.clone(), claimed.epoch));
        let mut epochs = self.epochs.lock().unwrap_or_else(PoisonError::into_inner);
        epochs.extend(owned);
        drop(epochs);
        let claimed = claimed
            .into_iter()
            .map(|claimed| Assigned {
                partition: claimed.partition,
                epoch: claimed.epoch,
                inherited: claimed.inherited,
            })
            .collect();
        self.pass_on(Polled::Assigned { partitions: claimed });
    }

    fn revoke(&self, client: &Client, partitions: &TopicPartitionList) {
        let gone = names(partitions);
        let mut epochs = self.epochs.lock().unwrap_or_else(PoisonError::into_inner);
        let partitions: Vec<SourcePartition> = gone.into_iter().filter(|name| epochs.remove(name).is_some()).collect();
        drop(epochs);
        self.commits().forget(&partitions);
        self.frontiers
            .send_modify(|frontiers| frontiers.retain(|partition, _| !partitions.contains(partition)));
        if partitions.is_empty() {
            return;
        }
        if client.assignment_lost() {
            self.pass_on(Polled::Lost { partitions });
            return;
        }
        let (reply, answered) = std::sync::mpsc::sync_channel(1);
        self.pass_on(Polled::Revoking { partitions, reply });
        match answered.recv_timeout(self.options.budgets.revoke) {
            Ok(positions) => self.commit_last(client, &positions),
            Err(_) => tracing::warn!(
                group = self.options.group,
                budget_ms = self.options.budgets.revoke.as_millis(),
                "revocation was not answered within its budget: nothing was committed, the next owner runs it again"
            ),
        }
    }
}

impl ClientContext for Callbacks {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
                tracing::warn!(group = self.options.group, facility, "librdkafka: {message}");
            }
            RDKafkaLogLevel::Warning | RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
                tracing::debug!(group = self.options.group, facility, "librdkafka: {message}");
            }
        }
    }

    fn stats(&self, statistics: Statistics) {
        let behind = behind(&statistics, &self.frontiers.borrow());
        self.options.events_behind.tell(behind);
        meet(&statistics, &reach::KAFKA, &self.objections);
        self.forgotten.see(&statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // The poll loop meets the same error and says it once, without the reason.
        tracing::debug!(group = self.options.group, error = %error, "kafka client: {reason}");
        self.objections.hear(&self.options, &error, reason);
    }
}

impl ConsumerContext for Callbacks {
    /// As the default does: everything at once, or by difference, as the protocol asks for.
    fn rebalance(&self, client: &Client, event: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let by_difference = matches!(client.rebalance_protocol(), RebalanceProtocol::Cooperative);
        let done = match event {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                self.assign(client, partitions);
                if by_difference {
                    client.incremental_assign(partitions)
                } else {
                    client.assign(partitions)
                }
            }
            event => {
                if event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS {
                    self.revoke(client, partitions);
                } else {
                    let error = RDKafkaErrorCode::from(event);
                    tracing::warn!(group = self.options.group, error = %error, "rebalance failed");
                }
                if by_difference {
                    client.incremental_unassign(partitions)
                } else {
                    client.unassign()
                }
            }
        };
        if let Err(error) = done {
            let partitions = partitions.count();
            tracing::warn!(
                group = self.options.group,
                partitions,
                error = %error,
                "the client did not take a rebalance; it is told of the next one"
            );
        }
    }
}

fn names(partitions: &TopicPartitionList) -> Vec<SourcePartition> {
    let elements = partitions.elements();
    elements
        .iter()
        .map(|element| SourcePartition {
            topic: element.topic().into(),
            partition: element.partition(),
        })
        .collect()
}

/// The client's properties: ours first, then the user's, then those on which the promises depend.
pub(super) fn config(options: &Options) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &options.brokers)
        .set("group.id", &options.group)
        .set("topic.metadata.refresh.interval.ms", "5000")
        .set("fetch.wait.max.ms", "100")
        // What waits in memory instead of at the broker is memory for nothing: a few fetches ahead are enough, and a fetch
        // that finds no room is tried again before what is there is worked on. A record that is larger comes by itself.
        .set("fetch.queue.backoff.ms", "5")
        .set("queued.min.messages", "10000")
        .set("queued.max.messages.kbytes", "4096")
        .set("fetch.message.max.bytes", "262144")
        .set("socket.keepalive.enable", "true");
    for (name, value) in &options.properties {
        config.set(name, value);
    }
    trust_the_machine(&mut config);
    for (name, value) in options.membership.properties(&options.group) {
        config.set(name, value);
    }
    config
        .set("statistics.interval.ms", TOLD_EVERY_MS)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("allow.auto.create.topics", "false")
        .set("enable.partition.eof", "false")
        .set("isolation.level", "read_committed");
    // Whoever sets `debug` wants to read what librdkafka then says (at level debug of this module).
    let level = if config.get("debug").is_some() {
        RDKafkaLogLevel::Debug
    } else {
        RDKafkaLogLevel::Warning
    };
    config.set_log_level(level);
    config
}
