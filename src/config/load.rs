//! Reading the configuration: file, environment, flags; each setting checked where it was made.
//!
//! Every setting is checked alone before all are merged. So each mistake has exactly one place, and all are reported at
//! once. What rests on a setting that was refused itself is not reported: it may be right.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::refusal::{Place, Refusal, Wrong};
use super::setting::{Setting, Written, put};
use super::warning::{self, Warning};
use super::wording::explain;
use super::{Config, check, file, files};

/// Read from the working directory when no file is named.
const DEFAULT_FILE: &str = "afterwrite.toml";

/// Start of every variable that is a setting: `AFTERWRITE__KAFKA__BROKERS`.
pub(super) const PREFIX: &str = "AFTERWRITE__";

/// Names of older deployments, and of Rust, and what they set.
pub(super) const OLDER_NAMES: [(&str, &str); 14] = [
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
    ("RUST_LOG", "log.filter"),
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
    /// Variables of the environment whose values are no text.
    pub not_text: BTreeSet<String>,
    /// `section.key=value`, in order.
    pub set: Vec<String>,
}

impl Inputs {
    /// The named file or `afterwrite.toml` where there is one, and this process's environment.
    pub fn of_process(file: Option<&Path>, set: &[String]) -> Self {
        let default = || Path::new(DEFAULT_FILE).exists().then(|| PathBuf::from(DEFAULT_FILE));
        let (mut environment, mut not_text) = (BTreeMap::new(), BTreeSet::new());
        for (name, value) in std::env::vars_os() {
            let Ok(name) = name.into_string() else { continue };
            match value.into_string() {
                Ok(value) => drop(environment.insert(name, value)),
                Err(_) => drop(not_text.insert(name)),
            }
        }
        Self {
            file: file.map(Path::to_owned).or_else(default),
            environment,
            not_text,
            set: set.to_vec(),
        }
    }
}

/// Why the configuration was refused.
#[derive(Debug, thiserror::Error)]
#[error("the configuration was refused: {}", listed(.0))]
pub struct ConfigError(
    /// All that is wrong.
    pub Vec<Refusal>,
);

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
    read(inputs).accepted().map(|reading| reading.config)
}

/// A configuration with where each of its settings was made, and what is wrong with it.
#[derive(Default)]
pub struct Reading {
    /// The settings; not to be worked with where something was refused.
    pub config: Config,
    /// What was refused.
    pub refusals: Vec<Refusal>,
    /// What is legal and probably not meant.
    pub warnings: Vec<Warning>,
    /// The file that was read, as it was named.
    pub file: Option<String>,
    made: BTreeMap<String, Made>,
    /// Nothing can be said of what fits together, because the file could not be read.
    is_half: bool,
}

/// Where a setting was made, and what it is: never to be printed.
#[derive(PartialEq)]
struct Made {
    place: Place,
    value: Value,
    /// As it was written, where a part of it was fetched from a variable or a file.
    reference: Option<Value>,
}

impl Reading {
    /// What is wrong, with its place: where the setting was made, or the first one of its section.
    fn placed(&self, wrong: Wrong) -> Refusal {
        Refusal {
            place: self.place_of(&wrong.setting),
            wrong,
        }
    }

    /// Refuses what a program says against it, but for what may follow from settings that were refused already.
    pub fn refuse(&mut self, wrong: Vec<Wrong>) {
        // Half a file says nothing about what fits together.
        if self.is_half {
            return;
        }
        let refused: Vec<String> = self
            .refusals
            .iter()
            .map(|refusal| refusal.wrong.setting.clone())
            .collect();
        let sound = wrong.into_iter().filter(|wrong| !rests_on(wrong, &refused));
        let placed: Vec<Refusal> = sound.map(|wrong| self.placed(wrong)).collect();
        self.refusals.extend(placed);
        self.refusals.sort_by(|one, other| one.place.cmp(&other.place));
    }

    /// The same, for whoever works with it.
    ///
    /// # Errors
    /// All that was refused.
    pub fn accepted(self) -> Result<Self, ConfigError> {
        match self.refusals.is_empty() {
            true => Ok(self),
            false => Err(ConfigError(self.refusals)),
        }
    }

    /// Where a setting was made, or the first one of its section.
    pub(super) fn place_of(&self, setting: &str) -> Place {
        let below = format!("{setting}.");
        let mut within = self
            .made
            .range(below.clone()..)
            .take_while(|(path, _)| path.starts_with(&below));
        let found = self.made.get(setting).or_else(|| within.next().map(|(_, made)| made));
        found.map_or(Place::Default, |made| made.place.clone())
    }

    /// The setting as it was written, where a part of it was fetched from a variable or a file by `${…}`.
    pub(super) fn reference(&self, setting: &str) -> Option<&Value> {
        self.made.get(setting)?.reference.as_ref()
    }

    /// The settings that were made at all, with their places.
    pub(super) fn made(&self) -> impl Iterator<Item = (&str, &Place)> {
        self.made.iter().map(|(path, made)| (path.as_str(), &made.place))
    }

    /// Settings that have another value than in `other`, wherever they were made.
    pub fn differing(&self, other: &Self) -> Vec<String> {
        let value = |reading: &Self, path: &str| reading.made.get(path).map(|made| made.value.clone());
        let paths: BTreeSet<&String> = self.made.keys().chain(other.made.keys()).collect();
        let differing = paths.into_iter().filter(|path| value(self, path) != value(other, path));
        differing.cloned().collect()
    }

    /// Takes one setting over from another reading, which was accepted.
    pub fn adopt(&mut self, setting: &str, other: &mut Self) {
        match other.made.remove(setting) {
            Some(made) => drop(self.made.insert(setting.to_owned(), made)),
            None => drop(self.made.remove(setting)),
        }
    }
}

/// Reads, merges and checks all settings, and says all that can be said of them.
pub fn read(inputs: &Inputs) -> Reading {
    let mut reading = Reading {
        file: inputs.file.as_deref().map(|file| file.display().to_string()),
        ..Reading::default()
    };
    let mut settings = Vec::new();
    match inputs.file.as_deref().map_or(Ok(Vec::new()), from_file) {
        Ok(written) => settings.extend(written),
        Err(refusals) => {
            reading.is_half = true;
            reading.refusals.extend(refusals);
        }
    }
    from_environment(inputs, &mut settings, &mut reading.refusals);
    from_flags(&inputs.set, &mut settings, &mut reading.refusals);

    let mut merged = Table::new();
    for setting in settings {
        let path = setting.path.join(".");
        match setting.checked(inputs) {
            Ok(value) => {
                put(&mut merged, &setting.path, value.clone());
                let made = Made {
                    reference: setting.reference(),
                    place: setting.place,
                    value,
                };
                reading.made.insert(path, made);
            }
            Err(wrong) => reading.refusals.push(Refusal {
                place: setting.place,
                wrong,
            }),
        }
    }
    match merged.try_into::<Config>() {
        Ok(config) => reading.config = config,
        Err(error) => {
            let wrong = explain(&[], error.message());
            reading.refusals.push(reading.placed(wrong));
            reading.is_half = true;
            return reading;
        }
    }
    let impossible = check::check(&reading.config);
    reading.refuse(impossible);
    let variable = |name: &str| inputs.environment.get(name).cloned();
    let missing = files::check(&reading.config, variable);
    reading.refuse(missing);
    reading.warnings = warning::warnings(&reading, inputs);
    reading
}

/// Whether what is wrong may follow from a setting that was refused by itself, and of which the default was looked at.
fn rests_on(wrong: &Wrong, refused: &[String]) -> bool {
    const OF_A_KIND: [&str; 4] = ["kafka.", "registry.", "wal.", "engine.revoke_grace_ms"];
    refused.iter().any(|setting| {
        let key = setting.rsplit('.').next().filter(|key| key.contains('_'));
        let is_named = wrong.reason.contains(setting.as_str()) || key.is_some_and(|key| wrong.reason.contains(key));
        let is_of_kind = OF_A_KIND.iter().any(|start| wrong.setting.starts_with(start))
            || wrong.setting.ends_with(".was")
            || wrong.setting.ends_with(".topics");
        !setting.is_empty() && (is_named || wrong.setting == *setting) || setting == "source.kind" && is_of_kind
    })
}

fn from_file(path: &Path) -> Result<Vec<Setting>, Vec<Refusal>> {
    let name = path.display().to_string();
    let place = |line| Place::File {
        file: name.clone(),
        line,
    };
    let refused = |line, reason: String, remedy: &str| Refusal {
        place: place(line),
        wrong: Wrong::new("", reason, remedy),
    };
    let bytes = std::fs::read(path).map_err(|error| vec![unreadable(place(None), &error)])?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        let reason = "a byte here is not UTF-8, which TOML is written in".to_owned();
        vec![refused(Some(line), reason, "save the file as UTF-8")]
    })?;
    let leaves = file::leaves(&text).map_err(|mistakes| {
        let said = mistakes.into_iter().map(|syntax| {
            let remedy = match syntax.message.contains("duplicate") {
                true => "leave one of the two out",
                false => "write key = value, texts in quotes and sections as [name]",
            };
            refused(
                Some(syntax.line),
                format!("this is not TOML: {}", syntax.message),
                remedy,
            )
        });
        said.collect::<Vec<_>>()
    })?;
    let settings = leaves.into_iter().map(|leaf| Setting {
        path: leaf.path,
        value: Written::Typed(leaf.value),
        place: place(Some(leaf.line)),
    });
    Ok(settings.collect())
}

fn unreadable(place: Place, error: &io::Error) -> Refusal {
    let (reason, remedy) = match error.kind() {
        io::ErrorKind::NotFound => (
            "the file is not there".to_owned(),
            "name another one with --config, or leave that out",
        ),
        io::ErrorKind::PermissionDenied => (
            "the file may not be read".to_owned(),
            "give this user the right to read it",
        ),
        _ => (
            format!("the file could not be read ({error})"),
            "name a file with --config",
        ),
    };
    Refusal {
        place,
        wrong: Wrong::new("", reason, remedy),
    }
}

fn from_environment(inputs: &Inputs, settings: &mut Vec<Setting>, refusals: &mut Vec<Refusal>) {
    let environment = &inputs.environment;
    let place = |name: &str| Place::Environment {
        variable: name.to_owned(),
    };
    if environment.get(REFUSED_NAME).is_some_and(|value| !value.is_empty()) {
        refusals.push(Refusal {
            place: place(REFUSED_NAME),
            wrong: Wrong::new("", "topics come from the connector", "unset it"),
        });
    }
    let is_setting = |name: &str| name.starts_with(PREFIX) || OLDER_NAMES.iter().any(|(older, _)| *older == name);
    for name in inputs.not_text.iter().filter(|name| is_setting(name)) {
        refusals.push(Refusal {
            place: place(name),
            wrong: Wrong::new("", "its value is not UTF-8", "set it to a text, or unset it"),
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
                wrong: Wrong::new("", "what follows it has no =", "write --set section.key=value"),
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
