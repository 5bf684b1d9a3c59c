//! The source in memory passes the suite that every source passes; the others do so against the real stack, in `tests/it`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::future::{Ready, ready};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use afterwrite::decode::tables::Tables;
use afterwrite::decode::{Decoded, Decoder};
use afterwrite::event::delivery::{
    Content, Delivery, Position, RawRecord, SourceCommand, SourceEvent, SourcePartition,
};
use afterwrite::source::memory::{self, Log};
use afterwrite::source_suite;
use afterwrite::testkit::source_suite::{Ended, Part, Subject, Write, records};
use async_trait::async_trait;
use tokio::sync::mpsc;

struct Memory {
    log: Log,
    partition: SourcePartition,
    decoder: Decoder,
    written: AtomicI64,
}

impl Memory {
    fn content(&self, raw: &RawRecord) -> Content {
        let wanted = Tables::named([("public", "work")]);
        match self.decoder.decode_despite("suite.public.work", raw, &wanted, &[]) {
            Decoded::Content(content) => content,
            Decoded::MissingSchema(id) => panic!("JSON asked for schema {id}"),
        }
    }
}

#[async_trait(?Send)]
impl Subject for Memory {
    fn start(&self, commands: Receiver<SourceCommand>, events: mpsc::Sender<SourceEvent>) -> Ended {
        Box::pin(memory::start(&self.log, commands, events).ended())
    }

    async fn write(&self, writes: &[Write]) {
        for write in writes {
            let number = self.written.fetch_add(1, Ordering::Relaxed);
            for raw in records(write, number) {
                let content = self.content(&raw);
                self.log.append(&self.partition, raw, content);
            }
            self.log.leave_out(&self.partition, u32::try_from(number % 3).unwrap());
        }
    }

    async fn kept(&self) -> Option<Position> {
        Some(self.log.committed(&self.partition))
    }

    async fn is_all_kept(&self) -> bool {
        let behind = self.written.load(Ordering::Relaxed) - 1;
        self.log.committed(&self.partition).0 + behind % 3 >= self.log.end(&self.partition).0
    }

    fn decode(&self, delivery: &Delivery) -> Content {
        self.content(&delivery.raw)
    }

    fn lacks(&self, _: Part) -> Option<&'static str> {
        None
    }

    async fn hand_over(&self) {
        self.log.hand_over(&self.partition);
    }

    async fn take_away(&self) {
        self.log.take_away(&self.partition);
    }

    fn patience(&self) -> Duration {
        Duration::from_millis(50)
    }
}

fn memory(_: &str) -> Ready<Memory> {
    let partition = SourcePartition {
        topic: "suite.public.work".into(),
        partition: 0,
    };
    ready(Memory {
        log: Log::new([partition.clone()]),
        partition,
        decoder: Decoder::new(Default::default()),
        written: AtomicI64::new(0),
    })
}

source_suite!(memory, |reason: &str| panic!(
    "the source in memory has every part: {reason}"
));
