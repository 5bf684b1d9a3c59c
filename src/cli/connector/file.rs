//! Connector files: one flat JSON object, the configuration of one connector, or that under `config` beside its `name`, as
//! it is sent to Kafka Connect to make one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::ConnectorFailure;
use crate::cli::Failure;
use crate::clients::connect::ConnectorConfig;

/// Where connectors are looked for by name.
pub(in crate::cli) const FOLDER: &str = "connectors";

/// What a connector file asks for.
#[derive(Debug)]
pub(in crate::cli) struct Wanted {
    pub(in crate::cli) name: String,
    /// With the key `name`, as Connect itself keeps it.
    pub(in crate::cli) config: ConnectorConfig,
}

/// Reads a file, or the file a name stands for.
pub(in crate::cli) fn read(file: &str) -> Result<Wanted, Failure> {
    let is_name = !file.contains(['/', '.']);
    let path = match is_name {
        true => Path::new(FOLDER).join(format!("{file}.json")),
        false => PathBuf::from(file),
    };
    let text = std::fs::read_to_string(&path).map_err(|source| {
        Failure::usage(ConnectorFailure::Read {
            path: path.clone(),
            source,
        })
    })?;
    let value = serde_json::from_str(&text).map_err(|source| {
        Failure::usage(ConnectorFailure::Json {
            path: path.clone(),
            source,
        })
    })?;
    wanted(&path, value).map_err(|reason| Failure::usage(ConnectorFailure::Shape { path, reason }))
}

fn wanted(path: &Path, value: Value) -> Result<Wanted, String> {
    let Value::Object(mut fields) = value else {
        return Err("it is not a JSON object".to_owned());
    };
    if let Some(Value::Object(inner)) = fields.get("config") {
        let mut inner = inner.clone();
        fields.remove("config");
        inner.extend(fields.remove_entry("name"));
        if let Some(other) = fields.keys().next() {
            return Err(format!("{other} stands beside config, and would be left out"));
        }
        fields = inner;
    }
    let mut config = ConnectorConfig::new();
    for (key, value) in fields {
        let text = match value {
            Value::String(text) => text,
            Value::Number(number) => number.to_string(),
            Value::Bool(value) => value.to_string(),
            Value::Null | Value::Array(_) | Value::Object(_) => {
                return Err(format!("the value of {key} is neither text, number nor boolean"));
            }
        };
        config.insert(key, text);
    }
    if !config.contains_key("connector.class") {
        return Err("connector.class is missing".to_owned());
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let name = config.entry("name".to_owned()).or_insert(stem).clone();
    if name.is_empty() {
        return Err("the connector has no name".to_owned());
    }
    Ok(Wanted { name, config })
}

/// The keys that differ between two configurations.
pub(in crate::cli) fn differing(before: &ConnectorConfig, after: &ConnectorConfig) -> Vec<String> {
    let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    keys.into_iter()
        .filter(|key| before.get(*key) != after.get(*key))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_connector_is_called_as_it_says_or_like_its_file() {
        let path = Path::new("connectors/orders.json");
        let class = "io.debezium.connector.postgresql.PostgresConnector";
        let unnamed = wanted(path, json!({"connector.class": class, "tasks.max": 1, "a": true})).unwrap();
        assert_eq!(unnamed.name, "orders");
        assert_eq!(unnamed.config["tasks.max"], "1");
        let named = wanted(path, json!({"connector.class": class, "name": "mine"})).unwrap();
        assert_eq!(named.name, "mine");
        let wrapped = json!({"name": "outer", "config": {"connector.class": class, "tasks.max": 1}});
        let wrapped = wanted(path, wrapped).unwrap();
        assert_eq!(
            (wrapped.name.as_str(), wrapped.config["tasks.max"].as_str()),
            ("outer", "1")
        );
        let beside = json!({"name": "outer", "initial_state": "STOPPED", "config": {"connector.class": class}});
        assert!(wanted(path, beside).unwrap_err().contains("initial_state"));
        for wrong in [json!([]), json!({}), json!({"connector.class": class, "a": {}})] {
            assert!(wanted(path, wrong).is_err());
        }
    }

    #[test]
    fn changes_are_told_by_key_and_never_by_value() {
        let before = ConnectorConfig::from([("a".into(), "1".into()), ("b".into(), "hidden".into())]);
        let after = ConnectorConfig::from([("a".into(), "1".into()), ("c".into(), "hidden".into())]);
        assert_eq!(differing(&before, &after), ["b", "c"]);
        assert!(differing(&before, &before).is_empty());
    }
}
