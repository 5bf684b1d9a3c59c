//! Brokers that commands ask, on threads that may block.

use std::sync::Arc;

use crate::app;
use crate::cli::Failure;
use crate::config::Config;
use crate::groups::broker::{self, Broker};

#[derive(Debug, thiserror::Error)]
#[error("asking kafka ended abnormally")]
struct EndedAbnormally(#[source] tokio::task::JoinError);

/// Brokers that have answered once.
#[derive(Debug, Clone)]
pub(super) struct Brokers(Arc<Broker>);

impl Brokers {
    /// Asks which topics there are now.
    ///
    /// # Errors
    /// Exit code 3 when no broker answers, 2 when none can be asked with these properties.
    pub(super) async fn connect(config: &Config) -> Result<Self, Failure> {
        let options = app::options::broker_options(config);
        let connected = blocking(move || Broker::connect(options)).await?;
        Ok(Self(Arc::new(connected)))
    }

    /// Asks a question.
    ///
    /// # Errors
    /// As those of [`connect`](Self::connect), and what a broker refused.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Broker) -> Result<T, broker::Error> + Send + 'static,
    ) -> Result<T, Failure> {
        let broker = Arc::clone(&self.0);
        blocking(move || question(&broker)).await
    }
}

async fn blocking<T: Send + 'static>(
    question: impl FnOnce() -> Result<T, broker::Error> + Send + 'static,
) -> Result<T, Failure> {
    let asked = tokio::task::spawn_blocking(question).await;
    let answer = asked.map_err(EndedAbnormally).map_err(Failure::failed)?;
    answer.map_err(unanswered)
}

/// Exit code 3 when the broker was away, 2 when it cannot be asked with these properties or lets nobody in, 1 when it refused.
pub(super) fn unanswered(error: broker::Error) -> Failure {
    match error {
        broker::Error::Client(_) | broker::Error::Refused(_) => Failure::usage(error),
        _ if error.is_unreachable() => Failure::unreachable(error),
        _ => Failure::failed(error),
    }
}
