//! What the escapes inside a JSON string stand for (RFC 8259, section 7).

use crate::decode::scan::{Broken, Quoted, Scanner, next_special};

impl Scanner<'_> {
    /// Passes a string and appends what it stands for; `false` when that is no text, such as half of a surrogate pair. Then
    /// it is passed in part only.
    pub(crate) fn append_string(&mut self, text: &mut String) -> Result<bool, Broken> {
        if self.byte() != Some(b'"') {
            return self.broken();
        }
        let bytes = self.text().as_bytes();
        let mut start = self.place() + 1;
        loop {
            let at = next_special(bytes, start);
            text.push_str(&self.text()[start..at]);
            self.move_to(at);
            match bytes.get(at) {
                Some(b'"') => {
                    self.move_to(at + 1);
                    return Ok(true);
                }
                Some(b'\\') => {
                    let escape = bytes.get(at + 1).copied().unwrap_or_default();
                    match PLAIN_ESCAPES[usize::from(escape)] {
                        0 if !self.append_unicode_escape(text)? => return Ok(false),
                        0 => start = self.place(),
                        plain => {
                            text.push(char::from(plain));
                            start = at + 2;
                        }
                    }
                }
                _ => return self.broken(),
            }
        }
    }

    /// An escape that is not plain, or none at all.
    fn append_unicode_escape(&mut self, text: &mut String) -> Result<bool, Broken> {
        let mut rest = &self.text()[self.place()..];
        match resolve(&mut rest) {
            Some(character) => text.push(character),
            None => {
                self.pass_escape()?;
                return Ok(false);
            }
        }
        self.move_to(self.text().len() - rest.len());
        Ok(true)
    }
}

impl Quoted<'_> {
    /// Appends what the string stands for; `false` when that is no text, such as half of a surrogate pair.
    pub(crate) fn append_to(&self, text: &mut String) -> bool {
        let mut rest = self.inner;
        while let Some(at) = rest.find('\\') {
            text.push_str(&rest[..at]);
            rest = &rest[at..];
            match resolve(&mut rest) {
                Some(character) => text.push(character),
                None => return false,
            }
        }
        text.push_str(rest);
        true
    }
}

/// Takes an escape and answers what it stands for; `None` when that is nothing, such as half of a surrogate pair.
pub(crate) fn resolve(rest: &mut &str) -> Option<char> {
    let escape = *rest.as_bytes().get(1)?;
    *rest = rest.get(2..)?;
    match PLAIN_ESCAPES[usize::from(escape)] {
        0 if escape == b'u' => unicode_escape(rest),
        0 => None,
        plain => Some(char::from(plain)),
    }
}

/// What a backslash and this character stand for, where that does not depend on what follows; 0 elsewhere.
const PLAIN_ESCAPES: [u8; 256] = {
    let mut plain = [0; 256];
    plain[b'"' as usize] = b'"';
    plain[b'\\' as usize] = b'\\';
    plain[b'/' as usize] = b'/';
    plain[b'n' as usize] = b'\n';
    plain[b't' as usize] = b'\t';
    plain[b'r' as usize] = b'\r';
    plain[b'b' as usize] = 8;
    plain[b'f' as usize] = 12;
    plain
};

/// Takes the digits after `\u`, and a whole second escape where the first is half of a pair.
fn unicode_escape(rest: &mut &str) -> Option<char> {
    let mut take = |count: usize| {
        let (taken, behind) = rest.split_at_checked(count)?;
        *rest = behind;
        Some(taken)
    };
    let unit = |hex: &str| {
        let is_hex = hex.bytes().all(|digit| digit.is_ascii_hexdigit());
        is_hex.then(|| u16::from_str_radix(hex, 16).ok()).flatten()
    };
    let first = unit(take(4)?)?;
    if !(0xd800..0xdc00).contains(&first) {
        return char::from_u32(u32::from(first));
    }
    let second = unit(take(6)?.strip_prefix("\\u")?)?;
    char::decode_utf16([first, second]).next()?.ok()
}

#[cfg(test)]
mod tests {
    use proptest::{prop_assert_eq, proptest};

    use crate::decode::scan::Scanner;

    proptest! {
        #[test]
        fn a_string_of_any_length_is_what_it_was(text in "[\\x00-\\x7fäß€🚀]{0,200}", behind in "[ -~]{0,9}") {
            let printed = serde_json::to_string(&text).unwrap();
            let whole = format!("{printed}{behind}");
            let mut scanner = Scanner::new(&whole);
            let mut appended = "before ".to_owned();
            prop_assert_eq!(scanner.append_string(&mut appended), Ok(true));
            prop_assert_eq!(appended, format!("before {text}"));
            prop_assert_eq!(scanner.place(), printed.len());
        }
    }

    #[test]
    fn escapes_are_resolved_as_a_parser_of_documents_does() {
        for inner in [
            r#"\" \\ \/ \b\f\n\r\t"#,
            r"line\nend\\",
            r"\u00e4\u20AC\u0000",
            r"\ud83d\ude80 and \uD83D\uDE80",
            r"\ud83d",
            r"\ud83dx",
            r"\ud83d\n",
            r"\ud83d\u0041",
            r"\ude80\ud83d",
            r"\u12",
            r"\u+123",
            r"\u12ä",
            r"\u12ä4",
            r"\x",
            r"\ä",
            "ä\\n🚀",
        ] {
            let document = serde_json::from_str::<String>(&format!("\"{inner}\"")).ok();
            let quoted = format!("\"{inner}\"");
            let mut text = String::new();
            let appended = Scanner::new(&quoted).append_string(&mut text);
            let appended = appended.is_ok_and(|is_text| is_text).then_some(text);
            assert_eq!(appended, document, "{inner}");
        }
    }
}
