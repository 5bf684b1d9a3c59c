//! `afterwrite.toml` as a list of single settings, each with its line.

use std::collections::BTreeMap;

use toml::Value;
use toml::de::{DeTable, DeValue};

/// One setting of the file.
#[derive(Debug)]
pub(super) struct Leaf {
    pub(super) path: Vec<String>,
    pub(super) value: Value,
    pub(super) line: usize,
}

/// What is wrong with the file's syntax, and where.
#[derive(Debug)]
pub(super) struct Syntax {
    pub(super) line: usize,
    pub(super) message: String,
}

/// Takes the text apart. Empty tables are settings too: an unknown `[section]` must not pass because it is empty.
pub(super) fn leaves(text: &str) -> Result<Vec<Leaf>, Vec<Syntax>> {
    let syntax = |error: &toml::de::Error| Syntax {
        line: line_of(text, error.span().map_or(0, |span| span.start)),
        message: error.message().replace('\n', ", "),
    };
    let (spanned, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let mut mistakes: Vec<Syntax> = errors.iter().map(syntax).collect();
        // What follows from the first mistake of a line is none of its own.
        mistakes.sort_by_key(|mistake| mistake.line);
        mistakes.dedup_by_key(|mistake| mistake.line);
        return Err(mistakes);
    }
    let table: toml::Table = toml::from_str(text).map_err(|error| vec![syntax(&error)])?;
    let mut lines = BTreeMap::new();
    note_lines(text, &mut Vec::new(), spanned.get_ref(), &mut lines);
    let mut leaves = Vec::new();
    collect(&mut Vec::new(), table, &lines, &mut leaves);
    Ok(leaves)
}

fn collect(path: &mut Vec<String>, table: toml::Table, lines: &BTreeMap<Vec<String>, usize>, leaves: &mut Vec<Leaf>) {
    for (key, value) in table {
        path.push(key);
        match value {
            Value::Table(inner) if !inner.is_empty() => collect(path, inner, lines, leaves),
            value => leaves.push(Leaf {
                path: path.clone(),
                value,
                line: lines.get(path).copied().unwrap_or(1),
            }),
        }
        path.pop();
    }
}

fn note_lines(text: &str, path: &mut Vec<String>, table: &DeTable<'_>, lines: &mut BTreeMap<Vec<String>, usize>) {
    for (key, value) in table {
        path.push(key.get_ref().to_string());
        lines.insert(path.clone(), line_of(text, key.span().start));
        if let DeValue::Table(inner) = value.get_ref() {
            note_lines(text, path, inner, lines);
        }
        path.pop();
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes()[..offset.min(text.len())]
        .iter()
        .filter(|byte| **byte == b'\n')
        .count()
}
