//! The sources of this repository pass the one suite (`testkit::source_suite`) against the real broker and the real Postgres. The
//! one in memory does so in `tests/sources.rs`.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use afterwrite::decode::options::{Options, UNAVAILABLE_PLACEHOLDER};
use afterwrite::decode::tables::Tables;
use afterwrite::decode::{Decoded, Decoder};
use afterwrite::event::delivery::{Content, Delivery, Position, RawRecord, SourceCommand, SourceEvent};
use afterwrite::ledger::beginnings::Beginnings;
use afterwrite::ledger::claims::Claims;
use afterwrite::ledger::slots::Slots;
use afterwrite::source::kafka::protocol::{EagerAssignor, Membership, Protocol, Session};
use afterwrite::source::{kafka, wal};
use afterwrite::testkit::source_suite::{Ended, Part, Subject, Write, records};
use async_trait::async_trait;
use sqlx::AssertSqlSafe;
use tokio::sync::{RwLockReadGuard, mpsc, watch};

use crate::producer;
use crate::stack;
use crate::world::World;

/// A silent process keeps its partition for so long.
const SESSION: Duration = Duration::from_secs(3);

mod kafka_keeps_the_contract {
    use afterwrite::source_suite;

    source_suite!(super::Kafka::begin, super::does_not_apply);
}

mod wal_keeps_the_contract {
    use afterwrite::source_suite;

    source_suite!(super::Wal::begin, super::does_not_apply);
}

fn does_not_apply(reason: &str) {
    println!("does not apply: {reason}");
}

/// What both have.
struct Place {
    world: World,
    decoder: Arc<Decoder>,
    _stack: RwLockReadGuard<'static, ()>,
}

impl Place {
    async fn of(kind: &str) -> Self {
        let guard = stack::shared().await;
        Self {
            world: World::bare(kind).await,
            decoder: Arc::new(Decoder::new(Options::default())),
            _stack: guard,
        }
    }

    fn wanted() -> Tables {
        Tables::named([("public", "work")])
    }

    fn claims(&self) -> Claims {
        Claims::new(self.world.pool.clone(), self.world.group(), uuid::Uuid::new_v4())
    }

    fn decode(&self, delivery: &Delivery) -> Content {
        match self.decoder.decode(&self.world.topic(), &delivery.raw) {
            Decoded::Content(content) => content,
            Decoded::MissingSchema(id) => panic!("JSON asked for schema {id}"),
        }
    }
}

struct Kafka {
    place: Place,
    producer: producer::Writer,
    written: AtomicI64,
}

impl Kafka {
    async fn begin(_: &str) -> Self {
        let place = Place::of("suite_kafka").await;
        producer::make_topic(&place.world.topic()).await;
        Self {
            producer: producer::Writer::of(&place.world.topic()),
            place,
            written: AtomicI64::new(0),
        }
    }
}

#[async_trait(?Send)]
impl Subject for Kafka {
    fn start(&self, commands: Receiver<SourceCommand>, events: mpsc::Sender<SourceEvent>) -> Ended {
        let world = &self.place.world;
        let session = Session {
            timeout: SESSION,
            heartbeat: Duration::from_millis(500),
        };
        let options = kafka::Options {
            brokers: stack::address("KAFKA_BROKERS"),
            group: world.group(),
            wanted: Place::wanted(),
            topics: vec![world.topic()],
            start: kafka::Start::Earliest,
            properties: Vec::new(),
            membership: Membership {
                // Whoever joins makes everybody let go, so that one partition is enough.
                protocol: Protocol::Eager(session, EagerAssignor::Range),
                instance: None,
            },
            budgets: kafka::Budgets {
                revoke: Duration::from_secs(10),
                commit: Duration::from_secs(5),
                claim: Duration::from_secs(10),
            },
            events_behind: Arc::default(),
        };
        let kept = kafka::Kept {
            claims: self.place.claims(),
            beginnings: Beginnings::new(world.pool.clone(), world.group()),
        };
        let (stop, stopping) = watch::channel(false);
        let decoder = Arc::clone(&self.place.decoder);
        let running = kafka::start(options, kept, decoder, None, commands, events, stopping).unwrap();
        Box::pin(async move {
            running.ended().await;
            drop(stop);
        })
    }

    async fn write(&self, writes: &[Write]) {
        let numbers = i64::try_from(writes.len()).unwrap();
        let first = self.written.fetch_add(numbers, Ordering::Relaxed);
        let numbered = writes.iter().zip(first..);
        let records: Vec<RawRecord> = numbered.flat_map(|(write, number)| records(write, number)).collect();
        self.producer.write(&records).await;
    }

    async fn kept(&self) -> Option<Position> {
        let (group, topic) = (self.place.world.group(), self.place.world.topic());
        let asked = tokio::task::spawn_blocking(move || producer::committed(&group, &topic));
        asked.await.unwrap().map(Position)
    }

    async fn is_all_kept(&self) -> bool {
        let (group, topic) = (self.place.world.group(), self.place.world.topic());
        let asked = tokio::task::spawn_blocking(move || producer::reach(&group, &topic).unwrap());
        let reached = asked.await.unwrap();
        reached.iter().all(|reach| reach.committed == Some(reach.end))
    }

    fn decode(&self, delivery: &Delivery) -> Content {
        self.place.decode(delivery)
    }

    fn lacks(&self, part: Part) -> Option<&'static str> {
        match part {
            Part::Lost => Some(
                "a member is thrown out after a session of silence, and librdkafka is never silent in a process that runs: \
                 tests/it/ownership.rs freezes one",
            ),
            Part::ObeysUnheard => {
                Some("the poll thread waits for room in front of the engine, and commands wait for the poll thread")
            }
            Part::Revoking | Part::Damaged => None,
        }
    }

    fn patience(&self) -> Duration {
        SESSION
    }

    async fn remove(self) {
        self.place.world.remove().await;
    }
}

struct Wal {
    place: Place,
    /// Where the log stood at the end of what was written last.
    written_to: Mutex<String>,
}

impl Wal {
    async fn begin(_: &str) -> Self {
        let place = Place::of("suite_wal").await;
        let prepared = sqlx::raw_sql(AssertSqlSafe(format!(
            "CREATE TABLE public.unwanted (k bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text NOT NULL);
             ALTER PUBLICATION it ADD TABLE public.unwanted;
             ALTER DATABASE {} SET wal_sender_timeout = '{} ms'",
            place.world.name,
            SESSION.as_millis()
        )));
        prepared.execute(&place.world.pool).await.unwrap();
        Self {
            place,
            written_to: Mutex::new("0/0".to_owned()),
        }
    }

    fn slots(&self) -> Slots {
        let world = &self.place.world;
        Slots::new(world.pool.clone(), world.group(), format!("{}_recorder", world.name))
    }
}

fn sql(write: &Write) -> String {
    match write {
        Write::Insert { k } => format!("INSERT INTO work (k, seq) VALUES ({k}, 1);"),
        Write::Update { k, seq } => format!("UPDATE work SET seq = {seq} WHERE k = {k};"),
        Write::Delete { k } => format!("DELETE FROM work WHERE k = {k};"),
        Write::Unwanted => "INSERT INTO unwanted (note) VALUES (repeat('x', 1000));".to_owned(),
        Write::Damaged(_) => panic!("Postgres writes no damaged rows"),
    }
}

#[async_trait(?Send)]
impl Subject for Wal {
    fn start(&self, commands: Receiver<SourceCommand>, events: mpsc::Sender<SourceEvent>) -> Ended {
        let world = &self.place.world;
        let options = wal::Options {
            connection: world.url().parse().unwrap(),
            group: world.group(),
            publication: "it".to_owned(),
            name: world.name.clone(),
            wanted: Place::wanted(),
            excluded: Vec::new(),
            unavailable: UNAVAILABLE_PLACEHOLDER.to_owned(),
            log_behind: Arc::default(),
            leaves: Arc::default(),
            tells_lag: false,
        };
        let decoder = Arc::clone(&self.place.decoder);
        let running = wal::start(options, self.place.claims(), self.slots(), decoder, commands, events).unwrap();
        Box::pin(async move { running.ended().await.unwrap() })
    }

    async fn write(&self, writes: &[Write]) {
        let statements: String = writes.iter().map(sql).collect();
        let mut transaction = self.place.world.pool.begin().await.unwrap();
        let ran = sqlx::raw_sql(AssertSqlSafe(statements));
        ran.execute(&mut *transaction).await.unwrap();
        let end = "SELECT pg_current_wal_insert_lsn()::text";
        let end: String = sqlx::query_scalar(end).fetch_one(&mut *transaction).await.unwrap();
        transaction.commit().await.unwrap();
        *self.written_to.lock().unwrap() = end;
    }

    async fn kept(&self) -> Option<Position> {
        self.slots()
            .known()
            .await
            .unwrap()
            .map(|known| known.standing.settled_to)
    }

    async fn is_all_kept(&self) -> bool {
        let end = self.written_to.lock().unwrap().clone();
        let slots = self.slots();
        let asked = sqlx::query_scalar(
            "SELECT confirmed_flush_lsn >= $2::text::pg_lsn FROM pg_replication_slots WHERE slot_name = $1",
        );
        asked
            .bind(slots.name())
            .bind(end)
            .fetch_one(&self.place.world.pool)
            .await
            .unwrap()
    }

    fn decode(&self, delivery: &Delivery) -> Content {
        self.place.decode(delivery)
    }

    fn lacks(&self, part: Part) -> Option<&'static str> {
        match part {
            Part::Revoking => Some("one process reads a slot, and keeps it until it leaves, dies or loses it"),
            Part::Damaged => {
                Some("it prints its records itself, and a message of the log that cannot be read ends the group")
            }
            Part::Lost | Part::ObeysUnheard => None,
        }
    }

    async fn take_away(&self) {
        let ended =
            sqlx::query("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1");
        let slots = self.slots();
        ended.bind(slots.name()).execute(&self.place.world.pool).await.unwrap();
    }

    fn patience(&self) -> Duration {
        SESSION
    }

    async fn remove(self) {
        crate::wal::remove(self.place.world).await;
    }
}
