//! Where the log is read: the address of a database, as a replication session needs it.

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

    /// Reads `postgres://user:password@host:port/database?sslmode=…&sslrootcert=…&sslcert=…&sslkey=…&host=/directory`.
    fn from_str(address: &str) -> Result<Self, AddressError> {
        let wrong = |what: &str| AddressError(what.to_owned());
        let url: Url = address.parse().map_err(|error| AddressError(format!("{error}")))?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(wrong("it does not begin with postgres://"));
        }
        let decoded = |text: &str| percent_decode_str(text).decode_utf8().map(|text| text.into_owned());
        let text = |text: &str| decoded(text).map_err(|_| wrong("a part of it is not UTF-8"));
        let host = text(url.host_str().filter(|host| !host.is_empty()).unwrap_or("localhost"))?;
        let (user, password) = (text(url.username())?, text(url.password().unwrap_or_default())?);
        let database = text(url.path().trim_start_matches('/'))?;
        let mut config = ReplicationConfig::new(host, user, password, database, "", "")
            .with_port(url.port().unwrap_or(5432))
            .with_buffer_size(MESSAGES_AHEAD)
            .with_options(PRINTING);
        config.application_name = Some("afterwrite wal".to_owned());
        let mut tls = TlsConfig {
            mode: SslMode::Prefer,
            ..TlsConfig::default()
        };
        for (name, value) in url.query_pairs() {
            let path = || Some(PathBuf::from(value.as_ref()));
            match name.as_ref() {
                "sslmode" | "ssl-mode" => {
                    tls.mode = mode(&value).ok_or_else(|| wrong("sslmode is none that is known"))?
                }
                "sslrootcert" | "ssl-root-cert" | "ssl-ca" => tls.ca_pem_path = path(),
                "sslcert" | "ssl-cert" => tls.client_cert_pem_path = path(),
                "sslkey" | "ssl-key" => tls.client_key_pem_path = path(),
                "host" | "hostaddr" => config.host = value.into_owned(),
                "port" => config.port = value.parse().map_err(|_| wrong("port is no number"))?,
                "user" => config.user = value.into_owned(),
                "password" => config.password = value.into_owned(),
                "dbname" => config.database = value.into_owned(),
                // What a session of SQL can be told besides means nothing here.
                _ => {}
            }
        }
        if config.user.is_empty() {
            config.user = std::env::var("USER").unwrap_or_else(|_| "postgres".to_owned());
        }
        if config.database.is_empty() {
            config.database.clone_from(&config.user);
        }
        if config.is_unix_socket() {
            tls.mode = SslMode::Disable;
        }
        config.tls = tls;
        Ok(Self { config })
    }
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

    #[test]
    fn what_cannot_be_used_is_refused_and_not_quoted() {
        for address in [
            "mysql://u:s3cret@h/d",
            "postgres://u:s3cret@h/d?sslmode=sometimes",
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
