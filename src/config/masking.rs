//! What of a value is never printed, also where somebody asks for the values.

use std::borrow::Cow;

use toml::{Table, Value};

/// What stands for a value that is not printed.
pub(super) const MASK: &str = "***";

/// Properties of librdkafka that hold no secret, also by the beginnings of their names. Whatever is not known here may be one.
const HARMLESS_PROPERTIES: [&str; 32] = [
    "api.version.",
    "broker.",
    "check.crcs",
    "client.dns.lookup",
    "client.id",
    "client.rack",
    "compression.",
    "connections.max.idle.ms",
    "debug",
    "enable.ssl.certificate.verification",
    "fetch.",
    "https.ca.location",
    "log.connection.close",
    "log_level",
    "max.in.flight",
    "max.partition.fetch.bytes",
    "max.poll.interval.ms",
    "message.copy.max.bytes",
    "queued.",
    "receive.message.max.bytes",
    "reconnect.backoff.",
    "request.timeout.ms",
    "retries",
    "retry.backoff.",
    "sasl.kerberos.service.name",
    "sasl.mechanism",
    "sasl.username",
    "security.protocol",
    "socket.",
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.endpoint.identification.algorithm",
];

/// Parameters of an address that hold no secret.
const HARMLESS_PARAMETERS: [&str; 14] = [
    "application_name",
    "campaign",
    "channel_binding",
    "code",
    "dbname",
    "host",
    "hostaddr",
    "port",
    "ref",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "user",
];

/// Whether the value of this property may be printed.
pub(super) fn is_harmless_property(name: &str) -> bool {
    HARMLESS_PROPERTIES
        .iter()
        .any(|known| name == *known || name.starts_with(known) && (known.ends_with('.') || *known == "sasl.mechanism"))
}

/// A text with what is secret in it masked, where it is or holds an address: the password, and every parameter that is not
/// known to be harmless. A parameter that is a placeholder such as `{token}` is none.
pub(super) fn address(text: &str) -> Cow<'_, str> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return match text.rsplit_once('@').filter(|(user, _)| user.contains(':')) {
            Some((user, host)) => Cow::Owned(format!("{}:{MASK}@{host}", user.split(':').next().unwrap_or_default())),
            None => Cow::Borrowed(text),
        };
    };
    let (place, query) = match rest.split_once('?') {
        Some((place, query)) => (place, Some(query)),
        None => (rest, None),
    };
    // A password may hold a slash that nobody has escaped, so the last @ ends it.
    let place = match place.rsplit_once('@') {
        None => place.to_owned(),
        Some((login, host)) => match login.split_once(':') {
            Some((user, _)) => format!("{user}:{MASK}@{host}"),
            None => format!("{login}@{host}"),
        },
    };
    let query = query.map(|query| {
        let parameters: Vec<Cow<'_, str>> = query.split('&').map(parameter).collect();
        format!("?{}", parameters.join("&"))
    });
    Cow::Owned(format!("{scheme}://{place}{}", query.unwrap_or_default()))
}

fn parameter(text: &str) -> Cow<'_, str> {
    let Some((name, value)) = text.split_once('=') else {
        return Cow::Borrowed(MASK);
    };
    let is_placeholder = value.starts_with('{') && value.ends_with('}');
    // A certificate or its key may be written into the address itself.
    let is_harmless = HARMLESS_PARAMETERS.contains(&name) && !value.contains("BEGIN");
    match is_placeholder || is_harmless {
        true => Cow::Borrowed(text),
        false => Cow::Owned(format!("{name}={MASK}")),
    }
}

/// Where a database is, without its password; nothing of a text that is no address of one.
pub(super) fn database(text: &str) -> String {
    match text.parse::<url::Url>() {
        Ok(url) if matches!(url.scheme(), "postgres" | "postgresql") => address(text).into_owned(),
        _ => MASK.to_owned(),
    }
}

/// The keys of a table without their values.
pub(super) fn all(table: Table) -> Table {
    let masked = |value| match value {
        Value::Table(inner) => Value::Table(all(inner)),
        _ => Value::String(MASK.to_owned()),
    };
    table.into_iter().map(|(key, value)| (key, masked(value))).collect()
}

/// Every text of a value, with what is secret in it masked.
pub(super) fn texts(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(address(&text).into_owned()),
        Value::Array(values) => Value::Array(values.into_iter().map(texts).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_and_unknown_parameters_of_addresses_are_masked() {
        for (text, expected) in [
            ("postgres://me:hidden@db:5432/x", "postgres://me:***@db:5432/x"),
            (
                "postgres://me:hid/d@en@db/x?sslmode=require",
                "postgres://me:***@db/x?sslmode=require",
            ),
            (
                "postgres://db/x?password=hidden&user=me",
                "postgres://db/x?password=***&user=me",
            ),
            ("http://me@registry/", "http://me@registry/"),
            (
                "https://a/b?token={token}&api_key=hidden",
                "https://a/b?token={token}&api_key=***",
            ),
            ("https://a/b?hidden", "https://a/b?***"),
            ("me:hidden@broker:9092", "me:***@broker:9092"),
            ("a:1,b:2", "a:1,b:2"),
            ("mail@example.com", "mail@example.com"),
        ] {
            assert_eq!(address(text), expected);
        }
        assert_eq!(database("host=db password=hidden"), "***");
        assert_eq!(database("postgres://me:hidden@db/x"), "postgres://me:***@db/x");
    }

    #[test]
    fn a_property_that_is_not_known_is_a_secret() {
        for (name, is_harmless) in [
            ("security.protocol", true),
            ("sasl.mechanisms", true),
            ("sasl.username", true),
            ("socket.timeout.ms", true),
            ("sasl.password", false),
            ("ssl.key.password", false),
            ("ssl.key.pem", false),
            ("sasl.oauthbearer.client.secret", false),
            ("client.identity", false),
            ("anything.new", false),
        ] {
            assert_eq!(is_harmless_property(name), is_harmless, "{name}");
        }
    }
}
