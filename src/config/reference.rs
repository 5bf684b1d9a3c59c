//! The reference of all settings, which is also the example file: made from the code, so that it says what the code does.
//!
//! Prose and order stand in the tables below this module. Types and choices are what the deserialiser answers when it is asked
//! for the setting with a wrong value, defaults are those of [`Config`], ranges those that are checked, and the names of
//! variables are what is read.

mod connections;

mod engine;

mod waitlist;

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::load::OLDER_NAMES;
use super::ranges;
use super::setting::put;
use super::wording::{choices, mismatch, type_words, unit};
use super::{Config, load};

/// One section in the order of the reference.
pub(super) struct Section {
    /// As in `[name]`.
    name: &'static str,
    about: &'static str,
    settings: &'static [Described],
}

/// One setting of a section.
pub(super) struct Described {
    key: &'static str,
    about: &'static str,
    /// What it may look like, where it has no default; in TOML.
    example: Option<&'static str>,
}

/// One setting, as the reference tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// `section.key`; a section that is called after something has an example of a name.
    pub setting: String,
    /// What it is for.
    pub about: &'static str,
    /// What it takes, with unit and range.
    pub takes: String,
    /// Its default in TOML; none where it is not set by default.
    pub default: Option<String>,
    /// What it may look like, where it has no default; in TOML.
    pub example: Option<&'static str>,
    /// The variables that set it.
    pub variables: Vec<String>,
}

/// Columns of the file.
const WIDTH: usize = 120;

/// What the file begins with; the names of older deployments come after it.
const HEAD: &str = "\
# Every setting of afterwrite, with its default; `afterwrite config reference` prints this file. Copy what you change to
# afterwrite.toml, or name a file with --config. `afterwrite config check` says all that is wrong with it.
#
# What is set here is overridden by the environment (AFTERWRITE__KAFKA__BROKERS=…, two underscores between the parts)
# and that by --set kafka.brokers=…. Texts may contain ${env:NAME} and ${file:PATH}, so that secrets stay out of this
# file; $${ is a plain ${. Intervals are written 1h, 30m, 90s, or as seconds.
#
# Below what a setting is for stands what it takes, its default, and the variables that set it.
#
";

fn sections() -> impl Iterator<Item = &'static Section> {
    connections::SECTIONS
        .iter()
        .chain(&engine::SECTIONS)
        .chain(&waitlist::SECTIONS)
}

/// The commented file.
pub fn file() -> String {
    let mut text = HEAD.to_owned();
    let older: Vec<String> = OLDER_NAMES
        .iter()
        .map(|(name, setting)| format!("{name} ({setting})"))
        .collect();
    let names = format!(
        "These names of older deployments are read too, and AFTERWRITE__* beats them: {}. KAFKA_JOB_TOPIC is refused: topics \
         come from the connector.",
        older.join(", ")
    );
    text.push_str(&comment(&names, ""));
    for section in sections() {
        text.push('\n');
        text.push_str(&comment(section.about, ""));
        text.push_str(&format!("[{}]\n", section.name));
        for entry in entries_of(section) {
            let key = entry.setting[section.name.len() + 1..].to_owned();
            let key = match key.contains('.') {
                true => format!("{key:?}"),
                false => key,
            };
            text.push_str(&comment(entry.about, ""));
            text.push_str(&comment(&facts(&entry), "  "));
            let value = entry.default.as_deref().or(entry.example).unwrap_or_default();
            text.push_str(&format!("#{key} = {value}\n"));
        }
    }
    text
}

/// Every setting, in the order of the file.
pub fn entries() -> Vec<Entry> {
    sections().flat_map(entries_of).collect()
}

fn facts(entry: &Entry) -> String {
    let default = match &entry.default {
        Some(default) => format!("default {default}"),
        None => "not set by default".to_owned(),
    };
    format!("{}; {default}; {}", entry.takes, entry.variables.join(" or "))
}

fn entries_of(section: &'static Section) -> Vec<Entry> {
    let defaults = Table::try_from(Config::default()).expect("defaults can be written in TOML");
    let described = section.settings.iter();
    let entry = |described: &Described| {
        let setting = format!("{}.{}", section.name, described.key);
        Entry {
            about: described.about,
            takes: takes(section, described),
            default: default_of(&defaults, section.name, described.key),
            example: described.example,
            variables: variables(section, described.key),
            setting,
        }
    };
    described.map(entry).collect()
}

/// A default in TOML. What is never printed has its default in the table of the section's prose.
fn default_of(defaults: &Table, section: &str, key: &str) -> Option<String> {
    let found = section
        .split('.')
        .try_fold(defaults, |table, part| table.get(part)?.as_table())?;
    let value = found.get(key)?;
    match (section, key) {
        ("postgres", "url") => Some(format!("{:?}", Config::default().postgres.url.expose())),
        _ => Some(value.to_string()),
    }
}

fn variables(section: &Section, key: &str) -> Vec<String> {
    let setting = format!("{}.{key}", section.name);
    let path = format!("{}.{}", section.name.replace('.', "__"), key.replace('.', "_"));
    let ours = format!("{}{}", load::PREFIX, path.replace('.', "__").to_ascii_uppercase());
    let older = OLDER_NAMES
        .iter()
        .filter(|(_, of)| *of == setting)
        .map(|(name, _)| (*name).to_owned());
    std::iter::once(ours).chain(older).collect()
}

/// What a setting takes: asked of whoever reads it.
fn takes(section: &Section, described: &Described) -> String {
    if section.name == "kafka.properties" {
        return "a text, a number, true or false".to_owned();
    }
    let path: Vec<String> = section
        .name
        .split('.')
        .chain([described.key])
        .map(str::to_owned)
        .collect();
    let refused = |value: Value| {
        let mut alone = Table::new();
        put(&mut alone, &path, value);
        Config::deserialize(alone).err().map(|error| error.message().to_owned())
    };
    let text = refused(Value::String("\0".to_owned()));
    if let Some(known) = text.as_deref().and_then(choices) {
        return format!("one of {}", known.join(", "));
    }
    let Some(message) = refused(Value::Boolean(true)) else {
        return "true or false".to_owned();
    };
    let expected = mismatch(&message).map_or("a value of its own", |(_, expected)| expected);
    let setting = path.join(".");
    let range = ranges::of(&setting).map(|range| range.words());
    match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" | "i32" | "i64" => {
            let unit = unit(&setting).map(|unit| format!(" of {unit}")).unwrap_or_default();
            format!(
                "a whole number{unit}, {}",
                range.unwrap_or_else(|| "0 or more".to_owned())
            )
        }
        "f64" => format!("a number, {}", range.unwrap_or_else(|| "any".to_owned())),
        "a text" => "a text, which is never printed".to_owned(),
        "a string" => "a text".to_owned(),
        _ => type_words(expected).to_owned(),
    }
}

/// A text as lines of a comment.
fn comment(text: &str, indent: &str) -> String {
    let mut lines = String::new();
    let mut line = String::new();
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let is_full = line.chars().count() + indent.len() + word.chars().count() + 3 > WIDTH;
        if is_full && !line.is_empty() {
            lines.push_str(&format!("# {indent}{line}\n"));
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if !line.is_empty() {
        lines.push_str(&format!("# {indent}{line}\n"));
    }
    lines
}
