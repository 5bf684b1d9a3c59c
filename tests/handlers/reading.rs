//! Mails as their readers see them.

use mail_parser::MessageParser;

/// One part of a mail, decoded.
pub(crate) fn part_of(mail: &str, part: Part) -> String {
    let parsed = MessageParser::default().parse(mail.as_bytes()).expect("a mail");
    let found = match part {
        Part::Html => parsed.body_html(0),
        Part::Text => parsed.body_text(0),
    };
    found.expect("a part of this kind").replace("\r\n", "\n")
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Part {
    Html,
    Text,
}
