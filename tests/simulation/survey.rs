//! Many worlds, on as many threads as there are processors. Which worlds they are does not depend on that.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::coverage::Table;
use crate::member::Subject;
use crate::run;

/// What worlds showed.
#[derive(Default)]
pub(crate) struct Survey {
    pub(crate) table: Table,
    pub(crate) inputs: usize,
    /// The first seed whose world violated an invariant; no later one is reported.
    pub(crate) failed: Option<u64>,
}

/// Runs the worlds of these seeds, or those up to the first that fails.
pub(crate) fn survey(seeds: Range<u64>, subject: Subject) -> Survey {
    let next = AtomicU64::new(seeds.start);
    let end = AtomicU64::new(seeds.end);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let parts = thread::scope(|scope| {
        let walkers: Vec<_> = (0..threads)
            .map(|_| scope.spawn(|| walk(&next, &end, subject)))
            .collect();
        let joined = walkers.into_iter().map(|walker| walker.join());
        joined.collect::<Result<Vec<Survey>, _>>()
    });
    let parts = parts.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    let mut survey = Survey::default();
    for part in parts {
        survey.inputs += part.inputs;
        survey.table.merge(&part.table);
        survey.failed = survey.failed.into_iter().chain(part.failed).min();
    }
    survey
}

/// Takes one seed after the other. Every seed before one that failed is taken by somebody.
fn walk(next: &AtomicU64, end: &AtomicU64, subject: Subject) -> Survey {
    let mut survey = Survey::default();
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end.load(Ordering::Relaxed) {
            return survey;
        }
        match run::explore(seed, subject) {
            Ok(summary) => {
                survey.inputs += summary.inputs;
                survey.table.add(&summary.coverage);
            }
            Err(_) => {
                end.fetch_min(seed, Ordering::Relaxed);
                survey.failed = survey.failed.or(Some(seed));
            }
        }
    }
}
