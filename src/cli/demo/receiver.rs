//! The customer's side of a webhook: a small HTTP server that believes nothing it cannot verify.
//!
//! Verification is written here once more, from the text of Standard Webhooks and not from the worker's code, so that the
//! demo would notice if the worker signed something else.

use std::net::Ipv4Addr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::Utc;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::failure::DemoFailure;

/// A longer request is refused.
const REQUEST_BYTES_MAX: usize = 64 * 1024;

/// A client that takes longer is hung up on.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(5);

/// A signature that is older or newer by more than this could be somebody's recording.
const AGE_MAX_S: i64 = 300;

/// Calls that nobody has looked at yet.
const CALLS_MAX: usize = 64;

/// A call that was verified, or not.
#[derive(Debug)]
pub(super) struct Call {
    /// When the request was complete.
    pub(super) at: Instant,
    /// Why it was refused, or `None`.
    pub(super) refused: Option<&'static str>,
    /// `webhook-id`.
    pub(super) id: String,
    /// `type` of the body.
    pub(super) kind: String,
    /// `data.code` of the body.
    pub(super) code: Option<String>,
}

/// The server. Dropped, it stops.
#[derive(Debug)]
pub(super) struct Receiver {
    /// Where it is called.
    pub(super) url: String,
    /// What came.
    pub(super) calls: mpsc::Receiver<Call>,
    task: JoinHandle<()>,
}

impl Receiver {
    /// Listens on this machine, on a port of its own, for calls signed with `secret` (`whsec_…`).
    pub(super) async fn start(secret: &str) -> Result<Self, DemoFailure> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .map_err(DemoFailure::Ports)?;
        let port = listener.local_addr().map_err(DemoFailure::Ports)?.port();
        let key = key_of(secret).unwrap_or_default();
        let (sender, calls) = mpsc::channel(CALLS_MAX);
        let task = tokio::spawn(async move {
            // One call after the other: there are few, and each has a time limit.
            while let Ok((stream, _)) = listener.accept().await {
                let answered = timeout(REQUEST_TIME_MAX, answer(stream, &key)).await;
                if let Ok(Some(call)) = answered
                    && sender.send(call).await.is_err()
                {
                    return;
                }
            }
        });
        Ok(Self {
            url: format!("http://127.0.0.1:{port}/hooks/rewards"),
            calls,
            task,
        })
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn key_of(secret: &str) -> Option<Vec<u8>> {
    STANDARD.decode(secret.strip_prefix("whsec_")?).ok()
}

/// Reads one request, answers it, and says what it was; `None` when it was none.
async fn answer(mut stream: TcpStream, key: &[u8]) -> Option<Call> {
    let mut bytes = Vec::new();
    let request = loop {
        let mut chunk = [0; 4096];
        let read = stream.read(&mut chunk).await.ok()?;
        bytes.extend_from_slice(&chunk[..read]);
        if let Some(request) = Request::parse(&bytes) {
            break request;
        }
        if read == 0 || bytes.len() > REQUEST_BYTES_MAX {
            return None;
        }
    };
    let at = Instant::now();
    let refused = request.verify(key, Utc::now().timestamp()).err();
    let status = if refused.is_none() {
        "204 No Content"
    } else {
        "401 Unauthorized"
    };
    let reply = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    stream.write_all(reply.as_bytes()).await.ok()?;
    let body: Value = serde_json::from_slice(request.body).unwrap_or_default();
    Some(Call {
        at,
        refused,
        id: request.header("webhook-id").unwrap_or_default().to_owned(),
        kind: body["type"].as_str().unwrap_or_default().to_owned(),
        code: body["data"]["code"].as_str().map(str::to_owned),
    })
}

/// A whole request.
struct Request<'a> {
    head: &'a str,
    body: &'a [u8],
}

impl<'a> Request<'a> {
    /// `None` while bytes are missing.
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&bytes[..end]).ok()?;
        let request = Self {
            head,
            body: &bytes[end + 4..],
        };
        let length: usize = request
            .header("content-length")
            .map_or(Some(0), |text| text.parse().ok())?;
        (request.body.len() >= length).then_some(request)
    }

    fn header(&self, name: &str) -> Option<&'a str> {
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        let mut values = fields.filter(|(known, _)| known.eq_ignore_ascii_case(name));
        values.next().map(|(_, value)| value.trim())
    }

    /// Whether the sender knows the secret and says this now.
    fn verify(&self, key: &[u8], now: i64) -> Result<(), &'static str> {
        let id = self.header("webhook-id").ok_or("no webhook-id")?;
        let timestamp = self.header("webhook-timestamp").ok_or("no webhook-timestamp")?;
        let signatures = self.header("webhook-signature").ok_or("no webhook-signature")?;
        let sent: i64 = timestamp.parse().map_err(|_| "an unreadable timestamp")?;
        if (now - sent).abs() > AGE_MAX_S {
            return Err("an old timestamp");
        }
        let mut mac = Hmac::<Sha256>::new_from_slice(key).map_err(|_| "no key")?;
        mac.update(id.as_bytes());
        mac.update(b".");
        mac.update(timestamp.as_bytes());
        mac.update(b".");
        mac.update(self.body);
        let genuine = signatures
            .split(' ')
            .filter_map(|one| STANDARD.decode(one.strip_prefix("v1,")?).ok())
            .any(|tag| mac.clone().verify_slice(&tag).is_ok());
        if genuine { Ok(()) } else { Err("a wrong signature") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the standard.
    const EXAMPLE: &str = "POST / HTTP/1.1\r\nWebhook-Id: msg_p5jXN8AQM9LWM0D4loKWxJek\r\n\
        webhook-timestamp: 1614265330\r\ncontent-length: 20\r\n\
        webhook-signature: v1,AAAA v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=\r\n\r\n{\"test\": 2432232314}";

    #[test]
    fn a_call_is_believed_only_with_its_signature_its_body_and_its_time() {
        let key = key_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let check = |text: &str, key: &[u8], now| Request::parse(text.as_bytes()).unwrap().verify(key, now);
        assert_eq!(check(EXAMPLE, &key, 1_614_265_330), Ok(()));
        assert_eq!(check(EXAMPLE, b"other", 1_614_265_330), Err("a wrong signature"));
        assert_eq!(check(EXAMPLE, &key, 1_614_269_999), Err("an old timestamp"));
        let changed = EXAMPLE.replace("2432232314", "2432232315");
        assert_eq!(check(&changed, &key, 1_614_265_330), Err("a wrong signature"));
        let unsigned = EXAMPLE.replace("webhook-signature", "x");
        assert_eq!(check(&unsigned, &key, 1_614_265_330), Err("no webhook-signature"));
    }

    #[test]
    fn a_request_is_waited_for_until_its_last_byte() {
        for end in 0..EXAMPLE.len() {
            assert!(Request::parse(&EXAMPLE.as_bytes()[..end]).is_none(), "{end}");
        }
        assert!(Request::parse(EXAMPLE.as_bytes()).is_some());
    }
}
