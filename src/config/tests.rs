//! What is accepted, what is refused, and that the example file tells the whole truth.

#[cfg(test)]
mod groups;

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

const EXAMPLE: &str = include_str!("../../afterwrite.example.toml");

/// Settings that are absent by default, so that the example can only show what they look like.
const ABSENT: [&str; 26] = [
    "admin.listen",
    "dead_letters.replication_factor",
    "engine.connections_max",
    "kafka.assignor",
    "kafka.heartbeat_interval_ms",
    "kafka.instance_id",
    "kafka.session_timeout_ms",
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
        &["kafka.properties.ssl.ca.location=/ca.pem"],
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
        [("security.protocol", "ssl"), ("ssl.ca.location", "/ca.pem")]
    );
    assert_eq!(config.schedule.analytics_interval.0.as_secs(), 60);
    assert_eq!(config.schedule.fraud_scan_interval.0.as_secs(), 300);
    assert_eq!(config.smtp.port, 465);
}

/// Checks what is said about a file, an environment and flags that are refused.
fn refused(file: &str, environment: &[(&str, &str)], set: &[&str], expected: &str) {
    let message = loaded(file, environment, set).map(|_| ()).expect_err(expected);
    assert_eq!(message.strip_prefix("the configuration was refused: "), Some(expected));
}

#[test]
fn an_unknown_setting_is_named_with_its_place_and_what_was_meant() {
    for (file, expected) in [
        (
            "[kafka]\n\nbrokerz = \"a:1\"",
            "file:3: kafka.brokerz is not a setting; did you mean kafka.brokers?",
        ),
        ("[kafak]", "file:1: kafak is not a setting; did you mean kafka?"),
        (
            "[groups.email]\nlanes = 3",
            "file:2: groups.email.lanes is not a setting; did you mean groups.email.lanes_max?",
        ),
        (
            "[log]\nsyslog = 1",
            "file:2: log.syslog is not a setting; known here: format",
        ),
        (
            "[fraud.checks.velocty]\nenabled = true",
            "file:2: fraud.checks.velocty is not a setting; did you mean fraud.checks.velocity?",
        ),
    ] {
        refused(file, &[], &[], expected);
    }
    refused(
        "",
        &[("AFTERWRITE__KAFKA__BROKER", "a:1")],
        &[],
        "environment variable AFTERWRITE__KAFKA__BROKER: kafka.broker is not a setting; did you mean kafka.brokers?",
    );
    refused(
        "",
        &[("KAFKA_JOB_TOPIC", "jobs")],
        &[],
        "environment variable KAFKA_JOB_TOPIC: topics come from the connector: unset it",
    );
}

#[test]
fn an_impossible_value_is_named_with_its_place_and_the_reason() {
    for (file, expected) in [
        (
            "[engine]\nwait_ms_max = 10",
            "engine.wait_ms_max: it is shorter than the first wait of 1000 ms",
        ),
        (
            "[kafka.properties]\nenable.auto.commit = true",
            "kafka.properties.enable.auto.commit: a position is committed when its work is settled, never by the clock",
        ),
        (
            "[kafka]\nbrokers = \"a\"",
            "kafka.brokers: \"a\" is not written host:port",
        ),
        (
            "[postgres]\nurl = \"mysql://me:hidden@x/y\"",
            "postgres.url: this is not an address such as postgres://user:password@host:5432/database",
        ),
        (
            "[smtp]\npassword = 1234",
            "smtp.password: a secret is a text: put it in quotes",
        ),
        (
            "[smtp]\npassword = \"${env:NOWHERE}\"",
            "smtp.password: the environment variable NOWHERE is not set",
        ),
        (
            "[source]\nformat = \"xml\"",
            "source.format: setting source.format cannot be \"xml\"; it takes auto, json, json_schema, avro",
        ),
        (
            "[fraud.checks.disposable_email]\ncount_max = 3",
            "fraud.checks.disposable_email.count_max: only velocity, duplicate_ip and duplicate_device count",
        ),
        (
            "[admin]\nlisten = \"9464\"",
            "admin.listen: this is not host:port such as localhost:9464, which only this machine reaches, or 0.0.0.0:9464",
        ),
        (
            "[ledger]\nretention_days = 0",
            "ledger.retention_days: it must lie between 1 and 1000",
        ),
        (
            "[handlers.email]\nwas = \"email\"",
            "handlers.email.was: it must be the name that the handler had before",
        ),
        (
            "[handlers.email]\nwas = \"mails\"\n[kafka]\nstart = \"latest\"",
            "handlers.email.was: kafka.start is latest: the group of the new name would begin at the ends of its topics and \
             miss what the old one had not done; set kafka.start to earliest for this start, the ledger knows what was done",
        ),
        (
            "[dead_letters]\nerror_bytes_max = 70000",
            "dead_letters.error_bytes_max: it must lie between 64 and 16384: a letter's headers hold the text twice",
        ),
        (
            "[handlers.email]\nattempt_timeout_ms = 900000",
            "handlers.email.attempt_timeout_ms: it is not shorter than engine.effect_lease_ms (120000 ms): another \
             process would repeat a mail that is still being sent",
        ),
        (
            "[groups.email]\nattempt_timeout_ms = 900000",
            "groups.email.attempt_timeout_ms: it is not shorter than engine.effect_lease_ms (120000 ms): another \
             process would repeat a mail that is still being sent",
        ),
    ] {
        refused(file, &[], &[], &format!("file:2: {expected}"));
    }
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
        "file:4: kafka.group_prefix: groups and dead-letter topics begin with it: letters, digits, dot, underscore and \
         hyphen only",
    );
    refused(
        "[source]\nkind = \"files\"",
        &[],
        &[],
        "file:2: source.kind: unknown variant `files`, expected `kafka` or `wal`",
    );
}

#[test]
fn an_impossible_value_is_named_wherever_it_was_set() {
    refused(
        "[smtp]\nhost = \"relay\"\nuser = \"u\"\npassword = \"hidden\"\ntls = \"none\"",
        &[],
        &[],
        "file:5: smtp.tls: the password would cross the network in clear text",
    );
    refused(
        "",
        &[],
        &["engine.lanes_max=many"],
        "--set: engine.lanes_max: invalid type: string \"many\", expected usize",
    );
    refused(
        "",
        &[("KAFKA_WORKER_POOL_SIZE", "0")],
        &[],
        "environment variable KAFKA_WORKER_POOL_SIZE: engine.lanes_max: it must lie between 1 and 10,000",
    );
    let syntax = loaded("[kafka]\nbrokers = ", &[], &[]).map(|_| ()).unwrap_err();
    assert!(syntax.starts_with("file:2: this is not TOML: "), "{syntax}");
}

#[test]
fn a_property_that_would_be_overwritten_is_refused() {
    for (name, reason) in [
        ("isolation.level", "never read"),
        ("enable.partition.eof", "waits for the next record"),
        ("allow.auto.create.topics", "made by the connector"),
        ("acks", "all in-sync replicas"),
        ("request.required.acks", "all in-sync replicas"),
        ("enable.idempotence", "not written again"),
        ("delivery.timeout.ms", "dead_letters.write_timeout_ms"),
        ("message.timeout.ms", "dead_letters.write_timeout_ms"),
        ("message.max.bytes", "dead_letters.message_bytes_max"),
        ("linger.ms", "at once"),
        ("queue.buffering.max.ms", "at once"),
    ] {
        let set = format!("kafka.properties.{name}=1");
        let message = loaded("", &[], &[&set]).map(|_| ()).expect_err(name);
        let place = format!("--set: kafka.properties.{name}: ");
        assert!(message.contains(&place) && message.contains(reason), "{message}");
    }
}

#[test]
fn a_replay_sends_something_and_not_for_ever() {
    for set in ["replay_rate_max=0", "replay_rate_max=10001", "replays_max=0"] {
        let set = format!("dead_letters.{set}");
        let message = loaded("", &[], &[&set]).map(|_| ()).expect_err(&set);
        let (setting, _) = set.split_once('=').unwrap();
        assert!(message.contains(setting), "{message}");
    }
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
    let message = loaded("[kafka]\na = 1\nb = 2", &[], &["x=1"]).map(|_| ()).unwrap_err();
    assert_eq!(message.lines().count(), 4, "{message}");
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
    for line in EXAMPLE.lines() {
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
            set: Vec::new(),
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
