//! Reading the configuration: file, environment, flags; each setting checked where it was made.
//!
//! Every setting is checked alone before all are merged. So each mistake has exactly one place, and all are reported at
//! once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Table, Value};

use super::refusal::{Place, Refusal, explain};
use super::{Config, check, file, reference};

/// Read from the working directory when no file is named.
const DEFAULT_FILE: &str = "afterwrite.toml";

/// Start of every variable that is a setting: `AFTERWRITE__KAFKA__BROKERS`.
const PREFIX: &str = "AFTERWRITE__";

/// Names of older deployments and what they set.
const OLDER_NAMES: [(&str, &str); 13] = [
    ("DATABASE_URL", "postgres.url"),
    ("KAFKA_BROKERS", "kafka.brokers"),
    ("KAFKA_JOB_CONSUMER_GROUP", "kafka.group_prefix"),
    ("KAFKA_WORKER_POOL_SIZE", "engine.lanes_max"),
    ("CONNECT_URL", "connect.url"),
    ("SCHEMA_REGISTRY_URL", "registry.url"),
    ("SMTP_HOST", "smtp.host"),
    ("SMTP_PORT", "smtp.port"),
    ("SMTP_USER", "smtp.user"),
    ("SMTP_PASSWORD", "smtp.password"),
    ("EMAIL_FROM_ADDRESS", "smtp.from_address"),
    ("ANALYTICS_INTERVAL", "schedule.analytics_interval"),
    ("FRAUD_DETECTION_INTERVAL", "schedule.fraud_scan_interval"),
];

/// A name of older deployments that no setting can honour.
const REFUSED_NAME: &str = "KAFKA_JOB_TOPIC";

/// Where settings come from.
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    /// The file that was named; it must exist then.
    pub file: Option<PathBuf>,
    /// The environment.
    pub environment: BTreeMap<String, String>,
    /// `section.key=value`, in order.
    pub set: Vec<String>,
}

impl Inputs {
    /// The named file or `afterwrite.toml` where there is one, and this process's environment.
    pub fn of_process(file: Option<&Path>, set: &[String]) -> Self {
        let default = || Path::new(DEFAULT_FILE).exists().then(|| PathBuf::from(DEFAULT_FILE));
        Self {
            file: file.map(Path::to_owned).or_else(default),
            environment: std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .collect(),
            set: set.to_vec(),
        }
    }
}

/// Why the configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration file {} could not be read", path.display())]
    ReadFile {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{}:{line}: this is not TOML: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where in it.
        line: usize,
        /// What the parser says.
        message: String,
    },
    /// Settings that are unknown or impossible.
    #[error("the configuration was refused: {}", listed(.0))]
    Refused(
        /// All of them.
        Vec<Refusal>,
    ),
}

fn listed(refusals: &[Refusal]) -> String {
    match refusals {
        [only] => only.to_string(),
        many => many.iter().map(|refusal| format!("\n  {refusal}")).collect(),
    }
}

/// Reads, merges and checks all settings.
///
/// # Errors
/// Everything that is wrong, each with its place.
pub fn load(inputs: &Inputs) -> Result<Config, ConfigError> {
    let mut settings = Vec::new();
    let mut refusals = Vec::new();
    if let Some(path) = &inputs.file {
        settings.extend(from_file(path)?);
    }
    from_environment(&inputs.environment, &mut settings, &mut refusals);
    from_flags(&inputs.set, &mut settings, &mut refusals);

    let mut merged = Table::new();
    let mut places = BTreeMap::new();
    for setting in settings {
        match setting.checked(&inputs.environment) {
            Ok(value) => {
                places.insert(setting.path.join("."), setting.place);
                put(&mut merged, &setting.path, value);
            }
            Err(text) => refusals.push(Refusal {
                place: setting.place,
                text,
            }),
        }
    }
    if !refusals.is_empty() {
        return Err(ConfigError::Refused(refusals));
    }
    let config: Config = merged.try_into().map_err(|error: toml::de::Error| {
        ConfigError::Refused(vec![Refusal {
            place: Place::Default,
            text: error.to_string(),
        }])
    })?;
    let impossible = check::check(&config);
    if impossible.is_empty() {
        return Ok(config);
    }
    let placed = impossible.into_iter().map(|(path, reason)| Refusal {
        place: places.get(&path).cloned().unwrap_or(Place::Default),
        text: format!("{path}: {reason}"),
    });
    Err(ConfigError::Refused(placed.collect()))
}

/// One setting before it is merged.
#[derive(Debug)]
struct Setting {
    path: Vec<String>,
    value: Written,
    place: Place,
}

/// How a setting was written.
#[derive(Debug)]
enum Written {
    /// In TOML, with its type.
    Typed(Value),
    /// As a bare text, whose type follows from the setting.
    Bare(String),
}

impl Setting {
    /// The value, if the setting alone is acceptable.
    fn checked(&self, environment: &BTreeMap<String, String>) -> Result<Value, String> {
        let refused = |reason: &str| format!("{}: {reason}", self.path.join("."));
        match &self.value {
            Written::Typed(value) => {
                let value = resolved(value.clone(), environment).map_err(|reason| refused(&reason))?;
                self.accept(value).map_err(|message| explain(&self.path, &message))
            }
            Written::Bare(text) => {
                let text = reference::resolve(text, environment).map_err(|reason| refused(&reason))?;
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

fn resolved(value: Value, environment: &BTreeMap<String, String>) -> Result<Value, String> {
    match value {
        Value::String(text) => reference::resolve(&text, environment).map(Value::String),
        Value::Array(values) => values
            .into_iter()
            .map(|value| resolved(value, environment))
            .collect::<Result<Vec<_>, _>>()
            .map(Value::Array),
        other => Ok(other),
    }
}

/// Puts a value into nested tables; whatever stood there before is replaced.
fn put(table: &mut Table, path: &[String], value: Value) {
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

fn from_file(path: &Path) -> Result<Vec<Setting>, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::ReadFile {
        path: path.to_owned(),
        source,
    })?;
    let leaves = file::leaves(&text).map_err(|syntax| ConfigError::Syntax {
        path: path.to_owned(),
        line: syntax.line,
        message: syntax.message,
    })?;
    let name = path.display().to_string();
    Ok(leaves
        .into_iter()
        .map(|leaf| Setting {
            path: leaf.path,
            value: Written::Typed(leaf.value),
            place: Place::File {
                name: name.clone(),
                line: leaf.line,
            },
        })
        .collect())
}

fn from_environment(environment: &BTreeMap<String, String>, settings: &mut Vec<Setting>, refusals: &mut Vec<Refusal>) {
    let place = |name: &str| Place::Environment { name: name.to_owned() };
    if environment.get(REFUSED_NAME).is_some_and(|value| !value.is_empty()) {
        refusals.push(Refusal {
            place: place(REFUSED_NAME),
            text: "topics come from the connector: unset it".to_owned(),
        });
    }
    for (name, path) in OLDER_NAMES {
        // Compose files pass variables that are not set as empty ones.
        if let Some(value) = environment.get(name).filter(|value| !value.is_empty()) {
            settings.push(Setting {
                path: path.split('.').map(str::to_owned).collect(),
                value: Written::Bare(value.clone()),
                place: place(name),
            });
        }
    }
    for (name, value) in environment {
        let Some(rest) = name.strip_prefix(PREFIX) else {
            continue;
        };
        let mut path: Vec<String> = rest.split("__").map(str::to_ascii_lowercase).collect();
        if let [section, table, property] = path.as_mut_slice()
            && section == "kafka"
            && table == "properties"
        {
            // A variable's name cannot contain dots, and a client's property contains no underscores.
            *property = property.replace('_', ".");
        }
        settings.push(Setting {
            path,
            value: Written::Bare(value.clone()),
            place: place(name),
        });
    }
}

fn from_flags(set: &[String], settings: &mut Vec<Setting>, refusals: &mut Vec<Refusal>) {
    for argument in set {
        let Some((path, value)) = argument.split_once('=') else {
            refusals.push(Refusal {
                place: Place::Flag,
                text: "write --set section.key=value".to_owned(),
            });
            continue;
        };
        let path = match path.trim().strip_prefix("kafka.properties.") {
            Some(property) => vec!["kafka".to_owned(), "properties".to_owned(), property.to_owned()],
            None => path.trim().split('.').map(str::to_owned).collect(),
        };
        settings.push(Setting {
            path,
            value: Written::Bare(value.to_owned()),
            place: Place::Flag,
        });
    }
}
