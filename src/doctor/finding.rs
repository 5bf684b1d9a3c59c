//! What is said of something that is wrong: what it is, why it matters, and what mends it.

use std::fmt;

use serde::Serialize;

/// A part of the way from a committed row to the end of its work, in the order of that way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Leg {
    /// The server that the application writes to.
    Postgres,
    /// The application's tables.
    Tables,
    /// afterwrite's own tables.
    Schema,
    /// What Postgres sends of its log.
    Publication,
    /// Who may do what in Postgres.
    Roles,
    /// The place in the log, and the log that is kept for it.
    Slot,
    /// Kafka Connect.
    Connect,
    /// The connector, its task, and its settings.
    Connector,
    /// The brokers and the topics.
    Topics,
    /// The schema registry.
    Registry,
    /// The groups: who runs them, and where they stand.
    Groups,
    /// The handlers, and what they call.
    Handlers,
    /// Where dead letters go.
    Letters,
    /// A row that is sent all the way.
    Probe,
}

impl Leg {
    /// As it is printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Tables => "tables",
            Self::Schema => "schema",
            Self::Publication => "publication",
            Self::Roles => "roles",
            Self::Slot => "slot",
            Self::Connect => "connect",
            Self::Connector => "connector",
            Self::Topics => "topics",
            Self::Registry => "registry",
            Self::Groups => "groups",
            Self::Handlers => "handlers",
            Self::Letters => "letters",
            Self::Probe => "probe",
        }
    }
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Nothing is wrong, as long as it is known.
    Note,
    /// Work goes on, and something will be lost or stand still if nobody looks.
    Warning,
    /// Changes are lost or not handled now.
    Error,
}

impl Severity {
    /// As it is printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// A kind of finding. Its name never changes, so that scripts and notes may go by it.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Code {
    /// Its name.
    #[serde(rename = "code")]
    pub name: &'static str,
    /// Where it is found.
    pub leg: Leg,
    /// How bad it is.
    pub severity: Severity,
    /// What follows from it.
    pub why: &'static str,
}

impl Code {
    pub(super) const fn error(leg: Leg, name: &'static str, why: &'static str) -> Self {
        let severity = Severity::Error;
        Self {
            name,
            leg,
            severity,
            why,
        }
    }

    pub(super) const fn note(leg: Leg, name: &'static str, why: &'static str) -> Self {
        let severity = Severity::Note;
        Self {
            name,
            leg,
            severity,
            why,
        }
    }

    pub(super) const fn warning(leg: Leg, name: &'static str, why: &'static str) -> Self {
        let severity = Severity::Warning;
        Self {
            name,
            leg,
            severity,
            why,
        }
    }

    /// A finding of this kind.
    pub(super) fn found(&'static self, what: impl Into<String>, remedy: Remedy) -> Finding {
        Finding {
            code: self,
            what: what.into(),
            remedy,
        }
    }
}

/// What mends it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", content = "text", rename_all = "snake_case")]
pub enum Remedy {
    /// Statements for Postgres, as the owner of what they name.
    Sql(String),
    /// Commands for a shell.
    Shell(String),
    /// What no single command does.
    Words(String),
}

impl Remedy {
    pub(super) fn sql(text: impl Into<String>) -> Self {
        Self::Sql(text.into())
    }

    pub(super) fn shell(text: impl Into<String>) -> Self {
        Self::Shell(text.into())
    }

    pub(super) fn words(text: impl Into<String>) -> Self {
        Self::Words(text.into())
    }

    /// Where it is to be done, and what.
    pub fn parts(&self) -> (&'static str, &str) {
        match self {
            Self::Sql(text) => ("in Postgres, as the owner", text),
            Self::Shell(text) => ("in a shell", text),
            Self::Words(text) => ("by hand", text),
        }
    }
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its kind.
    #[serde(flatten)]
    pub code: &'static Code,
    /// What it is, with the names of this installation.
    pub what: String,
    /// What mends it.
    pub remedy: Remedy,
}

/// What could not be looked at, said once for all of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unchecked {
    /// The parts.
    pub legs: Vec<Leg>,
    /// Why.
    pub because: String,
}

impl fmt::Display for Unchecked {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let legs: Vec<&str> = self.legs.iter().map(|leg| leg.name()).collect();
        write!(out, "{}: not checked, because {}", legs.join(", "), self.because)
    }
}

/// What one part of the way came to.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) findings: Vec<Finding>,
    pub(super) unchecked: Vec<Unchecked>,
}

impl Outcome {
    pub(super) fn of(findings: Vec<Finding>) -> Self {
        Self {
            findings,
            unchecked: Vec::new(),
        }
    }

    pub(super) fn unchecked(legs: &[Leg], because: impl Into<String>) -> Self {
        let (legs, because) = (legs.to_vec(), because.into());
        Self {
            findings: Vec::new(),
            unchecked: vec![Unchecked { legs, because }],
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.findings.extend(other.findings);
        self.unchecked.extend(other.unchecked);
    }
}

/// Findings of one kind as one: ten tables that lack the same are one thing to read, with a statement a line.
pub(super) fn merged(findings: Vec<Finding>) -> Vec<Finding> {
    let mut merged: Vec<Finding> = Vec::new();
    for finding in findings {
        let (place, text) = finding.remedy.parts();
        let same = |other: &&mut Finding| other.code == finding.code && other.remedy.parts().0 == place;
        match merged.iter_mut().find(same) {
            None => merged.push(finding),
            Some(first) => {
                first.what = format!("{}; {}", first.what, finding.what);
                let (Remedy::Sql(all) | Remedy::Shell(all) | Remedy::Words(all)) = &mut first.remedy;
                if !all.lines().any(|line| line == text) {
                    *all = format!("{all}\n{text}");
                }
            }
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_alike_is_one_finding_with_a_statement_a_line() {
        static CODE: Code = Code::error(Leg::Tables, "alike", "so");
        let found = |what: &str, sql: &str| CODE.found(what, Remedy::sql(sql));
        let merged = merged(vec![found("a", "A;"), found("b", "B;"), found("c", "A;")]);
        assert_eq!(merged, [found("a; b; c", "A;\nB;")]);
    }
}
