//! Dead letters: a job is settled by one only when it is durable; until then its lane waits and the write is retried.

use crate::engine::core::Core;
use crate::engine::core::messages::{Action, HandlerIndex, JobId};
use crate::engine::core::mutation::Mutation;
use crate::engine::lanes::Phase;
use crate::engine::retry::{Class, outage_wait};

impl Core {
    pub(super) fn bury(&mut self, job: JobId, class: Class, actions: &mut Vec<Action>) {
        let Some((id, key)) = self.locate(job) else { return };
        let members = match self.lane(id, key).phase {
            Phase::Running { members } => members,
            _ => 1,
        };
        if members > 1 {
            // Only a core that is broken on purpose gets here: company runs singly before it is buried.
            self.settle_head(id, key, members, actions);
            return;
        }
        self.lane(id, key).phase = Phase::Burying;
        self.partition(id).in_flight += 1;
        let state = self.jobs.get_mut(&job).expect("a located job is known");
        state.class = Some(class);
        state.outages = 0;
        let attempts = state.attempts;
        let park = self.parks(key.handler, class);
        actions.push(Action::Bury {
            job,
            class,
            attempts,
            park,
        });
        if self.mutated(Mutation::BuriedBeforeDurable) {
            self.buried(job, actions);
        }
    }

    pub(super) fn buried(&mut self, job: JobId, actions: &mut Vec<Action>) {
        let Some((id, key)) = self.locate(job) else { return };
        if self.lane(id, key).phase != Phase::Burying {
            return;
        }
        self.partition(id).in_flight -= 1;
        self.lane(id, key).pop();
        let class = self.jobs[&job].class.expect("a job that is buried has its class");
        if self.parks(key.handler, class) {
            self.park_lane(id, key, actions);
        }
        self.acquit(id, job);
        self.settle(job, false, actions);
        self.go_on(id, key, actions);
        self.relieve(id, actions);
        if class == Class::Parked {
            self.letter_parked(id, key.handler, actions);
        }
    }

    pub(super) fn bury_failed(&mut self, job: JobId, actions: &mut Vec<Action>) {
        let Some((id, key)) = self.locate(job) else { return };
        if self.lane(id, key).phase != Phase::Burying {
            return;
        }
        if self.mutated(Mutation::GivesUpBurying) {
            return self.buried(job, actions);
        }
        self.partition(id).in_flight -= 1;
        if self.partition(id).releasing {
            return self.give_up(id, key, actions);
        }
        self.lane(id, key).phase = Phase::BuryWaiting;
        let state = self.jobs.get_mut(&job).expect("a located job is known");
        state.outages = state.outages.saturating_add(1);
        let (attempts, outages) = (state.attempts, state.outages);
        let wait = match key.handler {
            // What cannot be decoded has no handler; the limits of a group's handlers are those of the group.
            HandlerIndex::NONE => outage_wait(&self.limits.handlers[0].policy, outages),
            handler => outage_wait(&self.limits.handlers[usize::from(handler.0)].policy, outages),
        };
        actions.push(Action::Wait { job, attempts, wait });
    }

    pub(super) fn bury_again(&mut self, job: JobId, actions: &mut Vec<Action>) {
        let Some((id, key)) = self.locate(job) else { return };
        self.lane(id, key).phase = Phase::Burying;
        self.partition(id).in_flight += 1;
        let state = &self.jobs[&job];
        let class = state.class.expect("a job that is buried again has its class");
        let park = self.parks(key.handler, class);
        actions.push(Action::Bury {
            job,
            class,
            attempts: state.attempts,
            park,
        });
    }

    /// Whether a lane of this handler is parked when its head is buried. A head that is not dead always has its turn first.
    fn parks(&self, handler: HandlerIndex, class: Class) -> bool {
        let limits = self.limits.handlers.get(usize::from(handler.0));
        let overtakes = self.mutated(Mutation::FollowersOvertakeParkedLetter);
        limits.is_some_and(|limits| limits.parks) || class == Class::Parked && !overtakes
    }
}
