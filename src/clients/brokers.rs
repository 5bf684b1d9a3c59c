//! How brokers are reached, and why they let nobody in.
//!
//! librdkafka never gives up because of a password or a certificate: it tries again for ever, and every question ends as a
//! time-out. What it met on the way it tells as events of its client, which only whoever polls hears. So the first question of
//! every client is asked here, and listened to ([`first_answer`]); beside a worker a client does nothing else ([`refusal`]).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::metadata::Metadata;
use rdkafka::statistics::Statistics;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::causes::chain;
use crate::clients::forgotten::{Forgotten, TOLD_EVERY_MS};
use crate::clients::kafka::{client_config, hide_value};
use crate::hindrance::{Hindered, Hindrance, KAFKA, Settings, TOKENS};

/// First and longest wait for an answer before it is looked what came instead.
const WAITS: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(4));

/// How long whoever only listens asks before it looks whether somebody still waits for it.
const LISTENED: Duration = Duration::from_secs(8);

/// How long one of several brokers may let us in after another one has refused.
const GRACE: Duration = Duration::from_millis(1_500);

/// The same after what a broker that starts or stops may do too.
const DOUBT: Duration = Duration::from_secs(4);

/// How long a broker may take to show its certificate.
const LOOK_MAX: Duration = Duration::from_secs(2);

/// How often it is said that brokers let nobody in.
const COMPLAIN_EVERY: Duration = Duration::from_secs(30);

/// A connection that is cut off sooner was not wanted.
const AT_ONCE_MS: u64 = 1_000;

/// Where the brokers are, and how they are spoken to.
#[derive(Clone)]
pub struct Access {
    /// `host:port`, comma separated.
    pub brokers: String,
    /// Properties of librdkafka, such as those of TLS and SASL.
    pub properties: Vec<(String, String)>,
}

impl std::fmt::Debug for Access {
    /// Leaves out the properties, which may be passwords.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Access")
            .field("brokers", &self.brokers)
            .finish_non_exhaustive()
    }
}

impl Access {
    fn property(&self, name: &str) -> Option<&str> {
        let found = self.properties.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// Why no broker answered.
#[derive(Debug)]
pub(crate) enum Unanswered {
    /// One of them is there, and lets nobody in.
    Refused(Hindered),
    /// None answered in time, for whatever reason.
    Silent(KafkaError),
}

/// Asks which topics there are: the first question of every client, because its answer says that we are let in. A refusal is
/// told as soon as it is certain, long before `within` is over. Blocks.
///
/// # Errors
/// When nobody answers, or we are refused.
pub(crate) fn first_answer(client: &BaseConsumer<Listener>, within: Duration) -> Result<Metadata, Unanswered> {
    client.context().forget();
    let began = Instant::now();
    let (mut wait, mut since) = (WAITS.0, None);
    loop {
        let left = within.saturating_sub(began.elapsed());
        let silent = match client.fetch_metadata(None, wait.min(left)) {
            Ok(metadata) => return Ok(metadata),
            Err(error) => error,
        };
        while client.poll(Duration::from_millis(1)).is_some() {}
        wait = (wait * 2).min(WAITS.1);
        if let Some(heard) = client.context().heard() {
            let since = *since.get_or_insert_with(Instant::now);
            if since.elapsed() >= heard.patience() || began.elapsed() >= within {
                return Err(Unanswered::Refused(heard.certain(&client.context().access)));
            }
            wait = wait.min(GRACE);
        }
        if began.elapsed() >= within {
            return Err(Unanswered::Silent(silent));
        }
    }
}

/// Ends when brokers refuse us for a reason that waiting does not mend, and with it. Never ends where one lets us in, nor while
/// none is there at all; a reason that may pass is said, and waited for.
pub async fn refusal(access: Access) -> Hindered {
    let (tell, told) = oneshot::channel();
    let is_unwanted = Unwanted::default();
    let flag = Arc::clone(&is_unwanted.0);
    let listening = std::thread::Builder::new()
        .name("reach kafka".to_owned())
        .spawn(move || {
            if let Some(refused) = listen(access, &flag) {
                drop(tell.send(refused));
            }
        });
    if let (Ok(_), Ok(refused)) = (listening, told.await) {
        return refused;
    }
    std::future::pending().await
}

/// Tells a listening thread, when it is dropped, that nobody waits any more.
#[derive(Default)]
struct Unwanted(Arc<AtomicBool>);

impl Drop for Unwanted {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn listen(access: Access, is_unwanted: &AtomicBool) -> Option<Hindered> {
    let client = match Listener::client(client_config(&access.brokers, &access.properties), access) {
        Ok(client) => client,
        Err(error) => {
            // Whoever makes a client to work with meets the same error, and says it.
            tracing::debug!(error = %error, "no client could be made to listen with");
            return None;
        }
    };
    let mut quiet_until = None;
    while !is_unwanted.load(Ordering::Relaxed) {
        match first_answer(&client, LISTENED) {
            Ok(_) => return None,
            Err(Unanswered::Refused(refused)) if !refused.hindrance.may_pass() => return Some(refused),
            Err(Unanswered::Refused(refused)) => {
                if quiet_until.is_none_or(|until| Instant::now() > until) {
                    tracing::warn!(error = %refused, "brokers let nobody in yet, and are asked again");
                    quiet_until = Some(Instant::now() + COMPLAIN_EVERY);
                }
            }
            Err(Unanswered::Silent(error)) => tracing::debug!(error = %error, "no broker has answered yet"),
        }
    }
    None
}

/// What a broker did, as librdkafka tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) hindrance: Hindrance,
    /// `host:port`.
    pub(crate) at: String,
    /// What librdkafka said, without its name for the broker.
    pub(crate) said: String,
}

impl From<Heard> for Hindered {
    fn from(heard: Heard) -> Self {
        Self {
            hindrance: heard.hindrance,
            settings: &KAFKA,
            at: heard.at,
            said: heard.said,
        }
    }
}

impl Heard {
    /// How long another broker may let us in before this is believed.
    fn patience(&self) -> Duration {
        match self.is_doubtful() {
            true => DOUBT,
            false => GRACE,
        }
    }

    /// Whether a broker that starts or stops does the same.
    pub(crate) fn is_doubtful(&self) -> bool {
        matches!(
            self.hindrance,
            Hindrance::NoTls | Hindrance::TlsOnly | Hindrance::LoginMissing
        )
    }

    /// OpenSSL says of every certificate that it "could not be verified", and curl the same of that of an endpoint of tokens: rustls
    /// is asked which of three reasons it has.
    fn certain(self, access: &Access) -> Hindered {
        let mut hindered = Hindered::from(self);
        if hindered.at.is_empty() {
            hindered.at.clone_from(&access.brokers);
        }
        let looked_at = match hindered.hindrance {
            Hindrance::Untrusted => Shown::by_broker(&hindered.at),
            Hindrance::Token => Shown::by_endpoint(access),
            _ => None,
        };
        let Some(shown) = looked_at else {
            return hindered;
        };
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().ok();
        // On a thread of its own: this one may belong to a runtime already.
        let seen = std::thread::scope(|scope| {
            let looking = scope.spawn(|| runtime()?.block_on(shown.look(access)));
            looking.join().ok().flatten()
        });
        seen.unwrap_or(hindered)
    }
}

/// The context of clients that ask and join nothing: it keeps the first reason that it is told.
pub(crate) struct Listener {
    heard: Mutex<Option<Heard>>,
    access: Access,
    forgotten: Forgotten,
}

impl Listener {
    /// A client with these properties whose context listens.
    ///
    /// # Errors
    /// When the properties are refused; their values are not quoted.
    pub(crate) fn client(mut config: ClientConfig, access: Access) -> KafkaResult<BaseConsumer<Self>> {
        config.set_log_level(RDKafkaLogLevel::Info);
        config.set("statistics.interval.ms", TOLD_EVERY_MS);
        let context = Self {
            heard: Mutex::default(),
            access,
            forgotten: Forgotten::default(),
        };
        config.create_with_context(context).map_err(hide_value)
    }

    /// Whether the client has forgotten every broker, and is of no use any more.
    pub(crate) fn has_forgotten_brokers(&self) -> bool {
        self.forgotten.is_certain()
    }

    fn heard(&self) -> Option<Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn forget(&self) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn hear(&self, reason: &str) {
        let Some(heard) = read(reason) else { return };
        let mut kept = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        // What is certain says more than what may be.
        match &*kept {
            Some(before) if !before.is_doubtful() || heard.is_doubtful() => {}
            _ => *kept = Some(heard),
        }
    }
}

impl ClientContext for Listener {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(facility, "librdkafka: {message}");
        // A connection that is cut off is no error to librdkafka: only its log tells.
        self.hear(message);
    }

    fn stats(&self, statistics: Statistics) {
        self.forgotten.see(&statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(error = %error, "kafka client: {reason}");
        self.hear(reason);
    }
}

impl ConsumerContext for Listener {}

/// Parts of what librdkafka says; the first that fits counts.
const READ: [(&str, Hindrance); 13] = [
    ("SASL OAUTHBEARER token", Hindrance::Token),
    ("certificate verify failed", Hindrance::Untrusted),
    ("connecting to a PLAINTEXT broker listener", Hindrance::NoTls),
    ("wrong version number", Hindrance::NoTls),
    ("packet length too long", Hindrance::NoTls),
    ("client SSL authentication might be required", Hindrance::OwnCertificate),
    ("alert certificate required", Hindrance::OwnCertificate),
    ("alert bad certificate", Hindrance::OwnCertificate),
    ("alert certificate unknown", Hindrance::OwnCertificate),
    ("alert unknown ca", Hindrance::OwnCertificate),
    ("invalid_token", Hindrance::TokenRefused),
    ("Broker: Unsupported SASL mechanism", Hindrance::Mechanism),
    ("uthentication", Hindrance::Login),
];

/// How what waited for an answer ends, when a connection was refused.
const ECHO: &str = "Local: Authentication failure";

/// How the connection with a group's coordinator is called, before its address.
const COORDINATOR: &str = "GroupCoordinator: ";

/// Reads `ssl://host:port/bootstrap: what happened (after 3ms in state …)`; `None` where it hinders nobody for good.
pub(crate) fn read(reason: &str) -> Option<Heard> {
    // A line of the log begins with the thread.
    let reason = match reason.strip_prefix("[thrd:") {
        Some(line) => line.split_once("]: ").map_or(line, |(_, line)| line),
        None => reason,
    };
    let (name, whole) = match reason.strip_prefix(COORDINATOR).unwrap_or(reason).split_once(": ") {
        Some((name, rest)) if (name.contains('/') || reason.starts_with(COORDINATOR)) && !name.contains(' ') => {
            (name, rest)
        }
        _ => ("", reason),
    };
    let (said, after) = whole.rsplit_once(" (after ").unwrap_or((whole, ""));
    // Whoever waits for an answer hears of the refusal too, and not which it was.
    if said.ends_with(ECHO) {
        return None;
    }
    let found = READ.iter().find(|(part, _)| said.contains(part));
    let hindrance = match found {
        Some((_, hindrance)) => *hindrance,
        None if reason.starts_with(COORDINATOR) => return None,
        None => shut_at_once(name, said, after)?,
    };
    let place = name.split_once("://").map_or(name, |(_, place)| place);
    Some(Heard {
        hindrance,
        at: place.split('/').next().unwrap_or_default().to_owned(),
        said: said.to_owned(),
    })
}

/// What it means that a connection in clear text without a login is cut off as soon as something was said: before anything was
/// answered the other side does not understand, and after its first answer it does not let strangers ask.
fn shut_at_once(name: &str, said: &str, after: &str) -> Option<Hindrance> {
    let is_plain = !name.is_empty() && !name.contains("://");
    let is_cut = ["Disconnected", "Broken pipe", "reset by peer"]
        .iter()
        .any(|cut| said.contains(cut));
    let (age_ms, state) = after.split_once("ms in state ")?;
    if !is_plain || !is_cut || age_ms.parse().map_or(true, |age_ms: u64| age_ms > AT_ONCE_MS) {
        return None;
    }
    match state {
        state if state.starts_with("APIVERSION_QUERY") => Some(Hindrance::TlsOnly),
        state if state.starts_with("UP") => Some(Hindrance::LoginMissing),
        _ => None,
    }
}

/// A place where a certificate is shown, and the settings that name whom to trust there.
struct Shown {
    /// `host:port`.
    at: String,
    /// The authorities themselves, and the file of them.
    authorities: [&'static str; 2],
    settings: &'static Settings,
}

impl Shown {
    fn by_broker(at: &str) -> Option<Self> {
        Some(Self {
            at: at.to_owned(),
            authorities: ["ssl.ca.pem", "ssl.ca.location"],
            settings: &KAFKA,
        })
    }

    /// `None` where tokens come from somewhere else, or without TLS.
    fn by_endpoint(access: &Access) -> Option<Self> {
        let url: reqwest::Url = access.property("sasl.oauthbearer.token.endpoint.url")?.parse().ok()?;
        let is_safe = url.scheme() == "https";
        let at = format!("{}:{}", url.host_str()?, url.port_or_known_default()?);
        is_safe.then_some(Self {
            at,
            authorities: ["https.ca.pem", "https.ca.location"],
            settings: &TOKENS,
        })
    }

    /// What is wrong with the certificate, if it is that.
    async fn look(&self, access: &Access) -> Option<Hindered> {
        let mut client = reqwest::Client::builder().timeout(LOOK_MAX).no_proxy();
        let [pem, location] = self.authorities.map(|name| access.property(name));
        let authorities = match (pem, location) {
            (Some(pem), _) => Some(pem.as_bytes().to_vec()),
            (None, Some(path)) => std::fs::read(path).ok(),
            (None, None) => None,
        };
        if let Some(pem) = authorities {
            client = client.tls_certs_only(reqwest::Certificate::from_pem_bundle(&pem).ok()?);
        }
        let url = format!("https://{}/", self.at);
        let error = client.build().ok()?.get(url).send().await.err()?;
        let seen = Hindered::read(&chain(&error.without_url()), &self.at, self.settings)?;
        let is_of_certificate = matches!(
            seen.hindrance,
            Hindrance::Untrusted | Hindrance::Expired | Hindrance::HostName
        );
        is_of_certificate.then_some(seen)
    }
}

#[cfg(test)]
#[path = "brokers_tests.rs"]
mod tests;
