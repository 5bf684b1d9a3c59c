//! The rules, each with its reason.

use std::collections::BTreeSet;

use crate::reading::{
    File, code, code_of_tests, code_without_tests, declared, has_word, imported, is_root, top_module,
};

/// Longer files have more than one reason to change: split by responsibility.
pub(crate) const LINES_MAX: usize = 500;

/// Who may import whom. Imports go one way, so that each layer can be read, tested and replaced knowing only those
/// below it: event ← ledger ← handler ← router ← engine ← app, and event ← decode ← source ← app.
pub(crate) const LAYERS: [(&str, &[&str]); 25] = [
    // How every part says an error with its causes.
    ("causes", &[]),
    // How every part says which of certificate, host name and login is wrong.
    ("hindrance", &[]),
    // What a process counts, wherever that happens.
    ("tally", &[]),
    ("event", &[]),
    ("ledger", &["event", "tally"]),
    ("handler", &["causes", "event", "ledger", "tally"]),
    ("router", &["event", "handler"]),
    // The engine decides about deliveries; where they come from and go to is plugged in above it.
    (
        "engine",
        &["causes", "tally", "traces", "event", "ledger", "handler", "router"],
    ),
    ("decode", &["causes", "hindrance", "tally", "event"]),
    (
        "source",
        &["hindrance", "tally", "event", "decode", "ledger", "clients"],
    ),
    // Sinks keep letters as the engine writes them, and hand replayed bytes to the decoder again.
    (
        "dead_letter",
        &["event", "ledger", "decode", "engine", "clients", "hindrance"],
    ),
    // Groups as an operator sees them: what processes tell, what the ledger and the broker know.
    ("groups", &["event", "ledger", "engine", "clients", "hindrance"]),
    ("clients", &["causes", "hindrance", "tally"]),
    // Handlers work with events, their transaction and their clients; how an event reached them is not theirs to know.
    ("handlers", &["tally", "event", "ledger", "handler", "clients"]),
    // What the clock wakes uses the handlers' own code, and knows nothing of deliveries.
    ("schedule", &["causes", "ledger", "handlers", "clients"]),
    // An installation as whoever is woken by it sees it: judged from facts that every other part is asked for.
    (
        "doctor",
        &[
            "causes",
            "event",
            "decode",
            "source",
            "dead_letter",
            "groups",
            "clients",
            "handlers",
            "hindrance",
        ],
    ),
    // What the handlers would do, and nothing of it stays.
    ("shadow", &["event", "ledger", "handler", "router"]),
    ("telemetry", &[]),
    // Spans, which whoever makes an attempt begins.
    ("traces", &["causes", "tally"]),
    // What a process tells of itself, as its engines and its scheduler told it; and the links of mails that lead to it.
    ("admin", &["tally", "event", "engine", "schedule", "handlers"]),
    ("mail_catcher", &[]),
    // Settings name the decoder's modes and the shape of logs; nothing that runs is known to them.
    ("config", &["decode", "telemetry"]),
    // Composes a worker for tests, as app does for use.
    (
        "testkit",
        &[
            "event",
            "ledger",
            "handler",
            "router",
            "engine",
            "decode",
            "source",
            "dead_letter",
            "clients",
            "handlers",
            "config",
            "app",
            "cli",
            "schedule",
            "mail_catcher",
        ],
    ),
    (
        "app",
        &[
            "causes",
            "hindrance",
            "tally",
            "event",
            "ledger",
            "handler",
            "router",
            "engine",
            "decode",
            "source",
            "dead_letter",
            "groups",
            "clients",
            "handlers",
            "schedule",
            "shadow",
            "telemetry",
            "traces",
            "admin",
            "config",
        ],
    ),
    (
        "cli",
        &[
            "causes",
            "event",
            "ledger",
            "handler",
            "router",
            "engine",
            "decode",
            "source",
            "dead_letter",
            "groups",
            "clients",
            "handlers",
            "schedule",
            "doctor",
            "shadow",
            "telemetry",
            "config",
            "app",
            "mail_catcher",
            "hindrance",
        ],
    ),
];

/// Words that must not occur in the code of some files: (files, words, why).
pub(crate) const BANNED: [(&[&str], &[&str], &str); 4] = [
    (
        &["src/handlers/"],
        &["rdkafka::"],
        "a handler must run the same whatever delivers to it",
    ),
    (
        &["src/engine/"],
        &["rdkafka::", "sqlx::", "apache_avro::", "reqwest::"],
        "the engine is tested without services; I/O is plugged in",
    ),
    (
        &[
            "src/engine/core",
            "src/engine/lanes",
            "src/engine/offsets",
            "src/engine/retry",
        ],
        &[
            "tokio::",
            "Instant::now",
            "SystemTime::now",
            "Utc::now",
            "rand::",
            "Uuid::new",
            "std::fs",
            "std::net",
        ],
        "the core decides only: no clock, no chance, no I/O, so that a seed replays every world",
    ),
    (
        &["src/event/"],
        &["tokio::", "sqlx::", "rdkafka::", "reqwest::"],
        "events are plain values",
    ),
];

/// Names that say nothing about what is inside, so everything ends up inside.
pub(crate) const EMPTY_NAMES: [&str; 11] = [
    "utils",
    "util",
    "common",
    "types",
    "helpers",
    "helper",
    "manager",
    "service",
    "processor",
    "misc",
    "shared",
];

/// The types of columns are what this file is about.
pub(crate) const NAMED_TYPES: &str = "src/decode/types.rs";

/// The files of this test quote what they forbid.
pub(crate) const THIS: &str = "tests/tidy/";

pub(crate) type Rule = fn(&File) -> Vec<String>;

/// Every rule that looks at one file.
pub(crate) const RULES: [Rule; 8] = [
    imports_go_one_way,
    banned_words_are_absent,
    files_are_short,
    files_say_what_they_are_for,
    nothing_is_left_behind,
    only_commands_print,
    tests_never_sleep,
    names_say_something,
];

pub(crate) fn imports_go_one_way(file: &File) -> Vec<String> {
    let Some(module) = top_module(&file.path) else {
        return Vec::new();
    };
    let Some((_, allowed)) = LAYERS.iter().find(|(layer, _)| *layer == module) else {
        return vec![format!(
            "{}: module {module} has no place among the layers of {THIS}",
            file.path
        )];
    };
    imported(&code_without_tests(&file.text))
        .into_iter()
        .filter(|import| *import != module && !allowed.contains(&import.as_str()))
        .map(|import| format!("{}: {module} must not import {import}", file.path))
        .collect()
}

pub(crate) fn banned_words_are_absent(file: &File) -> Vec<String> {
    let code = code_without_tests(&file.text);
    let mut offences = Vec::new();
    for (prefixes, words, why) in BANNED {
        if !prefixes.iter().any(|prefix| file.path.starts_with(prefix)) {
            continue;
        }
        for word in words.iter().filter(|word| has_word(&code, word)) {
            offences.push(format!("{}: {word} is not allowed here: {why}", file.path));
        }
    }
    let may_use_anyhow = file.path == "src/main.rs" || file.path.starts_with("src/app");
    if file.path.starts_with("src/") && !may_use_anyhow && has_word(&code, "anyhow::") {
        let why = "below app.rs an error says what failed, so that somebody can decide on it";
        offences.push(format!("{}: anyhow is not allowed here: {why}", file.path));
    }
    offences
}

pub(crate) fn files_are_short(file: &File) -> Vec<String> {
    let lines = file.text.lines().count();
    if lines <= LINES_MAX {
        return Vec::new();
    }
    vec![format!(
        "{}: {lines} lines, {LINES_MAX} are allowed: split it by responsibility",
        file.path
    )]
}

/// A reader must learn from the first line what a file is for and what it never does.
pub(crate) fn files_say_what_they_are_for(file: &File) -> Vec<String> {
    if file.text.starts_with("//! ") {
        return Vec::new();
    }
    vec![format!("{}: the file does not open with //!", file.path)]
}

/// Leftovers of work that was not finished, tests that do not run, and shortcuts that panic.
pub(crate) fn nothing_is_left_behind(file: &File) -> Vec<String> {
    if file.path.starts_with(THIS) {
        return Vec::new();
    }
    let mut offences = Vec::new();
    for word in ["FIXME", "TODO", "XXX"] {
        if has_word(&file.text, word) {
            offences.push(format!(
                "{}: {word}: finish it, or write down the decision not to",
                file.path
            ));
        }
    }
    let code = code(&file.text);
    for (word, why) in [
        ("dbg!", "it is for the moment of debugging"),
        ("todo!", "finish it"),
        ("unimplemented!", "finish it"),
        ("#[ignore", "a test that does not run proves nothing"),
        ("unsafe", "nothing here needs it"),
    ] {
        if has_word(&code, word) {
            offences.push(format!("{}: {word} is not allowed: {why}", file.path));
        }
    }
    for named in declared(&file.path, &file.text) {
        if named.by_path && !named.for_tests {
            let why = "a file is found where its name says; only tests may lie beside what they test";
            offences.push(format!("{}: #[path] is not allowed: {why}", file.path));
        }
    }
    let is_production = file.path.starts_with("src/") && !file.is_test;
    if is_production && code_without_tests(&file.text).contains(".unwrap()") {
        let why = "bad input is never a panic; say in expect() why it holds";
        offences.push(format!("{}: unwrap() outside tests: {why}", file.path));
    }
    offences
}

/// Standard output belongs to what a command prints; everything else is a log line.
pub(crate) fn only_commands_print(file: &File) -> Vec<String> {
    let may = file.path.starts_with("src/cli/") || file.path == "src/main.rs" || !file.path.starts_with("src/");
    let code = code_without_tests(&file.text);
    if may
        || !["println!", "print!", "eprintln!", "eprint!"]
            .iter()
            .any(|word| has_word(&code, word))
    {
        return Vec::new();
    }
    vec![format!("{}: only commands print; log with tracing", file.path)]
}

/// Words that let time pass; the loop that asks a foreign process again and again ticks with an interval.
const PAUSES: [&str; 4] = ["sleep", "sleep_ms", "sleep_until", "park_timeout"];

/// A pause is too short on a busy machine and too long on every other: wait for a signal or pause tokio's clock.
pub(crate) fn tests_never_sleep(file: &File) -> Vec<String> {
    if file.path.starts_with(THIS) {
        return Vec::new();
    }
    let tests = match file.is_test {
        true => code(&file.text),
        false => code_of_tests(&file.text),
    };
    let pauses = |name: &&&str| has_word(&tests, &format!("{name}(")) || has_word(&tests, &format!("{name} as"));
    match PAUSES.iter().find(pauses) {
        None => Vec::new(),
        Some(name) => vec![format!(
            "{}: a test sleeps ({name}): wait for a signal or pause tokio's clock",
            file.path
        )],
    }
}

/// Places that a rule speaks of and that are not there: it would hold for ever and protect nothing.
pub(crate) fn rules_about_nothing(files: &[File]) -> Vec<String> {
    let is_there = |prefix: &str| files.iter().any(|file| file.path.starts_with(prefix));
    let modules = LAYERS.iter().filter(|(layer, _)| {
        let is_of = |file: &File| top_module(&file.path).as_deref() == Some(*layer);
        !files.iter().any(is_of)
    });
    let modules = modules.map(|(layer, _)| format!("src/{layer}"));
    let banned = BANNED.iter().flat_map(|(prefixes, _, _)| *prefixes);
    let places = banned.chain(&[NAMED_TYPES, THIS]).filter(|place| !is_there(place));
    modules
        .chain(places.map(|place| (*place).to_owned()))
        .map(|place| format!("{THIS}: a rule speaks of {place}, which is not there"))
        .collect()
}

pub(crate) fn names_say_something(file: &File) -> Vec<String> {
    let names = file.path.trim_end_matches(".rs").split('/');
    names
        .filter(|name| EMPTY_NAMES.contains(name) && file.path != NAMED_TYPES)
        .map(|name| format!("{}: {name} says nothing: name the concept inside", file.path))
        .collect()
}

/// Files no `mod` line leads to: they are neither compiled nor tested, and look as if they were.
pub(crate) fn dead_files(files: &[File]) -> Vec<String> {
    let mut alive: BTreeSet<String> = BTreeSet::new();
    let roots = files.iter().map(|file| file.path.as_str()).filter(|path| is_root(path));
    let mut waiting: Vec<String> = roots.map(str::to_owned).collect();
    while let Some(path) = waiting.pop() {
        if !alive.insert(path.clone()) {
            continue;
        }
        let Some(file) = files.iter().find(|file| file.path == path) else {
            continue;
        };
        let candidates = declared(&path, &file.text)
            .into_iter()
            .flat_map(|declared| declared.candidates);
        waiting.extend(candidates.filter(|candidate| files.iter().any(|file| file.path == *candidate)));
    }
    let dead = files.iter().filter(|file| !alive.contains(&file.path));
    dead.map(|file| format!("{}: no mod line leads to this file", file.path))
        .collect()
}
