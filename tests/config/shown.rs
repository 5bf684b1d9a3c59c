//! What is in effect, and where it comes from.

use serde_json::{Value, json};

use crate::{Folder, in_repository, said, text};

fn shown(folder: &Folder, arguments: &[&str]) -> Vec<Value> {
    let mut command = folder.afterwrite();
    command
        .env("KAFKA_BROKERS", "from-older:1")
        .env("AFTERWRITE__ENGINE__LANES_MAX", "7")
        .env("NAME", "worker-1");
    let output = command
        .args(["config", "show", "--output", "json"])
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn each_setting_is_shown_with_its_value_and_its_origin() {
    let folder = Folder::new();
    let file = "[postgres]\nurl = \"postgres://me:hidden@localhost:5433/x\"\n[kafka]\nbrokers = \"from-file:1\"\n\
                instance_id = \"${env:NAME}\"\n[groups.email]\nlanes_max = 3\n[schedule]\nanalytics_interval = 5400\n\
                [kafka.properties]\nclient.id = \"me\"\nsasl.password = \"hidden\"\n";
    folder.write("afterwrite.toml", file.as_bytes());
    let all = shown(&folder, &["--set", "smtp.port=465"]);
    let file = |line: u32| json!({"kind": "file", "file": "afterwrite.toml", "line": line});
    for (setting, value, origin) in [
        ("postgres.url", json!("postgres://me:***@localhost:5433/x"), file(2)),
        (
            "kafka.brokers",
            json!("from-older:1"),
            json!({"kind": "environment", "variable": "KAFKA_BROKERS"}),
        ),
        (
            "engine.lanes_max",
            json!(7),
            json!({"kind": "environment", "variable": "AFTERWRITE__ENGINE__LANES_MAX"}),
        ),
        ("smtp.port", json!(465), json!({"kind": "flag"})),
        ("kafka.instance_id", json!("${env:NAME}"), file(5)),
        ("groups.email.lanes_max", json!(3), file(7)),
        ("schedule.analytics_interval", json!("1h30m"), file(9)),
        ("kafka.properties.client.id", json!("me"), file(11)),
        ("kafka.properties.sasl.password", json!("***"), file(12)),
        ("engine.attempts_max", json!(5), json!({"kind": "default"})),
        ("wal.url", Value::Null, json!({"kind": "default"})),
        ("fraud.hold_confidence", json!(0.8), json!({"kind": "default"})),
    ] {
        let found = all
            .iter()
            .find(|shown| shown["setting"] == setting)
            .unwrap_or_else(|| panic!("{setting}"));
        assert_eq!((&found["value"], &found["origin"]), (&value, &origin), "{setting}");
    }
    // Everything of the reference is shown, but for sections that are called after something.
    assert!(all.len() > 100, "only {}", all.len());
    let changed = shown(&folder, &["--changed"]);
    assert_eq!(changed.len(), 8, "{changed:?}");
}

#[test]
fn the_table_says_the_same_to_people() {
    let folder = Folder::new();
    let output = folder
        .afterwrite()
        .args(["config", "show", "--changed", "--set", "smtp.port=465"])
        .output()
        .unwrap();
    let lines: Vec<String> = text(&output.stdout)
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(lines, ["SETTING VALUE FROM", "smtp.port 465 --set"]);
}

#[test]
fn the_reference_is_the_example_and_reads_no_configuration() {
    let folder = Folder::new();
    folder.write("afterwrite.toml", b"this is no TOML");
    let output = folder.afterwrite().args(["config", "reference"]).output().unwrap();
    let example = std::fs::read_to_string(in_repository("afterwrite.example.toml")).unwrap();
    assert!(
        output.status.success() && text(&output.stdout) == example,
        "{}",
        said(&output)
    );
    let output = folder
        .afterwrite()
        .args(["config", "reference", "--set", "a=b"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
}
