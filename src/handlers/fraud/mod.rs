//! Looks at users and referrals when they come and when what identifies them changes, and writes what it found.
//!
//! It decides nothing further: position and reward react to the rows of `fraud_detections`. The signup stands; whether a
//! user is blocked is the application's decision.

use std::sync::Arc;

use async_trait::async_trait;
use uuid::Uuid;

use crate::event::change::ChangeEvent;
use crate::handler::{Context, Handler, HandlerError, Outcome, Route, Spec};
use crate::handlers::columns;
use crate::handlers::secret::Secret;

mod agents;

pub mod review;

pub mod rules;

mod duplicates;

pub mod sql;

/// The fraud handler.
#[derive(Debug)]
pub struct Fraud {
    routes: Vec<Route>,
    settings: rules::FraudSettings,
    secret: Secret,
}

impl Fraud {
    /// A handler that is woken by these routes.
    pub fn new(routes: Vec<Route>, settings: rules::FraudSettings, secret: Secret) -> Self {
        Self {
            routes,
            settings,
            secret,
        }
    }
}

/// Whether a change brings something to check.
fn concerns(event: &ChangeEvent) -> bool {
    match &*event.origin().table {
        "waitlist_users" => {
            columns::is_insert(event)
                || columns::updated(event, &["email", "ip_address", "device_fingerprint", "user_agent"])
        }
        "referrals" => {
            columns::is_insert(event)
                || columns::updated(event, &["referrer_id", "referred_id", "ip_address"])
                || !columns::is_delete(event) && columns::crossed(event, "status", &["verified", "converted"])
        }
        _ => false,
    }
}

#[async_trait]
impl Handler for Fraud {
    fn spec(&self) -> Spec {
        Spec {
            name: "fraud".to_owned(),
            routes: self.routes.clone(),
            coalesce_max: 100,
            attempt_timeout: None,
        }
    }

    fn wants(&self, event: &ChangeEvent) -> bool {
        concerns(event)
    }

    async fn handle(&self, context: &mut Context, _events: &[Arc<ChangeEvent>]) -> Result<Outcome, HandlerError> {
        let Some(once) = context.once().await? else {
            return Ok(Outcome::Done);
        };
        let of_table = |table: &str| -> Vec<Uuid> {
            let events = once.events.iter().filter(|event| &*event.origin().table == table);
            events.filter_map(|event| columns::id(event.after()?, "id")).collect()
        };
        let (referrals, users) = (of_table("referrals"), of_table("waitlist_users"));
        sql::check(once.connection, &referrals, &users, &self.settings, &self.secret).await?;
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handlers::cases::{deleted, inserted, updated};

    #[test]
    fn only_what_identifies_somebody_is_checked() {
        let user = [("email", "a@b.c"), ("ip_address", "8.8.8.8"), ("status", "pending")];
        let moved = [("email", "a@b.c"), ("ip_address", "8.8.4.4"), ("status", "verified")];
        let verified = [("email", "a@b.c"), ("ip_address", "8.8.8.8"), ("status", "verified")];
        let referral = [("status", "pending")];
        let counted = [("status", "verified")];
        for (event, expected) in [
            (inserted("waitlist_users", &user), true),
            (updated("waitlist_users", &user, &moved), true),
            (updated("waitlist_users", &user, &verified), false),
            (deleted("waitlist_users", &user), false),
            (inserted("referrals", &referral), true),
            (updated("referrals", &referral, &counted), true),
            (updated("referrals", &counted, &counted), false),
            (deleted("referrals", &counted), false),
            (inserted("rewards", &user), false),
        ] {
            assert_eq!(concerns(&event), expected, "{event:?}");
        }
    }
}
