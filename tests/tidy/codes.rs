//! Every word by which the program says what went wrong is explained in a table of the documents, and a table explains no
//! word that the program does not say.
//!
//! What the doctor finds and the alerts have tests of their own, beside their lists.

use std::collections::BTreeSet;

/// Where a table is, and where its words come from.
struct List {
    document: &'static str,
    heading: &'static str,
    /// Files with, in each, what the words stand behind.
    said: &'static [Said],
}

/// Words of one file.
struct Said {
    file: &'static str,
    /// The item that they are in, from this text to the end of its braces; all of the file when it is empty.
    within: &'static str,
    /// What stands before each.
    before: &'static [&'static str],
    /// What stands behind each.
    behind: &'static str,
}

const QUOTE: &str = "\"";

const fn arms(file: &'static str, within: &'static str) -> Said {
    Said {
        file,
        within,
        before: &["=> \""],
        behind: QUOTE,
    }
}

/// Each list of codes.
const LISTS: [List; 9] = [
    List {
        document: "docs/ERRORS.md",
        heading: "## Exit codes",
        said: &[
            // Of success it is said by the help only.
            Said {
                file: "src/cli/mod.rs",
                within: "",
                before: &["Exit codes: "],
                behind: " ",
            },
            Said {
                file: "src/cli/mod.rs",
                within: "pub fn exit_code(",
                before: &["(_) => "],
                behind: ",",
            },
        ],
    },
    List {
        document: "docs/ERRORS.md",
        heading: "## How attempts end",
        said: &[arms("src/engine/retry.rs", "impl Finish {")],
    },
    List {
        document: "docs/ERRORS.md",
        heading: "## Classes of dead letters",
        said: &[arms("src/engine/retry.rs", "impl Class {")],
    },
    List {
        document: "docs/OPERATIONS.md",
        heading: "## Dead letters",
        said: &[arms("src/engine/retry.rs", "impl Class {")],
    },
    List {
        document: "docs/ERRORS.md",
        heading: "## States of dead letters",
        said: &[Said {
            file: "src/dead_letter/state.rs",
            within: "",
            before: &[
                "pub const OPEN: &str = \"",
                "pub const PARKED: &str = \"",
                "[OPEN, PARKED, \"",
                "\"replaying\", \"",
                "\"replayed\", \"",
            ],
            behind: QUOTE,
        }],
    },
    List {
        document: "docs/ERRORS.md",
        heading: "## Records that wake nobody",
        said: &[arms("src/event/delivery.rs", "impl SkipReason {")],
    },
    List {
        document: "docs/ERRORS.md",
        heading: "## Partitions that are stopped",
        said: &[Said {
            file: "src/groups/partition.rs",
            within: "pub enum Stopped {",
            before: &["\n    "],
            behind: " {",
        }],
    },
    List {
        document: "docs/ERRORS.md",
        heading: "## Why a handler is suspended",
        said: &[arms("src/engine/suspend.rs", "impl Cause {")],
    },
    List {
        document: "docs/ERRORS.md",
        heading: "## Rewards that were not delivered",
        said: &[
            Said {
                file: "src/handlers/reward/deliver.rs",
                within: "",
                before: &["fail(context, &row, \""],
                behind: QUOTE,
            },
            Said {
                file: "src/handlers/reward/retry.rs",
                within: "",
                before: &["fail(due, &row, \"", "fail(due, row, \""],
                behind: QUOTE,
            },
            Said {
                file: "src/handlers/email/mod.rs",
                within: "async fn record_failure(",
                before: &["effect_key, \""],
                behind: QUOTE,
            },
        ],
    },
];

/// Reasons for which no mail is sent: a line of the table has several.
const MAILS: List = List {
    document: "docs/MAILS.md",
    heading: "## Which mail, and when",
    said: &[
        Said {
            file: "src/handlers/email/rules.rs",
            within: "pub fn obstacle(",
            before: &["=> Some(\"", "return Some(\""],
            behind: QUOTE,
        },
        Said {
            file: "src/handlers/email/rules.rs",
            within: "",
            before: &["const NO_WAY_OUT: &str = \""],
            behind: QUOTE,
        },
        Said {
            file: "src/handlers/email/compose.rs",
            within: "",
            before: &["skip(\"", "skip(facts, \"", "Ok(Err(\""],
            behind: QUOTE,
        },
        Said {
            file: "src/handlers/email/left.rs",
            within: "",
            before: &["const SUPERSEDED: &str = \""],
            behind: QUOTE,
        },
        Said {
            file: "src/handlers/email/mod.rs",
            within: "",
            before: &["account(\"skipped\", Some(\""],
            behind: QUOTE,
        },
        Said {
            file: "src/handlers/erasure.rs",
            within: "",
            before: &["const ERASED: &str = \""],
            behind: QUOTE,
        },
    ],
};

/// What is said and not explained, and explained and not said, of all lists.
pub(crate) fn unequal_codes(read: impl Fn(&str) -> String) -> Vec<String> {
    let mut unequal = Vec::new();
    for list in LISTS.iter().chain([&MAILS]) {
        let section = section(&read(list.document), list.heading);
        let explained = explained(&section, list.document == MAILS.document);
        let said: BTreeSet<String> = list
            .said
            .iter()
            .flat_map(|said| words(said, &read(said.file)))
            .collect();
        let place = format!("{} {:?}", list.document, list.heading);
        if said.len() < 3 {
            unequal.push(format!("{place}: only {said:?} were found in the source"));
        }
        unequal.extend(
            said.difference(&explained)
                .map(|word| format!("{place}: {word} is missing")),
        );
        unequal.extend(
            explained
                .difference(&said)
                .map(|word| format!("{place}: {word} is said by nobody")),
        );
    }
    unequal
}

/// The text from a heading to the next of its level.
fn section(text: &str, heading: &str) -> String {
    let after = text.split_once(&format!("{heading}\n")).map_or("", |(_, after)| after);
    after.split("\n## ").next().unwrap_or_default().to_owned()
}

/// The words between backticks in the first column of the last table whose first column has nothing else.
fn explained(section: &str, is_of_reasons: bool) -> BTreeSet<String> {
    let wanted = if is_of_reasons { "| reason |" } else { "| " };
    let table = match section.split_once(wanted) {
        Some((_, rest)) => rest,
        None => "",
    };
    let rows = table.lines().skip(1).take_while(|line| line.starts_with('|'));
    rows.filter_map(|row| row.strip_prefix("| `")?.split(" | ").next())
        .flat_map(|cell| cell.split('`').step_by(2))
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The words of one file; the names of variants as they are written for programs.
fn words(said: &Said, text: &str) -> BTreeSet<String> {
    let within = match text.split_once(said.within) {
        Some((_, rest)) => rest.split("\n}\n").next().unwrap_or_default(),
        None => "",
    };
    let code = if said.within.is_empty() { text } else { within };
    let code = code.split("#[cfg(test)]").next().unwrap_or_default();
    let found = said.before.iter().flat_map(|before| {
        let after = code.match_indices(before).map(|(at, _)| &code[at + before.len()..]);
        after.filter_map(|rest| rest.split(|character| said.behind.contains(character)).next())
    });
    found
        .filter(|word| word.starts_with(|first: char| first.is_ascii_alphanumeric()))
        .map(snake)
        .collect()
}

fn snake(word: &str) -> String {
    if !word.starts_with(|first: char| first.is_ascii_uppercase()) {
        return word.to_owned();
    }
    let mut snake = String::new();
    for character in word.chars() {
        if character.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(character.to_ascii_lowercase());
    }
    snake
}
