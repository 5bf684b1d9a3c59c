//! Walking over a JSON text without building anything: the members of objects, the elements of arrays, and the raw text
//! of strings and numbers, each checked against RFC 8259 as it is passed.
//!
//! What is stepped over is checked as strictly as what is read, so a damaged record never passes for a whole one. Nothing
//! here allocates, and nesting is bounded. Texts of errors tell a place, never what stands there.

use std::fmt;
use std::sync::Arc;

/// Values nest at most this deep, as in `serde_json`.
const DEPTH_MAX: u32 = 127;
/// Every integer of so many digits fits 64 bits.
const INTEGER_DIGITS_MAX: usize = 18;

/// The text is not JSON from this byte on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Broken(usize);

impl fmt::Display for Broken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "not valid JSON at byte {}", self.0)
    }
}

/// A place in a text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

/// A string as it stands between its quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quoted<'a> {
    /// The characters, escapes unresolved.
    pub(crate) inner: &'a str,
    /// Whether there are escapes.
    pub(crate) is_escaped: bool,
}

impl<'a> Scanner<'a> {
    /// At the beginning of a text.
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// At this byte of a text.
    pub(crate) fn at(text: &'a str, at: usize) -> Self {
        Self { text, at }
    }

    /// The whole text.
    pub(crate) fn text(&self) -> &'a str {
        self.text
    }

    /// How many bytes were passed.
    pub(crate) fn place(&self) -> usize {
        self.at
    }

    /// What is not passed yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        &self.text.as_bytes()[self.at..]
    }

    /// Goes on at this byte, what stands before it being known.
    pub(crate) fn move_to(&mut self, at: usize) {
        self.at = at;
    }

    /// The first byte of the next value, which is not passed.
    pub(crate) fn peek(&mut self) -> Option<u8> {
        self.pass_space();
        self.byte()
    }

    /// Passes the brace or bracket that opens an object or array.
    pub(crate) fn open(&mut self, bracket: u8) -> Result<(), Broken> {
        self.expect(bracket)
    }

    /// Passes the name of the next member and its colon, or the closing brace. `is_first` is true before the first.
    pub(crate) fn member(&mut self, is_first: &mut bool) -> Result<Option<Quoted<'a>>, Broken> {
        if !self.goes_on(b'}', is_first)? {
            return Ok(None);
        }
        self.pass_space();
        let name = self.string()?;
        self.expect(b':')?;
        Ok(Some(name))
    }

    /// Passes the name of the next member and its colon if it is this one, written as Kafka's converter writes it: without
    /// space and escapes, of which there must be none in the name. Otherwise nothing is passed.
    pub(crate) fn member_is(&mut self, name: &str, is_first: &mut bool) -> bool {
        let rest = match (&*is_first, self.rest()) {
            (true, [b'"', rest @ ..]) | (false, [b',', b'"', rest @ ..]) => rest,
            _ => return false,
        };
        let Some((found, [b'"', b':', ..])) = rest.split_at_checked(name.len()) else {
            return false;
        };
        if !is_same(found, name.as_bytes()) {
            return false;
        }
        self.at += usize::from(!*is_first) + name.len() + 3;
        *is_first = false;
        true
    }

    /// Passes what stands before the next element, or the closing bracket. `is_first` is true before the first.
    pub(crate) fn element(&mut self, is_first: &mut bool) -> Result<bool, Broken> {
        self.goes_on(b']', is_first)
    }

    /// Passes a string.
    pub(crate) fn string(&mut self) -> Result<Quoted<'a>, Broken> {
        let bytes = self.text.as_bytes();
        if self.byte() != Some(b'"') {
            return self.broken();
        }
        let start = self.at + 1;
        let mut is_escaped = false;
        self.at = start;
        loop {
            self.at = next_special(bytes, self.at);
            match self.byte() {
                Some(b'"') => break,
                Some(b'\\') => {
                    is_escaped = true;
                    self.pass_escape()?;
                }
                _ => return self.broken(),
            }
        }
        let inner = &self.text[start..self.at];
        self.at += 1;
        Ok(Quoted { inner, is_escaped })
    }

    /// Passes an integer that surely fits; of any other number, or anything else, it passes nothing and knows nothing.
    pub(crate) fn integer(&mut self) -> Option<i64> {
        let rest = self.rest();
        let (is_negative, digits) = match rest {
            [b'-', digits @ ..] => (true, digits),
            digits => (false, digits),
        };
        let mut value = 0_i64;
        let mut length = 0;
        while let Some(digit @ b'0'..=b'9') = digits.get(length) {
            // Eighteen digits always fit; what has more is not for here.
            if length == INTEGER_DIGITS_MAX {
                return None;
            }
            value = value * 10 + i64::from(digit - b'0');
            length += 1;
        }
        let is_plain = match digits.first() {
            Some(b'0') => length == 1,
            _ => length > 0,
        };
        if !is_plain || matches!(digits.get(length), Some(b'.' | b'e' | b'E')) {
            return None;
        }
        self.at += usize::from(is_negative) + length;
        Some(if is_negative { -value } else { value })
    }

    /// Passes a number.
    pub(crate) fn number(&mut self) -> Result<&'a str, Broken> {
        let start = self.at;
        self.at += usize::from(self.byte() == Some(b'-'));
        match self.byte() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.pass_digits(),
            _ => return self.broken(),
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            self.pass_some_digits()?;
        }
        if matches!(self.byte(), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.byte(), Some(b'+' | b'-')));
            self.pass_some_digits()?;
        }
        Ok(&self.text[start..self.at])
    }

    /// Passes `true`, `false` or `null`.
    pub(crate) fn literal(&mut self, literal: &'static str) -> Result<(), Broken> {
        if self.text.as_bytes()[self.at..].starts_with(literal.as_bytes()) {
            self.at += literal.len();
            return Ok(());
        }
        self.broken()
    }

    /// Passes a whole value and answers its text.
    pub(crate) fn skip(&mut self) -> Result<&'a str, Broken> {
        self.pass_space();
        let start = self.at;
        self.skip_nested(0)?;
        Ok(&self.text[start..self.at])
    }

    /// Nothing but space may follow.
    pub(crate) fn end(&mut self) -> Result<(), Broken> {
        self.pass_space();
        if self.at == self.text.len() {
            Ok(())
        } else {
            self.broken()
        }
    }

    fn skip_nested(&mut self, depth: u32) -> Result<(), Broken> {
        if depth > DEPTH_MAX {
            return self.broken();
        }
        match self.byte() {
            Some(b'"') => self.string().map(drop),
            Some(b'{') => {
                self.at += 1;
                let mut is_first = true;
                while self.member(&mut is_first)?.is_some() {
                    self.pass_space();
                    self.skip_nested(depth + 1)?;
                }
                Ok(())
            }
            Some(b'[') => {
                self.at += 1;
                let mut is_first = true;
                while self.element(&mut is_first)? {
                    self.pass_space();
                    self.skip_nested(depth + 1)?;
                }
                Ok(())
            }
            Some(b't') => self.literal("true"),
            Some(b'f') => self.literal("false"),
            Some(b'n') => self.literal("null"),
            _ => self.number().map(drop),
        }
    }

    /// Passes a comma where one is due; `false` at the closing bracket, which is passed.
    fn goes_on(&mut self, closing: u8, is_first: &mut bool) -> Result<bool, Broken> {
        self.pass_space();
        let was_first = std::mem::replace(is_first, false);
        match self.byte() {
            Some(byte) if byte == closing => {
                self.at += 1;
                Ok(false)
            }
            Some(b',') if !was_first => {
                self.at += 1;
                Ok(true)
            }
            Some(_) if was_first => Ok(true),
            _ => self.broken(),
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), Broken> {
        self.pass_space();
        if self.byte() == Some(byte) {
            self.at += 1;
            return Ok(());
        }
        self.broken()
    }

    /// Passes an escape, whatever it stands for.
    pub(crate) fn pass_escape(&mut self) -> Result<(), Broken> {
        let bytes = self.text.as_bytes();
        match bytes.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') => {
                let digits = bytes.get(self.at + 2..self.at + 6);
                if !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
                    return self.broken();
                }
                self.at += 6;
            }
            _ => return self.broken(),
        }
        Ok(())
    }

    fn pass_digits(&mut self) {
        while matches!(self.byte(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
    }

    fn pass_some_digits(&mut self) -> Result<(), Broken> {
        if !matches!(self.byte(), Some(b'0'..=b'9')) {
            return self.broken();
        }
        self.pass_digits();
        Ok(())
    }

    fn pass_space(&mut self) {
        while matches!(self.byte(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    /// The byte that follows.
    pub(crate) fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// The text is broken here.
    pub(crate) fn broken<T>(&self) -> Result<T, Broken> {
        Err(Broken(self.at))
    }
}

/// Whether names stand in JSON as they read. Those that do not are not known beforehand: with an escape in it, the text of
/// one name is another name.
pub(crate) fn are_printed_alike(names: &[Arc<str>]) -> bool {
    !names.iter().any(|name| name.contains(['"', '\\']))
}

/// Whether two pieces of the same length are the same. Names are short: most are compared in two steps and no call.
#[inline]
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let (Some(head), Some(tail)) = (one.first_chunk::<8>(), one.last_chunk::<8>()) else {
        return one.iter().eq(other);
    };
    if one.len() > 16 {
        return one == other;
    }
    other.first_chunk() == Some(head) && other.last_chunk() == Some(tail)
}

const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
const HIGHS: u64 = u64::from_ne_bytes([0x80; 8]);

/// The place of the next quote, backslash or control character; the end where there is none. Eight bytes at a time: most
/// strings of a row are passed in a few steps. (Blocks of 32 were measured, and are slower.)
pub(crate) fn next_special(bytes: &[u8], mut at: usize) -> usize {
    while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk()) {
        let word = u64::from_le_bytes(*chunk);
        // A byte's high bit is set in `found` where the byte is one of the three. Bytes above the first such one may be
        // marked wrongly, by a borrow; the first never is.
        let zeros = |word: u64| word.wrapping_sub(ONES) & !word;
        let quotes = zeros(word ^ (ONES * u64::from(b'"')));
        let backslashes = zeros(word ^ (ONES * u64::from(b'\\')));
        let controls = word.wrapping_sub(ONES * 0x20) & !word;
        let found = (quotes | backslashes | controls) & HIGHS;
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += chunk.len();
    }
    let is_special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
    let rest = bytes.get(at..).unwrap_or_default();
    rest.iter().position(is_special).map_or(bytes.len(), |place| at + place)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop};
    use proptest::{prop_assert_eq, proptest};
    use serde::de::IgnoredAny;

    use super::*;

    fn is_json(text: &str) -> bool {
        let mut scanner = Scanner::new(text);
        scanner.skip().and_then(|_| scanner.end()).is_ok()
    }

    #[test]
    fn what_is_passed_is_checked_as_a_parser_of_documents_checks_it() {
        for text in [
            "{}",
            "[]",
            "{\"a\":1,\"b\":[1,2,{}]}",
            " [ 1 , 2 ] ",
            "\"\"",
            "\"\\u12aF\\n\"",
            "-0.5e+10",
            "0",
            "-0",
            "1e5",
            "true",
            "false",
            "null",
            "",
            " ",
            "{",
            "[",
            "[1",
            "[1,",
            "[1,]",
            "[,1]",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{a:1}",
            "{\"a\":1 \"b\":2}",
            "01",
            "-",
            "1.",
            ".5",
            "1e",
            "1e+",
            "+1",
            "truth",
            "nul",
            "\"",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\u{0}\"",
            "\"\n\"",
            "[1]]",
            "1 2",
            "\"ä🚀\"",
            "\u{feff}1",
            "[\t\r\n]",
            "\"1234567\"",
            "\"12345678\"",
            "\"1234567\\\"\"",
            "\"12345678\u{1f}\"",
            "\"\u{80}\u{7f}\"",
        ] {
            assert_eq!(
                is_json(text),
                serde_json::from_str::<IgnoredAny>(text).is_ok(),
                "{text}"
            );
        }
    }

    #[test]
    fn nesting_has_an_end_and_does_not_overflow_the_stack() {
        for (depth, expected) in [(100, true), (100_000, false)] {
            let text = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
            assert_eq!(is_json(&text), expected);
        }
    }

    #[test]
    fn a_known_name_is_passed_only_where_it_stands_as_the_converter_writes_it() {
        for (text, name, expected) in [
            ("{\"a\":1}", "a", true),
            ("{\"ab\":1}", "a", false),
            ("{\"a\" :1}", "a", false),
            ("{ \"a\":1}", "a", false),
            ("{\"\":1}", "", true),
            ("{}", "a", false),
            ("{\"ä\":1}", "ä", true),
            ("{\"a", "a", false),
        ] {
            let mut scanner = Scanner::new(text);
            scanner.open(b'{').unwrap();
            let mut is_first = true;
            assert_eq!(scanner.member_is(name, &mut is_first), expected, "{text}");
            assert_eq!(is_first, !expected, "{text}");
            if expected {
                assert_eq!(scanner.skip(), Ok("1"));
                assert!(!scanner.member_is(name, &mut is_first));
                assert_eq!(scanner.member(&mut is_first), Ok(None));
            }
        }
    }

    proptest! {
        #[test]
        fn the_next_special_byte_is_found_wherever_it_stands(bytes in prop::collection::vec(any::<u8>(), 0..40), from in 0_usize..40) {
            let from = from.min(bytes.len());
            let plain = bytes[from..].iter().position(|byte| *byte < 0x20 || *byte == b'"' || *byte == b'\\');
            prop_assert_eq!(next_special(&bytes, from), plain.map_or(bytes.len(), |place| from + place));
        }

        #[test]
        fn damage_is_seen_exactly_where_a_parser_of_documents_sees_it(
            at in any::<prop::sample::Index>(), with in "[\\x00-\\x7f]{0,2}", cut in 0_usize..3
        ) {
            let whole = r#"{"a":{"b":[1,-2.5e3,"x\n\u00e4",null],"c":true},"d":"plain text that is long","e":{}}"#;
            let start = at.index(whole.len());
            let end = (start + cut).min(whole.len());
            let damaged = format!("{}{with}{}", &whole[..start], &whole[end..]);
            prop_assert_eq!(is_json(&damaged), serde_json::from_str::<IgnoredAny>(&damaged).is_ok(), "{}", damaged);
        }
    }
}
