//! The server that the application writes to.

use chrono::{DateTime, Utc};
use sqlx::postgres::PgPool;

use super::codes;
use super::finding::{Finding, Remedy};
use super::quoting::literal;
use crate::groups::slots::keep_bytes_max;

/// A transaction that is open for longer holds the log back, and every slot that is to be made.
const TRANSACTION_MAX_S: i64 = 3_600;

/// Clocks may differ so much before times in logs, letters and limits mislead.
const SKEW_MAX_MS: i64 = 5_000;

/// What is known of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) wal_level: String,
    pub(super) encoding: String,
    pub(super) is_standby: bool,
    pub(super) slots_max: i64,
    pub(super) slots_used: i64,
    pub(super) senders_max: i64,
    pub(super) senders_used: i64,
    /// `None` without a limit.
    pub(super) keep_bytes_max: Option<i64>,
    /// The server's clock less ours.
    pub(super) skew_ms: i64,
    pub(super) transactions: Vec<Open>,
}

/// A transaction that is open for long.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub(super) struct Open {
    /// None of a prepared one.
    pub(super) pid: Option<i32>,
    /// Its identifier, of a prepared one.
    pub(super) gid: Option<String>,
    pub(super) owner: Option<String>,
    pub(super) age_s: i64,
}

pub(super) async fn collect(pool: &PgPool) -> Result<Facts, sqlx::Error> {
    let asked = Utc::now();
    let (now, wal_level, encoding, is_standby): (DateTime<Utc>, String, String, bool) = sqlx::query_as(
        "SELECT clock_timestamp(), current_setting('wal_level'), current_setting('server_encoding'), pg_is_in_recovery()",
    )
    .fetch_one(pool)
    .await?;
    let answered = Utc::now();
    // Of the sessions of others a role without pg_read_all_stats is not told what they are, but how many send log.
    let (slots_max, slots_used, senders_max, senders_used): (i64, i64, i64, i64) = sqlx::query_as(
        "SELECT current_setting('max_replication_slots')::bigint, (SELECT count(*) FROM pg_replication_slots),
                current_setting('max_wal_senders')::bigint, (SELECT count(*) FROM pg_stat_replication)",
    )
    .fetch_one(pool)
    .await?;
    let transactions = sqlx::query_as(
        "SELECT pid, NULL::text AS gid, usename::text AS owner, extract(epoch FROM now() - xact_start)::bigint AS age_s
         FROM pg_stat_activity WHERE xact_start < now() - $1 * interval '1 second' AND backend_type = 'client backend'
         UNION ALL
         SELECT NULL, gid, owner::text, extract(epoch FROM now() - prepared)::bigint
         FROM pg_prepared_xacts WHERE prepared < now() - $1 * interval '1 second'
         ORDER BY age_s DESC LIMIT 5",
    )
    .bind(TRANSACTION_MAX_S as f64)
    .fetch_all(pool)
    .await?;
    Ok(Facts {
        wal_level,
        encoding,
        is_standby,
        slots_max,
        slots_used,
        senders_max,
        senders_used,
        keep_bytes_max: keep_bytes_max(pool).await?,
        skew_ms: skew_ms(asked, now, answered),
        transactions,
    })
}

/// How far the server's clock is from ours, when it was read at some moment between two of ours.
fn skew_ms(before: DateTime<Utc>, theirs: DateTime<Utc>, after: DateTime<Utc>) -> i64 {
    if theirs < before {
        (theirs - before).num_milliseconds()
    } else if theirs > after {
        (theirs - after).num_milliseconds()
    } else {
        0
    }
}

pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    if facts.is_standby {
        found.push(codes::STANDBY.found(
            "postgres.url names a standby (pg_is_in_recovery)",
            Remedy::words(
                "let postgres.url (DATABASE_URL) name the primary, or promote this server: SELECT pg_promote()",
            ),
        ));
    }
    if facts.wal_level != "logical" {
        found.push(codes::WAL_LEVEL.found(
            format!("wal_level is {}", facts.wal_level),
            Remedy::words("ALTER SYSTEM SET wal_level = 'logical'; then restart Postgres: pg_ctl restart"),
        ));
    }
    if facts.encoding != "UTF8" {
        found.push(codes::ENCODING.found(
            format!("the database's encoding is {}", facts.encoding),
            Remedy::words("pg_dump the database, and restore it into one made with ENCODING 'UTF8'"),
        ));
    }
    for (code, setting, used, max) in [
        (
            codes::SLOTS_FULL,
            "max_replication_slots",
            facts.slots_used,
            facts.slots_max,
        ),
        (
            codes::SENDERS_FULL,
            "max_wal_senders",
            facts.senders_used,
            facts.senders_max,
        ),
    ] {
        if used >= max {
            found.push(code.found(
                format!("{used} of {setting} = {max} are in use"),
                Remedy::words(format!(
                    "ALTER SYSTEM SET {setting} = {}; then restart Postgres; or drop what nobody reads: SELECT slot_name FROM \
                     pg_replication_slots WHERE NOT active",
                    max + 10
                )),
            ));
        }
    }
    if facts.keep_bytes_max.is_none() {
        found.push(codes::KEEP_UNLIMITED.found(
            "max_slot_wal_keep_size is -1",
            Remedy::sql("ALTER SYSTEM SET max_slot_wal_keep_size = '50GB'; SELECT pg_reload_conf();"),
        ));
    }
    if facts.skew_ms.abs() > SKEW_MAX_MS {
        found.push(codes::CLOCK_SKEW.found(
            format!(
                "the clock of Postgres is {} ms from the one of this machine",
                facts.skew_ms
            ),
            Remedy::words("let both machines follow a time server: timedatectl set-ntp true; chronyc tracking"),
        ));
    }
    found.extend(facts.transactions.iter().map(of_transaction));
    found
}

fn of_transaction(open: &Open) -> Finding {
    let owner = open.owner.as_deref().unwrap_or("somebody");
    let minutes = open.age_s / 60;
    let what = match (&open.gid, open.pid) {
        (Some(gid), _) => format!("{owner} prepared transaction {gid} {minutes} minutes ago"),
        (None, pid) => format!(
            "process {} of {owner} has had a transaction open for {minutes} minutes",
            pid.unwrap_or_default()
        ),
    };
    let end = end_of(open.gid.as_deref(), open.pid.unwrap_or_default());
    codes::TRANSACTION_OPEN.found(what, Remedy::sql(end))
}

/// What ends a transaction: a prepared one, or that of a session.
pub(super) fn end_of(gid: Option<&str>, pid: i32) -> String {
    match gid {
        Some(gid) => format!("COMMIT PREPARED {0}; -- or: ROLLBACK PREPARED {0};", literal(gid)),
        None => format!("SELECT pg_terminate_backend({pid});"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn healthy() -> Facts {
        Facts {
            wal_level: "logical".to_owned(),
            encoding: "UTF8".to_owned(),
            is_standby: false,
            slots_max: 10,
            slots_used: 2,
            senders_max: 10,
            senders_used: 1,
            keep_bytes_max: Some(1 << 30),
            skew_ms: 20,
            transactions: Vec::new(),
        }
    }

    #[test]
    fn each_thing_that_is_wrong_with_a_server_is_named_alone() {
        assert_eq!(findings(&healthy()), []);
        let open = |pid, gid: Option<&str>| Open {
            pid,
            gid: gid.map(str::to_owned),
            owner: None,
            age_s: 7_200,
        };
        type Change<'c> = &'c dyn Fn(&mut Facts);
        let changes: [(Change<'_>, &str); 9] = [
            (&|facts| facts.wal_level = "replica".to_owned(), "wal-level"),
            (&|facts| facts.encoding = "LATIN1".to_owned(), "encoding"),
            (&|facts| facts.is_standby = true, "standby"),
            (&|facts| facts.slots_used = 10, "slots-full"),
            (&|facts| facts.senders_used = 11, "senders-full"),
            (&|facts| facts.keep_bytes_max = None, "keep-unlimited"),
            (&|facts| facts.skew_ms = -6_000, "clock-skew"),
            (
                &|facts| facts.transactions.push(open(Some(7), None)),
                "transaction-open",
            ),
            (
                &|facts| facts.transactions.push(open(None, Some("a'b"))),
                "transaction-open",
            ),
        ];
        for (change, code) in changes {
            let mut facts = healthy();
            change(&mut facts);
            let found: Vec<&str> = findings(&facts).iter().map(|finding| finding.code.name).collect();
            assert_eq!(found, [code]);
        }
    }

    #[test]
    fn an_answer_that_took_long_is_no_difference_of_clocks() {
        let at = |ms| DateTime::from_timestamp_millis(ms).unwrap();
        for (before, theirs, after, skew) in [(0, 5, 9_000, 0), (0, -7, 3, -7), (0, 9_000, 1_000, 8_000)] {
            assert_eq!(skew_ms(at(before), at(theirs), at(after)), skew);
        }
    }
}
