//! Reading files: where they lie, and what of their text is code.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// One file of the repository.
pub(crate) struct File {
    /// Relative to the repository, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
    /// Compiled for tests only: below `tests/`, or declared under `#[cfg(test)]`.
    pub(crate) is_test: bool,
}

pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn rust_files(folders: &[&str]) -> Vec<File> {
    let mut paths = Vec::new();
    for folder in folders {
        walk(&root().join(folder), &mut paths);
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    let texts: Vec<(String, String)> = paths
        .iter()
        .map(|path| {
            let text = fs::read_to_string(path).expect("a listed file can be read");
            (relative(path), text)
        })
        .collect();
    let for_tests: BTreeSet<String> = texts
        .iter()
        .flat_map(|(path, text)| declared(path, text))
        .filter(|declared| declared.for_tests)
        .flat_map(|declared| declared.candidates)
        .collect();
    let file = |(path, text): (String, String)| File {
        is_test: path.starts_with("tests/") || for_tests.contains(&path),
        path,
        text,
    };
    texts.into_iter().map(file).collect()
}

/// Markdown at the top, in docs, and beside what it explains.
pub(crate) fn documents() -> Vec<String> {
    let mut paths: Vec<PathBuf> = fs::read_dir(root())
        .expect("the repository can be read")
        .map(|entry| entry.expect("a listed entry can be read").path())
        .collect();
    paths.retain(|path| path.is_file());
    for folder in ["docs", "infra", "connectors", "examples"] {
        walk(&root().join(folder), &mut paths);
    }
    let markdown = paths
        .iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    markdown.map(|path| relative(path)).collect()
}

/// All files below a folder; hidden ones (caches) are left out, and so is a folder that does not exist.
pub(crate) fn walk(folder: &Path, into: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.map(|entry| entry.expect("a listed entry can be read").path()) {
        let hidden = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with('.'));
        match path.is_dir() {
            _ if hidden => {}
            true => walk(&path, into),
            false => into.push(path),
        }
    }
}

pub(crate) fn relative(path: &Path) -> String {
    let below = path.strip_prefix(root()).expect("only files below the root are listed");
    below
        .components()
        .map(|part| part.as_os_str().to_string_lossy())
        .collect::<Vec<_>>()
        .join("/")
}

/// `handlers` for `src/handlers/email/mod.rs`; nothing for roots and for files outside of `src`.
pub(crate) fn top_module(path: &str) -> Option<String> {
    let below = path.strip_prefix("src/")?;
    let name = below.split('/').next()?.trim_end_matches(".rs");
    (!matches!(name, "lib" | "main")).then(|| name.to_owned())
}

pub(crate) fn is_root(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    matches!(
        parts.as_slice(),
        ["src", "lib.rs" | "main.rs"]
            | ["tests" | "examples" | "benches", _]
            | ["tests" | "examples" | "benches", _, "main.rs"]
    )
}

/// Where the modules that a file declares lie.
fn folder_of_modules(path: &str) -> String {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let stem = name.trim_end_matches(".rs");
    if is_root(path) || stem == "mod" {
        return folder.to_owned();
    }
    format!("{folder}/{stem}")
}

/// A `mod name;` line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Declared {
    /// Where its file may lie.
    pub(crate) candidates: Vec<String>,
    pub(crate) for_tests: bool,
    /// Whether `#[path]` says where.
    pub(crate) by_path: bool,
}

/// The modules a file declares in files of their own. Attributes stand on lines of their own, as rustfmt puts them.
pub(crate) fn declared(path: &str, text: &str) -> Vec<Declared> {
    let folder = folder_of_modules(path);
    let beside = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut declared = Vec::new();
    let (mut for_tests, mut by_path) = (false, None);
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[") {
            for_tests |= line == "#[cfg(test)]";
            let named = line
                .strip_prefix("#[path = \"")
                .and_then(|rest| rest.strip_suffix("\"]"));
            by_path = named.or(by_path);
            continue;
        }
        if let Some(module) = module_of(line) {
            declared.push(Declared {
                candidates: match by_path {
                    Some(name) => vec![format!("{beside}/{name}")],
                    None => vec![format!("{folder}/{module}.rs"), format!("{folder}/{module}/mod.rs")],
                },
                for_tests,
                by_path: by_path.is_some(),
            });
        }
        (for_tests, by_path) = (false, None);
    }
    declared
}

/// `name` of `mod name;`, whatever its visibility.
fn module_of(line: &str) -> Option<&str> {
    let after = match line.strip_prefix("pub") {
        Some(rest) => rest.trim_start_matches(|character| character != ' ').trim_start(),
        None => line,
    };
    after.strip_prefix("mod ")?.strip_suffix(';')
}

/// First segments of every `crate::…` path, also in `use crate::{a, b::c}`.
pub(crate) fn imported(code: &str) -> BTreeSet<String> {
    let mut modules = BTreeSet::new();
    for start in ["crate::", "afterwrite::"]
        .iter()
        .flat_map(|prefix| ends_of(code, prefix))
    {
        let rest = &code[start..];
        match rest.strip_prefix('{') {
            Some(group) => modules.extend(heads_of_group(group)),
            None => modules.extend(identifier(rest)),
        }
    }
    modules
}

pub(crate) fn ends_of<'a>(code: &'a str, prefix: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(prefix)
        .filter(|(start, _)| !code[..*start].ends_with(is_word_character))
        .map(|(start, found)| start + found.len())
}

/// The names at the top level of `a, b::{c, d}, e}`.
pub(crate) fn heads_of_group(group: &str) -> Vec<String> {
    let mut depth = 0;
    let mut heads = Vec::new();
    let mut expects_head = true;
    for (index, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => expects_head = true,
            _ if expects_head && is_word_character(character) => {
                heads.extend(identifier(&group[index..]));
                expects_head = false;
            }
            _ => {}
        }
    }
    heads
}

/// A module's name; types and macros at the root of the crate are none.
pub(crate) fn identifier(text: &str) -> Option<String> {
    let end = text
        .find(|character| !is_word_character(character))
        .unwrap_or(text.len());
    let name = &text[..end];
    name.starts_with(|first: char| first.is_ascii_lowercase())
        .then(|| name.to_owned())
}

pub(crate) fn is_word_character(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Whether `word` occurs and is not the end of a longer word.
pub(crate) fn has_word(text: &str, word: &str) -> bool {
    let begins_a_word = word.starts_with(is_word_character);
    let ends_a_word = word.ends_with(is_word_character);
    text.match_indices(word).any(|(start, found)| {
        let before = text[..start].ends_with(is_word_character) && begins_a_word;
        let after = text[start + found.len()..].starts_with(is_word_character) && ends_a_word;
        !before && !after
    })
}

/// The code without the modules for tests in it; what stands below them counts like what stands above.
pub(crate) fn code_without_tests(text: &str) -> String {
    let mut code = code(text);
    for block in inline_tests(&code).into_iter().rev() {
        code.replace_range(block, "");
    }
    code
}

/// The modules for tests in the code of a file.
pub(crate) fn code_of_tests(text: &str) -> String {
    let code = code(text);
    inline_tests(&code).into_iter().map(|block| &code[block]).collect()
}

/// Where `#[cfg(test)] mod name { … }` stands in a code.
fn inline_tests(code: &str) -> Vec<Range<usize>> {
    let mut blocks: Vec<Range<usize>> = Vec::new();
    for (start, mark) in code.match_indices("#[cfg(test)]\nmod ") {
        let is_within = blocks.last().is_some_and(|block| block.contains(&start));
        let rest = &code[start + mark.len()..];
        let name = rest
            .find(|character| !is_word_character(character))
            .unwrap_or(rest.len());
        if !is_within && rest[name..].starts_with(" {") {
            blocks.push(start..start + mark.len() + end_of(rest, '{', '}'));
        }
    }
    blocks
}

/// Bytes up to the end of the first pair of brackets; all of it when they do not close.
pub(crate) fn end_of(text: &str, opening: char, closing: char) -> usize {
    let mut depth = 0_usize;
    for (index, character) in text.char_indices() {
        if character == opening {
            depth += 1;
        } else if character == closing {
            depth = depth.saturating_sub(1);
            if depth == 0 {
                return index + closing.len_utf8();
            }
        }
    }
    text.len()
}

/// A text without comments and without what is between quotes. Good enough for code that is formatted.
pub(crate) fn code(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let (kept, skipped) = match character {
            '/' if rest.starts_with("//") => ("", rest.find('\n').unwrap_or(rest.len())),
            'r' if raw_string(rest).is_some() && !code.ends_with(is_word_character) => {
                ("\"\"", raw_string(rest).unwrap_or(1))
            }
            '"' => ("\"\"", quoted(rest, '"')),
            '\'' if is_character(rest) => ("''", quoted(rest, '\'')),
            _ => (&rest[..character.len_utf8()], character.len_utf8()),
        };
        code.push_str(kept);
        rest = &rest[skipped..];
    }
    code
}

/// Bytes of a quoted text with its quotes.
pub(crate) fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (index, character) in text.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if character == quote => return index + character.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

/// Bytes of `r"…"` or `r#"…"#`.
pub(crate) fn raw_string(text: &str) -> Option<usize> {
    let hashes = text[1..].chars().take_while(|character| *character == '#').count();
    let body = text[1 + hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(1 + hashes + 1 + body.find(&end)? + end.len())
}

/// `'a'` and `'\n'`, as opposed to a lifetime.
pub(crate) fn is_character(text: &str) -> bool {
    let mut characters = text.chars().skip(1);
    match characters.next() {
        Some('\\') => true,
        Some(_) => characters.next() == Some('\''),
        None => false,
    }
}

/// Targets of Markdown links to files, without anchors.
pub(crate) fn links(text: &str) -> Vec<&str> {
    let targets = text.match_indices("](").map(|(start, found)| {
        let rest = &text[start + found.len()..];
        &rest[..rest.find(')').unwrap_or(rest.len())]
    });
    targets
        .map(|target| target.split(['#', ' ']).next().unwrap_or_default())
        .filter(|target| !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:"))
        .collect()
}
