//! The stage: what was written is announced, and what answers it is awaited, shown and timed.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::Local;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::failure::DemoFailure;
use super::receiver::{Call, Receiver};
use super::screen::Screen;
use super::watch::{Reaction, Snapshot, Watcher};
use super::worker::Worker;

/// How often rows and mails are looked at: what is timed cannot be timed better.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What has not happened by then will not happen.
const REACTION_MAX: Duration = Duration::from_secs(30);

/// So much of a `webhook-id` is shown.
const ID_CHARS_MAX: usize = 23;

/// What was counted and timed.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Rows that the application wrote.
    pub(super) rows_written: u64,
    /// Mails that arrived.
    pub(super) mails: u64,
    /// Changes of places that were seen.
    pub(super) place_changes: u64,
    /// Calls of the webhook with a good signature.
    pub(super) webhook_calls: u64,
    /// From the commit of the application's row to the reaction, by who reacted, in milliseconds.
    pub(super) latencies: BTreeMap<&'static str, Vec<u64>>,
}

/// Where the play is given.
pub(super) struct Stage<'a> {
    pub(super) screen: &'a Screen,
    pub(super) watcher: Watcher,
    pub(super) receiver: &'a mut Receiver,
    pub(super) worker: &'a mut Worker,
    pub(super) tally: Tally,
    committed: Instant,
}

impl<'a> Stage<'a> {
    pub(super) fn new(
        screen: &'a Screen,
        watcher: Watcher,
        receiver: &'a mut Receiver,
        worker: &'a mut Worker,
    ) -> Self {
        Self {
            screen,
            watcher,
            receiver,
            worker,
            tally: Tally::default(),
            committed: Instant::now(),
        }
    }

    /// Announces what the application has just committed; the latencies of what follows are counted from here.
    pub(super) fn did(&mut self, what: &str, statement: &str, rows: u64) {
        self.committed = Instant::now();
        self.tally.rows_written += rows;
        self.screen.change(what, statement);
    }

    /// Shows what happens until all of these have happened.
    pub(super) async fn expect(&mut self, keys: &[&str]) -> Result<(), DemoFailure> {
        let mut missing: Vec<&str> = keys.to_vec();
        let _waiting = self.screen.waiting("waiting for the worker");
        let deadline = self.committed.max(Instant::now()) + REACTION_MAX;
        let mut looks = looks();
        while !missing.is_empty() {
            if Instant::now() >= deadline {
                return Err(DemoFailure::Late {
                    what: missing.join(", "),
                    seconds: REACTION_MAX.as_secs(),
                    log: self.worker.log.clone(),
                });
            }
            for reaction in self.happened(&mut looks).await? {
                missing.retain(|key| !reaction.keys.iter().any(|known| known == key));
                self.show(&reaction);
            }
        }
        Ok(())
    }

    /// Shows what happens for as long as it is polled.
    pub(super) async fn follow(&mut self) -> DemoFailure {
        let mut looks = looks();
        loop {
            match self.happened(&mut looks).await {
                Err(failure) => return failure,
                Ok(reactions) => {
                    for reaction in reactions.iter().filter(|reaction| !reaction.text.is_empty()) {
                        let now = Local::now().format("%H:%M:%S").to_string();
                        self.screen.reaction_at(&now, reaction.who, &reaction.text);
                    }
                }
            }
        }
    }

    /// The state that was seen last.
    pub(super) fn state(&self) -> &Snapshot {
        &self.watcher.last
    }

    /// What has happened since the last time, at the next look or the next call of the webhook.
    async fn happened(&mut self, looks: &mut tokio::time::Interval) -> Result<Vec<Reaction>, DemoFailure> {
        tokio::select! {
            failure = self.worker.ended() => Err(failure),
            Some(call) = self.receiver.calls.recv() => Ok(vec![called(&call)]),
            _ = looks.tick() => self.watcher.look().await,
        }
    }

    fn show(&mut self, reaction: &Reaction) {
        if reaction.text.is_empty() {
            return;
        }
        let after = reaction.at.saturating_duration_since(self.committed);
        let key = reaction.keys.first().map(String::as_str).unwrap_or_default();
        match key.split(' ').next() {
            Some("mail") => self.tally.mails += 1,
            Some("placed") => self.tally.place_changes += 1,
            Some("webhook") => self.tally.webhook_calls += 1,
            _ => {}
        }
        let ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        self.tally.latencies.entry(reaction.who).or_default().push(ms);
        self.screen.reaction(after, reaction.who, &reaction.text);
    }
}

fn looks() -> tokio::time::Interval {
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    looks
}

fn called(call: &Call) -> Reaction {
    let Call {
        at,
        refused,
        id,
        kind,
        code,
    } = call;
    let code = code.as_deref().unwrap_or("none");
    let id: String = id.chars().take(ID_CHARS_MAX).collect();
    let (key, text) = match refused {
        None => (
            format!("webhook {kind}"),
            format!("POST {kind}, code {code}, signature verified, webhook-id {id}…"),
        ),
        Some(reason) => ("refused".to_owned(), format!("POST refused: {reason}")),
    };
    Reaction::new("webhook", &[key], text, *at)
}
