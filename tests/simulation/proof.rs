//! The proofs that the simulation can fail: every deliberate defect is caught, and every invariant alone catches one.

use std::collections::BTreeSet;

use afterwrite::engine::core::mutation::Mutation;

use crate::invariant::{Invariant, Watched};
use crate::member::Subject;
use crate::run::{self, History};

/// A defect that nobody catches in so many worlds is not caught.
const WORLDS_PER_MUTATION: u64 = 200;

/// So many worlds of a defect that nobody watches for run to their ends.
const WORLDS_UNWATCHED: u64 = 10;

/// An invariant, a defect that it catches while it is the only one that is watched, and whether it does so by what the core
/// says (its shadow) or by what reaches the broker and the database.
const ALONE: [(Invariant, Mutation, bool); 22] = [
    (Invariant::Frontier, Mutation::CommitPassesUnsettled, true),
    (Invariant::LaneOrder, Mutation::RetryLosesItsPlace, true),
    (Invariant::Effects, Mutation::RetryLosesItsPlace, false),
    (Invariant::Attempts, Mutation::OutageCountsAsAttempt, true),
    (Invariant::Suspension, Mutation::NeverSuspends, true),
    (Invariant::Blame, Mutation::SuspectsAreNotMarked, true),
    (Invariant::Parking, Mutation::StoredOutOfOrder, true),
    (Invariant::Room, Mutation::RunsPastItsRoom, true),
    (Invariant::Release, Mutation::LateBudgetIsBelieved, true),
    (Invariant::Window, Mutation::NeverPauses, true),
    (Invariant::Letters, Mutation::GivesUpBurying, true),
    (Invariant::Replays, Mutation::ReplayAlwaysHeals, true),
    (Invariant::Liveness, Mutation::NeverResumes, false),
    (Invariant::Memory, Mutation::RefusedIsKept, true),
    (Invariant::NoPanic, Mutation::FailureOutlivesRelease, true),
    (Invariant::Frontier, Mutation::CommitPassesUnsettled, false),
    (Invariant::Replays, Mutation::ReplayAlwaysHeals, false),
    (Invariant::Blame, Mutation::NobodyIsBlamed, false),
    (Invariant::Parking, Mutation::LiveWhileStoring, false),
    (Invariant::Lag, Mutation::LagIsIgnored, true),
    (Invariant::Effects, Mutation::FollowersOvertakeParkedLetter, false),
    (Invariant::Liveness, Mutation::NeverRecalls, false),
];

fn broken(mutation: Mutation, watched: Watched, shadowed: bool) -> Subject {
    Subject {
        mutation: Some(mutation),
        watched,
        shadowed,
    }
}

/// The first world that catches a defect, and what was violated there.
fn caught(subject: Subject) -> Option<(u64, Invariant)> {
    let mut worlds = (0..WORLDS_PER_MUTATION).map(|seed| (seed, run::explore(seed, subject)));
    worlds.find_map(|(seed, ended)| Some((seed, ended.err()?.violation.invariant)))
}

#[test]
fn every_deliberate_defect_is_caught() {
    for mutation in Mutation::ALL {
        let found = caught(broken(mutation, Watched::ALL, true));
        let (seed, invariant) = found.unwrap_or_else(|| panic!("nothing catches {mutation:?}"));
        println!("{mutation:?}: world {seed}, by {invariant:?}");
    }
}

#[test]
fn each_invariant_alone_catches_a_defect_that_survives_when_none_is_watched() {
    for (invariant, mutation, shadowed) in ALONE {
        let alone = caught(broken(mutation, Watched::only(invariant), shadowed));
        let (seed, by) = alone.unwrap_or_else(|| panic!("{invariant:?} alone does not catch {mutation:?}"));
        assert_eq!(by, invariant, "only that one is watched");
        let unwatched = broken(mutation, Watched::NONE, shadowed);
        for seed in (0..WORLDS_UNWATCHED).chain([seed]) {
            let ended = run::explore(seed, unwatched);
            assert!(
                ended.is_ok(),
                "{mutation:?} does not survive world {seed} although nobody watches"
            );
        }
        println!("{invariant:?} alone catches {mutation:?} in world {seed}");
    }
}

#[test]
fn each_invariant_has_a_defect_that_it_catches_alone() {
    let proved: BTreeSet<Invariant> = ALONE.iter().map(|(invariant, _, _)| *invariant).collect();
    assert_eq!(proved, BTreeSet::from(Invariant::ALL));
}

#[test]
fn a_seed_that_fails_prints_a_minimal_history_that_fails_again() {
    for mutation in [
        Mutation::RetryLosesItsPlace,
        Mutation::LateBudgetIsBelieved,
        Mutation::SuspectsRunTogether,
        Mutation::FailureOutlivesRelease,
        Mutation::NeverResumes,
    ] {
        let subject = broken(mutation, Watched::ALL, true);
        let failure = (0..WORLDS_PER_MUTATION).find_map(|seed| run::explore(seed, subject).err());
        let failure = failure.expect("every defect is caught");
        // GIVEN what is printed.
        let report = failure.report();
        let again = report.lines().rev().find_map(|line| line.strip_prefix("again: "));
        let again = again.expect("the command that repeats it is printed");
        // WHEN it is done again.
        let variable = |name: &str| {
            let mut words = again.split(' ').filter_map(|word| word.split_once('='));
            words
                .find(|(known, _)| *known == name)
                .map(|(_, value)| value.to_owned())
        };
        let history = History::named(variable).expect("its steps are named");
        let (lines, ended) = history.play(subject, true);
        // THEN it is what was printed, it ends in the same way, and without any of its steps it does not.
        assert!(report.contains(&lines.join("\n")), "{report}\nis not\n{lines:#?}");
        let invariant = failure.violation.invariant;
        assert_eq!(ended.expect_err("it fails again").invariant, invariant);
        for place in 0..history.steps.len() {
            let mut shorter = history.clone();
            let step = shorter.steps.remove(place);
            let repeated = shorter.play(subject, false).1;
            let repeated = repeated.is_err_and(|violation| violation.invariant == invariant);
            assert!(!repeated, "{mutation:?}: {step:?} can be left out of {history}");
        }
        println!(
            "{mutation:?}: {} of {} steps",
            history.steps.len(),
            failure.history.steps.len()
        );
    }
}
