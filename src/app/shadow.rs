//! Plugs the handlers into a shadow.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use sqlx::postgres::PgPoolOptions;
use tokio::sync::mpsc;

use super::{bounded, connect_options, connect_timeout, decoding, keyless, lease, options, router};
use crate::config::Config;
use crate::decode::registry::Registry;
use crate::decode::{Decoder, resolve};
use crate::event::delivery::Content;
use crate::handler::Handler;
use crate::ledger::patience;
use crate::shadow::{Group, Seen, Setup, Told};
use crate::source::kafka::follow::Followed;

/// Groups that decide in the shadow, and what their records are decoded with.
pub struct Shadow {
    decoder: Decoder,
    registry: Option<Registry>,
    groups: Vec<Group>,
    told: mpsc::Sender<Told>,
}

impl Shadow {
    /// Hands a record to the groups that it wakes; waits while their lanes are full.
    pub async fn take(&self, followed: &Followed) {
        let topic = &followed.partition.topic;
        let (partition, offset) = (followed.partition.partition, followed.position.0);
        match resolve::content(&self.decoder, self.registry.as_ref(), topic, &followed.raw).await {
            Content::Change(event) => {
                let seen = Seen {
                    event,
                    topic: Arc::clone(topic),
                    partition,
                    offset,
                };
                for group in &self.groups {
                    group.take(&seen).await;
                }
            }
            Content::Skip(_) => {}
            Content::Undecodable(reason) => {
                let undecodable = Told::Undecodable {
                    topic: Arc::clone(topic),
                    partition,
                    offset,
                    reason,
                };
                if self.told.send(undecodable).await.is_err() {
                    tracing::debug!("nobody hears of a record that cannot be decoded");
                }
            }
        }
    }
}

/// Starts a group for each handler. They must send nothing by themselves; what they write is rolled back. What they decide
/// goes to `told`.
///
/// # Errors
/// When a setting cannot be used, a table has no primary key, or Postgres or its migrations are missing.
pub async fn start(
    config: &Config,
    handlers: Vec<Arc<dyn Handler>>,
    told: &mpsc::Sender<Told>,
) -> anyhow::Result<Shadow> {
    let connect = connect_options(config)?.application_name("afterwrite shadow");
    let reading = bounded(&connect, patience::STATEMENT_MAX).options([("default_transaction_read_only", "on")]);
    let reading = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(connect_timeout(config))
        .connect_lazy_with(reading);
    sqlx::query("SELECT FROM afterwrite.ledger LIMIT 0")
        .execute(&reading)
        .await
        .context(
            "the ledger could not be read: does postgres answer at postgres.url, and did `afterwrite migrate` run, which changes no \
             table of the application?",
        )?;
    keyless::refuse(&reading, &handlers).await?;
    let decoder = Decoder::new(decoding(config, &reading, &handlers).await?);
    let registry = options::registry(config).context("the settings of [registry] cannot be used")?;
    reading.close().await;
    let groups = handlers.into_iter().map(|handler| {
        let group = config.group_name(&handler.spec().name);
        let settings = config.engine_of(&group);
        let timeout = Duration::from_millis(settings.attempt_timeout_ms);
        let router = router(config, &group, handler);
        let longest = router.timeout(0).unwrap_or(timeout);
        let setup = Setup {
            router,
            connect: bounded(&connect, longest),
            acquire: connect_timeout(config),
            lease: lease(Duration::from_millis(settings.effect_lease_ms), longest),
            timeout,
        };
        Group::start(setup, told)
    });
    Ok(Shadow {
        groups: groups.collect(),
        decoder,
        registry,
        told: told.clone(),
    })
}
