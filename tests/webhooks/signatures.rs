//! What is signed is what Standard Webhooks says: the crate `standardwebhooks` of its authors is the receiver.

use std::sync::Arc;

use afterwrite::clients::webhook::{CallError, Called, Caller};
use afterwrite::testkit::receiver::{Receiver, Request};
use chrono::{TimeDelta, Utc};
use reqwest::header::HeaderMap;
use standardwebhooks::{Webhook, WebhookError};

use crate::zone::Zone;
use crate::{call, caller};

const FIRST: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const SECOND: &str = "whsec_plJ3nmyCDGBKInavdOK15jsl";
const ANOTHER: &str = "whsec_QUJDREVGR0hJSktMTU5PUA==";

fn verified(secret: &str, request: &Request) -> Result<(), WebhookError> {
    let mut headers = HeaderMap::new();
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        headers.insert(name, request.header(name).unwrap().parse().unwrap());
    }
    Webhook::new(secret).unwrap().verify(&request.body, &headers)
}

/// The one request that a call with these secrets made.
async fn received(secrets: &str) -> Request {
    let receiver = Receiver::start().await;
    let caller = caller(&Arc::new(Zone::default()), &["127.0.0.1/32"]);
    let called = caller.call(&call(&receiver.url("/hook"), secrets)).await;
    assert!(matches!(called, Called::Delivered(_)), "{called:?}");
    let mut requests = receiver.requests();
    assert_eq!(requests.len(), 1);
    requests.remove(0)
}

#[tokio::test]
async fn a_call_is_verified_by_another_implementation_with_its_secret_alone() {
    let request = received(FIRST).await;
    verified(FIRST, &request).unwrap();
    assert!(verified(ANOTHER, &request).is_err());
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert_eq!(request.header("webhook-id"), Some("msg_2KWPBgLlAfxdpx2AI54pPJ85f4W"));
}

#[tokio::test]
async fn whatever_is_changed_on_the_way_is_noticed() {
    let request = received(FIRST).await;
    let changed = |name: &str, value: &str| {
        let mut other = request.clone();
        let header = other.headers.iter_mut().find(|(header, _)| header == name).unwrap();
        header.1 = value.to_owned();
        other
    };
    let timestamp: i64 = request.header("webhook-timestamp").unwrap().parse().unwrap();
    assert!(verified(FIRST, &changed("webhook-id", "msg_x")).is_err());
    assert!(verified(FIRST, &changed("webhook-timestamp", &(timestamp + 1).to_string())).is_err());
    let mut body = request.clone();
    body.body.push(b' ');
    assert!(verified(FIRST, &body).is_err());
}

#[tokio::test]
async fn while_a_secret_rotates_both_the_old_and_the_new_one_verify() {
    let request = received(&format!("{SECOND} {FIRST}")).await;
    let signatures: Vec<&str> = request.header("webhook-signature").unwrap().split(' ').collect();
    assert_eq!(signatures.len(), 2);
    for secret in [FIRST, SECOND] {
        verified(secret, &request).unwrap();
    }
    assert!(verified(ANOTHER, &request).is_err());
    // When it has rotated, the old one no longer does.
    let request = received(SECOND).await;
    assert!(verified(FIRST, &request).is_err());
}

#[tokio::test]
async fn a_call_that_was_signed_long_ago_is_taken_for_a_replay() {
    let receiver = Receiver::start().await;
    let caller = caller(&Arc::new(Zone::default()), &["127.0.0.1/32"]);
    let old = afterwrite::clients::webhook::Call {
        at: Utc::now() - TimeDelta::minutes(6),
        ..call(&receiver.url("/hook"), FIRST)
    };
    caller.call(&old).await;
    let refusal = verified(FIRST, &receiver.requests()[0]).unwrap_err();
    assert!(matches!(refusal, WebhookError::TimestampTooOldError), "{refusal}");
}

#[tokio::test]
async fn a_secret_that_could_sign_nothing_is_refused_before_anything_is_called() {
    let receiver = Receiver::start().await;
    let caller = caller(&Arc::new(Zone::default()), &["127.0.0.1/32"]);
    let half = format!("{FIRST} whsec_%");
    for secret in ["", " ", "whsec_", "whsec_*", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", &half] {
        let called = caller.call(&call(&receiver.url("/hook"), secret)).await;
        assert!(
            matches!(called, Called::Impossible(CallError::Secret)),
            "{secret:?}: {called:?}"
        );
    }
    assert!(receiver.requests().is_empty());
}
