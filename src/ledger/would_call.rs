//! The calls that a shadow would have made. What it claims is rolled back, so nothing else remembers them.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex};

/// Keys of effects that are remembered as made.
const MADE_MAX: usize = 100_000;

/// Keys of effects, in the order in which they were claimed. Shared by its clones.
#[derive(Debug, Clone, Default)]
pub struct WouldCall(Arc<Mutex<Keys>>);

#[derive(Debug, Default)]
struct Keys {
    /// Claimed by the attempt that is under way.
    now: Vec<String>,
    /// Made by attempts before it.
    made: HashSet<String>,
    order: VecDeque<String>,
}

impl WouldCall {
    /// Whether an earlier attempt would have made this call, so that nobody would make it any more.
    pub(crate) fn is_made(&self, key: &str) -> bool {
        self.0.lock().expect("no panic while held").made.contains(key)
    }

    /// The attempt under way may make this call.
    pub(crate) fn note(&self, key: &str) {
        self.0.lock().expect("no panic while held").now.push(key.to_owned());
    }

    /// Ends the attempt that was under way: answers its calls, which count as made when it succeeded.
    pub fn end(&self, succeeded: bool) -> Vec<String> {
        let mut keys = self.0.lock().expect("no panic while held");
        let mut now = std::mem::take(&mut keys.now);
        if !succeeded {
            return Vec::new();
        }
        now.dedup();
        for key in &now {
            if keys.made.insert(key.clone()) {
                keys.order.push_back(key.clone());
            }
        }
        while keys.order.len() > MADE_MAX
            && let Some(oldest) = keys.order.pop_front()
        {
            keys.made.remove(&oldest);
        }
        now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_attempt_called_is_made_when_it_succeeded() {
        let calls = WouldCall::default();
        calls.note("a");
        assert!(!calls.is_made("a"), "the attempt itself may claim it once more");
        assert_eq!(calls.end(false), [] as [&str; 0]);
        assert!(!calls.is_made("a"));
        calls.note("a");
        calls.note("a");
        calls.note("b");
        assert_eq!(calls.end(true), ["a", "b"]);
        assert!(calls.is_made("a") && calls.is_made("b") && calls.end(true).is_empty());
    }

    #[test]
    fn what_is_remembered_has_a_limit() {
        let calls = WouldCall::default();
        for key in 0..=MADE_MAX {
            calls.note(&key.to_string());
        }
        assert_eq!(calls.end(true).len(), MADE_MAX + 1);
        assert!(!calls.is_made("0") && calls.is_made("1"));
    }
}
