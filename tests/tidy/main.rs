//! What every source file must keep to: who may import whom, how long a file may be, what must not be left behind.
//!
//! A rule that a test can check is not written down anywhere else. Each rule is a pure function of a file's path and
//! text, stands in `rules.rs` (that of the routing table in `routing.rs`) beside its reason, and is shown to fail in `proofs.rs`. No services are needed.

mod rules;

mod settings;

mod codes;
mod fields;

mod documents;

mod routing;

mod reading;

mod proofs;

use std::fs;
use std::path::Path;

use self::codes::unequal_codes;
use self::documents::{
    COMMANDS, FAILURES, OPERATIONS, absent_commands, absent_files, absent_tests, broken_links, commands,
    unexplained_errors,
};
use self::fields::strange_fields;
use self::reading::{documents, root, rust_files};
use self::routing::unrouted_handlers;
use self::rules::{RULES, dead_files, rules_about_nothing};
use self::settings::unread_settings;

#[test]
fn every_source_file_is_tidy() {
    let files = rust_files(&["src", "tests", "examples", "benches"]);
    assert!(files.len() > 50, "only {} files were found", files.len());
    let mut offences: Vec<String> = files
        .iter()
        .flat_map(|file| RULES.iter().flat_map(|rule| rule(file)))
        .collect();
    offences.extend(dead_files(&files));
    offences.extend(unread_settings(&files));
    offences.extend(strange_fields(&files));
    offences.extend(rules_about_nothing(&files));
    offences.extend(unrouted_handlers(&files));
    assert!(offences.is_empty(), "\n{}\n", offences.join("\n"));
}

#[test]
fn every_known_failure_has_its_test() {
    let read = |path: &str| fs::read_to_string(root().join(path)).expect("a listed file can be read");
    let (rows, absent) = absent_tests(&read(FAILURES), |path| read(&format!("docs/{path}")));
    assert_eq!(rows, 22, "each known failure has a line with a test");
    assert!(absent.is_empty(), "{absent:?}");
}

#[test]
fn every_code_is_explained_and_nothing_else_is() {
    let unequal = unequal_codes(|path| fs::read_to_string(root().join(path)).expect("a listed file can be read"));
    assert!(unequal.is_empty(), "\n{}\n", unequal.join("\n"));
}

#[test]
fn what_the_documents_name_is_there() {
    let read = |path: &str| fs::read_to_string(root().join(path)).expect("a listed file can be read");
    let exists = |path: &Path| root().join(path).exists();
    let commands = commands(&read(COMMANDS));
    assert!(commands.len() > 5, "only {commands:?} were found");
    let mut offences = Vec::new();
    for path in documents() {
        let text = read(&path);
        offences.extend(broken_links(&path, &text, exists));
        offences.extend(absent_files(&path, &text, exists));
        offences.extend(absent_commands(&path, &text, &commands));
    }
    let operations = read(OPERATIONS);
    let sources = rust_files(&["src"]);
    offences.extend(sources.iter().flat_map(|file| unexplained_errors(file, &operations)));
    assert!(offences.is_empty(), "\n{}\n", offences.join("\n"));
}
