//! The waitlist worker: its application and its fraud checks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Config;
use super::value::{Interval, Secret};

/// The key that is used against a database on this machine when none is set: good for trying out and for tests, and
/// known to everybody.
const DEVELOPMENT_SECRET: &str = "afterwrite-development-secret-known-to-everybody";

/// The application.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Waitlist {
    /// Key of every HMAC (links, reward codes, suppressed addresses). Required unless Postgres is on this machine.
    pub secret: Option<Secret>,
    /// Where people verify their address; `{token}` stands for the token.
    pub verification_url: String,
    /// Where people sign up with a friend's code; `{code}` stands for the code, `{campaign}` for the campaign's slug.
    pub referral_url: String,
    /// Where the HTTP endpoints of a worker with `admin.listen` are reached from everywhere; links to unsubscribe lead there,
    /// and without it no mail is sent that needs one.
    pub public_url: Option<String>,
    /// How long an earned reward waits for late fraud evidence.
    pub reward_hold: Interval,
    /// `[waitlist.tables.NAME]`: what the application calls a table of the reference schema, where it is not that.
    pub tables: BTreeMap<String, TableNames>,
}

/// What the application calls a table of the reference schema and its columns. An empty name is what it does not have.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TableNames {
    /// `schema.table`, or `table` in `public`.
    pub name: Option<String>,
    /// Column of the reference schema → column of the application.
    pub columns: BTreeMap<String, String>,
}

impl Default for Waitlist {
    fn default() -> Self {
        Self {
            secret: None,
            verification_url: "http://localhost:3000/verify?token={token}".to_owned(),
            referral_url: "http://localhost:3000/join/{campaign}?ref={code}".to_owned(),
            public_url: None,
            reward_hold: Interval::seconds(0),
            tables: BTreeMap::new(),
        }
    }
}

/// Why this cannot be the address of links in mails and what to do, or `None`.
pub(super) fn public_url_refusal(text: &str) -> Option<(&'static str, &'static str)> {
    let Ok(url) = text.parse::<url::Url>() else {
        return Some(("this is not an address", "write one such as https://mail.example.com"));
    };
    let is_local = url.host_str().is_some_and(is_local_host);
    match url.scheme() {
        _ if !text.is_ascii() || text.contains([' ', '<', '>', '"']) => Some((
            "it holds what a mail cannot carry in an address",
            "write it in ASCII, without blanks, quotes and brackets",
        )),
        _ if url.query().is_some() || url.fragment().is_some() => {
            Some(("a path is added to it", "leave ? and # out, and what follows"))
        }
        _ if !url.username().is_empty() || url.password().is_some() => {
            Some(("it would be sent to every reader", "leave user and password out"))
        }
        "https" => None,
        "http" if is_local => None,
        // RFC 8058, section 3.1.
        _ => Some(("mail programs ask for https://", "write an address that begins with it")),
    }
}

/// The secret was left out where it must not be.
#[derive(Debug, thiserror::Error)]
#[error(
    "waitlist.secret is not set, and Postgres is not on this machine; set it to at least 16 random characters \
     (AFTERWRITE__WAITLIST__SECRET), the same for every process and for ever"
)]
pub struct SecretMissing;

impl Config {
    /// The key of every HMAC. Without `waitlist.secret` a development key is used where Postgres is on this machine.
    ///
    /// # Errors
    /// When no key is set and Postgres is elsewhere: links signed with a key everybody knows could be forged.
    pub fn hmac_key(&self) -> Result<Secret, SecretMissing> {
        match &self.waitlist.secret {
            Some(secret) => Ok(secret.clone()),
            None if self.postgres_is_local() => Ok(Secret::new(DEVELOPMENT_SECRET)),
            None => Err(SecretMissing),
        }
    }

    /// Whether [`Config::hmac_key`] has none.
    pub fn lacks_hmac_key(&self) -> bool {
        self.waitlist.secret.is_none() && !self.postgres_is_local()
    }

    /// Whether the database is on this machine.
    pub(super) fn postgres_is_local(&self) -> bool {
        let options = self.postgres.url.expose().parse::<sqlx::postgres::PgConnectOptions>();
        options.is_ok_and(|options| options.get_socket().is_some() || is_local_host(options.get_host()))
    }
}

/// Whether a host is this machine: loopback, or the folder of a socket.
pub(super) fn is_local_host(host: &str) -> bool {
    host == "localhost"
        || host.starts_with('/')
        || host
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// Calls of the application's webhooks.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Webhook {
    /// How long one call may take.
    pub timeout_ms: u64,
    /// Networks that may be called although they are not public, such as `10.0.0.0/8`.
    pub allowed_networks: Vec<String>,
}

impl Default for Webhook {
    fn default() -> Self {
        Self {
            timeout_ms: 15_000,
            allowed_networks: Vec::new(),
        }
    }
}

/// The fraud checks.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fraud {
    /// From this confidence on the credit of a referral is held.
    pub hold_confidence: f64,
    /// `[fraud.checks.NAME]`: what one check has instead of its defaults.
    pub checks: BTreeMap<FraudCheck, FraudCheckSettings>,
}

impl Default for Fraud {
    fn default() -> Self {
        Self {
            hold_confidence: 0.80,
            checks: BTreeMap::new(),
        }
    }
}

/// The checks by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FraudCheck {
    /// The device of the referrer.
    SelfReferralDevice,
    /// The address of the referrer.
    SelfReferralIp,
    /// Too many referrals in an hour.
    Velocity,
    /// A throw-away mail domain.
    DisposableEmail,
    /// A crawler or a script.
    Bot,
    /// Many users behind one address.
    DuplicateIp,
    /// Many users of one device.
    DuplicateDevice,
}

impl FraudCheck {
    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::SelfReferralDevice => "self_referral_device",
            Self::SelfReferralIp => "self_referral_ip",
            Self::Velocity => "velocity",
            Self::DisposableEmail => "disposable_email",
            Self::Bot => "bot",
            Self::DuplicateIp => "duplicate_ip",
            Self::DuplicateDevice => "duplicate_device",
        }
    }

    /// Whether `count_max` says something to it.
    pub fn counts(self) -> bool {
        matches!(self, Self::Velocity | Self::DuplicateIp | Self::DuplicateDevice)
    }
}

/// What one check has instead of its defaults.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FraudCheckSettings {
    /// Whether the check runs.
    pub enabled: bool,
    /// How sure a hit is, from 0 to 1.
    pub confidence: Option<f64>,
    /// More than this many is a hit; only `velocity`, `duplicate_ip` and `duplicate_device` count.
    pub count_max: Option<u32>,
}

impl Default for FraudCheckSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            confidence: None,
            count_max: None,
        }
    }
}
