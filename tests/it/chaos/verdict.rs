//! The proof: what the tables, the dead letters and the journals of calls say after a run, held against what was written.

use std::collections::{HashMap, HashSet};

use crate::chaos::calls::{End, Told};
use crate::chaos::handler::failure_text;
use crate::chaos::plan::{Fate, LANES_MAX};

/// A row of `done`, in the order of its lane's commits.
#[derive(Debug, Clone)]
pub(super) struct Done {
    pub(super) row: u32,
    pub(super) change: u32,
    pub(super) call: String,
    /// The row's last change as it was seen before the lock, and under it.
    pub(super) seen: u32,
    pub(super) locked: u32,
}

/// A dead letter.
#[derive(Debug, Clone)]
pub(super) struct Letter {
    pub(super) class: String,
    pub(super) error: String,
}

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Effects {
    pub(super) done: usize,
    pub(super) letters: usize,
    /// Events that are neither done nor buried.
    pub(super) lost: usize,
    /// Effects beyond the first of an event, and events that are both done and buried.
    pub(super) twice: usize,
    /// Effects that were committed behind a later one of their row, or before an earlier one.
    pub(super) disordered: usize,
    /// Effects during whose transaction another of their row was committed.
    pub(super) at_once: usize,
    /// Letters of events that did not fail for good.
    pub(super) unjust: Vec<String>,
}

/// What the calls came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Calls {
    pub(super) made: usize,
    /// Beyond the first of an event.
    pub(super) repeated: usize,
    /// Calls whose outcome nobody knows: cut off by a kill, abandoned, or not recorded by Postgres.
    pub(super) killed: usize,
    pub(super) abandoned: usize,
    pub(super) unrecorded: usize,
    /// Repeated calls of events of which no earlier one had an unknown outcome.
    pub(super) without_reason: usize,
    /// Calls that have no end although their worker was not killed, and more of them than a killed worker had lanes.
    pub(super) unexplained: usize,
}

/// Holds effects and letters against the changes that each row had.
pub(super) fn effects(changes: &[u32], fate: impl Fn(u32, u32) -> Fate, done: &[Done], letters: &[Letter]) -> Effects {
    let for_good = |row, change| fate(row, change) == Fate::FailsForGood;
    let mut found = Effects {
        done: done.len(),
        letters: letters.len(),
        ..Effects::default()
    };
    let mut times: HashMap<(u32, u32), usize> = HashMap::new();
    for effect in done {
        *times.entry((effect.row, effect.change)).or_default() += 1;
        let skipped_over = |change| !for_good(effect.row, change);
        let in_order = effect.locked < effect.change && !(effect.locked + 1..effect.change).any(skipped_over);
        found.disordered += usize::from(!in_order);
        found.at_once += usize::from(effect.seen != effect.locked);
    }
    let mut expected: HashMap<String, (u32, u32)> = HashMap::new();
    let mut buried: HashSet<(u32, u32)> = HashSet::new();
    for (row, last) in (0..).zip(changes) {
        let failing = (1..=*last).filter(|change| for_good(row, *change));
        expected.extend(failing.map(|change| (failure_text(row, change), (row, change))));
    }
    for letter in letters {
        let known = expected.iter().find(|(text, _)| letter.error.contains(*text));
        match known.filter(|_| letter.class == "permanent") {
            Some((_, event)) => found.twice += usize::from(!buried.insert(*event)),
            None => found.unjust.push(format!("{}: {}", letter.class, letter.error)),
        }
    }
    for (row, last) in (0..).zip(changes) {
        for change in 1..=*last {
            let times = times.get(&(row, change)).copied().unwrap_or_default();
            let buried = usize::from(buried.contains(&(row, change)));
            found.lost += usize::from(times + buried == 0);
            found.twice += (times + buried).saturating_sub(1);
        }
    }
    found
}

/// Holds the calls against the effects that came of them, and against the workers that were killed.
pub(super) fn calls(told: &[Told], done: &[Done], killed: &HashSet<String>) -> Calls {
    let recorded: HashSet<&str> = done.iter().map(|done| done.call.as_str()).collect();
    let mut found = Calls {
        made: told.len(),
        ..Calls::default()
    };
    let mut of_event: HashMap<(u32, u32), (usize, usize)> = HashMap::new();
    let mut cut_off: HashMap<&str, usize> = HashMap::new();
    for call in told {
        let unknown = match (recorded.contains(call.name.as_str()), call.end) {
            (true, _) | (false, Some(End::Redundant)) => None,
            (false, Some(End::Abandoned)) => Some(&mut found.abandoned),
            (false, Some(End::Failed | End::Returned)) => Some(&mut found.unrecorded),
            (false, None) if killed.contains(&call.worker) => {
                *cut_off.entry(&call.worker).or_default() += 1;
                Some(&mut found.killed)
            }
            (false, None) => {
                found.unexplained += 1;
                None
            }
        };
        let (calls, unknowns) = of_event.entry((call.row, call.change)).or_default();
        *calls += 1;
        if let Some(count) = unknown {
            *count += 1;
            *unknowns += 1;
        }
    }
    found.unexplained += cut_off
        .values()
        .map(|calls| calls.saturating_sub(LANES_MAX))
        .sum::<usize>();
    for (calls, unknowns) in of_event.values() {
        found.repeated += calls - 1;
        found.without_reason += (calls - 1).saturating_sub(*unknowns);
    }
    found
}

/// A run of two rows with three changes each, of which the second of the first row fails for good, and everything that
/// could be wrong with it.
mod tests {
    use super::*;

    fn fate(row: u32, change: u32) -> Fate {
        match (row, change) {
            (0, 2) => Fate::FailsForGood,
            _ => Fate::Works,
        }
    }

    /// Effects as (row, change, seen, locked).
    fn found(done: &[(u32, u32, u32, u32)], letters: &[(&str, &str)]) -> Effects {
        let done: Vec<Done> = done
            .iter()
            .map(|(row, change, seen, locked)| Done {
                row: *row,
                change: *change,
                call: String::new(),
                seen: *seen,
                locked: *locked,
            })
            .collect();
        let letters: Vec<Letter> = letters
            .iter()
            .map(|(class, error)| Letter {
                class: (*class).to_owned(),
                error: (*error).to_owned(),
            })
            .collect();
        effects(&[3, 3], fate, &done, &letters)
    }

    const DONE: [(u32, u32, u32, u32); 5] = [(0, 1, 0, 0), (1, 1, 0, 0), (0, 3, 1, 1), (1, 2, 1, 1), (1, 3, 2, 2)];
    const LETTER: (&str, &str) = ("permanent", "it failed: change 2 of row 0 fails for good");

    fn wrong(found: &Effects) -> (usize, usize, usize, usize, usize) {
        (
            found.lost,
            found.twice,
            found.disordered,
            found.at_once,
            found.unjust.len(),
        )
    }

    #[test]
    fn effects_are_held_against_what_was_written() {
        assert_eq!(wrong(&found(&DONE, &[LETTER])), (0, 0, 0, 0, 0));
        assert_eq!(
            wrong(&found(&DONE[..4], &[LETTER])),
            (1, 0, 0, 0, 0),
            "an effect is missing"
        );
        assert_eq!(wrong(&found(&DONE, &[])), (1, 0, 0, 0, 0), "a letter is missing");
        let again = [&DONE[..], &[(1, 3, 3, 3)]].concat();
        assert_eq!(
            wrong(&found(&again, &[LETTER])),
            (0, 1, 1, 0, 0),
            "an effect is there twice"
        );
        let early = [(0, 1, 0, 0), (1, 1, 0, 0), (0, 3, 1, 1), (1, 3, 1, 1), (1, 2, 3, 3)];
        assert_eq!(
            wrong(&found(&early, &[LETTER])),
            (0, 0, 2, 0, 0),
            "two effects were exchanged"
        );
        let beside = [DONE[0], DONE[1], DONE[2], (1, 2, 0, 1), DONE[4]];
        assert_eq!(wrong(&found(&beside, &[LETTER])), (0, 0, 0, 1, 0), "two ran at once");
        let unjust = [LETTER, ("exhausted", "postgres went away")];
        assert_eq!(
            wrong(&found(&DONE, &unjust)),
            (0, 0, 0, 0, 1),
            "an outage buried something"
        );
        let both = [&DONE[..], &[(0, 2, 3, 3)]].concat();
        assert_eq!(wrong(&found(&both, &[LETTER])), (0, 1, 1, 0, 0), "done and buried");
    }

    /// Calls of one event by (worker, end), of which those named have an effect.
    fn reasons(told: &[(&str, Option<End>)], effects: &[&str], killed: &[&str]) -> (usize, usize, usize) {
        let told: Vec<Told> = told
            .iter()
            .map(|(worker, end)| Told {
                name: format!("{worker}/0"),
                worker: (*worker).to_owned(),
                row: 1,
                change: 1,
                end: *end,
            })
            .collect();
        let done: Vec<Done> = effects
            .iter()
            .map(|call| Done {
                row: 1,
                change: 1,
                call: (*call).to_owned(),
                seen: 0,
                locked: 0,
            })
            .collect();
        let killed = killed.iter().map(|worker| (*worker).to_owned()).collect();
        let found = calls(&told, &done, &killed);
        (found.repeated, found.without_reason, found.unexplained)
    }

    #[test]
    fn a_repeated_call_needs_an_earlier_one_of_unknown_outcome() {
        let returned = Some(End::Returned);
        assert_eq!(reasons(&[("a", returned)], &["a/0"], &[]), (0, 0, 0));
        assert_eq!(reasons(&[("a", None), ("b", returned)], &["b/0"], &["a"]), (1, 0, 0));
        assert_eq!(
            reasons(&[("a", Some(End::Abandoned)), ("b", returned)], &["b/0"], &[]),
            (1, 0, 0)
        );
        assert_eq!(
            reasons(&[("a", returned), ("b", Some(End::Redundant))], &["a/0"], &[]),
            (1, 1, 0)
        );
        assert_eq!(
            reasons(&[("a", returned), ("b", returned)], &["a/0", "b/0"], &[]),
            (1, 1, 0)
        );
        assert_eq!(
            reasons(&[("a", None), ("b", returned)], &["b/0"], &[]),
            (1, 1, 1),
            "nobody killed it"
        );
    }

    #[test]
    fn a_kill_cuts_off_no_more_calls_than_there_are_lanes() {
        let open = vec![("a", None); LANES_MAX + 2];
        let (_, _, unexplained) = reasons(&open, &[], &["a"]);
        assert_eq!(unexplained, 2);
    }
}
