//! What to say about a setting that was refused: its place, the reason, and the name that was probably meant.

use std::fmt;

/// Where a setting was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    File { name: String, line: usize },
    Environment { name: String },
    Flag,
    Default,
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { name, line } => write!(out, "{name}:{line}"),
            Self::Environment { name } => write!(out, "environment variable {name}"),
            Self::Flag => out.write_str("--set"),
            Self::Default => out.write_str("default"),
        }
    }
}

/// One refused setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub(super) place: Place,
    /// What is refused and why, in one sentence.
    pub(super) text: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.place, self.text)
    }
}

/// Puts the deserialiser's message about the single setting at `path` into words.
pub(super) fn explain(path: &[String], message: &str) -> String {
    let whole = path.join(".");
    let Some((unknown, known)) = unknown_name(message) else {
        return format!("{whole}: {message}");
    };
    let Some(index) = path.iter().position(|segment| *segment == unknown) else {
        return format!("{whole}: {message}");
    };
    let parent: String = path[..index].iter().map(|segment| format!("{segment}.")).collect();
    match nearest(&unknown, &known) {
        Some(meant) => format!("{parent}{unknown} is not a setting; did you mean {parent}{meant}?"),
        None => format!("{parent}{unknown} is not a setting; known here: {}", known.join(", ")),
    }
}

/// Takes serde's "unknown field `a`, expected one of `b`, `c`" apart.
fn unknown_name(message: &str) -> Option<(String, Vec<String>)> {
    if !message.starts_with("unknown field") && !message.starts_with("unknown variant") {
        return None;
    }
    let mut names = message.split('`').skip(1).step_by(2).map(str::to_owned);
    Some((names.next()?, names.collect()))
}

/// The known name that differs least, if it differs little enough to have been meant.
fn nearest<'a>(unknown: &str, known: &'a [String]) -> Option<&'a str> {
    let allowed = 2.max(unknown.chars().count() / 3);
    known
        .iter()
        .map(|name| (distance(unknown, name), name.as_str()))
        .filter(|(distance, name)| *distance <= allowed || name.starts_with(unknown))
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
