//! What a process tells over HTTP: whether it lives, whether its groups run, and metrics; and where readers of marketing mails
//! unsubscribe.
//!
//! What it tells it only reads from what each group's driver told of itself last, and waits for no database or broker. Through
//! it nothing can be changed but a subscription, and that by nobody who has not got a mail.

mod health;

mod histogram;
mod metrics;
mod unsubscribe;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::engine::standing::Standing;
use crate::event::distance::Distance;
use crate::handlers::email::unsubscribe::Unsubscriber;
use crate::schedule::runner::Standings;

/// A group that runs in this process.
#[derive(Debug, Clone)]
pub struct Group {
    /// Its full name.
    pub name: String,
    /// Names of its handlers.
    pub handlers: Vec<String>,
    /// Where it stands.
    pub standing: watch::Receiver<Standing>,
    /// Bytes of log that were sent to it and are not confirmed; `None` where it reads topics.
    pub log_behind: Option<Arc<AtomicU64>>,
    /// How many records it is behind; `None` where it reads the log.
    pub events_behind: Option<Arc<Distance>>,
}

/// What is measured.
#[derive(Clone)]
struct Measured {
    groups: Arc<Vec<Group>>,
    /// Scheduled jobs, where this process runs them.
    scheduled: Option<watch::Receiver<Standings>>,
}

/// The endpoints could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("admin.listen: {address} cannot be listened on, is another process there already?")]
pub struct Error {
    address: String,
    source: std::io::Error,
}

/// Opens the socket, before anything else of the process starts.
///
/// # Errors
/// When the address cannot be resolved, is not this machine's, or is taken.
pub async fn listen(address: &str) -> Result<TcpListener, Error> {
    let listening = TcpListener::bind(address).await;
    let place = listening.and_then(|listener| Ok((listener.local_addr()?, listener)));
    let (place, listener) = place.map_err(|source| Error {
        address: address.to_owned(),
        source,
    })?;
    tracing::info!(address = %place, "health and metrics are told over HTTP");
    Ok(listener)
}

/// Answers `/healthz`, `/readyz` and `/metrics`, and with an `unsubscriber` `/unsubscribe/TOKEN`, until the task is aborted.
pub async fn serve(
    listener: TcpListener,
    groups: Vec<Group>,
    scheduled: Option<watch::Receiver<Standings>>,
    unsubscriber: Option<Unsubscriber>,
) {
    let groups = Arc::new(groups);
    let measured = Measured {
        groups: Arc::clone(&groups),
        scheduled,
    };
    let told = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(groups)
        .merge(Router::new().route("/metrics", get(metrics)).with_state(measured));
    let router = match unsubscriber {
        Some(unsubscriber) => told.merge(unsubscribe::router(unsubscriber)),
        None => told,
    };
    if let Err(error) = axum::serve(listener, router).await {
        tracing::warn!(error = %error, "health and metrics are no longer told");
    }
}

/// 200 while the process can get on by itself, 503 when only a restart can help.
async fn healthz(State(groups): State<Arc<Vec<Group>>>) -> impl IntoResponse {
    let health = health::of(&groups, Instant::now());
    (status(health.is_alive), Json(health))
}

/// 200 while every group runs, 503 while one has not started or has ended.
async fn readyz(State(groups): State<Arc<Vec<Group>>>) -> impl IntoResponse {
    let health = health::of(&groups, Instant::now());
    (status(health.is_ready), Json(health))
}

async fn metrics(State(measured): State<Measured>) -> impl IntoResponse {
    let scheduled = measured.scheduled.map(|standings| standings.borrow().clone());
    let text = metrics::text(&measured.groups, &scheduled.unwrap_or_default());
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text)
}

const fn status(is_good: bool) -> StatusCode {
    if is_good {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}
