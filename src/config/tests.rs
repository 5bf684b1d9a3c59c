//! What is accepted, what is refused, and that the example file tells the whole truth.

#[cfg(test)]
mod groups;

#[cfg(test)]
mod example;

#[cfg(test)]
mod own;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::value::Error as FieldsError;
use serde::de::{Deserializer, Error, Visitor};

use super::load::{Inputs, load};
use super::{Config, SourceKind};

fn example() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/afterwrite.example.toml");
    std::fs::read_to_string(path).unwrap()
}

/// Settings that are absent by default, so that the example can only show what they look like.
const ABSENT: [&str; 30] = [
    "admin.listen",
    "connect.ca_pem",
    "dead_letters.replication_factor",
    "engine.connections_max",
    "kafka.assignor",
    "kafka.heartbeat_interval_ms",
    "kafka.instance_id",
    "kafka.session_timeout_ms",
    "log.filter",
    "registry.ca_pem",
    "registry.client_certificate_pem",
    "registry.client_key_pem",
    "registry.password",
    "registry.user",
    "smtp.ca_pem",
    "smtp.directory",
    "smtp.from_name",
    "smtp.hello_name",
    "smtp.host",
    "smtp.mails_per_second_max",
    "smtp.password",
    "smtp.user",
    "source.full_identity",
    "source.heartbeat_topic",
    "source.key_format",
    "traces.endpoint",
    "traces.headers",
    "waitlist.public_url",
    "waitlist.secret",
    "wal.url",
];

/// Sections that are absent by default, with all that is in them.
const ABSENT_SECTIONS: [&str; 6] = [
    "fraud.checks.",
    "groups.",
    "handlers.",
    "kafka.properties.",
    "schedule.jobs.",
    "waitlist.tables.",
];

/// PEM inside of a TOML text, so with its line ends escaped.
const CERTIFICATE: &str = r"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
const KEY: &str = r"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";

/// A file that is deleted at the end of the test.
struct File(PathBuf);

impl File {
    fn with(text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("afterwrite-{}.toml", uuid::Uuid::new_v4()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

fn loaded(file: &str, environment: &[(&str, &str)], set: &[&str]) -> Result<Config, String> {
    let written = File::with(file);
    let inputs = Inputs {
        file: Some(written.0.clone()),
        environment: environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        set: set.iter().map(|argument| (*argument).to_owned()).collect(),
        ..Inputs::default()
    };
    load(&inputs).map_err(|error| error.to_string().replace(&*written.0.to_string_lossy(), "file"))
}

#[test]
fn flags_beat_the_environment_which_beats_older_names_which_beat_the_file() {
    let file = "[kafka]\nbrokers = \"a:1\"\ngroup_prefix = \"from-file\"\n";
    let environment = [
        ("KAFKA_BROKERS", "b:2"),
        ("KAFKA_JOB_CONSUMER_GROUP", "older"),
        ("AFTERWRITE__KAFKA__BROKERS", "c:3"),
        ("SMTP_HOST", ""),
    ];
    assert_eq!(loaded(file, &[], &[]).unwrap().kafka.brokers, "a:1");
    assert_eq!(loaded(file, &environment[..1], &[]).unwrap().kafka.brokers, "b:2");
    let from_environment = loaded(file, &environment, &[]).unwrap();
    assert_eq!(from_environment.kafka.brokers, "c:3");
    assert_eq!(from_environment.kafka.group_prefix, "older");
    assert_eq!(from_environment.smtp.effective_host(), "localhost");
    let from_flag = loaded(file, &environment, &["kafka.brokers=d:4"]).unwrap();
    assert_eq!(from_flag.kafka.brokers, "d:4");
}

#[test]
fn bare_texts_take_the_type_of_their_setting() {
    let config = loaded(
        "",
        &[
            ("AFTERWRITE__ENGINE__LANES_MAX", "7"),
            ("AFTERWRITE__ENGINE__WAIT_FACTOR", "3"),
            ("AFTERWRITE__SMTP__USER", "12345"),
            ("AFTERWRITE__SMTP__PASSWORD", "67890"),
            ("AFTERWRITE__HANDLERS__EMAIL__ENABLED", "false"),
            ("AFTERWRITE__SOURCE__SIGNAL_TABLES", r#"["a.b"]"#),
            ("AFTERWRITE__KAFKA__PROPERTIES__SECURITY_PROTOCOL", "ssl"),
            ("ANALYTICS_INTERVAL", "60"),
            ("FRAUD_DETECTION_INTERVAL", "5m"),
            ("SMTP_PORT", "465"),
        ],
        &["kafka.properties.ssl.ca.location=/dev/null"],
    )
    .unwrap();
    assert_eq!(config.engine.lanes_max, 7);
    assert_eq!(config.engine.wait_factor, 3);
    assert_eq!(config.smtp.user.as_deref(), Some("12345"));
    assert_eq!(config.smtp.password.unwrap().expose(), "67890");
    assert!(!config.handlers["email"].enabled);
    assert_eq!(config.source.signal_tables, ["a.b"]);
    let properties: Vec<(&str, &str)> = config
        .kafka
        .properties
        .0
        .iter()
        .map(|(name, value)| (name.as_str(), value.expose()))
        .collect();
    assert_eq!(
        properties,
        [("security.protocol", "ssl"), ("ssl.ca.location", "/dev/null")]
    );
    assert_eq!(config.schedule.analytics_interval.0.as_secs(), 60);
    assert_eq!(config.schedule.fraud_scan_interval.0.as_secs(), 300);
    assert_eq!(config.smtp.port, 465);
}

/// Checks how what is said about a file, an environment and flags begins that are refused for one thing alone.
fn refused(file: &str, environment: &[(&str, &str)], set: &[&str], expected: &str) {
    let message = loaded(file, environment, set).map(|_| ()).expect_err(expected);
    let said = message
        .strip_prefix("the configuration was refused: ")
        .unwrap_or_default();
    assert!(
        said.starts_with(expected) && said.lines().count() == 1,
        "{message}\nis not\n{expected}"
    );
}

#[test]
fn without_brokers_nothing_is_asked_of_their_settings() {
    let of_brokers = [
        "kafka.brokers=",
        "kafka.properties.acks=1",
        "kafka.start=latest",
        "handlers.email.was=mails",
        "engine.revoke_grace_ms=900000",
        "registry.user=somebody",
    ];
    let with = |kind: &str| loaded("", &[("AFTERWRITE__SOURCE__KIND", kind)], &of_brokers);
    assert_eq!(with("wal").unwrap().source.kind, SourceKind::Wal);
    let said = with("kafka").unwrap_err();
    for part in ["kafka.brokers", "acks", "was", "revoke_grace_ms", "registry.user"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    // Groups are named with or without them.
    refused(
        "[source]\nkind = \"wal\"\n[kafka]\ngroup_prefix = \"a b\"",
        &[],
        &[],
        "file:4: kafka.group_prefix: groups and dead-letter topics begin with it",
    );
    refused(
        "[source]\nkind = \"files\"",
        &[],
        &[],
        "file:2: source.kind: this is none of kafka, wal; write one of them",
    );
}

#[test]
fn an_impossible_value_is_named_wherever_it_was_set() {
    refused(
        "[smtp]\nhost = \"relay\"\nuser = \"u\"\npassword = \"hidden\"\ntls = \"none\"",
        &[],
        &[],
        "file:5: smtp.tls: the password would cross the network to smtp.host in clear text; write starttls",
    );
    refused(
        "",
        &[],
        &["engine.lanes_max=many"],
        "--set: engine.lanes_max: this is a text; write a whole number, 0 or more",
    );
    refused(
        "",
        &[("KAFKA_WORKER_POOL_SIZE", "0")],
        &[],
        "environment variable KAFKA_WORKER_POOL_SIZE: engine.lanes_max: it is less than 1; write 1 to 10000",
    );
    refused("[kafka]\nbrokers = ", &[], &[], "file:2: this is not TOML: ");
}

#[test]
fn an_attempt_outlasts_the_discovery_that_the_database_is_away() {
    let reason = "attempt_timeout_ms: it is not longer than postgres.connect_timeout_ms (10000 ms): attempts would run out \
                  of time before they know that the database is away, and be counted";
    for section in ["engine", "groups.email", "handlers.email"] {
        let file = format!("[{section}]\nattempt_timeout_ms = 10000");
        let message = loaded(&file, &[], &[]).map(|_| ()).unwrap_err();
        assert!(message.contains(&format!("{section}.{reason}")), "{message}");
        assert!(loaded(&format!("{file}1"), &[], &[]).is_ok());
    }
}

#[test]
fn all_mistakes_are_reported_at_once() {
    // Of each kind one: unknown, of another type, impossible alone, impossible together, in the file, outside of it.
    let file = "[kafka]\na = 1\nstart = 3\nassignor = \"range\"\n[engine]\nlanes_max = 0\n";
    let message = loaded(file, &[("KAFKA_JOB_TOPIC", "x")], &["x=1"])
        .map(|_| ())
        .unwrap_err();
    for part in [
        "file:2: kafka.a: this is not a setting",
        "file:3: kafka.start: ",
        "file:4: kafka.assignor: this kafka.group_protocol does not have it",
        "file:6: engine.lanes_max: it is less than 1",
        "environment variable KAFKA_JOB_TOPIC: topics come from the connector; unset it",
        "--set: x: this is not a setting",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert_eq!(message.lines().count(), 7, "{message}");
    // What cannot be read does not hide what is wrong elsewhere.
    let message = loaded("[kafka\nx", &[("AFTERWRITE__X", "1")], &[])
        .map(|_| ())
        .unwrap_err();
    assert!(
        message.contains("this is not TOML") && message.contains("AFTERWRITE__X"),
        "{message}"
    );
}

#[test]
fn what_rests_on_a_refused_setting_is_not_blamed() {
    let password = "[smtp]\nuser = \"u\"\npassword = \"${env:NOWHERE}\"";
    refused(
        password,
        &[],
        &[],
        "file:3: smtp.password: the environment variable NOWHERE is not set",
    );
    let kind = "[source]\nkind = \"wall\"\n[kafka]\nbrokers = \"\"\n[handlers.email]\nwas = \"mails\"";
    refused(
        kind,
        &[],
        &[],
        "file:2: source.kind: this is none of kafka, wal; did you mean wal?",
    );
    let wait = "[engine]\nwait_first_ms = \"1s\"\nwait_ms_max = 500";
    refused(
        wait,
        &[],
        &[],
        "file:2: engine.wait_first_ms: this is a text; write milliseconds as a number",
    );
}

#[test]
fn a_section_is_not_blamed_for_what_it_does_not_say() {
    let file = "[engine]\nlanes_max = 20\nconnections_max = 5\n[groups.email]\nattempts_max = 3";
    refused(file, &[], &[], "file:3: engine.connections_max: 20 lanes");
    let file = "[engine]\nwait_ms_max = 500\nwait_first_ms = 100\n[groups.email]\nwait_first_ms = 1000";
    refused(
        file,
        &[],
        &[],
        "file:5: groups.email.wait_first_ms: the longest wait is shorter than the first",
    );
}

#[test]
fn secrets_come_from_references_and_never_print() {
    let file = "[waitlist]\nsecret = \"${env:S}\"\n[postgres]\nurl = \"postgres://me:hidden-too@db/x\"\n\
                [kafka.properties]\n\"sasl.password\" = \"hidden-as-well\"";
    let config = loaded(file, &[("S", "a-hidden-secret-of-24-chars")], &[]).unwrap();
    assert_eq!(config.hmac_key().unwrap().expose(), "a-hidden-secret-of-24-chars");
    assert!(!format!("{config:?}").contains("hidden"));
}

#[test]
fn the_development_key_is_used_on_this_machine_only() {
    for (url, accepted) in [
        ("postgres://localhost/x", true),
        ("postgres://me@127.0.0.1:5433/x", true),
        ("postgres://db.example.com/x", false),
    ] {
        let config = loaded("", &[("DATABASE_URL", url)], &[]).unwrap();
        assert_eq!(config.hmac_key().is_ok(), accepted, "{url}");
    }
}

#[test]
fn groups_are_called_by_both_names() {
    let config = loaded("[groups.email]\nlanes_max = 3", &[], &[]).unwrap();
    for name in ["email", "afterwrite.email"] {
        assert_eq!(config.group_name(name), "afterwrite.email");
        assert_eq!(config.engine_of(name).lanes_max, 3);
        assert_eq!(config.engine_of(name).connections(), 5);
    }
    assert_eq!(config.engine_of("fraud").lanes_max, 10);
}

#[test]
fn the_time_out_of_the_handler_beats_the_groups_and_both_beat_the_default() {
    for (file, expected) in [
        ("[engine]\nattempt_timeout_ms = 70000", None),
        ("[groups.email]\nattempt_timeout_ms = 80000", Some(80_000)),
        ("[handlers.email]\nattempt_timeout_ms = 90000", Some(90_000)),
        (
            "[groups.email]\nattempt_timeout_ms = 80000\n[handlers.email]\nattempt_timeout_ms = 90000",
            Some(90_000),
        ),
    ] {
        let chosen = loaded(file, &[], &[])
            .unwrap()
            .attempt_timeout_of("afterwrite.email", "email");
        assert_eq!(chosen.map(|timeout| timeout.as_millis()), expected, "{file}");
    }
}

#[test]
fn the_example_shows_every_default_and_nothing_else() {
    let environment = BTreeMap::from([("WAITLIST_SECRET".to_owned(), "0123456789abcdef".to_owned())]);
    let untouched = format!("{:?}", Config::default());
    let mut section = String::new();
    let mut compared = BTreeSet::new();
    for line in example().lines() {
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']).to_owned();
        }
        let Some(setting) = as_setting(line) else { continue };
        let path = format!("{section}.{}", setting.split(' ').next().unwrap());
        let is_absent_section = ABSENT_SECTIONS.iter().any(|section| path.starts_with(section));
        if is_absent_section || ABSENT.contains(&path.as_str()) {
            continue;
        }
        compared.insert(path.clone());
        let file = File::with(&format!("[{section}]\n{setting}"));
        let inputs = Inputs {
            file: Some(file.0.clone()),
            environment: environment.clone(),
            ..Inputs::default()
        };
        assert_eq!(
            format!("{:?}", load(&inputs).unwrap()),
            untouched,
            "{path} is not shown with its default"
        );
    }
    for path in ["smtp.connections_max", "fraud.hold_confidence", "kafka.brokers"] {
        assert!(compared.contains(path), "{path} was not compared");
    }
}

/// `#key = value` is a setting that is commented out; `# text` is prose.
fn as_setting(line: &str) -> Option<&str> {
    line.strip_prefix('#')
        .filter(|rest| rest.starts_with(|first: char| first.is_ascii_lowercase() || first == '"'))
}

/// The names of a struct's fields, as its deserialiser asks for them.
fn fields_of<'de, T: Deserialize<'de>>() -> BTreeSet<String> {
    let mut fields = BTreeSet::new();
    let asked = T::deserialize(Fields(&mut fields));
    assert!(asked.is_err(), "the questioner never answers");
    fields
}

/// Notes which fields are asked for and answers with an error.
struct Fields<'a>(&'a mut BTreeSet<String>);

impl<'de> Deserializer<'de> for Fields<'_> {
    type Error = FieldsError;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, FieldsError> {
        Err(FieldsError::custom("not a struct"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, FieldsError> {
        self.0.extend(fields.iter().map(|field| (*field).to_owned()));
        Err(FieldsError::custom("only asked"))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}
