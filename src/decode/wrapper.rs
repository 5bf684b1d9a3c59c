//! `{"schema":…,"payload":…}`, which Kafka's JSON converter puts around a value when schemas are enabled.

use crate::decode::scan::Scanner;

/// A wrapper, unread. Anything else, also with a third member, is not one: a flattened row may well have columns of these
/// names.
pub(crate) struct Wrapper<'a> {
    pub(crate) schema: &'a str,
    pub(crate) payload: &'a str,
}

impl<'a> Wrapper<'a> {
    /// `None` when the text is something else, or not JSON. A text that begins otherwise is not walked over for it.
    pub(crate) fn of(text: &'a str) -> Option<Self> {
        let members = text.strip_prefix('{')?.trim_ascii_start();
        if !(members.starts_with("\"schema\"") || members.starts_with("\"payload\"")) {
            return None;
        }
        let mut scanner = Scanner::new(text);
        scanner.open(b'{').ok()?;
        let (mut schema, mut payload) = (None, None);
        let mut is_first = true;
        while let Some(name) = scanner.member(&mut is_first).ok()? {
            let value = scanner.skip().ok()?;
            match name.inner {
                "schema" if schema.is_none() => schema = Some(value),
                "payload" if payload.is_none() => payload = Some(value),
                _ => return None,
            }
        }
        scanner.end().ok()?;
        let (schema, payload) = (schema?, payload?);
        (schema == "null" || is_schema(schema)).then_some(Self { schema, payload })
    }
}

/// Whether the text is an object with a `type`.
fn is_schema(text: &str) -> bool {
    let mut scanner = Scanner::new(text);
    let mut is_first = true;
    if scanner.open(b'{').is_err() {
        return false;
    }
    while let Ok(Some(name)) = scanner.member(&mut is_first) {
        if name.inner == "type" {
            return true;
        }
        if scanner.skip().is_err() {
            return false;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrapper_has_exactly_two_members_and_a_schema() {
        for (text, expected) in [
            (r#"{"schema":{"type":"struct"},"payload":{}}"#, true),
            (r#"{"payload":{},"schema":{"type":"struct"}}"#, true),
            (r#"{"schema":null,"payload":null}"#, true),
            (r#"{"schema":"public","payload":{}}"#, false),
            (r#"{"schema":{"type":"struct"},"payload":{},"id":1}"#, false),
            (r#"{"schema":{"kind":"struct"},"payload":{}}"#, false),
            (r#"{"schema":null}"#, false),
            ("[]", false),
            ("{", false),
        ] {
            assert_eq!(Wrapper::of(text).is_some(), expected, "{text}");
        }
    }
}
