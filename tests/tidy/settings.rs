//! Every setting has a reader: one that is accepted and read by nobody deceives whoever sets it.
//!
//! A setting is read where its name follows what values of its section are called outside of the configuration, as in
//! `config.smtp.host` or `settings.lanes_max`. What the configuration only checks is not read.

use std::collections::BTreeSet;

use crate::reading::{File, code_without_tests, has_word, is_word_character, top_module};
use crate::rules::LAYERS;

/// The sections, and what their values are called where they are read.
const CALLED: [(&str, &[&str]); 22] = [
    ("Config", &["config"]),
    ("Source", &["source"]),
    ("Postgres", &["postgres"]),
    ("Wal", &["wal", "log"]),
    ("Kafka", &["kafka"]),
    ("Registry", &["registry"]),
    ("Connect", &["connect"]),
    ("Engine", &["settings", "engine"]),
    ("HandlerSettings", &["own"]),
    ("Ledger", &["ledger"]),
    ("DeadLetters", &["dead_letters", "letters"]),
    ("Smtp", &["smtp"]),
    ("Webhook", &["webhook"]),
    ("Waitlist", &["waitlist"]),
    ("TableNames", &["own"]),
    ("Fraud", &["settings"]),
    ("FraudCheckSettings", &["own"]),
    ("Schedule", &["schedule"]),
    ("ScheduledJob", &["own"]),
    ("Log", &["log"]),
    ("Admin", &["admin"]),
    ("Traces", &["traces"]),
];

/// What one group or handler has instead of `[engine]`: each of these settings is laid over its namesake there.
const LAID_OVER: [(&str, &str); 2] = [("Group", "Engine"), ("HandlerSettings", "Engine")];

/// Settings that are read through a method of the configuration, the call that must be found outside of it, and why.
const INDIRECT: [(&str, &str, &str, &str); 10] = [
    (
        "Kafka",
        "group_prefix",
        "config.group_name(",
        "every group's name begins with it",
    ),
    (
        "Kafka",
        "session_timeout_ms",
        "kafka.session_timeout(",
        "it has a default where the protocol leaves it to the member",
    ),
    (
        "Kafka",
        "heartbeat_interval_ms",
        "kafka.heartbeat_interval(",
        "the same",
    ),
    ("Kafka", "topics", "config.topics_of(", "a group may have its own"),
    ("Group", "topics", "config.topics_of(", "they beat those of all groups"),
    (
        "Engine",
        "connections_max",
        "settings.connections(",
        "it follows from lanes_max when absent",
    ),
    (
        "HandlerSettings",
        "attempt_timeout_ms",
        "config.attempt_timeout_of(",
        "it beats its group's",
    ),
    (
        "Traces",
        "headers",
        "traces.header_list(",
        "they are a list in one text",
    ),
    ("Smtp", "host", "smtp.effective_host(", "it is this machine when absent"),
    (
        "Smtp",
        "tls",
        "smtp.effective_tls(",
        "auto stands for one of the others",
    ),
];

/// Settings that nobody reads, and exceptions that are none any more.
pub(crate) fn unread_settings(files: &[File]) -> Vec<String> {
    let settings: BTreeSet<(String, String)> = files
        .iter()
        .filter(|file| is_configuration(file))
        .flat_map(|file| settings_of(&file.text))
        .collect();
    let readers: Vec<String> = files.iter().filter(|file| may_read(file)).map(joined).collect();
    let occurs = |word: &str| readers.iter().any(|code| has_word(code, word));
    let is_setting = |section: &str, name: &str| settings.contains(&(section.to_owned(), name.to_owned()));
    let is_read_by_name = |section: &str, name: &str| {
        let called = CALLED.iter().filter(|(known, _)| *known == section);
        let mut called = called.flat_map(|(_, called)| *called);
        called.any(|called| occurs(&format!("{called}.{name}")))
    };
    let mut offences = Vec::new();
    for (section, name) in &settings {
        let is_read = is_read_by_name(section, name)
            || LAID_OVER
                .iter()
                .any(|(over, under)| over == section && is_setting(under, name))
            || INDIRECT
                .iter()
                .any(|(of, known, call, _)| of == section && known == name && occurs(call));
        if !is_read {
            offences.push(format!(
                "{section}.{name} is accepted, and nothing outside of the configuration reads it"
            ));
        }
    }
    for (section, name, _, _) in &INDIRECT {
        if !is_setting(section, name) || is_read_by_name(section, name) {
            offences.push(format!("{section}.{name} is no exception any more"));
        }
    }
    offences
}

fn is_configuration(file: &File) -> bool {
    file.path.starts_with("src/config/") && !file.is_test
}

/// Whether the code may know the configuration at all; elsewhere equal words mean something else.
fn may_read(file: &File) -> bool {
    let may_import = |module: String| {
        LAYERS
            .iter()
            .any(|(layer, imports)| *layer == module && imports.contains(&"config"))
    };
    file.path == "src/main.rs" || !file.is_test && top_module(&file.path).is_some_and(may_import)
}

/// The code with each chain of fields and calls on one line, without what tests read.
fn joined(file: &File) -> String {
    let code = code_without_tests(&file.text);
    let mut joined = String::with_capacity(code.len());
    for line in code.lines().map(str::trim) {
        joined.push_str(if line.starts_with('.') { "" } else { "\n" });
        joined.push_str(line);
    }
    joined
}

/// (struct, field) of every struct that is read from a file.
fn settings_of(text: &str) -> Vec<(String, String)> {
    let mut settings = Vec::new();
    let (mut is_read_from_file, mut section) = (false, None);
    for line in text.lines() {
        if line.starts_with("#[derive(") {
            is_read_from_file = line.contains("Deserialize");
        } else if let Some(rest) = line.strip_prefix("pub struct ") {
            let name: String = rest
                .chars()
                .take_while(|character| is_word_character(*character))
                .collect();
            section = (is_read_from_file && rest.ends_with('{')).then_some(name);
        } else if line == "}" {
            (is_read_from_file, section) = (false, None);
        } else if let (Some(section), Some(rest)) = (&section, line.strip_prefix("    pub "))
            && let Some((name, _)) = rest.split_once(": ")
        {
            settings.push((section.clone(), name.to_owned()));
        }
    }
    settings
}

#[test]
fn a_field_that_is_called_like_a_method_reads_no_setting() {
    let file = |path: &str, text: &str| File {
        path: path.to_owned(),
        text: text.to_owned(),
        is_test: false,
    };
    let section = "#[derive(Deserialize)]\npub struct Kafka {\n    pub group_prefix: String,\n}\n";
    for (reader, expected) in [("letter.group_name", true), ("config\n    .group_name(name)", false)] {
        let files = [file("src/config/kafka.rs", section), file("src/cli/dlq.rs", reader)];
        let found = unread_settings(&files);
        let is_unread = found
            .iter()
            .any(|offence| offence.starts_with("Kafka.group_prefix is accepted"));
        assert_eq!(is_unread, expected, "{reader}: {found:?}");
    }
}

#[test]
fn a_setting_without_a_reader_is_found() {
    let section = "#[derive(Debug, Deserialize)]\npub struct Log {\n    /// Read.\n    pub format: Format,\n    pub level: u8,\n}\n\
                   pub struct NoSection {\n    pub other: u8,\n}\n";
    let file = |path: &str, text: &str| File {
        path: path.to_owned(),
        text: text.to_owned(),
        is_test: false,
    };
    let reader = "fn start() { of(config\n    .log\n    .format); blog.level; } // log.level";
    let configuration = file(
        "src/config/mod.rs",
        &format!("{section}fn check() {{ config.log.level }}"),
    );
    let mut found = unread_settings(&[
        configuration,
        file("src/app.rs", reader),
        file("src/decode/mod.rs", "fn elsewhere() { log.level }"),
    ]);
    found.retain(|offence| !offence.ends_with("is no exception any more"));
    assert_eq!(
        found,
        ["Log.level is accepted, and nothing outside of the configuration reads it"]
    );
}
