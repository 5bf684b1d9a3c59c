//! What a decoder has to be told because the bytes do not say it.
//!
//! Every setting has the value that the recommended connector configuration produces as its default. Values are spelt
//! as in Debezium's own settings.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::decode::tables::Tables;
use crate::event::modes::{Bytes, Decimals, Integers, Intervals, Modes};

/// The signal tables of a connector that names them as the documentation does.
pub const SIGNAL_TABLES: [&str; 2] = ["*.debezium_signal", "dbz.signal*"];

/// Debezium's default of `topic.heartbeat.prefix`.
pub const HEARTBEAT_PREFIX: &str = "__debezium-heartbeat";

/// Debezium's default of `unavailable.value.placeholder`.
pub const UNAVAILABLE_PLACEHOLDER: &str = "__debezium_unavailable_value";

/// How records of one source are to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Encoding of values; `auto` looks at each of them.
    pub format: Format,
    /// Encoding of keys, where it is another one than that of values.
    pub key_format: Option<Format>,
    /// Signal tables, whose rows are skipped.
    pub signal_tables: Tables,
    /// Tables with `REPLICA IDENTITY FULL`: of these, and of no others, an old row is whole.
    pub full_identity: Tables,
    /// `topic.heartbeat.prefix` of the connector.
    pub heartbeat_prefix: String,
    /// `topic.heartbeat.name` of the connector, where one is set.
    pub heartbeat_topic: Option<String>,
    /// `unavailable.value.placeholder` of the connector.
    pub unavailable_placeholder: String,
    /// `decimal.handling.mode`; matters only to JSON without schema.
    pub decimal: DecimalMode,
    /// `time.precision.mode`; matters only to JSON without schema.
    pub time_precision: TimePrecision,
    /// `interval.handling.mode`; matters only to JSON without schema.
    pub interval: IntervalMode,
    /// `binary.handling.mode`; matters only to JSON without schema.
    pub binary: BinaryMode,
    /// Decode rows read by snapshots instead of skipping them.
    pub reads: bool,
    /// How many writer schemas, and how many topics, are remembered.
    pub remembered_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            format: Format::Auto,
            key_format: None,
            signal_tables: Tables::like(SIGNAL_TABLES),
            full_identity: Tables::default(),
            heartbeat_prefix: HEARTBEAT_PREFIX.to_owned(),
            heartbeat_topic: None,
            unavailable_placeholder: UNAVAILABLE_PLACEHOLDER.to_owned(),
            decimal: DecimalMode::String,
            time_precision: TimePrecision::IsoString,
            interval: IntervalMode::String,
            binary: BinaryMode::Base64,
            reads: false,
            remembered_max: 4096,
        }
    }
}

/// A setting that is not one, or a value it cannot have.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OptionError {
    /// There is no such setting.
    #[error("unknown setting {name}; known are {known}")]
    UnknownSetting {
        /// What was asked for.
        name: String,
        /// What exists.
        known: &'static str,
    },
    /// The setting exists, the value does not.
    #[error("setting {name} cannot be {value:?}; it takes {known}")]
    UnknownValue {
        /// The setting.
        name: &'static str,
        /// The value that was refused.
        value: String,
        /// What it takes.
        known: String,
    },
}

const SETTINGS: &str = "source.format, source.key_format, source.signal_tables, source.full_identity, \
     source.unavailable_placeholder, source.heartbeat_prefix, source.heartbeat_topic, source.decimal, \
     source.time_precision, source.interval, source.binary";

impl Options {
    /// Sets one of the `source.*` settings from its text; a list is separated by commas.
    ///
    /// # Errors
    /// When there is no such setting, or it does not take the value.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), OptionError> {
        match name {
            "source.format" => self.format = value.parse()?,
            "source.decimal" => self.decimal = value.parse()?,
            "source.time_precision" => self.time_precision = value.parse()?,
            "source.interval" => self.interval = value.parse()?,
            "source.binary" => self.binary = value.parse()?,
            "source.key_format" => self.key_format = Some(value.parse()?),
            "source.signal_tables" => self.signal_tables = Tables::like(listed(value)),
            "source.full_identity" => self.full_identity = Tables::like(listed(value)),
            "source.unavailable_placeholder" => value.clone_into(&mut self.unavailable_placeholder),
            "source.heartbeat_prefix" => value.clone_into(&mut self.heartbeat_prefix),
            "source.heartbeat_topic" => self.heartbeat_topic = Some(value.to_owned()),
            _ => {
                return Err(OptionError::UnknownSetting {
                    name: name.to_owned(),
                    known: SETTINGS,
                });
            }
        }
        Ok(())
    }

    /// How the values of rows without a schema are to be read.
    pub(crate) fn modes(&self) -> Modes {
        let (dates, times, timestamps) = match self.time_precision {
            TimePrecision::IsoString => (Integers::AreNone, Integers::AreNone, Integers::AreNone),
            TimePrecision::Structured => (
                Integers::ArePartsOfObjects,
                Integers::ArePartsOfObjects,
                Integers::ArePartsOfObjects,
            ),
            TimePrecision::Adaptive => (Integers::Days, Integers::DependOnTheColumn, Integers::DependOnTheColumn),
            TimePrecision::AdaptiveTimeMicroseconds => (Integers::Days, Integers::Micros, Integers::DependOnTheColumn),
            TimePrecision::Microseconds => (Integers::Days, Integers::Micros, Integers::Micros),
            TimePrecision::Nanoseconds => (Integers::Days, Integers::Nanos, Integers::Nanos),
            TimePrecision::Connect => (Integers::Days, Integers::Millis, Integers::Millis),
        };
        let bytes = match self.binary {
            BinaryMode::Base64 | BinaryMode::Bytes => Bytes::Base64,
            BinaryMode::Base64UrlSafe => Bytes::Base64UrlSafe,
            BinaryMode::Hex => Bytes::Hex,
        };
        Modes {
            timestamps,
            dates,
            times,
            bytes,
            decimals: match self.decimal {
                DecimalMode::String => Decimals::Text,
                DecimalMode::Double => Decimals::TextOrNumbers,
                DecimalMode::Precise => Decimals::Lost,
            },
            intervals: match self.interval {
                IntervalMode::String => Intervals::Text,
                IntervalMode::Numeric => Intervals::TextOrMicros,
            },
        }
    }

    /// Whether this topic carries nothing but heartbeats.
    pub fn is_heartbeat_topic(&self, topic: &str) -> bool {
        let named = self.heartbeat_topic.as_deref() == Some(topic);
        let prefixed = topic
            .strip_prefix(self.heartbeat_prefix.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        named || (prefixed && !self.heartbeat_prefix.is_empty())
    }
}

/// The parts of a list that is separated by commas.
fn listed(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

/// The value that a setting's text stands for.
fn choose<T: Copy>(name: &'static str, text: &str, choices: &[(&'static str, T)]) -> Result<T, OptionError> {
    let found = choices.iter().find(|(known, _)| *known == text);
    found.map(|(_, value)| *value).ok_or_else(|| OptionError::UnknownValue {
        name,
        value: text.to_owned(),
        known: choices.iter().map(|(known, _)| *known).collect::<Vec<_>>().join(", "),
    })
}

/// Encoding of the records of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", rename_all = "snake_case")]
pub enum Format {
    /// Looks at each key and each value.
    Auto,
    /// JSON converter with `schemas.enable=false`.
    Json,
    /// JSON converter with `schemas.enable=true`.
    JsonSchema,
    /// Confluent wire format.
    Avro,
}

impl TryFrom<String> for Format {
    type Error = OptionError;

    fn try_from(text: String) -> Result<Self, OptionError> {
        text.parse()
    }
}

impl FromStr for Format {
    type Err = OptionError;

    fn from_str(text: &str) -> Result<Self, OptionError> {
        choose(
            "source.format",
            text,
            &[
                ("auto", Self::Auto),
                ("json", Self::Json),
                ("json_schema", Self::JsonSchema),
                ("avro", Self::Avro),
            ],
        )
    }
}

/// How the connector writes `numeric`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", rename_all = "lowercase")]
pub enum DecimalMode {
    /// As text.
    String,
    /// As bytes whose scale only a schema tells.
    Precise,
    /// As floating point.
    Double,
}

impl TryFrom<String> for DecimalMode {
    type Error = OptionError;

    fn try_from(text: String) -> Result<Self, OptionError> {
        text.parse()
    }
}

impl FromStr for DecimalMode {
    type Err = OptionError;

    fn from_str(text: &str) -> Result<Self, OptionError> {
        choose(
            "source.decimal",
            text,
            &[
                ("string", Self::String),
                ("precise", Self::Precise),
                ("double", Self::Double),
            ],
        )
    }
}

/// How the connector writes dates and times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", rename_all = "snake_case")]
pub enum TimePrecision {
    /// As ISO 8601 text.
    #[serde(rename = "isostring")]
    IsoString,
    /// As integers whose unit follows the column's precision.
    Adaptive,
    /// As `adaptive`, with times always in microseconds.
    AdaptiveTimeMicroseconds,
    /// As microseconds.
    Microseconds,
    /// As nanoseconds.
    Nanoseconds,
    /// As Kafka Connect's own types, in milliseconds.
    Connect,
    /// As structs of their parts.
    Structured,
}

impl TryFrom<String> for TimePrecision {
    type Error = OptionError;

    fn try_from(text: String) -> Result<Self, OptionError> {
        text.parse()
    }
}

impl FromStr for TimePrecision {
    type Err = OptionError;

    fn from_str(text: &str) -> Result<Self, OptionError> {
        choose(
            "source.time_precision",
            text,
            &[
                ("isostring", Self::IsoString),
                ("adaptive", Self::Adaptive),
                ("adaptive_time_microseconds", Self::AdaptiveTimeMicroseconds),
                ("microseconds", Self::Microseconds),
                ("nanoseconds", Self::Nanoseconds),
                ("connect", Self::Connect),
                ("structured", Self::Structured),
            ],
        )
    }
}

/// How the connector writes `interval`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", rename_all = "lowercase")]
pub enum IntervalMode {
    /// As ISO 8601 durations.
    String,
    /// As microseconds, which loses the months.
    Numeric,
}

impl TryFrom<String> for IntervalMode {
    type Error = OptionError;

    fn try_from(text: String) -> Result<Self, OptionError> {
        text.parse()
    }
}

impl FromStr for IntervalMode {
    type Err = OptionError;

    fn from_str(text: &str) -> Result<Self, OptionError> {
        choose(
            "source.interval",
            text,
            &[("string", Self::String), ("numeric", Self::Numeric)],
        )
    }
}

/// How the connector writes `bytea`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", rename_all = "kebab-case")]
pub enum BinaryMode {
    /// As base64 text.
    Base64,
    /// As bytes, which JSON prints as base64 too.
    Bytes,
    /// As base64 text of the URL-safe alphabet.
    Base64UrlSafe,
    /// As hexadecimal text.
    Hex,
}

impl TryFrom<String> for BinaryMode {
    type Error = OptionError;

    fn try_from(text: String) -> Result<Self, OptionError> {
        text.parse()
    }
}

impl FromStr for BinaryMode {
    type Err = OptionError;

    fn from_str(text: &str) -> Result<Self, OptionError> {
        choose(
            "source.binary",
            text,
            &[
                ("base64", Self::Base64),
                ("bytes", Self::Bytes),
                ("base64-url-safe", Self::Base64UrlSafe),
                ("hex", Self::Hex),
            ],
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_signal_tables_are_recognised_and_nothing_else() {
        let options = Options::default();
        for (schema, table, expected) in [
            ("dbz", "signal_jsn", true),
            ("dbz", "signal", true),
            ("afterwrite", "debezium_signal", true),
            ("public", "debezium_signal", true),
            ("dbz", "heartbeat_jsn", false),
            ("public", "signal", false),
            ("public", "debezium_signals", false),
        ] {
            assert_eq!(
                options.signal_tables.contains(schema, table),
                expected,
                "{schema}.{table}"
            );
        }
    }

    #[test]
    fn a_heartbeat_topic_is_known_by_prefix_or_by_name() {
        let mut options = Options::default();
        assert!(options.is_heartbeat_topic("__debezium-heartbeat.waitlist"));
        assert!(!options.is_heartbeat_topic("__debezium-heartbeats"));
        assert!(!options.is_heartbeat_topic("beat"));
        options.heartbeat_topic = Some("beat".to_owned());
        assert!(options.is_heartbeat_topic("beat"));
    }

    #[test]
    fn an_unknown_setting_and_an_impossible_value_are_refused() {
        let mut options = Options::default();
        assert!(options.set("source.time_precision", "microseconds").is_ok());
        assert!(options.set("source.time_precision", "seconds").is_err());
        assert!(options.set("source.speed", "fast").is_err());
    }
}
