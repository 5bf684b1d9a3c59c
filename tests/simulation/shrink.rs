//! The shortest history that still fails: what a failing seed prints.

use std::fmt::Write;

use crate::plan::Plan;
use crate::run::{Failure, History};
use crate::step::Step;

/// So many shorter histories are tried before the shortest so far is shown.
const TRIES_MAX: usize = 20_000;

/// So many lines of it are shown; repeating it shows them all.
const LINES_MAX: usize = 1_000;

/// A history without any step of which the same invariant holds, unless there were too many to try.
pub(crate) struct Shrunk {
    pub(crate) history: History,
    tries_left: usize,
}

impl Failure {
    /// Seed, violated invariant, the shortest history found that violates it, and how to repeat that.
    pub(crate) fn report(&self) -> String {
        let Shrunk { history, tries_left } = self.shrink();
        let (lines, ended) = history.play(self.subject, true);
        let found = ended.err().map_or_else(String::new, |violation| violation.to_string());
        let mut report = format!("seed {}: {}\n", history.seed, self.violation);
        let minimal = match tries_left {
            0 => "more might be left out",
            _ => "none of which can be left out",
        };
        let sizes = (history.steps.len(), self.history.steps.len());
        writeln!(
            report,
            "{} of {} steps, {minimal}, still lead to: {found}",
            sizes.0, sizes.1
        )
        .expect("a string takes everything");
        for (m, limits) in Plan::draw(history.seed).limits.iter().enumerate() {
            writeln!(report, "{m}: {limits:?}").expect("a string takes everything");
        }
        let left_out = lines.len().saturating_sub(LINES_MAX);
        if left_out > 0 {
            writeln!(report, "({left_out} lines before)").expect("a string takes everything");
        }
        report.push_str(&lines[left_out..].join("\n"));
        write!(report, "\nagain: {history} make sim").expect("a string takes everything");
        report
    }

    /// Leaves out records and steps as long as the same invariant is violated.
    pub(crate) fn shrink(&self) -> Shrunk {
        let mut shrunk = Shrunk {
            history: self.history.clone(),
            tries_left: TRIES_MAX,
        };
        self.drop_records(&mut shrunk);
        self.drop_steps(&mut shrunk);
        // Fewer steps may need fewer records, and those fewer steps.
        while self.drop_records(&mut shrunk) {
            self.drop_steps(&mut shrunk);
        }
        shrunk
    }

    /// Answers whether there are fewer records now.
    fn drop_records(&self, shrunk: &mut Shrunk) -> bool {
        let log = Plan::draw(shrunk.history.seed).log;
        let longest = log.iter().map(Vec::len).max().unwrap_or(0);
        let fewer = (0..longest.min(shrunk.history.records_max)).find(|fewer| {
            let shorter = History {
                records_max: *fewer,
                ..shrunk.history.clone()
            };
            self.is_repeated_by(&shorter, &mut shrunk.tries_left)
        });
        shrunk.history.records_max = fewer.unwrap_or(shrunk.history.records_max);
        fewer.is_some()
    }

    /// Leaves out ever smaller pieces, until no single step can be left out.
    fn drop_steps(&self, shrunk: &mut Shrunk) {
        let mut piece = shrunk.history.steps.len().div_ceil(2);
        while piece > 0 && shrunk.tries_left > 0 {
            let shorter = self.drop_pieces(piece, shrunk);
            if piece > 1 {
                piece = piece.div_ceil(2);
            } else if !shorter {
                piece = 0;
            }
        }
    }

    /// Leaves out every piece of this length that can be; answers whether there was any.
    fn drop_pieces(&self, piece: usize, shrunk: &mut Shrunk) -> bool {
        let (mut start, mut any) = (0, false);
        while start < shrunk.history.steps.len() {
            let steps = &shrunk.history.steps;
            let end = (start + piece).min(steps.len());
            let left: Vec<Step> = steps[..start].iter().chain(&steps[end..]).copied().collect();
            let shorter = History {
                steps: left,
                ..shrunk.history
            };
            if self.is_repeated_by(&shorter, &mut shrunk.tries_left) {
                shrunk.history = shorter;
                any = true;
            } else {
                start = end;
            }
        }
        any
    }

    fn is_repeated_by(&self, history: &History, tries_left: &mut usize) -> bool {
        if *tries_left == 0 {
            return false;
        }
        *tries_left -= 1;
        let (_, ended) = history.play(self.subject, false);
        ended.is_err_and(|violation| violation.invariant == self.violation.invariant)
    }
}
