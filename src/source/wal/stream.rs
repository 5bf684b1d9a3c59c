//! The task that reads the log for one group: opens a session, hands over what comes, and tells the server what is settled.
//!
//! Who reads the slot owns its partition. The server lets one session at a time read a slot, so a second process of the group
//! waits until the first one is gone.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use pgwire_replication::{PgWireError, ReplicationEvent};
use sqlx::postgres::PgConnection;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};

use crate::event::delivery::{Assigned, Delivery, Position, Settled, SourceCommand, SourceEvent, SourcePartition};
use crate::ledger::claims::Claims;
use crate::ledger::patience::ask;
use crate::ledger::slots::Slots;
use crate::ledger::sources::{Sources, Wish};
use crate::source::wal::behind::Behind;
use crate::source::wal::connection::Connection;
use crate::source::wal::reading::{Reading, Unreadable};
use crate::source::wal::session::{Broken, Error, Session, end, of_postgres, of_session, open, stays};
use crate::source::wal::visible::Unseen;

/// Pause before a session is opened again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// How often a warning says that it still does not succeed.
const TRIES_PER_WARNING: u32 = 30;

/// Events that are passed on together, and about as many messages that are taken together.
const TOGETHER_MAX: usize = 64;

/// How often is looked at what nobody asks for.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The log that may be written without a change for this group before the server is told that it need not keep it. Telling is
/// a row that is written, and so log too.
const UNTOLD_BYTES_MAX: u64 = 1024 * 1024;

/// How often the server is asked whether it stays, while nothing that it sends is taken or other questions fail.
const ASKED_EVERY: Duration = Duration::from_secs(5);

/// What the task works with.
pub(super) struct Stream {
    pub(super) connection: Connection,
    pub(super) publication: String,
    pub(super) group: String,
    pub(super) claims: Claims,
    pub(super) slots: Slots,
    pub(super) sources: Sources,
    pub(super) reading: Reading,
    pub(super) behind: Behind,
    pub(super) leaves: Arc<watch::Sender<bool>>,
    pub(super) tells_lag: bool,
    pub(super) orders: mpsc::UnboundedReceiver<SourceCommand>,
    pub(super) events: mpsc::Sender<SourceEvent>,
}

impl Stream {
    /// Reads until the group leaves.
    pub(super) async fn run(mut self) -> Result<(), Error> {
        let mut tries = 0_u32;
        loop {
            let opened = tokio::select! {
                opened = open(
                    &self.connection,
                    &self.publication,
                    &self.group,
                    &self.claims,
                    &self.slots,
                    &self.sources,
                    &self.reading,
                ) => opened,
                () = left(&mut self.orders) => return Ok(()),
            };
            let broken = match opened {
                Ok((session, assigned)) => {
                    tries = 0;
                    self.reading.anew();
                    match self.read(session, assigned).await {
                        None => return Ok(()),
                        Some(broken) => {
                            let partitions = vec![self.reading.partition.clone()];
                            if self.events.send(SourceEvent::Lost { partitions }).await.is_err() {
                                return Ok(());
                            }
                            broken
                        }
                    }
                }
                Err(broken) => broken,
            };
            match broken {
                Broken::ForGood(error) => return Err(error),
                Broken::Leaves => self.leave(),
                Broken::ForNow(cause) if tries.is_multiple_of(TRIES_PER_WARNING) => {
                    tracing::warn!(
                        group = self.group,
                        slot = self.slots.name(),
                        cause,
                        "waiting to read the write-ahead log"
                    );
                }
                Broken::ForNow(_) => {}
            }
            tries += 1;
            tokio::select! {
                () = tokio::time::sleep(AGAIN_AFTER) => {}
                () = left(&mut self.orders) => return Ok(()),
            }
        }
    }

    /// Reads one session to its end; `None` when the group has left.
    async fn read(&mut self, mut session: Session, assigned: Assigned) -> Option<Broken> {
        self.behind.confirmed(session.kept.confirmed_lsn);
        session.untold.push_back(SourceEvent::Assigned {
            partitions: vec![assigned],
        });
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut deliveries = Vec::new();
        let events = self.events.clone();
        loop {
            let is_reading = session.untold.is_empty() && !session.is_paused;
            // More than the channel holds has never room.
            let together = session.untold.len().min(TOGETHER_MAX).min(events.max_capacity());
            let happened = tokio::select! {
                biased;
                order = self.orders.recv() => match order {
                    Some(order) => self.obey(&mut session, order).await,
                    None => return None,
                },
                places = events.reserve_many(together), if together > 0 => match places {
                    Ok(places) => {
                        let told = session.untold.drain(..together);
                        places.zip(told).for_each(|(place, event)| place.send(event));
                        Ok(Next::GoOn)
                    }
                    Err(_) => return None,
                },
                received = session.client.recv(), if is_reading => {
                    self.take(&mut session, received, &mut deliveries).await
                }
                _ = looks.tick() => self.look(&mut session, is_reading).await,
            };
            match happened {
                Ok(Next::GoOn) => {}
                Ok(Next::Left) => {
                    end(session.client).await;
                    return None;
                }
                Err(broken) => return Some(broken),
            }
        }
    }

    /// Takes what was received, and more that is there already: each wait for one is a wake-up.
    async fn take(
        &mut self,
        session: &mut Session,
        mut received: Result<Option<ReplicationEvent>, PgWireError>,
        deliveries: &mut Vec<Delivery>,
    ) -> Result<Next, Broken> {
        session.heard_at = Instant::now();
        loop {
            match received {
                Ok(Some(event)) => self.received(session, event, deliveries).await?,
                Ok(None) => return Err(Broken::ForNow("the server ended the session".to_owned())),
                Err(error) => return Err(of_session(&error)),
            }
            if session.untold.len() >= TOGETHER_MAX {
                return Ok(Next::GoOn);
            }
            match session.client.recv().now_or_never() {
                Some(more) => received = more,
                None => return Ok(Next::GoOn),
            }
        }
    }

    async fn received(
        &mut self,
        session: &mut Session,
        event: ReplicationEvent,
        deliveries: &mut Vec<Delivery>,
    ) -> Result<(), Broken> {
        self.behind.received(&event);
        match event {
            ReplicationEvent::Begin {
                xid,
                commit_time_micros,
                ..
            } => {
                session.progress.begin();
                let begun = self.reading.begin(xid, commit_time_micros).await;
                begun.map_err(|error| match error {
                    Unseen::Asked(error) => of_postgres(error),
                    error @ Unseen::Waiting { .. } => Broken::ForNow(error.to_string()),
                })?;
                // The server was not listened to meanwhile.
                session.heard_at = Instant::now();
            }
            ReplicationEvent::XLogData { wal_start, data, .. } => {
                let read = self
                    .reading
                    .message(wal_start.as_u64(), &data, &mut session.progress, deliveries)
                    .await;
                read.map_err(|error| match error {
                    Unreadable::Described { table, source } => {
                        Broken::ForNow(format!("table {table} could not be described: {source}"))
                    }
                    error => Broken::ForGood(error.into()),
                })?;
                let epoch = session.epoch;
                session
                    .untold
                    .extend(deliveries.drain(..).map(|delivery| SourceEvent::Delivered {
                        epoch,
                        delivery: Box::new(delivery),
                    }));
            }
            ReplicationEvent::Commit { end_lsn, .. } => session.progress.commit(end_lsn.as_u64()),
            ReplicationEvent::KeepAlive {
                wal_end,
                reply_requested,
                ..
            } => {
                session.progress.is_read_to(wal_end.as_u64());
                session.progress.settled(Position(0));
                self.caught_up(session, wal_end.as_u64()).await;
                if reply_requested {
                    stays(self.slots.pool()).await?;
                }
            }
            // Logical messages wake no handler.
            _ => {}
        }
        Ok(())
    }

    /// Says that there is nothing more to read now, where that is so.
    async fn caught_up(&self, session: &mut Session, read_to: u64) {
        if let Some(end) = session.progress.caught_up_at()
            && session.caught_up.is_to_tell(self.slots.pool(), read_to).await
        {
            let ends = vec![(self.reading.partition.clone(), end)];
            session.untold.push_back(SourceEvent::CaughtUp { ends });
        }
    }

    async fn obey(&mut self, session: &mut Session, order: SourceCommand) -> Result<Next, Broken> {
        let ours =
            |partition: &SourcePartition, epoch: u64| *partition == self.reading.partition && epoch == session.epoch;
        match order {
            SourceCommand::Commit(settled) => {
                self.settle(session, &settled).await?;
            }
            SourceCommand::Pause { partition, epoch } if ours(&partition, epoch) => session.is_paused = true,
            SourceCommand::Resume { partition, epoch } if ours(&partition, epoch) => {
                session.is_paused = false;
                session.heard_at = Instant::now();
            }
            SourceCommand::Pause { .. } | SourceCommand::Resume { .. } => {}
            SourceCommand::Leave(settled) => {
                if let Err(Broken::ForNow(cause)) = self.settle(session, &settled).await {
                    tracing::warn!(
                        group = self.group,
                        cause,
                        "what was settled last could not be kept: it is met by the ledger"
                    );
                }
                return Ok(Next::Left);
            }
        }
        Ok(Next::GoOn)
    }

    async fn settle(&mut self, session: &mut Session, settled: &[Settled]) -> Result<(), Broken> {
        let ours = |settled: &&Settled| settled.partition == self.reading.partition && settled.epoch == session.epoch;
        let Some(position) = settled.iter().filter(ours).map(|settled| settled.position).max() else {
            return Ok(());
        };
        session.progress.settled(position);
        self.keep(session).await
    }

    /// Keeps where the slot stands, then tells the server. What cannot be kept now is kept with the next commit.
    async fn keep(&mut self, session: &mut Session) -> Result<(), Broken> {
        let standing = session.progress.standing();
        if standing == session.kept {
            return Ok(());
        }
        match self
            .slots
            .settled(&self.reading.partition, session.epoch, standing)
            .await
        {
            Ok(true) => {
                session.kept = standing;
                session.client.update_applied_lsn(standing.confirmed_lsn.into());
                self.behind.confirmed(standing.confirmed_lsn);
                Ok(())
            }
            Ok(false) => Err(Broken::ForNow("another process has taken the group over".to_owned())),
            Err(error) => {
                tracing::warn!(group = self.group, %error, "how far the log is settled could not be kept yet");
                Ok(())
            }
        }
    }

    async fn look(&mut self, session: &mut Session, is_reading: bool) -> Result<Next, Broken> {
        if let Some(silent_max) = session.silent_max
            && is_reading
            && session.heard_at.elapsed() > silent_max
        {
            return Err(Broken::ForNow(format!(
                "nothing came from the server for {} s",
                silent_max.as_secs()
            )));
        }
        let wish = self.wish().await;
        if !is_reading {
            session.heard_at = Instant::now();
        }
        // What the server asks for is not heard while nothing is read, and it does not ask for replies before all of its log is
        // sent: what was not flushed when its clients were ended may keep it from that for ever.
        if (!is_reading || wish.is_none()) && session.asked_at.elapsed() > ASKED_EVERY {
            session.asked_at = Instant::now();
            stays(self.slots.pool()).await?;
        }
        let Wish { leaves, kept_at } = wish.unwrap_or_default();
        if leaves {
            self.leave();
        }
        let (kept, standing) = (session.kept.confirmed_lsn, session.progress.standing().confirmed_lsn);
        let is_asked_for = kept_at.is_some_and(|lsn| kept < lsn && lsn <= standing);
        if is_asked_for || standing.saturating_sub(kept) >= UNTOLD_BYTES_MAX {
            self.keep(session).await?;
        }
        if self.tells_lag {
            self.tell_lag(session).await;
        }
        Ok(Next::GoOn)
    }

    async fn wish(&self) -> Option<Wish> {
        let wish = self.sources.wish().await;
        wish.inspect_err(|error| {
            tracing::debug!(group = self.group, %error, "whether the group leaves the log is asked again");
        })
        .ok()
    }

    /// Says once that the group is to leave; it goes on as it is until it is told to.
    fn leave(&self) {
        let is_new = self.leaves.send_if_modified(|leaves| !std::mem::replace(leaves, true));
        if is_new {
            tracing::info!(
                group = self.group,
                "the group leaves the write-ahead log, and goes on from kafka when afterwrite graduate says so"
            );
        }
    }

    /// Tells the engine how much log is written that is not confirmed. Asked for, because what the server says by itself is how
    /// far it has sent, and that stands still as soon as nothing more is taken.
    async fn tell_lag(&self, session: &mut Session) {
        let written = ask(
            self.slots.pool(),
            "asking how much log is written",
            async |connection: &mut PgConnection| {
                sqlx::query_scalar("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint")
                    .fetch_one(connection)
                    .await
            },
        );
        let written: i64 = match written.await {
            Ok(written) => written,
            Err(error) => {
                tracing::debug!(group = self.group, %error, "how much log is written is asked again");
                return;
            }
        };
        session.untold.push_back(SourceEvent::Lag {
            partition: self.reading.partition.clone(),
            epoch: session.epoch,
            bytes: written.cast_unsigned().saturating_sub(session.kept.confirmed_lsn),
        });
    }
}

/// What follows from what happened.
enum Next {
    GoOn,
    Left,
}

/// Resolves when the group leaves; what else is asked meanwhile is about a partition that is not ours.
async fn left(orders: &mut mpsc::UnboundedReceiver<SourceCommand>) {
    while let Some(order) = orders.recv().await {
        if matches!(order, SourceCommand::Leave(_)) {
            return;
        }
    }
}
