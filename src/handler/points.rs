//! Named points of an attempt, at which a test lets something happen: the process dies, the database goes away.
//!
//! Compiled with the feature `testkit` alone. Who is watching is told by the task that runs the handler, so that a handler under
//! test is called as any other; where nobody watches, nothing happens.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::handler::HandlerError;
use crate::ledger::effects::Claim;

/// A point of an attempt, in the order in which attempts reach them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Point {
    /// The handler is about to be called: nothing has happened.
    Called,
    /// [`Context::claim`](crate::handler::Context::claim) has committed the claim of this effect: nothing was called.
    Claimed(String),
    /// [`Context::accepted`](crate::handler::Context::accepted) was told that the other side took the call of this effect: nothing
    /// of that is in the database.
    Accepted(String),
    /// [`Context::once`](crate::handler::Context::once) has opened its transaction: ledger rows are written, locks are held.
    Opened,
    /// The handler has answered `Ok`: nothing is committed.
    Returned,
}

impl Point {
    /// [`Point::Claimed`] for this key.
    pub fn claimed(key: &str) -> Self {
        Self::Claimed(key.to_owned())
    }

    /// [`Point::Accepted`] for this key.
    pub fn accepted(key: &str) -> Self {
        Self::Accepted(key.to_owned())
    }
}

impl fmt::Display for Point {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Called => out.write_str("called"),
            Self::Claimed(key) => write!(out, "claimed {key}"),
            Self::Accepted(key) => write!(out, "accepted {key}"),
            Self::Opened => out.write_str("opened"),
            Self::Returned => out.write_str("returned"),
        }
    }
}

/// Is told of the points that an attempt reaches.
#[async_trait]
pub trait Watch: Send + Sync + 'static {
    /// The attempt is at this point, and waits there.
    ///
    /// # Errors
    /// What the attempt meets there.
    async fn reached(&self, point: Point) -> Result<(), HandlerError>;

    /// The attempt is at this point and cannot wait there; to end it, unwind.
    fn passed(&self, point: Point);
}

tokio::task_local! {
    static WATCH: Arc<dyn Watch>;
}

/// Runs `work`, and tells `watch` of the points that it reaches.
pub async fn watched<T>(watch: Arc<dyn Watch>, work: impl Future<Output = T>) -> T {
    WATCH.scope(watch, work).await
}

pub(super) async fn reached(point: Point) -> Result<(), HandlerError> {
    match WATCH.try_with(Arc::clone) {
        Ok(watch) => watch.reached(point).await,
        Err(_) => Ok(()),
    }
}

pub(super) async fn claimed(key: &str, claim: &Claim) -> Result<(), HandlerError> {
    match claim {
        Claim::Call { .. } => reached(Point::claimed(key)).await,
        _ => Ok(()),
    }
}

pub(super) fn passed(point: Point) {
    if let Ok(watch) = WATCH.try_with(Arc::clone) {
        watch.passed(point);
    }
}
