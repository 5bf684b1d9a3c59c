//! The write-ahead log of a scenario as the source `wal` reads it: a capture beside those of the connectors.

use std::sync::Arc;
use std::time::Duration;

use afterwrite::decode::Decoder;
use afterwrite::decode::options::UNAVAILABLE_PLACEHOLDER;
use afterwrite::decode::tables::Tables;
use afterwrite::event::delivery::{Content, Delivery, Position, Settled, SourceCommand, SourceEvent};
use afterwrite::ledger::claims::Claims;
use afterwrite::ledger::slots::Slots;
use afterwrite::source::wal;
use sqlx::postgres::PgPool;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::captures::{Capture, Captured, Schemas, options};
use crate::stack::until;

/// A group that reads the log and settles at once what it gets.
pub(crate) struct Reader {
    running: wal::Running,
    commands: std::sync::mpsc::Sender<SourceCommand>,
    reading: JoinHandle<Vec<Delivery>>,
    /// How many changes of the table came that the end of the history is marked in.
    marked: watch::Receiver<usize>,
}

impl Reader {
    /// Begins to read the tables of schema `public`, as the source of this name.
    pub(crate) async fn begin(pool: &PgPool, url: &str, name: &str, publication: &str, slot: &str) -> Self {
        let (commands, orders) = std::sync::mpsc::channel();
        let (events, arriving) = mpsc::channel(wal::UNHEARD_MAX);
        let group = format!("afterwrite.{slot}");
        let source = wal::Options {
            connection: url.parse().unwrap(),
            group: group.clone(),
            publication: publication.to_owned(),
            name: name.to_owned(),
            wanted: Tables::like(["public.*"]),
            excluded: Vec::new(),
            unavailable: UNAVAILABLE_PLACEHOLDER.to_owned(),
            log_behind: Arc::default(),
            leaves: Arc::default(),
            tells_lag: false,
        };
        let running = wal::start(
            source,
            Claims::new(pool.clone(), group.as_str(), uuid::Uuid::new_v4()),
            Slots::new(pool.clone(), group, slot),
            Arc::new(Decoder::new(options())),
            orders,
            events,
        )
        .unwrap();
        let (assigned, mut begun) = watch::channel(false);
        let (marks, marked) = watch::channel(0);
        let reading = tokio::spawn(read(arriving, commands.clone(), assigned, marks));
        begun.wait_for(|begun| *begun).await.unwrap();
        Self {
            running,
            commands,
            reading,
            marked,
        }
    }

    /// Reads up to the first change of table `finished`; answers all that came, in topics of the capture `wal`.
    pub(crate) async fn end(mut self) -> Capture {
        until("the log to be read", Duration::from_secs(60), async || {
            (*self.marked.borrow_and_update() > 0).then_some(())
        })
        .await;
        self.commands.send(SourceCommand::Leave(Vec::new())).unwrap();
        drop(self.commands);
        self.running.ended().await.unwrap();
        let deliveries = self.reading.await.unwrap();
        let records = deliveries.into_iter().map(|delivery| Captured {
            topic: format!("wal.{}", delivery.partition.topic),
            partition: delivery.partition.partition,
            offset: delivery.position.0,
            raw: delivery.raw,
        });
        Capture {
            records: records.collect(),
            schemas: Schemas::default(),
        }
    }
}

async fn read(
    mut arriving: mpsc::Receiver<SourceEvent>,
    commands: std::sync::mpsc::Sender<SourceCommand>,
    assigned: watch::Sender<bool>,
    marks: watch::Sender<usize>,
) -> Vec<Delivery> {
    let mut deliveries: Vec<Delivery> = Vec::new();
    while let Some(event) = arriving.recv().await {
        match event {
            SourceEvent::Assigned { .. } => {
                assigned.send_replace(true);
            }
            SourceEvent::Delivered { epoch, delivery } => {
                assert!(
                    deliveries.last().is_none_or(|last| last.position < delivery.position),
                    "{} came after a later one",
                    delivery.position.0
                );
                let settled = Settled {
                    partition: delivery.partition.clone(),
                    epoch,
                    position: Position(delivery.position.0 + 1),
                };
                // The source may have ended by itself; who waits for the mark is told by that.
                drop(commands.send(SourceCommand::Commit(vec![settled])));
                if let Content::Change(event) = &delivery.content
                    && &*event.origin().table == "finished"
                {
                    marks.send_modify(|marks| *marks += 1);
                }
                deliveries.push(*delivery);
            }
            SourceEvent::CaughtUp { .. } => {}
            event => panic!("{event:?}"),
        }
    }
    deliveries
}
