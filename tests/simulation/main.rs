//! The deterministic simulation of the engine's core.
//!
//! A *world* follows from its seed alone: there is no clock, no thread, no I/O. A [`plan`] fixes the log, the limits and
//! a [`script`] per job. Members of one group, each with a core of its own, share a model [`broker`] and a model
//! [`database`]; the [`world`] plays the driver of each of them. What happens next is drawn [`step`] by step, [`fault`]s
//! included; at the end faults stop and the world has to [`drain`].
//!
//! Beside every core stands a [`shadow`] that learns its inputs ([`shadow`]), judges its actions ([`observe`]) and its
//! state after every step ([`check`]). It violates a named [`invariant`] when the core does not keep a promise.
//! Each deliberate defect of the core has to be caught: that proves that the invariants can fail.
//!
//! `SIM_SEED=7 cargo test --features testkit --test simulation -- --nocapture worlds` shows one world;
//! `SIM_WORLDS=100000` runs more of them.

mod world;

mod keeping;

mod hold;

mod plan;

mod script;

mod step;

mod fault;

mod drain;

mod parking;

mod member;

mod broker;

mod database;

mod shadow;

mod parked;

mod watch;

mod observe;

mod check;

mod invariant;

mod regression;

mod run;

mod coverage;

mod random;

mod quiet;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use afterwrite::engine::core::mutation::Mutation;

use crate::coverage::Table;
use crate::invariant::Invariant;
use crate::member::Subject;

const WORLDS: u64 = 2_000;
const WORLDS_PER_MUTATION: u64 = 200;
const WORLDS_PER_CAUGHT: u64 = 40;

/// The core as it is.
const SOUND: Subject = Subject {
    mutation: None,
    shadowed: true,
};

#[test]
fn worlds_keep_every_invariant() {
    if let Some(seed) = number("SIM_SEED") {
        println!("{}", run::history(seed, SOUND));
        return;
    }
    let worlds = number("SIM_WORLDS").unwrap_or(WORLDS);
    let mut table = Table::default();
    let mut inputs = 0;
    for seed in 0..worlds {
        match run::explore(seed, SOUND) {
            Ok(summary) => {
                inputs += summary.inputs;
                table.add(&summary.coverage);
            }
            Err(failure) => panic!("{}", failure.report()),
        }
    }
    table.print();
    let mean = inputs / usize::try_from(worlds).expect("there are not that many worlds");
    println!("{worlds} worlds, {mean} inputs each");
    assert!(mean >= 300, "a world has only {mean} inputs");
    table.assert_complete();
}

#[test]
fn a_seed_alone_decides_the_history() {
    for seed in 0..20 {
        assert_eq!(run::history(seed, SOUND), run::history(seed, SOUND));
    }
}

#[test]
fn every_deliberate_defect_is_caught_and_every_invariant_catches_one() {
    let mut uncaught = Vec::new();
    let mut alive = BTreeSet::new();
    for mutation in Mutation::ALL {
        let watched = Catches::of(mutation, true);
        let ends_only = Catches::of(mutation, false);
        println!("{mutation:?}: {watched}; judged by the ends alone: {ends_only}");
        if watched.first.is_none() {
            uncaught.push(mutation);
        }
        alive.extend(watched.worlds.into_keys().chain(ends_only.worlds.into_keys()));
    }
    assert!(uncaught.is_empty(), "nothing caught {uncaught:?}");
    for invariant in Invariant::ALL {
        assert!(
            alive.contains(&invariant),
            "{invariant:?} caught nothing: it may not be able to fail"
        );
    }
}

/// What caught a mutation.
struct Catches {
    /// After so many worlds it was caught the first time.
    first: Option<u64>,
    /// In how many worlds each invariant caught it.
    worlds: BTreeMap<Invariant, usize>,
}

impl Catches {
    fn of(mutation: Mutation, shadowed: bool) -> Self {
        let mut caught = Self {
            first: None,
            worlds: BTreeMap::new(),
        };
        let subject = Subject {
            mutation: Some(mutation),
            shadowed,
        };
        for seed in 0..WORLDS_PER_MUTATION {
            if seed >= WORLDS_PER_CAUGHT && caught.first.is_some() {
                break;
            }
            if let Err(failure) = run::explore(seed, subject) {
                caught.first.get_or_insert(seed + 1);
                *caught.worlds.entry(failure.violation.invariant).or_default() += 1;
            }
        }
        caught
    }
}

impl fmt::Display for Catches {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.first else {
            return write!(out, "not caught in {WORLDS_PER_MUTATION} worlds");
        };
        write!(out, "after {first} worlds, by")?;
        let mut all = self.worlds.iter();
        all.try_for_each(|(invariant, worlds)| write!(out, " {invariant:?} ({worlds})"))
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("the variable is a number"))
}
