//! Performing what the core decided: attempts and dead letters as tasks, everything else as a message.

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::engine::attempt::{Attempt, AttemptEnd, MarkFirst};
use crate::engine::backoff::jittered;
use crate::engine::core::messages::{Action, HandlerIndex, JobId, Mark, PartitionId};
use crate::engine::driver::{Driver, Due, ReplayEnd};
use crate::engine::jobs::Held;
use crate::engine::keeper::Note;
use crate::engine::lag::Parking;
use crate::engine::letter::{Letter, Parks};
use crate::engine::retry::{Class, Wait};
use crate::engine::suspend::Cause;
use crate::engine::tasks::{Ended, Task};
use crate::event::delivery::{Position, Settled, SourceCommand, SourcePartition};
use crate::ledger::claims::OwnedJob;
use crate::traces::{self, AttemptSpan};

/// The attempts of a job that waits for as long as this are stored: a change of owners would start them anew.
const STORED_FROM: Duration = Duration::from_secs(5);

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
                mark,
            } => self.start(handler, attempt, &members, mark),
            Action::Wait { job, attempts, wait } => self.wait(job, attempts, drawn(wait)),
            Action::ProbeAfter { handler, wait } => {
                self.waits.insert(Due::Probe(handler), drawn(wait));
            }
            Action::RateAfter { handler, wait } => {
                self.waits.insert(Due::Rate(handler), drawn(wait));
            }
            Action::Reserve { partition, to } => self.reserve(partition, to),
            Action::Park { jobs } => self.park(jobs),
            Action::Unpark {
                partition,
                handler,
                key,
                done,
            } => self.unpark(partition, handler, key, done),
            Action::Suspended { handler, cause } => self.suspend(handler, cause),
            Action::Resumed { handler } => self.resume(handler),
            Action::Recall { .. } | Action::Lagging { .. } => self.perform_of_lag(action),
            Action::Bury {
                job,
                class,
                attempts,
                park,
            } => self.bury(job, class, attempts, park),
            Action::Forget { job } => {
                self.held.remove(&job);
            }
            Action::Abandon { job } => self.abandon(job),
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
            Action::Halt { job } => self.halt(job),
            Action::Drained => {
                self.drained = true;
                self.leave_when_released();
            }
        }
    }

    /// Stops what is under way for the job, or was about to begin.
    fn abandon(&mut self, job: JobId) {
        self.beginning.retain(|(beginning, _)| *beginning != job);
        self.parking.retain(|parking| parking.job != job);
        if let Some(under_way) = self.under_way.remove(&job) {
            under_way.abort();
        }
    }

    fn wait(&mut self, job: JobId, attempts: u32, wait: Duration) {
        if wait >= STORED_FROM && attempts > 0 {
            self.note_attempts(job, attempts);
        }
        if let Some(held) = self.held.get_mut(&job) {
            held.due_at = Some(Instant::now() + wait);
        }
        self.waits.insert(Due::Job(job), wait);
    }

    fn suspend(&mut self, handler: HandlerIndex, cause: Cause) {
        self.suspended.insert(handler, (Utc::now(), cause));
        tracing::error!(
            group = %self.setup.group, handler = self.name_of(handler), cause = cause.as_str(),
            "handler suspended: nothing of it becomes a dead letter, one probe at a time goes through"
        );
    }

    fn resume(&mut self, handler: HandlerIndex) {
        self.suspended.remove(&handler);
        tracing::warn!(group = %self.setup.group, handler = self.name_of(handler), "handler works again and goes on");
    }

    pub(super) fn owned(&self, id: PartitionId) -> Option<(SourcePartition, u64)> {
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
        self.lagging.remove(&id);
        tracing::info!(group = %self.setup.group, partition = %self.ownership.name(id), "partition released");
        if self.stop_deadline.is_some() {
            self.last_positions
                .extend(position.and_then(|position| self.settled(id, position)));
        }
        self.release_cleanly(id, position);
    }

    /// A source that ended closes its channel of events too, which ends the loop; nothing is lost by not telling it.
    pub(super) fn tell_source(&self, command: SourceCommand) {
        if self.channels.commands.send(command).is_err() {
            tracing::debug!(group = %self.setup.group, "the source has already ended");
        }
    }

    fn start(&mut self, handler: HandlerIndex, number: u32, members: &[JobId], mark: Mark) {
        let mark = self.mark_first(members[0], mark);
        let router = &self.setup.router;
        let index = usize::from(handler.0);
        let held: Vec<&Held> = members.iter().map(|job| &self.held[job]).collect();
        let attempt = Attempt {
            resources: Arc::clone(&self.resources),
            timeout: router.timeout(index).unwrap_or(self.setup.times.attempt),
            handler: Arc::clone(&router.handlers()[index]),
            name: router.shared_name(index),
            events: held.iter().filter_map(|held| held.event().cloned()).collect(),
            number,
            mode: held[0].mode(),
            mark,
            span: self.traced(handler, number, &held),
        };
        if attempt.events.is_empty() {
            // What was decoded once, and stored, is not decodable any more.
            let ended = self.tasks.spawn(async { Ended::Attempt(AttemptEnd::undecodable()) });
            return self.track(Task::Attempt(members[0]), ended);
        }
        self.beginning.push((members[0], attempt));
    }

    /// The span of an attempt at these jobs, which goes on with the traces of their records.
    fn traced(&self, handler: HandlerIndex, number: u32, held: &[&Held]) -> Option<Box<AttemptSpan>> {
        if !traces::are_on() {
            return None;
        }
        let first = held.first()?;
        let origin = first.event()?.origin();
        let attempt = traces::Attempt {
            group: &self.setup.group,
            handler: self.name_of(handler),
            number,
            is_replay: first.replay.is_some(),
            topic: &first.partition().topic,
            partition: first.partition().partition,
            offset: first.delivery.position.0,
            schema: &origin.schema,
            table: &origin.table,
            event: first.event()?.id().map(|id| id.to_string()),
        };
        let headers = held.iter().map(|held| &*held.delivery.raw.headers);
        traces::begin(&attempt, headers).map(Box::new)
    }

    fn bury(&mut self, job: JobId, class: Class, attempts: u32, park: bool) {
        if class == Class::Parked {
            return self.parking.push(Parking { job, attempts });
        }
        let parks = match park {
            true => self.lane_of(job).map(|(lane, epoch)| Parks { lane, epoch }),
            false => None,
        };
        let held = self.held.get_mut(&job).expect("a job is kept until it is forgotten");
        if class == Class::Crashed {
            held.marked = true;
            held.failed("processes died each time while this job ran alone".to_owned());
        }
        let held = &self.held[&job];
        let router = &self.setup.router;
        let handler = (held.handler != HandlerIndex::NONE).then(|| router.name(usize::from(held.handler.0)));
        let letter = Letter {
            parks,
            ..held.letter(&self.setup.group, handler, class, attempts)
        };
        let letters = Arc::clone(&self.setup.letters);
        tracing::warn!(
            handler = %letter.handler, partition = %letter.partition, offset = letter.position.0, class = class.as_str(),
            attempts, letter = letter.id(), error = letter.error, "writing dead letter"
        );
        let under_way = self.tasks.spawn(async move {
            let written = letters.bury(&letter).await;
            Ended::Bury(written.map_err(|error| format!("{error}: {}", error.source)))
        });
        self.track(Task::Bury(job, class), under_way);
    }

    /// What has to be committed before the attempt at a job begins.
    fn mark_first(&mut self, job: JobId, mark: Mark) -> Option<MarkFirst> {
        let alone = match mark {
            Mark::None => return None,
            Mark::Running => None,
            Mark::Alone => Some(Arc::clone(&self.setup.alone)),
        };
        let owned = self.owned_job(job)?;
        let held = self.held.get_mut(&job)?;
        held.marked = true;
        held.runs_alone = alone.is_some();
        Some(MarkFirst {
            claims: self.setup.claims.clone(),
            job: owned,
            alone,
        })
    }

    fn owned_job(&mut self, job: JobId) -> Option<OwnedJob> {
        let (lane, epoch) = self.lane_of(job)?;
        Some(OwnedJob {
            partition: lane.partition,
            epoch,
            position: self.held[&job].delivery.position,
            handler: lane.handler,
        })
    }

    /// A job is settled: nobody has to know of its marks and attempts any more.
    pub(super) fn note_settled(&mut self, job: JobId) {
        let Some((marked, noted)) = self.held.get(&job).map(|held| (held.marked, held.noted)) else {
            return;
        };
        if !(marked || noted) {
            return;
        }
        let Some(owned) = self.owned_job(job) else { return };
        if noted {
            self.keeper.note(Note::ForgetAttempts(owned.clone()));
        }
        if marked {
            self.keeper.note(Note::Unmark(owned));
        }
    }

    /// An attempt ended, and its job is not settled. One that ran alone stays a suspect.
    pub(super) fn note_unsettled(&mut self, job: JobId) {
        let Some((marked, alone)) = self.held.get(&job).map(|held| (held.marked, held.runs_alone)) else {
            return;
        };
        if let (true, Some(owned)) = (marked, self.owned_job(job)) {
            self.keeper.note(match alone {
                true => Note::Rest(owned),
                false => Note::Unmark(owned),
            });
        }
    }

    fn note_attempts(&mut self, job: JobId, attempts: u32) {
        let delivered = self.held.get(&job).is_some_and(|held| held.replay.is_none());
        if let (true, Some(owned)) = (delivered, self.owned_job(job)) {
            let held = self.held.get_mut(&job).expect("it was just found");
            held.noted = true;
            let first_failed_at = held.first_failed_at();
            self.keeper.note(Note::Attempts(owned, attempts, first_failed_at));
        }
    }

    pub(super) fn track(&mut self, task: Task, under_way: AbortHandle) {
        self.task_jobs.insert(under_way.id(), task);
        if let Task::Attempt(job) | Task::Bury(job, _) | Task::Store(job) = task {
            self.under_way.insert(job, under_way);
        }
    }
}
