//! What the command says: a line for each step, and for what it waits.

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::GraduateFailed;
use crate::cli::Failure;
use crate::cli::output::{Output, print_next_line};
use crate::groups::graduation::Step;

/// What is waited for is said again after so long.
const AGAIN_AFTER: Duration = Duration::from_secs(30);

/// The parts of the way, as they are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Way {
    Check,
    Slot,
    Beginnings,
    Connector,
    Cut,
    Switch,
    Start,
    Slots,
    Back,
}

impl Way {
    pub(super) fn of(step: &Step) -> Self {
        match step {
            Step::Nothing | Step::Begin => Self::Check,
            Step::MakeSlot => Self::Slot,
            Step::WriteBeginnings => Self::Beginnings,
            Step::StartConnector => Self::Connector,
            Step::AwaitCut(_) | Step::AwaitParked(_) | Step::TellToLeave | Step::LetReadOn(_) | Step::AwaitLeft(_) => {
                Self::Cut
            }
            Step::Switch => Self::Switch,
            Step::AwaitRead(_) => Self::Start,
            Step::WriteMarker | Step::Finish(_) => Self::Slots,
        }
    }

    /// Its number and name.
    fn heading(self) -> &'static str {
        match self {
            Self::Check => "1 check",
            Self::Slot => "2 slot",
            Self::Beginnings => "3 beginnings",
            Self::Connector => "4 connector",
            Self::Cut => "5 cut",
            Self::Switch => "6 switch",
            Self::Start => "7 start",
            Self::Slots => "8 old slots",
            Self::Back => "back",
        }
    }
}

/// What a line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// Begins now.
    Doing,
    /// Is so.
    Done,
    /// Would be done next.
    Would,
    /// Is not so yet.
    Waiting,
    /// Has to be put right.
    Wrong,
}

#[derive(Serialize)]
struct Line<'a> {
    step: Way,
    state: State,
    text: &'a str,
}

/// Where it is said, and what was said last.
pub(super) struct Told {
    output: Output,
    wait_max: Option<Duration>,
    waits: Option<Waits>,
}

/// What is waited for.
struct Waits {
    way: Way,
    text: String,
    since: Instant,
    said_at: Instant,
}

impl Told {
    pub(super) fn new(output: Output, wait_s: Option<u64>) -> Self {
        Self {
            output,
            wait_max: wait_s.map(Duration::from_secs),
            waits: None,
        }
    }

    pub(super) fn say(&mut self, way: Way, state: State, text: &str) -> Result<(), Failure> {
        self.waits = None;
        self.print(way, state, text)
    }

    /// Says what is waited for when that is new, and now and then again.
    ///
    /// # Errors
    /// When it was waited for as long as was allowed.
    pub(super) fn wait(&mut self, way: Way, text: &str) -> Result<(), Failure> {
        self.wait_at(Instant::now(), way, text)
    }

    fn wait_at(&mut self, now: Instant, way: Way, text: &str) -> Result<(), Failure> {
        let since = match &self.waits {
            Some(waits) if waits.way == way => waits.since,
            _ => now,
        };
        if let Some(max) = self.wait_max
            && now - since >= max
        {
            return Err(Failure::failed(GraduateFailed::Impatient {
                what: text.to_owned(),
                wait_s: max.as_secs(),
            }));
        }
        let said_at = match &self.waits {
            // Figures change all the time; who is waited for, and why, does not.
            Some(waits) if waits.way == way && !is_news(&waits.text, text) && now < waits.said_at + AGAIN_AFTER => {
                waits.said_at
            }
            _ => {
                self.print(way, State::Waiting, text)?;
                now
            }
        };
        self.waits = Some(Waits {
            way,
            text: text.to_owned(),
            since,
            said_at,
        });
        Ok(())
    }

    fn print(&self, step: Way, state: State, text: &str) -> Result<(), Failure> {
        let line = match self.output {
            Output::Json => serde_json::to_string(&Line { step, state, text }).map_err(Failure::failed)?,
            Output::Table => {
                let mark = match state {
                    State::Doing | State::Done => "",
                    State::Would => "next: ",
                    State::Waiting => "waiting: ",
                    State::Wrong => "! ",
                };
                format!("{:<14}{mark}{}", step.heading(), text.replace('\n', "\n              "))
            }
        };
        // Who does not read any more has not asked to stop in the middle of a step.
        print_next_line(&line).map(|_| ())
    }
}

/// Whether two texts differ in more than figures.
fn is_news(before: &str, after: &str) -> bool {
    let words = |text: &str| text.replace(|letter: char| letter.is_ascii_digit() || letter == '.', "");
    words(before) != words(after)
}

/// So many of these.
pub(super) fn counted(count: usize, what: &str) -> String {
    match count {
        1 => format!("one {what}"),
        count => format!("{count} {what}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_no_news() {
        assert!(!is_news("a is 1.2 MB before 0/1A", "a is 3 MB before 0/1A"));
        assert!(is_news("a is 1.2 MB behind", "a and b are 1.2 MB behind"));
    }

    #[test]
    fn a_wait_has_an_end_where_one_was_set() {
        let mut told = Told::new(Output::Json, Some(5));
        let began = Instant::now();
        let after = |seconds| began + Duration::from_secs(seconds);
        assert!(told.wait_at(began, Way::Cut, "a").is_ok());
        assert!(told.wait_at(after(4), Way::Cut, "b").is_ok());
        let said = told.wait_at(after(5), Way::Cut, "b").unwrap_err().chain();
        assert!(said.contains("b after 5 s"), "{said}");
        assert!(told.wait_at(after(6), Way::Start, "c").is_ok());
    }
}
