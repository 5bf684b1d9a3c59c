//! Every text of a refusal in the code is said in some case: none was written that nobody has seen.

use crate::cases::REFUSED;
use crate::in_repository;

/// Where refusals are worded.
const WORDED: [&str; 12] = [
    "src/config/check.rs",
    "src/config/check/kafka.rs",
    "src/config/check/registry.rs",
    "src/config/check/smtp.rs",
    "src/config/interpolation.rs",
    "src/config/load.rs",
    "src/config/ranges.rs",
    "src/config/value.rs",
    "src/config/waitlist.rs",
    "src/config/wording.rs",
    "src/app/refusals.rs",
    "src/telemetry.rs",
];

/// Texts that are no refusals, or that no configuration can bring about here, and why.
const UNSEEN: [(&str, &str); 8] = [
    (
        "the file may not be read",
        "whoever runs the tests as root may read every file",
    ),
    ("give this user the right to read it", "the same"),
    (
        "it cannot be used",
        "for messages that are not known, and all that come are",
    ),
    ("see `afterwrite config reference`", "the same"),
    ("a value is {found}", "of settings that a handler of one's own reads"),
    ("a value is none of {}", "the same"),
    ("a value cannot be used", "the same"),
    ("`, there are no ", "how a message is taken apart"),
];

#[test]
fn every_refusal_in_the_code_is_met_by_a_case() {
    let said = std::fs::read_to_string(in_repository(REFUSED)).unwrap();
    let said: Vec<&str> = said.lines().collect();
    let mut unmet = Vec::new();
    let mut texts = 0;
    for path in WORDED {
        let code = std::fs::read_to_string(in_repository(path)).unwrap();
        for text in sentences(&code) {
            texts += 1;
            let fixed = longest_fixed(&text);
            let is_met = said.iter().any(|line| line.contains(fixed));
            if !is_met && !UNSEEN.iter().any(|(unseen, _)| text.starts_with(unseen)) {
                unmet.push(format!("{path}: {text:?}"));
            }
        }
    }
    assert!(texts > 100, "only {texts} texts were found");
    assert!(unmet.is_empty(), "{} of {texts}:\n{}", unmet.len(), unmet.join("\n"));
    for (unseen, _) in UNSEEN {
        assert!(
            !said.iter().any(|line| line.contains(unseen)),
            "{unseen} is no exception any more"
        );
    }
}

/// Texts of three words and more in the code of a file, without what is documented, logged, asserted or tested.
fn sentences(code: &str) -> Vec<String> {
    let code = code.split("#[cfg(test)]").next().unwrap_or_default();
    let mut lines: Vec<&str> = Vec::new();
    let mut is_skipped = false;
    for line in code.lines().map(str::trim) {
        let begins_skipped = line.starts_with("#[error(") || line.contains("tracing::");
        let ends = [")]", ");", "),"].iter().any(|end| line.ends_with(end));
        is_skipped = (is_skipped || begins_skipped) && !ends;
        let is_other = line.starts_with("//") || line.contains(".expect(\"") || line.starts_with("#[");
        if !(is_skipped || begins_skipped || is_other) {
            lines.push(line);
        }
    }
    // A quote that is a character begins no text.
    let joined = lines.join("\n").replace("'\"'", "''");
    let mut sentences = Vec::new();
    let mut rest = joined.as_str();
    while let Some((_, after)) = rest.split_once('"') {
        let end = end_of(after);
        let text = after[..end]
            .replace("\\\n", "")
            .replace("\\\"", "\"")
            .replace("\\\\", "\\");
        if text
            .split(' ')
            .filter(|word| word.chars().any(char::is_alphabetic))
            .count()
            >= 3
        {
            sentences.push(text);
        }
        rest = after.get(end + 1..).unwrap_or_default();
    }
    sentences
}

/// Where a text ends that has begun.
fn end_of(text: &str) -> usize {
    let mut escaped = false;
    for (index, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return index,
            _ => {}
        }
    }
    text.len()
}

/// The longest part of a text in which nothing is filled in.
fn longest_fixed(text: &str) -> &str {
    let parts = text.split('{').flat_map(|part| part.split('}'));
    parts.max_by_key(|part| part.len()).unwrap_or_default().trim()
}
