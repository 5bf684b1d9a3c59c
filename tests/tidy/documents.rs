//! What the documents say must be there: what they link to, the files they name, the commands they tell to type, and a
//! line for every error that asks somebody to act.

use std::path::Path;

use crate::reading::{File, end_of, is_word_character, links, quoted};

/// The document that explains what is logged.
pub(crate) const OPERATIONS: &str = "docs/OPERATIONS.md";

/// Where the commands are listed.
pub(crate) const COMMANDS: &str = "src/cli/mod.rs";

/// Folders of which documents name files from the top of the repository.
const NAMED: [&str; 3] = ["src/", "tests/", "infra/"];

/// The page that says which test would notice which failure.
pub(crate) const FAILURES: &str = "docs/FAILURES.md";

/// Lines of a table that name tests, and those tests that are not where the line says: `NAME` … in [FILE](PATH).
pub(crate) fn absent_tests(text: &str, read: impl Fn(&str) -> String) -> (usize, Vec<String>) {
    let named = text
        .lines()
        .filter(|line| line.starts_with("| ") && line.contains(" in ["));
    let mut absent = Vec::new();
    let mut rows = 0;
    for line in named {
        rows += 1;
        let parts = line.split(';').filter(|part| part.contains(" in ["));
        for part in parts {
            let name = part.split('`').nth(1).unwrap_or_default();
            let path = part
                .split_once("](")
                .and_then(|(_, rest)| rest.split(')').next())
                .unwrap_or_default();
            if name.is_empty() || !read(path).contains(&format!("fn {name}(")) {
                absent.push(format!("{name} in {path}"));
            }
        }
    }
    (rows, absent)
}

/// Links of a document that lead nowhere.
pub(crate) fn broken_links(path: &str, text: &str, exists: impl Fn(&Path) -> bool) -> Vec<String> {
    let folder = Path::new(path).parent().unwrap_or(Path::new(""));
    let broken = links(text).into_iter().filter(|link| !exists(&folder.join(link)));
    broken
        .map(|link| format!("{path}: the link to {link} leads nowhere"))
        .collect()
}

/// Files between backticks that are not there.
pub(crate) fn absent_files(path: &str, text: &str, exists: impl Fn(&Path) -> bool) -> Vec<String> {
    let words = spans(text).into_iter().filter_map(|span| span.split(' ').next());
    let named = words.filter(|word| NAMED.iter().any(|folder| word.starts_with(folder)) && !word.contains(['*', '…']));
    named
        .filter(|name| !exists(Path::new(name)))
        .map(|name| format!("{path}: there is no {name}"))
        .collect()
}

/// `afterwrite WORD`, between backticks or at the beginning of a line of a block, where WORD is no command.
pub(crate) fn absent_commands(path: &str, text: &str, commands: &[String]) -> Vec<String> {
    let lines = blocks(text).into_iter().map(str::trim);
    let typed = spans(text).into_iter().chain(lines);
    let words = typed.filter_map(|line| line.strip_prefix("afterwrite ")?.split(' ').next());
    words
        .filter(|word| word.starts_with(|first: char| first.is_ascii_lowercase()))
        .filter(|word| !commands.iter().any(|command| command == word))
        .map(|word| format!("{path}: there is no command `afterwrite {word}`"))
        .collect()
}

/// The commands by the variants of the enum that lists them, as they are typed.
pub(crate) fn commands(text: &str) -> Vec<String> {
    let Some((_, listed)) = text.split_once("pub enum Command {") else {
        return Vec::new();
    };
    let lines = listed.lines().map(str::trim).take_while(|line| *line != "}");
    let variants = lines.filter_map(|line| line.split_once('(').map(|(name, _)| name));
    let names = variants.filter(|name| name.chars().all(is_word_character) && !name.is_empty());
    names.map(kebab).collect()
}

fn kebab(name: &str) -> String {
    let mut kebab = String::new();
    for character in name.chars() {
        if character.is_ascii_uppercase() && !kebab.is_empty() {
            kebab.push('-');
        }
        kebab.push(character.to_ascii_lowercase());
    }
    kebab
}

/// ERROR lines that the page for operators does not explain. What varies, and all behind it, is not compared.
pub(crate) fn unexplained_errors(file: &File, operations: &str) -> Vec<String> {
    let calls = file.text.match_indices("error!(").map(|(start, mark)| {
        let rest = &file.text[start + mark.len() - 1..];
        &rest[..end_of(rest, '(', ')')]
    });
    let messages = calls.filter_map(last_text);
    messages
        .map(|message| message.split([':', ';', '{', '\\']).next().unwrap_or(message).trim())
        .filter(|beginning| !operations.contains(beginning))
        .map(|beginning| {
            format!(
                "{}: {OPERATIONS} does not say what to do about {beginning:?}",
                file.path
            )
        })
        .collect()
}

/// The last text between quotes.
fn last_text(code: &str) -> Option<&str> {
    let (mut last, mut at) = (None, 0);
    while let Some(found) = code[at..].find('"') {
        let start = at + found;
        let end = start + quoted(&code[start..], '"');
        last = code.get(start + 1..end - 1);
        at = end;
    }
    last
}

/// What stands between backticks, outside of blocks.
fn spans(text: &str) -> Vec<&str> {
    let prose = text.split("```").step_by(2).flat_map(str::lines);
    prose.flat_map(|line| line.split('`').skip(1).step_by(2)).collect()
}

/// The lines of blocks.
fn blocks(text: &str) -> Vec<&str> {
    text.split("```").skip(1).step_by(2).flat_map(str::lines).collect()
}
