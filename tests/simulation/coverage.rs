//! Which kinds of things happened: a simulation that never meets a kind proves nothing about it.

use std::collections::{BTreeMap, BTreeSet};

use afterwrite::engine::core::messages::{Action, Input, Mark};
use afterwrite::engine::retry::{Class, Finish};
use afterwrite::engine::suspend::Cause;

#[derive(Default)]
pub(crate) struct Coverage {
    seen: BTreeSet<&'static str>,
}

#[derive(Default)]
pub(crate) struct Table {
    worlds: usize,
    counts: BTreeMap<&'static str, usize>,
}

/// Everything that has to happen in at least one world of a hundred.
const KINDS: [&str; 143] = [
    "input: assigned",
    "input: bury failed",
    "input: buried",
    "input: commit due",
    "input: delivered job",
    "input: delivered nothing",
    "input: delivered undecodable",
    "input: delivered what must not be passed",
    "input: drain",
    "input: due",
    "input: finished",
    "input: lag",
    "input: lost",
    "input: recalled none",
    "input: recalled some",
    "input: probe due",
    "input: rate due",
    "input: replayed",
    "input: reserved",
    "input: revoke expired",
    "input: revoking",
    "input: stop expired",
    "input: store failed",
    "input: stored",
    "input: unparked more",
    "input: unparked nothing",
    "input: stopping",
    "finish: done",
    "finish: panicked",
    "finish: permanent",
    "finish: expired",
    "finish: skipped",
    "finish: snooze",
    "finish: timed out",
    "finish: transient",
    "finish: transient with a delay",
    "finish: unreachable",
    "action: abandon",
    "action: bury crashed",
    "action: bury expired",
    "action: bury exhausted",
    "action: bury panic",
    "action: bury parked",
    "action: bury permanent",
    "action: bury timeout",
    "action: bury undecodable",
    "action: commit",
    "action: drained",
    "action: halt",
    "action: forget",
    "action: park",
    "action: park lane",
    "action: lags",
    "action: lags no more",
    "action: pause",
    "action: recall",
    "action: released",
    "action: replay buried again",
    "action: replay healed",
    "action: reserve",
    "action: resume",
    "action: probe after",
    "action: rate after",
    "action: resumed",
    "action: start company",
    "action: start alone",
    "action: start marked",
    "action: start one",
    "action: suspended, failing",
    "action: suspended, flood",
    "action: suspended, silent",
    "action: unpark",
    "action: wait",
    "fault: abandoned call commits",
    "fault: abandoned call commits later",
    "fault: abandoned letter is written later",
    "fault: assigned while held",
    "fault: assigned while stopping",
    "fault: budget of a revocation spent",
    "fault: commit lost",
    "fault: commit of a deposed owner",
    "fault: crash",
    "fault: crash after events were stored",
    "fault: crash after the effect",
    "fault: crash after the letter",
    "fault: crash before the effect",
    "fault: delivered after a pause",
    "fault: delivered twice",
    "fault: delivered under an old epoch",
    "fault: delivered while releasing",
    "fault: deposed without a word",
    "fault: events not stored",
    "fault: killed by a job",
    "fault: killed by one job of several",
    "fault: late answer",
    "fault: late budget of a revocation",
    "fault: letter not written",
    "fault: letter of a deposed owner does not park",
    "fault: moved to another member",
    "fault: outage",
    "fault: replayed under an old epoch",
    "fault: recall of a deposed owner",
    "fault: replayed twice",
    "fault: replay taken again by the next owner",
    "fault: reservation of a deposed owner",
    "fault: timed out and committed later",
    "fault: unpark of a deposed owner",
    "fault: zombie finds its row",
    "parked letter of an event that the ledger knows",
    "several events stored together",
    "claim: attempts refused",
    "claim: end of a replay refused",
    "claim: mark refused",
    "claim: release refused",
    "claim: storing refused",
    "claim: taken by one that died before it read what was left",
    "claim: two owners at once",
    "claim: two owners work on one event",
    "consumer: a member is fenced",
    "consumer: a member is fenced while it lets go",
    "consumer: commit under an old epoch of the member",
    "consumer: lost while revoked",
    "consumer: lost without a revocation",
    "consumer: one is assigned",
    "consumer: one is assigned while others are revoked",
    "consumer: one is revoked",
    "consumer: one is revoked while others are",
    "consumer: refused commit sent again",
    "cooperative: a member is put out",
    "cooperative: a member is put out while it lets go",
    "cooperative: lost while revoked",
    "cooperative: lost without a revocation",
    "cooperative: some are revoked while others are",
    "cooperative: some are revoked, others stay",
    "cooperative: what is free is assigned",
    "cooperative: what is free is assigned, others stay",
    "eager: a member is put out",
    "eager: a member is put out while it lets go",
    "eager: everything is assigned",
    "eager: everything is revoked",
    "eager: lost while revoked",
    "eager: lost without a revocation",
    "eager: the rest is revoked",
];

impl Coverage {
    pub(crate) fn mark(&mut self, kind: &'static str) {
        self.seen.insert(kind);
    }

    pub(crate) fn mark_input(&mut self, input: &Input) {
        use afterwrite::engine::core::messages::Work;
        let kind = match input {
            Input::Assigned { .. } => "input: assigned",
            Input::Delivered { work, .. } => match work {
                Work::Nothing => "input: delivered nothing",
                Work::Jobs(_) => "input: delivered job",
                Work::Undecodable(_) => "input: delivered undecodable",
                Work::Halt(_) => "input: delivered what must not be passed",
            },
            Input::Stored { .. } => "input: stored",
            Input::StoreFailed { .. } => "input: store failed",
            Input::Drain { .. } => "input: drain",
            Input::Unparked { jobs, .. } if jobs.is_empty() => "input: unparked nothing",
            Input::Unparked { .. } => "input: unparked more",
            Input::Reserved { .. } => "input: reserved",
            Input::Replayed { .. } => "input: replayed",
            Input::Finished { finish, .. } => {
                self.mark(finish_kind(*finish));
                "input: finished"
            }
            Input::Due { .. } => "input: due",
            Input::ProbeDue { .. } => "input: probe due",
            Input::RateDue { .. } => "input: rate due",
            Input::Buried { .. } => "input: buried",
            Input::BuryFailed { .. } => "input: bury failed",
            Input::Lag { .. } => "input: lag",
            Input::Recalled { letters: 0, .. } => "input: recalled none",
            Input::Recalled { .. } => "input: recalled some",
            Input::Revoking { .. } => "input: revoking",
            Input::RevokeExpired { .. } => "input: revoke expired",
            Input::Lost { .. } => "input: lost",
            Input::CommitDue => "input: commit due",
            Input::Stopping => "input: stopping",
            Input::StopExpired => "input: stop expired",
        };
        self.mark(kind);
    }

    pub(crate) fn mark_action(&mut self, action: &Action) {
        if matches!(action, Action::Bury { park: true, .. }) {
            self.mark("action: park lane");
        }
        self.mark(match action {
            Action::Start { mark: Mark::Alone, .. } => "action: start alone",
            Action::Start {
                mark: Mark::Running, ..
            } => "action: start marked",
            Action::Reserve { .. } => "action: reserve",
            Action::Start { members, .. } if members.len() > 1 => "action: start company",
            Action::Start { .. } => "action: start one",
            Action::Wait { .. } => "action: wait",
            Action::Suspended { cause, .. } => match cause {
                Cause::Failing => "action: suspended, failing",
                Cause::Silent => "action: suspended, silent",
                Cause::Flood => "action: suspended, flood",
            },
            Action::Resumed { .. } => "action: resumed",
            Action::ProbeAfter { .. } => "action: probe after",
            Action::RateAfter { .. } => "action: rate after",
            Action::Park { .. } => "action: park",
            Action::Unpark { .. } => "action: unpark",
            Action::Bury { class, .. } => match class {
                Class::Undecodable => "action: bury undecodable",
                Class::Permanent => "action: bury permanent",
                Class::Exhausted => "action: bury exhausted",
                Class::Timeout => "action: bury timeout",
                Class::Panic => "action: bury panic",
                Class::Crashed => "action: bury crashed",
                Class::Expired => "action: bury expired",
                Class::Parked => "action: bury parked",
            },
            Action::Recall { .. } => "action: recall",
            Action::Lagging { lags: true, .. } => "action: lags",
            Action::Lagging { lags: false, .. } => "action: lags no more",
            Action::Forget { .. } => "action: forget",
            Action::Abandon { .. } => "action: abandon",
            Action::Commit { .. } => "action: commit",
            Action::Pause { .. } => "action: pause",
            Action::Resume { .. } => "action: resume",
            Action::Released { .. } => "action: released",
            Action::ReplayEnded { healed: true, .. } => "action: replay healed",
            Action::ReplayEnded { healed: false, .. } => "action: replay buried again",
            Action::Halt { .. } => "action: halt",
            Action::Drained => "action: drained",
        });
    }
}

impl Table {
    pub(crate) fn add(&mut self, coverage: &Coverage) {
        self.worlds += 1;
        for kind in &coverage.seen {
            *self.counts.entry(kind).or_default() += 1;
        }
    }

    /// Counts what another table counted as well.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.worlds += other.worlds;
        for (kind, worlds) in &other.counts {
            *self.counts.entry(kind).or_default() += worlds;
        }
    }

    pub(crate) fn print(&self) {
        for (kind, worlds) in &self.counts {
            println!(
                "{kind:60} {:5.1} % of the worlds",
                *worlds as f64 * 100.0 / self.worlds as f64
            );
        }
    }

    /// Panics when a kind is too rare, or was never thought of.
    pub(crate) fn assert_complete(&self) {
        for kind in KINDS {
            let worlds = self.counts.get(kind).copied().unwrap_or(0);
            assert!(
                worlds * 100 >= self.worlds,
                "{kind} occurs in {worlds} of {} worlds",
                self.worlds
            );
        }
        for kind in self.counts.keys() {
            assert!(KINDS.contains(kind), "{kind} is missing in the list of kinds");
        }
    }
}

fn finish_kind(finish: Finish) -> &'static str {
    match finish {
        Finish::Done => "finish: done",
        Finish::Skipped => "finish: skipped",
        Finish::Snooze(_) => "finish: snooze",
        Finish::Transient(None) => "finish: transient",
        Finish::Transient(Some(_)) => "finish: transient with a delay",
        Finish::Permanent => "finish: permanent",
        Finish::Expired => "finish: expired",
        Finish::Unreachable => "finish: unreachable",
        Finish::TimedOut => "finish: timed out",
        Finish::Panicked => "finish: panicked",
    }
}
