//! Records that broke other consumers of Debezium, each with what must become of it.
//!
//! The list is that of [docs/DEBEZIUM.md](../../docs/DEBEZIUM.md); a test's name begins with the number there. What only a
//! real connector, broker or database can show has its test in `tests/it/torture.rs`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod encode;
mod records;

#[cfg(test)]
#[path = "../captures/mod.rs"]
mod captures;

mod avro;
mod captured;
mod framing;
mod identity;
mod modes;
mod values;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The files below a folder of this repository.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] })
        .collect()
}

#[test]
fn every_record_of_the_list_has_its_test() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let list = std::fs::read_to_string(repository.join("docs/DEBEZIUM.md")).unwrap();
    let (_, section) = list.split_once("## Records that broke others\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let texts: Vec<String> = files(&repository.join("tests"))
        .iter()
        .filter(|path| path.extension().is_some_and(|kind| kind == "rs"))
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    let is_test = |name: &str| {
        let declared = format!("fn {name}()");
        texts.iter().any(|text| text.contains(&declared))
    };
    let mut numbers = BTreeSet::new();
    for line in section.lines().filter(|line| line.starts_with("| ")).skip(1) {
        let cells: Vec<&str> = line.split(" | ").collect();
        let number: usize = cells[0].trim_start_matches("| ").parse().unwrap();
        let tests: Vec<&str> = cells[3].split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "{line}");
        for test in tests {
            assert!(is_test(test), "{number}: there is no test {test}");
        }
        numbers.insert(number);
    }
    assert!(numbers.into_iter().eq(1..=75));
}
