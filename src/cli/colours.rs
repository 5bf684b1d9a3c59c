//! Colours on a terminal, and texts that come from elsewhere made harmless for it.

use std::borrow::Cow;
use std::io::{self, IsTerminal};

use clap::builder::styling::{AnsiColor, Style};
use clap::{Args, ValueEnum};

use crate::cli::output::Output;

/// When to use colours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum When {
    /// On a terminal, unless NO_COLOR is set (https://no-color.org)
    #[default]
    Auto,
    Always,
    Never,
}

/// The argument that says when to use colours.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(super) struct WhenColours {
    /// Whether to use colours
    #[arg(
        long = "color",
        visible_alias = "colour",
        value_enum,
        value_name = "WHEN",
        default_value_t
    )]
    when: When,
}

impl WhenColours {
    /// What that means for this output. JSON has no colours.
    pub(super) fn here(self, output: Output) -> Colours {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        self.decide(output, io::stdout().is_terminal(), unwanted)
    }

    fn decide(self, output: Output, is_terminal: bool, unwanted: bool) -> Colours {
        Colours(
            output == Output::Table
                && match self.when {
                    When::Auto => is_terminal && !unwanted,
                    When::Always => true,
                    When::Never => false,
                },
        )
    }
}

/// Whether there are colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Colours(pub(super) bool);

/// What a piece of text is, which decides how it looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// Times, places, what is not there.
    Aside,
    /// What a line is known by.
    Id,
    /// A name: a table, a column, a handler.
    Name,
    Good,
    Changed,
    Bad,
}

impl Colours {
    /// The text as it looks. It must be harmless already: see [`printable`].
    pub(super) fn paint(self, look: Look, text: &str) -> String {
        if !self.0 {
            return text.to_owned();
        }
        let style = match look {
            Look::Aside => Style::new().dimmed(),
            Look::Id => Style::new().bold(),
            Look::Name => AnsiColor::Cyan.on_default(),
            Look::Good => AnsiColor::Green.on_default(),
            Look::Changed => AnsiColor::Yellow.on_default(),
            Look::Bad => AnsiColor::Red.on_default(),
        };
        format!("{style}{text}{style:#}")
    }
}

/// A text in which nothing moves the cursor, changes colours or ends the line: control characters, also those from U+0080 to
/// U+009F that some terminals obey, are written as JSON has them. Whoever may write a row could else write to the terminal
/// of its reader.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut harmless = String::with_capacity(text.len() + 8);
    for letter in text.chars() {
        match letter.is_control() {
            true => harmless.push_str(&format!("\\u{:04x}", u32::from(letter))),
            false => harmless.push(letter),
        }
    }
    Cow::Owned(harmless)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_terminals_of_those_who_want_them() {
        for (when, output, is_terminal, unwanted, expected) in [
            (When::Auto, Output::Table, true, false, true),
            (When::Auto, Output::Table, false, false, false),
            (When::Auto, Output::Table, true, true, false),
            (When::Always, Output::Table, false, true, true),
            (When::Never, Output::Table, true, false, false),
            (When::Always, Output::Json, true, false, false),
        ] {
            let decided = WhenColours { when }.decide(output, is_terminal, unwanted);
            assert_eq!(decided, Colours(expected), "{when:?} {output:?}");
        }
        assert_eq!(Colours(true).paint(Look::Bad, "x"), "\u{1b}[31mx\u{1b}[0m");
        assert_eq!(Colours(false).paint(Look::Bad, "x"), "x");
    }

    #[test]
    fn nothing_of_a_text_reaches_the_terminal_as_a_command() {
        assert_eq!(
            printable("a\u{1b}[2J\u{9b}b\r\nü"),
            "a\\u001b[2J\\u009bb\\u000d\\u000aü"
        );
        assert!(matches!(printable("plain ü"), Cow::Borrowed(_)));
    }
}
