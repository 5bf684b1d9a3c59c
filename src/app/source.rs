//! The source of a group: topics that Debezium writes, or the write-ahead log itself.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::Context as _;
use sqlx::postgres::PgPool;
use tokio::sync::{mpsc, watch};

use crate::app::options;
use crate::config::engine::Engine as EngineSettings;
use crate::config::wal::{SLOT_BYTES_MAX, slot_of};
use crate::config::{Config, SourceKind};
use crate::decode::Decoder;
use crate::decode::registry::Registry;
use crate::event::delivery::{SourceCommand, SourceEvent};
use crate::event::distance::Distance;
use crate::groups::slots::keep_bytes_max;
use crate::handler::Spec;
use crate::ledger::beginnings::Beginnings;
use crate::ledger::claims::Claims;
use crate::ledger::slots::Slots;
use crate::ledger::sources::{self, Kind, Sources};
use crate::source::{kafka, wal};

/// Events that wait for the engine at most.
pub(super) const UNHEARD_MAX: usize = if kafka::UNHEARD_MAX > wal::UNHEARD_MAX {
    kafka::UNHEARD_MAX
} else {
    wal::UNHEARD_MAX
};

/// Pause before Postgres is asked again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Warns of a server that keeps log without limit for a group that is stopped; once for all groups of the process.
pub(super) async fn warn_of_the_disk(config: &Config, pool: &PgPool) {
    if config.source.kind.has_brokers() {
        return;
    }
    match keep_bytes_max(pool).await {
        Ok(Some(keeps)) => {
            let lag_max = config.wal.slot_lag_bytes_max;
            if lag_max > 0 && keeps.unsigned_abs() <= lag_max {
                tracing::warn!(
                    max_slot_wal_keep_size = keeps,
                    slot_lag_bytes_max = lag_max,
                    "wal.slot_lag_bytes_max is not below max_slot_wal_keep_size: a slot is lost before jobs that wait are parked"
                );
            }
        }
        Ok(None) => tracing::warn!(
            "max_slot_wal_keep_size is -1: a group that is stopped fills the disk of postgres without limit. Choose one: ALTER \
             SYSTEM SET max_slot_wal_keep_size = '…'; SELECT pg_reload_conf()"
        ),
        Err(error) => tracing::debug!(%error, "max_slot_wal_keep_size could not be read"),
    }
}

/// A source that is ready to start.
pub(super) enum Source {
    Kafka(Box<kafka::Options>, kafka::Kept),
    Wal(Box<wal::Options>, Claims, Slots),
}

/// A source that runs.
pub(super) enum Running {
    Kafka(kafka::Running),
    Wal(wal::Running),
}

impl Source {
    /// What a group reads.
    pub(super) async fn new(
        config: &Config,
        group: &str,
        spec: &Spec,
        claims: Claims,
        coordination: &PgPool,
    ) -> anyhow::Result<Self> {
        Sources::new(coordination.clone(), group)
            .may_read(kind(config.source.kind))
            .await?;
        match config.source.kind {
            SourceKind::Kafka => {
                let settings: EngineSettings = config.engine_of(group);
                let kept = kafka::Kept {
                    claims,
                    beginnings: Beginnings::new(coordination.clone(), group),
                };
                let source = options::source_options(config, group, spec, &settings);
                Ok(Self::Kafka(Box::new(source), kept))
            }
            SourceKind::Wal => {
                let setting = config.wal.url.as_ref().map_or("postgres.url", |_| "wal.url");
                let source = options::wal_options(config, group, spec).with_context(|| format!("in {setting}"))?;
                let slot = slot_of(group);
                anyhow::ensure!(
                    slot.len() <= SLOT_BYTES_MAX,
                    "the replication slot of group {group} would be called {slot}, and a name has {SLOT_BYTES_MAX} letters at \
                     most: choose a shorter kafka.group_prefix"
                );
                let slots = Slots::of_group(coordination.clone(), group, slot).await.context(
                    "the replication slots of groups could not be read: was `afterwrite migrate` run after the update?",
                )?;
                Ok(Self::Wal(Box::new(source), claims, slots))
            }
        }
    }

    /// What it reads.
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Kafka(..) => Kind::Kafka,
            Self::Wal(..) => Kind::Wal,
        }
    }

    /// Becomes true when the group is to leave this source for another one; `None` for a source that is never left.
    pub(super) fn leaves(&self) -> Option<watch::Receiver<bool>> {
        match self {
            Self::Kafka(..) => None,
            Self::Wal(options, ..) => Some(options.leaves.subscribe()),
        }
    }

    /// Bytes of log that were sent to it and are not confirmed, where it reads the log.
    pub(super) fn log_behind(&self) -> Option<Arc<AtomicU64>> {
        match self {
            Self::Kafka(..) => None,
            Self::Wal(options, ..) => Some(Arc::clone(&options.log_behind)),
        }
    }

    /// How many records it is behind, where it reads topics.
    pub(super) fn events_behind(&self) -> Option<Arc<Distance>> {
        match self {
            Self::Kafka(options, ..) => Some(Arc::clone(&options.events_behind)),
            Self::Wal(..) => None,
        }
    }

    pub(super) fn start(
        self,
        decoder: Arc<Decoder>,
        registry: Option<Arc<Registry>>,
        commands: std::sync::mpsc::Receiver<SourceCommand>,
        events: mpsc::Sender<SourceEvent>,
        stop: watch::Receiver<bool>,
    ) -> anyhow::Result<Running> {
        Ok(match self {
            Self::Kafka(source, kept) => {
                Running::Kafka(kafka::start(*source, kept, decoder, registry, commands, events, stop)?)
            }
            Self::Wal(source, claims, slots) => {
                let started = wal::start(*source, claims, slots, decoder, commands, events);
                Running::Wal(started.context("no thread could be had for the source")?)
            }
        })
    }
}

/// Writes down that a group reads its source from now on, as soon as Postgres is there; `false` when the process stops before.
///
/// # Errors
/// When the group reads another one by now.
pub(super) async fn begin(sources: &Sources, kind: Kind, stop: watch::Receiver<bool>) -> anyhow::Result<bool> {
    let begun = async {
        loop {
            match sources.reads(kind).await {
                Err(error @ sources::Error::Refused(_)) => return Err(error.into()),
                Err(error) => {
                    tracing::warn!(%error, "it could not be written down yet which source the group reads");
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
                Ok(()) => return Ok(true),
            }
        }
    };
    tokio::select! {
        begun = begun => begun,
        () = super::stopped(stop) => Ok(false),
    }
}

fn kind(kind: SourceKind) -> Kind {
    match kind {
        SourceKind::Kafka => Kind::Kafka,
        SourceKind::Wal => Kind::Wal,
    }
}

impl Running {
    /// Waits until it has left; an error is why it ended by itself.
    pub(super) async fn ended(self) -> anyhow::Result<()> {
        match self {
            Self::Kafka(running) => running.ended().await,
            Self::Wal(running) => running.ended().await?,
        }
        Ok(())
    }
}
