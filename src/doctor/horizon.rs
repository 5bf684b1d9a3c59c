//! Whoever keeps dead rows from being cleaned up: slots, standbys, transactions.
//!
//! Their age is counted in transactions, which every role may see; how long ago one began is told to few.

use sqlx::postgres::PgPool;

use super::codes;
use super::finding::{Finding, Remedy};
use super::quoting::literal;
use super::server::end_of;

/// Holders that are told of at most.
const TOLD_MAX: i64 = 5;

/// What is known of whoever holds on for longest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) holders: Vec<Holder>,
    /// The transaction that has written for longest, whatever its age.
    pub(super) writer: Option<Holder>,
}

/// Something that may still look at old rows.
#[derive(Debug, Clone, Default, PartialEq, Eq, sqlx::FromRow)]
pub(super) struct Holder {
    /// `slot`, `standby`, `prepared` or `session`.
    pub(super) kind: String,
    /// Of the slot, the standby or the prepared transaction; of a session, whose it is.
    pub(super) name: String,
    /// The process, where there is one.
    pub(super) pid: Option<i32>,
    /// Transactions that began since.
    pub(super) age: i64,
}

pub(super) async fn collect(pool: &PgPool) -> Result<Facts, sqlx::Error> {
    // From autovacuum_freeze_max_age on Postgres tries to clean up by force, again and again, and cannot.
    let holders = sqlx::query_as(
        "SELECT kind, name, pid, age::bigint FROM (
             SELECT 'slot' AS kind, slot_name::text AS name, active_pid AS pid, greatest(age(catalog_xmin), age(xmin)) AS age
             FROM pg_replication_slots
             UNION ALL
             SELECT 'standby', coalesce(nullif(application_name, ''), usename::text, 'of another role'), pid, age(backend_xmin)
             FROM pg_stat_replication
             UNION ALL
             SELECT 'prepared', gid, NULL, age(transaction) FROM pg_prepared_xacts
             UNION ALL
             SELECT 'session', coalesce(usename::text, 'somebody'), pid, greatest(age(backend_xid), age(backend_xmin))
             FROM pg_stat_activity
             WHERE pid <> pg_backend_pid() AND pid NOT IN (SELECT pid FROM pg_stat_replication)
         ) held WHERE age > current_setting('autovacuum_freeze_max_age')::int ORDER BY age DESC LIMIT $1",
    )
    .bind(TOLD_MAX)
    .fetch_all(pool)
    .await?;
    let writer = sqlx::query_as(
        "SELECT kind, name, pid, age::bigint FROM (
             SELECT 'prepared' AS kind, gid AS name, NULL::int AS pid, age(transaction) AS age FROM pg_prepared_xacts
             UNION ALL
             SELECT 'session', coalesce(usename::text, 'somebody'), pid, age(backend_xid)
             FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()
         ) writing ORDER BY age DESC LIMIT 1",
    )
    .fetch_optional(pool)
    .await?;
    Ok(Facts { holders, writer })
}

impl Holder {
    /// The statement that ends it; none of a slot or a standby.
    pub(super) fn end(&self) -> Option<String> {
        match self.kind.as_str() {
            "prepared" => Some(end_of(Some(&self.name), 0)),
            "session" => Some(end_of(None, self.pid?)),
            _ => None,
        }
    }
}

pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    facts.holders.iter().map(of_holder).collect()
}

fn of_holder(holder: &Holder) -> Finding {
    let name = &holder.name;
    let who = match (holder.kind.as_str(), holder.pid) {
        ("slot", None) => format!("slot {name}, which nobody reads,"),
        ("session", Some(pid)) => format!("a transaction of process {pid} of {name}"),
        ("prepared", _) => format!("prepared transaction {name}"),
        (kind, _) => format!("{kind} {name}"),
    };
    let remedy = match (holder.end(), holder.kind.as_str(), holder.pid) {
        (Some(end), _, _) => Remedy::sql(end),
        (None, "slot", None) => Remedy::words(format!(
            "start whoever reads it; when nobody does any more: SELECT pg_drop_replication_slot({})",
            literal(name)
        )),
        (None, "slot", _) => Remedy::words(
            "see that its reader confirms what it reads, and end transactions that are open for longer than that",
        ),
        (None, _, _) => Remedy::words(
            "end the query that runs on the standby for so long, or there: ALTER SYSTEM SET hot_standby_feedback = off; SELECT pg_reload_conf()",
        ),
    };
    codes::HORIZON_OLD.found(
        format!("{who} has held dead rows back for {} transactions", holder.age),
        remedy,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_holds_rows_back_is_named_with_what_ends_it() {
        for (kind, pid, told, place, remedy) in [
            (
                "slot",
                None,
                "slot x, which nobody reads,",
                "by hand",
                "pg_drop_replication_slot('x')",
            ),
            ("slot", Some(7), "slot x has", "by hand", "confirms"),
            ("standby", Some(7), "standby x has", "by hand", "hot_standby_feedback"),
            (
                "prepared",
                None,
                "prepared transaction x",
                "in Postgres, as the owner",
                "ROLLBACK PREPARED 'x'",
            ),
            (
                "session",
                Some(7),
                "process 7 of x",
                "in Postgres, as the owner",
                "pg_terminate_backend(7)",
            ),
        ] {
            let holder = Holder {
                kind: kind.to_owned(),
                name: "x".to_owned(),
                pid,
                age: 300_000_000,
            };
            let facts = Facts {
                holders: vec![holder],
                writer: None,
            };
            let found = findings(&facts);
            assert_eq!(found[0].code.name, "horizon-old");
            assert!(found[0].what.contains(told), "{}", found[0].what);
            let (where_to, text) = found[0].remedy.parts();
            assert_eq!(where_to, place);
            assert!(text.contains(remedy), "{text}");
        }
        assert_eq!(findings(&Facts::default()), []);
    }
}
