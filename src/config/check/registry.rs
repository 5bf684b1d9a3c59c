//! How the schema registry is reached: what does not fit together, or is no certificate.

use super::Refusals;
use crate::config::Registry;
use crate::config::value::Secret;

pub(super) fn check(registry: &Registry, refusals: &mut Refusals) {
    check_login(registry, refusals);
    check_certificates(registry, refusals);
}

fn check_login(registry: &Registry, refusals: &mut Refusals) {
    let (user, password) = (registry.user.as_deref(), registry.password.as_ref());
    refusals.unless(
        user.is_some() || password.is_none(),
        "registry.password",
        "registry.user is missing",
        "set both, or leave both out",
    );
    refusals.unless(
        password.is_some() || user.is_none(),
        "registry.user",
        "registry.password is missing",
        "set both, or leave both out",
    );
    refusals.unless(
        user.is_none_or(|user| !user.contains(':')),
        "registry.user",
        "it holds a colon, which ends the user name in HTTP: the rest would be taken for the password",
        "take a user whose name has none",
    );
    let is_in_url = !registry.url.url().username().is_empty() || registry.url.url().password().is_some();
    refusals.unless(
        user.is_none() || !is_in_url,
        "registry.user",
        "registry.url holds a user already",
        "leave one of the two out",
    );
}

fn check_certificates(registry: &Registry, refusals: &mut Refusals) {
    let (certificate, key) = (&registry.client_certificate_pem, &registry.client_key_pem);
    let is_https = registry.url.url().scheme() == "https";
    for (setting, pem, label) in [
        ("registry.ca_pem", &registry.ca_pem, CERTIFICATE),
        ("registry.client_certificate_pem", certificate, CERTIFICATE),
        ("registry.client_key_pem", key, KEY),
    ] {
        let Some(pem) = pem else { continue };
        refusals.unless(
            is_https,
            setting,
            "registry.url begins with http://, where nobody shows or asks for a certificate",
            "write https:// there, or leave this out",
        );
        if let Err((reason, remedy)) = find(pem, label) {
            refusals.unless(false, setting, reason, remedy);
        }
    }
    refusals.unless(
        key.is_some() || certificate.is_none(),
        "registry.client_certificate_pem",
        "registry.client_key_pem is missing: a certificate is of no use without its key",
        "set both, or leave both out",
    );
    refusals.unless(
        certificate.is_some() || key.is_none(),
        "registry.client_key_pem",
        "registry.client_certificate_pem is missing: a key is of no use without its certificate",
        "set both, or leave both out",
    );
}

pub(super) const CERTIFICATE: &str = "CERTIFICATE-----";

const KEY: &str = "PRIVATE KEY-----";

/// Looks for a section of PEM that is labelled so. The reason never quotes the text, but where it is the path of a file the
/// remedy says how to have the file read.
pub(super) fn find(pem: &Secret, label: &str) -> Result<(), (String, &'static str)> {
    let text = pem.expose();
    let begins = |line: &str| line.starts_with("-----BEGIN ") && line.trim_end().ends_with(label);
    if text
        .lines()
        .any(|line| line.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY"))
    {
        let remedy = "write it without a password, as `openssl pkey -in KEY -out PLAIN` does";
        return Err(("the key is encrypted".to_owned(), remedy));
    }
    if text.lines().any(begins) {
        return Ok(());
    }
    let wanted = format!("no line begins with -----BEGIN and ends with {label}");
    Err(match text.lines().count() {
        0 | 1 => (
            format!("this is not PEM: {wanted}"),
            "write ${file:PATH} to have it read from a file",
        ),
        _ => (
            format!("this is not the PEM that is wanted here: {wanted}"),
            "look whether certificate and key were mixed up",
        ),
    })
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use crate::config::load::{Inputs, load};

    const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    const KEY: &str = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";

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
