//! Counting what handlers did: what is rolled back is not counted, and what is done again after that is counted once.

use crate::handler::Context;
use crate::tally::Counter;

/// What an attempt counted, until its transaction has committed.
#[derive(Debug, Default)]
pub(super) struct Counted(Vec<(&'static Counter, Vec<String>, u64)>);

impl Counted {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds all of it to what the process counted.
    pub(super) fn count(&mut self) {
        for (counter, values, by) in self.0.drain(..) {
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            counter.add(&values, by);
        }
    }
}

impl Context {
    /// Counts `by` more for `/metrics`, when what this attempt wrote is committed: an attempt that fails counts nothing. The
    /// values of labels must be of a short list, and never what a row holds.
    pub fn count(&mut self, counter: &'static Counter, values: &[&str], by: u64) {
        if by > 0 {
            let values = values.iter().map(|value| (*value).to_owned()).collect();
            self.counted.0.push((counter, values, by));
        }
    }
}
