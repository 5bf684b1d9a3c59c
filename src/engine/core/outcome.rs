//! What follows from the end of an attempt: the next job of the lane, another attempt, or a dead letter.

use crate::engine::core::Core;
use crate::engine::core::messages::{Action, HandlerIndex, JobId, Moment, PartitionId};
use crate::engine::core::mutation::Mutation;
use crate::engine::lanes::{LaneKey, Phase};
use crate::engine::retry::{Class, Finish, Verdict, Wait, counts, outage_wait, spared_wait, verdict};
use crate::engine::suspend::{Sign, Turn, sign};

/// When a job failed first, and how many attempts of its handler had worked by then.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FirstFailure {
    at: Moment,
    works: u64,
}

impl Core {
    pub(super) fn finished(&mut self, at: Moment, job: JobId, finish: Finish, actions: &mut Vec<Action>) {
        let Some((id, key)) = self.locate(job) else { return };
        let Phase::Running { members } = self.lane(id, key).phase else {
            return;
        };
        self.stopped_running(id, key);
        self.ended_alone(job);
        self.watch(at, job, (id, key), finish, members, actions);
        let suspended = self.handler(key.handler).circuit.is_suspended();
        let counted = self.count(at, job, finish, suspended);
        let verdict = self.verdict(job, finish);
        let spared = match verdict {
            Verdict::Bury(class) => self.spared(at, job, class, suspended),
            Verdict::Settle | Verdict::Again(_) => None,
        };
        let abrupt = matches!(finish, Finish::TimedOut | Finish::Panicked);
        let apart = members > 1
            && match verdict {
                Verdict::Settle => false,
                Verdict::Again(_) => abrupt && !suspended && !self.mutated(Mutation::CompanyPanicsAgain),
                // Which of them is poison is found out also while nothing tells it from an outage.
                Verdict::Bury(_) => {
                    (!suspended || spared.is_none()) && !self.mutated(Mutation::CompanyIsBuriedTogether)
                }
            };
        match verdict {
            Verdict::Settle => self.settle_head(id, key, members, actions),
            Verdict::Again(_) | Verdict::Bury(_) if self.partition(id).releasing => {
                if self.mutated(Mutation::FailureOutlivesRelease) {
                    return self.release_if_idle(id, actions);
                }
                self.give_up(id, key, actions);
            }
            _ if apart => self.run_singly(id, key, members, counted),
            Verdict::Again(wait) => {
                self.running += usize::from(self.mutated(Mutation::WaitingHoldsItsRoom));
                self.wait(id, key, wait, actions);
            }
            Verdict::Bury(class) => match spared {
                Some(wait) => self.wait(id, key, wait, actions),
                None => self.bury(job, class, actions),
            },
        }
    }

    /// What ran on a lane has ended, or was abandoned.
    pub(super) fn stopped_running(&mut self, id: PartitionId, key: LaneKey) {
        self.partition(id).in_flight -= 1;
        self.running -= 1;
        self.handler(key.handler).running -= 1;
    }

    fn wait(&mut self, id: PartitionId, key: LaneKey, wait: Wait, actions: &mut Vec<Action>) {
        let lane = self.lane(id, key);
        lane.phase = Phase::Waiting;
        let job = lane.head();
        let attempts = self.jobs[&job].attempts;
        actions.push(Action::Wait { job, attempts, wait });
    }

    /// Tells the circuit how an attempt ended, and the driver what that changes.
    fn watch(
        &mut self,
        at: Moment,
        job: JobId,
        lane: (PartitionId, LaneKey),
        finish: Finish,
        members: usize,
        actions: &mut Vec<Action>,
    ) {
        let handler = lane.1.handler;
        if self.mutated(Mutation::NeverSuspends) {
            return;
        }
        let limits = &self.limits.handlers[usize::from(handler.0)];
        let circuit = &mut self.handlers[usize::from(handler.0)].circuit;
        let wait = match circuit.ended(&limits.suspend, at, job, lane, finish, members) {
            None | Some(Turn::ProbeNext) => return,
            Some(Turn::Resumed) => {
                actions.push(Action::Resumed { handler });
                return;
            }
            Some(Turn::Suspended(cause)) => {
                actions.push(Action::Suspended { handler, cause });
                outage_wait(&limits.policy, 1)
            }
            Some(Turn::ProbeFailed(failed)) => outage_wait(&limits.policy, failed),
        };
        actions.push(Action::ProbeAfter { handler, wait });
    }

    /// Counts the end of an attempt; answers whether it counted. What fails while its handler is suspended does not.
    fn count(&mut self, at: Moment, job: JobId, finish: Finish, suspended: bool) -> bool {
        let unreachable =
            finish == Finish::Unreachable || suspended && matches!(sign(finish), Sign::Fails | Sign::Refuses);
        let counted = counts(finish) && !unreachable || unreachable && self.mutated(Mutation::OutageCountsAsAttempt);
        let works = self.works(job);
        let state = self.jobs.get_mut(&job).expect("a located job is known");
        state.attempts += u32::from(counted);
        state.outages = if unreachable {
            state.outages.saturating_add(1)
        } else {
            0
        };
        if matches!(sign(finish), Sign::Fails | Sign::Refuses) {
            state.first_failure = state.first_failure.or(Some(FirstFailure { at, works }));
        }
        counted
    }

    fn works(&mut self, job: JobId) -> u64 {
        let handler = self.jobs[&job].lane.handler;
        self.handler(handler).circuit.works()
    }

    fn verdict(&self, job: JobId, finish: Finish) -> Verdict {
        let state = &self.jobs[&job];
        let policy = &self.limits.handlers[usize::from(state.lane.handler.0)].policy;
        verdict(policy, finish, state.attempts, state.outages)
    }

    /// The wait of a job that would be buried, but not yet: its handler is suspended, or nothing tells it from an outage.
    fn spared(&mut self, at: Moment, job: JobId, class: Class, suspended: bool) -> Option<Wait> {
        // Neither waiting nor working neighbours make an event younger.
        if class == Class::Expired && !self.mutated(Mutation::ExpiredIsSpared) {
            return None;
        }
        let works = self.works(job);
        let state = &self.jobs[&job];
        let policy = &self.limits.handlers[usize::from(state.lane.handler.0)].policy;
        let first = state.first_failure?;
        let patient = at.since(first.at) < policy.exhausted_alone_after;
        if suspended {
            // A flood that nobody mends must end some time, and what is refused is no outage. What may heal is waited for.
            let spared = class != Class::Permanent || patient;
            return (spared && !self.mutated(Mutation::SuspendedStillBuries))
                .then(|| outage_wait(policy, state.outages));
        }
        let alone = class != Class::Permanent && first.works == works && patient;
        (alone && !self.mutated(Mutation::AloneIsExhausted)).then(|| spared_wait(policy, state.attempts))
    }

    /// Jobs that failed together are tried one by one, so that each gets its own verdict.
    fn run_singly(&mut self, id: PartitionId, key: LaneKey, members: usize, counted: bool) {
        // Who of them failed is not known yet, so this call is nobody's attempt.
        let head = self.lane(id, key).head();
        let state = self.jobs.get_mut(&head).expect("a queued job is known");
        state.attempts -= u32::from(counted);
        let together = self.mutated(Mutation::CompanyStaysTogether);
        let lane = self.lane(id, key);
        lane.singly = if together { 0 } else { members };
        lane.phase = Phase::Ready;
        self.make_ready(id, key);
    }

    /// The wait for the next probe of a suspended handler is over.
    pub(super) fn probe_due(&mut self, handler: HandlerIndex) {
        if !self.mutated(Mutation::ProbesNeverStart) {
            self.handler(handler).circuit.probe_due();
        }
    }
}
