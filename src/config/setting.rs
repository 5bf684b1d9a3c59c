//! One setting before it is merged with the others: what it refers to is fetched, and it is checked alone.

use serde::Deserialize;
use toml::{Table, Value};

use super::load::Inputs;
use super::refusal::{Place, Wrong};
use super::wording::explain;
use super::{Config, interpolation};

/// One setting before it is merged.
pub(super) struct Setting {
    pub(super) path: Vec<String>,
    pub(super) value: Written,
    pub(super) place: Place,
}

/// How a setting was written.
pub(super) enum Written {
    /// In TOML, with its type.
    Typed(Value),
    /// As a bare text, whose type follows from the setting.
    Bare(String),
}

impl Setting {
    /// The value, if the setting alone is acceptable.
    pub(super) fn checked(&self, inputs: &Inputs) -> Result<Value, Wrong> {
        let refused = |(reason, remedy)| Wrong::new(self.path.join("."), reason, remedy);
        match &self.value {
            Written::Typed(value) => {
                let value = resolved(value.clone(), inputs).map_err(refused)?;
                self.accept(value).map_err(|message| explain(&self.path, &message))
            }
            Written::Bare(text) => {
                let text = interpolation::resolve(text, inputs).map_err(refused)?;
                if self.is_a_handlers_own() {
                    return Ok(as_toml(&text).unwrap_or(Value::String(text)));
                }
                let as_text = match self.accept(Value::String(text.clone())) {
                    Ok(value) => return Ok(value),
                    Err(message) => message,
                };
                // Numbers, booleans and lists are written as in TOML.
                match as_toml(&text).map(|value| self.accept(value)) {
                    Some(Ok(value)) => Ok(value),
                    Some(Err(message)) => Err(explain(&self.path, &message)),
                    None => Err(explain(&self.path, &as_text)),
                }
            }
        }
    }

    /// It as it was written, where a part of it is fetched from a variable or a file.
    pub(super) fn reference(&self) -> Option<Value> {
        match &self.value {
            Written::Typed(value) => Some(value.clone()),
            Written::Bare(text) => Some(Value::String(text.clone())),
        }
        .filter(has_reference)
    }

    /// Whether its type follows from nothing that is known here.
    fn is_a_handlers_own(&self) -> bool {
        matches!(self.path.as_slice(), [section, _, settings, _, ..] if section == "handlers" && settings == "settings")
    }

    fn accept(&self, value: Value) -> Result<Value, String> {
        let mut alone = Table::new();
        put(&mut alone, &self.path, value.clone());
        match Config::deserialize(alone) {
            Ok(_) => Ok(value),
            Err(error) => Err(error.message().to_owned()),
        }
    }
}

/// A bare text as a value of TOML, where it is one.
fn as_toml(text: &str) -> Option<Value> {
    let parsed = format!("value = {text}").parse::<Table>().ok();
    parsed.and_then(|mut table| table.remove("value"))
}

fn has_reference(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains("${"),
        Value::Array(values) => values.iter().any(has_reference),
        _ => false,
    }
}

fn resolved(value: Value, inputs: &Inputs) -> Result<Value, (String, String)> {
    match value {
        Value::String(text) => interpolation::resolve(&text, inputs).map(Value::String),
        Value::Array(values) => values
            .into_iter()
            .map(|value| resolved(value, inputs))
            .collect::<Result<Vec<_>, _>>()
            .map(Value::Array),
        other => Ok(other),
    }
}

/// Puts a value into nested tables; whatever stood there before is replaced.
pub(super) fn put(table: &mut Table, path: &[String], value: Value) {
    let [head, rest @ ..] = path else { return };
    if rest.is_empty() {
        // An empty [section] after a filled one must not empty it.
        let is_empty_table = value.as_table().is_some_and(Table::is_empty);
        if !(is_empty_table && table.contains_key(head)) {
            table.insert(head.clone(), value);
        }
        return;
    }
    let inner = table.entry(head.clone()).or_insert_with(|| Value::Table(Table::new()));
    if !inner.is_table() {
        *inner = Value::Table(Table::new());
    }
    if let Value::Table(inner) = inner {
        put(inner, rest, value);
    }
}
