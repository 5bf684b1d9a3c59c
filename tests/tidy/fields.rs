//! Fields of log lines have one spelling each: who looks for a group in the log must not have to know which file wrote it.

use std::collections::BTreeSet;

use crate::reading::{File, code_without_tests};

/// Every field, in one spelling. Units stand at the end; `error` is what went wrong with all its causes, and `cause` why
/// something that goes on waits.
const FIELDS: [&str; 72] = [
    "address",
    "age_s",
    "application",
    "attempt_timeout_ms",
    "attempts",
    "attempts_max",
    "brokers",
    "budget_ms",
    "bytes",
    "cause",
    "class",
    "code",
    "counts",
    "critical",
    "days",
    "epoch",
    "error",
    "facility",
    "finish",
    "first",
    "first_offset",
    "first_start",
    "from_day",
    "group",
    "handler",
    "healed",
    "job",
    "jobs",
    "lanes_max",
    "last",
    "letter",
    "lost",
    "lsn",
    "mail",
    "max_slot_wal_keep_size",
    "needed_by",
    "newest",
    "next",
    "offset",
    "oldest",
    "open_s",
    "other",
    "parked",
    "partition",
    "partitions",
    "pause_ms",
    "pid",
    "position",
    "postgres",
    "reads",
    "refusal",
    "registry",
    "report",
    "request",
    "retention_bytes",
    "retention_ms",
    "retention_s",
    "running",
    "schedule",
    "schema",
    "settings",
    "slot",
    "slot_lag_bytes_max",
    "source",
    "table",
    "tables",
    "tick",
    "topic",
    "wait_s",
    "wanted_ms",
    "was",
    "xid",
];

/// Measurements and tests name what they like.
const ELSEWHERE: [&str; 2] = ["src/cli/bench/", "src/testkit/"];

const MACROS: [&str; 5] = ["error!(", "warn!(", "info!(", "debug!(", "trace!("];

/// Fields that are not in the list, and what stands there and is written nowhere.
pub(crate) fn strange_fields(files: &[File]) -> Vec<String> {
    let mut written = BTreeSet::new();
    let mut offences = Vec::new();
    let logs =
        |file: &&File| file.path.starts_with("src/") && !ELSEWHERE.iter().any(|place| file.path.starts_with(place));
    for file in files.iter().filter(logs) {
        for field in fields(&code_without_tests(&file.text)) {
            if !FIELDS.contains(&field.as_str()) {
                offences.push(format!(
                    "{}: a log line has the field {field}, which is no known one: use that of the same meaning, or add it in tests/tidy/fields.rs",
                    file.path
                ));
            }
            written.insert(field);
        }
    }
    let unwritten = FIELDS.iter().filter(|field| !written.contains(**field));
    offences.extend(unwritten.map(|field| format!("no log line has the field {field}")));
    offences
}

/// The fields of all log lines in code without what stands in quotes.
fn fields(code: &str) -> Vec<String> {
    let calls = code.match_indices("tracing::").filter_map(|(at, path)| {
        let rest = &code[at + path.len()..];
        MACROS.iter().find_map(|name| rest.strip_prefix(name))
    });
    calls.flat_map(fields_of_call).collect()
}

/// The fields of one log line: all before its text.
fn fields_of_call(rest: &str) -> Vec<String> {
    let (mut fields, mut depth, mut argument) = (Vec::new(), 0, String::new());
    for character in rest.chars() {
        match character {
            ')' if depth == 0 => break,
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
        if character != ',' || depth > 0 {
            argument.push(character);
            continue;
        }
        let name = argument.split('=').next().unwrap_or_default().trim();
        if name.starts_with('"') {
            break;
        }
        fields.push(name.trim_start_matches(['%', '?']).to_owned());
        argument.clear();
    }
    fields
}

#[test]
fn fields_are_found_in_each_of_their_forms() {
    let code = r#"tracing::warn!(group = %self.group(a, b), ?finish, error, wait_s = x[1].y, "");
        tracing::info!(""); tracing::debug!(%error, ""); other::warn!(no, "");"#;
    assert_eq!(fields(code), ["group", "finish", "error", "wait_s", "error"]);
}

#[test]
fn a_field_of_another_spelling_is_strange() {
    let file = File {
        path: "src/engine/x.rs".to_owned(),
        text: "fn f() { tracing::warn!(grp = 1, \"text\"); }".to_owned(),
        is_test: false,
    };
    let offences = strange_fields(&[file]);
    assert!(offences[0].contains("the field grp"), "{offences:?}");
}
