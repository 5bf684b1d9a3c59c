//! A handler of your own: one line of account per paid order.
//!
//! The table is `public.orders (id uuid PRIMARY KEY, status text)` under `REPLICA IDENTITY FULL`, published and captured as
//! `connectors/waitlist.json` does it for the waitlist; what it writes goes to `invoices (order_id uuid)`.
//!
//! ```text
//! export $(infra/native/stack env)
//! cargo run --example invoices
//! ```

use std::sync::Arc;

use afterwrite::config::load::{Inputs, load};
use afterwrite::event::change::ChangeEvent;
use afterwrite::handler::{Context, Handler, HandlerError, Keyless, Once, Ordering, Outcome, Route, Spec};
use async_trait::async_trait;

/// Keeps one line of account per paid order.
struct Invoices;

#[async_trait]
impl Handler for Invoices {
    fn spec(&self) -> Spec {
        Spec {
            name: "invoices".to_owned(),
            routes: vec![Route {
                schema: "public".to_owned(),
                table: "orders".to_owned(),
                ordering: Ordering::PrimaryKey,
                keyless: Keyless::Refused,
            }],
            coalesce_max: 1,
            attempt_timeout: None,
        }
    }

    fn wants(&self, event: &ChangeEvent) -> bool {
        event.changed("status") && event.after().and_then(|row| row.text("status")) == Some("paid")
    }

    async fn handle(&self, context: &mut Context, _events: &[Arc<ChangeEvent>]) -> Result<Outcome, HandlerError> {
        let Some(Once { events, connection }) = context.once().await? else {
            return Ok(Outcome::Done); // done before: this is a redelivery
        };
        for event in &events {
            let Some(id) = event.after().and_then(|row| row.text("id")) else {
                continue;
            };
            sqlx::query("INSERT INTO invoices (order_id) VALUES ($1::uuid)")
                .bind(id)
                .execute(&mut *connection)
                .await?;
        }
        Ok(Outcome::Done)
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    afterwrite::telemetry::start(afterwrite::telemetry::Format::Human);
    let config = load(&Inputs::of_process(None, &[]))?;
    let (stop, stopping) = tokio::sync::watch::channel(false);
    tokio::spawn(async move {
        if let Err(failure) = afterwrite::cli::stop_signal().await {
            tracing::error!(error = failure.chain(), "signals cannot be heard");
        }
        stop.send_replace(true);
    });
    afterwrite::app::serve(&config, vec![Arc::new(Invoices)], stopping).await?;
    Ok(())
}
