//! What Postgres knows of groups: their handlers, claims, dead letters, and what their processes tell.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use sqlx::postgres::PgPool;

use crate::groups::workers::{self, Worker};

/// One group.
#[derive(Debug, Default)]
pub struct Known {
    /// Names of its handlers.
    pub handlers: Vec<String>,
    /// Where it started on each partition it ever owned; `None` where nothing was ever fetched.
    pub first_offsets: BTreeMap<(String, i32), Option<i64>>,
    /// Its dead letters, counted.
    pub letters: Vec<Letters>,
    /// Events that are stored behind jobs which were parked because of lag.
    pub events_parked: i64,
    /// Its processes, also those that stopped or are gone.
    pub workers: Vec<Worker>,
}

/// Dead letters of one class in one state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Letters {
    /// Why they are dead.
    pub class: String,
    /// `open`, `parked`, `replaying`, `replayed` or `discarded`.
    pub state: String,
    /// How many there are.
    pub count: i64,
}

impl Known {
    /// The topics it reads, as far as it ever owned a partition of them.
    pub fn topics(&self) -> BTreeSet<String> {
        self.first_offsets.keys().map(|(topic, _)| topic.clone()).collect()
    }

    /// Jobs that were parked because of lag and are not done, with those behind them.
    pub fn jobs_parked(&self) -> i64 {
        let waits =
            |letters: &&Letters| letters.class == "parked" && ["parked", "replaying"].contains(&&*letters.state);
        let letters = self.letters.iter().filter(waits);
        letters.map(|letters| letters.count).sum::<i64>() + self.events_parked
    }

    /// Its dead letters in this state.
    pub fn letters_in(&self, state: &str) -> i64 {
        let counted = self.letters.iter().filter(|letters| letters.state == state);
        counted.map(|letters| letters.count).sum()
    }
}

/// All groups that ever ran, by name.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn read(pool: &PgPool) -> Result<BTreeMap<String, Known>, sqlx::Error> {
    let mut known: BTreeMap<String, Known> = BTreeMap::new();
    let handlers: Vec<(String, String)> =
        sqlx::query_as("SELECT group_name, name FROM afterwrite.handlers ORDER BY name")
            .fetch_all(pool)
            .await?;
    for (group, handler) in handlers {
        known.entry(group).or_default().handlers.push(handler);
    }
    let claims: Vec<(String, String, i32, Option<i64>)> =
        sqlx::query_as("SELECT group_name, topic, partition, first_offset FROM afterwrite.claims")
            .fetch_all(pool)
            .await?;
    for (group, topic, partition, first_offset) in claims {
        let first_offsets = &mut known.entry(group).or_default().first_offsets;
        first_offsets.insert((topic, partition), first_offset);
    }
    let letters: Vec<(String, String, String, i64)> = sqlx::query_as(
        "SELECT group_name, class, state, count(*) FROM afterwrite.letters
         GROUP BY group_name, class, state ORDER BY class, state",
    )
    .fetch_all(pool)
    .await?;
    for (group, class, state, count) in letters {
        let letters = &mut known.entry(group).or_default().letters;
        letters.push(Letters { class, state, count });
    }
    let events: Vec<(String, i64)> = sqlx::query_as(
        "SELECT group_name, count(*)
         FROM afterwrite.parked_lanes lane
         JOIN afterwrite.parked event USING (group_name, topic, partition, handler, lane_key)
         WHERE EXISTS (SELECT FROM afterwrite.letters WHERE letter_id = lane.head_letter AND class = 'parked')
         GROUP BY group_name",
    )
    .fetch_all(pool)
    .await?;
    for (group, count) in events {
        known.entry(group).or_default().events_parked = count;
    }
    for worker in workers::list(pool, None).await? {
        known.entry(worker.group_name.clone()).or_default().workers.push(worker);
    }
    Ok(known)
}
