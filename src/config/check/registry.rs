//! How the schema registry is reached: what does not fit together, or is no certificate.

use super::Refusals;
use crate::config::Registry;
use crate::config::value::Secret;

/// Longest pause between questions about one id: a record waits for all of them before it is given up.
const UNKNOWN_PAUSE_MS_MAX: u64 = 60_000;

pub(super) fn check(registry: &Registry, refusals: &mut Refusals) {
    refusals.at_least(registry.timeout_ms, 1, "registry.timeout_ms");
    refusals.at_least(registry.schemas_max as u64, 1, "registry.schemas_max");
    refusals.unless(
        (1..=100).contains(&registry.unknown_asks_max),
        "registry.unknown_asks_max",
        "it must lie between 1 and 100",
    );
    refusals.unless(
        (1..=UNKNOWN_PAUSE_MS_MAX).contains(&registry.unknown_pause_ms),
        "registry.unknown_pause_ms",
        format!("it must lie between 1 and {UNKNOWN_PAUSE_MS_MAX}"),
    );
    check_login(registry, refusals);
    check_certificates(registry, refusals);
}

fn check_login(registry: &Registry, refusals: &mut Refusals) {
    let (user, password) = (registry.user.as_deref(), registry.password.as_ref());
    refusals.unless(
        user.is_some() || password.is_none(),
        "registry.password",
        "registry.user is missing",
    );
    refusals.unless(
        password.is_some() || user.is_none(),
        "registry.user",
        "registry.password is missing",
    );
    refusals.unless(
        user.is_none_or(|user| !user.contains(':')),
        "registry.user",
        "it holds a colon, which ends the user name in HTTP: the rest would be taken for the password",
    );
    let is_in_url = !registry.url.url().username().is_empty() || registry.url.url().password().is_some();
    refusals.unless(
        user.is_none() || !is_in_url,
        "registry.user",
        "registry.url holds a user already: leave one of the two out",
    );
}

fn check_certificates(registry: &Registry, refusals: &mut Refusals) {
    let (certificate, key) = (&registry.client_certificate_pem, &registry.client_key_pem);
    let is_https = registry.url.url().scheme() == "https";
    for (path, pem, label) in [
        ("registry.ca_pem", &registry.ca_pem, CERTIFICATE),
        ("registry.client_certificate_pem", certificate, CERTIFICATE),
        ("registry.client_key_pem", key, KEY),
    ] {
        let Some(pem) = pem else { continue };
        refusals.unless(
            is_https,
            path,
            "registry.url begins with http://, where nobody shows or asks for a certificate: write https://, or leave this out",
        );
        if let Err(reason) = find(pem, label) {
            refusals.unless(false, path, reason);
        }
    }
    refusals.unless(
        key.is_some() || certificate.is_none(),
        "registry.client_certificate_pem",
        "registry.client_key_pem is missing: a certificate is of no use without its key",
    );
    refusals.unless(
        certificate.is_some() || key.is_none(),
        "registry.client_key_pem",
        "registry.client_certificate_pem is missing: a key is of no use without its certificate",
    );
}

pub(super) const CERTIFICATE: &str = "CERTIFICATE-----";

const KEY: &str = "PRIVATE KEY-----";

/// Looks for a section of PEM that is labelled so. The reason never quotes the text, but where it is the path of a file
/// says how to have the file read.
pub(super) fn find(pem: &Secret, label: &str) -> Result<(), String> {
    let text = pem.expose();
    let begins = |line: &str| line.starts_with("-----BEGIN ") && line.trim_end().ends_with(label);
    if text
        .lines()
        .any(|line| line.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY"))
    {
        return Err(
            "the key is encrypted: write it without a password, as `openssl pkey -in KEY -out PLAIN` does".to_owned(),
        );
    }
    if text.lines().any(begins) {
        return Ok(());
    }
    let wanted = format!("no line begins with -----BEGIN and ends with {label}");
    Err(match text.lines().count() {
        0 | 1 => format!("this is not PEM ({wanted}); to have it read from a file, write ${{file:PATH}}"),
        _ => format!("this is not the PEM that is wanted here: {wanted}"),
    })
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use crate::config::load::{Inputs, load};

    const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    const KEY: &str = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    const ENCRYPTED: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";

    fn loaded(settings: &[(&str, &str)]) -> Result<Config, String> {
        let inputs = Inputs {
            set: settings
                .iter()
                .map(|(key, value)| format!("registry.{key}={value}"))
                .collect(),
            ..Inputs::default()
        };
        load(&inputs).map_err(|error| error.to_string())
    }

    /// Settings that are refused alone: nothing else is said, and nothing secret.
    fn refused(settings: &[(&str, &str)], expected: &str) {
        let message = loaded(settings).map(|_| ()).expect_err(expected);
        assert!(message.contains(&format!(": registry.{expected}")), "{message}");
        assert!(message.lines().count() == 1 && !message.contains("hidden"), "{message}");
    }

    #[test]
    fn a_login_that_cannot_work_is_refused_with_the_remedy() {
        refused(&[("user", "u")], "user: registry.password is missing");
        refused(&[("password", "hidden")], "password: registry.user is missing");
        refused(&[("user", "a:b"), ("password", "hidden")], "user: it holds a colon");
        refused(
            &[("url", "http://me:hidden@r"), ("user", "u"), ("password", "hidden")],
            "user: registry.url holds a user already",
        );
    }

    #[test]
    fn certificates_that_cannot_work_are_refused_with_the_remedy() {
        refused(&[("ca_pem", CERTIFICATE)], "ca_pem: registry.url begins with http://");
        let with_https = |settings: &[(&'static str, &'static str)], expected| {
            refused(&[&[("url", "https://r")], settings].concat(), expected);
        };
        with_https(
            &[("ca_pem", "/hidden.pem")],
            "ca_pem: this is not PEM (no line begins with -----BEGIN and ends with \
            CERTIFICATE-----); to have it read from a file, write ${file:PATH}",
        );
        with_https(&[("ca_pem", KEY)], "ca_pem: this is not the PEM that is wanted here");
        with_https(
            &[("ca_pem", "${file:/does/not/exist}")],
            "ca_pem: the file /does/not/exist could not be read",
        );
        with_https(
            &[("client_certificate_pem", CERTIFICATE)],
            "client_certificate_pem: registry.client_key_pem is missing",
        );
        with_https(
            &[("client_key_pem", KEY)],
            "client_key_pem: registry.client_certificate_pem is missing",
        );
        for (key, expected) in [
            (CERTIFICATE, "client_key_pem: this is not the PEM that is wanted here"),
            (ENCRYPTED, "client_key_pem: the key is encrypted"),
        ] {
            with_https(
                &[("client_certificate_pem", CERTIFICATE), ("client_key_pem", key)],
                expected,
            );
        }
    }

    #[test]
    fn numbers_without_sense_are_refused() {
        refused(&[("timeout_ms", "0")], "timeout_ms: 0 is less than 1");
        refused(&[("schemas_max", "0")], "schemas_max: 0 is less than 1");
        refused(
            &[("unknown_asks_max", "0")],
            "unknown_asks_max: it must lie between 1 and 100",
        );
        refused(
            &[("unknown_pause_ms", "90000")],
            "unknown_pause_ms: it must lie between 1 and 60000",
        );
    }

    #[test]
    fn what_belongs_together_is_accepted_and_never_printed() {
        let config = loaded(&[
            ("url", "https://r"),
            ("user", "u"),
            ("password", "hidden"),
            ("ca_pem", CERTIFICATE),
            ("client_certificate_pem", CERTIFICATE),
            ("client_key_pem", KEY),
        ]);
        let printed = format!("{:?}", config.unwrap());
        assert!(!printed.contains("hidden") && !printed.contains("BEGIN"), "{printed}");
    }
}
