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

mod plan;

mod script;

mod step;

mod fault;

mod drain;

mod member;

mod broker;

mod database;

mod shadow;

mod observe;

mod check;

mod invariant;

mod regression;

mod run;

mod coverage;

mod random;

mod quiet;

use std::collections::BTreeMap;

use afterwrite::engine::core::mutation::Mutation;

use crate::coverage::Table;
use crate::invariant::Invariant;

const WORLDS: u64 = 2_000;
const WORLDS_PER_MUTATION: u64 = 200;

#[test]
fn worlds_keep_every_invariant() {
    if let Some(seed) = number("SIM_SEED") {
        println!("{}", run::history(seed));
        return;
    }
    let worlds = number("SIM_WORLDS").unwrap_or(WORLDS);
    let mut table = Table::default();
    let mut inputs = 0;
    for seed in 0..worlds {
        match run::explore(seed, None) {
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
fn every_deliberate_defect_is_caught() {
    let mut uncaught = Vec::new();
    println!("{:28} {:>5}  caught by (worlds)", "mutation", "first");
    for mutation in Mutation::ALL {
        let mut first = None;
        let mut caught: BTreeMap<Invariant, usize> = BTreeMap::new();
        for seed in 0..WORLDS_PER_MUTATION {
            if let Err(failure) = run::explore(seed, Some(mutation)) {
                first.get_or_insert(seed + 1);
                *caught.entry(failure.violation.invariant).or_default() += 1;
            }
            if seed >= 40 && first.is_some() {
                break;
            }
        }
        println!("{:28} {:>5}  {caught:?}", format!("{mutation:?}"), first.unwrap_or(0));
        if first.is_none() {
            uncaught.push(mutation);
        }
    }
    assert!(uncaught.is_empty(), "nothing caught {uncaught:?}");
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("the variable is a number"))
}
