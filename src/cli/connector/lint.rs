//! What is wrong with the settings in a connector file. Asks nobody.

use serde::Serialize;

use super::file::Wanted;
use crate::cli::Failure;
use crate::cli::doctor::{expected, finding_in_words, verdict};
use crate::cli::output::Output;
use crate::cli::program::Program;
use crate::config::Config;
use crate::config::value::Secret;
use crate::doctor::finding::Finding;
use crate::doctor::lints::{is_of_source, of_file};

/// What was found.
#[derive(Debug, Serialize)]
struct Linted {
    connector: String,
    /// Whether it is of this source, so that what its handlers wait for counts.
    of_source: bool,
    findings: Vec<Finding>,
}

impl Linted {
    fn in_words(&self) -> String {
        let mut lines: Vec<String> = self.findings.iter().map(finding_in_words).collect();
        if self.findings.is_empty() {
            lines.push(format!("connector {}: nothing was found", self.connector));
        }
        if !self.of_source {
            lines.push(
                "its topic.prefix is not source.name: which tables handlers wait for, and what [source] says, was left out of account"
                    .to_owned(),
            );
        }
        lines.join("\n")
    }
}

/// Prints what is wrong with a file.
///
/// # Errors
/// Exit code 1 when there is an error among it, 4 when there are warnings only; it was printed then.
pub(super) fn lint(wanted: Wanted, config: &Config, program: &Program, output: Output) -> Result<(), Failure> {
    let mut config = config.clone();
    // Handlers want a key, and what they are called and read does not depend on it.
    let key = || Secret::new("a connector is linted without a key");
    config.waitlist.secret.get_or_insert_with(key);
    let expected = expected(None, &config, program)?;
    let linted = Linted {
        of_source: is_of_source(&wanted.config, &expected),
        findings: of_file(&wanted.name, &wanted.config, &expected),
        connector: wanted.name,
    };
    output.print(&linted, Linted::in_words)?;
    verdict(&linted.findings)
}
