//! Running a world from its seed, and finding the shortest history that still fails.

use std::fmt::Write;
use std::rc::Rc;

use crate::coverage::Coverage;
use crate::invariant::{Checked, Violation};
use crate::member::Subject;
use crate::plan::Plan;
use crate::random::Random;
use crate::step::Step;
use crate::world::World;

/// So many shorter histories are tried before the shortest so far is shown.
const SHRINKS_MAX: usize = 1_500;

/// So many lines of it are shown; `SIM_SEED` shows the whole history.
const LINES_MAX: usize = 1_000;

pub(crate) struct Summary {
    pub(crate) inputs: usize,
    pub(crate) coverage: Coverage,
}

pub(crate) struct Failure {
    plan: Rc<Plan>,
    subject: Subject,
    steps: Vec<Step>,
    pub(crate) violation: Violation,
}

/// Runs the world of a seed.
pub(crate) fn explore(seed: u64, subject: Subject) -> Result<Summary, Box<Failure>> {
    let plan = Rc::new(Plan::draw(seed));
    let mut world = World::new(Rc::clone(&plan), subject, false);
    let mut random = Random::new(!seed);
    let mut steps = Vec::new();
    let ended = wander(&mut world, &mut random, &mut steps).and_then(|()| world.drain());
    match ended {
        Ok(()) => Ok(Summary {
            inputs: world.inputs,
            coverage: world.coverage,
        }),
        Err(violation) => Err(Box::new(Failure {
            plan,
            subject,
            steps,
            violation,
        })),
    }
}

fn wander(world: &mut World, random: &mut Random, steps: &mut Vec<Step>) -> Checked {
    let (steps_max, trouble) = (world.plan.steps_max, world.plan.trouble);
    for _ in 0..steps_max * 4 {
        let step = Step::draw(random, trouble);
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

/// The whole history of a seed, and how it ended.
pub(crate) fn history(seed: u64, subject: Subject) -> String {
    let mut world = World::new(Rc::new(Plan::draw(seed)), subject, true);
    let mut random = Random::new(!seed);
    let ended = wander(&mut world, &mut random, &mut Vec::new()).and_then(|()| world.drain());
    let lines = world.history.unwrap_or_default().join("\n");
    let shortest = explore(seed, subject).err().map(|failure| failure.report());
    let how = shortest.unwrap_or_else(|| format!("seed {seed} ended: {ended:?}"));
    format!("{lines}\n{} inputs\n{how}", world.inputs)
}

impl Failure {
    /// Seed, violated invariant, and the shortest history found that violates it.
    pub(crate) fn report(&self) -> String {
        let steps = self.shrink();
        let (ended, lines) = replay(self, &steps, true);
        let mut report = format!("seed {}: {}\n", self.plan.seed, self.violation);
        let found = ended.err().map_or_else(String::new, |violation| violation.to_string());
        let sizes = format!("{} of {} steps still lead to: {found}", steps.len(), self.steps.len());
        writeln!(report, "{sizes}\n{:#?}", self.plan.limits).expect("a string takes everything");
        let left_out = lines.len().saturating_sub(LINES_MAX);
        if left_out > 0 {
            writeln!(report, "({left_out} lines before)").expect("a string takes everything");
        }
        report.push_str(&lines[left_out..].join("\n"));
        write!(report, "\nagain: SIM_SEED={}", self.plan.seed).expect("a string takes everything");
        report
    }

    /// Drops ever smaller pieces of the history as long as the same invariant is violated.
    fn shrink(&self) -> Vec<Step> {
        let mut steps = self.steps.clone();
        let mut piece = steps.len().div_ceil(2);
        let mut tried = 0;
        while piece > 0 && tried < SHRINKS_MAX {
            let mut start = 0;
            let mut shorter = false;
            while start < steps.len() && tried < SHRINKS_MAX {
                let end = (start + piece).min(steps.len());
                let candidate: Vec<Step> = steps[..start].iter().chain(&steps[end..]).copied().collect();
                tried += 1;
                if self.is_repeated_by(&candidate) {
                    steps = candidate;
                    shorter = true;
                } else {
                    start = end;
                }
            }
            if piece > 1 {
                piece = piece.div_ceil(2);
            } else if !shorter {
                piece = 0;
            }
        }
        steps
    }

    fn is_repeated_by(&self, steps: &[Step]) -> bool {
        let (ended, _) = replay(self, steps, false);
        ended.is_err_and(|violation| violation.invariant == self.violation.invariant)
    }
}

fn replay(failure: &Failure, steps: &[Step], with_history: bool) -> (Checked, Vec<String>) {
    let mut world = World::new(Rc::clone(&failure.plan), failure.subject, with_history);
    let walked = steps.iter().try_for_each(|step| world.apply(step).map(|_| ()));
    let ended = walked.and_then(|()| world.drain());
    (ended, world.history.unwrap_or_default())
}
