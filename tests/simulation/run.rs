//! Running a world from its seed, or from a part of what follows from that.

use std::fmt;
use std::rc::Rc;

use crate::coverage::Coverage;
use crate::invariant::{Checked, Violation};
use crate::member::Subject;
use crate::plan::Plan;
use crate::random::Random;
use crate::step::Step;
use crate::world::World;

pub(crate) struct Summary {
    pub(crate) inputs: usize,
    pub(crate) coverage: Coverage,
}

/// What happens in a world before faults stop. It decides everything, and [`fmt::Display`] says how to repeat it.
#[derive(Debug, Clone)]
pub(crate) struct History {
    pub(crate) seed: u64,
    /// So many records of each partition exist.
    pub(crate) records_max: usize,
    pub(crate) steps: Vec<Step>,
}

/// A history that violates an invariant.
pub(crate) struct Failure {
    pub(crate) subject: Subject,
    pub(crate) history: History,
    pub(crate) violation: Violation,
}

/// Runs the world of a seed.
pub(crate) fn explore(seed: u64, subject: Subject) -> Result<Summary, Box<Failure>> {
    let mut world = World::new(Rc::new(Plan::draw(seed)), subject, false);
    let mut steps = Vec::new();
    let ended = wander(&mut world, &mut steps).and_then(|()| world.drain());
    match ended {
        Ok(()) => Ok(Summary {
            inputs: world.inputs,
            coverage: world.coverage,
        }),
        Err(violation) => Err(Box::new(Failure {
            subject,
            history: History {
                seed,
                records_max: usize::MAX,
                steps,
            },
            violation,
        })),
    }
}

/// Everything that happens in the world of a seed, line by line, and how it ends.
pub(crate) fn told(seed: u64, subject: Subject) -> (Vec<String>, Checked) {
    let mut world = World::new(Rc::new(Plan::draw(seed)), subject, true);
    let ended = wander(&mut world, &mut Vec::new()).and_then(|()| world.drain());
    world.note_inputs();
    (world.history.unwrap_or_default(), ended)
}

fn wander(world: &mut World, steps: &mut Vec<Step>) -> Checked {
    let (steps_max, trouble) = (world.plan.steps_max, world.plan.trouble);
    let mut random = steps_of(world.plan.seed);
    for number in 0..steps_max * 4 {
        let step = Step::draw(number, &mut random, trouble);
        steps.push(step);
        if !world.apply(&step)? {
            steps.pop();
        }
        if steps.len() == steps_max {
            break;
        }
    }
    Ok(())
}

/// The chance from which the steps of a seed are drawn.
fn steps_of(seed: u64) -> Random {
    Random::new(!seed)
}

impl History {
    /// The history that is named by these variables, in the words of [`fmt::Display`]; `None` when they name no steps.
    pub(crate) fn named(variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let number = |text: &str| text.parse::<usize>().expect("seeds, steps and records are numbers");
        let steps = variable("SIM_STEPS")?;
        let numbers: Vec<usize> = steps.split(',').filter(|text| !text.is_empty()).map(number).collect();
        let seed = number(&variable("SIM_SEED").expect("steps are those of a seed")) as u64;
        let trouble = Plan::draw(seed).trouble;
        let mut random = steps_of(seed);
        let drawn = numbers.iter().max().map_or(0, |last| last + 1);
        let all = (0..drawn).map(|number| Step::draw(number, &mut random, trouble));
        Some(Self {
            seed,
            records_max: variable("SIM_RECORDS").map_or(usize::MAX, |text| number(&text)),
            steps: all.filter(|step| numbers.contains(&step.number)).collect(),
        })
    }

    /// Lets it happen, and faults stop. Answers how that ended and, when `with_lines`, what happened.
    pub(crate) fn play(&self, subject: Subject, with_lines: bool) -> (Vec<String>, Checked) {
        let mut plan = Plan::draw(self.seed);
        plan.records_max = self.records_max;
        let mut world = World::new(Rc::new(plan), subject, with_lines);
        let walked = self.steps.iter().try_for_each(|step| world.apply(step).map(|_| ()));
        let ended = walked.and_then(|()| world.drain());
        world.note_inputs();
        (world.history.unwrap_or_default(), ended)
    }
}

impl fmt::Display for History {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "SIM_SEED={}", self.seed)?;
        if self.records_max < usize::MAX {
            write!(out, " SIM_RECORDS={}", self.records_max)?;
        }
        let numbers: Vec<String> = self.steps.iter().map(|step| step.number.to_string()).collect();
        write!(out, " SIM_STEPS={}", numbers.join(","))
    }
}
