//! Why a connection does not come about although somebody is there: the certificate, the host name, the login. Every part that
//! connects says it in these words, so that whoever is woken by one knows which of them is wrong, where, and what mends it.
//!
//! Pure: what libraries said is read, and nothing is asked. What is not known here stays what the library called it.

use std::borrow::Cow;
use std::fmt;

/// Of what a library said, so much from the beginning and so much from the end is told.
const SAID_CHARS_MAX: usize = 150;

/// What hinders a connection. Waiting mends none of them, but for a certificate that is not valid yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hindrance {
    /// The certificate comes from nobody who is trusted here.
    Untrusted,
    /// The certificate is not valid now.
    Expired,
    /// The certificate is another host's.
    HostName,
    /// TLS was spoken, and not answered.
    NoTls,
    /// TLS was not spoken, and is all that is answered.
    TlsOnly,
    /// A certificate of ours is asked for, or the one that was shown is not taken.
    OwnCertificate,
    /// The user or the password is refused.
    Login,
    /// Somebody has to log in, and nobody did.
    LoginMissing,
    /// This way to log in is not known there.
    Mechanism,
    /// Whoever gives out tokens gave none.
    Token,
    /// The token that was shown is not taken: it has expired, and no other was given, or it is for somebody else.
    TokenRefused,
}

/// The settings of one kind of connection, as remedies name them.
#[derive(Debug, PartialEq, Eq)]
pub struct Settings {
    /// What is at the other end.
    pub whom: &'static str,
    /// Where the authority's certificate is written.
    pub authority: &'static str,
    /// Where host and port are written.
    pub place: &'static str,
    /// What turns TLS on or off.
    pub tls: &'static str,
    /// Where our own certificate and its key are written; `None` where none can be shown.
    pub own: Option<&'static str>,
    /// Where user and password are written.
    pub login: &'static str,
    /// What chooses the way to log in.
    pub mechanism: &'static str,
}

/// Those of the brokers.
pub const KAFKA: Settings = Settings {
    whom: "kafka",
    authority: "ssl.ca.location of kafka.properties",
    place: "kafka.brokers",
    tls: "security.protocol of kafka.properties",
    own: Some("ssl.certificate.location and ssl.key.location of kafka.properties"),
    login: "sasl.username and sasl.password of kafka.properties",
    mechanism: "sasl.mechanism of kafka.properties",
};

/// Those of whoever gives out the tokens by which one logs in to the brokers.
pub const TOKENS: Settings = Settings {
    whom: "the endpoint of tokens",
    authority: "https.ca.location of kafka.properties",
    place: "sasl.oauthbearer.token.endpoint.url of kafka.properties",
    tls: "sasl.oauthbearer.token.endpoint.url of kafka.properties",
    own: None,
    login: "sasl.oauthbearer.client.id and sasl.oauthbearer.client.secret of kafka.properties",
    mechanism: "sasl.oauthbearer.method of kafka.properties",
};

/// Those of the database.
pub const POSTGRES: Settings = Settings {
    whom: "postgres",
    authority: "sslrootcert of postgres.url",
    place: "postgres.url",
    tls: "sslmode of postgres.url",
    own: Some("sslcert and sslkey of postgres.url"),
    login: "user and password of postgres.url",
    mechanism: "password_encryption of the server (scram-sha-256)",
};

/// Those of the database where its log is read.
pub const WAL: Settings = Settings {
    authority: "sslrootcert of wal.url",
    place: "wal.url",
    tls: "sslmode of wal.url",
    own: Some("sslcert and sslkey of wal.url"),
    login: "user and password of wal.url",
    ..POSTGRES
};

/// Those of the schema registry.
pub const REGISTRY: Settings = Settings {
    whom: "the schema registry",
    authority: "registry.ca_pem",
    place: "registry.url",
    tls: "http:// or https:// in registry.url",
    own: Some("registry.client_certificate_pem and registry.client_key_pem"),
    login: "registry.user and registry.password",
    mechanism: "the registry's authentication (basic)",
};

/// Those of Kafka Connect.
pub const CONNECT: Settings = Settings {
    whom: "kafka connect",
    authority: "connect.ca_pem",
    place: "connect.url",
    tls: "http:// or https:// in connect.url",
    own: None,
    login: "user and password of connect.url",
    mechanism: "its authentication (basic)",
};

/// Those of the mail server.
pub const MAIL: Settings = Settings {
    whom: "the mail server",
    authority: "smtp.ca_pem",
    place: "smtp.host and smtp.port",
    tls: "smtp.tls",
    own: None,
    login: "smtp.user and smtp.password",
    mechanism: "the server's authentication (PLAIN or LOGIN)",
};

/// A connection that did not come about, and what mends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hindered {
    /// What it is.
    pub hindrance: Hindrance,
    /// Of which connection.
    pub settings: &'static Settings,
    /// `host:port`, without user and password.
    pub at: String,
    /// What the library said.
    pub said: String,
}

impl Hindered {
    /// Reads what a library said with all its causes; `None` where it is nothing of this kind.
    pub fn read(said: &str, at: &str, settings: &'static Settings) -> Option<Self> {
        let hindrance = Hindrance::read(said)?;
        Some(Self {
            hindrance,
            settings,
            at: at.to_owned(),
            said: said.to_owned(),
        })
    }

    /// What is wrong.
    pub fn what(&self) -> String {
        let (whom, at) = (self.settings.whom, &self.at);
        format!("{whom} at {at} {} ({})", self.hindrance.what(), shortened(&self.said))
    }

    /// What mends it.
    pub fn remedy(&self) -> String {
        let Settings {
            authority,
            place,
            tls,
            own,
            login,
            mechanism,
            ..
        } = self.settings;
        match self.hindrance {
            Hindrance::Untrusted => format!("write in {authority} the certificate of the authority that signed it"),
            Hindrance::Expired => "renew the certificate there, and compare the clocks".to_owned(),
            Hindrance::HostName => {
                format!("write in {place} a name that the certificate has, or have one made out to this name")
            }
            Hindrance::NoTls => format!("turn TLS on there, or correct {tls} and the port in {place}"),
            Hindrance::TlsOnly => format!("correct {tls}, or the port in {place}"),
            Hindrance::OwnCertificate => match own {
                Some(own) => format!("write a certificate that is trusted there, and its key, in {own}"),
                None => format!("let it ask for none, or correct {place}: no certificate of ours is shown to it"),
            },
            Hindrance::Login => format!("correct {login}"),
            Hindrance::LoginMissing => format!("set {login}, with {tls}"),
            Hindrance::Mechanism => format!("correct {mechanism}"),
            Hindrance::TokenRefused => {
                "see whether the endpoint of tokens still gives some, and for whom: sasl.oauthbearer.* of kafka.properties".to_owned()
            }
            Hindrance::Token => {
                "see sasl.oauthbearer.* of kafka.properties, https.ca.location for the certificate of the endpoint, and its log"
                    .to_owned()
            }
        }
    }
}

/// Without its middle, where it is long: first comes what failed, and last why. A library may have tried five times and tell
/// each of them, and what mends it is told after that.
fn shortened(said: &str) -> Cow<'_, str> {
    let count = said.chars().count();
    if count <= 2 * SAID_CHARS_MAX {
        return said.into();
    }
    let first: String = said.chars().take(SAID_CHARS_MAX).collect();
    let last: String = said.chars().skip(count - SAID_CHARS_MAX).collect();
    format!("{first} … {last}").into()
}

impl fmt::Display for Hindered {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}; {}", self.what(), self.remedy())
    }
}

impl std::error::Error for Hindered {}

/// Parts of what rustls, sqlx, lettre and the HTTP client say; the first that fits counts.
const READ: [(&str, Hindrance); 26] = [
    ("ot valid for name", Hindrance::HostName),
    ("NotValidForName", Hindrance::HostName),
    ("certificate expired", Hindrance::Expired),
    ("certificate not valid yet", Hindrance::Expired),
    ("peer certificate: Expired", Hindrance::Expired),
    ("peer certificate: NotValidYet", Hindrance::Expired),
    ("invalid peer certificate", Hindrance::Untrusted),
    ("server does not support TLS", Hindrance::NoTls),
    ("STARTTLS is not supported", Hindrance::NoTls),
    ("offers no STARTTLS", Hindrance::NoTls),
    ("InvalidContentType", Hindrance::NoTls),
    ("fatal alert: HandshakeFailure", Hindrance::OwnCertificate),
    ("fatal alert: CertificateRequired", Hindrance::OwnCertificate),
    ("fatal alert: BadCertificate", Hindrance::OwnCertificate),
    ("fatal alert: CertificateUnknown", Hindrance::OwnCertificate),
    ("fatal alert: DecryptError", Hindrance::OwnCertificate),
    ("fatal alert: UnknownCa", Hindrance::OwnCertificate),
    ("fatal alert: UnknownCA", Hindrance::OwnCertificate),
    ("valid client certificate", Hindrance::OwnCertificate),
    ("certificate authentication failed", Hindrance::OwnCertificate),
    ("no encryption", Hindrance::TlsOnly),
    ("password authentication failed", Hindrance::Login),
    ("is not permitted to log in", Hindrance::Login),
    ("invalid HTTP version parsed", Hindrance::TlsOnly),
    ("status 401", Hindrance::Login),
    ("status 403", Hindrance::Login),
];

impl Hindrance {
    fn read(said: &str) -> Option<Self> {
        let found = READ.iter().find(|(part, _)| said.contains(part));
        found.map(|(_, hindrance)| *hindrance)
    }

    /// Whether what looks like it may be an outage too: somebody in between who has nobody to pass on to, or an endpoint that is
    /// away. A worker that starts waits for the end of one.
    pub fn may_pass(self) -> bool {
        matches!(self, Self::NoTls | Self::TlsOnly | Self::LoginMissing | Self::Token)
    }

    /// What is wrong, as what is said of whoever is at the other end.
    fn what(self) -> &'static str {
        match self {
            Self::Untrusted => "shows a certificate that no authority trusted here has signed",
            Self::Expired => "shows a certificate that has expired, or is not valid yet",
            Self::HostName => "shows the certificate of another host name",
            Self::NoTls => "speaks no TLS",
            Self::TlsOnly => "takes no connection without TLS",
            Self::OwnCertificate => "asks for a client certificate, and got none or none that it takes",
            Self::Login => "refused the user or the password",
            Self::LoginMissing => "asks for a login, and none is set",
            Self::Mechanism => "does not know this way to log in",
            Self::TokenRefused => "refused the token",
            Self::Token => "waits for a token, and whoever gives them out gave none",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_mends_it_is_told_however_much_a_library_says() {
        let tries = "{\"error\":\"später\"}".repeat(200);
        let said = format!("HTTP request failed: {tries}: status 401");
        let told = Hindered::read(&said, "r:8081", &REGISTRY).unwrap().to_string();
        assert!(told.contains("(HTTP request failed: {\"error\""), "{told}");
        assert!(
            told.ends_with(": status 401); correct registry.user and registry.password"),
            "{told}"
        );
        assert!(told.chars().count() < 500, "{told}");
        let short = "x".repeat(2 * SAID_CHARS_MAX);
        assert_eq!(shortened(&short), short);
    }

    #[test]
    fn what_libraries_say_is_told_apart() {
        for (said, expected) in [
            ("invalid peer certificate: UnknownIssuer", Some(Hindrance::Untrusted)),
            (
                "invalid peer certificate: certificate expired: verification time 2 (UNIX), but certificate is not valid after 1",
                Some(Hindrance::Expired),
            ),
            (
                "invalid peer certificate: certificate not valid for name \"a\"; certificate is only valid for DnsName(\"b\")",
                Some(Hindrance::HostName),
            ),
            (
                "received fatal alert: CertificateRequired",
                Some(Hindrance::OwnCertificate),
            ),
            ("password authentication failed for user \"a\"", Some(Hindrance::Login)),
            (
                "no pg_hba.conf entry for host \"::1\", user \"a\", database \"b\", no encryption",
                Some(Hindrance::TlsOnly),
            ),
            ("Connection refused (os error 111)", None),
            ("database \"x\" does not exist", None),
        ] {
            assert_eq!(Hindrance::read(said), expected, "{said}");
        }
    }

    #[test]
    fn each_says_what_where_and_which_setting_mends_it() {
        for (settings, at) in [
            (&KAFKA, "b:9092"),
            (&TOKENS, "t:443"),
            (&POSTGRES, "d:5432"),
            (&WAL, "d:5432"),
            (&REGISTRY, "r:443"),
            (&CONNECT, "c:443"),
            (&MAIL, "m:25"),
        ] {
            let mut texts = std::collections::BTreeSet::new();
            for hindrance in [
                Hindrance::Untrusted,
                Hindrance::Expired,
                Hindrance::HostName,
                Hindrance::NoTls,
                Hindrance::TlsOnly,
                Hindrance::OwnCertificate,
                Hindrance::Login,
                Hindrance::LoginMissing,
                Hindrance::Mechanism,
                Hindrance::Token,
                Hindrance::TokenRefused,
            ] {
                let hindered = Hindered {
                    hindrance,
                    settings,
                    at: at.to_owned(),
                    said: "so".to_owned(),
                };
                let text = hindered.to_string();
                assert!(text.contains(at) && text.contains("(so); "), "{text}");
                texts.insert(text);
            }
            assert_eq!(texts.len(), 11, "two are said in the same words");
        }
    }
}
