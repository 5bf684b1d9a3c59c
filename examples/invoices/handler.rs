//! Keeps one line of account per paid order.

use std::sync::Arc;

use afterwrite::event::change::ChangeEvent;
use afterwrite::handler::{Context, Handler, HandlerError, Once, Outcome, Route, Spec};
use async_trait::async_trait;

/// What it reads and writes. Under `REPLICA IDENTITY FULL` an update brings its old row, so `changed` knows.
#[cfg(all(test, feature = "testkit"))]
pub(crate) const TABLES: &str = "
    CREATE TABLE orders (id int PRIMARY KEY, status text NOT NULL);
    ALTER TABLE orders REPLICA IDENTITY FULL;
    CREATE TABLE invoices (order_id int NOT NULL);";

/// The handler.
pub(crate) struct Invoices;

#[async_trait]
impl Handler for Invoices {
    fn spec(&self) -> Spec {
        Spec::new("invoices", [Route::of("orders")])
    }

    fn wants(&self, event: &ChangeEvent) -> bool {
        event.changed("status") && event.after().and_then(|row| row.text("status")) == Some("paid")
    }

    async fn handle(&self, context: &mut Context, _events: &[Arc<ChangeEvent>]) -> Result<Outcome, HandlerError> {
        let Some(Once { events, connection }) = context.once().await? else {
            return Ok(Outcome::Done); // done before: this is a redelivery
        };
        for id in events.iter().filter_map(|event| event.after()?.int("id")) {
            sqlx::query("INSERT INTO invoices (order_id) VALUES ($1)")
                .bind(id)
                .execute(&mut *connection)
                .await?;
        }
        Ok(Outcome::Done)
    }
}
