//! Files that settings name and that libraries read by themselves, each time they connect. Where one is missing they say "no
//! such file" of nothing in particular, or that nobody can be reached; here it is said which, and what names it.

use std::fs::File;
use std::path::Path;

use url::Url;

use super::refusal::Wrong;
use super::{Config, SourceKind, masking};

/// Parameters of an address that name files, with their other spellings (as sqlx reads them), and the variables that stand for
/// them where the address leaves them out.
const OF_ADDRESSES: [(&str, &[&str], &str); 3] = [
    ("sslrootcert", &["ssl-root-cert", "ssl-ca"], "PGSSLROOTCERT"),
    ("sslcert", &["ssl-cert"], "PGSSLCERT"),
    ("sslkey", &["ssl-key"], "PGSSLKEY"),
];

/// How the names of librdkafka's properties end that are paths.
const LOCATION: &str = ".location";

/// Where librdkafka looks by itself.
const PROBE: &str = "probe";

/// Names the files that are missing, or may not be read.
pub(super) fn check(config: &Config, variable: impl Fn(&str) -> Option<String>) -> Vec<Wrong> {
    let mut wrong = of_address("postgres.url", config.postgres.url.expose(), &variable);
    match (config.source.kind, &config.wal.url) {
        (SourceKind::Wal, Some(url)) => wrong.extend(of_address("wal.url", url.expose(), &variable)),
        (SourceKind::Wal, None) => {}
        (SourceKind::Kafka, _) => wrong.extend(of_brokers(config)),
    }
    wrong
}

fn of_address(setting: &str, address: &str, variable: impl Fn(&str) -> Option<String>) -> Vec<Wrong> {
    // What is no address is refused as that.
    let Ok(url) = address.parse::<Url>() else {
        return Vec::new();
    };
    let parameter = |names: &[&str]| {
        let pairs = url.query_pairs().filter(|(name, _)| names.contains(&name.as_ref()));
        pairs.last().map(|(_, value)| value.into_owned())
    };
    let mode = parameter(&["sslmode", "ssl-mode"]).or_else(|| variable("PGSSLMODE"));
    if mode.is_some_and(|mode| mode == "disable") {
        return Vec::new();
    }
    let named = OF_ADDRESSES.iter().filter_map(|(name, others, from)| {
        let written = parameter(&[&[*name], *others].concat());
        let (path, named) = match written {
            Some(path) => (path, (*name).to_owned()),
            None => (variable(from)?, format!("the variable {from}")),
        };
        // The text itself may stand in its place.
        (!path.is_empty() && !is_text(&path)).then_some((path, named))
    });
    named
        .filter_map(|(path, named)| {
            let reason = unreadable(&path)?;
            Some(Wrong::new(
                setting,
                format!("{named} names a file that cannot be read: {reason}"),
                format!("make {path}, and readable to this user, or correct {named}"),
            ))
        })
        .collect()
}

fn of_brokers(config: &Config) -> Vec<Wrong> {
    let properties = &config.kafka.properties.0;
    let protocol = properties.get("security.protocol");
    let is_safe = protocol.is_some_and(|protocol| protocol.expose().to_lowercase().ends_with("ssl"));
    let is_by_token = properties.contains_key("sasl.oauthbearer.token.endpoint.url");
    let named = properties.iter().filter(|(name, _)| {
        let is_read = (name.starts_with("ssl.") && is_safe) || (name.starts_with("https.") && is_by_token);
        is_read && name.ends_with(LOCATION)
    });
    named
        .filter_map(|(name, path)| {
            let path = path.expose();
            if is_text(path) {
                return Some(Wrong::new(
                    format!("kafka.properties.{name}"),
                    "it has to name a file, and has the text itself",
                    "write the path of the file, without ${file:…}",
                ));
            }
            let reason = unreadable(path).filter(|_| path != PROBE)?;
            // A key may stand where its file is to be named.
            let file = match masking::is_harmless_property(name) {
                true => path,
                false => "it",
            };
            Some(Wrong::new(
                format!("kafka.properties.{name}"),
                format!("it names a file that cannot be read: {reason}"),
                format!("make {file}, and readable to this user, or name another"),
            ))
        })
        .collect()
}

/// Whether it is what such a file holds.
fn is_text(path: &str) -> bool {
    path.trim_start().starts_with("-----BEGIN")
}

/// Why a file, or a folder of them, cannot be read.
fn unreadable(path: &str) -> Option<String> {
    let path = Path::new(path);
    let read = match path.is_dir() {
        true => path.read_dir().map(|_| ()),
        false => File::open(path).map(|_| ()),
    };
    read.err().map(|error| error.to_string())
}
