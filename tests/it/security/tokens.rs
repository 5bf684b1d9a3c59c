//! An endpoint that gives out tokens (RFC 6749, section 4.4) signed with the key by which the stack's broker checks them.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::stack;

pub(super) const CLIENT: &str = "afterwrite-client";

pub(super) const SECRET: &str = "client-s3cret";

/// How long a token is good, where that is not what is looked at.
const LIFETIME_S: u64 = 300;

/// The endpoint. It lives as long as the test.
pub(super) struct Tokens {
    pub(super) url: String,
    /// `host:port`, for who stands before it.
    pub(super) at: String,
    giving: Arc<Giving>,
}

/// What is given.
struct Giving {
    audience: &'static str,
    lifetime_s: u64,
    is_shut: AtomicBool,
    given: AtomicU32,
}

impl Tokens {
    /// One whose tokens are for this audience; the broker takes those for `kafka`.
    pub(super) async fn serve(audience: &'static str) -> Self {
        Self::serve_for(audience, LIFETIME_S).await
    }

    /// The same, whose tokens are good for so long.
    pub(super) async fn serve_for(audience: &'static str, lifetime_s: u64) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap().to_string();
        let giving = Arc::new(Giving {
            audience,
            lifetime_s,
            is_shut: AtomicBool::new(false),
            given: AtomicU32::new(0),
        });
        let router = Router::new()
            .route("/token", post(give))
            .with_state(Arc::clone(&giving));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            url: format!("http://{at}/token"),
            at,
            giving,
        }
    }

    /// How many were given.
    pub(super) fn given(&self) -> u32 {
        self.giving.given.load(Ordering::Relaxed)
    }

    /// Gives none, or again.
    pub(super) fn shut(&self, is_shut: bool) {
        self.giving.is_shut.store(is_shut, Ordering::Relaxed);
    }
}

async fn give(State(giving): State<Arc<Giving>>, headers: HeaderMap, body: String) -> (StatusCode, Json<Value>) {
    if giving.is_shut.load(Ordering::Relaxed) {
        let closed = json!({"error": "temporarily_unavailable", "error_description": "come back later"});
        return (StatusCode::SERVICE_UNAVAILABLE, Json(closed));
    }
    let login = format!("Basic {}", STANDARD.encode(format!("{CLIENT}:{SECRET}")));
    let is_right = headers.get("authorization").is_some_and(|given| *given == login);
    let form: Vec<(String, String)> = url::form_urlencoded::parse(body.as_bytes()).into_owned().collect();
    let has = |name: &str, value: &str| form.iter().any(|(known, given)| known == name && given == value);
    if !is_right || !has("grant_type", "client_credentials") || !has("scope", "records") {
        let refusal = json!({"error": "invalid_client", "error_description": "this client is not known"});
        return (StatusCode::UNAUTHORIZED, Json(refusal));
    }
    giving.given.fetch_add(1, Ordering::Relaxed);
    let (audience, lifetime_s) = (giving.audience, giving.lifetime_s);
    let token = tokio::task::spawn_blocking(move || token(audience, lifetime_s))
        .await
        .unwrap();
    let given = json!({"access_token": token, "token_type": "Bearer", "expires_in": lifetime_s});
    (StatusCode::OK, Json(given))
}

fn token(audience: &str, lifetime_s: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let header = json!({"alg": "RS256", "typ": "JWT", "kid": "stack"});
    let claims = json!({
        "iss": "https://tokens.test", "sub": CLIENT, "aud": audience, "scope": "records", "iat": now, "exp": now + lifetime_s,
    });
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&header), part(&claims));
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(sign(signed.as_bytes())))
}

/// RSA with SHA-256, by the command line that has made the key.
fn sign(text: &[u8]) -> Vec<u8> {
    let key = format!("{}/token.key", stack::address("KAFKA_TLS_DIR"));
    let mut signing = Command::new("openssl")
        .args(["dgst", "-sha256", "-sign", &key])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    signing.stdin.take().unwrap().write_all(text).unwrap();
    let output = signing.wait_with_output().unwrap();
    assert!(output.status.success());
    output.stdout
}
