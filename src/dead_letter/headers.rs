//! The headers of a dead letter: the original ones byte for byte, and ours, which say what failed, where and why.
//!
//! The names `__connect.errors.*` are those of Kafka Connect's own dead letters (KIP-298), because existing tools read
//! them.

use bytes::Bytes;

use crate::engine::letter::Letter;

/// Prefix of our headers.
pub const PREFIX: &str = "afterwrite.";

/// Prefix of the headers other tools read.
pub const CONNECT_PREFIX: &str = "__connect.errors.";

/// A header: its name and its bytes.
pub type Header = (String, Option<Bytes>);

/// The headers of the letter's record: the original ones in their order without any of ours, then ours, with the error's
/// text as far as it is kept ([`cut`]).
pub fn of(letter: &Letter, error: &str) -> Vec<Header> {
    let table = letter
        .event
        .as_ref()
        .map(|event| format!("{}.{}", event.origin().schema, event.origin().table));
    let event_id = letter
        .event
        .as_ref()
        .and_then(|event| event.id())
        .map(|id| id.to_string());
    let class = letter.class.as_str();
    let ours = [
        ("afterwrite.letter_id", Some(letter.id())),
        ("afterwrite.handler", Some(letter.handler.to_string())),
        ("afterwrite.event_id", event_id),
        ("afterwrite.table", table),
        ("afterwrite.class", Some(class.to_owned())),
        ("afterwrite.error", Some(error.to_owned())),
        ("afterwrite.attempts", Some(letter.attempts.to_string())),
        ("afterwrite.first_failed_at", Some(letter.first_failed_at.to_rfc3339())),
        ("afterwrite.failed_at", Some(letter.failed_at.to_rfc3339())),
        ("afterwrite.replays", Some(letter.replays.to_string())),
        ("__connect.errors.topic", Some(letter.partition.topic.to_string())),
        (
            "__connect.errors.partition",
            Some(letter.partition.partition.to_string()),
        ),
        ("__connect.errors.offset", Some(letter.position.0.to_string())),
        (
            "__connect.errors.exception.class.name",
            Some(format!("afterwrite.{class}")),
        ),
        ("__connect.errors.exception.message", Some(error.to_owned())),
    ];
    let added = ours
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), Some(Bytes::from(value?)))));
    original(&letter.raw.headers).into_iter().chain(added).collect()
}

/// The headers the source's record had: without those a letter adds, so that they never pile up.
pub fn original(headers: &[Header]) -> Vec<Header> {
    headers.iter().filter(|(name, _)| !is_ours(name)).cloned().collect()
}

/// The text of one header.
pub fn text<'a>(headers: &'a [Header], name: &str) -> Option<&'a str> {
    let (_, value) = headers.iter().rev().find(|(known, _)| known == name)?;
    std::str::from_utf8(value.as_ref()?).ok()
}

/// Whether a letter adds this header.
pub fn is_ours(name: &str) -> bool {
    name.starts_with(PREFIX) || name.starts_with(CONNECT_PREFIX)
}

/// The beginning of a long text, and how long it was.
pub fn cut(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let end = (0..=bytes_max)
        .rev()
        .find(|end| text.is_char_boundary(*end))
        .unwrap_or(0);
    format!("{}… ({} bytes in all)", &text[..end], text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn original_headers_survive_and_ours_never_pile_up() {
        let header = |name: &str, value: &'static [u8]| (name.to_owned(), Some(Bytes::from_static(value)));
        let mixed = [
            header("trace", b"\xff\x00"),
            header("afterwrite.error", b"old"),
            ("empty".to_owned(), None),
        ];
        assert_eq!(original(&mixed), [mixed[0].clone(), mixed[2].clone()]);
    }

    #[test]
    fn a_long_error_is_cut_at_a_character() {
        assert_eq!(
            cut(&"é".repeat(100), 65),
            format!("{}… (200 bytes in all)", "é".repeat(32))
        );
        assert_eq!(cut("short", 10), "short");
    }
}
