//! What every source file must keep to: who may import whom, how long a file may be, what must not be left behind.
//!
//! A rule that a test can check is not written down anywhere else. Each rule is a pure function of a file's path and
//! text, stands in `rules.rs` beside its reason, and is shown to fail in `proofs.rs`. No services are needed.

mod rules;

mod settings;

mod reading;

mod proofs;

use std::fs;
use std::path::Path;

use self::reading::{documents, links, root, rust_files};
use self::rules::{RULES, dead_files};
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
    assert!(offences.is_empty(), "\n{}\n", offences.join("\n"));
}

#[test]
fn every_link_in_the_documents_leads_somewhere() {
    let mut offences = Vec::new();
    for path in documents() {
        let text = fs::read_to_string(root().join(&path)).unwrap();
        let folder = Path::new(&path).parent().unwrap().to_owned();
        for link in links(&text) {
            if !root().join(&folder).join(link).exists() {
                offences.push(format!("{path}: the link to {link} leads nowhere"));
            }
        }
    }
    assert!(offences.is_empty(), "\n{}\n", offences.join("\n"));
}
