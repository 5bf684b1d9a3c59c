//! The examples of the manual are configurations that work: each is accepted, and librdkafka knows every property in it.

use rdkafka::ClientConfig;
use toml::{Table, Value};

use crate::{Folder, in_repository, said};

/// The blocks of TOML of a document that set something about Kafka.
fn examples(path: &str) -> Vec<String> {
    let document = std::fs::read_to_string(in_repository(path)).unwrap();
    let blocks = document.split("```toml\n").skip(1);
    blocks
        .filter_map(|rest| rest.split("\n```").next())
        .filter(|block| block.contains("[kafka"))
        .map(str::to_owned)
        .collect()
}

/// Without references, and with a file that is there: what they name is not on this machine.
fn filled_in(example: &str) -> String {
    let lines = example.lines().map(|line| match line.split_once(".location\" = ") {
        Some((name, _)) => format!("{name}.location\" = \"/dev/null\"\n"),
        None => format!("{line}\n"),
    });
    let example: String = lines.collect();
    let mut parts = example.split("${");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + "filled-in" + part.split_once('}').unwrap().1)
}

#[test]
fn every_example_of_brokers_is_accepted_and_known_to_the_client() {
    let examples = examples("docs/OPERATIONS.md");
    let with_login = examples.iter().filter(|example| example.contains("security.protocol"));
    assert!(with_login.count() >= 4, "examples are missing");
    for example in examples {
        let folder = Folder::new();
        folder.write("afterwrite.toml", filled_in(&example).as_bytes());
        let output = folder.afterwrite().args(["config", "check"]).output().unwrap();
        let said = said(&output);
        assert_eq!(output.status.code(), Some(0), "{example}\n{said}");
        assert!(!said.contains("kafka."), "{example}\n{said}");
        let parsed: Table = filled_in(&example).parse().unwrap();
        let properties = parsed["kafka"].get("properties").and_then(Value::as_table);
        let mut client = ClientConfig::new();
        for (name, value) in properties.into_iter().flatten() {
            client.set(name, value.as_str().unwrap());
        }
        client
            .create_native_config()
            .unwrap_or_else(|error| panic!("{example}\n{error}"));
    }
}
