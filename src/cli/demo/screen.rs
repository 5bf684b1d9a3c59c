//! What the demo shows while it runs: steps, changes, reactions; a spinner where something takes long.
//!
//! Lines go to standard output, or to standard error when standard output belongs to a JSON document. Colours and
//! spinners appear on a terminal only, and `NO_COLOR` is obeyed. A reader that has left is no error: there is a stack to
//! take down.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::output::Output;

/// How often the spinner turns.
const TURN_EVERY: Duration = Duration::from_millis(120);

/// Steps in all.
const STEPS: u8 = 6;

/// How a piece of text stands out.
#[derive(Debug, Clone, Copy)]
enum Look {
    Plain,
    Bold,
    Dim,
    Handler,
    Bad,
}

impl Look {
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "0",
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Handler => "36",
            Self::Bad => "31",
        }
    }
}

/// Where the demo writes.
#[derive(Debug)]
pub(super) struct Screen {
    /// Who reads standard output.
    pub(super) output: Output,
    to_stderr: bool,
    is_terminal: bool,
    colours: bool,
    step: Mutex<String>,
    spinner: Mutex<Option<ProgressBar>>,
}

impl Screen {
    pub(super) fn new(output: Output) -> Self {
        let to_stderr = match output {
            Output::Json => true,
            Output::Table => false,
        };
        let is_terminal = io::stderr().is_terminal() && (to_stderr || io::stdout().is_terminal());
        Self {
            output,
            to_stderr,
            is_terminal,
            colours: is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
            step: Mutex::new("finding its place".to_owned()),
            spinner: Mutex::new(None),
        }
    }

    /// Begins a step: a heading, and what a failure is said to have happened in.
    pub(super) fn step(&self, number: u8, title: &str) {
        *self.step.lock().unwrap_or_else(PoisonError::into_inner) = title.to_owned();
        let heading = self.styled(&format!("{number}/{STEPS}  {title}"), Look::Bold);
        self.line("");
        self.line(&heading);
    }

    /// The step that was begun last.
    pub(super) fn current_step(&self) -> String {
        self.step.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A remark below a step.
    pub(super) fn note(&self, text: &str) {
        for line in text.lines() {
            let remark = self.styled(line, Look::Dim);
            self.line(&format!("     {remark}"));
        }
    }

    /// Something that was written to the database: what it means, and where it was written.
    pub(super) fn change(&self, what: &str, statement: &str) {
        let (what, statement) = (self.styled(what, Look::Bold), self.styled(statement, Look::Dim));
        self.line("");
        self.line(&format!("  ◆ {what}   {statement}"));
    }

    /// What somebody answered to it, and how long after.
    pub(super) fn reaction(&self, after: Duration, who: &str, text: &str) {
        let time = self.styled(&format!("+{:>5} ms", after.as_millis()), Look::Dim);
        self.answered(&time, who, text);
    }

    /// What somebody answered, at this time of the day.
    pub(super) fn reaction_at(&self, time_of_day: &str, who: &str, text: &str) {
        let time = self.styled(time_of_day, Look::Dim);
        self.answered(&format!(" {time}"), who, text);
    }

    fn answered(&self, time: &str, who: &str, text: &str) {
        let look = if who == "letter" { Look::Bad } else { Look::Handler };
        let who = self.styled(&format!("{who:<8}"), look);
        self.line(&format!("    {time}  {who}  {text}"));
    }

    /// A statement about what did not happen.
    pub(super) fn proof(&self, text: &str) {
        let text = self.styled(text, Look::Plain);
        self.line(&format!("         ✓      {text}"));
    }

    /// Something went wrong.
    pub(super) fn bad(&self, text: &str) {
        self.line("");
        let text = self.styled(text, Look::Bad);
        self.line(&text);
    }

    /// Shows on a terminal that something is being waited for, until the answer is dropped.
    pub(super) fn waiting(&self, what: &str) -> Waiting<'_> {
        if self.is_terminal {
            let style = ProgressStyle::with_template("     {spinner} {msg} {elapsed}")
                .unwrap_or_else(|_| ProgressStyle::default_spinner());
            let bar = ProgressBar::new_spinner()
                .with_style(style)
                .with_message(what.to_owned());
            bar.enable_steady_tick(TURN_EVERY);
            *self.spinner.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar);
        }
        Waiting { screen: self }
    }

    /// One line as it is.
    pub(super) fn line(&self, text: &str) {
        let write = || {
            let written = if self.to_stderr {
                writeln!(io::stderr(), "{text}")
            } else {
                let mut out = io::stdout().lock();
                writeln!(out, "{text}").and_then(|()| out.flush())
            };
            if let Err(error) = written {
                tracing::debug!(%error, "a line of the demo could not be shown");
            }
        };
        match &*self.spinner.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    fn styled(&self, text: &str, look: Look) -> String {
        match (self.colours, look) {
            (false, _) | (_, Look::Plain) => text.to_owned(),
            (true, _) => format!("\u{1b}[{}m{text}\u{1b}[0m", look.code()),
        }
    }
}

/// A wait that is shown.
#[derive(Debug)]
pub(super) struct Waiting<'a> {
    screen: &'a Screen,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let spinner = self.screen.spinner.lock();
        if let Some(bar) = spinner.unwrap_or_else(PoisonError::into_inner).take() {
            bar.finish_and_clear();
        }
    }
}
