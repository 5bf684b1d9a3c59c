//! What a process tells over HTTP, and what keeps that up to date.

use std::sync::Arc;

use chrono::Utc;
use sqlx::postgres::PgPool;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{Group, Shared, bounded, counted, figures, pool, waitlist};
use crate::admin::{self, Need, Told};
use crate::config::Config;
use crate::config::smtp::MailTransport;
use crate::decode::options::Format;
use crate::ledger::patience;
use crate::schedule::runner::Scheduler;
use crate::tally::reach;

/// Connections for the page on which readers unsubscribe.
const UNSUBSCRIBING_CONNECTIONS: u32 = 2;

/// The name under which the handler of mails is known.
const EMAIL: &str = "email";

/// Begins to tell; answers what has to be ended with the process.
///
/// # Errors
/// When no key is set for links that everybody could forge without one.
pub(super) fn begin(
    config: &Config,
    shared: &Shared,
    listener: TcpListener,
    groups: &[Group],
    scheduler: Option<&Scheduler>,
) -> anyhow::Result<Vec<JoinHandle<()>>> {
    counted::show();
    // Of their own, because everybody can reach that page.
    let connect = bounded(&shared.connect, patience::STATEMENT_MAX);
    let unsubscribing = pool(&connect, UNSUBSCRIBING_CONNECTIONS, super::connect_timeout(config));
    let mut pools: Vec<(String, PgPool)> = groups.iter().map(Group::pool).collect();
    pools.push(("coordination".to_owned(), shared.coordination.clone()));
    pools.extend(scheduler.map(|scheduler| ("schedule".to_owned(), scheduler.pool().clone())));
    let unsubscriber = waitlist::unsubscriber(config, unsubscribing.clone())?;
    if unsubscriber.is_some() {
        pools.push(("unsubscribe".to_owned(), unsubscribing));
    }
    let (read, figures) = watch::channel(None);
    let told = Told {
        started: Utc::now(),
        groups: Arc::new(groups.iter().map(Group::told).collect()),
        scheduled: scheduler.map(Scheduler::standings),
        pools: Arc::new(pools),
        figures: Some(figures),
        needs: Arc::new(needs(config, groups)),
    };
    let connect = bounded(&shared.connect, figures::STATEMENT_MAX);
    Ok(vec![
        tokio::spawn(admin::serve(listener, told, unsubscriber)),
        tokio::spawn(figures::keep(connect, read)),
    ])
}

/// What this process needs, as it is configured.
fn needs(config: &Config, groups: &[Group]) -> Vec<Need> {
    let source = &config.source;
    let has_brokers = source.kind.has_brokers();
    let has_registry = has_brokers && (source.format != Format::Json || source.key_format.is_some());
    let sends_mails = config.smtp.transport == MailTransport::Smtp
        && groups
            .iter()
            .any(|group| group.handlers.iter().any(|name| name == EMAIL));
    let needs = [
        (true, "postgres", &reach::POSTGRES),
        (has_brokers, "kafka", &reach::KAFKA),
        (has_registry, "registry", &reach::REGISTRY),
        (sends_mails, "smtp", &reach::SMTP),
    ];
    let needed = needs.into_iter().filter(|(is_needed, ..)| *is_needed);
    needed.map(|(_, name, reach)| Need { name, reach }).collect()
}
