//! A process of the group, in which the suite stands in for the engine: it holds every event against what a source promises.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, SyncSender, channel};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::event::delivery::{Content, Delivery, Position, Settled, SourceCommand, SourceEvent, SourcePartition};
use crate::testkit::source_suite::subject::{Ended, Subject, Write};

/// How long something may take that has to come.
pub(super) const WITHIN: Duration = Duration::from_secs(30);

/// For how long nothing comes that must not come.
const QUIET: Duration = Duration::from_millis(600);

/// Takes the positions of a revocation.
pub(super) type Reply = SyncSender<Vec<(SourcePartition, Position)>>;

/// What came.
pub(super) enum Came {
    Assigned,
    Delivered(Delivery),
    CaughtUp,
    Lag,
    Revoking(Reply),
    Lost,
    /// The channel has ended.
    Left,
}

/// The last epoch that a group has seen, whichever of its processes had the partition.
#[derive(Debug, Default)]
pub(super) struct Seen(AtomicU64);

/// A process.
pub(super) struct Process {
    commands: Sender<SourceCommand>,
    events: mpsc::Receiver<SourceEvent>,
    ended: Ended,
    owned: Option<Owned>,
    committed: Position,
    caught_up_told: usize,
}

/// The partition, while it is this process's.
#[derive(Debug, Clone)]
pub(super) struct Owned {
    pub(super) partition: SourcePartition,
    pub(super) epoch: u64,
    last: Option<Position>,
}

impl Process {
    pub(super) fn start(subject: &dyn Subject, unheard_max: usize) -> Self {
        let (commands, orders) = channel();
        let (told, events) = mpsc::channel(unheard_max);
        Self {
            commands,
            events,
            ended: subject.start(orders, told),
            owned: None,
            committed: Position(i64::MIN),
            caught_up_told: 0,
        }
    }

    /// The next event, whatever it is. Cancel-safe.
    pub(super) async fn any(&mut self, seen: &Seen) -> Came {
        match self.events.recv().await {
            Some(event) => self.judge(event, seen),
            None => Came::Left,
        }
    }

    /// The next event, which has to come.
    pub(super) async fn next(&mut self, seen: &Seen) -> Came {
        match tokio::time::timeout(WITHIN, self.any(seen)).await {
            Ok(came) => came,
            Err(_) => panic!("nothing came within {WITHIN:?}; owned: {:?}", self.owned),
        }
    }

    /// Holds an event against what was promised.
    fn judge(&mut self, event: SourceEvent, seen: &Seen) -> Came {
        match event {
            SourceEvent::Assigned { partitions } => {
                let [assigned] = &partitions[..] else {
                    panic!("the group has one partition, and was assigned {partitions:?}")
                };
                let before = seen.0.swap(assigned.epoch, Ordering::Relaxed);
                assert!(assigned.epoch > before, "epoch {} follows {before}", assigned.epoch);
                self.owned = Some(Owned {
                    partition: assigned.partition.clone(),
                    epoch: assigned.epoch,
                    last: None,
                });
                Came::Assigned
            }
            SourceEvent::Delivered { epoch, delivery } => {
                let owned = self
                    .owned
                    .as_mut()
                    .expect("a delivery comes while the partition is owned");
                let place = (&delivery.partition, epoch);
                assert_eq!(
                    place,
                    (&owned.partition, owned.epoch),
                    "partition and epoch of a delivery"
                );
                let position = delivery.position;
                assert!(owned.last < Some(position), "{position:?} came behind {:?}", owned.last);
                owned.last = Some(position);
                Came::Delivered(*delivery)
            }
            SourceEvent::CaughtUp { ends } => {
                let owned = self.owned.as_ref();
                for (_, end) in ends
                    .iter()
                    .filter(|(name, _)| owned.is_some_and(|owned| owned.partition == *name))
                {
                    let last = owned.and_then(|owned| owned.last).filter(|last| last < end);
                    let committed = self.committed;
                    assert!(
                        last.is_none_or(|last| last < committed),
                        "caught up to {end:?} was told, and of what was delivered before it only {committed:?} was committed"
                    );
                }
                self.caught_up_told += 1;
                Came::CaughtUp
            }
            SourceEvent::Lag { partition, epoch, .. } => {
                let owned = self.owned.as_ref().expect("lag is told while the partition is owned");
                assert_eq!(
                    (&partition, epoch),
                    (&owned.partition, owned.epoch),
                    "whose lag is told"
                );
                Came::Lag
            }
            SourceEvent::Revoking { partitions, reply } => {
                let owned = self.owned.take().expect("only what is owned is revoked");
                assert_eq!(partitions, [owned.partition]);
                Came::Revoking(reply)
            }
            SourceEvent::Lost { partitions } => {
                let owned = self.owned.take().expect("only what is owned is lost");
                assert_eq!(partitions, [owned.partition]);
                Came::Lost
            }
        }
    }

    pub(super) fn owned(&self) -> Owned {
        self.owned.clone().expect("the partition is owned")
    }

    pub(super) async fn until_assigned(&mut self, seen: &Seen) {
        loop {
            match self.next(seen).await {
                Came::Assigned => return,
                Came::CaughtUp | Came::Lag => {}
                _ => panic!("the partition was to be assigned"),
            }
        }
    }

    /// The next so many changes. What wakes no handler is left out.
    pub(super) async fn changes(&mut self, seen: &Seen, count: usize) -> Vec<Delivery> {
        let mut changes = self
            .deliveries(seen, count, |content| matches!(content, Content::Change(_)))
            .await;
        changes.retain(|delivery| !matches!(delivery.content, Content::Skip(_)));
        changes
    }

    /// What comes up to the `count`-th delivery of these.
    pub(super) async fn deliveries(
        &mut self,
        seen: &Seen,
        count: usize,
        counts: impl Fn(&Content) -> bool,
    ) -> Vec<Delivery> {
        let (mut deliveries, mut counted) = (Vec::new(), 0);
        while counted < count {
            match self.next(seen).await {
                Came::Delivered(delivery) => {
                    counted += usize::from(counts(&delivery.content));
                    deliveries.push(delivery);
                }
                Came::CaughtUp | Came::Lag => {}
                _ => panic!("{counted} of {count} came, and then no delivery"),
            }
        }
        deliveries
    }

    /// What is delivered until nothing comes for a while.
    pub(super) async fn until_quiet(&mut self, seen: &Seen) -> Vec<Delivery> {
        let mut deliveries = Vec::new();
        while let Ok(came) = tokio::time::timeout(QUIET, self.any(seen)).await {
            match came {
                Came::Delivered(delivery) => deliveries.push(delivery),
                Came::CaughtUp | Came::Lag => {}
                _ => panic!("the partition was to be kept"),
            }
        }
        deliveries
    }

    /// Nothing is said for so long, and it was never said that everything is settled.
    pub(super) async fn is_never_caught_up(&mut self, seen: &Seen, within: Duration) {
        let more = tokio::time::timeout(within, self.any(seen)).await;
        assert_eq!(
            self.caught_up_told, 0,
            "something is not settled, and being caught up was told"
        );
        assert!(more.is_err(), "nothing more was to come");
    }

    pub(super) fn order(&self, command: SourceCommand) {
        self.commands.send(command).expect("the source runs");
    }

    /// Says that everything before a position is settled.
    pub(super) fn commit(&mut self, to: Position) {
        let settled = self.settled(to);
        self.committed = self.committed.max(to);
        self.order(SourceCommand::Commit(settled));
    }

    pub(super) fn settled(&self, to: Position) -> Vec<Settled> {
        self.owned().settled(to)
    }

    pub(super) fn pause(&self, is_paused: bool) {
        let Owned { partition, epoch, .. } = self.owned();
        self.order(if is_paused {
            SourceCommand::Pause { partition, epoch }
        } else {
            SourceCommand::Resume { partition, epoch }
        });
    }

    /// Leaves with these positions; answers what was delivered on the way out.
    pub(super) async fn leave(mut self, seen: &Seen, settled: Vec<Settled>) -> Vec<Delivery> {
        self.order(SourceCommand::Leave(settled));
        let mut deliveries = Vec::new();
        loop {
            match self.next(seen).await {
                Came::Delivered(delivery) => deliveries.push(delivery),
                Came::CaughtUp | Came::Lag => {}
                Came::Left => break,
                _ => panic!("whoever leaves is told nothing more of ownership"),
            }
        }
        self.ended.await;
        deliveries
    }

    /// Goes without a word.
    pub(super) async fn die(self) {
        drop((self.commands, self.events));
        self.ended.await;
    }
}

impl Owned {
    pub(super) fn settled(&self, position: Position) -> Vec<Settled> {
        vec![Settled {
            partition: self.partition.clone(),
            epoch: self.epoch,
            position,
        }]
    }
}

/// The first position behind a delivery.
pub(super) fn after(delivery: &Delivery) -> Position {
    Position(delivery.position.0 + 1)
}

/// Asks again and again, until it is so.
pub(super) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let mut look = tokio::time::interval(Duration::from_millis(50));
    let asked = async {
        while !is_so().await {
            look.tick().await;
        }
    };
    assert!(
        tokio::time::timeout(WITHIN, asked).await.is_ok(),
        "{what} did not come about in {WITHIN:?}"
    );
}

/// Waits until a position is kept.
pub(super) async fn until_kept(subject: &dyn Subject, position: Position) {
    until("keeping what is settled", async || {
        subject.kept().await.is_some_and(|kept| kept >= position)
    })
    .await;
}

/// Inserts of these rows.
pub(super) fn inserts(rows: std::ops::Range<i64>) -> Vec<Write> {
    rows.map(|k| Write::Insert { k }).collect()
}
