//! What the clock wakes: who is warned and who is deactivated at a tick. It decides by the tick's time, so that every attempt and every
//! process decides the same.

use afterwrite::schedule::timing::{self, Missed, Schedule};
use afterwrite::schedule::{Context, Error, Job, Report};
use async_trait::async_trait;

/// What it reads and writes: `accounts` is the application's, `account_warnings` wakes the handler and has to be captured.
#[cfg(all(test, feature = "testkit"))]
pub(crate) const TABLES: &str = "
    CREATE TABLE accounts (
        id int PRIMARY KEY, email text NOT NULL, expires_at timestamptz,
        status text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'deactivated')));
    CREATE TABLE account_warnings (
        account_id int NOT NULL REFERENCES accounts, expires_at timestamptz NOT NULL, mailed_at timestamptz,
        PRIMARY KEY (account_id, expires_at));
    ALTER TABLE account_warnings REPLICA IDENTITY FULL;";

/// How long before it expires an account is warned, and how long a warning must have been out before it is deactivated.
const WARNED_BEFORE: &str = "7 days";
const NOTICE: &str = "3 days";

/// The job.
pub(crate) struct ExpiredAccounts;

#[async_trait]
impl Job for ExpiredAccounts {
    fn name(&self) -> &str {
        "expired_accounts"
    }

    fn schedule(&self) -> Result<Schedule, timing::Error> {
        Schedule::cron("@hourly", "UTC")
    }

    /// The last tick does what all before it would have done.
    fn missed(&self) -> Missed {
        Missed::Last
    }

    async fn run(&self, context: &mut Context) -> Result<Report, Error> {
        let tick = context.tick();
        let connection = context.transaction().await?;
        let warned = sqlx::query(
            "INSERT INTO account_warnings (account_id, expires_at)
             SELECT id, expires_at FROM accounts
             WHERE status = 'active' AND expires_at <= $1 + $2::interval
             ON CONFLICT DO NOTHING",
        )
        .bind(tick)
        .bind(WARNED_BEFORE)
        .execute(&mut *connection)
        .await?;
        // Under the account's lock: one that is extended at this moment is looked at again with its new date.
        let deactivated = sqlx::query(
            "UPDATE accounts account SET status = 'deactivated'
             WHERE status = 'active' AND expires_at <= $1
               AND EXISTS (SELECT FROM account_warnings warning
                           WHERE warning.account_id = account.id AND warning.expires_at = account.expires_at
                             AND warning.mailed_at <= $1 - $2::interval)",
        )
        .bind(tick)
        .bind(NOTICE)
        .execute(connection)
        .await?;
        Ok(Report::from([
            ("warned", warned.rows_affected()),
            ("deactivated", deactivated.rows_affected()),
        ]))
    }
}
