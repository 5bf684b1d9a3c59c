//! What is said about a setting that was refused: its place, the reason, and what to do about it.
//!
//! No text of a refusal quotes a value: whoever puts a password where a number belongs must not find it in a log.

use std::fmt;

use serde::Serialize;

/// Where a setting was made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Place {
    /// In the file.
    File {
        /// The file, as it was named.
        file: String,
        /// Where in it; none where that is about the whole file.
        line: Option<usize>,
    },
    /// In a variable of the environment.
    Environment {
        /// The variable.
        variable: String,
    },
    /// After `--set`.
    Flag,
    /// Nowhere: it has its default.
    Default,
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, line: Some(line) } => write!(out, "{file}:{line}"),
            Self::File { file, line: None } => out.write_str(file),
            Self::Environment { variable } => write!(out, "environment variable {variable}"),
            Self::Flag => out.write_str("--set"),
            Self::Default => out.write_str("default"),
        }
    }
}

/// What is wrong with a setting, wherever it was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Wrong {
    /// `section.key`; empty where it is not about one setting.
    pub setting: String,
    /// Why it cannot be.
    pub reason: String,
    /// What to do.
    pub remedy: String,
}

impl Wrong {
    /// Something wrong with a setting.
    pub fn new(setting: impl Into<String>, reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            setting: setting.into(),
            reason: reason.into(),
            remedy: remedy.into(),
        }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.setting.is_empty() {
            write!(out, "{}: ", self.setting)?;
        }
        write!(out, "{}; {}", self.reason, self.remedy)
    }
}

/// One refused setting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// Where it was made.
    pub place: Place,
    /// What is wrong with it.
    #[serde(flatten)]
    pub wrong: Wrong,
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.place, self.wrong)
    }
}

/// The known name that differs least, if it differs little enough to have been meant.
pub fn nearest<'a>(unknown: &str, known: &'a [String]) -> Option<&'a str> {
    let allowed = 2.max(unknown.chars().count() / 3);
    known
        .iter()
        .map(|name| (distance(unknown, name), name.as_str()))
        .filter(|(distance, name)| *distance <= allowed || !unknown.is_empty() && name.starts_with(unknown))
        .min()
        .map(|(_, name)| name)
}

/// Edits (insert, delete, replace) that turn one text into the other.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, from) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (column, to) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_edits() {
        for (from, to, expected) in [("", "abc", 3), ("brokers", "broker", 1), ("kitten", "sitting", 3)] {
            assert_eq!(distance(from, to), expected);
        }
    }
}
