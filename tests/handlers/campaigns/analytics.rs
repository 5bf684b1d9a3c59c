//! The figures of every campaign and hour, counted row by row.

use std::time::Duration;

use afterwrite::schedule::analytics::{self, Analytics, Span};
use afterwrite::schedule::runner::Ended;
use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use uuid::Uuid;

use super::Dice;
use super::model::all;
use crate::ticks::Attempts;
use crate::world::World;

const HOUR: TimeDelta = TimeDelta::hours(1);

/// Over so many hours the facts are scattered.
const HOURS: i32 = 60;

type Time = DateTime<Utc>;

#[derive(sqlx::FromRow)]
struct User {
    campaign_id: Uuid,
    email_verified: bool,
    status: String,
    created_at: Time,
    verified_at: Option<Time>,
    updated_at: Time,
}

/// What happened where: the figure's place in [`Figures::new`].
struct Fact {
    figure: usize,
    campaign: Uuid,
    at: Time,
}

#[derive(Debug, sqlx::FromRow)]
struct Figures {
    campaign_id: Uuid,
    hour: Time,
    /// Signups, verifications, referrals, conversions, mails, rewards earned and delivered.
    new: Vec<i64>,
    /// Signups, verifications and referrals by the end of the hour.
    total: Vec<i64>,
}

async fn now(world: &World) -> Time {
    sqlx::query_scalar("SELECT now()").fetch_one(&world.pool).await.unwrap()
}

fn minute_of(time: Time) -> Time {
    time.duration_trunc(TimeDelta::minutes(1)).unwrap()
}

async fn run(world: &World, interval: Duration, tick: Time) {
    let attempts = Attempts::of(world, Analytics::new(interval));
    attempts.add(tick).await;
    let ended = attempts.at(tick, tick).await;
    assert!(matches!(ended, Ended::Done), "{ended:?}");
}

/// The open hour, of which more is to come.
pub(super) async fn run_in_between(world: &World) {
    let tick = minute_of(now(world).await) - TimeDelta::minutes(1);
    run(world, Duration::from_secs(60), tick).await;
}

/// Runs the job, and once more over facts of many hours, and compares every figure.
pub(super) async fn judge(world: &World, dice: &mut Dice) {
    let tick = minute_of(now(world).await);
    run(world, Duration::from_secs(60), tick).await;
    let this_hour = analytics::hour_of(tick);
    let campaigns: Vec<(Uuid,)> = all(world, "SELECT id FROM campaigns").await;
    // Whatever else it had to do: the open hour and the two before it.
    compare(world, &campaigns, this_hour - HOUR * 2, this_hour + HOUR).await;

    scatter(world, dice).await;
    let first = this_hour - HOUR * (HOURS + 1);
    let spans: Vec<Span> = campaigns
        .iter()
        .map(|(campaign_id,)| Span {
            campaign_id: *campaign_id,
            first,
            until: this_hour + HOUR,
        })
        .collect();
    let mut connection = world.worker_pool().acquire().await.unwrap();
    analytics::compute(&mut connection, &spans).await.unwrap();
    compare(world, &campaigns, first, this_hour + HOUR).await;
    assert_eq!(analytics::compute(&mut connection, &spans).await.unwrap(), 0, "again");
}

/// Moves what happened into other hours.
async fn scatter(world: &World, dice: &mut Dice) {
    for (table, column) in [
        ("waitlist_users", "created_at"),
        ("waitlist_users", "verified_at"),
        ("waitlist_users", "updated_at"),
        ("referrals", "created_at"),
        ("email_log", "sent_at"),
        ("user_rewards", "earned_at"),
        ("user_rewards", "delivered_at"),
    ] {
        let salt = dice.roll(1_000_000);
        world
            .exec(&format!(
                "UPDATE {table} SET {column} = {column} - abs(hashtext(id::text) # {salt}) % {HOURS} * interval '1 hour'"
            ))
            .await;
    }
}

async fn facts(world: &World) -> Vec<Fact> {
    let users: Vec<User> = all(
        world,
        "SELECT campaign_id, email_verified, status, created_at, verified_at, updated_at FROM waitlist_users",
    )
    .await;
    let mut facts = Vec::new();
    for user in users {
        let mut add = |figure, at| {
            let campaign = user.campaign_id;
            facts.push(Fact { figure, campaign, at });
        };
        add(0, user.created_at);
        if user.email_verified {
            add(1, user.verified_at.unwrap_or(user.created_at));
        }
        if user.status == "converted" {
            add(3, user.updated_at);
        }
    }
    for (figure, table, column) in [
        (2, "referrals", "created_at"),
        (4, "email_log", "sent_at"),
        (5, "user_rewards", "earned_at"),
        (6, "user_rewards", "delivered_at"),
    ] {
        let rows: Vec<(Uuid, Option<Time>)> = all(world, &format!("SELECT campaign_id, {column} FROM {table}")).await;
        facts.extend(rows.into_iter().filter_map(|(campaign, at)| {
            let at = at?;
            Some(Fact { figure, campaign, at })
        }));
    }
    facts
}

async fn compare(world: &World, campaigns: &[(Uuid,)], first: Time, until: Time) {
    let facts = facts(world).await;
    let known: Vec<Figures> = all(
        world,
        "SELECT campaign_id, hour,
                ARRAY[new_signups, new_verified, new_referrals, conversions, emails_sent, rewards_earned,
                      rewards_delivered]::bigint[] AS new,
                ARRAY[total_signups, total_verified, total_referrals]::bigint[] AS total
         FROM campaign_analytics ORDER BY campaign_id, hour",
    )
    .await;
    for row in &known {
        let count = |figure: usize, from: Option<Time>| {
            let counted = facts.iter().filter(|fact| {
                let is_here = fact.campaign == row.campaign_id && fact.figure == figure;
                is_here && from.is_none_or(|from| fact.at >= from) && fact.at < row.hour + HOUR
            });
            i64::try_from(counted.count()).unwrap()
        };
        let new: Vec<i64> = (0..7).map(|figure| count(figure, Some(row.hour))).collect();
        let total: Vec<i64> = (0..3).map(|figure| count(figure, None)).collect();
        assert_eq!((&row.new, &row.total), (&new, &total), "{row:?}");
    }
    for (campaign,) in campaigns {
        let mut hour = first;
        while hour < until {
            let is_known = known.iter().any(|row| row.campaign_id == *campaign && row.hour == hour);
            assert!(is_known, "{campaign} has no figures of {hour}");
            hour += HOUR;
        }
    }
}
