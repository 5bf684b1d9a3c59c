//! The waitlist worker's handlers, and the routing table: which table wakes which of them.
//!
//! Facts flow one way: fraud, then position, then reward, then e-mail. No handler decides by a table that a later one
//! writes, so nothing wakes itself for ever. Between handlers there is no order; each reads the facts after taking its
//! lock and writes the difference to what should be.

use std::sync::Arc;

use crate::clients::mailer::Mailer;
use crate::clients::webhook::Caller;
use crate::handler::{Handler, Keyless, Ordering, Route};
use crate::handlers::email::EmailSettings;
use crate::handlers::fraud::rules::FraudSettings;
use crate::handlers::reward::RewardSettings;
use crate::handlers::reward::grant::Granting;
use crate::handlers::secret::Secret;

pub mod email;

pub mod position;

pub mod reward;

pub mod fraud;

pub mod credit;

pub mod address;

pub mod named;

pub mod names;

pub mod erasure;

pub mod figures;

pub mod secret;

mod columns;

#[cfg(test)]
mod cases;

/// What keeps the changes of one table in order, for one handler.
enum Lane {
    /// Its primary key.
    Row,
    /// A column.
    By(&'static str),
}

use Lane::{By, Row};

/// One table and the handlers it wakes.
struct Wakes {
    table: &'static str,
    email: Option<Lane>,
    position: Option<Lane>,
    reward: Option<Lane>,
    fraud: Option<Lane>,
}

/// THE ROUTING TABLE. A change of a table that is not here wakes nobody; whether a change of these tables concerns a
/// handler is said by the handler's own `wants`, by the columns that changed.
///
/// A campaign is ranked by one at a time, so position is ordered by campaign; a user's referrals are counted together, so
/// reward and fraud take them by referrer.
#[rustfmt::skip]
const ROUTING: &[Wakes] = &[
    Wakes { table: "waitlist_users",   email: Some(Row), position: Some(By("campaign_id")), reward: Some(Row),               fraud: Some(Row) },
    Wakes { table: "referrals",        email: None,      position: Some(By("campaign_id")), reward: Some(By("referrer_id")), fraud: Some(By("referrer_id")) },
    Wakes { table: "fraud_detections", email: None,      position: Some(By("campaign_id")), reward: Some(By("user_id")),     fraud: None },
    Wakes { table: "campaigns",        email: None,      position: Some(By("id")),          reward: Some(Row),               fraud: None },
    Wakes { table: "rewards",          email: None,      position: None,                    reward: Some(Row),               fraud: None },
    Wakes { table: "user_rewards",     email: None,      position: None,                    reward: Some(Row),               fraud: None },
    Wakes { table: "position_changes", email: Some(Row), position: None,                    reward: Some(By("user_id")),     fraud: None },
    Wakes { table: "campaign_milestones", email: Some(Row), position: None,                 reward: Some(Row),               fraud: None },
    Wakes { table: "reward_rounds",    email: None,      position: None,                    reward: Some(Row),               fraud: None },
    Wakes { table: "email_log",        email: Some(Row), position: None,                    reward: None,                    fraud: None },
];

/// The schema of the application's and the worker's tables.
const SCHEMA: &str = "public";

fn routes(lane: impl Fn(&Wakes) -> &Option<Lane>) -> Vec<Route> {
    let woken = ROUTING
        .iter()
        .filter_map(|line| Some((line.table, lane(line).as_ref()?)));
    woken
        .map(|(table, lane)| Route {
            schema: SCHEMA.to_owned(),
            table: table.to_owned(),
            ordering: match lane {
                Row => Ordering::PrimaryKey,
                By(column) => Ordering::Columns(vec![(*column).to_owned()]),
            },
            keyless: Keyless::Refused,
        })
        .collect()
}

/// Everything the handlers can be told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Derives codes, tokens and hashes.
    pub secret: Secret,
    /// Mails: sender and links.
    pub email: EmailSettings,
    /// Rewards.
    pub reward: RewardSettings,
    /// Fraud checks.
    pub fraud: FraudSettings,
}

/// What the handlers call.
#[derive(Clone)]
pub struct Clients {
    /// The mail server.
    pub mailer: Arc<dyn Mailer>,
    /// Webhooks.
    pub caller: Arc<dyn Caller>,
}

impl std::fmt::Debug for Clients {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Clients(..)")
    }
}

/// The four handlers of the waitlist worker; each is a group of its own.
pub fn build(settings: &Settings, clients: &Clients) -> Vec<Arc<dyn Handler>> {
    let granting = Granting {
        fraud: settings.fraud.clone(),
        secret: settings.secret.clone(),
        delay: settings.reward.delay,
    };
    vec![
        Arc::new(email::Email::new(
            routes(|line| &line.email),
            settings.email.clone(),
            settings.fraud.hold_at,
            settings.secret.clone(),
            Arc::clone(&clients.mailer),
        )),
        Arc::new(position::Position::new(
            routes(|line| &line.position),
            settings.fraud.hold_at,
        )),
        Arc::new(reward::Reward::new(
            routes(|line| &line.reward),
            granting,
            settings.reward.webhook_attempts_max,
            Arc::clone(&clients.caller),
        )),
        Arc::new(fraud::Fraud::new(
            routes(|line| &line.fraud),
            settings.fraud.clone(),
            settings.secret.clone(),
        )),
    ]
}
