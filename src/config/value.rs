//! Values that are more than a number or a text: secrets, intervals, addresses, client properties.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::de::{Error, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::masking;

/// A text that never prints.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself: hand it to whoever needs it, never to a log or a message.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("***")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SecretVisitor)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(masking::MASK)
    }
}

/// The keys of a handler, as they were written. They may hold secrets, so they never print.
#[derive(Clone, Default, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct OwnSettings(toml::Table);

impl OwnSettings {
    /// The keys: hand them to the handler they are for, never to a log or a message.
    pub fn table(&self) -> &toml::Table {
        &self.0
    }
}

/// The keys without their values.
impl Serialize for OwnSettings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        masking::all(self.0.clone()).serialize(serializer)
    }
}

impl fmt::Debug for OwnSettings {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("***")
    }
}

/// Only texts; the message for anything else must not quote it.
struct SecretVisitor;

impl Visitor<'_> for SecretVisitor {
    type Value = Secret;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a text")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Secret, E> {
        Ok(Secret::new(text))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Secret, E> {
        Err(E::custom("a secret is a text; put it in quotes"))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Secret, E> {
        Err(E::custom("a secret is a text; put it in quotes"))
    }
}

/// A stretch of time, written `1h`, `1h30m`, `90s`, `500ms`, or as a number of seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interval(pub Duration);

impl Interval {
    /// This many seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// The stretch of time of a text.
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(seconds) = text.parse() {
            return Some(Self::seconds(seconds));
        }
        let mut rest = text.trim();
        let mut total = Duration::ZERO;
        while !rest.is_empty() {
            let digits = rest.find(|character: char| !character.is_ascii_digit())?;
            let amount: u64 = rest[..digits].parse().ok()?;
            rest = &rest[digits..];
            let letters = rest
                .find(|character: char| character.is_ascii_digit())
                .unwrap_or(rest.len());
            let unit_ms: u64 = match &rest[..letters] {
                "ms" => 1,
                "s" => 1_000,
                "m" => 60_000,
                "h" => 3_600_000,
                "d" => 86_400_000,
                _ => return None,
            };
            total = total.checked_add(Duration::from_millis(amount.checked_mul(unit_ms)?))?;
            rest = &rest[letters..];
        }
        (!text.trim().is_empty()).then_some(Self(total))
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest_ms = self.0.as_millis();
        if rest_ms == 0 {
            return out.write_str("0s");
        }
        for (unit, unit_ms) in [
            ("d", 86_400_000),
            ("h", 3_600_000),
            ("m", 60_000),
            ("s", 1_000),
            ("ms", 1),
        ] {
            if rest_ms >= unit_ms {
                write!(out, "{}{unit}", rest_ms / unit_ms)?;
                rest_ms %= unit_ms;
            }
        }
        Ok(())
    }
}

impl Serialize for Interval {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Interval {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(IntervalVisitor)
    }
}

struct IntervalVisitor;

impl Visitor<'_> for IntervalVisitor {
    type Value = Interval;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an interval such as \"1h\", \"90s\", \"1h30m\", or a number of seconds")
    }

    fn visit_i64<E: Error>(self, seconds: i64) -> Result<Interval, E> {
        let seconds =
            u64::try_from(seconds).map_err(|_| E::invalid_value(serde::de::Unexpected::Signed(seconds), &self))?;
        Ok(Interval::seconds(seconds))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Interval, E> {
        Interval::parse(text).ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
    }
}

/// An HTTP address. It prints without user and password.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint(reqwest::Url);

impl Endpoint {
    /// `http://localhost:<port>`.
    pub(super) fn local(port: u16) -> Self {
        let text = format!("http://localhost:{port}");
        Self(reqwest::Url::parse(&text).expect("the text is an address"))
    }

    /// The address, with user and password where it has them.
    pub fn url(&self) -> &reqwest::Url {
        &self.0
    }

    /// The address without a slash at its end, with user and password: to be followed by a path.
    pub fn base(&self) -> &str {
        self.0.as_str().trim_end_matches('/')
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.0.host_str().unwrap_or_default();
        write!(out, "{}://{host}", self.0.scheme())?;
        if let Some(port) = self.0.port() {
            write!(out, ":{port}")?;
        }
        out.write_str(self.0.path().trim_end_matches('/'))
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Endpoint({self})")
    }
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let remedy = "write one such as http://localhost:8083";
        let refused = |what: &str| D::Error::custom(format!("this is not {what}; {remedy}"));
        let url = reqwest::Url::parse(&text).map_err(|error| refused(&format!("an address ({error})")))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(refused("an address of HTTP"));
        }
        Ok(Self(url))
    }
}

impl Serialize for Endpoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = self.0.as_str();
        // An address without a path is one of a slash to the parser, and is written without.
        let text = match self.0.path() {
            "/" => text.trim_end_matches('/'),
            _ => text,
        };
        serializer.serialize_str(&masking::address(text))
    }
}

/// Properties of a client by their own names. Values may be numbers, booleans or texts, and never print.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Properties(pub BTreeMap<String, Secret>);

impl<'de> Deserialize<'de> for Properties {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut properties = BTreeMap::new();
        flatten(String::new(), toml::Table::deserialize(deserializer)?, &mut properties).map_err(D::Error::custom)?;
        Ok(Self(properties))
    }
}

impl Serialize for Properties {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            let shown = match masking::is_harmless_property(name) {
                true => value.expose(),
                false => masking::MASK,
            };
            map.serialize_entry(name, shown)?;
        }
        map.end()
    }
}

/// `security.protocol = "ssl"` is a table in a table to TOML, and one property to the client.
fn flatten(prefix: String, table: toml::Table, into: &mut BTreeMap<String, Secret>) -> Result<(), String> {
    for (key, value) in table {
        let name = match prefix.as_str() {
            "" => key,
            prefix => format!("{prefix}.{key}"),
        };
        let text = match value {
            toml::Value::Table(inner) => {
                flatten(name, inner, into)?;
                continue;
            }
            toml::Value::String(text) => text,
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Float(number) => number.to_string(),
            toml::Value::Boolean(value) => value.to_string(),
            toml::Value::Array(_) | toml::Value::Datetime(_) => {
                return Err("a property is a text, a number, true or false; write one value".to_owned());
            }
        };
        into.insert(name, Secret(text));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_read_as_people_write_them() {
        let cases = [
            ("1h", Some(3_600_000)),
            ("1h30m", Some(5_400_000)),
            ("1h0m0s", Some(3_600_000)),
            ("90", Some(90_000)),
            ("500ms", Some(500)),
            ("2d", Some(172_800_000)),
            ("", None),
            ("h", None),
            ("1 h", None),
            ("1w", None),
            ("99999999999999999999d", None),
        ];
        for (text, expected) in cases {
            let parsed = Interval::parse(text).map(|interval| interval.0.as_millis());
            assert_eq!(parsed, expected, "{text}");
        }
        for (text, printed) in [("5400", "1h30m"), ("86401", "1d1s"), ("0", "0s"), ("500ms", "500ms")] {
            assert_eq!(Interval::parse(text).unwrap().to_string(), printed);
        }
    }

    #[test]
    fn secrets_and_user_infos_never_print() {
        let secret = Secret::new("hidden");
        assert_eq!(format!("{secret} {secret:?}"), "*** ***");
        let endpoint = Endpoint(reqwest::Url::parse("https://me:hidden@connect:8083/base/").unwrap());
        assert_eq!(
            format!("{endpoint} {endpoint:?}"),
            "https://connect:8083/base Endpoint(https://connect:8083/base)"
        );
        assert_eq!(endpoint.base(), "https://me:hidden@connect:8083/base");
    }
}
