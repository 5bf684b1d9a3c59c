//! The doing half of the engine: a loop that tells the core what happened and performs what it decides.
//!
//! One task per group. It never waits for a handler, a database or a broker: attempts and dead letters run in tasks of
//! their own and report back, the source is told by messages. Whatever the loop awaits is cancel-safe.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::StreamExt;
use rustc_hash::FxHashMap;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::time::DelayQueue;

use crate::engine::attempt::Attempt;
use crate::engine::core::Core;
use crate::engine::core::messages::{Action, HandlerIndex, Input, JobId, JobSpec, Limits, Moment, PartitionId, Work};
use crate::engine::counts::Counts;
use crate::engine::jobs::{Held, ReplayOrigin};
use crate::engine::keeper::Keeper;
use crate::engine::lag::Parking;
use crate::engine::letter::Letters;
use crate::engine::need::Need;
use crate::engine::owner::ParkedEvents;
use crate::engine::ownership::Ownership;
use crate::engine::standing::Standing;
use crate::engine::suspend::Cause;
use crate::engine::tasks::{Ended, Task, others_first};
use crate::event::delivery::{Assigned, Content, Delivery, Settled, SkipReason, SourceCommand, SourceEvent};
use crate::handler::Resources;
use crate::ledger::claims::Claims;
use crate::router::Router;

pub use crate::engine::halt::{Halted, OnUndecodable};
pub use crate::engine::jobs::{Replay, ReplayEnd};
pub use crate::engine::owner::Drain;
pub use crate::engine::ownership::Owned;

/// Records taken from the source before the loop looks at anything else. What a turn starts runs before the next one, while
/// the processor's cache still holds it, and a busy lane gets on by one job a turn: a larger turn costs more for each record,
/// not less.
const EVENTS_A_TURN_MAX: usize = 4;

/// What a group is made of.
pub struct Setup {
    /// Name of the group.
    pub group: Arc<str>,
    /// Its handlers and what wakes them.
    pub router: Arc<Router>,
    /// What its handlers share.
    pub resources: Resources,
    /// Where its dead letters go.
    pub letters: Arc<dyn Letters>,
    /// Its partitions' claims.
    pub claims: Claims,
    /// Where the events of parked lanes are kept; needed where a handler parks.
    pub parked: Option<Arc<dyn ParkedEvents>>,
    /// Held by the one job of the process that runs alone, because processes may have died of it.
    pub alone: Arc<Mutex<()>>,
    /// Limits of the core.
    pub limits: Limits,
    /// What becomes of records that can never decode.
    pub on_undecodable: OnUndecodable,
    /// Times.
    pub times: Times,
}

/// Times of the driver.
#[derive(Debug, Clone)]
pub struct Times {
    /// Time-out of one attempt, unless its handler names another.
    pub attempt: Duration,
    /// How often settled positions are committed.
    pub commit_interval: Duration,
    /// How long running attempts may go on when their partition is taken away.
    pub revoke_grace: Duration,
    /// How long running attempts may go on when the process stops.
    pub shutdown_grace: Duration,
}

/// The engine's ends of its channels.
pub struct Channels {
    /// What the source says.
    pub events: mpsc::Receiver<SourceEvent>,
    /// What the source is told.
    pub commands: std::sync::mpsc::Sender<SourceCommand>,
    /// Dead letters that come back.
    pub replays: mpsc::Receiver<Replay>,
    /// Parked lanes whose head has ended.
    pub drains: mpsc::Receiver<Drain>,
    /// Replays that have ended.
    pub replay_ends: mpsc::UnboundedSender<ReplayEnd>,
    /// Tells others which partitions are owned.
    pub owned: Arc<watch::Sender<Owned>>,
    /// Tells others where the group stands; told at each commit.
    pub standing: watch::Sender<Standing>,
}

/// Runs a group until its source ends, or until `stop` resolves and everything that ran has ended.
///
/// # Errors
/// [`Halted`] when it met a record that can never decode, and was told to end before such a record.
pub async fn run(setup: Setup, channels: Channels, stop: impl Future<Output = ()> + Send) -> Result<Counts, Halted> {
    let mut driver = Driver::new(setup, channels);
    driver.drive(stop).await;
    driver.keeper.end().await;
    tracing::info!(group = %driver.setup.group, counts = %driver.counts, "group ended");
    driver.halted.map_or(Ok(driver.counts), Err)
}

pub(super) struct Driver {
    pub(super) keeper: Keeper,
    /// Partitions that are let go, whose release is being written down.
    pub(super) releases: usize,
    pub(super) setup: Setup,
    /// Those of the setup, which attempts share.
    pub(super) resources: Arc<Resources>,
    pub(super) core: Core,
    /// When the core's time began.
    started: Instant,
    /// The same, for people.
    pub(super) began_at: DateTime<Utc>,
    /// Handlers that are suspended, since when and why.
    pub(super) suspended: BTreeMap<HandlerIndex, (DateTime<Utc>, Cause)>,
    pub(super) channels: Channels,
    pub(super) ownership: Ownership,
    pub(super) held: FxHashMap<JobId, Held>,
    pub(super) next_job: u64,
    pub(super) tasks: JoinSet<Ended>,
    pub(super) task_jobs: FxHashMap<Id, Task>,
    pub(super) under_way: FxHashMap<JobId, AbortHandle>,
    /// Attempts that begin at the end of this turn.
    pub(super) beginning: Vec<(JobId, Attempt)>,
    /// Letters that are written at the end of this turn because of lag.
    pub(super) parking: Vec<Parking>,
    /// Letters that are being written together, by the first of them.
    pub(super) parked_together: FxHashMap<JobId, Vec<JobId>>,
    /// Partitions whose jobs are parked when they wait.
    pub(super) lagging: BTreeSet<PartitionId>,
    pub(super) waits: DelayQueue<Due>,
    pub(super) counts: Counts,
    pub(super) stop_deadline: Option<Instant>,
    pub(super) last_positions: Vec<Settled>,
    pub(super) drained: bool,
    pub(super) need: Need,
    pub(super) halted: Option<Halted>,
    /// Room for what the core decides at one input.
    actions: Vec<Action>,
}

/// Whose wait is over.
#[derive(Debug, Clone, Copy)]
pub(super) enum Due {
    Job(JobId),
    Probe(HandlerIndex),
    Rate(HandlerIndex),
}

impl Driver {
    fn new(setup: Setup, channels: Channels) -> Self {
        Self {
            keeper: Keeper::new(setup.claims.clone()),
            releases: 0,
            core: Core::new(setup.limits.clone()),
            started: Instant::now(),
            began_at: Utc::now(),
            suspended: BTreeMap::new(),
            ownership: Ownership::new(Arc::clone(&channels.owned)),
            resources: Arc::new(setup.resources.clone()),
            setup,
            channels,
            held: FxHashMap::default(),
            next_job: 0,
            tasks: JoinSet::new(),
            task_jobs: FxHashMap::default(),
            under_way: FxHashMap::default(),
            beginning: Vec::new(),
            parking: Vec::new(),
            parked_together: FxHashMap::default(),
            lagging: BTreeSet::new(),
            waits: DelayQueue::new(),
            counts: Counts::default(),
            stop_deadline: None,
            last_positions: Vec::new(),
            drained: false,
            need: Need::default(),
            halted: None,
            actions: Vec::new(),
        }
    }

    async fn drive(&mut self, stop: impl Future<Output = ()> + Send) {
        tokio::pin!(stop);
        let mut commits = tokio::time::interval(self.setup.times.commit_interval);
        commits.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut arrived = Vec::with_capacity(EVENTS_A_TURN_MAX);
        loop {
            let deadline = self.deadline();
            tokio::select! {
                taken = self.channels.events.recv_many(&mut arrived, EVENTS_A_TURN_MAX) => {
                    if taken == 0 {
                        break;
                    }
                    for event in arrived.drain(..) {
                        self.source_said(event);
                    }
                    // While records come without a pause, a lane must not wait for its turn after theirs.
                    self.ended_meanwhile();
                }
                Some(ended) = self.tasks.join_next_with_id(), if !self.tasks.is_empty() => self.tasks_ended(ended),
                Some(due) = self.waits.next(), if !self.waits.is_empty() => {
                    self.step(match due.into_inner() {
                        Due::Job(job) => Input::Due { job },
                        Due::Probe(handler) => Input::ProbeDue { handler },
                        Due::Rate(handler) => Input::RateDue { handler },
                    });
                }
                Some(replay) = self.channels.replays.recv() => self.replay(replay),
                Some(drain) = self.channels.drains.recv() => self.drain(drain),
                _ = commits.tick() => {
                    self.step(Input::CommitDue);
                    self.tell_standing();
                    self.tell_need();
                }
                () = &mut stop, if self.stop_deadline.is_none() => self.stop(),
                () = tokio::time::sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    self.out_of_budget();
                }
            }
            self.begin_parking();
            if self.begin_attempts() {
                others_first().await;
            }
        }
        self.tasks.shutdown().await;
    }

    /// When running attempts are out of budget: of a revocation, or of the stop.
    fn deadline(&self) -> Option<Instant> {
        let stopping = self.stop_deadline.filter(|_| !self.drained);
        [self.ownership.deadline(), stopping].into_iter().flatten().min()
    }

    fn out_of_budget(&mut self) {
        let now = Instant::now();
        for partition in self.ownership.expired(now) {
            tracing::warn!(partition = %self.ownership.name(partition), "attempts outlived the revocation and were abandoned");
            self.step(Input::RevokeExpired { partition });
        }
        if self.stop_deadline.is_some_and(|deadline| deadline <= now) {
            tracing::warn!(group = %self.setup.group, running = self.core.attempts_running(), "attempts outlived the stop and were abandoned");
            self.step(Input::StopExpired);
        }
    }

    fn stop(&mut self) {
        tracing::info!(group = %self.setup.group, running = self.core.attempts_running(), "stopping: finishing what runs");
        self.stop_deadline = Some(Instant::now() + self.setup.times.shutdown_grace);
        self.step(Input::Stopping);
    }

    fn source_said(&mut self, event: SourceEvent) {
        match event {
            SourceEvent::Assigned { partitions } => {
                for Assigned {
                    partition: name,
                    epoch,
                    inherited,
                } in partitions
                {
                    let partition = self.ownership.id(&name);
                    if self.ownership.epoch(&name).is_some() {
                        // The source got it anew without ever saying that it had lost it.
                        self.step(Input::Lost { partition });
                    }
                    self.ownership.assign(&name, epoch);
                    tracing::info!(group = %self.setup.group, partition = %name, epoch, "partition assigned");
                    self.step(Input::Assigned {
                        partition,
                        epoch,
                        inherited: self.inheritance(inherited),
                    });
                }
            }
            SourceEvent::Delivered { epoch, delivery } => self.delivered(epoch, *delivery),
            SourceEvent::CaughtUp { ends } => ends.iter().for_each(|(name, end)| self.caught_up(name, *end)),
            SourceEvent::Lag {
                partition,
                epoch,
                bytes,
            } => self.lag(&partition, epoch, bytes),
            SourceEvent::Revoking { partitions, reply } => {
                let ids: Vec<PartitionId> = partitions.iter().map(|name| self.ownership.id(name)).collect();
                self.ownership
                    .revoke(&ids, reply, Instant::now() + self.setup.times.revoke_grace);
                for partition in ids {
                    self.step(Input::Revoking { partition });
                }
            }
            SourceEvent::Lost { partitions } => {
                for name in partitions {
                    tracing::warn!(group = %self.setup.group, partition = %name, "partition lost");
                    let partition = self.ownership.id(&name);
                    self.step(Input::Lost { partition });
                }
            }
        }
    }

    fn delivered(&mut self, epoch: u64, delivery: Delivery) {
        self.counts.delivered += 1;
        let partition = self.ownership.id(&delivery.partition);
        self.need.arrived(partition, &delivery.content);
        let position = delivery.position;
        let bytes = delivery.raw.weight();
        let work = self.hold(delivery, None, None);
        self.step(Input::Delivered {
            partition,
            epoch,
            position,
            bytes,
            work,
        });
    }

    fn replay(&mut self, replay: Replay) {
        self.counts.replayed += 1;
        let parked = self.parked_job(&replay);
        let partition = self.ownership.id(&replay.delivery.partition);
        let origin = Arc::new(ReplayOrigin {
            letter_id: replay.letter_id,
            replays: replay.replays,
            is_release: replay.parked_attempts.is_some() && replay.replays == 0,
        });
        let only = (replay.handler != crate::engine::letter::EVERY_HANDLER).then_some(replay.handler);
        let position = replay.delivery.position;
        let work = self.hold(replay.delivery, only.as_deref(), Some(&origin));
        self.step(Input::Replayed {
            partition,
            epoch: replay.epoch,
            request: replay.request,
            position,
            is_head: replay.is_head,
            parked,
            work,
        });
    }

    /// Keeps what the jobs of a record need, and says what they are.
    fn hold(&mut self, delivery: Delivery, only: Option<&str>, replay: Option<&Arc<ReplayOrigin>>) -> Work {
        let woken = match &delivery.content {
            Content::Change(event) => self.setup.router.route(event),
            Content::Skip(reason) => {
                self.counts.skip(*reason);
                return Work::Nothing;
            }
            Content::Undecodable(_) => {
                let held = Held {
                    replay: replay.cloned(),
                    ..Held::of(Arc::new(delivery), HandlerIndex::NONE, 0)
                };
                let job = self.keep(held);
                return match self.setup.on_undecodable {
                    // A letter that comes back was buried once.
                    OnUndecodable::Halt if replay.is_none() => Work::Halt(job),
                    OnUndecodable::Halt | OnUndecodable::Bury => Work::Undecodable(job),
                };
            }
        };
        let delivery = Arc::new(delivery);
        let mut jobs = Vec::with_capacity(woken.len());
        let router = Arc::clone(&self.setup.router);
        for target in woken {
            if only.is_some_and(|only| router.name(target.handler) != only) {
                continue;
            }
            let handler = HandlerIndex(u16::try_from(target.handler).expect("a group has few handlers"));
            let held = Held {
                replay: replay.cloned(),
                ..Held::of(Arc::clone(&delivery), handler, target.key)
            };
            jobs.push(JobSpec {
                job: self.keep(held),
                handler,
                key: target.key,
            });
        }
        if jobs.is_empty() {
            self.counts.skip(SkipReason::Unrouted);
            return Work::Nothing;
        }
        Work::Jobs(jobs)
    }

    pub(super) fn keep(&mut self, held: Held) -> JobId {
        let job = JobId(self.next_job);
        self.next_job += 1;
        self.held.insert(job, held);
        job
    }

    pub(super) fn step(&mut self, input: Input) {
        let mut actions = std::mem::take(&mut self.actions);
        let micros = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.core.step(Moment(micros), input, &mut actions);
        for action in actions.drain(..) {
            self.perform(action);
        }
        self.actions = actions;
    }
}
