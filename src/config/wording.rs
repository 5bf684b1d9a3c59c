//! A deserialiser's messages in words for people, and without the values that they quote.

use super::refusal::{Wrong, nearest};

/// What a value of this type is called, and an example where its form is not plain.
const TYPES: [(&str, &str); 13] = [
    ("u16", "a whole number from 0 to 65535"),
    ("u32", "a whole number from 0 to 4294967295"),
    ("u64", "a whole number, 0 or more"),
    ("usize", "a whole number, 0 or more"),
    ("i32", "a whole number"),
    ("i64", "a whole number"),
    ("f64", "a number"),
    ("a boolean", "true or false"),
    ("a string", "a text in quotes"),
    ("a text", "a text in quotes"),
    ("string only", "a text in quotes"),
    ("a sequence", "a list such as [\"a\", \"b\"]"),
    ("a map", "a section of its own"),
];

/// What a value is, by the word that a deserialiser has for it.
const KINDS: [(&str, &str); 6] = [
    ("string", "a text"),
    ("integer", "a whole number"),
    ("floating point", "a number with a fraction"),
    ("boolean", "true or false"),
    ("sequence", "a list"),
    ("map", "a section"),
];

/// Puts a deserialiser's message about the single setting at `path` into words.
pub(super) fn explain(path: &[String], message: &str) -> Wrong {
    let whole = path.join(".");
    if let Some((unknown, known)) = unknown_name(message) {
        if let Some(index) = path.iter().position(|segment| *segment == unknown) {
            let (parent, is_choice) = (&path[..index], message.starts_with("unknown variant"));
            // Names of checks are keys; every other choice is a value, and a section stands in its place.
            if is_choice && parent.last().is_none_or(|parent| parent != "checks") {
                let remedy = format!("write one of {}", known.join(", "));
                return Wrong::new(parent.join("."), "this is a section", remedy);
            }
            return not_a_setting(parent, &unknown, &known);
        }
        if message.starts_with("unknown variant") {
            return none_of(whole, &unknown, &known);
        }
        return not_a_setting(path, &unknown, &known);
    }
    if let Some((value, known)) = refused_choice(message) {
        return none_of(whole, value, &known);
    }
    if let Some((found, expected)) = mismatch(message) {
        let remedy = match (unit(&whole), expected.starts_with('u') && found == "a text") {
            (Some(unit), true) => format!("write {unit} as a number, without a unit and without quotes"),
            _ => format!("write {}", type_words(expected)),
        };
        let reason = match found {
            "a whole number" if remedy.starts_with("write a whole number") => {
                "this number is too small or too large".to_owned()
            }
            found => format!("this is {found}"),
        };
        return Wrong::new(whole, reason, remedy);
    }
    match message.rsplit_once("; ").filter(|_| is_our_own(message)) {
        Some((reason, remedy)) => Wrong::new(whole, reason, remedy),
        None => Wrong::new(
            whole,
            "it cannot be used",
            "see `afterwrite config reference` for what it takes",
        ),
    }
}

/// The message of a deserialiser whose settings are not known here, without the values that it may quote.
pub fn without_values(message: &str) -> String {
    if let Some((found, expected)) = mismatch(message) {
        return format!("a value is {found}; write {}", type_words(expected));
    }
    if let Some((_, known)) = unknown_name(message).filter(|_| message.starts_with("unknown variant")) {
        return format!("a value is none of {}", known.join(", "));
    }
    // Names of fields are no values.
    match ["missing field", "unknown field", "duplicate field"]
        .iter()
        .any(|known| message.starts_with(known))
    {
        true => message.to_owned(),
        false => "a value cannot be used".to_owned(),
    }
}

/// What a value of this type is called where it is described.
pub(super) fn type_words(expected: &str) -> &str {
    let known = TYPES.iter().find(|(name, _)| *name == expected);
    match known {
        Some((_, words)) => words,
        None if expected.starts_with("struct ") => "a section of its own",
        None => expected,
    }
}

/// What the deserialiser found and what it expected; the value between them is left out.
pub(super) fn mismatch(message: &str) -> Option<(&'static str, &str)> {
    let rest = ["invalid type: ", "invalid value: "]
        .iter()
        .find_map(|start| message.strip_prefix(start))?;
    let (found, expected) = rest.rsplit_once(", expected ")?;
    let words = KINDS
        .iter()
        .find(|(kind, _)| found.starts_with(kind))
        .map_or("no text", |(_, words)| words);
    // The value may hold anything, also what separates the two.
    Some((words, expected))
}

/// The names that a message lists as known ones.
pub(super) fn choices(message: &str) -> Option<Vec<String>> {
    let (_, known) = unknown_name(message)
        .filter(|_| message.starts_with("unknown variant"))
        .or_else(|| refused_choice(message).map(|(value, known)| (value.to_owned(), known)))?;
    Some(known)
}

fn not_a_setting(parent: &[String], unknown: &str, known: &[String]) -> Wrong {
    let parent: String = parent.iter().map(|segment| format!("{segment}.")).collect();
    let remedy = match nearest(unknown, known) {
        Some(meant) => format!("did you mean {parent}{meant}?"),
        None => format!("known here: {}", known.join(", ")),
    };
    Wrong::new(format!("{parent}{unknown}"), "this is not a setting", remedy)
}

fn none_of(setting: String, value: &str, known: &[String]) -> Wrong {
    let remedy = match nearest(value, known) {
        Some(meant) => format!("did you mean {meant}?"),
        None => "write one of them".to_owned(),
    };
    Wrong::new(setting, format!("this is none of {}", known.join(", ")), remedy)
}

/// The unit of a setting by its name.
pub(super) fn unit(setting: &str) -> Option<&'static str> {
    let key = setting.rsplit('.').next().unwrap_or_default();
    let parts: Vec<&str> = key.split('_').collect();
    match parts.as_slice() {
        parts if parts.contains(&"ms") => Some("milliseconds"),
        parts if parts.contains(&"bytes") => Some("bytes"),
        parts if parts.contains(&"days") => Some("days"),
        _ => None,
    }
}

/// Messages of this module's own values say what to do after a semicolon, and quote nothing.
fn is_our_own(message: &str) -> bool {
    ["a secret is a text", "this is not ", "a property is "]
        .iter()
        .any(|start| message.starts_with(start))
}

/// Takes serde's "unknown field `a`, expected one of `b`, `c`" apart.
fn unknown_name(message: &str) -> Option<(String, Vec<String>)> {
    let rest = ["unknown field `", "unknown variant `"]
        .iter()
        .find_map(|start| message.strip_prefix(start))?;
    let (unknown, known) = rest
        .rsplit_once("`, expected ")
        .or_else(|| rest.rsplit_once("`, there are no "))?;
    let names = known.split('`').skip(1).step_by(2).map(str::to_owned);
    Some((unknown.to_owned(), names.collect()))
}

/// Takes the decoder's "setting source.format cannot be "a"; it takes b, c" apart.
fn refused_choice(message: &str) -> Option<(&str, Vec<String>)> {
    let rest = message.strip_prefix("setting ")?;
    let (value, known) = rest.rsplit_once("; it takes ")?;
    let value = value.split_once(" cannot be ")?.1.trim_matches('"');
    Some((value, known.split(", ").map(str::to_owned).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_message_keeps_a_value() {
        let path: Vec<String> = ["smtp", "port"].map(str::to_owned).to_vec();
        for message in [
            "invalid type: string \"hidden\", expected u16",
            "invalid type: string \"hidden, expected i32\", expected u16",
            "invalid value: integer `70000`, expected u16",
            "unknown variant `hidden`, expected `kafka` or `wal`",
            "unknown variant `hidden`, expected x`, expected one of `a`, `b`",
            "setting source.format cannot be \"hidden; it takes x\"; it takes auto, json",
            "something that hidden brought about",
            "something that hidden; brought about",
        ] {
            for said in [explain(&path, message).to_string(), without_values(message)] {
                assert!(!said.contains("hidden") && !said.contains("70000"), "{said}");
            }
        }
        assert_eq!(without_values("missing field `api_url`"), "missing field `api_url`");
    }
}
