//! The steps of an onboarding, and what follows from what the API answers.

use std::sync::Arc;
use std::time::Duration;

use afterwrite::config::value::Secret;
use afterwrite::event::change::ChangeEvent;
use afterwrite::handler::{Context, Handler, HandlerError, Once, Outcome, Route, Spec};
use afterwrite::ledger::effects::{self, Claim};
use async_trait::async_trait;
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

/// What it reads and writes: `tenants` is the application's, `tenant_resources` says what each step brought.
#[cfg(all(test, feature = "testkit"))]
pub(crate) const TABLES: &str = "
    CREATE TABLE tenants (
        id uuid PRIMARY KEY, name text NOT NULL,
        status text NOT NULL CHECK (status IN ('requested', 'active', 'closed')));
    ALTER TABLE tenants REPLICA IDENTITY FULL;
    CREATE TABLE tenant_resources (
        tenant_id uuid NOT NULL, step text NOT NULL, resource text NOT NULL, PRIMARY KEY (tenant_id, step));";

/// Its name in ledger, configuration and dead letters.
pub(crate) const NAME: &str = "onboarding";

/// What has to be made, in this order: the path of the API is the name of the step.
pub(crate) const STEPS: [&str; 3] = ["databases", "domains", "billing-accounts"];

/// One call; shorter than an attempt (30 s).
const CALL: Duration = Duration::from_secs(5);

/// `[handlers.onboarding.settings]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) api_url: String,
    pub(crate) api_key: Secret,
}

/// The handler.
pub(crate) struct Onboarding {
    settings: Settings,
    client: reqwest::Client,
}

/// What the API said, without its text: that may hold anything.
#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error("step {step} was answered with status {status}")]
    Refused { step: &'static str, status: u16 },
    #[error("step {step} failed before and waits for the replay of its dead letter")]
    FailedBefore { step: &'static str },
    #[error("the answer to step {step} names no id")]
    NoId { step: &'static str },
}

/// What a step makes.
#[derive(Deserialize)]
struct Made {
    id: String,
}

impl Onboarding {
    pub(crate) fn new(settings: Settings) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder().timeout(CALL).build()?;
        Ok(Self { settings, client })
    }

    /// Takes one step, unless it was taken before. `Some` is when to come back: another process is at it.
    async fn step(
        &self,
        context: &mut Context,
        tenant: Uuid,
        name: &str,
        step: &'static str,
    ) -> Result<Option<Duration>, HandlerError> {
        let key = format!("{NAME}:{tenant}:{step}");
        // What is sent is settled with the first claim: later attempts send the same, whatever the row says by then.
        let body = json!({"tenant": tenant, "name": name}).to_string();
        let resource = match context.claim(&key, body.as_bytes()).await? {
            Claim::Finished { .. } => return Ok(None),
            Claim::Leased { remaining } => return Ok(Some(remaining)),
            Claim::Failed { .. } => return Err(HandlerError::permanent(StepError::FailedBefore { step })),
            Claim::Accepted { reply } => reply,
            Claim::Call { rendered } => {
                let made = match self.call(step, &key, rendered).await {
                    Ok(made) => made,
                    Err(error) => return Err(self.record(context, &key, error).await?),
                };
                context.accepted(&key, &made);
                made
            }
        };
        // The end of this step is a transaction of its own: whatever becomes of the next, this one is not repeated.
        let mut transaction = context.pool().begin().await?;
        effects::finish(&mut transaction, &key, NAME, "sent", &resource).await?;
        sqlx::query(
            "INSERT INTO tenant_resources (tenant_id, step, resource) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        )
        .bind(tenant)
        .bind(step)
        .bind(&resource)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        context.effects().settled(&key);
        Ok(None)
    }

    /// Notes a refusal that no retry mends, so that it is found again when the process dies before the dead letter is written.
    async fn record(&self, context: &Context, key: &str, error: HandlerError) -> Result<HandlerError, HandlerError> {
        if error.fault == afterwrite::handler::Fault::Permanent {
            let mut transaction = context.pool().begin().await?;
            effects::fail(&mut transaction, key, NAME, context.first_event(), "refused").await?;
            transaction.commit().await?;
        }
        Ok(error)
    }

    async fn call(&self, step: &'static str, key: &str, body: Vec<u8>) -> Result<String, HandlerError> {
        let sent = self
            .client
            .post(format!("{}/{step}", self.settings.api_url))
            .bearer_auth(self.settings.api_key.expose())
            // The API knows by it what it has made already: a call whose answer was lost makes nothing a second time.
            .header("idempotency-key", key)
            .header("content-type", "application/json")
            .body(body)
            .send()
            .await;
        let response = match sent {
            Ok(response) => response,
            // Nobody is there for any tenant: an outage, which no tenant is to blame for.
            Err(error) if error.is_connect() => return Err(HandlerError::unreachable("the provisioning API", error)),
            Err(error) => return Err(HandlerError::transient(error)),
        };
        let status = response.status();
        let refused = StepError::Refused {
            step,
            status: status.as_u16(),
        };
        if status.is_success() {
            let made: Made = response
                .json()
                .await
                .map_err(|_| HandlerError::transient(StepError::NoId { step }))?;
            return Ok(made.id);
        }
        let asked = response
            .headers()
            .get("retry-after")
            .and_then(|value| value.to_str().ok()?.parse().ok());
        match (status.as_u16(), asked) {
            (_, Some(seconds)) => Err(HandlerError::retry_after(Duration::from_secs(seconds), refused)),
            (408 | 425 | 429 | 500.., None) => Err(HandlerError::transient(refused)),
            (_, None) => Err(HandlerError::permanent(refused)),
        }
    }
}

#[async_trait]
impl Handler for Onboarding {
    fn spec(&self) -> Spec {
        Spec::new(NAME, [Route::of("tenants")])
    }

    fn wants(&self, event: &ChangeEvent) -> bool {
        event.changed("status") && event.after().and_then(|row| row.text("status")) == Some("requested")
    }

    async fn handle(&self, context: &mut Context, events: &[Arc<ChangeEvent>]) -> Result<Outcome, HandlerError> {
        // What is done or buried is called for no more, also where its effects are gone from the store.
        let Some(event) = context.unsettled().await?.into_iter().next() else {
            return Ok(Outcome::Done);
        };
        debug_assert_eq!(events.len(), 1, "coalesce_max is 1");
        let tenant: Uuid = event
            .after()
            .and_then(|row| row.text("id")?.parse().ok())
            .ok_or_else(|| HandlerError::permanent("the row has no id"))?;
        let name: Option<String> =
            sqlx::query_scalar("SELECT name FROM tenants WHERE id = $1 AND status = 'requested'")
                .bind(tenant)
                .fetch_optional(context.pool())
                .await?;
        let Some(name) = name else {
            return Ok(Outcome::Skipped("not_requested"));
        };
        for step in STEPS {
            if let Some(remaining) = self.step(context, tenant, &name, step).await? {
                return Ok(Outcome::Snooze(remaining));
            }
        }
        let Some(Once { connection, .. }) = context.once().await? else {
            return Ok(Outcome::Done);
        };
        sqlx::query("UPDATE tenants SET status = 'active' WHERE id = $1 AND status = 'requested'")
            .bind(tenant)
            .execute(connection)
            .await?;
        Ok(Outcome::Done)
    }
}
