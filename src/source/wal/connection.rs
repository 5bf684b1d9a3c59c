//! Where the log is read: the address of a database, as a replication session needs it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use pgwire_replication::{ReplicationConfig, SslMode, TlsConfig};
use url::Url;

/// How often the server is told that this side lives, and what it confirmed, at least.
const STATUS_EVERY: Duration = Duration::from_secs(5);

/// The same in each time-out of the server: a few may come late.
const STATUSES_PER_TIMEOUT: u32 = 4;

/// Messages that wait between the session and the decoding; each is at most one row.
const MESSAGES_AHEAD: usize = 64;

/// How values are to be printed, whatever the database and the role have set.
const PRINTING: &str = "-c datestyle=ISO -c timezone=UTC -c intervalstyle=iso_8601 -c bytea_output=hex -c lc_monetary=C \
     -c extra_float_digits=1";

/// An address that cannot be used. It is not quoted: it holds a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the address of the database cannot be used to read its log: {0}")]
pub struct AddressError(String);

/// A database whose log is read.
#[derive(Clone)]
pub struct Connection {
    config: ReplicationConfig,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the password.
        write!(
            out,
            "{}:{}/{}",
            self.config.host, self.config.port, self.config.database
        )
    }
}

impl FromStr for Connection {
    type Err = AddressError;

    /// Reads `postgres://user:password@host:port/database?sslmode=…&sslrootcert=…&sslcert=…&sslkey=…&host=/directory`. What the
    /// address leaves out is taken from the variables `PGUSER`, `PGPASSWORD`, `PGSSLMODE` and so on, as for `postgres.url`.
    fn from_str(address: &str) -> Result<Self, AddressError> {
        read(address, |name| {
            std::env::var(name).ok().filter(|value| !value.is_empty())
        })
    }
}

fn wrong(what: &str) -> AddressError {
    AddressError(what.to_owned())
}

/// Variables by the parameters that they stand for.
const VARIABLES: [(&str, &str); 9] = [
    ("host", "PGHOST"),
    ("hostaddr", "PGHOSTADDR"),
    ("port", "PGPORT"),
    ("user", "PGUSER"),
    ("password", "PGPASSWORD"),
    ("sslmode", "PGSSLMODE"),
    ("sslrootcert", "PGSSLROOTCERT"),
    ("sslcert", "PGSSLCERT"),
    ("sslkey", "PGSSLKEY"),
];

fn read(address: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Connection, AddressError> {
    let url: Url = address.parse().map_err(|error| AddressError(format!("{error}")))?;
    if !matches!(url.scheme(), "postgres" | "postgresql") {
        return Err(wrong("it does not begin with postgres://"));
    }
    let parts = parts(&url, variable)?;
    let part = |name: &str| parts.get(name).map(String::as_str).filter(|value| !value.is_empty());
    if part("channel_binding") == Some("require") {
        return Err(wrong(
            "channel_binding=require cannot be met when the log is read; sslmode=verify-full proves who the server is",
        ));
    }
    let port = part("port")
        .map_or(Ok(5432), str::parse)
        .map_err(|_| wrong("port is no number"))?;
    let user = part("user").unwrap_or("postgres").to_owned();
    let database = part("dbname").unwrap_or(&user).to_owned();
    let host = part("host").unwrap_or("localhost");
    let reached = part("hostaddr").unwrap_or(host);
    let password = part("password").unwrap_or_default();
    let mut config = ReplicationConfig::new(reached, user, password, database, "", "")
        .with_port(port)
        .with_buffer_size(MESSAGES_AHEAD)
        .with_options(PRINTING);
    config.application_name = Some("afterwrite wal".to_owned());
    config.tls = match config.is_unix_socket() {
        true => TlsConfig {
            mode: SslMode::Disable,
            ..TlsConfig::default()
        },
        false => tls(part, host, reached)?,
    };
    Ok(Connection { config })
}

/// What the address says, by the names that its parameters have; the last one counts.
fn parts(url: &Url, variable: impl Fn(&str) -> Option<String>) -> Result<BTreeMap<String, String>, AddressError> {
    let decoded = |text: &str| {
        let text = percent_decode_str(text).decode_utf8();
        text.map(Cow::into_owned)
            .map_err(|_| wrong("a part of it is not UTF-8"))
    };
    let mut parts = BTreeMap::new();
    for (name, variable_name) in VARIABLES {
        parts.extend(variable(variable_name).map(|value| (name.to_owned(), value)));
    }
    if !parts.contains_key("user") {
        parts.extend(variable("USER").map(|value| ("user".to_owned(), value)));
    }
    // The brackets of an address of version 6 are the URL's.
    let host = url.host_str().unwrap_or_default();
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    let port = url.port().map(|port| port.to_string());
    for (name, value) in [
        ("host", decoded(host)?),
        ("port", port.unwrap_or_default()),
        ("user", decoded(url.username())?),
        ("password", decoded(url.password().unwrap_or_default())?),
        ("dbname", decoded(url.path().trim_start_matches('/'))?),
    ] {
        if value.is_empty() {
            continue;
        }
        if name == "host" {
            // It is not where the variable says.
            parts.remove("hostaddr");
        }
        parts.insert(name.to_owned(), value);
    }
    for (name, value) in url.query_pairs() {
        let name = match name.as_ref() {
            "ssl-mode" => "sslmode",
            "ssl-root-cert" | "ssl-ca" => "sslrootcert",
            "ssl-cert" => "sslcert",
            "ssl-key" => "sslkey",
            name => name,
        };
        // What a session of SQL can be told besides means nothing here.
        parts.insert(name.to_owned(), value.into_owned());
    }
    Ok(parts)
}

/// How the server is made sure of: `host` is whom it has to prove to be, `reached` where it is.
fn tls<'a>(part: impl Fn(&str) -> Option<&'a str>, host: &str, reached: &str) -> Result<TlsConfig, AddressError> {
    let mode = part("sslmode").map_or(Some(SslMode::Prefer), mode);
    let mode = mode.ok_or_else(|| wrong("sslmode is none that is known"))?;
    let file = |name: &str| match part(name) {
        Some(text) if text.trim_start().starts_with("-----BEGIN") => Err(AddressError(format!(
            "{name} has to name a file when the log is read, and has the text itself"
        ))),
        path => Ok(path.map(PathBuf::from)),
    };
    let (certificate, key) = (file("sslcert")?, file("sslkey")?);
    if certificate.is_some() != key.is_some() {
        return Err(wrong("sslcert and sslkey go together: a certificate and its key"));
    }
    // An address is looked for in the certificate only when it is named: otherwise it is refused without a look.
    let is_named = host != reached || host.parse::<IpAddr>().is_ok();
    Ok(TlsConfig {
        mode,
        ca_pem_path: file("sslrootcert")?,
        client_cert_pem_path: certificate,
        client_key_pem_path: key,
        sni_hostname: is_named.then(|| host.to_owned()),
    })
}

impl Connection {
    /// The database's name.
    pub fn database(&self) -> &str {
        &self.config.database
    }

    /// What a session that reads `slot` from `lsn` on is opened with, at a server that ends one that is silent for `timeout`.
    pub(super) fn session(
        &self,
        slot: &str,
        publication: &str,
        lsn: u64,
        timeout: Option<Duration>,
    ) -> ReplicationConfig {
        let status_every = timeout.map_or(STATUS_EVERY, |timeout| STATUS_EVERY.min(timeout / STATUSES_PER_TIMEOUT));
        let mut config = self
            .config
            .clone()
            .with_status_interval(status_every)
            .with_wakeup_interval(status_every);
        config.slot = format!("\"{slot}\"");
        config.publication = format!("\"{}\"", publication.replace('"', "\"\"")).into();
        config.start_lsn = lsn.into();
        config
    }
}

fn mode(text: &str) -> Option<SslMode> {
    Some(match text {
        "disable" => SslMode::Disable,
        // A session that would do without is offered encryption first, which is no less.
        "allow" | "prefer" => SslMode::Prefer,
        "require" => SslMode::Require,
        "verify-ca" => SslMode::VerifyCa,
        "verify-full" => SslMode::VerifyFull,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_with_all_its_parts() {
        let address =
            "postgresql://wal%40er:s3cr%3At@db.example:6000/wait%20list?sslmode=verify-full&sslrootcert=/ca.pem";
        let config = address.parse::<Connection>().unwrap().config;
        assert_eq!((config.host.as_str(), config.port), ("db.example", 6000));
        assert_eq!((config.user.as_str(), config.password.as_str()), ("wal@er", "s3cr:t"));
        assert_eq!(config.database, "wait list");
        assert_eq!(config.tls.mode, SslMode::VerifyFull);
        assert_eq!(config.tls.ca_pem_path, Some(PathBuf::from("/ca.pem")));
    }

    #[test]
    fn a_socket_is_named_by_its_directory() {
        for address in [
            "postgres://me@localhost/app?host=/run/postgresql",
            "postgres://me@%2Frun%2Fpostgresql/app",
        ] {
            let config = address.parse::<Connection>().unwrap().config;
            assert_eq!(
                (config.host.as_str(), config.database.as_str()),
                ("/run/postgresql", "app")
            );
            assert_eq!(config.tls.mode, SslMode::Disable);
        }
    }

    /// Reads it as if only these variables were there.
    fn read_with(address: &str, variables: &[(&str, &str)]) -> ReplicationConfig {
        let found = |name: &str| variables.iter().find(|(known, _)| *known == name);
        let read = read(address, |name| found(name).map(|(_, value)| (*value).to_owned()));
        read.unwrap().config
    }

    #[test]
    fn what_the_address_leaves_out_is_taken_from_the_variables_of_postgres() {
        let variables = [
            ("PGHOST", "db.example"),
            ("PGHOSTADDR", "192.0.2.7"),
            ("PGUSER", "reader"),
            ("PGPASSWORD", "s3cret"),
            ("PGSSLMODE", "verify-full"),
            ("PGSSLROOTCERT", "/ca.pem"),
            ("USER", "nobody"),
        ];
        let config = read_with("postgres:///app", &variables);
        assert_eq!((config.host.as_str(), config.user.as_str()), ("192.0.2.7", "reader"));
        assert_eq!((config.password.as_str(), config.database.as_str()), ("s3cret", "app"));
        assert_eq!(config.tls.mode, SslMode::VerifyFull);
        assert_eq!(
            config.tls.sni_hostname.as_deref(),
            Some("db.example"),
            "whom it has to prove to be"
        );
        let config = read_with("postgres://me:own@h/d?sslmode=disable", &variables);
        assert_eq!(
            (config.host.as_str(), config.user.as_str(), config.password.as_str()),
            ("h", "me", "own")
        );
        assert_eq!((config.tls.mode, config.tls.sni_hostname), (SslMode::Disable, None));
        assert_eq!(read_with("postgres://h", &[("USER", "nobody")]).database, "nobody");
    }

    #[test]
    fn a_server_that_is_named_by_its_address_has_to_prove_that_address() {
        let config = read_with("postgres://u@192.0.2.7/d?sslmode=verify-full", &[]);
        assert_eq!(config.tls.sni_hostname.as_deref(), Some("192.0.2.7"));
        let config = read_with("postgres://u@[2001:db8::7]:6000/d?sslmode=verify-full", &[]);
        assert_eq!((config.host.as_str(), config.port), ("2001:db8::7", 6000));
        assert_eq!(config.tls.sni_hostname.as_deref(), Some("2001:db8::7"));
        assert_eq!(
            read_with("postgres://u@h/d?sslmode=verify-full", &[]).tls.sni_hostname,
            None
        );
    }

    #[test]
    fn what_cannot_be_used_is_refused_and_not_quoted() {
        for address in [
            "mysql://u:s3cret@h/d",
            "postgres://u:s3cret@h/d?sslmode=sometimes",
            "postgres://u:s3cret@h/d?port=s3cret",
            "postgres://u:s3cret@h/d?channel_binding=require",
            "postgres://u:s3cret@h/d?sslcert=/c.pem",
            "postgres://u:s3cret@h/d?sslcert=/c.pem&sslkey=-----BEGIN%20s3cret-----",
            "s3cret",
        ] {
            let error = address.parse::<Connection>().unwrap_err().to_string();
            assert!(!error.contains("s3cret"), "{error}");
        }
        let shown = format!("{:?}", "postgres://u:s3cret@h/d".parse::<Connection>().unwrap());
        assert_eq!(shown, "h:5432/d");
    }

    #[test]
    fn names_are_quoted() {
        let connection = "postgres://u@h/d".parse::<Connection>().unwrap();
        let config = connection.session("afterwrite_email", "my \"own\"", 7, None);
        assert_eq!(config.slot, "\"afterwrite_email\"");
        assert_eq!(config.publication.names(), ["\"my \"\"own\"\"\""]);
    }
}
