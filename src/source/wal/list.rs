//! Arrays as Postgres prints them.
//!
//! Source: "Array Input and Output Syntax" in the documentation of PostgreSQL. All types of the kinds that are read here have
//! the comma as their delimiter.

use std::borrow::Cow;

/// An array that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum List<'a> {
    /// Of one dimension, or empty.
    Flat(Vec<Option<Cow<'a, str>>>),
    /// Of more than one dimension.
    Nested,
}

/// Reads an array; `None` when it is none.
pub(super) fn read(text: &str) -> Option<List<'_>> {
    // Bounds that do not begin at 1 stand before the elements: `[0:1]={a,b}`.
    let text = match text.starts_with('[') {
        true => text.split_once('=')?.1,
        false => text,
    };
    let mut rest = text.strip_prefix('{')?.strip_suffix('}')?;
    if rest.starts_with('{') {
        return Some(List::Nested);
    }
    let mut elements = Vec::new();
    if rest.is_empty() {
        return Some(List::Flat(elements));
    }
    loop {
        let (element, after) = match rest.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                let (plain, after) = rest.split_at_checked(end)?;
                (Some(Cow::Borrowed(plain)).filter(|plain| plain != "NULL"), after)
            }
        };
        elements.push(element);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None if after.is_empty() => return Some(List::Flat(elements)),
            None => return None,
        }
    }
}

/// The text up to the closing quote, and what comes after that.
pub(super) fn unquote(quoted: &str) -> Option<(Option<Cow<'_, str>>, &str)> {
    let end = quoted.find(['"', '\\'])?;
    if quoted.as_bytes().get(end) == Some(&b'"') {
        return Some((Some(Cow::Borrowed(quoted.get(..end)?)), quoted.get(end + 1..)?));
    }
    let mut out = String::with_capacity(quoted.len());
    let mut letters = quoted.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((Some(Cow::Owned(out)), quoted.get(at + 1..)?)),
            '\\' => out.push(letters.next()?.1),
            letter => out.push(letter),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(text: &str) -> Vec<Option<String>> {
        match read(text) {
            Some(List::Flat(elements)) => elements.into_iter().map(|one| one.map(Cow::into_owned)).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn elements_are_read_with_their_quotes() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(flat("{a,NULL,\"c d\"}"), [some("a"), None, some("c d")]);
        assert_eq!(
            flat(r#"{"NULL","a\"b\\c",""}"#),
            [some("NULL"), some(r#"a"b\c"#), some("")]
        );
        assert_eq!(flat("{}"), []);
        assert_eq!(flat("[0:1]={1,2}"), [some("1"), some("2")]);
        assert_eq!(read("{{1,2},{3,4}}"), Some(List::Nested));
    }

    #[test]
    fn what_is_no_array_is_none() {
        for text in ["", "a", "{", "{\"a}", "{\"a\"b}", "[0:1]", "{\"a\\"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
