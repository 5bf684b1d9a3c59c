//! An error with its causes in one line, as logs, letters and commands say it.

use std::error::Error;

/// The error and all its causes, down to the one that matters, each said once: some libraries repeat the cause in their own
/// text.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

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
