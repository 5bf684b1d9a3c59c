//! What the escapes inside a JSON string stand for (RFC 8259, section 7).

use crate::decode::scan::Quoted;

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
    let plain = match escape {
        b'"' | b'\\' | b'/' => char::from(escape),
        b'n' => '\n',
        b't' => '\t',
        b'r' => '\r',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'u' => {
            *rest = rest.get(2..)?;
            return unicode_escape(rest);
        }
        _ => return None,
    };
    *rest = rest.get(2..)?;
    Some(plain)
}

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
    use crate::decode::scan::Scanner;

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
