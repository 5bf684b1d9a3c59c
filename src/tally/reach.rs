//! What a process needs and whether it last answered, as those who called it met it: nobody is asked for the sake of being
//! shown.

use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, Utc};
use serde::Serialize;

/// How long a reason may be.
const WHY_CHARS_MAX: usize = 500;

/// Something that the process needs.
#[derive(Debug)]
pub struct Reach(Mutex<Option<Met>>);

/// How it was met last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Met {
    /// Whether it answered.
    pub is_up: bool,
    /// Since when it does, or does not.
    pub since: DateTime<Utc>,
    /// When it was met last.
    pub seen: DateTime<Utc>,
    /// Why it does not answer.
    pub why: Option<String>,
}

/// The brokers.
pub static KAFKA: Reach = Reach::new();

/// The database of the coordination state.
pub static POSTGRES: Reach = Reach::new();

/// The registry of schemas.
pub static REGISTRY: Reach = Reach::new();

/// The mail server.
pub static SMTP: Reach = Reach::new();

impl Reach {
    /// Something that was never met.
    pub const fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// It answered, whatever it said.
    pub fn answered(&self) {
        self.meet(None, Utc::now());
    }

    /// It could not be reached. The reason must hold no secrets, cell values or addresses of persons.
    pub fn missed(&self, why: &str) {
        self.meet(Some(why.chars().take(WHY_CHARS_MAX).collect()), Utc::now());
    }

    /// How it was met last; `None` when it never was.
    pub fn met(&self) -> Option<Met> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn meet(&self, why: Option<String>, now: DateTime<Utc>) {
        let mut met = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_up = why.is_none();
        let since = met.as_ref().filter(|met| met.is_up == is_up).map(|met| met.since);
        *met = Some(Met {
            is_up,
            since: since.unwrap_or(now),
            seen: now,
            why,
        });
    }
}

impl Default for Reach {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_when_is_kept_until_it_changes() {
        let at = |second| DateTime::from_timestamp(second, 0).unwrap();
        let reach = Reach::new();
        assert_eq!(reach.met(), None);
        let told = |why: Option<&str>, now| {
            reach.meet(why.map(str::to_owned), at(now));
            let met = reach.met().unwrap();
            (met.is_up, met.since, met.seen, met.why)
        };
        assert_eq!(told(None, 1), (true, at(1), at(1), None));
        assert_eq!(told(None, 2), (true, at(1), at(2), None));
        let refused = Some("refused".to_owned());
        assert_eq!(told(Some("refused"), 3), (false, at(3), at(3), refused));
        let silent = Some("silent".to_owned());
        assert_eq!(told(Some("silent"), 4), (false, at(3), at(4), silent));
        assert_eq!(told(None, 5), (true, at(5), at(5), None));
    }
}
