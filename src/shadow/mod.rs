//! `run --shadow`: decides as the worker would, and writes and sends nothing.
//!
//! The handlers are the real ones and run against the real database, each attempt in a transaction that is rolled back
//! ([`session`]); their mails and calls go to clients that accept everything and send nothing. No group is joined, no position is
//! committed, no dead letter is written.
//!
//! What follows from that: rows that a handler would have written wake nobody, so a decision that rests on them is shown only
//! when somebody else writes them; and while an attempt runs, it holds the row locks that a real one would.

mod lane;
pub mod session;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use sqlx::postgres::PgConnectOptions;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::event::change::ChangeEvent;
use crate::handler::Resources;
use crate::ledger::effects::Effects;
use crate::ledger::would_call::WouldCall;
use crate::router::Router;
use session::{Rows, Session};

/// Attempts of one handler at a time. Changes of one ordering key always take the same lane.
const LANES: usize = 4;

/// Events that wait for their lane; when they are that many, no more is read.
const WAITING_MAX: usize = 64;

/// What a handler would have done about one change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The handler.
    pub handler: Arc<str>,
    /// How it ended.
    pub verdict: Verdict,
    /// Keys of the effects that it would have made: mails and calls.
    pub calls: Vec<String>,
    /// Rows it would have written, but for the program's own.
    pub rows: Vec<Rows>,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// How an attempt would have ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "decision", rename_all = "snake_case")]
pub enum Verdict {
    /// The work would be done.
    Done,
    /// Nothing would have to be done.
    Skipped {
        /// Why, as the handler calls it.
        reason: &'static str,
    },
    /// It would be tried again later, without counting an attempt.
    Later {
        /// After how many milliseconds.
        after_ms: u64,
    },
    /// It would fail.
    Failed {
        /// `transient`, `permanent`, `expired`, `timeout`, `panic`.
        class: &'static str,
        /// The error with its causes.
        error: String,
    },
}

/// A change, and the place it was read from.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The change.
    pub event: Arc<ChangeEvent>,
    /// Its topic.
    pub topic: Arc<str>,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
}

/// What the shadow tells.
#[derive(Debug, Clone)]
pub enum Told {
    /// What a handler would have done about a change.
    Decided(Seen, Decision),
    /// A record that cannot be decoded, which would become a dead letter.
    Undecodable {
        /// Its topic.
        topic: Arc<str>,
        /// Its partition.
        partition: i32,
        /// Its offset.
        offset: i64,
        /// Why; quotes no cell.
        reason: String,
    },
}

/// One group in the shadow: its handler, and the lanes in which it decides.
pub struct Group {
    router: Router,
    lanes: Vec<mpsc::Sender<Seen>>,
    hash: RandomState,
}

/// What the lanes of a group work with.
pub struct Setup {
    /// Wakes the one handler of the group.
    pub router: Router,
    /// How to reach the database; nothing there may outlast an attempt.
    pub connect: PgConnectOptions,
    /// How long a connection is waited for.
    pub acquire: Duration,
    /// How long an effect would be leased.
    pub lease: Duration,
    /// Time-out of an attempt, where the handler has none of its own.
    pub timeout: Duration,
}

impl Group {
    /// Starts the lanes of a group, which hand their decisions to `told`. They end when the group is dropped, or nobody
    /// hears them any more.
    pub fn start(setup: Setup, told: &mpsc::Sender<Told>) -> Self {
        let timeout = setup.router.timeout(0).unwrap_or(setup.timeout);
        let lanes = (0..LANES).map(|_| {
            let (events, coming) = mpsc::channel(WAITING_MAX / LANES);
            let (session, calls) = (Session::new(&setup.connect, setup.acquire), WouldCall::default());
            let pool = session.pool().clone();
            let effects = Effects::new(pool.clone(), Uuid::new_v4(), setup.lease).in_a_shadow(calls.clone());
            let lane = lane::Lane {
                handler: Arc::clone(&setup.router.handlers()[0]),
                name: setup.router.shared_name(0),
                resources: Arc::new(Resources {
                    pool,
                    effects,
                    redo_days: Arc::default(),
                }),
                session,
                calls,
                timeout,
            };
            tokio::spawn(lane.run(coming, told.clone()));
            events
        });
        Self {
            lanes: lanes.collect(),
            router: setup.router,
            hash: RandomState::new(),
        }
    }

    /// Hands a change to the lane of its ordering key, where it wakes the group's handler; waits while that lane is full.
    pub async fn take(&self, seen: &Seen) {
        for woken in self.router.route(&seen.event) {
            let spread = self.hash.hash_one(woken.key) % LANES as u64;
            let lane = usize::try_from(spread).unwrap_or_default();
            if self.lanes[lane].send(seen.clone()).await.is_err() {
                tracing::debug!("a lane of the shadow has ended; nobody hears its decisions");
            }
        }
    }
}
