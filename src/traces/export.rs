//! Sending spans: OTLP over HTTP, by the HTTP client and the TLS that everything else here uses.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter as OtlpExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::{SPANS, Settings};

/// What is read of an answer at most; it says how many spans were rejected.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// How often somebody is told that spans are not exported.
const SAID_EVERY: Duration = Duration::from_secs(60);

/// Spans cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No HTTP client.
    #[error("the client that sends spans could not be made")]
    Client(#[source] reqwest::Error),
    /// No exporter.
    #[error("traces.endpoint is no address that spans can be sent to")]
    Exporter(#[source] opentelemetry_otlp::ExporterBuildError),
}

/// An exporter as the settings say; requests run on the runtime of the caller.
pub(super) fn exporter(settings: Settings) -> Result<Counting, Error> {
    let client = reqwest::Client::builder()
        .timeout(settings.timeout)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(Error::Client)?;
    let sender = Sender {
        client,
        runtime: Handle::current(),
        said_at: Mutex::new(None),
    };
    let exporter = OtlpExporter::builder()
        .with_http()
        .with_http_client(sender)
        .with_endpoint(format!("{}/v1/traces", settings.endpoint.trim_end_matches('/')))
        .with_headers(HashMap::from_iter(settings.headers))
        .with_timeout(settings.timeout)
        .build()
        .map_err(Error::Exporter)?;
    Ok(Counting(exporter))
}

/// Counts what was exported and what was not.
#[derive(Debug)]
pub(super) struct Counting(OtlpExporter);

impl SpanExporter for Counting {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        let exported = self.0.export(batch).await;
        let state = if exported.is_ok() { "exported" } else { "failed" };
        SPANS.add(&[state], spans);
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &opentelemetry_sdk::Resource) {
        self.0.set_resource(resource);
    }
}

/// Sends requests. Spans are batched by a thread of their own, which has no runtime.
struct Sender {
    client: reqwest::Client,
    runtime: Handle,
    said_at: Mutex<Option<Instant>>,
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Sender(..)")
    }
}

/// A receiver that did not take them.
#[derive(Debug, thiserror::Error)]
enum NotTaken {
    #[error("the receiver of spans did not answer")]
    Unreachable(#[source] reqwest::Error),
    #[error("the receiver of spans answered {0}")]
    Refused(u16),
    #[error("the process is about to end")]
    Ending,
    #[error("the answer could not be read")]
    Unreadable,
}

#[async_trait]
impl HttpClient for Sender {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (head, body) = request.into_parts();
        let asked = self
            .client
            .request(head.method, head.uri.to_string())
            .headers(head.headers)
            .body(body);
        let answered = self.runtime.spawn(answer(asked)).await;
        let answered = answered.unwrap_or(Err(NotTaken::Ending));
        let not_taken = match &answered {
            Ok(response) if response.status().is_success() => None,
            Ok(response) => Some(NotTaken::Refused(response.status().as_u16()).to_string()),
            Err(error) => Some(crate::causes::chain(error)),
        };
        if let Some(error) = not_taken {
            self.say(&error);
        }
        Ok(answered?)
    }
}

impl Sender {
    fn say(&self, error: &str) {
        let mut said_at = self.said_at.lock().expect("no panic while held");
        if said_at.is_none_or(|said_at| said_at.elapsed() >= SAID_EVERY) {
            *said_at = Some(Instant::now());
            tracing::warn!(error, "spans could not be exported and are dropped");
        }
    }
}

async fn answer(asked: reqwest::RequestBuilder) -> Result<Response<Bytes>, NotTaken> {
    // Its address may hold a password.
    let unreachable = |error: reqwest::Error| NotTaken::Unreachable(error.without_url());
    let mut answered = asked.send().await.map_err(unreachable)?;
    let status = answered.status();
    let mut body = Vec::new();
    while let Some(part) = answered.chunk().await.map_err(unreachable)? {
        if body.len() + part.len() > ANSWER_BYTES_MAX {
            return Err(NotTaken::Unreadable);
        }
        body.extend_from_slice(&part);
    }
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = status;
    Ok(response)
}
