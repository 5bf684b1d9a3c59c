//! Scheduled work, plugged together: which jobs there are, when each runs here, and with which connections.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use chrono::TimeDelta;
use sqlx::postgres::PgConnectOptions;
use uuid::Uuid;

use super::waitlist;
use crate::config::Config;
use crate::config::value::Interval;
use crate::handlers::reward::grant::Granting;
use crate::handlers::secret::Secret;
use crate::ledger::patience;
use crate::schedule::analytics::Analytics;
use crate::schedule::cleanup::Cleanup;
use crate::schedule::clock::OfPostgres;
use crate::schedule::fraud_scan::FraudScan;
use crate::schedule::position_notices::PositionNotices;
use crate::schedule::reward_windows::RewardWindows;
use crate::schedule::runner::{LOOK_EVERY, Options, Scheduler};
use crate::schedule::timing::Schedule;
use crate::schedule::webhook_retries::WebhookRetries;
use crate::schedule::{Job, Planned, rows};

/// Connections for looks and for the work of scheduled jobs; each run has a session of its own beside them.
const CONNECTIONS: u32 = 8;

/// What is kept for longer is kept for ever.
const EFFECTS_KEPT_MAX: TimeDelta = TimeDelta::days(36_500);

/// What the scheduler of a process works with; connections are opened when they are needed.
///
/// # Errors
/// When `postgres.url` is no address, or the table of runs is not there.
pub async fn options(config: &Config) -> anyhow::Result<Options> {
    let address = config.postgres.url.expose().parse::<PgConnectOptions>();
    let connect = address.context("postgres.url is not an address of a database")?;
    let connect = waitlist::seeing_names(config, connect.application_name("afterwrite"));
    let connect = super::bounded(&connect, patience::STATEMENT_MAX);
    let pool = super::pool(&connect, CONNECTIONS, super::connect_timeout(config));
    let is_there = rows::is_there(&pool).await;
    let is_there = is_there.context("the table of scheduled runs could not be looked for: is postgres there?")?;
    anyhow::ensure!(
        is_there,
        "the table of scheduled runs is not there: was `afterwrite migrate` run after the update?"
    );
    Ok(Options {
        connect,
        pool,
        owner: Uuid::new_v4(),
        clock: Arc::new(OfPostgres),
        look_every: LOOK_EVERY,
        grace: Duration::from_millis(config.engine.shutdown_grace_ms),
    })
}

/// The scheduler of a process; `None` where there is nothing to run.
///
/// # Errors
/// As those of [`plan`] and [`options`].
pub(super) async fn scheduler(config: &Config, jobs: Vec<Arc<dyn Job>>) -> anyhow::Result<Option<Scheduler>> {
    let planned = plan(config, jobs)?;
    if planned.is_empty() || !config.schedule.enabled {
        return Ok(None);
    }
    Ok(Some(Scheduler::new(planned, options(config).await?)))
}

/// The waitlist's scheduled jobs.
///
/// # Errors
/// When a setting cannot be true.
pub fn waitlist_jobs(config: &Config) -> anyhow::Result<Vec<Arc<dyn Job>>> {
    let schedule = &config.schedule;
    let granting = granting(config)?;
    let Granting { fraud, secret, .. } = granting.clone();
    let lease = Duration::from_millis(config.engine.effect_lease_ms);
    Ok(vec![
        Arc::new(Analytics::new(schedule.analytics_interval.0)),
        Arc::new(FraudScan::new(schedule.fraud_scan_interval.0, fraud, secret.clone())),
        Arc::new(WebhookRetries::new(Arc::new(waitlist::caller(config)?), secret, lease)),
        Arc::new(PositionNotices),
        Arc::new(RewardWindows::new(granting)),
        Arc::new(Cleanup::new(&schedule.zone, effects_kept(config))),
    ])
}

/// The rules by which rewards are given, as in the reward handler.
///
/// # Errors
/// When the secret is missing.
pub fn granting(config: &Config) -> anyhow::Result<Granting> {
    Ok(Granting {
        fraud: waitlist::fraud(&config.fraud),
        secret: Secret::new(config.hmac_key()?.expose().as_bytes()),
        delay: config.waitlist.reward_hold.0,
    })
}

/// As long as anything that might ask for an effect: dead letters and the ledger.
fn effects_kept(config: &Config) -> TimeDelta {
    let letters = TimeDelta::try_milliseconds(config.dead_letters.retention_ms).unwrap_or(EFFECTS_KEPT_MAX);
    let ledger = TimeDelta::days(config.ledger.retention_days.into());
    letters.max(ledger).min(EFFECTS_KEPT_MAX)
}

/// The jobs with the schedules they have here, without those that are switched off.
///
/// # Errors
/// When a schedule cannot be, when two jobs have one name, and when `[schedule.jobs.NAME]` is called after none.
pub fn plan(config: &Config, jobs: Vec<Arc<dyn Job>>) -> anyhow::Result<Vec<Planned>> {
    let mut names: Vec<&str> = jobs.iter().map(|job| job.name()).collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        bail!(
            "two scheduled jobs are called {}: their runs could not be told apart",
            twice[0]
        );
    }
    if let Some(unknown) = config.schedule.jobs.keys().find(|name| !names.contains(&name.as_str())) {
        bail!(
            "[schedule.jobs.{unknown}] is called after nothing; there are {}",
            names.join(", ")
        );
    }
    let mut planned = Vec::with_capacity(jobs.len());
    for job in jobs {
        let own = config.schedule.jobs.get(job.name());
        if own.is_some_and(|own| !own.enabled) {
            continue;
        }
        let zone = own.and_then(|own| own.zone.as_deref()).unwrap_or(&config.schedule.zone);
        let schedule = match own.and_then(|own| own.schedule.as_deref()) {
            Some(text) => {
                parse(text, zone).with_context(|| format!("schedule.jobs.{}.schedule cannot be used", job.name()))?
            }
            None => {
                let schedule = job.schedule();
                schedule.with_context(|| format!("the scheduled job {} cannot run", job.name()))?
            }
        };
        planned.push(Planned { job, schedule });
    }
    Ok(planned)
}

/// `every 15m`, or cron.
pub(super) fn parse(text: &str, zone: &str) -> anyhow::Result<Schedule> {
    let Some(interval) = text.strip_prefix("every ") else {
        return Ok(Schedule::cron(text, zone)?);
    };
    let interval = Interval::parse(interval.trim()).context("it must be written like `every 15m`, or as cron")?;
    Ok(Schedule::every(interval.0)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::{Inputs, load};

    fn planned(set: &[&str]) -> Result<Vec<String>, String> {
        let inputs = Inputs {
            set: set.iter().map(|set| (*set).to_owned()).collect(),
            ..Inputs::default()
        };
        let config = load(&inputs).map_err(|error| error.to_string())?;
        let planned = waitlist_jobs(&config).and_then(|jobs| plan(&config, jobs));
        let named = planned.map_err(|error| format!("{error:#}"))?;
        Ok(named.iter().map(|planned| format!("{planned:?}")).collect())
    }

    #[tokio::test]
    async fn each_job_has_its_schedule_or_the_configured_one() {
        assert_eq!(
            planned(&[]).unwrap(),
            [
                "analytics (every 1h)",
                "fraud_scan (every 15m)",
                "webhook_retries (every 1m)",
                "position_notices (every 1m)",
                "reward_windows (every 1m)",
                "cleanup (17 3 * * *)",
            ]
        );
        let set = [
            "schedule.analytics_interval=10m",
            "schedule.jobs.fraud_scan.schedule=every 90s",
            "schedule.jobs.cleanup.schedule=@weekly",
            "schedule.jobs.reward_windows.enabled=false",
        ];
        let named = planned(&set).unwrap();
        assert_eq!(named.len(), 5);
        for name in ["analytics (every 10m)", "fraud_scan (every 1m30s)", "cleanup (@weekly)"] {
            assert!(named.iter().any(|planned| planned == name), "{name}: {named:?}");
        }
    }

    #[tokio::test]
    async fn what_cannot_be_is_refused_with_its_place() {
        for (set, said) in [
            (
                "schedule.jobs.cleanap.enabled=false",
                "[schedule.jobs.cleanap] is called after nothing",
            ),
            (
                "schedule.jobs.cleanup.schedule=sometimes",
                "schedule.jobs.cleanup.schedule cannot be used",
            ),
            ("schedule.zone=Berlin", "Berlin is no time zone"),
            ("schedule.analytics_interval=1s", "schedule.analytics_interval"),
        ] {
            let refusal = planned(&[set]).unwrap_err();
            assert!(refusal.contains(said), "{set}: {refusal}");
        }
    }

    #[test]
    fn effects_are_kept_as_long_as_letters_and_the_ledger() {
        let kept = |set: &str| {
            let inputs = Inputs {
                set: vec![set.to_owned()],
                ..Inputs::default()
            };
            effects_kept(&load(&inputs).unwrap()).num_days()
        };
        assert_eq!(kept("ledger.retention_days=14"), 365);
        assert_eq!(kept("ledger.retention_days=500"), 500);
    }
}
