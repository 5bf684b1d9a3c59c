//! Reading the files of the repository that these tests compare.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

/// The connectors of this repository.
pub(crate) const CONNECTORS: [&str; 2] = ["connectors/waitlist.json", "connectors/waitlist-avro.json"];

pub(crate) fn read(path: &str) -> String {
    let absolute = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&absolute).unwrap_or_else(|error| panic!("{}: {error}", absolute.display()))
}

pub(crate) fn json(path: &str) -> Value {
    serde_json::from_str(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

pub(crate) fn texts(value: &Value) -> Vec<String> {
    value
        .as_array()
        .unwrap_or_else(|| panic!("no list: {value}"))
        .iter()
        .map(|item| text(item).to_owned())
        .collect()
}

pub(crate) fn names(words: &[&str]) -> BTreeSet<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// The text between two marks, without them.
pub(crate) fn between<'a>(haystack: &'a str, start: &str, end: &str) -> &'a str {
    let (_, rest) = haystack
        .split_once(start)
        .unwrap_or_else(|| panic!("{start:?} is missing"));
    rest.split_once(end)
        .unwrap_or_else(|| panic!("nothing ends {start:?} with {end:?}"))
        .0
}
