//! Counts who shares a device or a network address with a user.
//!
//! As of the user's own row: only the user itself and those who signed up before it are counted, so that a check that is
//! repeated later finds the same. Counting ends as soon as there are too many, because an address of a large office has
//! thousands of users.

use chrono::{DateTime, Utc};
use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

use crate::handlers::fraud::rules::{self, Duplicate, FraudSettings, Shared, UserFacts};

/// What is counted, column by column, as Postgres takes it: for a user those who have something from `first` to `last`.
#[derive(Default)]
struct Asked {
    /// Index into the users.
    number: Vec<i32>,
    campaign: Vec<Uuid>,
    created_at: Vec<DateTime<Utc>>,
    user: Vec<Uuid>,
    first: Vec<String>,
    last: Vec<String>,
}

impl Asked {
    fn push(&mut self, number: usize, user: &UserFacts, first: String, last: String) {
        self.number.push(i32::try_from(number).unwrap_or(i32::MAX));
        self.campaign.push(user.campaign_id);
        self.created_at.push(user.created_at);
        self.user.push(user.user_id);
        self.first.push(first);
        self.last.push(last);
    }

    /// Counts users `u` for which `shares` is true of `asked`: pairs of index and number, one more than pass at most.
    async fn count(
        self,
        connection: &mut PgConnection,
        shares: &str,
        check: &Duplicate,
    ) -> Result<Vec<(usize, u32)>, sqlx::Error> {
        if self.number.is_empty() {
            return Ok(Vec::new());
        }
        let sql = format!(
            "SELECT asked.number, counted.users
             FROM unnest($1::integer[], $2::uuid[], $3::timestamptz[], $4::uuid[], $5::text[], $6::text[])
                  AS asked(number, campaign, created_at, id, first, last),
             LATERAL (SELECT count(*) AS users
                      FROM (SELECT FROM waitlist_users u
                            WHERE u.campaign_id = asked.campaign AND {shares}
                              AND (u.created_at, u.id) <= (asked.created_at, asked.id)
                            LIMIT $7 + 1) AS few) AS counted"
        );
        let counts: Vec<(i32, i64)> = sqlx::query_as(AssertSqlSafe(sql))
            .bind(self.number)
            .bind(self.campaign)
            .bind(self.created_at)
            .bind(self.user)
            .bind(self.first)
            .bind(self.last)
            .bind(i64::from(check.users_max))
            .fetch_all(connection)
            .await?;
        let pairs = counts.into_iter();
        Ok(pairs
            .filter_map(|(number, users)| Some((usize::try_from(number).ok()?, u32::try_from(users).ok()?)))
            .collect())
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
    for (number, user) in users.iter().enumerate() {
        let ranges = rules::house_of(user).map(rules::addresses_of).unwrap_or_default();
        for (first, last) in ranges {
            asked.push(number, user, first.to_string(), last.to_string());
        }
    }
    asked
        .count(
            connection,
            "u.ip_address BETWEEN asked.first::inet AND asked.last::inet",
            check,
        )
        .await
}

async fn of_device(
    connection: &mut PgConnection,
    users: &[UserFacts],
    check: &Duplicate,
) -> Result<Vec<(usize, u32)>, sqlx::Error> {
    let mut asked = Asked::default();
    for (number, user) in users.iter().enumerate() {
        // Compared as it is stored, so that the index answers; what is blank is nobody's device.
        if let (Some(_), Some(stored)) = (rules::device_of(user), &user.device) {
            asked.push(number, user, stored.clone(), stored.clone());
        }
    }
    asked
        .count(
            connection,
            "u.device_fingerprint = asked.first AND u.device_fingerprint <> ''",
            check,
        )
        .await
}
