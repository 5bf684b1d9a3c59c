//! Performing what the core decided: attempts and dead letters as tasks, everything else as a message.

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use tokio::task::AbortHandle;

use crate::engine::attempt::Attempt;
use crate::engine::backoff::jittered;
use crate::engine::core::messages::{Action, HandlerIndex, JobId, PartitionId};
use crate::engine::driver::{Driver, Due, Ended, ReplayEnd, Task};
use crate::engine::jobs::Held;
use crate::engine::retry::{Class, Wait};
use crate::event::delivery::{Position, Settled, SourceCommand, SourcePartition};

/// How long a wait takes.
fn drawn(wait: Wait) -> Duration {
    match wait {
        Wait::Jittered(ceiling) => jittered(ceiling),
        Wait::Exact(delay) => delay,
    }
}

impl Driver {
    fn name_of(&self, handler: HandlerIndex) -> &str {
        self.setup.router.name(usize::from(handler.0))
    }

    pub(super) fn perform(&mut self, action: Action) {
        match action {
            Action::Start {
                handler,
                attempt,
                members,
                mark: _,
            } => self.start(handler, attempt, &members),
            Action::Wait { job, attempts: _, wait } => {
                self.waits.insert(Due::Job(job), drawn(wait));
            }
            Action::ProbeAfter { handler, wait } => {
                self.waits.insert(Due::Probe(handler), drawn(wait));
            }
            Action::RateAfter { handler, wait } => {
                self.waits.insert(Due::Rate(handler), drawn(wait));
            }
            Action::Reserve { .. } | Action::Park { .. } | Action::Unpark { .. } => {}
            Action::Suspended { handler, cause } => {
                self.suspended.insert(handler, (Utc::now(), cause));
                tracing::error!(
                    group = %self.setup.group, handler = self.name_of(handler), cause = cause.as_str(),
                    "handler suspended: nothing of it becomes a dead letter, one probe at a time goes through"
                );
            }
            Action::Resumed { handler } => {
                self.suspended.remove(&handler);
                tracing::warn!(group = %self.setup.group, handler = self.name_of(handler), "handler works again and goes on");
            }
            Action::Bury {
                job,
                class,
                attempts,
                park: _,
            } => self.bury(job, class, attempts),
            Action::Forget { job } => {
                self.held.remove(&job);
            }
            Action::Abandon { job } => {
                if let Some(under_way) = self.under_way.remove(&job) {
                    under_way.abort();
                }
            }
            Action::Commit { positions } => {
                let settled = positions
                    .into_iter()
                    .filter_map(|(id, position)| self.settled(id, position))
                    .collect();
                self.tell_source(SourceCommand::Commit(settled));
            }
            Action::Pause { partition } => {
                if let Some((partition, epoch)) = self.owned(partition) {
                    self.tell_source(SourceCommand::Pause { partition, epoch });
                }
            }
            Action::Resume { partition } => {
                if let Some((partition, epoch)) = self.owned(partition) {
                    self.tell_source(SourceCommand::Resume { partition, epoch });
                }
            }
            Action::Released { partition, position } => self.released(partition, position),
            Action::ReplayEnded { request, healed } => {
                if self.channels.replay_ends.send(ReplayEnd { request, healed }).is_err() {
                    tracing::warn!(
                        request = request.0,
                        "replay ended after its taker had stopped; it will be taken again"
                    );
                }
            }
            Action::Drained => {
                self.drained = true;
                let positions = std::mem::take(&mut self.last_positions);
                self.tell_source(SourceCommand::Leave(positions));
            }
        }
    }

    fn owned(&self, id: PartitionId) -> Option<(SourcePartition, u64)> {
        let name = self.ownership.name(id);
        Some((name.clone(), self.ownership.epoch(name)?))
    }

    fn settled(&self, id: PartitionId, position: Position) -> Option<Settled> {
        let (partition, epoch) = self.owned(id)?;
        Some(Settled {
            partition,
            epoch,
            position,
        })
    }

    fn released(&mut self, id: PartitionId, position: Option<Position>) {
        tracing::info!(group = %self.setup.group, partition = %self.ownership.name(id), "partition released");
        if self.stop_deadline.is_some() {
            self.last_positions
                .extend(position.and_then(|position| self.settled(id, position)));
        }
        self.ownership.released(id, position);
    }

    /// A source that ended closes its channel of events too, which ends the loop; nothing is lost by not telling it.
    fn tell_source(&self, command: SourceCommand) {
        if self.channels.commands.send(command).is_err() {
            tracing::debug!(group = %self.setup.group, "the source has already ended");
        }
    }

    fn start(&mut self, handler: HandlerIndex, number: u32, members: &[JobId]) {
        let router = &self.setup.router;
        let index = usize::from(handler.0);
        let held: Vec<&Held> = members.iter().map(|job| &self.held[job]).collect();
        let attempt = Attempt {
            resources: self.setup.resources.clone(),
            timeout: router.timeout(index).unwrap_or(self.setup.times.attempt),
            handler: Arc::clone(&router.handlers()[index]),
            name: router.shared_name(index),
            events: held.iter().filter_map(|held| held.event().cloned()).collect(),
            number,
            mode: held[0].mode(),
        };
        let under_way = self.tasks.spawn(async move { Ended::Attempt(attempt.run().await) });
        self.track(Task::Attempt(members[0]), under_way);
    }

    fn bury(&mut self, job: JobId, class: Class, attempts: u32) {
        let held = &self.held[&job];
        let router = &self.setup.router;
        let handler = (held.handler != HandlerIndex::NONE).then(|| router.name(usize::from(held.handler.0)));
        let letter = held.letter(&self.setup.group, handler, class, attempts);
        let letters = Arc::clone(&self.setup.letters);
        tracing::warn!(
            handler = %letter.handler, partition = %letter.partition, offset = letter.position.0, class = class.as_str(),
            attempts, letter = letter.id(), error = letter.error, "writing dead letter"
        );
        let under_way = self.tasks.spawn(async move {
            let written = letters.bury(&letter).await;
            Ended::Bury(written.map_err(|error| format!("{error}: {}", error.source)))
        });
        self.track(Task::Bury(job), under_way);
    }

    fn track(&mut self, task: Task, under_way: AbortHandle) {
        let (Task::Attempt(job) | Task::Bury(job)) = task;
        self.task_jobs.insert(under_way.id(), task);
        self.under_way.insert(job, under_way);
    }
}
