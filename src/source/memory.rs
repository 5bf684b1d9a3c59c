//! A source for tests: a log in memory, which stands in for the broker or for Postgres, and any number of sources that read it.
//!
//! It keeps the contract of [`crate::event::delivery`] as the others do, and passes the same suite, so what an engine or a handler
//! does over it, it does over them. The log is what outlives a source: what was committed, who owns a partition, under which
//! epoch. A test says when a partition is taken away, or is to be let go.

use std::collections::{HashMap, VecDeque};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};

use crate::event::change::ChangeEvent;
use crate::event::delivery::{
    Assigned, Content, Delivery, Inherited, Position, RawRecord, Settled, SourceCommand, SourceEvent, SourcePartition,
};

/// How often a source looks whether it was told something: the engine's channel wakes nobody.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// How long a partition that is to be let go waits for the engine's answer.
const REVOKE_WITHIN: Duration = Duration::from_secs(10);

/// Records of a partition that are passed on before the next look at what was told meanwhile.
const TOGETHER_MAX: usize = 64;

/// A log in memory. Clones are the same log.
#[derive(Debug, Clone)]
pub struct Log {
    state: Arc<Mutex<State>>,
    changed: Arc<watch::Sender<()>>,
}

#[derive(Debug, Default)]
struct State {
    partitions: HashMap<SourcePartition, Partition>,
    members: u64,
}

#[derive(Debug, Default)]
struct Partition {
    records: Vec<Record>,
    /// The position that the next record will have.
    end: i64,
    committed: i64,
    epoch: u64,
    owner: Option<u64>,
    is_to_go: bool,
    /// What the next owner is told, where its claim was taken elsewhere.
    claim: Option<(u64, Inherited)>,
}

#[derive(Debug)]
struct Record {
    position: i64,
    raw: RawRecord,
    content: Content,
}

impl Log {
    /// A log of these partitions.
    pub fn new(partitions: impl IntoIterator<Item = SourcePartition>) -> Self {
        let partitions = partitions.into_iter().map(|name| (name, Partition::default()));
        let state = State {
            partitions: partitions.collect(),
            members: 0,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            changed: Arc::default(),
        }
    }

    /// Appends a record, and answers where it stands.
    ///
    /// # Panics
    /// When there is no such partition.
    pub fn append(&self, partition: &SourcePartition, raw: RawRecord, content: Content) -> Position {
        self.change(partition, |log| {
            let position = log.end;
            log.records.push(Record { position, raw, content });
            log.end += 1;
            Position(position)
        })
    }

    /// Appends a change of a row, without bytes: enough for a handler, and for whoever buries nothing.
    ///
    /// # Panics
    /// When there is no such partition.
    pub fn write(&self, partition: &SourcePartition, event: impl Into<Arc<ChangeEvent>>) -> Position {
        self.append(partition, RawRecord::default(), Content::Change(event.into()))
    }

    /// Leaves out positions, as transactions and compaction do.
    ///
    /// # Panics
    /// When there is no such partition.
    pub fn leave_out(&self, partition: &SourcePartition, positions: u32) {
        self.change(partition, |log| log.end += i64::from(positions));
    }

    /// The first position that is not settled, as it was committed.
    ///
    /// # Panics
    /// When there is no such partition.
    pub fn committed(&self, partition: &SourcePartition) -> Position {
        Position(self.look(partition, |log| log.committed))
    }

    /// The position that the next record will have.
    ///
    /// # Panics
    /// When there is no such partition.
    pub fn end(&self, partition: &SourcePartition) -> Position {
        Position(self.look(partition, |log| log.end))
    }

    /// Has the owner let a partition go: it asks its engine which positions to commit, then anybody may take it.
    ///
    /// # Panics
    /// When there is no such partition.
    pub fn hand_over(&self, partition: &SourcePartition) {
        self.change(partition, |log| log.is_to_go = log.owner.is_some());
    }

    /// The next owner of a partition has a claim that was taken elsewhere, as in Postgres: it gets this epoch instead of the log's
    /// own count, and inherits this.
    ///
    /// # Panics
    /// When there is no such partition.
    pub fn claimed(&self, partition: &SourcePartition, epoch: u64, inherited: Inherited) {
        self.change(partition, |log| log.claim = Some((epoch, inherited)));
    }

    /// Takes a partition away from its owner, who can commit nothing for it any more.
    ///
    /// # Panics
    /// When there is no such partition.
    pub fn take_away(&self, partition: &SourcePartition) {
        self.change(partition, Partition::free);
    }

    fn change<T>(&self, partition: &SourcePartition, change: impl FnOnce(&mut Partition) -> T) -> T {
        let answer = self.look(partition, change);
        self.changed.send_replace(());
        answer
    }

    fn look<T>(&self, partition: &SourcePartition, look: impl FnOnce(&mut Partition) -> T) -> T {
        look(of(&mut self.state(), partition))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn of<'a>(state: &'a mut State, partition: &SourcePartition) -> &'a mut Partition {
    let known = state.partitions.get_mut(partition);
    known.unwrap_or_else(|| panic!("the log has no partition {partition}"))
}

impl Partition {
    fn free(&mut self) {
        self.owner = None;
        self.is_to_go = false;
    }

    fn commit(&mut self, to: Position) {
        self.committed = self.committed.max(to.0);
    }
}

/// A running source; its channel ends when it has left.
#[derive(Debug)]
pub struct Running(JoinHandle<()>);

impl Running {
    /// Waits until it has left.
    pub async fn ended(self) {
        if let Err(error) = self.0.await {
            tracing::warn!(%error, "the source in memory ended abnormally");
        }
    }
}

/// Starts a source that takes every partition nobody owns, and reads until it is told to leave. Without a word, when the engine's
/// ends of the channels are gone, it leaves as a process does that dies.
pub fn start(log: &Log, commands: Receiver<SourceCommand>, events: mpsc::Sender<SourceEvent>) -> Running {
    let member = {
        let mut state = log.state();
        state.members += 1;
        state.members
    };
    let source = Member {
        seat: Seat {
            log: log.clone(),
            member,
        },
        changed: log.changed.subscribe(),
        owned: HashMap::new(),
        revoking: None,
        untold: VecDeque::new(),
        commands,
        events,
    };
    Running(tokio::spawn(source.run()))
}

/// A source's place among those that read a log. Dropped, whatever it owned is free.
struct Seat {
    log: Log,
    member: u64,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.log.state();
        let owned = state.partitions.values_mut();
        owned
            .filter(|log| log.owner == Some(self.member))
            .for_each(Partition::free);
        drop(state);
        self.log.changed.send_replace(());
    }
}

/// A partition of one source.
struct Owned {
    epoch: u64,
    /// The first position that was not handed over.
    next: i64,
    caught_up_told: Option<i64>,
    is_paused: bool,
}

/// A revocation that waits for its answer.
struct Revoking {
    partition: SourcePartition,
    epoch: u64,
    answer: Receiver<Vec<(SourcePartition, Position)>>,
    deadline: Instant,
}

/// One source.
struct Member {
    seat: Seat,
    changed: watch::Receiver<()>,
    owned: HashMap<SourcePartition, Owned>,
    revoking: Option<Revoking>,
    /// What the engine is to hear next, in order.
    untold: VecDeque<SourceEvent>,
    commands: Receiver<SourceCommand>,
    events: mpsc::Sender<SourceEvent>,
}

impl Member {
    async fn run(mut self) {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let events = self.events.clone();
        while self.go_on() {
            tokio::select! {
                place = events.reserve(), if !self.untold.is_empty() => match (place, self.untold.pop_front()) {
                    (Ok(place), Some(event)) => place.send(event),
                    _ => return,
                },
                changed = self.changed.changed(), if self.untold.is_empty() => if changed.is_err() { return },
                _ = looks.tick() => {}
            }
        }
    }

    /// Does whatever can be done now; `false` when it has left.
    fn go_on(&mut self) -> bool {
        // As long as a revocation waits nothing is obeyed: what is committed last is its answer.
        if self.revoking.is_none() && !self.obey() {
            return false;
        }
        self.revoked();
        self.look_at_ownership();
        if self.untold.is_empty() {
            self.read();
        }
        true
    }

    fn obey(&mut self) -> bool {
        loop {
            match self.commands.try_recv() {
                Ok(SourceCommand::Commit(settled)) => self.commit(&settled),
                Ok(SourceCommand::Pause { partition, epoch }) => self.pause(&partition, epoch, true),
                Ok(SourceCommand::Resume { partition, epoch }) => self.pause(&partition, epoch, false),
                Ok(SourceCommand::Leave(settled)) => {
                    self.commit(&settled);
                    return false;
                }
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn commit(&self, settled: &[Settled]) {
        for settled in settled {
            self.commit_under(&settled.partition, settled.epoch, settled.position);
        }
    }

    /// Commits, unless the partition is somebody else's by now, or was taken anew.
    fn commit_under(&self, partition: &SourcePartition, epoch: u64, position: Position) {
        let mut state = self.seat.log.state();
        if let Some(log) = state.partitions.get_mut(partition)
            && log.owner == Some(self.seat.member)
            && log.epoch == epoch
        {
            log.commit(position);
        }
    }

    fn pause(&mut self, partition: &SourcePartition, epoch: u64, is_paused: bool) {
        if let Some(owned) = self.owned.get_mut(partition).filter(|owned| owned.epoch == epoch) {
            owned.is_paused = is_paused;
        }
    }

    /// Ends a revocation that was answered, or whose time is over.
    fn revoked(&mut self) {
        let Some(revoking) = self.revoking.take() else { return };
        match revoking.answer.try_recv() {
            Ok(positions) => {
                for (partition, position) in positions {
                    if partition == revoking.partition {
                        self.commit_under(&partition, revoking.epoch, position);
                    }
                }
            }
            Err(TryRecvError::Empty) if Instant::now() < revoking.deadline => {
                self.revoking = Some(revoking);
                return;
            }
            Err(_) => {}
        }
        let log = &self.seat.log;
        let mut state = log.state();
        let left = of(&mut state, &revoking.partition);
        if left.owner == Some(self.seat.member) && left.epoch == revoking.epoch {
            left.free();
        }
        drop(state);
        log.changed.send_replace(());
    }

    /// Takes what is free, and says what is gone or has to go.
    fn look_at_ownership(&mut self) {
        let mut state = self.seat.log.state();
        let (mut lost, mut to_go, mut assigned) = (Vec::new(), None, Vec::new());
        for (name, log) in &mut state.partitions {
            let is_ours = log.owner == Some(self.seat.member);
            match self.owned.get(name) {
                Some(owned) if !is_ours || owned.epoch != log.epoch => lost.push(name.clone()),
                Some(owned) if log.is_to_go => to_go = Some((name.clone(), owned.epoch)),
                None if log.owner.is_none() => {
                    log.owner = Some(self.seat.member);
                    let (epoch, inherited) = log.claim.take().unwrap_or((log.epoch + 1, Inherited::default()));
                    log.epoch = epoch;
                    assigned.push((name.clone(), inherited, epoch, log.committed));
                }
                Some(_) | None => {}
            }
        }
        drop(state);
        if !lost.is_empty() {
            self.owned.retain(|name, _| !lost.contains(name));
            self.untold.push_back(SourceEvent::Lost { partitions: lost });
        }
        if let Some((partition, epoch)) = to_go.filter(|_| self.revoking.is_none()) {
            self.revoke(partition, epoch);
        }
        self.assigned(assigned);
    }

    fn revoke(&mut self, partition: SourcePartition, epoch: u64) {
        let (reply, answer) = sync_channel(1);
        self.owned.remove(&partition);
        self.untold.push_back(SourceEvent::Revoking {
            partitions: vec![partition.clone()],
            reply,
        });
        self.revoking = Some(Revoking {
            partition,
            epoch,
            answer,
            deadline: Instant::now() + REVOKE_WITHIN,
        });
    }

    fn assigned(&mut self, assigned: Vec<(SourcePartition, Inherited, u64, i64)>) {
        if assigned.is_empty() {
            return;
        }
        let mut partitions = Vec::with_capacity(assigned.len());
        for (partition, inherited, epoch, next) in assigned {
            let owned = Owned {
                epoch,
                next,
                caught_up_told: None,
                is_paused: false,
            };
            self.owned.insert(partition.clone(), owned);
            partitions.push(Assigned {
                partition,
                epoch,
                inherited,
            });
        }
        self.untold.push_back(SourceEvent::Assigned { partitions });
    }

    /// Hands over what stands behind what was handed over, and says where nothing does.
    fn read(&mut self) {
        let mut state = self.seat.log.state();
        for (name, owned) in &mut self.owned {
            let log = of(&mut state, name);
            if owned.is_paused {
                continue;
            }
            let first = log.records.partition_point(|record| record.position < owned.next);
            for record in log.records.iter().skip(first).take(TOGETHER_MAX) {
                owned.next = record.position + 1;
                self.untold.push_back(SourceEvent::Delivered {
                    epoch: owned.epoch,
                    delivery: Box::new(Delivery {
                        partition: name.clone(),
                        position: Position(record.position),
                        raw: record.raw.clone(),
                        content: record.content.clone(),
                    }),
                });
            }
            let last = log.records.last().map_or(0, |record| record.position + 1);
            if log.committed >= last && owned.caught_up_told != Some(log.end) {
                owned.caught_up_told = Some(log.end);
                let ends = vec![(name.clone(), Position(log.end))];
                self.untold.push_back(SourceEvent::CaughtUp { ends });
            }
        }
    }
}
