//! What a process tells over HTTP: whether it lives, whether its groups run, and metrics; and where readers of marketing mails
//! unsubscribe.
//!
//! What it tells it only reads from what each group's driver told of itself last, and from what others met and counted; it
//! waits for no database or broker. Through
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
use chrono::{DateTime, Utc};
use sqlx::postgres::PgPool;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::engine::standing::Standing;
use crate::event::distance::Distance;
use crate::handlers::email::unsubscribe::Unsubscriber;
use crate::handlers::figures::Figures;
use crate::schedule::runner::Standings;
use crate::tally::reach::Reach;

/// A group that runs in this process.
#[derive(Debug, Clone)]
pub struct Group {
    /// Its full name.
    pub name: String,
    /// Names of its handlers.
    pub handlers: Vec<String>,
    /// Whether somebody is woken for it.
    pub is_critical: bool,
    /// Where it stands.
    pub standing: watch::Receiver<Standing>,
    /// Bytes of log that were sent to it and are not confirmed; `None` where it reads topics.
    pub log_behind: Option<Arc<AtomicU64>>,
    /// How many records it is behind; `None` where it reads the log.
    pub events_behind: Option<Arc<Distance>>,
}

/// What a process tells.
#[derive(Debug, Clone, Default)]
pub struct Told {
    /// When it started.
    pub started: DateTime<Utc>,
    /// The groups that run in it.
    pub groups: Arc<Vec<Group>>,
    /// Scheduled jobs, where this process runs them.
    pub scheduled: Option<watch::Receiver<Standings>>,
    /// Its database connections, by what they are for.
    pub pools: Arc<Vec<(String, PgPool)>>,
    /// The application's figures, where this process reads them.
    pub figures: Option<watch::Receiver<Option<Figures>>>,
    /// What it needs.
    pub needs: Arc<Vec<Need>>,
}

/// Something that a process needs.
#[derive(Debug, Clone, Copy)]
pub struct Need {
    /// What it is called.
    pub name: &'static str,
    /// How it was met last.
    pub reach: &'static Reach,
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
pub async fn serve(listener: TcpListener, told: Told, unsubscriber: Option<Unsubscriber>) {
    let told = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(told);
    let router = match unsubscriber {
        Some(unsubscriber) => told.merge(unsubscribe::router(unsubscriber)),
        None => told,
    };
    if let Err(error) = axum::serve(listener, router).await {
        tracing::warn!(error = %error, "health and metrics are no longer told");
    }
}

/// 200 while the process can get on by itself, 503 when only a restart can help.
async fn healthz(State(told): State<Told>) -> impl IntoResponse {
    let health = health::of(&told, Instant::now());
    (status(health.is_alive), Json(health))
}

/// 200 while every group runs, 503 while one has not started or has ended.
async fn readyz(State(told): State<Told>) -> impl IntoResponse {
    let health = health::of(&told, Instant::now());
    (status(health.is_ready), Json(health))
}

async fn metrics(State(told): State<Told>) -> impl IntoResponse {
    let text = metrics::text(&told);
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text)
}

const fn status(is_good: bool) -> StatusCode {
    if is_good {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}
