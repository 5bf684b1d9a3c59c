//! Answers of the group's coordinator that are lost, or that are errors, at the moments at which a client asks once only, and
//! commits that arrive behind newer ones.
//!
//! In a group of the brokers (KIP-848) an assignment is told in the answer to a heartbeat, once. A broker that answers later
//! than the next heartbeat is due is not heard, and believes that it was. librdkafka asks for everything again until a
//! member has had its first partitions, so a newcomer, to which this happens on a busy broker, must not stay without any.
//!
//! A coordinator that has only just started refuses to tell committed offsets. librdkafka never asks again where an assigned
//! partition begins, whatever the protocol; the worker has asked already, and must not leave it to the client.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::producer;
use crate::stack::{self, until};
use crate::world::World;

const WITHIN: Duration = Duration::from_secs(60);

const PARTITIONS: i64 = 4;

/// Rows that are done at once, and the first of those that the first worker never ends.
const ROWS: std::ops::Range<i64> = 0..16;
const HELD: i64 = 100;
const DONE_AT_ONCE: &str = "SELECT count(*) FROM effects WHERE k < 100";

/// Kinds of requests, as the protocol numbers them: those whose answers name brokers, commits, the question for committed
/// offsets, and the heartbeat of KIP-848.
const METADATA: i16 = 3;
const FIND_COORDINATOR: i16 = 10;
const OFFSET_COMMIT: i16 = 8;
const OFFSET_FETCH: i16 = 9;
const HEARTBEAT: i16 = 68;

/// An error of the protocol: the broker is not the group's coordinator, or does not know yet that it is.
const NOT_COORDINATOR: i16 = 16;

#[tokio::test(flavor = "multi_thread")]
async fn an_assignment_that_was_lost_with_its_answer_is_asked_for_again() {
    let _stack = stack::shared().await;
    let world = World::bare("lost_answer").await;
    producer::make_topic_of(&world.topic(), i32::try_from(PARTITIONS).unwrap()).await;
    let mut settings = vec![
        ("AFTERWRITE__KAFKA__GROUP_PROTOCOL", "consumer"),
        ("AFTERWRITE__KAFKA__SESSION_TIMEOUT_MS", ""),
        ("AFTERWRITE__KAFKA__HEARTBEAT_INTERVAL_MS", ""),
        ("AFTERWRITE__ENGINE__REVOKE_GRACE_MS", "1500"),
    ];
    let first = world.worker("first", &settings);
    until("the first to own everything", WITHIN, async || {
        let owned = first.said().matches("partition assigned").count();
        (i64::try_from(owned).unwrap() == PARTITIONS).then_some(())
    })
    .await;
    // It is slow to let go: what the second is to have is told to it some heartbeats after the new epoch.
    for held in 0..PARTITIONS {
        producer::write_change_to(&world.topic(), i32::try_from(held).unwrap(), HELD + held, "hold:first").await;
    }
    until("the first to be busy", WITHIN, async || {
        (world.count("SELECT count(*) FROM attempts").await == PARTITIONS).then_some(())
    })
    .await;

    let way = Way::open(Fault::LostAssignment).await;
    settings.push(("KAFKA_BROKERS", &way.address));
    let second = world.worker("second", &settings);
    until("the answer with the assignment to be lost", WITHIN, async || {
        way.lost.load(Ordering::SeqCst).then_some(())
    })
    .await;
    producer::write_round(&world.topic(), PARTITIONS, ROWS, 1).await;
    until("every change to have its effect", WITHIN, async || {
        (world.count(DONE_AT_ONCE).await == ROWS.end).then_some(())
    })
    .await;
    let shared = world.count("SELECT count(DISTINCT worker) FROM effects").await;
    assert_eq!(shared, 2, "the second has its share");
    second.stop().await;
    first.kill();
    world.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_begins_although_the_client_was_refused_where() {
    let _stack = stack::shared().await;
    let world = World::bare("refused").await;
    producer::make_topic_of(&world.topic(), i32::try_from(PARTITIONS).unwrap()).await;
    producer::write_round(&world.topic(), PARTITIONS, ROWS, 1).await;
    let way = Way::open(Fault::RefusedOffsets).await;
    let worker = world.worker("w", &[("KAFKA_BROKERS", &way.address)]);
    until("every change to have its effect", WITHIN, async || {
        (world.count("SELECT count(*) FROM effects").await == ROWS.end).then_some(())
    })
    .await;
    worker.stop().await;
    world.remove().await;
}

/// librdkafka sends a commit again that the broker could not take, whatever it has sent since. Whoever then looks at the group
/// must not see it behind for as long as nothing is written.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_comes_late_does_not_take_the_group_back_for_good() {
    let _stack = stack::shared().await;
    let world = World::bare("late").await;
    producer::make_topic_of(&world.topic(), 1).await;
    producer::write_round(&world.topic(), 1, ROWS, 1).await;
    let way = Way::open(Fault::LateCommit).await;
    let worker = world.worker("w", &[("KAFKA_BROKERS", &way.address)]);
    let group = world.group();
    let committed = async || {
        let reached = producer::reach(&group, &world.topic()).ok()?;
        let [reach] = reached.as_slice() else {
            panic!("one partition: {reached:?}")
        };
        reach.committed
    };
    until("everything to be committed", WITHIN, async || {
        committed().await.filter(|committed| *committed == ROWS.end)
    })
    .await;
    way.is_due.store(true, Ordering::SeqCst);
    until("the first commit to come once more", WITHIN, async || {
        way.lost.load(Ordering::SeqCst).then_some(())
    })
    .await;
    until("the group to be where it was", WITHIN, async || {
        committed().await.filter(|committed| *committed == ROWS.end)
    })
    .await;
    worker.stop().await;
    world.remove().await;
}

/// What goes wrong on a way to the broker, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The first answer that tells an assignment and nothing else that is new does not arrive.
    LostAssignment,
    /// Whoever asks a second time for the committed offsets of everything is told that this is not the coordinator.
    RefusedOffsets,
    /// The first commit comes a second time, when it is due.
    LateCommit,
}

/// A way to the broker on which something goes wrong.
struct Way {
    address: String,
    is_due: Arc<AtomicBool>,
    lost: Arc<AtomicBool>,
    going: JoinHandle<()>,
}

impl Way {
    async fn open(fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let broker = stack::address("KAFKA_BROKERS");
        let (is_due, lost) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let loss = Arc::new(Loss {
            fault,
            is_due: Arc::clone(&is_due),
            offsets_told: AtomicUsize::new(0),
            ports: (broker.rsplit(':').next().unwrap().parse().unwrap(), port),
            told: AtomicI32::new(-1),
            lost: Arc::clone(&lost),
        });
        let going = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                // A broker that is not there is met by the client as a connection that ends.
                let Ok(broker) = TcpStream::connect(&broker).await else {
                    continue;
                };
                let (from_client, to_client) = client.into_split();
                let (from_broker, to_broker) = broker.into_split();
                let asked = Asked::default();
                tokio::spawn(there(from_client, to_broker, Arc::clone(&asked), Arc::clone(&loss)));
                tokio::spawn(back(from_broker, to_client, asked, Arc::clone(&loss)));
            }
        });
        Self {
            address: format!("127.0.0.1:{port}"),
            is_due,
            lost,
            going,
        }
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.going.abort();
    }
}

/// What was asked on a connection and is not answered: the kind of each request, by its number.
type Asked = Arc<Mutex<HashMap<[u8; 4], i16>>>;

/// What goes wrong, and where everybody is sent instead of to the broker.
struct Loss {
    fault: Fault,
    /// Whether it is time, where somebody decides that.
    is_due: Arc<AtomicBool>,
    /// Length of the first answer that told committed offsets.
    offsets_told: AtomicUsize,
    /// The broker's port, and that of this way.
    ports: (u16, u16),
    /// The epoch that the member was told last.
    told: AtomicI32,
    lost: Arc<AtomicBool>,
}

impl Loss {
    /// Whether the answer to a heartbeat is lost. An answer with a new epoch is asked for again by the coordinator itself:
    /// it throws out whoever has an old one.
    fn takes(&self, answer: &[u8]) -> bool {
        if self.fault != Fault::LostAssignment {
            return false;
        }
        let (epoch, has_assignment) = heartbeat(answer);
        let is_known = self.told.swap(epoch, Ordering::SeqCst) == epoch;
        is_known && has_assignment && !self.lost.swap(true, Ordering::SeqCst)
    }

    /// Makes an error of an answer that tells committed offsets (`OffsetFetchResponse`, version 8 and 9), when it is its turn.
    fn refuse(&self, answer: &mut Vec<u8>) {
        if self.fault != Fault::RefusedOffsets {
            return;
        }
        let first = self.offsets_told.swap(answer.len(), Ordering::SeqCst);
        let is_turn = first != 0 && first <= answer.len();
        if !is_turn {
            self.offsets_told.fetch_max(first, Ordering::SeqCst);
            return;
        }
        if self.lost.swap(true, Ordering::SeqCst) {
            return;
        }
        // Number of the request and no tags, throttle time, one group and its name; then: no topics, the error, no tags twice.
        let group = 4 + 1 + 4 + 1;
        answer.truncate(group + usize::from(answer[group]));
        answer.push(1);
        answer.extend_from_slice(&NOT_COORDINATOR.to_be_bytes());
        answer.extend_from_slice(&[0, 0]);
    }

    /// Takes the answer to what nobody waits for: the commit that came late, which must have been accepted.
    fn swallow(&self, answer: &[u8]) {
        assert_eq!(self.fault, Fault::LateCommit, "an answer that nobody asked for");
        // Three tag buffers behind the only partition's error.
        let error = answer.len() - 3 - 2;
        assert_eq!(answer[error..], [0; 5], "the late commit was refused: {answer:?}");
        self.lost.store(true, Ordering::SeqCst);
    }

    /// Puts this way's address where an answer names the broker.
    fn redirect(&self, answer: &mut [u8]) {
        let at = |port: u16| [b"127.0.0.1".as_slice(), &u32::from(port).to_be_bytes()].concat();
        let (broker, way) = (at(self.ports.0), at(self.ports.1));
        for start in 0..answer.len().saturating_sub(broker.len() - 1) {
            let found = &mut answer[start..start + broker.len()];
            if found == broker {
                found.copy_from_slice(&way);
            }
        }
    }
}

/// The epoch in an answer to a heartbeat, and whether it tells partitions (`ConsumerGroupHeartbeatResponse`, version 0 and 1).
fn heartbeat(answer: &[u8]) -> (i32, bool) {
    // Number of the request and no tags; throttle time and error; texts have their length plus one before them.
    let error_text = 4 + 1 + 4 + 2;
    let member = error_text + usize::from(answer[error_text]).max(1);
    let epoch = member + usize::from(answer[member]).max(1);
    let assignment = epoch + 4 + 4;
    let number = i32::from_be_bytes(answer[epoch..epoch + 4].try_into().unwrap());
    (number, answer[assignment] == 1 && answer[assignment + 1] > 1)
}

async fn there(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, asked: Asked, loss: Arc<Loss>) {
    let mut first_commit = None;
    while let Some(request) = read(&mut from).await {
        let kind = i16::from_be_bytes([request[0], request[1]]);
        asked.lock().unwrap().insert(request[4..8].try_into().unwrap(), kind);
        if write(&mut to, &request).await.is_none() {
            return;
        }
        if kind == OFFSET_COMMIT && loss.fault == Fault::LateCommit && first_commit.is_none() {
            first_commit = Some(request);
        }
        if loss.is_due.load(Ordering::SeqCst)
            && let Some(late) = first_commit.take()
            && write(&mut to, &late).await.is_none()
        {
            return;
        }
    }
}

async fn back(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, asked: Asked, loss: Arc<Loss>) {
    while let Some(mut answer) = read(&mut from).await {
        let kind = asked.lock().unwrap().remove(&answer[..4]);
        match kind {
            Some(HEARTBEAT) if loss.takes(&answer) => continue,
            Some(OFFSET_FETCH) => loss.refuse(&mut answer),
            Some(METADATA | FIND_COORDINATOR) => loss.redirect(&mut answer),
            Some(_) => {}
            None => {
                loss.swallow(&answer);
                continue;
            }
        }
        if write(&mut to, &answer).await.is_none() {
            return;
        }
    }
}

/// The next message; `None` when the connection is over.
async fn read(from: &mut OwnedReadHalf) -> Option<Vec<u8>> {
    let length = from.read_u32().await.ok()?;
    let mut message = vec![0; usize::try_from(length).unwrap()];
    from.read_exact(&mut message).await.ok()?;
    Some(message)
}

async fn write(to: &mut OwnedWriteHalf, message: &[u8]) -> Option<()> {
    to.write_u32(u32::try_from(message.len()).unwrap()).await.ok()?;
    to.write_all(message).await.ok()
}
