//! How two configurations differ, key by key, and what of their values may be printed.

use std::borrow::Cow;

use serde::Serialize;

use super::file::differing;
use crate::clients::connect::ConnectorConfig;

/// What stands for a value that is not printed.
const HIDDEN: &str = "(hidden)";

/// Parts of names of settings whose values are secrets, or hold some.
const SECRET_NAMES: [&str; 16] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "credential",
    "jaas",
    "apikey",
    "api.key",
    "access.key",
    "private.key",
    "privatekey",
    "keystore.key",
    "user.info",
    "basic.auth",
    "authorization",
];

/// A setting that is not the same in two configurations. Its values are as they may be printed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Change {
    pub(super) key: String,
    /// `None`: it is not set.
    pub(super) before: Option<String>,
    pub(super) after: Option<String>,
}

impl Change {
    pub(super) fn in_words(&self) -> String {
        let said = |value: &Option<String>| value.clone().unwrap_or_else(|| "(not set)".to_owned());
        format!("{}: {} → {}", self.key, said(&self.before), said(&self.after))
    }
}

/// The settings that differ; all of `after` where there is nothing before.
pub(super) fn changes(before: &ConnectorConfig, after: &ConnectorConfig) -> Vec<Change> {
    let shown = |config: &ConnectorConfig, key: &str| config.get(key).map(|value| shown(key, value).into_owned());
    differing(before, after)
        .into_iter()
        .map(|key| Change {
            before: shown(before, &key),
            after: shown(after, &key),
            key,
        })
        .collect()
}

/// Whether a setting of this name holds a secret.
pub(super) fn is_secret(key: &str) -> bool {
    let name = key.to_lowercase();
    SECRET_NAMES.iter().any(|part| name.contains(part))
}

/// A value as it may be printed. Connect answers with clear passwords where they were written into a connector, so whatever
/// may be one is left out: the values of secret settings, texts that speak of passwords, and logins in addresses. Of a
/// reference that Connect resolves only the provider is told.
fn shown<'v>(key: &str, value: &'v str) -> Cow<'v, str> {
    if value.contains("${") {
        return Cow::Owned(references(value));
    }
    let text = value.to_lowercase();
    if is_secret(key) || text.contains("password") || text.contains("secret") || text.contains("-----begin") {
        return Cow::Borrowed(HIDDEN);
    }
    match value.split_once("://") {
        Some((scheme, rest)) => match rest.rsplit_once('@') {
            Some((_, place)) => Cow::Owned(format!("{scheme}://{HIDDEN}@{place}")),
            None => Cow::Borrowed(value),
        },
        None => Cow::Borrowed(value),
    }
}

/// The providers of the references in a value; what stands around them is left out.
fn references(value: &str) -> String {
    let providers = value.split("${").skip(1).map(|rest| {
        let provider = rest.split([':', '}']).next().unwrap_or_default();
        format!("${{{provider}:…}}")
    });
    let providers: Vec<String> = providers.collect();
    let is_alone = value.starts_with("${") && value.ends_with('}') && providers.len() == 1;
    match is_alone {
        true => providers.concat(),
        false => format!("{HIDDEN} {}", providers.join(" ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(settings: &[(&str, &str)]) -> ConnectorConfig {
        settings
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn each_key_that_differs_is_told_with_both_values() {
        let before = config(&[("a", "1"), ("b", "2"), ("same", "x")]);
        let after = config(&[("b", "3"), ("c", "4"), ("same", "x")]);
        let told: Vec<String> = changes(&before, &after).iter().map(Change::in_words).collect();
        assert_eq!(told, ["a: 1 → (not set)", "b: 2 → 3", "c: (not set) → 4"]);
        assert_eq!(changes(&before, &before), []);
    }

    #[test]
    fn no_secret_is_shown() {
        const MARK: &str = "hunter2";
        for (key, value) in [
            ("database.password", "hunter2"),
            ("DATABASE.PASSWORD", "hunter2"),
            ("producer.override.sasl.jaas.config", "x hunter2"),
            ("value.converter.basic.auth.user.info", "me:hunter2"),
            ("transforms.a.apiKey", "hunter2"),
            ("database.ssl.keystore.key", "hunter2"),
            (
                "value.converter.apicurio.registry.url",
                "https://me:hunter2@registry/apis?x",
            ),
            (
                "value.converter.apicurio.registry.url",
                "https://me:hun/ter@hunter2@registry",
            ),
            ("database.initial.statements", "SET x.password = 'hunter2'"),
            ("some.pem", "-----BEGIN PRIVATE KEY-----hunter2"),
            ("database.password", "${env:hunter2}"),
            ("any", "hunter2${env:X}"),
            ("any", "${file:/etc/hunter2:key}"),
        ] {
            let told = changes(&config(&[]), &config(&[(key, value)]));
            let told = format!("{} {told:?}", told[0].in_words());
            assert!(!told.contains(MARK), "{told}");
        }
    }

    #[test]
    fn what_is_no_secret_is_shown_and_a_reference_by_its_provider() {
        for (key, value, told) in [
            ("slot.name", "mine", "mine"),
            ("key.converter", "org.JsonConverter", "org.JsonConverter"),
            ("message.key.columns", "public.t:a", "public.t:a"),
            ("url", "http://registry:8080/apis", "http://registry:8080/apis"),
            ("database.hostname", "${env:HOST}", "${env:…}"),
            ("database.port", "5${env:PORT}", "(hidden) ${env:…}"),
        ] {
            assert_eq!(shown(key, value), told);
        }
    }
}
