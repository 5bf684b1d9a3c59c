//! Calls webhooks again whose endpoint did not accept while their job ran.
//!
//! A customer's dead endpoint costs the others nothing: endpoints are called side by side, each one delivery at a time; one
//! that fails twice in a row is left alone for this run; and no new call begins when the run has taken long enough.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use tokio::time::Instant;
use uuid::Uuid;

use super::timing::{self, Schedule};
use super::{Context, Error, Job, Report};
use crate::clients::webhook::Caller;
use crate::handlers::reward::retry::{self, Due, Retried, Retrying};
use crate::handlers::secret::Secret;
use crate::ledger::effects::Effects;

/// How often what is due is looked for.
const EVERY: Duration = Duration::from_secs(60);

/// After so long no new call begins: with a call's own limit a run ends before it is a bother that the next one waits.
const CALLING_MAX: Duration = Duration::from_secs(40);

/// Endpoints that are called at once.
const ENDPOINTS_MAX: usize = 64;

/// Deliveries of one look.
const PAGE: i64 = 256;

/// Of these, from one endpoint.
const PAGE_OF_ENDPOINT: i64 = 8;

/// An endpoint that does not accept so often in a row is left alone for this run.
const FAILURES_MAX: u32 = 2;

/// The scheduled job.
pub struct WebhookRetries {
    caller: Arc<dyn Caller>,
    secret: Secret,
    lease: Duration,
    /// It remembers, over runs, which calls were accepted.
    effects: OnceLock<Effects>,
}

impl std::fmt::Debug for WebhookRetries {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("WebhookRetries").finish_non_exhaustive()
    }
}

/// What was done with the deliveries of one endpoint, or of all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counted {
    delivered: u64,
    not_accepted: u64,
    not_called: u64,
    put_off: u64,
}

/// What became of one endpoint's deliveries.
struct OfEndpoint {
    webhook: Uuid,
    counted: Counted,
    /// Calls in a row, up to the last one, that were not accepted.
    failures: u32,
}

impl Counted {
    fn add(&mut self, other: Self) {
        self.delivered += other.delivered;
        self.not_accepted += other.not_accepted;
        self.not_called += other.not_called;
        self.put_off += other.put_off;
    }
}

impl WebhookRetries {
    /// Calls through `caller`, each under a lease that must be longer than a call.
    pub fn new(caller: Arc<dyn Caller>, secret: Secret, lease: Duration) -> Self {
        Self {
            caller,
            secret,
            lease,
            effects: OnceLock::new(),
        }
    }

    fn effects(&self, context: &Context) -> &Effects {
        self.effects
            .get_or_init(|| Effects::new(context.pool().clone(), Uuid::new_v4(), self.lease))
    }

    /// The deliveries of one endpoint, one after the other. `failures` are those of this run until now.
    async fn of_endpoint(
        &self,
        context: &Context,
        webhook: Uuid,
        deliveries: Vec<Due>,
        mut failures: u32,
        until: Instant,
    ) -> Result<OfEndpoint, sqlx::Error> {
        let retrying = Retrying {
            caller: &*self.caller,
            secret: &self.secret,
            effects: self.effects(context),
            pool: context.pool(),
            now: context.now(),
        };
        let mut counted = Counted::default();
        for due in deliveries {
            if context.is_stopping() || Instant::now() >= until {
                break;
            }
            match retrying.retry(&due).await? {
                Retried::Delivered => (counted.delivered, failures) = (counted.delivered + 1, 0),
                Retried::NotCalled => counted.not_called += 1,
                Retried::NotAccepted => (counted.not_accepted, failures) = (counted.not_accepted + 1, failures + 1),
            }
            if failures == FAILURES_MAX {
                counted.put_off += retry::put_off(context.pool(), webhook, context.now()).await?;
                break;
            }
        }
        Ok(OfEndpoint {
            webhook,
            counted,
            failures,
        })
    }
}

#[async_trait]
impl Job for WebhookRetries {
    fn name(&self) -> &'static str {
        "webhook_retries"
    }

    fn schedule(&self) -> Result<Schedule, timing::Error> {
        Schedule::every(EVERY)
    }

    async fn run(&self, context: &mut Context) -> Result<Report, Error> {
        let context: &Context = context;
        let until = Instant::now() + CALLING_MAX;
        let mut all = Counted::default();
        let mut failures: BTreeMap<Uuid, u32> = BTreeMap::new();
        while !context.is_stopping() && Instant::now() < until {
            let page = retry::due(context.pool(), context.now(), PAGE_OF_ENDPOINT, PAGE).await?;
            if page.is_empty() {
                break;
            }
            let mut endpoints: BTreeMap<Uuid, Vec<Due>> = BTreeMap::new();
            for due in page {
                endpoints.entry(due.webhook_id).or_default().push(due);
            }
            let calls: Vec<_> = endpoints
                .into_iter()
                .map(|(webhook, deliveries)| {
                    let failed = failures.get(&webhook).copied().unwrap_or(0);
                    self.of_endpoint(context, webhook, deliveries, failed, until)
                })
                .collect();
            let mut calls = futures::stream::iter(calls).buffer_unordered(ENDPOINTS_MAX);
            let mut page = Counted::default();
            while let Some(done) = calls.next().await {
                let done = done?;
                failures.insert(done.webhook, done.failures);
                page.add(done.counted);
            }
            all.add(page);
            if page == Counted::default() {
                break;
            }
        }
        Ok(Report::from([
            ("delivered", all.delivered),
            ("not_accepted", all.not_accepted),
            ("not_called", all.not_called),
            ("put_off", all.put_off),
        ]))
    }
}
