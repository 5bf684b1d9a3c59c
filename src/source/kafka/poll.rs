//! The poll thread: polls, pauses, resumes and commits, and nothing else.
//!
//! What is polled of a partition that is to pause is held back, and the others are polled on. A pause in the client purges
//! what librdkafka has prefetched, so it comes only when more is held back than there is room for.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use bytes::Bytes;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{BorrowedMessage, Header, Headers, Message};
use rdkafka::types::RDKafkaErrorCode;
use tokio::runtime::Handle;
use tokio::sync::mpsc::Sender;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::clients::denied::Denied;
use crate::clients::kafka::hide_value;
use crate::event::delivery::{Position, RawRecord, Settled, SourceCommand, SourcePartition};
use crate::source::kafka::asking::Asking;
use crate::source::kafka::client::{self, Callbacks, Client, Polled};
use crate::source::kafka::gaps::Gaps;
use crate::source::kafka::pauses::{Pauser, Pauses};
use crate::source::kafka::retention::Frontiers;
use crate::source::kafka::{Kept, Options, beginning};

/// Longest time in one poll; commands wait no longer than this.
const POLL_MAX: Duration = Duration::from_millis(50);

/// The same while a partition is paused: it goes on with the command that ends that.
const PAUSED_POLL_MAX: Duration = Duration::from_millis(5);

/// Longest wait for a client to leave its group and close. One whose brokers keep silent would take minutes.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// How much longer than a session commits may stay without an acknowledgement. Where sessions are the member's affair,
/// librdkafka notices their end first, and says it better.
const UNACKNOWLEDGED_SLACK: Duration = Duration::from_secs(5);

/// Pause between questions for a group's beginning, and how many of them go by before it is said what is waited for.
const BEGIN_PAUSE: Duration = Duration::from_millis(500);
const TRIES_PER_WARNING: u32 = 10;

/// How often an error that lasts is logged.
const COMPLAIN_EVERY: Duration = Duration::from_secs(30);

/// First and longest pause before a client that failed for good is built anew.
const REBUILD_PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// What is said of a client that nothing else can be done with; see [`crate::clients::forgotten`].
const FORGOT: &str = "it has forgotten every broker, and looks for none (librdkafka issue 5301)";

/// Where orders come from.
pub(super) struct Orders {
    engine: Receiver<SourceCommand>,
    decoding: Receiver<SourceCommand>,
}

impl Orders {
    pub(super) fn new(engine: Receiver<SourceCommand>, decoding: Receiver<SourceCommand>) -> Self {
        Self { engine, decoding }
    }
}

/// The poll thread's state.
pub(super) struct Poller {
    options: Options,
    kept: Kept,
    stop: watch::Receiver<bool>,
    records: Sender<Vec<Polled>>,
    runtime: Handle,
    orders: Orders,
    pauses: Pauses,
    topics: HashMap<String, Arc<str>>,
    gaps: Gaps,
    frontiers: Arc<watch::Sender<Frontiers>>,
    first_client: Option<Client>,
    /// What was complained of last, and until when it is not said again.
    complaint: Option<(String, Instant)>,
}

/// Why polling one client ended.
enum End {
    Leave(Vec<Settled>),
    Failed(String),
    /// Another process has taken our name over, and our partitions with it.
    Fenced,
    /// Another process has our name still.
    Unreleased,
}

impl Poller {
    /// Makes the first client, which checks the properties.
    pub(super) fn new(
        options: Options,
        kept: Kept,
        records: Sender<Vec<Polled>>,
        orders: Orders,
        frontiers: watch::Sender<Frontiers>,
        stop: watch::Receiver<bool>,
    ) -> KafkaResult<Self> {
        let mut poller = Self {
            options,
            kept,
            stop,
            records,
            runtime: Handle::current(),
            orders,
            pauses: Pauses::new(),
            topics: HashMap::new(),
            gaps: Gaps::default(),
            frontiers: Arc::new(frontiers),
            first_client: None,
            complaint: None,
        };
        poller.first_client = Some(poller.client()?);
        Ok(poller)
    }

    fn client(&self) -> KafkaResult<Client> {
        let callbacks = Callbacks::new(
            self.options.clone(),
            self.kept.claims.clone(),
            self.runtime.clone(),
            self.records.clone(),
            Arc::clone(&self.frontiers),
            self.stop.clone(),
        );
        client::config(&self.options)
            .create_with_context(callbacks)
            .map_err(hide_value)
    }

    /// Polls until told to leave. A client that fails for good ends its epochs and is built anew.
    pub(super) fn run(mut self) {
        let mut pause = REBUILD_PAUSES.0;
        loop {
            let end = match self.first_client.take().map_or_else(|| self.client(), Ok) {
                Ok(client) => {
                    let end = self.poll_until_end(&client);
                    if client.context().commits().was_acknowledged() || matches!(end, End::Unreleased) {
                        pause = REBUILD_PAUSES.0;
                    }
                    client.context().retire();
                    self.say(&end);
                    close(&self.options.group, client);
                    end
                }
                Err(error) => {
                    let end = End::Failed(error.to_string());
                    self.say(&end);
                    end
                }
            };
            if matches!(end, End::Leave(_) | End::Fenced) {
                return;
            }
            if self.told_to_leave_within(pause) {
                return;
            }
            pause = (pause * 2).min(REBUILD_PAUSES.1);
        }
    }

    /// Says why a client has ended.
    fn say(&self, end: &End) {
        let group = &self.options.group;
        match end {
            End::Leave(_) => {}
            End::Failed(error) => tracing::error!(group, error, "kafka client failed for good; building a new one"),
            End::Unreleased => tracing::warn!(
                group,
                "another member of the group has this kafka.instance_id; waiting until it has left or its session is over"
            ),
            End::Fenced => tracing::error!(
                group,
                "another process has joined the group with this kafka.instance_id and taken the partitions over: give each \
                 process one of its own"
            ),
        }
    }

    fn poll_until_end(&mut self, client: &Client) -> End {
        if let Some(end) = self.begin(client) {
            return end;
        }
        let topics: Vec<&str> = self.options.topics.iter().map(String::as_str).collect();
        let end = match client.subscribe(&topics) {
            Ok(()) => std::thread::scope(|scope| match Asking::start(scope, client) {
                Ok(asking) => self.poll(client, asking),
                Err(error) => End::Failed(error.to_string()),
            }),
            Err(error) => End::Failed(error.to_string()),
        };
        match &end {
            End::Leave(settled) => {
                client.context().commit_last(client, &self.still_owned(client, settled));
                tracing::info!(group = self.options.group, "leaving the consumer group");
            }
            End::Failed(_) | End::Fenced | End::Unreleased => client.context().lose_all(),
        }
        end
    }

    /// Finds out where the group begins, for as long as it takes; an end when the process was stopped before, or the client is of no
    /// use.
    fn begin(&mut self, client: &Client) -> Option<End> {
        let mut tried = 0_u32;
        loop {
            match beginning::ask(&self.options, &self.kept, client, &self.runtime) {
                Ok(beginning) => {
                    client.context().begin(beginning);
                    return None;
                }
                Err(error) if tried.is_multiple_of(TRIES_PER_WARNING) => {
                    tracing::warn!(
                        group = self.options.group,
                        error,
                        "waiting for the group's beginning before the first fetch"
                    );
                }
                Err(_) => {}
            }
            tried += 1;
            if self.told_to_leave_within(BEGIN_PAUSE) {
                return Some(End::Leave(Vec::new()));
            }
            // Nothing is subscribed yet: this only hears what the client tells of itself.
            if let Some(Err(error)) = client.poll(Duration::ZERO) {
                self.complained(&error);
            }
            if client.context().has_forgotten_brokers() {
                return Some(End::Failed(FORGOT.to_owned()));
            }
        }
    }

    fn poll(&mut self, client: &Client, mut asking: Asking) -> End {
        let unacknowledged_max = self.options.membership.protocol.session() + UNACKNOWLEDGED_SLACK;
        loop {
            if let Some(end) = self.obey(client) {
                return end;
            }
            // A process that stops claims nothing more; what it runs goes on until it has ended.
            if client.context().lacks_claims() && !*self.stop.borrow() {
                return End::Failed("partitions were assigned that could not be claimed in postgres".to_owned());
            }
            if client.context().has_forgotten_brokers() {
                return End::Failed(FORGOT.to_owned());
            }
            self.pauses.release(client);
            // A client none of whose commits reach the broker for a whole session is given up: its partitions may have been
            // somebody else's for long, and some defects of the client library heal in no other way.
            if let Some(waited) = asking.go_on(client).filter(|waited| *waited > unacknowledged_max) {
                let seconds = waited.as_secs();
                return End::Failed(format!("no commit reached the group's coordinator for {seconds} s"));
            }
            self.gaps.name(client, || client.context().owned());
            // What is there is taken without waiting; before the thread waits, what it holds is passed on.
            let patience = match (client.context().is_holding(), self.pauses.is_holding()) {
                (true, _) => Duration::ZERO,
                (false, true) => PAUSED_POLL_MAX,
                (false, false) => POLL_MAX,
            };
            match client.poll(patience) {
                None => client.context().flush(),
                Some(Ok(message)) => self.take(client, &message),
                Some(Err(error)) => match client.client().fatal_error() {
                    Some((code, reason)) => return fatal(&self.options.group, code, reason),
                    None => self.complained(&error),
                },
            }
        }
    }

    /// Carries out the commands that have arrived.
    fn obey(&mut self, client: &Client) -> Option<End> {
        while let Ok(command) = self.orders.decoding.try_recv() {
            self.pauses.order(Pauser::Decoding, command);
        }
        loop {
            match self.orders.engine.try_recv() {
                Ok(SourceCommand::Commit(settled)) => {
                    client.context().commit(client, &self.still_owned(client, &settled));
                }
                Ok(SourceCommand::Leave(settled)) => return Some(End::Leave(settled)),
                Ok(command) => self.pauses.order(Pauser::Engine, command),
                Err(TryRecvError::Empty) => return None,
                // The engine is gone without a word: nothing more can be settled.
                Err(TryRecvError::Disconnected) => return Some(End::Leave(Vec::new())),
            }
        }
    }

    fn still_owned(&self, client: &Client, settled: &[Settled]) -> Vec<(SourcePartition, Position)> {
        let owned = settled
            .iter()
            .filter(|settled| client.context().epoch(&settled.partition) == Some(settled.epoch));
        owned
            .map(|settled| (settled.partition.clone(), settled.position))
            .collect()
    }

    /// Passes a record on, or holds it back when its partition is to pause.
    fn take(&mut self, client: &Client, message: &BorrowedMessage<'_>) {
        let partition = SourcePartition {
            topic: self.topic(message.topic()),
            partition: message.partition(),
        };
        // Partitions without a claim deliver nothing.
        let Some(epoch) = client.context().epoch(&partition) else {
            return;
        };
        let record = Polled::Record {
            epoch,
            position: Position(message.offset()),
            raw: copy(message),
            partition: partition.clone(),
        };
        if self.pauses.wanted(&partition, epoch) {
            self.pauses.hold(client, &partition, (epoch, record));
        } else {
            client.context().pass_on(record);
        }
    }

    fn topic(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.topics.get(name) {
            return Arc::clone(known);
        }
        let topic: Arc<str> = name.into();
        self.topics.insert(name.to_owned(), Arc::clone(&topic));
        topic
    }

    fn complained(&mut self, error: &KafkaError) {
        let group = &self.options.group;
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                self.gaps.suspect();
            }
            // Said with what is told beside it, where it names the topic.
            Some(RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::GroupAuthorizationFailed) => {
                tracing::debug!(group, error = %error, "a right is missing");
            }
            // A table that nobody has written to yet has no topic; it is picked up when it appears.
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                tracing::debug!(group, error = %error, "a subscribed topic does not exist yet");
            }
            _ => {
                // A broker that is down is met ten times a second: it is said when it begins, and now and then.
                let said = self
                    .complaint
                    .as_ref()
                    .is_some_and(|(text, until)| *text == error.to_string() && Instant::now() < *until);
                if !said {
                    tracing::warn!(group, error = %error, "polling failed and goes on");
                    self.complaint = Some((error.to_string(), Instant::now() + COMPLAIN_EVERY));
                }
            }
        }
    }

    fn told_to_leave_within(&self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.orders.engine.recv_timeout(left) {
                Ok(SourceCommand::Leave(_)) | Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return true,
                Ok(_) => {}
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => return false,
            }
        }
    }
}

/// Closes a client, in a thread of its own: it is retired, so nothing is lost when it takes longer than anybody waits for.
fn close(group: &str, client: Client) {
    let (closing, closed) = std::sync::mpsc::sync_channel::<()>(1);
    let thread = std::thread::Builder::new()
        .name(format!("close {group}"))
        .spawn(move || {
            drop(client);
            drop(closing);
        });
    let waited = closed.recv_timeout(CLOSE_MAX);
    if thread.is_err() || waited == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
        tracing::warn!(
            group,
            "the kafka client could not leave its group yet; the group waits for the end of its session"
        );
    }
}

/// What follows from an error after which the client does nothing more.
fn fatal(group: &str, code: RDKafkaErrorCode, reason: String) -> End {
    match code {
        RDKafkaErrorCode::GroupAuthorizationFailed => End::Failed(Denied::running(group).to_string()),
        RDKafkaErrorCode::FencedInstanceId => End::Fenced,
        RDKafkaErrorCode::UnreleasedInstanceId => End::Unreleased,
        _ => End::Failed(reason),
    }
}

/// Copies a record out of the fetch buffer: one record that is kept would otherwise keep the whole buffer. Its parts
/// share one allocation.
pub(super) fn copy(message: &BorrowedMessage<'_>) -> RawRecord {
    // Asked once: the client looks each header up and measures its name.
    let headers = message.headers();
    let headers: Vec<Header<'_, &[u8]>> = headers.into_iter().flat_map(Headers::iter).collect();
    let (key, value) = (message.key(), message.payload());
    let values = || headers.iter().map(|header| header.value);
    let bytes = key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len);
    let mut whole = Vec::with_capacity(bytes + values().flatten().map(<[u8]>::len).sum::<usize>());
    for part in [key, value].into_iter().chain(values()) {
        whole.extend_from_slice(part.unwrap_or_default());
    }
    let mut rest = Bytes::from(whole);
    let mut take = |part: Option<&[u8]>| part.map(|part| rest.split_to(part.len()));
    RawRecord {
        key: take(key),
        value: take(value),
        headers: headers
            .into_iter()
            .map(|header| (header.key.to_owned(), take(header.value)))
            .collect(),
        timestamp_ms: message.timestamp().to_millis(),
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::Statistics;
    use rdkafka::client::ClientContext as _;

    use super::*;
    use crate::ledger::beginnings::Beginnings;
    use crate::ledger::claims::Claims;
    use crate::source::kafka::tests::options;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_client_that_has_forgotten_every_broker_is_given_up() {
        // Nobody listens there.
        let options = options("127.0.0.1:1");
        let kept = Kept {
            claims: Claims::in_memory("g"),
            beginnings: Beginnings::in_memory(),
        };
        let (_engine, orders) = std::sync::mpsc::channel();
        let (_decoding, pauses) = std::sync::mpsc::channel();
        let (records, _undecoded) = tokio::sync::mpsc::channel(1);
        let (frontiers, _) = watch::channel(Frontiers::new());
        let (_stop, stopping) = watch::channel(false);
        let orders = Orders::new(orders, pauses);
        let mut poller = Poller::new(options, kept, records, orders, frontiers, stopping).unwrap();
        let ended = tokio::task::spawn_blocking(move || {
            let client = poller.first_client.take().unwrap();
            for _ in 0..2 {
                client.context().stats(Statistics::default());
            }
            let polled = std::thread::scope(|scope| {
                let asking = Asking::start(scope, &client).unwrap();
                poller.poll(&client, asking)
            });
            [polled, poller.poll_until_end(&client)]
        });
        for end in ended.await.unwrap() {
            assert!(matches!(end, End::Failed(why) if why == FORGOT));
        }
    }
}
