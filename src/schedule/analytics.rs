//! Figures of each campaign and hour, computed from the facts: `campaign_analytics`.
//!
//! Nothing is counted up: an hour is computed whole, so that computing it again, at whatever time and however often, gives
//! the same. Signups, verifications and referrals are counted by the rows that are there, also those of users who left;
//! a conversion by the last change of a converted user, since the application keeps no time of it.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::timing::{self, Missed, Schedule};
use super::{Context, Error, Job, Report};

/// Closed hours that each run computes again, for rows that came late.
const AGAIN: TimeDelta = TimeDelta::hours(2);

/// How far back hours are made up for that were missed; older ones are `afterwrite reconcile analytics`'s.
const BACK_MAX: TimeDelta = TimeDelta::days(31);

/// Ticks that are caught up with; a run after a longer gap makes up for the hours all the same.
const TICKS_MAX: usize = 48;

const HOUR: TimeDelta = TimeDelta::hours(1);

/// The scheduled job.
#[derive(Debug)]
pub struct Analytics {
    interval: Duration,
}

impl Analytics {
    /// Runs every so often.
    pub fn new(interval: Duration) -> Self {
        Self { interval }
    }
}

#[async_trait]
impl Job for Analytics {
    fn name(&self) -> &'static str {
        "analytics"
    }

    fn schedule(&self) -> Result<Schedule, timing::Error> {
        Schedule::every(self.interval)
    }

    fn missed(&self) -> Missed {
        Missed::Each { max: TICKS_MAX }
    }

    async fn run(&self, context: &mut Context) -> Result<Report, Error> {
        let tick = context.tick();
        let this_hour = hour_of(tick);
        // More often than once an hour: the open hour too.
        let is_frequent = context.steps_before(1).is_some_and(|before| tick - before < HOUR);
        let until = if is_frequent { this_hour + HOUR } else { this_hour };
        let connection = context.transaction().await?;
        let spans = due(connection, this_hour, until).await?;
        let written = compute(connection, &spans).await?;
        Ok(Report::from([
            ("campaigns", spans.len() as u64),
            ("hours_written", written),
        ]))
    }
}

/// The full hour before a time, or the time itself.
pub fn hour_of(time: DateTime<Utc>) -> DateTime<Utc> {
    time.duration_trunc(HOUR).unwrap_or(time)
}

/// Hours of one campaign, from `first` to before `until`; both are full hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct Span {
    /// The campaign.
    pub campaign_id: Uuid,
    /// The first hour.
    pub first: DateTime<Utc>,
    /// The hour after the last one.
    pub until: DateTime<Utc>,
}

/// What a run computes: each active campaign from its last computed hour on, and at least the last closed ones. A campaign
/// that was active until a moment ago gets its last hours.
async fn due(
    connection: &mut PgConnection,
    this_hour: DateTime<Utc>,
    until: DateTime<Utc>,
) -> Result<Vec<Span>, sqlx::Error> {
    sqlx::query_as(
        "SELECT c.id AS campaign_id, $3::timestamptz AS until,
                greatest($1, least($2, coalesce(known.hour, date_trunc('hour', c.created_at, 'UTC')))) AS first
         FROM campaigns c
         CROSS JOIN LATERAL (SELECT max(hour) AS hour FROM campaign_analytics a WHERE a.campaign_id = c.id) AS known
         WHERE c.deleted_at IS NULL
           AND (c.status = 'active' OR c.status IN ('paused', 'completed') AND c.updated_at >= $2)
         ORDER BY c.id",
    )
    .bind(this_hour - BACK_MAX)
    .bind(this_hour - AGAIN)
    .bind(until)
    .fetch_all(connection)
    .await
}

/// Computes these hours and writes the rows that differ; answers how many did.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn compute(connection: &mut PgConnection, spans: &[Span]) -> Result<u64, sqlx::Error> {
    let campaigns: Vec<Uuid> = spans.iter().map(|span| span.campaign_id).collect();
    let firsts: Vec<DateTime<Utc>> = spans.iter().map(|span| span.first).collect();
    let untils: Vec<DateTime<Utc>> = spans.iter().map(|span| span.until).collect();
    let written = sqlx::query(sqlx::AssertSqlSafe(statement()))
        .bind(campaigns)
        .bind(firsts)
        .bind(untils)
        .execute(connection)
        .await?;
    Ok(written.rows_affected())
}

/// What is counted: column, table, and when a row of it happened.
const COUNTED: [(&str, &str, &str); 7] = [
    ("new_signups", "waitlist_users", "created_at"),
    (
        "new_verified",
        "waitlist_users",
        "CASE WHEN fact.email_verified THEN coalesce(fact.verified_at, fact.created_at) END",
    ),
    ("new_referrals", "referrals", "created_at"),
    (
        "conversions",
        "waitlist_users",
        "CASE WHEN fact.status = 'converted' THEN fact.updated_at END",
    ),
    ("emails_sent", "email_log", "sent_at"),
    ("rewards_earned", "user_rewards", "earned_at"),
    ("rewards_delivered", "user_rewards", "delivered_at"),
];

/// Columns that say how many there are by the end of the hour, and which of the above they add up.
const ADDED_UP: [(&str, &str); 3] = [
    ("total_signups", "new_signups"),
    ("total_verified", "new_verified"),
    ("total_referrals", "new_referrals"),
];

/// One statement: each table is read once for all campaigns. What happened before a span is counted under no hour; only
/// totals need it.
fn statement() -> String {
    let mut counts = String::new();
    let (mut names, mut values, mut joins) = (String::new(), String::new(), String::new());
    for (column, table, happened) in COUNTED {
        let at = if happened.starts_with("CASE") {
            happened.to_owned()
        } else {
            format!("fact.{happened}")
        };
        let needs_before = ADDED_UP.iter().any(|(_, added)| *added == column);
        let from = if needs_before {
            String::new()
        } else {
            format!("AND {at} >= span.first")
        };
        counts += &format!(
            ", {column} AS (
                 SELECT fact.campaign_id, count(*) AS number,
                        CASE WHEN {at} >= span.first THEN date_trunc('hour', {at}, 'UTC') END AS hour
                 FROM span JOIN {table} fact ON fact.campaign_id = span.campaign_id AND {at} < span.until {from}
                 GROUP BY 1, 3)"
        );
        names += &format!(", {column}");
        values += &format!(", coalesce({column}.number, 0)");
        joins +=
            &format!(" LEFT JOIN {column} ON {column}.campaign_id = hours.campaign_id AND {column}.hour = hours.hour");
    }
    for (column, added) in ADDED_UP {
        names += &format!(", {column}");
        values += &format!(", coalesce(before_{added}.number, 0) + sum(coalesce({added}.number, 0)) OVER by_hour");
        joins += &format!(
            " LEFT JOIN {added} AS before_{added}
               ON before_{added}.campaign_id = hours.campaign_id AND before_{added}.hour IS NULL"
        );
    }
    let columns = names.trim_start_matches(", ");
    let set: Vec<String> = columns
        .split(", ")
        .map(|column| format!("{column} = excluded.{column}"))
        .collect();
    let (known, new) = (prefixed(columns, "known"), prefixed(columns, "excluded"));
    let set = set.join(", ");
    format!(
        "WITH span AS (
             SELECT * FROM unnest($1::uuid[], $2::timestamptz[], $3::timestamptz[]) AS span(campaign_id, first, until)
         ), hours AS (
             SELECT campaign_id, hour
             FROM span CROSS JOIN LATERAL generate_series(first, until - interval '1 hour', interval '1 hour') AS hour
         ){counts}
         INSERT INTO campaign_analytics AS known (campaign_id, hour{names})
         SELECT hours.campaign_id, hours.hour{values}
         FROM hours{joins}
         WINDOW by_hour AS (PARTITION BY hours.campaign_id ORDER BY hours.hour)
         ORDER BY hours.campaign_id, hours.hour
         ON CONFLICT (campaign_id, hour) DO UPDATE SET {set}, computed_at = now()
             WHERE ({known}) IS DISTINCT FROM ({new})"
    )
}

fn prefixed(columns: &str, with: &str) -> String {
    let columns: Vec<String> = columns.split(", ").map(|column| format!("{with}.{column}")).collect();
    columns.join(", ")
}
