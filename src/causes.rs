//! An error with its causes in one line, as logs, letters and commands say it.

use std::error::Error;

/// SQLSTATEs of data that Postgres cannot take. Its message quotes the datum; that of every other class quotes names.
const DATA_REFUSED: &str = "22";

/// The error and all its causes, down to the one that matters, each said once: some libraries repeat the cause in their own
/// text. What a row holds is not said: where Postgres quotes it, the quotation is left out.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let quotes_data = causes(error).any(refuses_data);
    let said = |error: &(dyn Error + 'static)| match quotes_data {
        true => without_quotations(&error.to_string()),
        false => error.to_string(),
    };
    let mut text = said(error);
    let mut next = error.source();
    while let Some(cause) = next {
        let said = said(cause);
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        next = cause.source();
    }
    text
}

/// The error and its causes.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| (*error).source())
}

fn refuses_data(error: &(dyn Error + 'static)) -> bool {
    let database = error
        .downcast_ref::<sqlx::Error>()
        .and_then(sqlx::Error::as_database_error);
    let code = database.and_then(|database| database.code());
    code.is_some_and(|code| code.starts_with(DATA_REFUSED))
}

/// The text with `…` for whatever stands in double quotes; a quotation may hold quotes itself, so all between the first and
/// the last is left out.
fn without_quotations(text: &str) -> String {
    match (text.find('"'), text.rfind('"')) {
        (Some(first), Some(last)) if first < last => format!("{}…{}", &text[..=first], &text[last..]),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quoted_is_left_out() {
        for (text, expected) in [
            (
                "invalid input syntax for type integer: \"a\"b\"",
                "invalid input syntax for type integer: \"…\"",
            ),
            (
                "value \"9\" is out of range for type integer",
                "value \"…\" is out of range for type integer",
            ),
            ("division by zero", "division by zero"),
            ("one \" alone", "one \" alone"),
        ] {
            assert_eq!(without_quotations(text), expected);
        }
    }

    #[test]
    fn a_cause_is_said_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer failed")]
        struct Outer(#[source] Middle);
        #[derive(Debug, thiserror::Error)]
        #[error("middle failed: inner failed")]
        struct Middle(#[source] Inner);
        #[derive(Debug, thiserror::Error)]
        #[error("inner failed")]
        struct Inner;
        assert_eq!(
            chain(&Outer(Middle(Inner))),
            "outer failed: middle failed: inner failed"
        );
    }
}
