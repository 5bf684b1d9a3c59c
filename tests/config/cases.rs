//! What is said of wrong configurations, word by word: the cases and the expected texts stand in files for people.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::process::Output;

use serde_json::Value;

use crate::{Folder, in_repository, text};

pub(crate) const REFUSED: &str = "tests/config/refused.txt";
const WARNED: &str = "tests/config/warned.txt";

/// One configuration, and what is to be said of it.
struct Case {
    name: String,
    /// What stands under each `---`, in order.
    parts: Vec<(String, String)>,
}

impl Case {
    fn part(&self, name: &str) -> &str {
        let found = self.parts.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, text)| text)
    }

    /// Runs `config check` on it.
    fn checked(&self, arguments: &[&str]) -> Output {
        let folder = Folder::new();
        let mut command = folder.afterwrite();
        for (part, written) in &self.parts {
            match part.split_once(' ').unwrap_or((part, "")) {
                ("file", _) => folder.write("afterwrite.toml", &bytes(written)),
                ("also", name) => folder.write(name, &bytes(written)),
                ("folder", name) => std::fs::create_dir(folder.0.join(name)).unwrap(),
                ("environment", _) => {
                    for line in written.lines() {
                        let (name, value) = line.split_once('=').unwrap();
                        command.env(name, OsString::from_vec(bytes(value)));
                    }
                }
                ("arguments", _) => drop(command.args(written.lines())),
                ("said", _) => {}
                unknown => panic!("{}: there is no part {unknown:?}", self.name),
            }
        }
        command.args(["config", "check"]).args(arguments).output().unwrap()
    }
}

/// `\xff` is one byte.
fn bytes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\\x") {
        bytes.extend_from_slice(before.as_bytes());
        match after.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => bytes.push(byte),
            None => panic!("\\x without two digits: {text}"),
        }
        rest = &after[2..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

/// The head of a file of cases, and the cases.
fn read(path: &str) -> (String, Vec<Case>) {
    let text = std::fs::read_to_string(in_repository(path)).unwrap();
    let mut blocks = text.split("\n=== ");
    let head = blocks.next().unwrap_or_default().to_owned();
    let cases = blocks.map(|block| {
        let mut parts = block.split("\n--- ");
        Case {
            name: parts.next().unwrap_or_default().trim().to_owned(),
            parts: parts
                .map(|part| {
                    let (name, text) = part.split_once('\n').unwrap_or((part, ""));
                    (name.to_owned(), text.trim_end_matches('\n').to_owned())
                })
                .collect(),
        }
    });
    (head, cases.collect())
}

/// Compares what is said of each case, or writes it anew with `UPDATE_CONFIG=1`.
fn check(path: &str, expected_code: i32, shown: fn(&str) -> bool) -> usize {
    let (head, cases) = read(path);
    let is_update = std::env::var_os("UPDATE_CONFIG").is_some();
    let (mut written, mut wrong) = (format!("{}\n", head.trim_end()), Vec::new());
    for case in &cases {
        let output = case.checked(&[]);
        let code = output.status.code();
        let said: Vec<String> = text(&output.stdout)
            .lines()
            .filter(|line| shown(line))
            .map(str::to_owned)
            .collect();
        let said = said.join("\n");
        if code != Some(expected_code) {
            wrong.push(format!(
                "{}: exit code {code:?}: {said}{}",
                case.name,
                text(&output.stderr)
            ));
        } else if said != case.part("said") && !is_update {
            wrong.push(format!("{}:\n{said}\nis not\n{}", case.name, case.part("said")));
        }
        written.push_str(&format!("\n=== {}\n", case.name));
        for (name, text) in case.parts.iter().filter(|(name, _)| name != "said") {
            written.push_str(&format!("--- {name}\n"));
            written.push_str(&if text.is_empty() {
                String::new()
            } else {
                format!("{text}\n")
            });
        }
        written.push_str(&format!("--- said\n{said}\n"));
    }
    if is_update {
        std::fs::write(in_repository(path), written).unwrap();
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n\n")
    );
    cases.len()
}

#[test]
fn every_wrong_configuration_is_refused_as_it_is_written_down() {
    // What is said about defaults is the same for all.
    let cases = check(REFUSED, 2, |line| !line.starts_with("warning: "));
    assert!(cases >= 60, "only {cases}");
}

#[test]
fn what_is_probably_not_meant_is_warned_about_as_it_is_written_down() {
    check(WARNED, 0, |_| true);
}

#[test]
fn every_refusal_has_a_place_a_reason_and_a_remedy() {
    let mut refusals = 0;
    for case in read(REFUSED).1 {
        let output = case.checked(&["--output", "json"]);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["ok"], false, "{}", case.name);
        for refusal in report["refusals"].as_array().unwrap() {
            refusals += 1;
            let has = |key: &str| refusal[key].as_str().is_some_and(|text| !text.is_empty());
            assert!(has("reason") && has("remedy"), "{}: {refusal}", case.name);
            let place = &refusal["place"];
            let is_placed = match place["kind"].as_str() {
                // Only a file as a whole has no line.
                Some("file") => place["file"].is_string() && (place["line"].is_u64() || refusal["setting"] == ""),
                Some("environment") => place["variable"].is_string(),
                Some("flag") => true,
                // What nobody set can only be missing.
                Some("default") => refusal["reason"]
                    .as_str()
                    .is_some_and(|reason| reason.contains("not set")),
                _ => false,
            };
            assert!(is_placed, "{}: {refusal}", case.name);
        }
    }
    assert!(refusals > 150, "only {refusals}");
}

#[test]
fn a_worker_refuses_to_start_with_the_same_words() {
    let (_, cases) = read(REFUSED);
    let case = cases
        .iter()
        .find(|case| case.name == "a handler that is called after nothing")
        .unwrap();
    let folder = Folder::new();
    folder.write("afterwrite.toml", case.part("file").as_bytes());
    let output = folder.afterwrite().arg("run").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    assert!(said.contains(case.part("said")), "{said}");
}
