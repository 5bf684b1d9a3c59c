//! The place in the log: that of the connector, or those of groups that read the log themselves.

use std::time::Duration;

use sqlx::postgres::PgPool;

use super::codes;
use super::expected::Expected;
use super::finding::{Code, Finding, Remedy};
use super::horizon::Holder;
use super::quoting::literal;
use crate::groups::slots::{self, FORGOTTEN_BYTES, PARTS_LEFT};

/// How often, and how far apart, a slot that nobody seems to read is looked at again.
const LOOKS: u32 = 5;
const BETWEEN_LOOKS: Duration = Duration::from_millis(400);

/// A slot on the server.
#[derive(Debug, Clone, Default, PartialEq, Eq, sqlx::FromRow)]
pub(super) struct Facts {
    pub(super) name: String,
    pub(super) plugin: Option<String>,
    pub(super) is_here: bool,
    pub(super) is_active: bool,
    pub(super) wal_status: Option<String>,
    pub(super) safe_bytes: Option<i64>,
    pub(super) lag_bytes: Option<i64>,
    pub(super) kept_bytes: Option<i64>,
    /// Who reads it.
    pub(super) reader: Option<String>,
    /// Where its reader is, as far as it said: a place in the log, counted in bytes.
    pub(super) confirmed: Option<i64>,
    /// Prepared transactions are sent when they are prepared.
    pub(super) is_two_phase: bool,
    /// A standby gets it too; not known before Postgres 17.
    pub(super) is_failover: Option<bool>,
    /// Why it is lost, where the server says so.
    pub(super) invalid: Option<String>,
}

/// All slots of the server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Slots {
    pub(super) all: Vec<Facts>,
    /// Those of groups that read the log, as afterwrite knows them.
    pub(super) of_groups: Vec<slots::Slot>,
    pub(super) keep_bytes_max: Option<i64>,
}

impl Slots {
    pub(super) fn named(&self, name: &str) -> Option<&Facts> {
        self.all.iter().find(|slot| slot.name == name)
    }
}

/// Every slot; those of groups only where afterwrite's schema is there.
pub(super) async fn collect(pool: &PgPool, expected: &Expected, has_schema: bool) -> Result<Slots, sqlx::Error> {
    let all = sqlx::query_as(
        "SELECT slot.slot_name::text AS name, slot.plugin::text AS plugin, slot.database = current_database() AS is_here,
                slot.active AS is_active, wal_status, safe_wal_size AS safe_bytes,
                (written.lsn - confirmed_flush_lsn)::bigint AS lag_bytes, (written.lsn - restart_lsn)::bigint AS kept_bytes,
                activity.usename::text AS reader, (confirmed_flush_lsn - '0/0'::pg_lsn)::bigint AS confirmed,
                coalesce(to_jsonb(slot) ->> 'two_phase' = 'true', false) AS is_two_phase,
                (to_jsonb(slot) ->> 'failover')::boolean AS is_failover, to_jsonb(slot) ->> 'invalidation_reason' AS invalid
         FROM pg_replication_slots slot LEFT JOIN pg_stat_activity activity ON activity.pid = slot.active_pid
         CROSS JOIN (SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END AS lsn) written
         WHERE slot_type = 'logical' ORDER BY 1",
    )
    .fetch_all(pool)
    .await?;
    let of_groups = match has_schema && expected.brokers.is_none() {
        true => slots::read(pool, &expected.slots_begin).await?.slots,
        false => Vec::new(),
    };
    Ok(Slots {
        all,
        of_groups,
        keep_bytes_max: slots::keep_bytes_max(pool).await?,
    })
}

/// Commands that let a connector begin with what is written from then on.
#[derive(Debug)]
pub(super) struct Ways {
    /// With the slot that there is, or is not.
    pub(super) anew: String,
    /// Without the slot that there is.
    pub(super) without: String,
}

/// Looks again at a slot that nobody reads though its connector runs: one that was started a moment ago reads it soon, and one that
/// fails again and again reads it for moments only.
pub(super) async fn look_again(pool: &PgPool, slots: &mut Slots, name: &str) -> Result<(), sqlx::Error> {
    let Some(slot) = slots.all.iter_mut().find(|slot| slot.name == name && !slot.is_active) else {
        return Ok(());
    };
    let mut active = 0;
    for _ in 0..LOOKS {
        tokio::time::sleep(BETWEEN_LOOKS).await;
        let is_active: Option<bool> =
            sqlx::query_scalar("SELECT active FROM pg_replication_slots WHERE slot_name = $1::name")
                .bind(name)
                .fetch_optional(pool)
                .await?;
        active += u32::from(is_active == Some(true));
    }
    slot.is_active = active * 2 > LOOKS;
    Ok(())
}

/// What is wrong with the connector's slot. `runs` says that its task does; `is_before_publication`, that the slot still holds log
/// which was written before the publication was made.
pub(super) fn of_connector(
    slots: &Slots,
    name: &str,
    runs: bool,
    is_before_publication: bool,
    ways: &Ways,
) -> Vec<Finding> {
    let Some(slot) = slots.named(name) else {
        return vec![codes::SLOT_MISSING.found(
            format!("there is no replication slot {name}, which the connector reads"),
            Remedy::shell(&*ways.anew),
        )];
    };
    let mut found = Vec::new();
    let plugin = slot.plugin.as_deref().unwrap_or("none");
    if plugin != "pgoutput" || !slot.is_here {
        let whose = if slot.is_here { "" } else { ", of another database" };
        found.push(codes::SLOT_FOREIGN.found(
            format!("slot {name} is one of plug-in {plugin}{whose}"),
            Remedy::words("give the connector another slot.name, or drop the slot if nobody needs it: SELECT pg_drop_replication_slot(…)"),
        ));
        return found;
    }
    if !slot.is_active && runs {
        found.push(of_idle(name, is_before_publication, ways));
    }
    found.extend(danger(slot, slots.keep_bytes_max, &ways.without));
    if slot.lag_bytes.is_some_and(|lag| lag > FORGOTTEN_BYTES) && found.is_empty() {
        found.push(codes::SLOT_LAG.found(
            format!("{} of log are written that the connector has not confirmed in slot {name}", megabytes(slot.lag_bytes)),
            Remedy::words(
                "see that the connector's task runs and its topics take records; raise heartbeat.interval.ms above 0 where its tables are \
                 idle; end transactions that are open for long",
            ),
        ));
    }
    found
}

fn of_idle(name: &str, is_before_publication: bool, ways: &Ways) -> Finding {
    if is_before_publication {
        return codes::PUBLICATION_YOUNG.found(
            format!("the connector tries again and again to read slot {name}, which holds log from before the publication was made"),
            Remedy::shell(format!(
                "{}: only when the log of Kafka Connect says that the publication does not exist; $DATABASE_URL names a role that may replicate",
                ways.without
            )),
        );
    }
    codes::SLOT_INACTIVE.found(
        format!("the connector's task runs, and nobody reads its slot {name}"),
        Remedy::words(
            "wait a minute if the connector was just started; else see the log of Kafka Connect: the task cannot reach Postgres, or reads \
             another server than postgres.url names",
        ),
    )
}

/// What is wrong with how the connector's slot was made, and with what it keeps. `writer` is the transaction that has written for
/// longest.
pub(super) fn of_make(
    slots: &Slots,
    name: &str,
    fails_over: bool,
    writer: Option<&Holder>,
    ways: &Ways,
) -> Vec<Finding> {
    let Some(slot) = slots.named(name) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    if slot.is_two_phase {
        found.push(codes::SLOT_TWO_PHASE.found(
            format!("slot {name} was made with two_phase"),
            Remedy::shell(&*ways.without),
        ));
    }
    if fails_over && slot.is_failover == Some(false) {
        found.push(codes::SLOT_FAILOVER.found(
            format!("the connector has slot.failover = true, and slot {name} was made without"),
            Remedy::shell(format!(
                "{}; or keep it, with the connector stopped, by ALTER_REPLICATION_SLOT {name} (FAILOVER true) on a replication session",
                ways.without
            )),
        ));
    }
    found.extend(held(name, slot.kept_bytes, slot.lag_bytes, writer));
    found
}

/// Log that is kept though it was confirmed: a transaction that began to write before it is not done.
fn held(name: &str, kept: Option<i64>, lag: Option<i64>, writer: Option<&Holder>) -> Option<Finding> {
    let (kept, lag) = (kept?, lag?.max(0));
    if kept - lag <= FORGOTTEN_BYTES {
        return None;
    }
    let remedy = match writer.and_then(|writer| Some((writer, writer.end()?))) {
        Some((writer, end)) => Remedy::sql(format!(
            "{end} -- the transaction of {} that has written for longest, when it may end",
            writer.name
        )),
        None => Remedy::words(
            "nothing writes any more: wait until the slot's reader has confirmed what comes next, or restart it",
        ),
    };
    Some(codes::SLOT_HELD.found(
        format!(
            "{} of log before what is confirmed in slot {name} are kept",
            megabytes(Some(kept - lag))
        ),
        remedy,
    ))
}

fn danger(slot: &Facts, keep_bytes_max: Option<i64>, begin_anew: &str) -> Option<Finding> {
    let name = &slot.name;
    match slot.wal_status.as_deref() {
        Some("lost") => {
            return Some(codes::SLOT_LOST.found(
                format!(
                    "slot {name} is lost: the server removed log that was not read ({})",
                    slot.invalid.as_deref().unwrap_or("max_slot_wal_keep_size")
                ),
                Remedy::shell(begin_anew),
            ));
        }
        Some("unreserved") => return Some(near_loss(codes::SLOT_DANGER, name, slot.safe_bytes)),
        _ => {}
    }
    let is_little = |left: i64| keep_bytes_max.is_some_and(|max| left < max / PARTS_LEFT);
    slot.safe_bytes
        .is_some_and(is_little)
        .then(|| near_loss(codes::SLOT_DANGER, name, slot.safe_bytes))
}

fn near_loss(code: &'static Code, name: &str, left: Option<i64>) -> Finding {
    code.found(
        format!(
            "slot {name} is lost when another {} of log are written",
            megabytes(left)
        ),
        Remedy::sql("ALTER SYSTEM SET max_slot_wal_keep_size = '100GB'; SELECT pg_reload_conf();"),
    )
}

/// Slots that nobody reads and that keep much log, whoever's they are.
pub(super) fn of_others(slots: &Slots, ours: &[&str]) -> Vec<Finding> {
    let hoards = |slot: &&Facts| {
        !ours.contains(&slot.name.as_str())
            && !slot.is_active
            && slot.kept_bytes.is_some_and(|kept| kept > FORGOTTEN_BYTES)
            && slot.wal_status.as_deref() != Some("lost")
    };
    let told = slots.all.iter().filter(hoards).map(|slot| {
        codes::SLOT_HOARDS.found(
            format!(
                "nobody reads slot {}, and the server keeps {} of log for it",
                slot.name,
                megabytes(slot.kept_bytes)
            ),
            Remedy::sql(format!(
                "SELECT pg_drop_replication_slot({}); -- if nobody needs it any more",
                literal(&slot.name)
            )),
        )
    });
    told.collect()
}

/// What is wrong with the slots of groups that read the log.
pub(super) fn of_groups(slots: &Slots, expected: &Expected, writer: Option<&Holder>) -> Vec<Finding> {
    let mut found = Vec::new();
    for group in &expected.groups {
        let Some(slot) = slots
            .of_groups
            .iter()
            .find(|slot| slot.group.as_deref() == Some(group.name.as_str()))
        else {
            continue;
        };
        let name = &slot.slot;
        let drop = || {
            Remedy::shell(format!(
                "afterwrite slot drop {name} # then start the group: it begins with what is written from then on"
            ))
        };
        if !slot.is_there {
            found.push(codes::GROUP_SLOT_GONE.found(format!("slot {name} of group {} is gone", group.name), drop()));
        } else if slot.is_lost() {
            found.push(codes::SLOT_LOST.found(format!("slot {name} of group {} is lost", group.name), drop()));
        } else {
            let is_little = |left: i64| slots.keep_bytes_max.is_some_and(|max| left < max / PARTS_LEFT);
            if slot.wal_status.as_deref() == Some("unreserved") || slot.safe_bytes.is_some_and(is_little) {
                found.push(near_loss(codes::SLOT_DANGER, name, slot.safe_bytes));
            }
            found.extend(held(name, slot.kept_bytes, slot.lag_bytes, writer));
        }
    }
    found
}

fn megabytes(bytes: Option<i64>) -> String {
    format!("{} MB", bytes.unwrap_or_default().max(0) / (1024 * 1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot() -> Facts {
        Facts {
            name: "dbz".to_owned(),
            plugin: Some("pgoutput".to_owned()),
            is_here: true,
            is_active: true,
            wal_status: Some("reserved".to_owned()),
            ..Facts::default()
        }
    }

    #[test]
    fn what_is_wrong_with_the_connectors_slot_is_told() {
        let ways = Ways {
            anew: "curl …".to_owned(),
            without: "psql …".to_owned(),
        };
        type Change<'c> = &'c dyn Fn(&mut Facts);
        let changes: [(Change<'_>, bool, &[&str]); 10] = [
            (&|_| {}, true, &[]),
            (&|slot| slot.name = "other".to_owned(), true, &["slot-missing"]),
            (
                &|slot| slot.plugin = Some("wal2json".to_owned()),
                true,
                &["slot-foreign"],
            ),
            (&|slot| slot.is_here = false, true, &["slot-foreign"]),
            (&|slot| slot.is_active = false, true, &["slot-inactive"]),
            // Said of the connector already.
            (&|slot| slot.is_active = false, false, &[]),
            (&|slot| slot.wal_status = Some("lost".to_owned()), true, &["slot-lost"]),
            (
                &|slot| slot.wal_status = Some("unreserved".to_owned()),
                true,
                &["slot-danger"],
            ),
            (&|slot| slot.safe_bytes = Some(10), true, &["slot-danger"]),
            (&|slot| slot.lag_bytes = Some(FORGOTTEN_BYTES + 1), true, &["slot-lag"]),
        ];
        for (change, runs, codes) in changes {
            let mut facts = slot();
            change(&mut facts);
            let slots = Slots {
                all: vec![facts],
                of_groups: Vec::new(),
                keep_bytes_max: Some(1000),
            };
            let found = of_connector(&slots, "dbz", runs, false, &ways);
            let found: Vec<&str> = found.iter().map(|finding| finding.code.name).collect();
            assert_eq!(found, codes, "{slots:?}");
        }
    }

    #[test]
    fn a_publication_that_is_younger_than_the_log_is_told_from_a_connector_that_is_cut_off() {
        let ways = Ways {
            anew: "curl …".to_owned(),
            without: "psql …".to_owned(),
        };
        for (is_active, is_before, codes) in [
            (false, true, &["publication-young"][..]),
            (false, false, &["slot-inactive"]),
            (true, true, &[]),
        ] {
            let slots = Slots {
                all: vec![Facts { is_active, ..slot() }],
                ..Slots::default()
            };
            let found = of_connector(&slots, "dbz", true, is_before, &ways);
            let found: Vec<&str> = found.iter().map(|finding| finding.code.name).collect();
            assert_eq!(found, codes);
        }
    }

    #[test]
    fn how_a_slot_was_made_and_what_it_keeps_is_told() {
        let ways = Ways {
            anew: "curl …".to_owned(),
            without: "psql …".to_owned(),
        };
        let writer = Holder {
            kind: "session".to_owned(),
            name: "app".to_owned(),
            pid: Some(7),
            age: 1,
        };
        let kept = |kept, lag| Facts {
            kept_bytes: Some(kept),
            lag_bytes: Some(lag),
            ..slot()
        };
        let failover = |is_failover| Facts { is_failover, ..slot() };
        let two_phase = Facts {
            is_two_phase: true,
            ..slot()
        };
        for (facts, fails_over, codes) in [
            (slot(), true, &[][..]),
            (two_phase, false, &["slot-two-phase"]),
            (failover(Some(false)), true, &["slot-failover"]),
            (failover(Some(false)), false, &[]),
            (failover(Some(true)), true, &[]),
            (kept(FORGOTTEN_BYTES + 10, 10), false, &[]),
            (kept(FORGOTTEN_BYTES + 10, 9), false, &["slot-held"]),
        ] {
            let slots = Slots {
                all: vec![facts],
                ..Slots::default()
            };
            let found = of_make(&slots, "dbz", fails_over, Some(&writer), &ways);
            let names: Vec<&str> = found.iter().map(|finding| finding.code.name).collect();
            assert_eq!(names, codes, "{slots:?}");
        }
        let found = held("dbz", Some(FORGOTTEN_BYTES + 2), Some(1), Some(&writer)).unwrap();
        assert!(found.remedy.parts().1.starts_with("SELECT pg_terminate_backend(7);"));
        let found = held("dbz", Some(FORGOTTEN_BYTES + 2), Some(1), None).unwrap();
        assert_eq!(found.remedy.parts().0, "by hand");
    }

    #[test]
    fn a_slot_that_nobody_reads_is_told_when_it_keeps_much() {
        let kept = |kept| Facts {
            is_active: false,
            kept_bytes: Some(kept),
            ..slot()
        };
        let slots = |slot| Slots {
            all: vec![slot],
            ..Slots::default()
        };
        assert_eq!(of_others(&slots(kept(FORGOTTEN_BYTES)), &[]), []);
        assert_eq!(of_others(&slots(kept(FORGOTTEN_BYTES + 1)), &["dbz"]), []);
        assert_eq!(
            of_others(&slots(kept(FORGOTTEN_BYTES + 1)), &[])[0].code.name,
            "slot-hoards"
        );
    }
}
