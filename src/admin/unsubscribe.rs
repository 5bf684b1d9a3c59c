//! Where readers of marketing mails end their subscription (RFC 8058): asked for by a link, ended by a POST.
//!
//! A GET changes nothing, because programs that look for malware follow every link of a mail; a POST ends the
//! subscription without another question, because mail programs send one when their reader presses "unsubscribe". The
//! token in the path is all it takes. Nothing here tells whether somebody with an address exists, and a page loads, sends and
//! keeps nothing.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest, Sha256};

use crate::handlers::email::unsubscribe::Unsubscriber;

/// `List-Unsubscribe=One-Click` is all that a mail program sends.
const BODY_BYTES_MAX: usize = 4_096;

/// When to come back, while Postgres is away.
const AGAIN_AFTER_S: &str = "60";

const STYLE: &str = "\
:root{color-scheme:light dark}\
body{margin:0;padding:3rem 1rem;font:1rem/1.5 system-ui,sans-serif;background:#f3f4f6;color:#111827}\
main{max-width:32rem;margin:0 auto;padding:2rem;background:#fff;border:1px solid #d1d5db;border-radius:.5rem}\
h1{margin:0 0 1rem;font-size:1.5rem;line-height:2rem}\
button{padding:.75rem 1.5rem;font:inherit;font-weight:600;color:#fff;background:#1d4ed8;border:0;border-radius:.375rem;cursor:pointer}\
button:focus-visible{outline:3px solid #60a5fa;outline-offset:2px}\
@media (prefers-color-scheme:dark){body{background:#111827;color:#f9fafb}main{background:#1f2937;border-color:#374151}}";

pub(super) fn router(unsubscriber: Unsubscriber) -> Router {
    Router::new()
        .route("/unsubscribe/{token}", get(ask).post(unsubscribe))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(map_response(secured))
        .with_state(Arc::new(unsubscriber))
}

/// A page with a button. HEAD answers the same without the page.
async fn ask(State(unsubscriber): State<Arc<Unsubscriber>>, Path(token): Path<String>) -> Response {
    match unsubscriber.read(&token) {
        None => unknown(),
        // The form leads to where it is: no address of this process has to be right for it.
        Some(_) => page(
            StatusCode::OK,
            "Unsubscribe",
            "<p>Do you want to get no more news about this waitlist? Mails about your own sign-up and rewards still arrive.</p>\
             <form method=\"post\"><button name=\"List-Unsubscribe\" value=\"One-Click\">Unsubscribe</button></form>",
        ),
    }
}

/// Ends the subscription. Whatever the body says: who has the token and sends a POST wants just that. It is read so that the
/// connection can be used again, and so that too long a one is refused.
async fn unsubscribe(
    State(unsubscriber): State<Arc<Unsubscriber>>,
    Path(token): Path<String>,
    _body: Bytes,
) -> Response {
    let Some(subscription) = unsubscriber.read(&token) else {
        return unknown();
    };
    match unsubscriber.end(&subscription).await {
        Ok(()) => page(
            StatusCode::OK,
            "You are unsubscribed",
            "<p>You will get no more news about this waitlist.</p>",
        ),
        Err(error) => {
            tracing::warn!(error = %error, "somebody could not be unsubscribed yet and was asked to try again");
            let again = page(
                StatusCode::SERVICE_UNAVAILABLE,
                "Not unsubscribed yet",
                "<p>This did not work just now. Please try again in a minute.</p>",
            );
            ([(RETRY_AFTER, AGAIN_AFTER_S)], again).into_response()
        }
    }
}

fn unknown() -> Response {
    page(
        StatusCode::NOT_FOUND,
        "This link is not complete",
        "<p>Please use the link of the mail as a whole.</p>",
    )
}

fn page(status: StatusCode, title: &str, content: &str) -> Response {
    let html = format!(
        "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>{title}</title>\
         <style>{STYLE}</style></head><body><main><h1>{title}</h1>{content}</main></body></html>"
    );
    (status, [(CONTENT_TYPE, "text/html; charset=utf-8")], html).into_response()
}

/// What every answer carries, also those to wrong methods: it is kept by nobody, framed by nobody, and leads nowhere.
async fn secured(mut response: Response) -> Response {
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        BASE64.encode(Sha256::digest(STYLE))
    );
    let policy = HeaderValue::try_from(policy).expect("it is made of ASCII");
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, policy);
    for (name, value) in [
        (CACHE_CONTROL, "no-store"),
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (HeaderName::from_static("x-robots-tag"), "noindex, nofollow"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
