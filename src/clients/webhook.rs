//! Other people's HTTP endpoints: signed calls as Standard Webhooks 1.0.0 describes them.
//!
//! The address comes from a customer, so it is not trusted: every address a name resolves to is checked, the connection
//! goes to exactly those addresses, redirects are not followed, proxies of the environment are not used, and of the
//! answer only the beginning is read.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit, Mac};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use sha2::Sha256;

pub mod network;

use network::Network;

/// Of a response no more than this is kept.
pub const RESPONSE_BYTES_MAX: usize = 10 * 1024;

/// Calls an endpoint.
///
/// # Contract
/// - Concurrency: may be called from many tasks at once.
/// - Repetition: a repeated call carries the same id, so that the receiver recognises it; only timestamp and signature
///   are new.
/// - Cancellation: a dropped call may or may not have arrived.
#[async_trait]
pub trait Caller: Send + Sync + 'static {
    /// Makes one signed POST.
    async fn call(&self, call: &Call) -> Called;
}

/// One call. Its `Debug` shows the id alone: url, secret and body are the customer's.
#[derive(Clone)]
pub struct Call {
    /// Where to.
    pub url: String,
    /// `whsec_…`; several, separated by blanks, while a secret rotates.
    pub secret: String,
    /// The same on every try.
    pub id: String,
    /// When this try is made.
    pub at: DateTime<Utc>,
    /// The body, exactly as signed.
    pub body: Vec<u8>,
}

impl fmt::Debug for Call {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Call").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What became of a call.
#[derive(Debug)]
pub enum Called {
    /// 2xx.
    Delivered(Answer),
    /// Any other status.
    Refused {
        /// The answer.
        answer: Answer,
        /// What `Retry-After` asked for.
        retry_after: Option<Duration>,
    },
    /// No answer. The call may have arrived.
    Failed(CallError),
    /// The call can never be made as it stands: forbidden address, unreadable URL or secret.
    Impossible(CallError),
}

/// The beginning of a response.
#[derive(Clone, PartialEq, Eq)]
pub struct Answer {
    /// Status code.
    pub code: u16,
    /// At most [`RESPONSE_BYTES_MAX`] bytes, as text.
    pub excerpt: String,
}

impl fmt::Debug for Answer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Answer")
            .field("code", &self.code)
            .finish_non_exhaustive()
    }
}

/// Why a call brought no answer. Names no URL: it is the customer's, and may hold a token.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Not a URL of http or https with a host.
    #[error("the webhook's url is not an http or https address; correct it in webhooks.url")]
    Url,
    /// Not `whsec_` and base64.
    #[error("the webhook's secret is not whsec_ followed by base64; correct it in webhooks.secret")]
    Secret,
    /// The name leads to an address that customers may not call.
    #[error(
        "the webhook's host resolves to an address that may not be called; allow its network, or correct webhooks.url"
    )]
    Forbidden,
    /// The name did not resolve.
    #[error("the webhook's host did not resolve")]
    Resolve(#[source] std::io::Error),
    /// No answer in time.
    #[error("the webhook did not answer in time")]
    Late,
    /// The connection failed or broke.
    #[error("the connection to the webhook failed")]
    Connection(#[source] reqwest::Error),
}

/// Limits of calls.
#[derive(Debug, Clone)]
pub struct WebhookSettings {
    /// Limit of one call, from resolving to the end of the answer.
    pub timeout: Duration,
    /// Networks that may be called although they are not public.
    pub allowed_networks: Vec<Network>,
}

impl Default for WebhookSettings {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(15),
            allowed_networks: Vec::new(),
        }
    }
}

/// The real HTTP client.
#[derive(Debug, Clone)]
pub struct HttpCaller {
    client: reqwest::Client,
    allowed: Arc<[Network]>,
}

/// Tells the addresses of a name.
///
/// # Contract
/// Asked once for each connection. All addresses of the answer are checked, and the connection goes to one of them: what a later
/// question would be answered does not matter to it.
#[async_trait]
pub trait Lookup: fmt::Debug + Send + Sync + 'static {
    /// The addresses of a host, as the URL writes it.
    ///
    /// # Errors
    /// When there are none, or nobody could be asked.
    async fn addresses(&self, host: &str) -> std::io::Result<Vec<IpAddr>>;
}

/// Asks as the system asks: its files, then its name servers.
#[derive(Debug, Clone, Copy)]
pub struct SystemLookup;

#[async_trait]
impl Lookup for SystemLookup {
    async fn addresses(&self, host: &str) -> std::io::Result<Vec<IpAddr>> {
        let found = tokio::net::lookup_host((host, 0)).await?;
        Ok(found.map(|address| address.ip()).collect())
    }
}

/// Resolves a name and hands on all its addresses, or none when one of them is forbidden.
#[derive(Debug, Clone)]
struct CheckedResolver {
    lookup: Arc<dyn Lookup>,
    allowed: Arc<[Network]>,
}

impl HttpCaller {
    /// A client with these limits.
    ///
    /// # Errors
    /// When the TLS library cannot be set up on this machine.
    pub fn new(settings: &WebhookSettings) -> Result<Self, reqwest::Error> {
        Self::with_lookup(settings, Arc::new(SystemLookup), None)
    }

    /// A client that has names resolved in another way than the system's, and whose connections leave from an address of this
    /// machine where one is given.
    ///
    /// # Errors
    /// When the TLS library cannot be set up on this machine.
    pub fn with_lookup(
        settings: &WebhookSettings,
        lookup: Arc<dyn Lookup>,
        from: Option<IpAddr>,
    ) -> Result<Self, reqwest::Error> {
        let allowed: Arc<[Network]> = settings.allowed_networks.as_slice().into();
        let client = reqwest::Client::builder()
            .timeout(settings.timeout)
            .redirect(Policy::none())
            .no_proxy()
            .local_address(from)
            .user_agent(concat!("afterwrite/", env!("CARGO_PKG_VERSION")))
            .dns_resolver(CheckedResolver {
                lookup,
                allowed: Arc::clone(&allowed),
            })
            .build()?;
        Ok(Self { client, allowed })
    }

    fn check(&self, url: &str) -> Result<reqwest::Url, CallError> {
        let parsed = reqwest::Url::parse(url).map_err(|_| CallError::Url)?;
        let host = parsed.host_str().ok_or(CallError::Url)?;
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(CallError::Url);
        }
        // A literal address never reaches the resolver, so it is checked here.
        let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        match literal {
            Ok(address) if !network::may_call(address, &self.allowed) => Err(CallError::Forbidden),
            _ => Ok(parsed),
        }
    }
}

#[async_trait]
impl Caller for HttpCaller {
    async fn call(&self, call: &Call) -> Called {
        let url = match self.check(&call.url) {
            Ok(url) => url,
            Err(error) => return Called::Impossible(error),
        };
        let timestamp = call.at.timestamp().to_string();
        let Some(signature) = signatures(&call.secret, &call.id, &timestamp, &call.body) else {
            return Called::Impossible(CallError::Secret);
        };
        let response = self
            .client
            .post(url)
            .header("content-type", "application/json")
            .header("webhook-id", &call.id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signature)
            .body(call.body.clone())
            .send()
            .await;
        match response {
            Ok(response) => answer(response).await,
            Err(error) => failed(error),
        }
    }
}

async fn answer(mut response: reqwest::Response) -> Called {
    let code = response.status().as_u16();
    let retry_after = response
        .headers()
        .get("retry-after")
        .and_then(|value| value.to_str().ok())
        .and_then(|value| wait_asked_for(value, Utc::now()));
    let mut body: Vec<u8> = Vec::new();
    // The status alone decides; a body that breaks off changes nothing.
    while let Ok(Some(chunk)) = response.chunk().await {
        let room = RESPONSE_BYTES_MAX - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if body.len() == RESPONSE_BYTES_MAX {
            break;
        }
    }
    // Postgres takes no NUL in text.
    let excerpt = String::from_utf8_lossy(&body).replace('\0', "\u{fffd}");
    let kept = Answer { code, excerpt };
    if (200..300).contains(&code) {
        Called::Delivered(kept)
    } else {
        Called::Refused {
            answer: kept,
            retry_after,
        }
    }
}

fn failed(error: reqwest::Error) -> Called {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(inner) = cause {
        if let Some(refused) = inner.downcast_ref::<CallError>() {
            return match refused {
                CallError::Forbidden => Called::Impossible(CallError::Forbidden),
                CallError::Resolve(io) => Called::Failed(CallError::Resolve(io.kind().into())),
                CallError::Url | CallError::Secret | CallError::Late | CallError::Connection(_) => {
                    Called::Failed(CallError::Connection(error.without_url()))
                }
            };
        }
        cause = inner.source();
    }
    if error.is_timeout() {
        return Called::Failed(CallError::Late);
    }
    Called::Failed(CallError::Connection(error.without_url()))
}

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (lookup, allowed) = (Arc::clone(&self.lookup), Arc::clone(&self.allowed));
        Box::pin(async move {
            let found = lookup.addresses(name.as_str()).await.map_err(CallError::Resolve)?;
            if !found.iter().all(|address| network::may_call(*address, &allowed)) {
                return Err(CallError::Forbidden.into());
            }
            // The port is the URL's.
            let checked: Addrs = Box::new(found.into_iter().map(|address| SocketAddr::new(address, 0)));
            Ok(checked)
        })
    }
}

/// The value of `webhook-signature`: one `v1,…` per secret. `None` when a secret cannot be read.
fn signatures(secrets: &str, id: &str, timestamp: &str, body: &[u8]) -> Option<String> {
    let signed: Option<Vec<String>> = secrets
        .split_whitespace()
        .map(|secret| {
            let key = STANDARD.decode(secret.strip_prefix("whsec_")?).ok()?;
            // Anybody could sign with an empty key.
            let key = Some(key).filter(|key| !key.is_empty())?;
            let mut mac = Hmac::<Sha256>::new_from_slice(&key).ok()?;
            mac.update(format!("{id}.{timestamp}.").as_bytes());
            mac.update(body);
            Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
        })
        .collect();
    signed.filter(|list| !list.is_empty()).map(|list| list.join(" "))
}

/// `Retry-After` in both its forms: seconds, or a date.
fn wait_asked_for(value: &str, now: DateTime<Utc>) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let until = DateTime::parse_from_rfc2822(value.trim()).ok()?;
    (until.with_timezone(&Utc) - now).to_std().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_the_standards_own_example() {
        let body = br#"{"test": 2432232314}"#;
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let signature = signatures(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", body).unwrap();
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_rotating_secret_signs_twice_and_a_bad_one_is_refused() {
        let two = signatures("whsec_QUFB whsec_QkJC", "a", "1", b"{}").unwrap();
        assert_eq!(two.split(' ').count(), 2);
        assert_eq!(signatures("plain", "a", "1", b"{}"), None);
        assert_eq!(signatures("", "a", "1", b"{}"), None);
    }

    #[test]
    fn retry_after_is_read_as_seconds_and_as_a_date() {
        let now = DateTime::parse_from_rfc3339("2026-01-01T00:00:00Z").unwrap().to_utc();
        assert_eq!(wait_asked_for("120", now), Some(Duration::from_secs(120)));
        assert_eq!(
            wait_asked_for("Thu, 01 Jan 2026 00:01:00 GMT", now),
            Some(Duration::from_secs(60))
        );
        assert_eq!(wait_asked_for("Wed, 31 Dec 2025 00:00:00 GMT", now), None);
        assert_eq!(wait_asked_for("soon", now), None);
    }
}
