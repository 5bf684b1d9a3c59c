//! Counts who shares a device or a network address with a user.
//!
//! As of the user's own row: only the user itself and those who signed up before it are counted, so that a check that is
//! repeated later finds the same. Counting ends as soon as there are too many, because an address of a large office has
//! thousands of users.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::handlers::fraud::rules::{self, Duplicate, FraudSettings, Shared, UserFacts};

/// What is counted for one user, column by column, as Postgres takes it.
#[derive(Default)]
struct Asked {
    /// Index into the users.
    number: Vec<i32>,
    campaign: Vec<Uuid>,
    created_at: Vec<DateTime<Utc>>,
    user: Vec<Uuid>,
}

impl Asked {
    fn push(&mut self, number: usize, user: &UserFacts) {
        self.number.push(i32::try_from(number).unwrap_or(i32::MAX));
        self.campaign.push(user.campaign_id);
        self.created_at.push(user.created_at);
        self.user.push(user.user_id);
    }
}

/// Counts for each of these users, in their order. A check that is switched off counts nobody.
///
/// # Errors
/// Whatever Postgres answered.
pub(super) async fn count(
    connection: &mut PgConnection,
    users: &[UserFacts],
    settings: &FraudSettings,
) -> Result<Vec<Shared>, sqlx::Error> {
    let mut shared = vec![Shared::default(); users.len()];
    if let Some(check) = &settings.duplicate_ip {
        for (number, count) in of_address(connection, users, check).await? {
            shared[number].ip = shared[number].ip.saturating_add(count);
        }
    }
    if let Some(check) = &settings.duplicate_device {
        for (number, count) in of_device(connection, users, check).await? {
            shared[number].device = count;
        }
    }
    Ok(shared)
}

async fn of_address(
    connection: &mut PgConnection,
    users: &[UserFacts],
    check: &Duplicate,
) -> Result<Vec<(usize, u32)>, sqlx::Error> {
    let mut asked = Asked::default();
    let (mut first, mut last): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    for (number, user) in users.iter().enumerate() {
        let ranges = rules::house_of(user).map(rules::addresses_of).unwrap_or_default();
        for (low, high) in ranges {
            asked.push(number, user);
            first.push(IpAddr::to_string(&low));
            last.push(IpAddr::to_string(&high));
        }
    }
    if first.is_empty() {
        return Ok(Vec::new());
    }
    let counts: Vec<(i32, i64)> = sqlx::query_as(
        "SELECT asked.number, counted.users
         FROM unnest($1::integer[], $2::uuid[], $3::timestamptz[], $4::uuid[], $5::text[], $6::text[])
              AS asked(number, campaign, created_at, id, first, last),
         LATERAL (SELECT count(*) AS users
                  FROM (SELECT FROM waitlist_users u
                        WHERE u.campaign_id = asked.campaign
                          AND u.ip_address BETWEEN asked.first::inet AND asked.last::inet
                          AND (u.created_at, u.id) <= (asked.created_at, asked.id)
                        LIMIT $7 + 1) AS few) AS counted",
    )
    .bind(asked.number)
    .bind(asked.campaign)
    .bind(asked.created_at)
    .bind(asked.user)
    .bind(first)
    .bind(last)
    .bind(i64::from(check.users_max))
    .fetch_all(connection)
    .await?;
    Ok(numbered(counts))
}

async fn of_device(
    connection: &mut PgConnection,
    users: &[UserFacts],
    check: &Duplicate,
) -> Result<Vec<(usize, u32)>, sqlx::Error> {
    let mut asked = Asked::default();
    let mut devices: Vec<&str> = Vec::new();
    for (number, user) in users.iter().enumerate() {
        // Compared as it is stored, so that the index answers; what is blank is nobody's device.
        if let (Some(_), Some(stored)) = (rules::device_of(user), user.device.as_deref()) {
            asked.push(number, user);
            devices.push(stored);
        }
    }
    if devices.is_empty() {
        return Ok(Vec::new());
    }
    let counts: Vec<(i32, i64)> = sqlx::query_as(
        "SELECT asked.number, counted.users
         FROM unnest($1::integer[], $2::uuid[], $3::timestamptz[], $4::uuid[], $5::text[])
              AS asked(number, campaign, created_at, id, device),
         LATERAL (SELECT count(*) AS users
                  FROM (SELECT FROM waitlist_users u
                        WHERE u.campaign_id = asked.campaign AND u.device_fingerprint = asked.device
                          AND u.device_fingerprint <> ''
                          AND (u.created_at, u.id) <= (asked.created_at, asked.id)
                        LIMIT $6 + 1) AS few) AS counted",
    )
    .bind(asked.number)
    .bind(asked.campaign)
    .bind(asked.created_at)
    .bind(asked.user)
    .bind(devices)
    .bind(i64::from(check.users_max))
    .fetch_all(connection)
    .await?;
    Ok(numbered(counts))
}

fn numbered(counts: Vec<(i32, i64)>) -> Vec<(usize, u32)> {
    let pairs = counts.into_iter();
    pairs
        .filter_map(|(number, users)| Some((usize::try_from(number).ok()?, u32::try_from(users).ok()?)))
        .collect()
}
