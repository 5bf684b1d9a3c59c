//! The deterministic simulation of the engine's core.
//!
//! A *world* follows from its seed alone: there is no clock, no thread, no I/O. A [`plan`] fixes the log, the limits and
//! a [`script`] per job. Members of one group, each with a core of its own, share a model [`broker`] and a model
//! [`database`]; the [`world`] plays the driver of each of them. What happens next is drawn [`step`] by step, [`rebalance`]s and
//! other [`fault`]s included; at the end faults stop and the world has to [`drain`].
//!
//! Beside every core stands a [`shadow`] that learns its inputs ([`shadow`]), judges its actions ([`observe`]) and its
//! state after every step ([`check`]). It violates a named [`invariant`] when the core does not keep a promise.
//! The [`proof`] that the invariants can fail: each deliberate defect of the core is caught, and each invariant catches one
//! while all others are looked away from.
//!
//! A seed that fails prints the shortest history that still does ([`shrink`]), and the command that repeats it.
//! `make sim SIM_SEED=7` shows one world, `make sim-long` runs a hundred thousand.

mod world;

mod keeping;

mod hold;

mod plan;

mod script;

mod step;

mod fault;

mod rebalance;

mod claim;

mod drain;

mod parking;

mod lag;

mod member;

mod broker;

mod database;

mod shadow;

mod parked;

mod letters;

mod watch;

mod turn;

mod observe;

mod check;

mod invariant;

mod regression;

mod run;

mod survey;

mod shrink;

mod proof;

mod coverage;

mod random;

mod quiet;

use crate::invariant::Watched;
use crate::member::Subject;
use crate::run::History;
use crate::survey::survey;

/// As many as take two minutes of one processor, which two of them share: `make test` has no more for them.
const WORLDS: u64 = 16_000;

/// The core as it is.
const SOUND: Subject = Subject {
    mutation: None,
    watched: Watched::ALL,
    shadowed: true,
};

#[test]
fn worlds_keep_every_invariant() {
    if let Some(seed) = number("SIM_SEED") {
        return show(seed);
    }
    let worlds = number("SIM_WORLDS").unwrap_or(WORLDS);
    let survey = survey(0..worlds, SOUND);
    if let Some(seed) = survey.failed {
        panic!("{}", report(seed));
    }
    survey.table.print();
    let mean = survey.inputs / usize::try_from(worlds).expect("there are not that many worlds");
    println!("{worlds} worlds, {mean} inputs each");
    assert!(mean >= 300, "a world has only {mean} inputs");
    survey.table.assert_complete();
}

#[test]
fn a_seed_alone_decides_the_history() {
    for seed in 0..20 {
        assert_eq!(run::told(seed, SOUND).0, run::told(seed, SOUND).0);
    }
}

/// Shows a world, or what is left of it when only some of its steps happen.
fn show(seed: u64) {
    let part = History::named(|variable| std::env::var(variable).ok());
    let (lines, ended) = match &part {
        Some(history) => history.play(SOUND, true),
        None => run::told(seed, SOUND),
    };
    println!("{}", lines.join("\n"));
    match (ended, part) {
        (Ok(()), _) => println!("seed {seed} ended well"),
        (Err(violation), Some(_)) => panic!("seed {seed}: {violation}"),
        (Err(_), None) => panic!("{}", report(seed)),
    }
}

/// What a seed that fails prints.
fn report(seed: u64) -> String {
    let failure = run::explore(seed, SOUND).err();
    failure.expect("it has just failed").report()
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("the variable is a number"))
}
